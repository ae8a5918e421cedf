"""What to save: the forms of `saveat`, brought to one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiffeq import clock, errors


@dataclass(frozen=True)
class SaveAt:
    """What a solve keeps: values at the times `ts` or every `every`, after every `steps`-th step, at t0, at t1.

    `fn(t, y, args)` is saved in place of the state. `steps=True` means every step, `events=True` the states before and
    after every event. Everything asked for comes back in one `sol.ts`, `sol.ys`: first t0, then `ts` in the order
    given, then steps, events, and t1. At the time of an event `ts` and steps have the state after it.
    """

    ts: Any = None
    every: Any = None
    steps: int | bool = False
    t0: bool = False
    t1: bool = False
    fn: Callable | None = None
    events: bool = False

    def __post_init__(self) -> None:
        if self.steps is not False:
            errors.positive_integer(1 if self.steps is True else self.steps, "SaveAt(steps=)")
        errors.save_at_something(self)
        if self.fn is not None:
            errors.callable_with(self.fn, "fn", ("t", "y", "args"), silence="write `lambda *given: fn(*given)`")


@dataclass(frozen=True)
class Keep:
    """`SaveAt` without its times: what is known when a solve is compiled."""

    steps: int
    t0: bool
    t1: bool
    fn: Callable | None
    order: tuple[int, ...] | None
    """how to put sorted times back; None: they are in the order of travel, or traced (then `sort`)"""
    sort: bool
    events: bool = False
    number: int = 0
    """0: of the solution; else of the values that are saved besides, from 1 on"""
    first: int = 0
    count: int = 0
    """its times among those of all, from the `first` on"""

    def name(self, what: str) -> str:
        """Of a recorder: "times", "steps" or "instants"."""
        return f"{what} {self.number}" if self.number else what

    @property
    def own(self) -> slice:
        return slice(self.first, self.first + self.count)


def normalise(saveat: Any, name: str = "saveat") -> SaveAt:
    if saveat is None:
        return SaveAt(steps=1, t0=True)
    if isinstance(saveat, SaveAt):
        return saveat
    errors.saved_at(saveat, name)
    saveat = one_array(saveat)
    return SaveAt(every=saveat) if np.ndim(saveat) == 0 else SaveAt(ts=saveat)


def all_times(saveats: Sequence[SaveAt], t0: Any, t1: Any, dtype: Any) -> tuple[tuple[Keep, ...], Any]:
    """What the solution keeps, then what is saved besides, and the times of all, one after the other."""
    names = ["saveat", *["when"] * (len(saveats) - 1)]
    found = [times(saveat, t0, t1, dtype, name) for saveat, name in zip(saveats, names, strict=True)]
    counts = [np.size(ts) for _, ts in found]
    first = [sum(counts[:i]) for i in range(len(counts))]
    kept = tuple(replace(keep, number=i, first=first[i], count=counts[i]) for i, (keep, _) in enumerate(found))
    if len(found) == 1:
        return kept, found[0][1]
    xp = np if errors.all_concrete([ts for _, ts in found]) else jnp
    return kept, xp.concatenate([ts for _, ts in found])


def times(saveat: SaveAt, t0: Any, t1: Any, dtype: Any, name: str = "saveat") -> tuple[Keep, Any]:
    """The static part, and the times in the order of travel. Shapes: [times], possibly none."""
    ts = one_array(saveat.ts)
    if saveat.every is not None:
        xp = np if errors.all_concrete(ts) else jnp
        given = xp.zeros(0, dtype) if ts is None else xp.asarray(ts)
        ts = xp.concatenate([given, spaced(saveat.every, t0, t1, name)])
    if ts is None:
        return Keep(int(saveat.steps), saveat.t0, saveat.t1, saveat.fn, None, False, saveat.events), np.zeros(0, dtype)
    errors.times(ts, t0, t1, name)
    clock.apart(ts, dtype, name)
    order, sort = None, False
    if errors.all_concrete((ts, t0, t1)):
        ts = np.clip(np.asarray(ts, dtype), min(t0, t1), max(t0, t1))
        towards = np.argsort(ts if float(t1) >= float(t0) else -ts, kind="stable")
        if not np.array_equal(towards, np.arange(ts.size)):
            ts, order = ts[towards], tuple(int(i) for i in np.argsort(towards, kind="stable"))
    else:
        ts, sort = _snapped(jnp.asarray(ts).astype(dtype), t0, t1), True
    return Keep(int(saveat.steps), saveat.t0, saveat.t1, saveat.fn, order, sort, saveat.events), ts


def _snapped(ts: Any, t0: Any, t1: Any) -> Any:
    """Times that rounding has put outside of the span, by a few units in the last place, back to its end."""
    inside = jnp.clip(ts, jnp.minimum(t0, t1), jnp.maximum(t0, t1))
    near = jnp.abs(inside - ts) <= errors.rounding(ts) * jnp.maximum(jnp.abs(t0), jnp.abs(t1))
    return ts + jax.lax.stop_gradient(jnp.where(near, inside - ts, 0))


def one_array(times: Any) -> Any:
    """A list of times with tracers among them as an array; anything else as it is."""
    if not isinstance(times, list | tuple) or errors.all_concrete(times):
        return times
    return jnp.stack([jnp.asarray(t).astype(float) for t in times])


def spaced(every: Any, t0: Any, t1: Any, name: str = "saveat") -> np.ndarray:
    """t0, t0 ± every, … up to t1, without the drift of repeated addition: 0.1 on (0, 10) gives exactly 101 times."""
    errors.spacing(every, t0, t1, name)
    t0, t1, every = float(t0), float(t1), float(every)
    count = math.floor(abs(t1 - t0) / every * (1 + 1e-9))
    errors.spaced_times(count, every, name)
    ts = t0 + math.copysign(1.0, t1 - t0) * every * np.arange(count + 1)
    return np.clip(ts, min(t0, t1), max(t0, t1))


def sorted_times(keeps: Sequence[Keep], ts: Any, direction: Any) -> tuple[Any, tuple]:
    """The times of all, each in the order of travel, and for each how to put them back."""
    if len(keeps) == 1:
        ts, back = _sorted(keeps[0], ts, direction)
        return ts, (back,)
    parts, backs = zip(*(_sorted(keep, ts[keep.own], direction) for keep in keeps), strict=True)
    return jnp.concatenate(parts), backs


def _sorted(keep: Keep, ts: Any, direction: Any) -> tuple[Any, Any]:
    if not keep.sort:
        return ts, None if keep.order is None else np.asarray(keep.order)
    towards = jnp.argsort(jax.lax.stop_gradient(direction * ts))
    return ts[towards], jnp.argsort(towards)
