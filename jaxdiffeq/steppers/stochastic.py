"""Methods for equations with noise: what they share, and Euler's method for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdiffeq.engine.control import PIController
from jaxdiffeq.noise.kinds import NAMES
from jaxdiffeq.problems.driven_field import DrivenField
from jaxdiffeq.steppers.base import StepperDefaults
from jaxdiffeq.types import State, Step

ITO, STRATONOVICH = "ito", "stratonovich"


class StochasticDefaults(StepperDefaults):
    """The members that a method for noise may leave as they are. It carries nothing from step to step."""

    takes_noise: ClassVar[bool] = True
    interpretations: ClassVar[tuple[str, ...]] = (ITO,)
    """the calculus in which it takes an equation; for additive noise both are one"""
    serves: ClassVar[tuple[str, ...]] = NAMES
    """the kinds of noise"""
    strong_order: ClassVar[Any] = None
    """of E|y(t) − yₙ|, on the noise it serves; None: it is made for laws, not for paths"""
    weak_order: ClassVar[Any] = None
    """of |E g(y(t)) − E g(yₙ)|"""
    error_order: ClassVar[Any] = None
    degree: ClassVar[int] = 1
    dense_order: ClassVar[int] = 1
    regularisers: ClassVar[Any] = ()
    controller: ClassVar[Any] = PIController()

    @property
    def order(self) -> float:
        return self.weak_order if self.strong_order is None else self.strong_order

    def init(self, f: DrivenField, t: jax.Array, y: jax.Array, args: Any) -> tuple:
        return ()

    def polynomial(self, f: DrivenField, dense: Any, args: Any) -> jax.Array:
        """The straight line from y to y₁: about the mean of what lies between them. Shapes: [2, *state]."""
        y, y1 = dense
        return jnp.stack([y, y1 - y])


@dataclass(frozen=True)
class EulerMaruyamaStepper(StochasticDefaults):
    """y₁ = y + a·h + b·ΔW.

    Source: Maruyama 1955; Kloeden, Platen, Numerical Solution of Stochastic Differential Equations, 10.2.
    """

    name: ClassVar[str] = "EulerMaruyama"
    strong_order: ClassVar[Any] = 0.5
    weak_order: ClassVar[Any] = 1
    evaluations: ClassVar[tuple[int, int, int]] = (0, 1, 0)

    def __repr__(self) -> str:
        return f"{self.name}()"

    def step(self, f: DrivenField, start: State, t1: jax.Array, args: Any, tolerance: Any = None) -> Step:
        t, y = start.t, start.y
        drift, diffusion = f(t, y, args), f.diffusion(t, y, args)
        dw = f.over(t, t1, args).w
        y1 = y + (t1 - t).astype(y.dtype) * drift + f.times(diffusion, dw)
        return Step(State(t1, y1, ()), None, (y, y1), True)
