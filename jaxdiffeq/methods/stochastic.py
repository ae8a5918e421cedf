"""Methods for equations with noise.

A docstring gives the calculus, the kinds of noise that a method serves, its strong order and its weak one, whether it
has an error estimate, what it is good for, and its source.
"""

from jaxdiffeq.steppers.stochastic import EulerMaruyamaStepper

__all__ = ["EulerMaruyama"]


def EulerMaruyama() -> EulerMaruyamaStepper:
    """Itô; any noise; strong 1/2 (1 if additive), weak 1. Simple and cheap, on equal steps. Maruyama 1955."""
    return EulerMaruyamaStepper()
