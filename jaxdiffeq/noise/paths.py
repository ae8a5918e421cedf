"""Where the increments of a Brownian motion come from: a key and the number of the step, a tree, or the user."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxdiffeq.algebra.norm import safe_sqrt
from jaxdiffeq.noise import tree
from jaxdiffeq.noise.normals import pair, seed_of, threefry
from jaxdiffeq.primitives.while_loop import frozen_while
from jaxdiffeq.types import Context, Increment

STEPS, INSIDE, TREE = 1, 2, 3  # what numbers are for
INSIDE_DEPTH = 24  # cells in a step, of which values inside it are multiples: their variance is right to 1e-7


@dataclass(frozen=True)
class Counted:
    """Increments drawn by the number of the step: no memory, and the path depends on the steps.

    Shapes: those of W; the key's data in `known`.
    """

    shape: tuple[int, ...]
    dtype: Any
    impl: str

    def over(self, where: Context, t0: jax.Array, t1: jax.Array, known: Any) -> Increment:
        return self._scaled(self._unit(where, known), where, (t0, t1), known)

    def within(self, where: Context, ends: tuple[jax.Array, jax.Array], t: jax.Array, known: Any) -> Increment:
        """By a tree of which the step is the root: nothing for its start, and for its end all of it."""
        seed = threefry(seed_of(known, INSIDE), jnp.asarray(where.number).astype(jnp.uint32), jnp.uint32(0))
        place = tree.position(t, ends, INSIDE_DEPTH)
        return self._scaled(tree.start_of(seed, self._unit(where, known), place, INSIDE_DEPTH), where, ends, known)

    def _unit(self, where: Context, known: Any) -> tree.Piece:
        """Over a step that is one long."""
        w, n = pair(seed_of(known, STEPS), where.number, self.shape, self.dtype)
        return tree.Piece(w, 12**-0.5 * n, jnp.ones((), self.dtype))

    def _scaled(self, piece: tree.Piece, where: Context, ends: tuple, known: Any) -> Increment:
        size = safe_sqrt(jnp.abs(ends[1] - ends[0])).astype(self.dtype)
        key = jax.random.fold_in(jax.random.wrap_key_data(known, impl=self.impl), where.number)
        return Increment(size * piece.w, size * piece.h, key)

    def at(self, span: tuple[jax.Array, jax.Array], size: jax.Array, t: jax.Array, known: Any) -> jax.Array:
        """W(t), by way of all steps before: these have this size."""
        number = jnp.clip(jnp.floor((t - span[0]) / size), 0, None).astype(jnp.int32)

        def add(_, s):
            i, w = s
            more = self.over(Context(i), jnp.zeros_like(size), size, known).w
            return (), (i + 1, jnp.where(i < number, w + more, w))

        begin = jnp.int32(0), jnp.zeros(self.shape, self.dtype)
        _, (_, w) = frozen_while(lambda _, s: s[0] < number, add, (), begin)
        start = span[0] + number.astype(size.dtype) * size
        return w + self.within(Context(number), (start, start + size), t, known).w


@dataclass(frozen=True)
class Tree:
    """One path for one key, wherever it is asked: increments between places on a grid over the span of the solve.

    Shapes: those of W; the key's data in `known`, with the span if it is the path's own. Times are constants to
    differentiation but for the length of the span: with t₀ or t₁ a path is stretched, W(t) = √(t₁ − t₀)·B(u) at
    u = (t − t₀)/(t₁ − t₀).
    """

    shape: tuple[int, ...]
    dtype: Any
    impl: str
    own_span: bool = False

    def over(self, where: Context, t0: jax.Array, t1: jax.Array, known: Any) -> Increment:
        """Also from a later time to an earlier one."""
        words, span = known if self.own_span else (known, where.span)
        w, area, places = self._between(span, t0, t1, words)
        key = jax.random.wrap_key_data(words, impl=self.impl)
        for place in places:
            for word in (place >> 31 >> 1, place):
                key = jax.random.fold_in(key, word.astype(jnp.uint32))
        return Increment(w, area, key)

    def within(self, where: Context, ends: tuple[jax.Array, jax.Array], t: jax.Array, known: Any) -> Increment:
        return self.over(where, ends[0], t, known)

    def snapped(self, where: Context, t: jax.Array, dt: jax.Array) -> jax.Array:
        """The step from t that is about dt, to where the path is cheap."""
        return tree.snap(t, dt, where.span) - t

    def at(self, span: tuple[jax.Array, jax.Array], size: Any, t: jax.Array, known: Any) -> jax.Array:
        """W(t) − W(t₀)."""
        words, own = known if self.own_span else (known, span)
        return self._between(own, span[0], t, words)[0]

    def _between(self, span: Any, t0: jax.Array, t1: jax.Array, words: Any) -> tuple[Any, Any, Any]:
        a, b = (tree.position(t, span, tree.depth_of(t.dtype)) for t in (t0, t1))
        low, high = jnp.minimum(a, b), jnp.maximum(a, b)
        size = safe_sqrt(jnp.abs(span[1] - span[0])).astype(self.dtype)
        like = jax.ShapeDtypeStruct(self.shape, self.dtype)
        unit = tree.increment(seed_of(words, TREE), low, jnp.maximum(high, low + 1), like)
        size = jnp.where(a == b, jnp.zeros_like(size), size)
        return jnp.where(a > b, -size, size) * unit.w, size * unit.h, (low, high)
