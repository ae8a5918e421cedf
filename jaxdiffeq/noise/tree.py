"""A Brownian motion on a dyadic grid, any increment of which follows from a key alone: no memory, no order of asking.

The span is one; it has 2^depth positions, and a node of the tree is one of 2^level intervals between them. It knows
(W, H), its increment and its space-time Lévy area. The nodes of one level, `ROOTS`, are drawn independently of each
other, those below by splitting theirs, so that an increment costs a few splits at either end of it.

Source: Foster, Oberhauser, Lyons 2020, arXiv 1905.11154; Jelinčič, Foster, Kidger 2024, arXiv 2405.06464.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiffeq.noise.normals import Seed, pair
from jaxdiffeq.primitives.while_loop import frozen_while

ROOTS = 7


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
    """An end for a step from t of about dt: the nearest one on a dyadic grid of cells between dt/16 and dt/8.

    The way down to it is as short as can be then. Times and dt go the way that the span does.
    """
    t0, t1 = span
    depth = depth_of(t.dtype)
    start, end = position(t, span, depth), position(t + dt, span, depth)
    cells = jnp.maximum((end - start) >> 3, 1)
    level = cells.dtype.itemsize * 8 - 1 - lax.clz(cells)
    nearest = ((end + (cells.dtype.type(1) << level >> 1)) >> level) << level
    return t0 + (t1 - t0) * (jnp.maximum(nearest, start + 1).astype(t.dtype) * 2.0**-depth)


def join(one: Piece, two: Piece) -> Piece:
    """Of neighbours of lengths p and q: W₁ + W₂, (p·H₁ + q·H₂)/(p + q) + (q·W₁ − p·W₂)/(2(p + q))."""
    length = one.length + two.length
    p, q = one.length / length, two.length / length
    return Piece(one.w + two.w, p * one.h + q * two.h + (q * one.w - p * two.w) / 2, length)


def drawn(seed: Seed, level: Any, index: jax.Array, shape: tuple[int, ...], dtype: Any) -> tuple[jax.Array, jax.Array]:
    """The two normals of a node, [*shape] each."""
    high, low = (index >> 31 >> 1).astype(jnp.uint32), index.astype(jnp.uint32)
    level = jnp.asarray(level).astype(jnp.uint32)
    return lax.optimization_barrier(pair((seed[0] ^ level, seed[1] ^ high), low, shape, dtype))


def top(z: jax.Array, n: jax.Array) -> Piece:
    """W ~ N(0, ℓ) and H ~ N(0, ℓ/12) over one of the intervals that are independent, of length ℓ."""
    length = jnp.asarray(2.0**-ROOTS, z.dtype)
    return Piece(length**0.5 * z, (length / 12) ** 0.5 * n, length)


def halves(piece: Piece, z: jax.Array, n: jax.Array) -> tuple[Piece, Piece]:
    """With Z ~ N(0, ℓ/16), N ~ N(0, ℓ/12): W/2 ± (3/2·H + Z), H/4 − Z/2 ± N/2."""
    size = jnp.sqrt(piece.length)
    z, n = size / 4 * z, size * 12**-0.5 * n
    w, dw, h, dh = piece.w / 2, 1.5 * piece.h + z, piece.h / 4 - z / 2, n / 2
    return Piece(w + dw, h + dh, piece.length / 2), Piece(w - dw, h - dh, piece.length / 2)


class Walk(NamedTuple):
    """Where the loop is that adds up an increment, node by node."""

    stage: jax.Array
    """`LEFT`: on the way down to the first position; `TOPS`, `RIGHT`: to the last one; `DONE`"""
    together: jax.Array
    """the way to both still is one"""
    top: jax.Array
    """the next of those that are taken as they are"""
    level: jax.Array
    """that of `node`; `NEW`: a top, still to be drawn"""
    node: Piece
    begins: jax.Array
    """the level at which the right side begins, with `kept`; `NEVER`: there is no more of it"""
    kept: Piece
    found: Piece
    """what has been added up"""


LEFT, TOPS, RIGHT, DONE = range(4)
NEW, NEVER = 0, -1


def increment(seed: Seed, a: jax.Array, b: jax.Array, like: jax.ShapeDtypeStruct) -> Piece:
    """Over the positions from a to b, a < b, of a whole that is one long; `like` is W.

    A node a trip: down to a, taking the right halves that are passed by; then the tops between both ends; then down
    to b, taking the left halves. The sum grows outwards from the middle, so nothing cancels.
    """
    between = Between(seed, a, b, 44 if a.dtype == jnp.int64 else 20, like)
    start = between.start()
    _, end = frozen_while(lambda _, s: s.stage != DONE, lambda _, s: ((), between.trip(s)), (), start)
    return end.found


class Between(NamedTuple):
    """What the loop of an increment does not change."""

    seed: Seed
    a: jax.Array
    b: jax.Array
    depth: int
    like: jax.ShapeDtypeStruct

    def code(self, x: int) -> jax.Array:
        return jnp.asarray(x, self.a.dtype)

    def tops(self) -> tuple[jax.Array, jax.Array]:
        """The first of those that are taken as they are, and the one after the last."""
        return -(-self.a >> (self.depth - ROOTS)), self.b >> (self.depth - ROOTS)

    def start(self) -> Walk:
        first, after = self.tops()
        zero = jnp.zeros(self.like.shape, self.like.dtype)
        none = Piece(zero, zero, jnp.zeros((), self.like.dtype))
        left = self.a != first << (self.depth - ROOTS)
        stage = jnp.where(left, self.code(LEFT), self.after_left())
        return Walk(stage, first > after, first, self.code(NEW), none, self.code(NEW), none, none)

    def after_left(self) -> jax.Array:
        first, after = self.tops()
        return jnp.where(first < after, self.code(TOPS), self.after_tops())

    def after_tops(self) -> jax.Array:
        _, after = self.tops()
        return jnp.where(self.b != after << (self.depth - ROOTS), self.code(RIGHT), self.code(DONE))

    def trip(self, s: Walk) -> Walk:
        aim = jnp.where(s.stage == TOPS, s.top << (self.depth - ROOTS), self.b - 1)
        index = jnp.where(s.stage == LEFT, self.a, aim) >> (self.depth - jnp.maximum(s.level, ROOTS))
        z, n = drawn(self.seed, s.level, index, self.like.shape, self.like.dtype)
        return choose(s.level == NEW, self.at_top(s, top(z, n)), self.split(s, *halves(s.node, z, n)))

    def at_top(self, s: Walk, piece: Piece) -> Walk:
        """One of the nodes that nothing is above."""
        whole = s.stage == TOPS
        return s._replace(
            stage=jnp.where(whole & (s.top + 1 == self.tops()[1]), self.after_tops(), s.stage),
            top=s.top + whole.astype(s.top.dtype),
            level=jnp.where(whole, self.code(NEW), self.code(ROOTS)),
            node=piece,
            found=choose(whole, join(s.found, piece), s.found),
        )

    def split(self, s: Walk, left: Piece, right: Piece) -> Walk:
        """A node of which a part is wanted, as its halves; one of them may be taken whole."""
        alone, on_right = (s.stage == LEFT) & ~s.together, s.stage == RIGHT
        below = self.depth - jnp.maximum(s.level, ROOTS) - 1
        rest = (jnp.ones_like(below) << below) - 1
        a_right, b_right = ((x >> below) & 1 == 1 for x in (self.a, self.b - 1))
        starts, ends = (
            (self.a & rest) == 0,
            (~(self.b - 1) & rest) == 0,
        )  # the half is wanted from its start, to its end
        part = s.together & (a_right != b_right)
        whole = s.together & (a_right == b_right) & starts & ends
        take_left = on_right & (b_right | ends) | part & starts | whole & ~a_right
        take_right = alone & (~a_right | starts) | part & ends | whole & a_right
        back, over = alone & a_right & starts, whole | on_right & ~b_right & ends
        after = jnp.where(s.begins == NEVER, self.code(DONE), self.after_left())
        after = jnp.where(s.begins > 0, self.code(RIGHT), after)
        half = choose(take_left, left, right)
        found = choose(alone, join(half, s.found), join(s.found, half))
        return Walk(
            stage=choose(back, after, choose(over, self.code(DONE), choose(part & starts, self.code(RIGHT), s.stage))),
            together=s.together & ~part & ~over,
            top=s.top,
            level=jnp.where(back, jnp.maximum(s.begins, NEW), s.level + 1),
            node=choose(back, s.kept, choose(jnp.where(on_right, b_right, a_right | part & starts), right, left)),
            begins=jnp.where(part, jnp.where(ends, self.code(NEVER), s.level + 1), s.begins),
            kept=choose(part, right, s.kept),
            found=choose(take_left | take_right, found, s.found),
        )


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
