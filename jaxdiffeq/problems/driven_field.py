"""Equations with noise, as methods and the loop see them: dy = a(t, y, args) dt + b(t, y, args) dW."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, Self

import jax
import jax.numpy as jnp

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
    """a `jaxdiffeq.interfaces.Path`"""
    of_path: Callable[[PyTree], Any]
    """args ↦ the key, or the arrays of a path that was given"""
    context: Context = FIRST
    ito: bool = False
    """the drift is one of Itô's calculus"""
    alone: Callable[[], bool] = bool
    """whether b is like y, and each number of it is known to depend on its own number of y alone"""
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

    def smooth(self, t: jax.Array, y: jax.Array, args: PyTree) -> jax.Array:
        """The drift in Stratonovich's calculus, whose rules are those of smooth paths."""
        a = self.f(t, y, args)
        return a if not self.ito or self.kind.additive else a - self.between_calculi(t, y, args)

    def between_calculi(self, t: jax.Array, y: jax.Array, args: PyTree) -> jax.Array:
        """½ Σ (∂bʲ/∂y)·bʲ over the columns of b: what an Itô drift has more than a Stratonovich one.

        Source: Kloeden, Platen, Numerical Solution of Stochastic Differential Equations, 4.9.
        """
        b = lambda y: self.diffusion(t, y, args)
        if self.alone():  # of the Jacobian, which is diagonal, one product has all entries
            return 0.5 * jax.jvp(b, (y,), (b(y),))[1]
        return 0.5 * _self_induced(lambda y: self.kind.matrix(b(y)), y)


def _self_induced(columns: Callable[[jax.Array], jax.Array], y: jax.Array) -> jax.Array:
    b = columns(y)

    def of(j):
        _, along = jax.jvp(lambda y: jnp.take(columns(y), j, axis=-1), (y,), (jnp.take(b, j, axis=-1),))
        return along

    return jnp.sum(jax.vmap(of)(jnp.arange(b.shape[-1])), axis=0)
