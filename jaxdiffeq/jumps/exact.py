"""Exact methods: which reaction comes next, and when, with the right law.

A method is asked for one event at a time. It keeps what it knows of the propensities in a memory of its own.
Shapes: propensities [channels]; times and sums []. Units: propensities in 1/t.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiffeq.jumps.blocks import Blocks, at, known, where_first
from jaxdiffeq.jumps.channels import Channels, Tabled
from jaxdiffeq.jumps.counters import EVENT, Draw
from jaxdiffeq.primitives.row_buffer import put_row
from jaxdiffeq.primitives.while_loop import frozen_while

CLOCKS = 16  # streams from here on belong to the clocks of reactions


class Next(NamedTuple):
    """What comes: at the time t, number r. `taken` is false of a proposal that turns out to be none."""

    t: jax.Array
    r: jax.Array
    taken: Any
    finite: jax.Array
    """the propensities are numbers"""


class ExactMethod:
    """What exact methods have in common."""

    exact = True

    @property
    def name(self) -> str:
        return type(self).__name__

    def begin(self, channels: Channels, t: Any, x: Any, words: Any) -> Any:
        return ()

    def after(self, channels: Channels, was: Next, t: Any, x: Any, draw: Draw, memory: Any, go: Any) -> Any:
        """The memory after x has jumped, where `go`."""
        return memory

    def evaluations(self, count: int) -> int:
        """Of propensities, for one event, if none is spared."""
        return count

    def channel(self, was: Next, memory: Any) -> jax.Array:
        """Which of the channels it is."""
        return was.r


def _wait(draw: Draw, total: jax.Array) -> tuple[jax.Array, jax.Array]:
    """u in [0, total), and an exponential time of that rate."""
    u, w = draw.pair(EVENT, total.dtype)
    some = total > 0
    return u * total, jnp.where(some, -jnp.log(w) / jnp.where(some, total, 1), jnp.inf)


def _listed(a: list[jax.Array], draw: Draw, t: jax.Array) -> Next:
    """The direct method, written out."""
    sums = [a[0]]
    for more in a[1:]:
        sums.append(sums[-1] + more)
    v, dt = _wait(draw, sums[-1])
    r = jnp.zeros((), jnp.int32)
    for total in sums[:-1]:
        r = r + (v >= total).astype(jnp.int32)
    least = a[0]
    for more in a[1:]:
        least = jnp.minimum(least, more)
    return Next(t + dt, r, True, jnp.isfinite(sums[-1]) & (least >= 0))


class _Kept(NamedTuple):
    """Propensities, and how often each was drawn, of the methods that count that."""

    a: Any
    more: Any = ()


@dataclass(frozen=True)
class SSA(ExactMethod):
    """Gillespie's direct method: one exponential number for the time, one uniform for the reaction.

    Few reactions are evaluated at every event; of many only those that depend on what has changed, and the sum and the
    search go by blocks, so that an event costs about √reactions additions.
    Source: Gillespie, J. Phys. Chem. 81 (1977) 2340.
    """

    def begin(self, channels: Channels, t: Any, x: Any, words: Any) -> Any:
        return _Kept(Blocks.of(channels.all(t, x))) if isinstance(channels, Tabled) else ()

    def next(self, channels: Channels, t: Any, x: Any, draw: Draw, memory: Any) -> tuple[Next, Any]:
        if not isinstance(channels, Tabled):
            return _listed(channels.each(t, x), draw, t), memory
        total = memory.a.tops.sum()
        v, dt = _wait(draw, total)
        return Next(t + dt, memory.a.find(v), True, jnp.isfinite(total) & (total >= 0)), memory

    def after(self, channels: Channels, was: Next, t: Any, x: Any, draw: Draw, memory: Any, go: Any) -> Any:
        if not isinstance(channels, Tabled):
            return memory
        put = lambda j, wanted, a: a.put(j, channels.one(j, t, x))
        return _Kept(channels.depends.each(was.r, go, put, memory.a))


@dataclass(frozen=True)
class SortingDirect(ExactMethod):
    """The direct method, whose search begins with the reactions that happen often: each rises when it happens.

    Source: McCollum et al., Comput. Biol. Chem. 30 (2006) 39.
    """

    def begin(self, channels: Channels, t: Any, x: Any, words: Any) -> Any:
        return _Kept(channels.all(t, x), jnp.arange(channels.count, dtype=jnp.int32))

    def next(self, channels: Channels, t: Any, x: Any, draw: Draw, memory: Any) -> tuple[Next, Any]:
        a, order = memory.a, memory.more
        total = a.sum()
        v, dt = _wait(draw, total)
        last = np.int32(channels.count - 1)

        def beyond(c: tuple, _: Any) -> jax.Array:
            return (c[0] < last) & (c[1] >= at(a, at(order, c[0])))

        def step(c: tuple, _: Any) -> tuple:
            k, left, found = c
            here = at(a, at(order, k))
            go = (k < last) & (left >= here)
            found = jnp.where(go & (here > 0), k, found)
            return (jnp.where(go, k + 1, k), jnp.where(go, left - here, left), found), ()

        zero = jnp.zeros((), jnp.int32)
        (k, left, found), _ = frozen_while(beyond, step, (zero, v, zero), ())
        here = at(a, at(order, k))
        k = jnp.where((left >= here) | (here <= 0), found, k)  # by rounding
        finite = jnp.isfinite(total) & (a.min() >= 0)
        return Next(t + dt, k, True, finite), memory

    def channel(self, was: Next, memory: Any) -> jax.Array:
        return at(memory.more, was.r)

    def after(self, channels: Channels, was: Next, t: Any, x: Any, draw: Draw, memory: Any, go: Any) -> Any:
        a, order = memory.a, memory.more
        r = at(order, was.r)
        above = jnp.maximum(was.r - 1, 0)
        other = at(order, above)
        here, there, r = known(jnp.where(go, other, r), jnp.where(go, r, other), r)
        order = put_row(put_row(order, was.r, here), above, there)
        if isinstance(channels, Tabled):
            put = lambda j, wanted, a: put_row(a, j, channels.one(j, t, x))
            return _Kept(channels.depends.each(r, go, put, a), order)
        return _Kept(jnp.where(go, channels.all(t, x), a), order)


class _Clocks(NamedTuple):
    """Of the next-reaction method. Shapes: all [channels]."""

    times: Any
    """when each comes next, if nothing changes"""
    a: jax.Array
    left: jax.Array
    """of its unit-rate clock, of a reaction whose propensity is zero"""
    rings: jax.Array
    """how often it has happened, unsigned"""


@dataclass(frozen=True)
class NextReaction(ExactMethod):
    """Each reaction has a clock of its own, whose pace is its propensity; the first to ring is next.

    Of many reactions only those that depend on what has changed are touched, and the first is found by blocks. The
    clock of reaction r is a unit-rate Poisson process that depends on the key alone: two solves with other rates see
    the same ones, which makes their difference small (common reaction paths).
    Source: Gibson, Bruck, J. Phys. Chem. A 104 (2000) 1876; Rathinam, Sheppard, Khammash, J. Chem. Phys. 132 (2010)
    034103.
    """

    def begin(self, channels: Channels, t: Any, x: Any, words: Any) -> Any:
        a = channels.all(t, x)
        numbers = jnp.arange(channels.count, dtype=jnp.uint32)
        count = jnp.zeros_like(numbers)
        left = Draw(words, count).exponential(numbers + np.uint32(CLOCKS), a.dtype)
        times = jnp.where(a > 0, t + left / jnp.where(a > 0, a, 1), jnp.inf)
        return _Clocks(Blocks.of(times, least=True) if isinstance(channels, Tabled) else times, a, left, count)

    def next(self, channels: Channels, t: Any, x: Any, draw: Draw, memory: Any) -> tuple[Next, Any]:
        if isinstance(channels, Tabled):
            when, r = memory.times.least()
        else:
            when = memory.times.min()
            r = where_first(memory.times == when)
        finite = ~jnp.isnan(when)
        return Next(when, r, True, finite), memory

    def after(self, channels: Channels, was: Next, t: Any, x: Any, draw: Draw, memory: Any, go: Any) -> Any:
        count = at(memory.rings, was.r) + go.astype(jnp.uint32)
        fresh = Draw(draw.words, count).exponential(was.r.astype(jnp.uint32) + np.uint32(CLOCKS), memory.a.dtype)
        count, fresh = known(count, fresh)
        memory = memory._replace(rings=put_row(memory.rings, was.r, count))
        if isinstance(channels, Tabled):
            return self._some(channels, was, t, x, memory, go, fresh)
        old, a = memory.a, channels.all(t, x)
        mine = jnp.arange(channels.count, dtype=jnp.int32) == was.r
        left = jnp.where(mine, fresh, jnp.where(old > 0, (memory.times - t) * old, memory.left))
        times = jnp.where(a > 0, t + left / jnp.where(a > 0, a, 1), jnp.where(a == 0, jnp.inf, jnp.nan))
        new = _Clocks(times, a, left, memory.rings)
        return jax.tree.map(lambda n, o: jnp.where(go, n, o), new, memory)

    def _some(self, channels: Tabled, was: Next, t: Any, x: Any, memory: Any, go: Any, fresh: Any) -> Any:
        def touch(j: Any, c: _Clocks, is_it: Any) -> _Clocks:
            old, a = at(c.a, j), channels.one(j, t, x)
            left = jnp.where(is_it, fresh, jnp.where(old > 0, (c.times.get(j) - t) * old, at(c.left, j)))
            when = jnp.where(a > 0, t + left / jnp.where(a > 0, a, 1), jnp.where(a == 0, jnp.inf, jnp.nan))
            a, left, when = known(a, left, when)
            put = c.times.put(j, when, least=True)
            return _Clocks(put, put_row(c.a, j, a), put_row(c.left, j, left), c.rings)

        def other(j: Any, wanted: Any, c: _Clocks) -> _Clocks:
            return touch(j, c, j == was.r)

        memory = channels.depends.each(was.r, go, other, memory)
        once = lambda c, _: ((jnp.zeros((), bool), touch(was.r, c[1], True)), ())
        own = at(jnp.asarray(_own(channels)), was.r)  # a reaction that does not change its own propensity
        (_, memory), _ = frozen_while(lambda c, _: c[0], once, (go & ~own, memory), ())
        return memory


def _own(channels: Tabled) -> np.ndarray:
    """Which reactions change their own propensity."""
    begin, numbers = channels.depends.begin, channels.depends.numbers
    return np.array([r in numbers[begin[r] : begin[r + 1]] for r in range(channels.count)])


class _Bounds(NamedTuple):
    """Propensities between `low` and `high` while x is between `bottom` and `top`."""

    low: jax.Array
    high: Blocks
    bottom: jax.Array
    top: jax.Array


@dataclass(frozen=True)
class RSSA(ExactMethod):
    """The rejection-based method: reactions are proposed by bounds of their propensities, which hold for a while.

    The bounds are those over x ± `spread`·x; only one propensity is evaluated for an event, and only if the lower bound
    does not decide. When a number leaves its range, the bounds of the reactions that it takes part in are made again.
    Serves `MassActionJumps`.
    Source: Thanh, Priami, Zunino, J. Chem. Phys. 141 (2014) 134116.
    """

    spread: float = 0.15

    def begin(self, channels: Channels, t: Any, x: Any, words: Any) -> Any:
        bottom, top = self._range(x)
        return _Bounds(channels.all(t, bottom), Blocks.of(channels.all(t, top)), bottom, top)

    def _range(self, x: Any) -> tuple[jax.Array, jax.Array]:
        wide = jnp.maximum(jnp.floor(self.spread * x), 3.0)
        return jnp.maximum(x - wide, 0), x + wide

    def next(self, channels: Channels, t: Any, x: Any, draw: Draw, memory: Any) -> tuple[Next, Any]:
        total = memory.high.tops.sum()
        v, dt = _wait(draw, total)
        r = memory.high.find(v)
        level = draw.pair(CLOCKS - 1, total.dtype)[0] * memory.high.get(r)
        taken = (level < at(memory.low, r)) | (level < channels.one(r, t, x))
        return Next(t + dt, r, taken, jnp.isfinite(total) & (total >= 0)), memory

    def after(self, channels: Channels, was: Next, t: Any, x: Any, draw: Draw, memory: Any, go: Any) -> Any:
        if not isinstance(channels, Tabled):
            left = go & jnp.any((x < memory.bottom) | (x > memory.top))
            again = lambda c, _: ((jnp.zeros((), bool), self.begin(channels, t, x, draw.words)), ())
            (_, memory), _ = frozen_while(lambda c, _: c[0], again, (left, memory), ())
            return memory
        tables = channels.tables

        def look(s: Any, wanted: Any, c: _Bounds) -> _Bounds:
            here = at(x, s)
            left = wanted & ((here < at(c.bottom, s)) | (here > at(c.top, s)))
            bottom, top = self._range(here)
            bottoms = put_row(c.bottom, s, jnp.where(left, bottom, at(c.bottom, s)))
            tops = put_row(c.top, s, jnp.where(left, top, at(c.top, s)))

            def renew(j: Any, wanted: Any, c: _Bounds) -> _Bounds:
                low, high = channels.one(j, t, c.bottom), channels.one(j, t, c.top)
                return c._replace(low=put_row(c.low, j, low), high=c.high.put(j, high))

            return tables.readers.each(s, left, renew, c._replace(bottom=bottoms, top=tops))

        return tables.changes.each(was.r, go, look, memory)

    def evaluations(self, count: int) -> int:
        return 1


__all__ = ["RSSA", "SSA", "NextReaction", "SortingDirect"]
