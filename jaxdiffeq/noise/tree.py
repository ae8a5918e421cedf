"""A Brownian motion on a dyadic grid, any increment of which follows from a key alone: no memory, no order of asking.

The span is one; it has 2^depth positions, and a node of the tree is one of 2^level intervals between them. It knows
(W, H), its increment and its space-time Lévy area. The nodes of one level, `ROOTS`, are drawn independently of each
other, those below by splitting theirs, so that an increment costs a few splits at either end of it.

Rejection sampling with memory (Rackauckas, Nie 2017) would draw once a step and once more for each that is refused.
But its path is that of a tolerance, it carries a stack, and a gradient or a saved time would have to replay it; the
tree has one path for a key and carries nothing. For that, a scalar step of a solve of a thousand takes 0.3 µs where one
draw by its number takes 0.03, and in a thousand lanes 0.09 each where that takes 0.006.

Source: Foster, Oberhauser, Lyons 2020, arXiv 1905.11154; Jelinčič, Foster, Kidger 2024, arXiv 2405.06464.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiffeq.noise.normals import Seed, normals
from jaxdiffeq.primitives.while_loop import frozen_while

ROOTS = 9
AT_ONCE = 4  # roots that are drawn together: about as many as a step of a solve of two hundred needs


class Piece(NamedTuple):
    """W and H over an interval of some length. Shapes: w and h are those of W, length []."""

    w: jax.Array
    h: jax.Array
    length: jax.Array


def depth_of(time: Any) -> int:
    """Of a grid so fine that it is exact, and so coarse that no rounding of a time moves a position."""
    return 44 if jnp.dtype(time) == jnp.float64 else 20


def position(t: jax.Array, span: Any, depth: int) -> jax.Array:
    """The place that is nearest to t on a grid of 2^depth cells from the first to the second of two times."""
    t0, t1 = span
    part = lax.stop_gradient((t - t0) / jnp.where(t1 == t0, jnp.ones_like(t1), t1 - t0))
    return jnp.round(jnp.clip(part, 0, 1) * 2.0**depth).astype(jnp.int64 if depth > 30 else jnp.int32)


def snap(t: jax.Array, dt: jax.Array, span: Any) -> jax.Array:
    """An end for a step from t of at most dt: the last one on a dyadic grid of cells between dt/8 and dt/4.

    The way down to it is as short as can be then. One that were nearer might be longer, and come again and again after
    a refusal by little. Times and dt go the way that the span does.
    """
    t0, t1 = span
    depth = depth_of(t.dtype)
    start, end = position(t, span, depth), position(t + dt, span, depth)
    cells = jnp.maximum((end - start) >> 2, 1)
    level = cells.dtype.itemsize * 8 - 1 - lax.clz(cells)
    return t0 + (t1 - t0) * (jnp.maximum(end >> level << level, start + 1).astype(t.dtype) * 2.0**-depth)


def join(one: Piece, two: Piece) -> Piece:
    """Of neighbours of lengths p and q: W₁ + W₂, (p·H₁ + q·H₂)/(p + q) + (q·W₁ − p·W₂)/(2(p + q))."""
    length = one.length + two.length
    p, q = one.length / length, two.length / length
    return Piece(one.w + two.w, p * one.h + q * two.h + (q * one.w - p * two.w) / 2, length)


def drawn(seed: Seed, level: Any, index: jax.Array, shape: tuple[int, ...], dtype: Any) -> tuple[jax.Array, jax.Array]:
    """The two normals of nodes. Shapes: index [any], [*shape, *any] each."""
    high, low = (index >> 31 >> 1).astype(jnp.uint32), index.astype(jnp.uint32)
    level = jnp.asarray(level).astype(jnp.uint32)
    element = lax.iota(jnp.uint32, math.prod(shape)).reshape(*shape, *(1,) * index.ndim)
    return normals((seed[0] ^ level, seed[1] ^ high), low, element, dtype)


def halves(piece: Piece, z: jax.Array, n: jax.Array) -> tuple[Piece, Piece]:
    """With Z ~ N(0, ℓ/16), N ~ N(0, ℓ/12): W/2 ± (3/2·H + Z), H/4 − Z/2 ± N/2."""
    size = jnp.sqrt(piece.length)
    z, n = size / 4 * z, size * 12**-0.5 * n
    w, dw, h, dh = piece.w / 2, 1.5 * piece.h + z, piece.h / 4 - z / 2, n / 2
    return Piece(w + dw, h + dh, piece.length / 2), Piece(w - dw, h - dh, piece.length / 2)


class Sum(NamedTuple):
    """What has been added up over an interval: W, H times its length, and its length."""

    w: jax.Array
    area: jax.Array
    length: jax.Array

    def then(self, two: Sum) -> Sum:
        """With a neighbour: `join` without a division."""
        turned = (two.length * self.w - self.length * two.w) / 2
        return Sum(self.w + two.w, self.area + two.area + turned, self.length + two.length)


class Ends(NamedTuple):
    """The positions a < b between which an increment is. Shapes: [2]."""

    places: jax.Array
    """a − 1 and b: by their leading bits, the nodes in which the ends lie"""
    bits: jax.Array
    """−a and b: by a bit, whether the half of a node that lies inside is passed by, whole, on the way to its end"""
    depth: int

    @property
    def last(self) -> jax.Array:
        """The level at which both ends are ends of nodes."""
        together = self.bits[0] | self.bits[1]
        return self.depth - jnp.minimum(lax.population_count((together & -together) - 1), self.depth)


def increment(seed: Seed, a: jax.Array, b: jax.Array, like: jax.ShapeDtypeStruct) -> Piece:
    """Over the positions from a to b, a < b, of a whole that is one long; `like` is W.

    First the roots between both ends, with those in which these lie; then down to both ends, a level a trip, taking the
    halves that are passed by. The sum grows outwards from the middle, so nothing cancels.
    """
    ends = Ends(jnp.stack([a - 1, b]), jnp.stack([-a, b]), 44 if a.dtype == jnp.int64 else 20)
    middle, node = roots(seed, ends, like)
    last, zero = ends.last, jnp.zeros_like(node.w)
    wide = [1] * len(like.shape) + [2]
    side = jnp.asarray([-1, 1], like.dtype).reshape(wide)

    def trip(_, s):
        level, node, (w, area, length) = s
        shift = ends.depth - level
        at = ends.places >> shift
        left, right = halves(node, *drawn(seed, level, at, like.shape, like.dtype))
        (w1, h1), (w0, h0) = (choose(side > 0, x[:2], y[:2]) for x, y in ((left, right), (right, left)))
        passed = ((ends.bits >> (shift - 1)) & 1 == 1).reshape(wide)
        taken, half = passed & (at[0] != at[1]), left.length
        turned = side * (half * w - length * w1) / 2
        more = Sum(w + w1, area + half * h1 + turned, length + half)
        w1, h1 = choose(passed, (w0, h0), (w1, h1))
        return (), (level + 1, Piece(w1, h1, half), choose(taken, more, Sum(w, area, length)))

    begin = jnp.full_like(a, ROOTS), node, Sum(zero, zero, jnp.zeros(wide, like.dtype))
    _, (_, _, found) = frozen_while(lambda _, s: s[0] < last, trip, (), begin)
    before, after = (Sum(found.w[..., i], found.area[..., i], found.length.reshape(2)[i]) for i in (0, 1))
    w, area, length = before.then(middle.then(after))
    return Piece(w, area / length, length)


def roots(seed: Seed, ends: Ends, like: jax.ShapeDtypeStruct) -> tuple[Sum, Piece]:
    """Over those between both ends, and those in which the ends lie: W and H of these [*those of W, 2].

    Of m equal neighbours H is Σ Hᵢ/m + Σ Wᵢ·(m − 1 − 2i)/(2m), in any order.
    """
    shift, dtype = ends.depth - ROOTS, like.dtype
    first, after = (ends.places[0] >> shift) + 1, ends.places[1] >> shift
    number, partly = after - first, ends.last > ROOTS  # −1 between ends in one root
    length = jnp.asarray(2.0**-ROOTS, dtype)

    def trip(_, s):
        i, w, area, (w_ends, h_ends) = s
        at = i + jnp.arange(AT_ONCE, dtype=i.dtype)
        z, n = drawn(seed, 0, first + at, like.shape, dtype)
        z, n = length**0.5 * z, (length / 12) ** 0.5 * n
        of = lambda mask, x: jnp.sum(jnp.where(mask.reshape([1] * len(like.shape) + [-1]), x, 0), -1)
        between = (at >= 0) & (at < number)
        arms = ((number - 1 - 2 * at).astype(dtype) / 2).reshape([1] * len(like.shape) + [-1])
        own = lambda x: jnp.stack([of(at == -1, x), of(at == number, x)], -1)
        area = area + length * of(between, n + arms * z)
        return (), (i + AT_ONCE, w + of(between, z), area, (w_ends + own(z), h_ends + own(n)))

    zero, two = (jnp.zeros((*like.shape, *more), dtype) for more in ((), (2,)))
    begin = jnp.where(partly, -1, 0).astype(first.dtype), zero, zero, (two, two)
    end = number + partly.astype(number.dtype)
    _, (_, w, area, (w_ends, h_ends)) = frozen_while(lambda _, s: s[0] < end, trip, (), begin)
    return Sum(w, area, jnp.maximum(number, 0).astype(dtype) * length), Piece(w_ends, h_ends, length)


def start_of(seed: Seed, whole: Piece, b: jax.Array, depth: int) -> Piece:
    """The first b of the 2^depth cells of a whole that is known."""

    def trip(_, s):
        level, node, found = s
        below = depth - 1 - level
        left, right = halves(node, *drawn(seed, level, (b - 1) >> (below + 1), whole.w.shape, whole.w.dtype))
        take = ((b - 1) >> below) & 1 == 1
        ends = (~(b - 1) & ((jnp.ones_like(below) << below) - 1)) == 0
        going = level < depth
        found = choose(going & (take | ends), join(found, left), found)
        level = jnp.where(ends & ~take, jnp.full_like(level, depth), level + 1)
        return (), choose(going, (level, choose(take, right, left), found), s)

    none = jax.tree.map(jnp.zeros_like, whole)
    ended = (b == 0) | (b == 1 << depth)
    start = jnp.where(ended, depth, 0).astype(b.dtype), whole, none
    _, (_, _, found) = frozen_while(lambda _, s: s[0] < depth, trip, (), start)
    return choose(b == 1 << depth, whole, found)


def choose(where: jax.Array, one: Any, other: Any) -> Any:
    return jax.tree.map(lambda x, y: jnp.where(where, x, y), one, other)
