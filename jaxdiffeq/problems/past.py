"""What f may ask of the past: the polynomials of the steps before, in a ring, and what came before the first one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiffeq.engine import interpolant
from jaxdiffeq.primitives.row_buffer import read, write
from jaxdiffeq.primitives.while_loop import frozen_while
from jaxdiffeq.problems.ravel import close

ULPS = 16
"""units of rounding within which two times are one: on which side of it a step lies is known otherwise"""


MOST, LEAST = 4, 4
"""pieces in all windows, and in one of them"""


PAST = "past"
"""the name of the recorder that keeps it"""
NEAR = 3
"""pieces from a hint on that are looked at without a search"""


class Piece(NamedTuple):
    """The interpolant of a step: its ends, and coefficients in θ, [degree + 1, *state]. Of a ring, [rows + 1, …]."""

    start: Any
    end: Any
    coefficients: Any
    level: Any = None
    """how often lags have carried on what is not smooth at its end, zero where it is; where lags vary"""


class Near(NamedTuple):
    """Where what is asked for probably lies."""

    hint: jax.Array
    """pieces, [hints]"""
    knots: jax.Array
    """when they and those after them start, infinity for those to come, [hints, NEAR + 1]"""


class Felt(NamedTuple):
    """Zeros that are added to some pieces of the ring, for a reverse pass to take derivatives by.

    Piece i of the ring has the zeros at i − first, where that is within a window. What lies in no window has
    pseudo-random multiples of the `missed` ones: their cotangent tells whether anything does. See
    `jaxdiffeq.gradients.reverse`.
    """

    zeros: Piece
    """[windows · width, …]"""
    missed: Piece
    first: jax.Array
    """the first piece of each window, [windows]"""
    done: jax.Array
    """the same of windows that have had their turn, [windows]"""
    all_later: jax.Array
    """what is later than all windows has had its turn, too"""
    goes_on: jax.Array
    """pieces before the windows have not had theirs"""
    near: Near


class Past(NamedTuple):
    """All that a step knows of the past. Pieces are numbered as steps are; number i is in row i mod rows."""

    ring: Piece
    known: jax.Array
    """pieces so far"""
    own: Piece
    """the piece of the step itself, NaN where nobody is to ask for it"""
    middle: jax.Array
    """of the step: what is asked before it is asked from the step's left end, later from its right one"""
    t0: jax.Array
    near: Near
    felt: Felt | None = None
    cut: Any = None
    """where the step has to end, since a lag meets a breaking point there: a `jaxdiffeq.engine.breaks.Met`"""


class Text:
    """A program that is equal to those that read the same. It is not pickled."""

    def __init__(self, program: Any = None):
        self.program = program

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Text) or (self.program is None) != (other.program is None):
            return False
        return self.program is other.program or str(self.program.jaxpr) == str(other.program.jaxpr)

    def __hash__(self) -> int:
        return hash(Text)

    def __reduce__(self) -> tuple:
        return Text, ()


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Earlier:
    """The history of a solution, as data: a program of time, and what that closes over."""

    consts: list
    text: Text = field(metadata={"static": True})

    @staticmethod
    def of(history: Callable, t: jax.Array) -> Earlier:
        program, consts = close(history, t)
        return Earlier(consts, Text(program))

    def value(self, t: jax.Array, like: jax.Array) -> jax.Array:
        """At t; NaN where the program is no longer there."""
        return jnp.full_like(like, jnp.nan) if self.text.program is None else self.text.program(self.consts, t)


def rows_of(ring: Piece) -> int:
    return ring.start.shape[0] - 1


def constant(t: jax.Array, y: jax.Array, degree: int) -> Piece:
    """The piece that is y everywhere."""
    rest = jnp.zeros((degree, *y.shape), y.dtype)
    return Piece(t, t + 1, jnp.concatenate([y[None], rest]))


def blank(shape: Piece, hints: int, t: jax.Array, y: jax.Array) -> Past:
    """The past of a solve that begins at t with y."""
    return at_start(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shape), hints, t, y)


