"""The method for those who name none, and why."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdiffeq.methods.auto import Auto
from jaxdiffeq.methods.dirk import KenCarp3, KenCarp4, KenCarp58
from jaxdiffeq.methods.explicit import BS3, Tsit5, Vern7, Vern9
from jaxdiffeq.methods.multistep import BDF
from jaxdiffeq.methods.rosenbrock import Rodas5P, Rosenbrock23
from jaxdiffeq.methods.stochastic import ALIGN, SOSRA, SOSRI, UBU, SPaRK
from jaxdiffeq.primitives.jax_internals import Tracer

LARGE = 200  # unknowns: from here on a dense Jacobian costs more than it is worth to be ready for it


class Recommendation(NamedTuple):
    """A method for a problem, and the reason."""

    method: Any
    why: str

    def __repr__(self) -> str:
        return f"{self.method}: {self.why}"


class Traits(NamedTuple):
    """What a choice depends on: the number of unknowns, and what the problem says about itself."""

    size: int
    mass: bool = False
    structure: bool = False
    split: bool = False
    equal_steps: bool = False
    residual: bool = False
    """dy/dt is not given, but follows from an equation"""
    noise: str | None = None
    """of which kind there is some"""
    interpretation: str = "ito"
    langevin: bool = False


def choose(rtol: Any, traits: Traits) -> Recommendation:
    """The method for this tolerance; if it is traced or zero, for a middling one.

    Shapes: rtol is one number, or an array or a pytree of them, of which the tightest one decides.
    """
    given = [rtol] if isinstance(rtol, float) else jax.tree.leaves(rtol)
    if any(isinstance(x, Tracer) for x in given) or not given:
        return _choose(1e-3, traits)
    tightest = 1.0001 * min(float(np.min(x)) for x in given)  # so that a 1e-6 in float32 is no less than 1e-6
    return _choose(tightest if tightest > 0 else 1e-3, traits)  # 0: atol alone decides, and has the unit of y


@functools.lru_cache
def _choose(rtol: float, traits: Traits) -> Recommendation:
    if traits.noise is not None:
        return _for_noise(traits)
    if traits.residual:
        return Recommendation(BDF(), "an equation that has to be solved for dy/dt")
    if traits.mass:
        if traits.size > LARGE and not traits.structure:
            return Recommendation(BDF(), "a mass matrix and many unknowns: few factorisations")
        return Recommendation(Rodas5P() if rtol < 1e-2 else Rosenbrock23(), "a mass matrix takes an implicit method")
    if traits.split:
        method = KenCarp3() if rtol >= 1e-3 else KenCarp4() if rtol >= 1e-7 else KenCarp58()
        return Recommendation(method, "a split problem, each part in its way; chosen for the tolerance")
    explicit = _explicit(rtol)
    if traits.equal_steps:
        return Recommendation(explicit, "equal steps leave nothing to switch by; chosen for the tolerance")
    if traits.size > LARGE and not traits.structure:
        why = f"more than {LARGE} unknowns, of a Jacobian with unknown structure; chosen for the tolerance"
        return Recommendation(explicit, why)
    nonstiff = Tsit5() if rtol >= 1e-6 else explicit
    stiff = Rosenbrock23() if rtol >= 1e-2 else Rodas5P()
    return Recommendation(Auto(nonstiff, stiff), "switches when the problem turns out stiff; chosen for the tolerance")


def _for_noise(traits: Traits) -> Recommendation:
    if traits.langevin:
        return Recommendation(
            UBU() if traits.equal_steps else ALIGN(), "friction and a force: strong order 2, one call"
        )
    if traits.noise == "additive":
        return Recommendation(SOSRA(), "additive noise: strong order 3/2 in three stages")
    if traits.interpretation == "ito" and traits.noise in ("diagonal", "scalar"):
        return Recommendation(SOSRI(), "Itô, one Brownian motion at a time: strong order 3/2 in four stages")
    how = ", the drift corrected from Itô's" if traits.interpretation == "ito" else ""
    return Recommendation(SPaRK(), f"takes any noise, strong order 1 where that commutes, in three stages{how}")


def _explicit(rtol: float) -> Any:
    # Evaluations of f, geometric mean over Lotka–Volterra, Brusselator, rigid body, Van der Pol, pendulum, Lorenz and
    # Arenstorf orbit, saving the end only:
    #     rtol      1e-1   1e-2   1e-3   1e-4   1e-6   1e-8  1e-10
    #     BS3        111    190    372    781   3556  16478      –
    #     Tsit5      186    225    297    411    925   2166   5401
    #     Vern7      301    343    437    540    913   1593   2980
    #     Vern9      408    505    549    633    918   1394   2128
    # At 1e-2 BS3 and Tsit5 cost the same for the same error, at 1e-6 Tsit5 and Vern7 for the same tolerance. Vern9
    # waits until it saves a fifth: it is the longest to compile, and its dense output takes nine stages (Vern7: 5).
    if rtol >= 1e-2:
        return BS3()
    if rtol >= 1e-6:
        return Tsit5()
    if rtol >= 1e-9:
        return Vern7()
    return Vern9()
