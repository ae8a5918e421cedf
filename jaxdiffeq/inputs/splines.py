"""Slopes of cubic splines at their knots, and the cubic between two of them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiffeq.problems.ravel import common_dtype
from jaxdiffeq.types import PyTree


def weight(x: Any, like: jax.Array) -> jax.Array:
    """A number to multiply with what is like this."""
    return jnp.asarray(x).astype(like.dtype)


def hermite(v0: Any, m0: Any, v1: Any, m1: Any, share: Any, length: Any) -> jax.Array:
    """v0 + θ·d + θ·(1 − θ)·((1 − θ)·(h·m0 − d) + θ·(d − h·m1)), d = v1 − v0: slopes m0 and m1 at both ends."""
    d = v1 - v0
    return v0 + share * (d + (1 - share) * ((1 - share) * (length * m0 - d) + share * (d - length * m1)))


@functools.partial(jax.jit, static_argnums=0)
def slopes_of(kind: str, ts: jax.Array, values: PyTree) -> PyTree:
    """At every knot. Shapes: [n], [n, *shape] ↦ [n, *shape], of every leaf."""

    def of(rows):
        if jnp.iscomplexobj(rows):
            return lax.complex(of(rows.real), of(rows.imag))
        wide = common_dtype((ts.dtype, rows.dtype))
        h = jnp.diff(ts.astype(wide))
        rise = jnp.diff(rows.astype(wide).reshape(rows.shape[0], -1), axis=0)
        found = KINDS[kind](h, rise / h[:, None])
        return found.astype(rows.dtype).reshape(rows.shape)

    return jax.tree.map(of, values)


# ---- Shapes: lengths h [n − 1] and secants s [n − 1, columns] ↦ slopes [n, columns]


def _parabolas(h: jax.Array, s: jax.Array) -> jax.Array:
    """mᵢ = (hᵢ·sᵢ₋₁ + hᵢ₋₁·sᵢ) / (hᵢ₋₁ + hᵢ), and at the ends those of the outermost parabolas."""
    if len(h) == 1:
        return jnp.concatenate([s, s])
    h = h[:, None]
    inner = (h[1:] * s[:-1] + h[:-1] * s[1:]) / (h[:-1] + h[1:])
    return jnp.concatenate([2 * s[:1] - inner[:1], inner, 2 * s[-1:] - inner[-1:]])


def _akima(h: jax.Array, s: jax.Array) -> jax.Array:
    """mᵢ = (wᵢ₊₁·sᵢ₋₁ + wᵢ₋₁·sᵢ) / (wᵢ₊₁ + wᵢ₋₁), wᵢ = |sᵢ − sᵢ₋₁|, with two secants more at either end, in line."""
    if len(h) == 1:
        return jnp.concatenate([s, s])
    more = [3 * s[:1] - 2 * s[1:2], 2 * s[:1] - s[1:2], s, 2 * s[-1:] - s[-2:-1], 3 * s[-1:] - 2 * s[-2:-1]]
    s = jnp.concatenate(more)
    w = jnp.abs(jnp.diff(s, axis=0))
    before, after = w[:-2], w[2:]
    total = before + after
    flat = total <= 1e-9 * jnp.max(total, axis=0, keepdims=True)
    mean = (after * s[1:-2] + before * s[2:-1]) / jnp.where(flat, 1, total)
    return jnp.where(flat, (s[1:-2] + s[2:-1]) / 2, mean)


def _natural(h: jax.Array, s: jax.Array) -> jax.Array:
    """u″ = 0 at the ends: 2·m₀ + m₁ = 3·s₀, and likewise at the other."""
    two, one = jnp.full(1, 2.0, h.dtype), jnp.ones(1, h.dtype)
    return _smooth(h, s, (two, one, 3 * s[:1]), (one, two, 3 * s[-1:]))


def _not_a_knot(h: jax.Array, s: jax.Array) -> jax.Array:
    """u‴ does not jump at the second knot: h₁·m₀ + (h₀ + h₁)·m₁ = ((3h₀ + 2h₁)·h₁·s₀ + h₀²·s₁) / (h₀ + h₁)."""
    if len(h) < 3:
        return _parabolas(h, s)

    def end(near, next_to_it, s_near, s_next):
        both = near + next_to_it
        known = ((3 * near + 2 * next_to_it) * next_to_it * s_near + near**2 * s_next) / both
        return next_to_it, both, known[None]

    first, last = end(h[:1], h[1:2], s[0], s[1]), end(h[-1:], h[-2:-1], s[-1], s[-2])
    return _smooth(h, s, first, (last[1], last[0], last[2]))


def _smooth(h: jax.Array, s: jax.Array, first: tuple, last: tuple) -> jax.Array:
    """hᵢ·mᵢ₋₁ + 2(hᵢ₋₁ + hᵢ)·mᵢ + hᵢ₋₁·mᵢ₊₁ = 3(hᵢ·sᵢ₋₁ + hᵢ₋₁·sᵢ): u″ does not jump at inner knots."""
    zero = jnp.zeros(1, h.dtype)
    lower = jnp.concatenate([zero, h[1:], last[0]])
    main = jnp.concatenate([first[0], 2 * (h[:-1] + h[1:]), last[1]])
    upper = jnp.concatenate([first[1], h[:-1], zero])
    inner = 3 * (h[1:, None] * s[:-1] + h[:-1, None] * s[1:])
    return _tridiagonal(lower, main, upper, jnp.concatenate([first[2], inner, last[2]]))


def _tridiagonal(lower: jax.Array, main: jax.Array, upper: jax.Array, known: jax.Array) -> jax.Array:
    """lowerᵢ·xᵢ₋₁ + mainᵢ·xᵢ + upperᵢ·xᵢ₊₁ = knownᵢ by elimination, without pivots: none vanishes here."""

    def down(above, row):
        a, b, c, d = row
        pivot = b - a * above[0]
        now = c / pivot, (d - a * above[1]) / pivot
        return now, now

    def up(below, row):
        x = row[1] - row[0] * below
        return x, x

    zero = jnp.zeros_like(known[0])
    _, rows = lax.scan(down, (jnp.zeros_like(main[0]), zero), (lower, main, upper, known))
    return lax.scan(up, zero, rows, reverse=True)[1]


KINDS: dict[str, Callable] = {
    "natural": _natural,
    "not-a-knot": _not_a_knot,
    "hermite": _parabolas,
    "akima": _akima,
}
