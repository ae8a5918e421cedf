"""The right-hand side, and what else an implicit method asks about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax

from jaxdiffeq.types import Context, PyTree

Slope = Callable[[jax.Array, jax.Array, PyTree], jax.Array]  # (t, y, args) ↦ dy/dt, all on one array
Residual = Callable[[jax.Array, jax.Array, jax.Array, PyTree], jax.Array]  # (t, y, dy/dt, args) ↦ zero


@dataclass(frozen=True)
class VectorField:
    """M·dy/dt = f(t, y, args), where M is the identity if `mass` is None; or F(t, y, dy/dt, args) = 0.

    Of the latter `residual` is F, `f` is −F at rest, and `guess` what is known of dy/dt at the start. `parts` are the
    implicit and the explicit term of a split problem, whose sum is f. Shapes: y [*state] with n numbers; `jacobian`
    ∂f/∂y, [n, n], and `mass` a function of args, [n] for a diagonal or [n, n].
    """

    f: Slope
    structure: Any = None
    """which entries of ∂f/∂y may differ from zero; None: all"""
    autonomous: bool = False
    """f is known not to depend on t"""
    jacobian: Slope | None = None
    mass: Callable[[PyTree], jax.Array] | None = None
    parts: tuple[Slope, Slope] | None = None
    residual: Residual | None = None
    guess: Callable[[PyTree], jax.Array] | None = None
    in_context: Callable[[Context], VectorField] | None = None
    """the field during a step, where it depends on that step's number or on the past"""

    @property
    def is_slope(self) -> bool:
        """dy/dt = f."""
        return self.mass is None and self.residual is None

    def __call__(self, t: jax.Array, y: jax.Array, args: PyTree) -> jax.Array:
        return self.f(t, y, args)

    @property
    def whole(self) -> VectorField:
        """For a method that takes the sum as it is: what is known of the implicit part says nothing about it."""
        return self if self.parts is None else VectorField(self.f, autonomous=self.autonomous)

    @property
    def implicit(self) -> VectorField:
        """The implicit part, or all of f where it has no parts."""
        return self if self.parts is None else replace(self, f=self.parts[0], parts=None)

    def at(self, clock: Callable[[jax.Array], jax.Array] | None, context: Context) -> VectorField:
        """The field during a step, asked at `clock(t)`, if there is a clock, for what is wanted at t."""
        if self.in_context is not None:
            return self.in_context(context).at(clock, context)
        if clock is None:
            return self

        def moved(f):
            return lambda t, *rest: f(clock(t), *rest)

        residual = None if self.residual is None else moved(self.residual)
        jacobian = None if self.jacobian is None else moved(self.jacobian)
        parts = None if self.parts is None else (moved(self.parts[0]), moved(self.parts[1]))
        return replace(self, f=moved(self.f), jacobian=jacobian, parts=parts, residual=residual)
