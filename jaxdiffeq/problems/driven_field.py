"""Equations with noise, as methods and the loop see them: dy = a(t, y, args) dt + b(t, y, args) dW."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, Self

import jax

from jaxdiffeq.noise.kinds import Kind
from jaxdiffeq.problems.vector_field import Slope, VectorField, moved
from jaxdiffeq.types import Context, Increment, PyTree

FIRST = Context(0)


@dataclass(frozen=True)
class DrivenField(VectorField):
    """The drift a is `f`; `diffusion` is b, [*state] or [*state, m]; `path` gives the increments of W.

    `path.over(where, t0, t1, known)` is that from t0 to t1, which are ends of steps; `path.within(where, ends, t,
    known)` that from the first of `ends`, those of a step, to a time in between. `where` is the context of the step.
    """

    noisy = True

    _: KW_ONLY
    diffusion: Slope
    kind: Kind
    path: Any
    """a `jaxdiffeq.noise.paths.Path`"""
    of_path: Callable[[PyTree], Any]
    """args ↦ the key, or the arrays of a path that was given"""
    context: Context = FIRST
    ends: Any = None
    """of a step of which a part is taken, up to some time in it"""

    def at(self, clock: Callable | None, context: Context) -> DrivenField:
        return replace(self if clock is None else self.asked_at(clock), context=context)

    def asked_at(self, clock: Callable[[jax.Array], jax.Array]) -> Self:
        return replace(super().asked_at(clock), diffusion=moved(self.diffusion, clock))

    def within(self, t0: jax.Array, t1: jax.Array) -> DrivenField:
        """The equation in the step from t0 to t1, of which only a part is taken."""
        return replace(self, ends=(t0, t1))

    def over(self, t0: jax.Array, t1: jax.Array, args: PyTree) -> Increment:
        """Of W, over a step."""
        known = self.of_path(args)
        if self.ends is not None:
            return self.path.within(self.context, self.ends, t1, known)
        return self.path.over(self.context, t0, t1, known)

    def times(self, b: jax.Array, x: jax.Array) -> jax.Array:
        """b·x, [*state]."""
        return self.kind.times(b, x)
