"""A root of a function of one number that cannot leave its bracket."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiffeq.primitives.while_loop import frozen_while


class _Bracket(NamedTuple):
    """x₁ the newest point, [x₁, x₂] the bracket, x₃ the point before: Chandrupatla's names."""

    x1: jax.Array
    x2: jax.Array
    x3: jax.Array
    f1: jax.Array
    f2: jax.Array
    f3: jax.Array
    share: jax.Array
    """of the bracket, from x₁, where to look next"""
    left: jax.Array
    """trips that may still be made"""


def root(f: Callable[[jax.Array], jax.Array], low: tuple, high: tuple, unit: jax.Array, tries: int = 100) -> jax.Array:
    """x with f(x) = 0, to within `unit`, between `low` and `high`, each x and f(x), these of different signs.

    No derivative. Inverse quadratic interpolation where three points show that it converges, bisection otherwise.
    Source: Chandrupatla 1997, doi:10.1016/S0965-9978(96)00051-8.
    """
    (x1, f1), (x2, f2) = high, low
    begin = _Bracket(x1, x2, x2, f1, f2, f2, jnp.full_like(x1, 0.5), jnp.full((), tries, jnp.int32))

    def running(_, at):
        best = jnp.minimum(jnp.abs(at.f1), jnp.abs(at.f2))
        return (at.left > 0) & (best != 0) & (jnp.abs(at.x2 - at.x1) > unit)

    def trip(_, at):
        live = running((), at)
        x = at.x1 + jnp.where(live, at.share, 0) * (at.x2 - at.x1)  # x₁ again, once done: the bracket stays
        value = lax.optimization_barrier(f(x))
        same = jnp.sign(value) == jnp.sign(at.f1)
        x3, f3 = jnp.where(same, at.x1, at.x2), jnp.where(same, at.f1, at.f2)
        x2, f2 = jnp.where(same, at.x2, at.x1), jnp.where(same, at.f2, at.f1)
        new = _Bracket(x, x2, x3, value, f2, f3, at.share, at.left - live.astype(at.left.dtype))
        new = lax.optimization_barrier(new)
        return (), new._replace(share=_share(new, unit))

    _, at = frozen_while(running, trip, (), begin)
    return jnp.where(jnp.abs(at.f2) < jnp.abs(at.f1), at.x2, at.x1)


def _share(at: _Bracket, unit: jax.Array) -> jax.Array:
    """Where to look next, at least half a unit away from the ends."""
    near = jnp.clip(unit / 2 / jnp.maximum(jnp.abs(at.x2 - at.x1), jnp.finfo(unit.dtype).tiny), 0, 0.5)
    xi, phi = _over(at.x1 - at.x2, at.x3 - at.x2), _over(at.f1 - at.f2, at.f3 - at.f2)
    converges = (phi**2 < xi) & ((1 - phi) ** 2 < 1 - xi)
    quadratic = _over(at.f1, at.f2 - at.f1) * _over(at.f3, at.f2 - at.f3)
    quadratic += _over(at.x3 - at.x1, at.x2 - at.x1) * _over(at.f1, at.f3 - at.f1) * _over(at.f2, at.f3 - at.f2)
    return jnp.clip(jnp.where(converges & jnp.isfinite(quadratic), quadratic, 0.5), near, 1 - near)


def _over(a: jax.Array, b: jax.Array) -> jax.Array:
    return a / jnp.where(b == 0, jnp.inf, b)
