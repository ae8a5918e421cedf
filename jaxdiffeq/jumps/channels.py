"""The ways in which a state may jump, each with its propensity, on one array.

Few of them are written out: numbers in registers, no tables. Many are tables, in which what one of them changes is
looked up, and what depends on that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdiffeq import errors
from jaxdiffeq.jumps.blocks import at
from jaxdiffeq.jumps.counters import Draw
from jaxdiffeq.jumps.definitions import Added, ConstantRateJump, MassActionJumps, Rows, takes_key
from jaxdiffeq.jumps.jump_errors import constant_in_time, like_state, one_rate
from jaxdiffeq.primitives.row_buffer import put_row
from jaxdiffeq.primitives.while_loop import frozen_while
from jaxdiffeq.types import PyTree

WRITTEN_OUT = 32  # reactions up to which propensities are written out


class Channels:
    """What the methods ask. Shapes: x [*state]; a number of a channel is an int32."""

    count: int
    change: np.ndarray | None = None
    """what is added to x, [channels, species], where that is known"""
    reads: tuple = ()
    """of each channel what it depends on; see `Channel`"""

    def all(self, t: jax.Array, x: jax.Array) -> jax.Array:
        """Every propensity, [channels]."""
        return jnp.stack(self.each(t, x))

    def each(self, t: jax.Array, x: jax.Array) -> list[jax.Array]:
        raise NotImplementedError

    def one(self, r: jax.Array, t: jax.Array, x: jax.Array) -> jax.Array:
        return at(self.all(t, x), r)

    def fire(self, r: jax.Array, t: jax.Array, x: jax.Array, draw: Draw, go: jax.Array) -> jax.Array:
        """The state after number r, where `go`, else x."""
        raise NotImplementedError


@dataclass(eq=False)
class Channel:
    """One of those that are written out. `add` is what it adds to x, where that is known."""

    rate: Callable
    affect: Callable
    add: np.ndarray | None = None
    marked: bool = False
    reads: tuple | None = None
    """(species, how many of them) of a reaction by mass action; None: it may depend on all"""


class Listed(Channels):
    def __init__(self, channels: Sequence[Channel]):
        self.channels, self.count = channels, len(channels)
        self.reads = tuple(c.reads for c in channels)
        adds = [c.add for c in channels]
        if all(a is not None and a.ndim == 1 for a in adds):
            self.change = np.stack(adds)  # pyright: ignore[reportArgumentType, reportCallIssue]

    def each(self, t: jax.Array, x: jax.Array) -> list[jax.Array]:
        return [c.rate(t, x) for c in self.channels]

    def fire(self, r: jax.Array, t: jax.Array, x: jax.Array, draw: Draw, go: jax.Array) -> jax.Array:
        if self.change is not None and x.ndim == 1:
            return x + self._added(r, go, x)
        if self.count <= 4 and not any(c.marked for c in self.channels):
            new = x
            for i, c in enumerate(self.channels):
                new = jnp.where(go & (r == np.int32(i)), c.affect(t, x, draw), new)
            return new
        return lax.switch(
            jnp.where(go, r, np.int32(self.count)),
            [*(c.affect for c in self.channels), lambda t, x, draw: x],
            t,
            x,
            draw,
        )

    def _added(self, r: jax.Array, go: jax.Array, x: jax.Array) -> jax.Array:
        change = self.change
        assert change is not None
        if change.size > 64:
            return jnp.where(go, at(jnp.asarray(change, x.dtype), r), 0)
        which = [go & (r == np.int32(i)) for i in range(self.count)]
        zero = jnp.zeros((), x.dtype)
        columns = []
        for column in change.T:
            total = zero
            for flag, number in zip(which, column, strict=True):
                total = jnp.where(flag, np.asarray(number, x.dtype), total) if number else total
            columns.append(total)
        return jnp.stack(columns)


class Tabled(Channels):
    """Mass action among many. `starts` and `ends` of lists that follow one another: where that of each begins."""

    def __init__(self, rates: jax.Array, reactants: Rows, change: Rows, species: int):
        self.count, self.species = len(reactants.rows), species
        self.tables = tables = _tables(reactants, change, species)
        self.rates = rates
        self.depends, self.reads = tables.depends, reactants.rows
        self.change = change.dense(species)

    def all(self, t: jax.Array, x: jax.Array) -> jax.Array:
        tables = self.tables
        wide = jnp.concatenate([x, jnp.ones(1, x.dtype)])
        factors = (wide[tables.slot] - jnp.asarray(tables.offset, x.dtype)) * jnp.asarray(tables.scale, x.dtype)
        return self.rates * factors.prod(1)

    def each(self, t: jax.Array, x: jax.Array) -> list[jax.Array]:
        return list(self.all(t, x))

    def one(self, r: jax.Array, t: jax.Array, x: jax.Array) -> jax.Array:
        tables = self.tables
        slot, offset, scale = (at(jnp.asarray(table), r) for table in (tables.slot, tables.offset, tables.scale))
        value = at(self.rates, r)
        for k in range(tables.slot.shape[1]):
            there = slot[k] < np.int32(self.species)
            number = at(x, jnp.minimum(slot[k], np.int32(self.species - 1)))
            factor = (number - offset[k].astype(x.dtype)) * scale[k].astype(x.dtype)
            value = value * jnp.where(there, factor, 1)
        return value

    def fire(self, r: jax.Array, t: jax.Array, x: jax.Array, draw: Draw, go: jax.Array) -> jax.Array:
        what = jnp.asarray(self.tables.what, x.dtype)
        begin = jnp.asarray(self.tables.changes.begin)

        def add(s: jax.Array, wanted: jax.Array, c: tuple) -> tuple:
            k, x = c
            return k + 1, put_row(x, s, at(x, s) + jnp.where(wanted, at(what, k), 0))

        return self.tables.changes.each(r, go, add, (at(begin, r), x))[1]


@dataclass(eq=False)
class Lists:
    """Lists of numbers, one after the other: that of r is numbers[begin[r] : begin[r + 1]]."""

    begin: np.ndarray
    numbers: np.ndarray

    @staticmethod
    def of(lists: Sequence[Sequence[int]]) -> Lists:
        begin = np.concatenate([[0], np.cumsum([len(x) for x in lists])]).astype(np.int32)
        flat = [i for x in lists for i in x]
        return Lists(begin, np.asarray([*flat, 0], np.int32))  # one more, so that there is one

    def each(self, r: jax.Array, go: jax.Array, run: Callable, carry: PyTree) -> PyTree:
        """`carry = run(number, wanted, carry)` for all numbers in the list of r, where `go`."""
        first, last = at(jnp.asarray(self.begin), r), at(jnp.asarray(self.begin), r + 1)
        numbers = jnp.asarray(self.numbers)

        def step(c: tuple, _: Any) -> tuple:
            k, carry = c
            return (k + 1, run(at(numbers, k), k < last, carry)), ()

        start = jnp.where(go, first, last), carry
        (_, carry), _ = frozen_while(lambda c, _: c[0] < last, step, start, ())
        return carry


@dataclass(eq=False)
class _Tables:
    slot: np.ndarray
    """species, [reactions, slots], and one beyond the last for none"""
    offset: np.ndarray
    scale: np.ndarray
    """so that C(x, 2) = (x − 0)·1 · (x − 1)·½"""
    changes: Lists
    """the species that a reaction changes"""
    what: np.ndarray
    """and by how much, number by number"""
    depends: Lists
    """whose propensities a reaction changes"""
    readers: Lists
    """the reactions that a species takes part in"""


def _tables(reactants: Rows, change: Rows, species: int) -> _Tables:
    slots = [[(s, i) for s, m in row for i in range(m)] for row in reactants.rows]
    width = max(1, *(len(row) for row in slots))
    padded = [[*row, *[(species, 0)] * (width - len(row))] for row in slots]
    slot = np.array([[s for s, _ in row] for row in padded], np.int32)
    offset = np.array([[i for _, i in row] for row in padded], float)
    readers: list[list[int]] = [[] for _ in range(species)]
    for r, row in enumerate(reactants.rows):
        for s, _ in row:
            readers[s].append(r)
    depends = [sorted({j for s, _ in row for j in readers[s]}) for row in change.rows]
    changed = Lists.of([[s for s, _ in row] for row in change.rows])
    what = np.array([*(m for row in change.rows for _, m in row), 0], float)
    return _Tables(slot, offset, 1 / (1 + offset), changed, what, Lists.of(depends), Lists.of(readers))


def channels_of(jumps: Sequence[Any], unpack: Callable, pack: Callable, args: PyTree, x: jax.Array) -> Channels:
    """Of jumps of a state like unpack(x)."""
    mass = [jump for jump in jumps if isinstance(jump, MassActionJumps)]
    if len(mass) == len(jumps) == 1 and len(mass[0].reactants.rows) > WRITTEN_OUT:
        jump = mass[0]
        return Tabled(_rates(jump, args, x), jump.reactants, jump.change, _species(jump, x))
    found: list[Channel] = []
    for jump in jumps:
        if isinstance(jump, MassActionJumps):
            found.extend(_by_mass_action(jump, _rates(jump, args, x), x))
        else:
            found.append(_by_functions(jump, unpack, pack, args, x))
    return Listed(found)


def _species(jump: MassActionJumps, x: jax.Array) -> int:
    least = max(jump.reactants.least_columns, jump.change.least_columns)
    if x.ndim != 1 or len(x) < least:
        raise ValueError(
            f"MassActionJumps are of a state that is a vector [species] with {least} of them at least, but x0 has the "
            f"shape {x.shape}."
        )
    return len(x)


def _rates(jump: MassActionJumps, args: PyTree, x: jax.Array) -> jax.Array:
    rates = jnp.asarray(errors.call(jump.rates, args) if callable(jump.rates) else jump.rates).astype(x.dtype)
    count = len(jump.reactants.rows)
    if rates.shape != (count,):
        raise ValueError(f"`rates` must be one number for each of {count} reactions, but are {rates.shape}.")
    return rates


def _by_mass_action(jump: MassActionJumps, rates: jax.Array, x: jax.Array) -> list[Channel]:
    species = _species(jump, x)
    change = jump.change.dense(species)
    found = []
    for r, row in enumerate(jump.reactants.rows):
        rate = _propensity(rates[r], row)
        add = jnp.asarray(change[r], x.dtype)
        found.append(Channel(rate, lambda t, x, draw, add=add: x + add, change[r], reads=row))
    return found


def _propensity(k: jax.Array, row: tuple) -> Callable:
    def rate(t: jax.Array, x: jax.Array) -> jax.Array:
        value = k
        for s, m in row:
            for i in range(m):
                value = value * ((x[s] - i) / (i + 1) if i else x[s])
        return value

    return rate


def _by_functions(jump: Any, unpack: Callable, pack: Callable, args: PyTree, x: jax.Array) -> Channel:
    def rate(t: jax.Array, x: jax.Array) -> jax.Array:
        return one_rate(errors.call(jump.rate, t, unpack(x), args)).astype(x.dtype)

    if isinstance(jump, ConstantRateJump):
        constant_in_time(rate, jnp.zeros((), x.dtype), x)
    if not callable(jump.affect):
        if isinstance(jump.affect, Added):
            add = np.asarray(jump.affect.numbers)
            like_state(add, x, "be what is added to x, like x0")
            return Channel(rate, lambda t, x, draw: x + jnp.asarray(add, x.dtype), add)
        added = jax.tree.map(jnp.asarray, jump.affect)
        like_state(added, unpack(x), "be what is added to x, like x0")
        return Channel(rate, lambda t, x, draw: x + pack(added))
    marked = takes_key(jump.affect)

    def affect(t: jax.Array, x: jax.Array, draw: Draw) -> jax.Array:
        more = (draw.key(),) if marked else ()
        new = jax.tree.map(jnp.asarray, errors.call(jump.affect, t, unpack(x), args, *more))
        like_state(new, unpack(x), "return a state like x0")
        return pack(new)

    return Channel(rate, affect, None, marked)
