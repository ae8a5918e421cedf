"""A method that can be run backwards: from the end of a step its start follows in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax

from jaxdiffeq.problems.driven_field import DrivenField
from jaxdiffeq.steppers.stochastic import COMMUTATIVE, STRATONOVICH, StochasticDefaults, sizes
from jaxdiffeq.types import State, Step


class Partner(NamedTuple):
    """A second solution z beside y, and the equation there."""

    z: jax.Array
    drift: jax.Array
    diffusion: jax.Array


@dataclass(frozen=True, repr=False)
class ReversibleHeunStepper(StochasticDefaults):
    """z₁ = 2y − z + a·dt + b·W,   y₁ = y + ½(a + a₁)·dt + ½(b + b₁)·W,   a, b at (t, z), a₁, b₁ at (t₁, z₁).

    err = ½(a₁ − a)·dt + ½(b₁ − b)·W. One call a step of the drift and of the diffusion.
    Source: Kidger, Foster, Li, Lyons 2021, arXiv:2105.13493, Algorithms 1 and 2.
    """

    name: ClassVar[Any] = "ReversibleHeun"
    interpretations: ClassVar[tuple[str, ...]] = (STRATONOVICH,)
    strong_order: ClassVar[Any] = 0.5
    strong_orders: ClassVar[Any] = COMMUTATIVE
    weak_order: ClassVar[Any] = 1
    directions: ClassVar[int] = 1
    error_order: ClassVar[Any] = 1.0
    evaluations: ClassVar[tuple[int, int, int]] = (1, 1, 0)

    def init(self, f: DrivenField, t: jax.Array, y: jax.Array, args: Any) -> Partner:
        return Partner(y, f(t, y, args), f.diffusion(t, y, args))

    def step(self, f: DrivenField, start: State, t1: jax.Array, args: Any, tolerance: Any = None) -> Step:
        t, y, _, dt, *_ = sizes(start, t1)
        w, (z, a, b) = f.over(t, t1, args).w, start.memory
        z1 = 2 * y - z + dt * a + f.times(b, w)
        a1, b1 = f(t1, z1, args), f.diffusion(t1, z1, args)
        y1 = y + 0.5 * (dt * (a + a1) + f.times(b + b1, w))
        error = 0.5 * (dt * (a1 - a) + f.times(b1 - b, w))
        return Step(State(t1, y1, Partner(z1, a1, b1)), error, (y, y1), True)

    def back(self, f: DrivenField, after: State, t0: jax.Array, args: Any) -> State:
        """The state at t₀ from which `step` has made `after`, up to rounding; f in the context of that step."""
        t1, y1, (z1, a1, b1) = after.t, after.y, after.memory
        dt, w = (t1 - t0).astype(y1.dtype), f.over(t0, t1, args).w
        z = 2 * y1 - z1 - dt * a1 - f.times(b1, w)
        a, b = f(t0, z, args), f.diffusion(t0, z, args)
        y = y1 - 0.5 * (dt * (a + a1) + f.times(b + b1, w))
        return after._replace(t=t0, y=y, memory=Partner(z, a, b))