def at_start(ring: Piece, hints: int, t: jax.Array, y: jax.Array) -> Past:
    own = constant(t, y, ring.coefficients.shape[1] - 1)
    near = nowhere(hints, t.dtype)
    return Past(ring, jnp.zeros((), jnp.int32), own, jnp.full_like(t, jnp.inf), lax.stop_gradient(t), near)


def nowhere(hints: int, dtype: Any) -> Near:
    return Near(jnp.full(hints, -1, jnp.int32), jnp.full((hints, NEAR + 1), jnp.inf, dtype))


def near_to(past: Past, times: jax.Array) -> Near:
    """The pieces at these times. Shapes: [hints]."""
    found = jnp.maximum(jnp.stack([search(past, times[j]) for j in range(times.size)]), 0)
    rows = rows_of(past.ring)
    knots = [[read(past.ring.start, (found[j] + k) % rows) for k in range(NEAR + 1)] for j in range(times.size)]
    there = found[:, None] + jnp.arange(NEAR + 1, dtype=jnp.int32)[None] < past.known
    knots = lax.stop_gradient(jnp.stack([jnp.stack(row) for row in knots]))
    return Near(found, jnp.where(there, knots, jnp.inf))


def felt_nothing(shape: Piece, windows: int) -> Felt:
    """Zeros for so many windows."""
    width = max(MOST // windows, LEAST)
    zeros = jax.tree.map(lambda x: jnp.zeros((windows * width, *x.shape[1:]), x.dtype), shape)
    missed = jax.tree.map(lambda x: jnp.zeros(x.shape[1:], x.dtype), shape)
    far = jnp.full(windows, -(2**30), jnp.int32)
    return Felt(zeros, missed, far, far, jnp.array(False), jnp.array(False), nowhere(windows, shape.start.dtype))


def look_up(past: Past, history: Callable, t: jax.Array, s: jax.Array, derivative: bool = False) -> jax.Array:
    """The state at s, or its slope, as seen at time t. Shapes: [] ↦ [*state].

    A time that is an end of a piece, to rounding, belongs to the piece on the side on which s lies during the step;
    polynomials have the same value on either side, but slopes, and a history that jumps at t₀, have not.
    """
    at, now = lax.stop_gradient((s, t))
    real = jnp.finfo(t.dtype)
    slack = ULPS * (real.eps * (jnp.abs(now) + jnp.abs(at)) + real.tiny)  # at zero too there are two sides
    side = at + jnp.where(now < past.middle, slack, -slack)
    before = side < past.t0
    i = last_before(past, side)
    within = side > lax.stop_gradient(past.own.start)
    lost = ~before & ~within & (i < past.known - rows_of(past.ring))
    found = piece_of(past, i)._replace(level=None)
    piece = jax.tree.map(lambda a, b: jnp.where(within, a, b), past.own, found)
    # neither branch that is not taken may reach a derivative
    piece = jax.tree.map(lambda x, x0: jnp.where(before, x0, x), piece, _rest(piece))
    theta = (jnp.where(before, piece.start, s) - piece.start) / (piece.end - piece.start)
    theta = theta.astype(piece.coefficients.dtype)
    if derivative:
        value = interpolant.slope(piece.coefficients, theta) / (piece.end - piece.start).astype(theta.dtype)
    else:
        value = interpolant.evaluate(piece.coefficients, theta)
    value = jnp.where(lost, jnp.nan, value)
    return jnp.where(before, history(jnp.where(before, s, past.t0)), value)


def _rest(piece: Piece) -> Piece:
    level = None if piece.level is None else jnp.zeros_like(piece.level)
    return Piece(jnp.zeros_like(piece.start), jnp.ones_like(piece.end), jnp.zeros_like(piece.coefficients), level)


def last_before(past: Past, s: jax.Array) -> jax.Array:
    """The number of the last piece that starts before s; the first in the ring less one if none does."""
    passed = past.near.knots <= s
    near = passed[:, 0] & ~passed[:, -1]
    found = past.near.hint + jnp.sum(passed, axis=1, dtype=jnp.int32) - 1
    here = jnp.any(near)
    return jnp.where(here, jnp.max(jnp.where(near, found, -1)), search(past, s, ~here))


def search(past: Past, s: jax.Array, wanted: Any = True) -> jax.Array:
    """The same without hints: down from the last one in strides that double, then up in strides that halve.

    A loop: written out, XLA would search again from the start for every number that is made of what was found.
    """
    rows = rows_of(past.ring)
    none = jnp.maximum(past.known - rows, 0) - 1

    def stride(at):
        i, step, falling = at
        low = jnp.where(falling, jnp.maximum(i - step, none), i)
        probe = jnp.where(falling, low, i + step)
        below = (probe <= none) | (read(past.ring.start, jnp.maximum(probe, 0) % rows) <= s)
        falling, down = falling & ~below, falling
        i = jnp.where(down | below, probe, i)
        return i, jnp.where(falling, 2 * step, step // 2), falling

    def seeking(at):
        return at[1] > 0

    start = jnp.asarray(past.known, jnp.int32)
    return lax.while_loop(seeking, stride, (start, jnp.where(wanted, jnp.ones_like(start), 0), jnp.array(True)))[0]


def piece_of(past: Past, i: jax.Array) -> Piece:
    """Piece i, with what is felt of it."""
    piece = read(past.ring, jnp.maximum(i, 0) % rows_of(past.ring))
    if past.felt is None:
        return piece
    felt, width = past.felt, past.felt.zeros.start.shape[0] // past.felt.first.size
    had = jnp.any((i >= felt.done) & (i < felt.done + width))
    settled, hits = had | (felt.all_later & (i >= felt.first[-1] + width)), []
    for first in felt.first:  # the first window that it is in
        hits.append((first + jnp.arange(width, dtype=jnp.int32) == i) & ~settled)
        settled |= (i >= first) & (i < first + width)
    hit = jnp.concatenate(hits)
    missed = jnp.where(settled, 0, 1.5 + jnp.sin(1.7 * i.astype(piece.start.dtype)))

    def with_zeros(x, zeros, of_missed):
        weights = hit.astype(x.dtype).reshape(-1, *[1] * x.ndim)
        return x + jnp.sum(weights * zeros, axis=0) + missed.astype(x.dtype) * of_missed

    return jax.tree.map(with_zeros, piece, felt.zeros, felt.missed)


def any_of(piece: Piece) -> jax.Array:
    return jnp.any(jnp.stack([jnp.any(x != 0) for x in jax.tree.leaves(piece)]))


def windows_at(felt: Felt, near: Near, n: jax.Array, turn: jax.Array, rows: int) -> Felt:
    """Windows of step n: from the hints on at first, then further and further back from the step."""
    count = felt.first.size
    size = felt.zeros.start.shape[0]
    width = size // count
    own = jnp.clip(near.hint, 0, rows - width)
    back = n - turn * size + width * jnp.arange(count, dtype=jnp.int32)
    first = jnp.where(turn == 0, own, back)
    done = jnp.where(turn == 0, felt.done, own)
    goes_on = (turn == 0) | (first[0] > 0)
    return felt._replace(first=first, done=done, all_later=turn > 0, goes_on=goes_on, near=near)


def add_windows(ring: Piece, felt: Felt, zeros: Piece, wanted: jax.Array) -> Piece:
    """The cotangents `ring` with those of pieces in the windows; a loop, in which rows are changed in place."""
    size = zeros.start.shape[0]
    width = size // felt.first.size

    def more(ring, k):
        return wanted & (k < size)

    def add(ring, k):
        due, row = more(ring, k), jnp.minimum(k, size - 1)
        i = felt.first[row // width] + row % width
        moved = jax.tree.map(jnp.add, read(ring, jnp.maximum(i, 0)), read(zeros, row))
        return write(ring, i, moved, due & (i >= 0)), k + due.astype(k.dtype)

    return frozen_while(more, add, ring, jnp.zeros((), jnp.int32))[0]
