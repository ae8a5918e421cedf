"""The methods as users name them: each is a family of steppers bound to its numbers, `Tsit5()` is `ExplicitRK(TSIT5)`.

A docstring gives the order (of the embedded solution in brackets; without one, and without an error estimate of its
own, the method takes fixed steps only), the stages, the order of the dense output where it is not cubic Hermite, with
the calls of f that it takes, what it is good for, and its source.
"""

from jaxdiffeq.methods.auto import *  # noqa: F403
from jaxdiffeq.methods.collocation import *  # noqa: F403
from jaxdiffeq.methods.dirk import *  # noqa: F403
from jaxdiffeq.methods.explicit import *  # noqa: F403
from jaxdiffeq.methods.multistep import *  # noqa: F403
from jaxdiffeq.methods.rosenbrock import *  # noqa: F403
from jaxdiffeq.methods.stochastic import *  # noqa: F403
