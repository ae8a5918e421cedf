"""One path of a process that stands still between jumps: from event to event, or from leap to leap.

A trip of the loop is one event. Times to save at that lie before it are dealt with by a loop of their own, so that the
random numbers of an event do not wait for the state: they depend on its number alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiffeq.jumps.blocks import at
from jaxdiffeq.jumps.channels import Channels, Tabled
from jaxdiffeq.jumps.counters import Draw
from jaxdiffeq.primitives.row_buffer import put_row
from jaxdiffeq.primitives.while_loop import frozen_while
from jaxdiffeq.types import PyTree, Result


class Walk(NamedTuple):
    """Where a path stands. Shapes: x [*state], rows [times + 1, *state], kept ([room + 1], [room + 1, *state])."""

    t: jax.Array
    x: jax.Array
    n: jax.Array
    """the number of the next draw, unsigned"""
    result: jax.Array
    memory: PyTree
    tried: jax.Array
    """events and leaps, refused ones included"""
    refused: jax.Array
    events: jax.Array
    saved: jax.Array
    rows: Any
    length: jax.Array
    """rows of `kept`"""
    kept: Any
    score: PyTree = ()
    before: Any = ()
    """x before the last event, where the walker goes `ahead`"""


class Walker(NamedTuple):
    """How it goes on. `ts` are the times to save at, in order; `every` 0: no event is kept."""

    method: Any
    channels: Channels
    words: jax.Array
    ts: jax.Array
    max_steps: jax.Array
    every: int = 0
    room: int = 0
    alone: bool = True
    """no lane waits for another one, so that what has ended need not be kept as it is"""
    scored: Callable | None = None
    """(t, x, dt, r, whether r has happened) ↦ the gradient of the log-likelihood of that"""

    @property
    def ahead(self) -> bool:
        """The state goes on before it is known whether the event still counts: then nothing waits for that."""
        return self.method.exact and not isinstance(self.channels, Tabled)

    def begin(self, t: jax.Array, x: jax.Array, score: PyTree = ()) -> Walk:
        zero = jnp.zeros((), jnp.int32)
        rows = jax.ShapeDtypeStruct((len(self.ts) + 1, *x.shape), x.dtype)
        kept = ()
        if self.every:
            length = self.room + 1
            kept = (
                jax.ShapeDtypeStruct((length,), t.dtype),
                jax.ShapeDtypeStruct((length, *x.shape), x.dtype),
            )
        memory = self.method.begin(self.channels, t, x, self.words)
        running = jnp.asarray(Result.running, jnp.int32)
        n = jnp.zeros((), jnp.uint32)
        return Walk(t, x, n, running, memory, zero, zero, zero, zero, rows, zero, kept, score)

    def run(self, walk: Walk, until: jax.Array) -> Walk:
        """To the time `until`, or to where the room for events is full."""
        trip = self.event if self.method.exact else self.leap
        room = np.int32(self.room)

        def running(walk: Walk, _: tuple) -> jax.Array:
            go = walk.result == Result.running
            return go & (walk.length < room) if self.every else go

        if len(self.ts) == 0 and not self.every:  # a buffer that nothing is read from
            walk = walk._replace(rows=jnp.zeros((1, *walk.x.shape), walk.x.dtype))
        if self.ahead:
            walk = walk._replace(before=walk.x)
        done = frozen_while(running, lambda w, _: (trip(w, until), ()), walk, ())[0]
        ended = done.result != Result.running
        trips = done.tried - walk.tried + ended.astype(jnp.int32)
        done = done._replace(n=walk.n + trips.astype(jnp.uint32))  # lanes that wait for others go on counting
        return done._replace(x=jnp.where(ended, done.before, done.x), before=()) if self.ahead else done

    # ---- exact

    def event(self, walk: Walk, until: jax.Array) -> Walk:
        draw, t, x = Draw(self.words, walk.n), walk.t, walk.x
        alive = self._alive(walk)
        coming, memory = self.method.next(self.channels, t, x, draw, walk.memory)
        over, full = ~(coming.t <= until), walk.tried >= self.max_steps
        short = full & ~over | ~coming.finite
        ends = over | short
        code = jnp.where(short, jnp.where(coming.finite, Result.max_steps_reached, Result.nonfinite), Result.running)
        code = jnp.where(over & coming.finite, Result.success, code).astype(jnp.int32)

        passes = alive & ~short
        saved, rows = self._save(walk, lambda at: passes & (at < coming.t) & (at <= until))
        go = alive & ~ends & coming.taken
        gate = alive & jnp.asarray(coming.taken) if self.ahead else go
        r = self.method.channel(coming, memory)
        new = self.channels.fire(r, coming.t, x, draw, gate)
        score, end = walk.score, jnp.minimum(coming.t, until)
        if self.scored is not None:
            more = self.scored(t, x, jnp.where(alive & ~short, end - t, 0), r, go)
            score = jax.tree.map(jnp.add, score, more)
        one = (alive & ~ends).astype(jnp.int32)
        walk = walk._replace(
            t=jnp.where(alive & ~short, end, t),
            x=new,
            before=jnp.where(alive, x, walk.before) if self.ahead else (),
            n=walk.n + np.uint32(1),
            result=jnp.where(alive, code, walk.result),
            memory=self.method.after(self.channels, coming, end, new, draw, memory, gate),
            tried=walk.tried + one,
            refused=walk.refused + one - go.astype(jnp.int32),
            events=walk.events + go.astype(jnp.int32),
            saved=saved,
            rows=rows,
            score=score,
        )
        return self._keep(walk, go)

    def _alive(self, walk: Walk) -> Any:
        """What goes on: everything that comes here does, unless other lanes go along."""
        if self.alone:
            return jnp.ones((), bool)
        alive = walk.result == Result.running
        return alive & (walk.length < np.int32(self.room)) if self.every else alive

    def _save(self, walk: Walk, passed: Callable) -> tuple[jax.Array, jax.Array]:
        """The state in all rows, after those that are saved, whose time is `passed`."""
        ts, last = self.ts, np.int32(len(self.ts) - 1)
        if len(ts) == 0:
            return walk.saved, walk.rows

        def due(c: tuple, _: Any) -> jax.Array:
            return (c[0] <= last) & passed(at(ts, jnp.minimum(c[0], last)))

        def save(c: tuple, _: Any) -> tuple:
            go = due(c, ())
            row = jnp.where(go, c[0], last + np.int32(1))
            return (jnp.where(go, c[0] + 1, c[0]), put_row(c[1], row, walk.x)), ()

        return frozen_while(due, save, (walk.saved, walk.rows), ())[0]

    def _keep(self, walk: Walk, go: jax.Array) -> Walk:
        if not self.every:
            return walk
        wanted = go & (walk.events % np.int32(self.every) == 0)
        row = jnp.where(wanted, walk.length, np.int32(self.room))
        kept = put_row(walk.kept[0], row, walk.t), put_row(walk.kept[1], row, walk.x)
        return walk._replace(kept=kept, length=walk.length + wanted.astype(jnp.int32))

    # ---- by leaps

    def leap(self, walk: Walk, until: jax.Array) -> Walk:
        draw, last = Draw(self.words, walk.n), np.int32(len(self.ts) - 1)
        alive = self._alive(walk)
        horizon = until
        if len(self.ts):
            due = at(self.ts, jnp.minimum(walk.saved, last))
            horizon = jnp.where(walk.saved <= last, jnp.minimum(due, until), until)
        step, memory = self.method.step(self.channels, walk.t, walk.x, draw, walk.memory, horizon)
        full = walk.tried >= self.max_steps
        go = alive & ~full & step.finite & step.taken
        t, x = jnp.where(go, step.t, walk.t), jnp.where(go, step.x, walk.x)
        over = go & (t >= until)
        stops = jnp.where(over, Result.success, jnp.where(full, Result.max_steps_reached, Result.running))
        stops = jnp.where(step.finite, stops, Result.nonfinite).astype(jnp.int32)
        one = (alive & ~full & step.finite).astype(jnp.int32)
        walk = walk._replace(
            t=t,
            x=x,
            n=walk.n + np.uint32(1),
            result=jnp.where(alive, stops, walk.result),
            memory=jax.tree.map(lambda n, o: jnp.where(alive, n, o), memory, walk.memory),
            tried=walk.tried + one,
            refused=walk.refused + one - go.astype(jnp.int32),
            events=walk.events + go.astype(jnp.int32),
        )
        saved, rows = self._save(walk, lambda at: go & (at <= t))
        return self._keep(walk._replace(saved=saved, rows=rows), go)
