"""What happens at an instant: conditions that cross zero, flags that are true after a step, timers whose time comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdiffeq.engine.crossings import Aim, Found, Info, Look, may_cross, no_aim, nothing_left, pick
from jaxdiffeq.engine.recorders import RecorderDefaults
from jaxdiffeq.primitives.row_buffer import read, rows, write
from jaxdiffeq.primitives.varying_axes import axes_of, cond, vary_like
from jaxdiffeq.primitives.while_loop import frozen_while
from jaxdiffeq.types import Ahead, Inputs, PyTree, Result, Shapes, State, Step, StepCotangents, StepView


class Watch(NamedTuple):
    """What is known of events when a step begins; constant to differentiation."""

    aim: Aim
    left: jax.Array
    """see `nothing_left`, [2, conditions]"""
    happened: jax.Array
    """events so far"""
    ticks: jax.Array
    """how often each timer has acted, [timers]"""

    @property
    def looks_out(self) -> jax.Array:
        """Something is aimed at, or was landed on just now."""
        return jnp.isfinite(self.aim.at) | jnp.any(self.left != 0)


class Seen(NamedTuple):
    """What a look at a step has found."""

    again: jax.Array
    """it has to be taken again, to land"""
    fired: jax.Array
    """what acts at its end, [conditions + flags + timers]"""
    grazing: jax.Array
    """a condition that does hardly crosses"""
    result: jax.Array
    """how the solve ends with it, or `Result.running`"""
    watch: Watch


@dataclass(frozen=True)
class Member:
    """One event: where its conditions, flags or timers lie among all of them, and what it does."""

    first: int
    size: int
    affect: Callable | None
    """(t, y, args, which, info) ↦ y and the parameters that events change"""
    terminates: bool = False
    counts: bool = True
    """it is logged, and counted against the limit"""
    jumps: bool = True
    """the state, or f, is another one once it has acted"""
    follows: bool = False
    """a timer that acts, and is asked for its time, after whatever jumps too; its affect is told whether by itself"""

    def of(self, fired: jax.Array) -> jax.Array:
        """Which of its own act."""
        return fired[self.first : self.first + self.size]


class Timer(NamedTuple):
    """t₀ if it acts there, when first, and when for the `ticks` + 1st time; `way` is the sign of t₁ − t₀."""

    now: Callable
    """(t₀, y, args, way) ↦ a time"""
    first: Callable
    """(t₀, y, args, way) ↦ a time"""
    next: Callable
    """(ticks, t, y, args, t₀, way) ↦ a time"""


@dataclass(frozen=True)
class Events:
    """All events of a solve as functions on arrays. Shapes: y [*state]; args as in `Inputs`."""

    members: Sequence[Member]
    conditions: Callable | None
    """(t, y, args, info) ↦ [n]"""
    directions: np.ndarray
    """[n]; see `Look`"""
    flags: Callable | None
    """(t, y, args, info) ↦ [flags]"""
    timers: Sequence[Timer]
    changing: Callable
    """args ↦ the parameters that events change"""
    changed: Callable
    """(args, these) ↦ args with these"""
    limit: int
    """how many may happen"""
    asks: bool
    """conditions, flags or affects ask for `Info`"""
    domains: Callable | None = None
    """(t, y, args, info) ↦ numbers, none of which a step may make negative"""
    caps: Callable | None = None
    """(t, y, args, info) ↦ how long the next step may be, any of them"""
    integrands: Callable | None = None
    """(t, y, args) ↦ what is integrated along the solution, a list"""
    rough: bool = False
    """see `Look`"""

    def any_logged(self, fired: jax.Array) -> jax.Array:
        """Whether anything acts that counts."""
        return jnp.any(jnp.concatenate([m.of(fired) for m in self.members if m.counts] or [jnp.zeros(1, bool)]))

    # ---- the start

    @property
    def nothing(self) -> jax.Array:
        """Nothing acts."""
        return jnp.zeros(max((m.first + m.size for m in self.members), default=0), bool)

    def begun(self, inputs: Inputs, f: Callable | None) -> Inputs:
        """After the timers that act at t₀; with f, which gives their derivative by the times at which they act."""
        t, y, args, way = inputs.t0, inputs.y0, inputs.args, _way(inputs)
        info = Info(jnp.zeros_like(y), jnp.zeros_like(t), t, y, jnp.zeros((), jnp.int32))
        before, others = self.nothing.size - len(self.timers), jnp.array(False)
        for member in (m for m in self.members if m.size and m.first >= before):
            now = jnp.asarray(self.timers[member.first - before].now(t, y, args, way)).astype(t.dtype)
            acts, old = now == t, (y, args)
            own = jnp.where(acts, now, t)
            given = inputs._replace(args=args), own, y, self.changing(args), (acts.reshape(1), others)
            y, changed = self._one(member, *given, info)
            others |= acts
            args = self.changed(args, changed)
            y = y if f is None else _step_between(f, t, own, old, (y, args))
        return inputs._replace(y0=y, args=args)

    def ahead(self, inputs: Inputs) -> Ahead:
        """What is left for later at the start."""
        t, y, args = inputs.t0, inputs.y0, inputs.args
        times = [self._later(inputs, timer.first(t, y, args, _way(inputs)), t) for timer in self.timers]
        return vary_like(Ahead(_stacked(times, t), self.changing(args)), y)

    def watch(self, inputs: Inputs) -> Watch:
        n, zero, ticks = len(self.directions), jnp.zeros((), jnp.int32), jnp.zeros(len(self.timers), jnp.int32)
        return Watch(no_aim(n, inputs.t0, inputs.y0), nothing_left(n, inputs.y0), zero, ticks)

    def _later(self, inputs: Inputs, time: Any, t: jax.Array) -> jax.Array:
        """A time ahead, or never."""
        way = _way(inputs)
        time = jnp.asarray(time).astype(t.dtype)
        never = jnp.where(way < 0, -jnp.inf, jnp.inf).astype(t.dtype)
        return jnp.where(way * time > way * t, time, never)

    def jumps(self, fired: jax.Array) -> jax.Array:
        """Whether the state, or f, is another one after what acts."""
        of = [member.of(fired) for member in self.members if member.jumps]
        return jnp.any(jnp.concatenate([jnp.zeros(0, bool), *of]))

    # ---- a step

    def soonest(self, inputs: Inputs, target: jax.Array, ahead: Ahead, watch: Any) -> jax.Array:
        """The first of a target, all timers and, if there is a watch, the root that is aimed at."""
        way = _way(inputs)
        for time in ahead.timers:
            target = jnp.where(way * time < way * target, time, target)
        if not watch:
            return target
        at = watch.aim.at
        return jnp.where(jnp.isfinite(at) & (way * at <= way * target), at, target)

    def look(self, inputs: Inputs, step: StepView, accepted: jax.Array, interpolant: Callable) -> Seen:
        """What happens in a step, if it is accepted: nothing in most of them, which a few values show.

        In the others the interpolant is made again, by `interpolant`, so that these few are all that is made of it
        elsewhere.
        """
        watch, t1, none = step.made.watch, step.after.t, jnp.zeros(0, bool)
        along = self._along(inputs, step)
        flags = none if self.flags is None else self.flags(t1, step.end, inputs.args, along.info(jnp.ones_like(t1)))
        now = jnp.concatenate([flags, step.before.events.timers == t1])
        values = None if self.conditions is None else along.values()
        stirs = jnp.any(now)
        if values is not None:
            stirs |= may_cross(values) | watch.looks_out
        nothing, goes_on = jnp.array(False), jnp.asarray(Result.running.value, jnp.int32)
        still = Seen(nothing, self.nothing, nothing, goes_on, watch)
        still = vary_like(still, step.end)  # out of the branch: under vmap, JAX forgets there what varies

        def closely():
            looking = replace(along, step=step._replace(coefficients=lax.optimization_barrier(interpolant())))
            return self._seen(looking, watch, values, now)

        return cond(accepted & stirs, closely, lambda: still)

    def _along(self, inputs: Inputs, step: StepView) -> Look:
        conditions, count = self.conditions or _no_conditions, step.made.watch.happened
        return Look(conditions, self.directions, inputs, step, count, asks=self.asks, rough=self.rough)

    def _seen(self, along: Look, watch: Watch, values: jax.Array | None, now: jax.Array) -> Seen:
        """What happens in an accepted step in which something may."""
        none = jnp.zeros(0, bool)
        found = Found(jnp.array(False), watch.aim, none, watch.left, none)
        if values is not None:
            found = along.find(watch.aim, watch.left, values)
        again, fired = found.again, jnp.concatenate([found.fired, now]) & ~found.again
        more, ended = jnp.zeros((), jnp.int32), jnp.array(False)
        for member in self.members:
            acts = jnp.any(member.of(fired))
            more += acts.astype(jnp.int32) * int(member.counts)
            ended |= acts & member.terminates
        full = watch.happened + more > self.limit
        result = jnp.where(ended, Result.terminated, Result.running)
        result = jnp.where(full, Result.event_limit_reached, result).astype(jnp.int32)
        fired = fired & ~full
        ticks = watch.ticks + fired[fired.size - len(self.timers) :].astype(jnp.int32)
        left = jnp.where(again, watch.left, found.left)
        new = Watch(found.aim, left, watch.happened + jnp.where(full, 0, more), ticks)
        return Seen(again, fired, jnp.any(found.grazing), result, new)

    def condition(self, inputs: Inputs, step: StepView, count: jax.Array, index: jax.Array) -> jax.Array:
        """One condition at the end of a step."""
        assert self.conditions is not None
        along = replace(self._along(inputs, step), count=count)
        return pick(along.at(jnp.ones_like(step.after.t), step.end), index)

    def inside(self, inputs: Inputs, before: State, step: Step) -> jax.Array:
        """Whether a step has stayed where it must; NaN has not."""
        assert self.domains is not None
        after = step.after
        info = Info(jnp.zeros_like(after.y), after.t - before.t, before.t, before.y, jnp.zeros((), jnp.int32))
        return jnp.all(self.domains(after.t, after.y, inputs.args, info) >= 0)

    def longest(self, inputs: Inputs, at: State, dt: jax.Array) -> jax.Array:
        """The size of a next step, capped."""
        if self.caps is None:
            return dt
        info = Info(jnp.zeros_like(at.y), jnp.zeros_like(at.t), at.t, at.y, jnp.zeros((), jnp.int32))
        return jnp.minimum(dt, jnp.min(self.caps(at.t, at.y, inputs.args, info)).astype(dt.dtype))

    # ---- what events do

    def act(self, inputs: Inputs, step: StepView, after: State, f: Callable | None) -> tuple[State, jax.Array]:
        """The state after all that act, in turn, and y before and after each, [events + 1, *state].

        The time of a timer that was not landed on by itself is the same to rounding, but not in its derivative: with f,
        that is the derivative of a step from the one to the other.
        """
        fired, t, ahead = step.made.fired, after.t, after.events
        info = self._along(inputs, step).info(jnp.ones_like(t))
        chain, changed, others = [after.y], ahead.changed, self.jumps(fired)
        for member in self.members:
            which, before = member.of(fired), (chain[-1], self.changed(inputs.args, changed))
            own = self._own_time(member, inputs, (after, info), which, f) if f is not None else t
            y, changed = self._one(member, inputs, own, chain[-1], changed, (which, others), info)
            if own is not t:
                y = _step_between(f, t, own, before, (y, self.changed(inputs.args, changed)))
            chain.append(y)
        args, y = self.changed(inputs.args, changed), chain[-1]
        times = []
        for j, timer in enumerate(self.timers):
            place = fired.size - len(self.timers) + j
            follows = any(member.follows for member in self.members if member.size and member.first == place)
            acts = fired[place] | others if follows else fired[place]
            given = _only_if(acts, (t, y, args))
            ticks = step.made.watch.ticks[j] + 1
            later = self._later(inputs, timer.next(ticks, *given, inputs.t0, _way(inputs)), t)
            times.append(jnp.where(acts, later, ahead.timers[j]))
        return after._replace(y=y, events=vary_like(Ahead(_stacked(times, t), changed), y)), jnp.stack(chain)

    def _own_time(self, member: Member, inputs: Inputs, at: tuple, which: jax.Array, f: Callable) -> jax.Array:
        """When a timer acts, or where a condition is zero, where something else may act too."""
        (after, info), timer = at, member.first - (self.nothing.size - len(self.timers))
        t, acts = after.t, jnp.any(which)
        if member.size == 0 or (len(self.members) == 1 and inputs.stops.size == 0):
            return t
        if timer >= 0:
            return jnp.where(acts, after.events.timers[timer], t)
        if member.first >= len(self.directions) or self.conditions is None or self.asks:
            return t
        k = member.first + jnp.argmax(which)
        return _root_near(self.conditions, f, (t, after.y, inputs.args), lax.stop_gradient((acts, k, info)))

    def _one(
        self, member: Member, inputs: Inputs, t: Any, y: Any, changed: list, flags: tuple, info: Info
    ) -> tuple[jax.Array, list]:
        """What a member does; `flags`: which of its own act, and whether others have."""
        if member.affect is None:
            return y, changed
        affect, (which, others) = member.affect, flags
        acts = jnp.any(which) | others if member.follows else jnp.any(which)

        def acted():
            at, state, args, told = _only_if(acts, (t, y, self.changed(inputs.args, changed), info))
            return affect(at, state, args, which, told)

        return cond(acts, acted, lambda: (y, changed))


def _root_near(conditions: Callable, f: Any, at: tuple, rest: tuple) -> jax.Array:
    """t, with the derivative of the root of g(t, y, args) along f that is there to rounding, dt − dg/(dg/dt); g is one
    of the conditions."""

    @jax.custom_jvp
    def root(t, y, args, rest):
        return t

    def rule(primals, tangents):
        (t, y, args, (acts, k, info)), dt = primals, tangents[0]
        g = lambda t, y, args: conditions(t, y, args, info)[k]
        _, off = jax.jvp(g, primals[:3], tangents[:3])
        _, rate = jax.jvp(lambda t, y: g(t, y, args), (t, y), (jnp.ones_like(t), f(t, y, args)))
        return root(*primals), dt - jnp.where(acts, off / jnp.where(acts & (rate != 0), rate, 1), 0).astype(t.dtype)

    root.defjvp(rule)
    return root(*at, rest)


def _step_between(f: Any, t: jax.Array, own: jax.Array, before: tuple, after: tuple) -> jax.Array:
    """y after an affect at `own`, from `before` to `after`, y and args, as it is at t: the same but for its derivative,
    y + (own − t)·(f before − f after)."""

    @jax.custom_jvp
    def stepped(y, apart, given):
        return y

    def rule(primals, tangents):
        (y, apart, given), (dy, d_apart, _) = primals, tangents
        (t, (y0, args0), (y1, args1)) = given
        jump = f(t, y0, args0) - f(t, y1, args1)
        return stepped(y, apart, given), dy + d_apart.astype(dy.dtype) * jump

    stepped.defjvp(rule)
    return stepped(after[0], own - t, (t, before, after))


def _way(inputs: Inputs) -> jax.Array:
    return lax.stop_gradient(jnp.sign(inputs.t1 - inputs.t0))


def _only_if(acts: jax.Array, given: PyTree) -> PyTree:
    """What is given, through which derivatives flow only where it is used: elsewhere they may be NaN."""

    def guard(x):
        real = jnp.issubdtype(jnp.result_type(x), jnp.inexact)
        alike = axes_of(acts) <= axes_of(x)  # else it would vary as `acts` does, and a constant of a program must not
        return jnp.where(acts, x, lax.stop_gradient(x)) if real and alike else x

    return jax.tree.map(guard, given)


def _no_conditions(t: Any, y: Any, args: Any, info: Any) -> jax.Array:
    return jnp.zeros(0)


def _stacked(times: Sequence[jax.Array], t: jax.Array) -> jax.Array:
    return vary_like(jnp.stack(times) if times else jnp.zeros(0, t.dtype), t)


# ---- the log of events


class EventRows(NamedTuple):
    """Shapes: [rows, ...]. All real numbers, since the rest of a row is differentiable."""

    t: Any
    before: Any
    after: Any
    which: Any
    grazing: Any


@dataclass(frozen=True)
class SaveEvents(RecorderDefaults):
    """Every event that counts: its time, its number, y before and after. Shapes: `EventRows` of [limit + 1, ...]."""

    events: Events

    def init(self, inputs: Inputs, start: State, shapes: Shapes) -> tuple[EventRows, jax.Array]:
        real = jax.ShapeDtypeStruct((), jnp.finfo(inputs.y0.dtype).dtype)
        row = EventRows(start.t, start.y, start.y, real, real)
        return rows(row, self.events.limit), jnp.zeros((), jnp.int32)

    def record(
        self, moving: EventRows, fixed: jax.Array, step: StepView, inputs: Inputs
    ) -> tuple[EventRows, jax.Array]:
        """A loop over the events that are logged, not taken where none acts: most steps write nothing."""
        acting, chain, real = self._acting(step), step.chain, moving.which.dtype
        if not acting:
            return moving, fixed
        numbers, acts = (jnp.stack([jnp.asarray(x) for x in each]) for each in zip(*acting, strict=True))
        count = jnp.where(jnp.any(acts), len(acting), 0)

        def more(_, at):
            return at[1] < count

        def one(moving, at):
            (row, k), live = at, more(moving, at)
            i, logged = read((numbers, acts), jnp.minimum(k, len(acting) - 1))
            sides = read(chain, i), read(chain, i + 1)
            values = EventRows(step.after.t, *sides, i.astype(real), step.grazing.astype(real))
            logged &= live
            return write(moving, row, values, logged), (row + logged.astype(row.dtype), k + live.astype(k.dtype))

        moving, (fixed, _) = frozen_while(more, one, moving, (fixed, jnp.zeros_like(count)))
        return moving, fixed

    def _acting(self, step: StepView) -> list[tuple[int, jax.Array]]:
        """The numbers of the events that are logged, and whether they act."""
        members = enumerate(self.events.members)
        return [(i, step.taken & jnp.any(m.of(step.made.fired))) for i, m in members if m.counts]

    def reached(self, fixed: jax.Array, count: int, inputs: Inputs) -> jax.Array:
        return jnp.arange(count, dtype=fixed.dtype) < fixed

    def vjp(
        self, bars: StepCotangents, cursor: jax.Array, step: StepView, active: Any, out: EventRows
    ) -> tuple[StepCotangents, jax.Array]:
        for number, acts in reversed(self._acting(step)):
            bar = jax.tree.map(lambda x, acts=acts: jnp.where(acts, x, 0), read(out, jnp.maximum(cursor, 0)))
            none = jnp.zeros_like(bar.before)
            add = {number: bar.before, number + 1: bar.after}
            chain = bars.chain + jnp.stack([add.get(i, none) for i in range(len(bars.chain))])
            after = bars.after._replace(t=bars.after.t + bar.t)
            bars, cursor = bars._replace(chain=chain, after=after), cursor - acts.astype(cursor.dtype)
        return bars, cursor
