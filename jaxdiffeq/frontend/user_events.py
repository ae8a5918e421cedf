"""The user's events on arrays: every function traced once, with what it closes over as an argument."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiffeq import errors, habits
from jaxdiffeq import events as user
from jaxdiffeq.engine.crossings import Info
from jaxdiffeq.engine.events import Events, Member, Timer
from jaxdiffeq.primitives.dataflow import put
from jaxdiffeq.problems.ravel import close, real_dtype, split
from jaxdiffeq.problems.user_functions import OnArrays
from jaxdiffeq.types import PyTree


def asks_for_info(f: Callable | None) -> bool:
    return f is not None and "info" in (habits.names_of(f) or [])


def takes_which(f: Callable) -> bool:
    """A fourth parameter that is not `info`."""
    names = [name for name in habits.names_of(f) or [] if name != "info"]
    return len(names) > 3


class _Programs:
    """Functions closed over nothing: what they found elsewhere becomes `Arguments.of_events`."""

    def __init__(self) -> None:
        self.consts: list[list] = []
        self.last: Any = None

    def close(self, f: Callable, *at: Any) -> Callable:
        """f as a function of `Arguments` besides what it takes."""
        program, consts = close(f, *at)
        place, self.last = len(self.consts), program
        self.consts.append(consts)
        return lambda args, *given: program(args.of_events[place], *given)


def bound(events: Sequence[Any], on: OnArrays, at: tuple, limit: int) -> tuple[Events, list]:
    """The events of a solve that starts at `at`, t, y, leaves; and what their programs close over."""
    return _Binding(events, on, at).bound(limit)


class _Binding:
    def __init__(self, events: Sequence[Any], on: OnArrays, at: tuple):
        self.events, self.on, (self.t, self.y, self.leaves) = events, on, at
        self.programs = _Programs()
        zero = jnp.zeros((), jnp.int32)
        self.info = Info(jnp.zeros_like(self.y), self.t, self.t, self.y, zero)
        self.triggers = [event.trigger for event in events]
        self.shapes: dict[int, tuple] = {}
        adding = [i for i, event in enumerate(events) if event.adds is not None]
        self.given = len(self.leaves) - len(adding)
        """how many leaves are those of args"""
        self.added = {i: self.given + k for k, i in enumerate(adding)}
        """of which event the others are"""

    def bound(self, limit: int) -> tuple[Events, list]:
        kinds = [next((k for k, f in trigger._asdict().items() if f is not None), "") for trigger in self.triggers]
        conditions, sizes = self.values(kinds, "crosses")
        flags, flag_sizes = self.values(kinds, "holds")
        (domains, _), (caps, _) = (self.values(kinds, kind) for kind in ("stays", "caps"))
        sizes = {i: int(kind == "times") for i, kind in enumerate(kinds)} | sizes | flag_sizes
        place = ("crosses", "holds", "stays", "caps", "", "times").index
        order = sorted(range(len(kinds)), key=lambda i: place(kinds[i]))
        first = dict(zip(order, np.cumsum([0, *(sizes[i] for i in order)]), strict=False))
        affects = [self.affect(i, self.shapes.get(i, ())) for i in range(len(self.events))]
        carried = tuple(sorted({j for _, changes in affects for j in changes}))
        of = lambda event: (event.terminate, event.counts, event.jumps, event.follows)
        members = tuple(
            Member(int(first[i]), int(sizes[i]), _carrying(affect, carried), *of(event))
            for i, (event, (affect, _)) in enumerate(zip(self.events, affects, strict=True))
        )
        crossing = [i for i in order if kinds[i] == "crosses"]
        directions = [np.full(sizes[i], self.events[i].direction) for i in crossing]
        found = Events(
            members=members,
            conditions=conditions,
            directions=np.concatenate([np.zeros(0), *directions]),
            flags=flags,
            timers=tuple(self.timer(self.triggers[i].times) for i in order if kinds[i] == "times"),
            changing=lambda args: [args.leaves[j] for j in carried],
            changed=lambda args, new: args._replace(leaves=put(args.leaves, carried, new)),
            limit=limit,
            domains=domains,
            integrands=self.integrands(),
            caps=caps,
            asks=any(asks_for_info(t.crosses) or asks_for_info(t.holds) for t in self.triggers)
            or any(asks_for_info(e.affect) or asks_for_info(e.affect_args) for e in self.events),
        )
        return found, self.programs.consts

    # ---- what is asked of a function

    def values(self, kinds: Sequence[str], kind: str) -> tuple[Callable | None, dict[int, int]]:
        """All conditions, or all flags, one after the other, and how many numbers each event has."""
        mine = [i for i, k in enumerate(kinds) if k == kind]
        if not mine:
            return None, {}

        def on_arrays(t, y, leaves, info):
            found = []
            for i in mine:
                f = getattr(self.triggers[i], kind)
                value = self.call(f, t, y, leaves, info)
                value = user.condition(value, self.events[i], kind == "holds")
                self.shapes[i] = value.shape
                found.append(value.reshape(-1).astype(bool if kind == "holds" else real_dtype(self.on.ravel.dtype)))
            return jnp.concatenate(found)

        run = self.programs.close(on_arrays, self.t, self.y, self.leaves, self.info)
        sizes = {i: int(np.prod(self.shapes[i])) for i in mine}
        return lambda t, y, args, info: run(args, t, y, args.leaves, info), sizes

    def integrands(self) -> Callable | None:
        """What all of them integrate, pytree by pytree."""
        given = [event.integrand for event in self.events if event.integrand is not None]
        if not given:
            return None
        functions = [self.on.saved(f) for f in given]
        run = self.programs.close(
            lambda t, y, leaves: [f(t, y, leaves) for f in functions], self.t, self.y, self.leaves
        )
        return lambda t, y, args: run(args, t, y, args.leaves)

    def call(self, f: Callable, t: Any, y: Any, leaves: list, info: Info, *more: Any) -> Any:
        """f(t, y, args), with `info` if it asks for that."""
        unpack = self.on.ravel.unpack
        given = [t, unpack(y), self.on.rest.join(leaves), *more]
        if asks_for_info(f):
            told = info._replace(dy=unpack(info.dy), y_before=unpack(info.y_before))
            place = (habits.names_of(f) or []).index("info")
            given.insert(place, told)
        return errors.call(f, *given)

    def affect(self, number: int, shape: tuple) -> tuple[Callable | None, tuple[int, ...]]:
        """(t, y, args, which, info) ↦ y and all leaves of args; and which of these it changes."""
        event, names = self.events[number], ("affect", "affect_args", "adds")
        if all(getattr(event, name) is None for name in names):
            return None, ()

        def on_arrays(t, y, leaves, which, info):
            more = lambda f: [which.reshape(shape)] if takes_which(f) else []
            new, changed = y, leaves
            if event.affect is not None:
                state = self.call(event.affect, t, y, leaves, info, *more(event.affect))
                new = self.on.ravel.pack(user.affected(state, self.on.ravel.unpack(y), event))
            if event.affect_args is not None:
                args = self.call(event.affect_args, t, y, leaves, info, *more(event.affect_args))
                changed = self.matched(args, leaves, event)
            if event.adds is not None:
                slope = event.adds(t, self.on.ravel.unpack(y))
                changed = put(changed, [self.added[number]], [self.on.ravel.pack(slope)])
            return new, changed

        which = jnp.zeros(int(np.prod(shape)), bool)
        run = self.programs.close(on_arrays, self.t, self.y, self.leaves, which, self.info)
        changes = ()
        if event.affect_args is not None or event.adds is not None:
            jaxpr = self.programs.last.jaxpr
            n, first = len(self.leaves), len(jaxpr.invars) - len(self.leaves) - len(jax.tree.leaves((which, self.info)))
            given, returned = jaxpr.invars[first : first + n], jaxpr.outvars[1:]
            changes = tuple(j for j in range(n) if given[j] is not returned[j])
        return lambda t, y, args, which, info: run(args, t, y, args.leaves, which, info), changes

    def matched(self, args: PyTree, leaves: list, event: Any) -> list:
        """New parameters as leaves like the old ones."""
        (rest, new), old = split(args), leaves[: self.given]
        user.affected_args(rest, self.on.rest, new, old, event)
        new = [a if a is b else jnp.asarray(a).astype(jnp.asarray(b).dtype) for a, b in zip(new, old, strict=True)]
        return [*new, *leaves[self.given :]]

    def timer(self, times: Any) -> Timer:
        unpack, join = self.on.ravel.unpack, self.on.rest.join
        t, y, leaves = self.t, self.y, self.leaves
        way, ticks = jnp.ones_like(t), jnp.zeros((), jnp.int32)
        on = lambda f: lambda t, y, leaves, way: f(t, unpack(y), join(leaves), way)
        now, first = (self.programs.close(on(f), t, y, leaves, way) for f in (times.now, times.first))

        def following(ticks, t, y, leaves, t0, way):
            return times.next(ticks, t, unpack(y), join(leaves), t0, way)

        later = self.programs.close(following, ticks, t, y, leaves, t, way)
        return Timer(
            lambda t, y, args, way: now(args, t, y, args.leaves, way),
            lambda t, y, args, way: first(args, t, y, args.leaves, way),
            lambda ticks, t, y, args, t0, way: later(args, ticks, t, y, args.leaves, t0, way),
        )


def _carrying(affect: Callable | None, carried: tuple[int, ...]) -> Callable | None:
    """The affect, of whose leaves those are kept that some event changes."""
    if affect is None:
        return None

    def run(t, y, args, which, info):
        y, leaves = affect(t, y, args, which, info)
        return y, [leaves[j] for j in carried]

    return run
