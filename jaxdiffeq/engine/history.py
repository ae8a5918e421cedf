"""Integration with a memory: each step adds its polynomial to the past, which f may ask for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiffeq.engine.integration import START, Carry, Integration, LoopControl
from jaxdiffeq.engine.recorders import RecorderDefaults
from jaxdiffeq.primitives.row_buffer import read, rows, write
from jaxdiffeq.primitives.varying_axes import vary_like
from jaxdiffeq.problems.past import (
    PAST,
    Felt,
    Past,
    Piece,
    at_start,
    constant,
    felt_nothing,
    near_to,
    rows_of,
    windows_at,
)
from jaxdiffeq.types import Inputs, PyTree, Result, Settings, Shapes, State, Step, StepCotangents, StepView

@dataclass(frozen=True)
class Pieces(RecorderDefaults):
    """The polynomial of each of the last `size` steps. Shapes: moving, `Piece` of [size + 1, …]; fixed, their number.

    Step n is in row n mod size.
    """

    size: int

    reads_interpolant = inner = True

    def init(self, inputs: Inputs, start: State, shapes: Shapes) -> tuple[Piece, jax.Array]:
        t = jax.ShapeDtypeStruct((), start.t.dtype)
        return rows(Piece(t, t, shapes.coefficients), self.size), jnp.zeros((), jnp.int32)

    def record(self, moving: Piece, fixed: jax.Array, step: StepView, inputs: Inputs) -> tuple[Piece, jax.Array]:
        piece = Piece(step.before.t, step.after.t, step.coefficients)
        due = step.taken & (step.after.t > step.before.t)  # once a restart has read: else the ring would be copied
        return write(moving, step.number % self.size, piece, due), fixed + step.taken.astype(fixed.dtype)

    def vjp(
        self, bars: StepCotangents, cursor: jax.Array, step: StepView, active: Any, out: Piece
    ) -> tuple[StepCotangents, jax.Array]:
        """Add what later steps have felt of this one's polynomial."""
        piece = jax.tree.map(lambda x: jnp.where(step.taken, x, 0), read(out, step.number % self.size))
        after = jax.tree.map(jnp.zeros_like, bars.after)._replace(t=piece.end)
        leaves = [jnp.zeros_like(x) for x in bars.inputs]
        return bars.add(piece.start, after, piece.coefficients, leaves), cursor


class Dense(NamedTuple):
    """What a step's interpolant is made of, and where it begins."""

    t: jax.Array
    y: jax.Array
    of_step: PyTree


@dataclass(frozen=True)
class Remembering(Integration):
    """An integration whose f asks for the past, `args` with which it finds there.

    The pieces live once, beside the loop's state: with the recorder of that name, or whole, with `recalling`.
    """

    put: Callable[[PyTree, Past | None], PyTree] = field(kw_only=True)
    """args and a past ↦ args with that past"""
    got: Callable[[PyTree], Past | None] = field(kw_only=True)
    """the past in args"""
    lags: Callable[[PyTree], jax.Array] = field(kw_only=True)
    """args ↦ the constant lags, [lags]"""
    windows: int = field(kw_only=True)
    """how many of them the gradient has"""
    whole: bool = field(default=False, kw_only=True)
    """no piece may be let go: a gradient needs all of them"""

    remembers: ClassVar[bool] = True

    # ---- what f finds

    def shape(self, inputs: Inputs) -> Piece:
        """Of the ring, that a recorder or args have."""
        recorder, past = self.recorders.get(PAST), self.got(inputs.args)
        if past is not None:
            return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), past.ring)
        assert recorder is not None
        time = jax.ShapeDtypeStruct((recorder.size + 1,), inputs.t0.dtype)
        room = self.room(inputs)
        return Piece(time, time, jax.ShapeDtypeStruct((recorder.size + 1, *room.shape), room.dtype))

    def recalling(self, inputs: Inputs, ring: Piece, felt: Felt | None = None) -> Inputs:
        """Inputs with these pieces, of which each step sees those before it."""
        past = at_start(ring, self.windows, inputs.t0, inputs.y0)._replace(felt=felt)
        return inputs._replace(args=self.put(inputs.args, past))

    def _past(self, inputs: Inputs) -> Past:
        past = self.got(inputs.args)
        assert past is not None, "a step is taken without a past"
        return past

    def _seen(self, inputs: Inputs, number: Any, own: Piece, middle: jax.Array) -> Inputs:
        count, t0 = jnp.asarray(number, jnp.int32), lax.stop_gradient(inputs.t0)
        past = self._past(inputs)._replace(count=count, own=own, middle=lax.stop_gradient(middle), t0=t0)
        return inputs._replace(args=self.put(inputs.args, past))

    def _before_any(self, inputs: Inputs) -> Inputs:
        """At the start, where f may be asked for a little beyond, as if y stayed there."""
        if self.got(inputs.args) is None:
            ring = jax.tree.map(lambda x: vary_like(lax.empty(x.shape, x.dtype), inputs.y0), self.shape(inputs))
            inputs = self.recalling(inputs, ring)
        own = constant(inputs.t0, inputs.y0, self.stepper.degree)
        return self._seen(inputs, START, own, jnp.full_like(inputs.t0, jnp.inf))

    def _during(self, inputs: Inputs, start: State, t1: jax.Array, number: Any) -> Inputs:
        """In a step whose own piece nobody asks for."""
        own = constant(start.t, jnp.full_like(start.y, jnp.nan), self.stepper.degree)
        inputs = self._seen(inputs, number, lax.stop_gradient(own), (start.t + t1) / 2)
        past = self._past(inputs)
        near = near_to(past, self._reached(inputs, start)) if past.felt is None else past.felt.near
        return inputs._replace(args=self.put(inputs.args, past._replace(near=near)))

    def _reached(self, inputs: Inputs, start: State) -> jax.Array:
        """The times that the lags lead to from there, constants; the time itself if there is none. Shapes: [windows]."""
        lags = self.lags(inputs.args)
        lags = lags if lags.size else jnp.zeros(1, start.t.dtype)
        return lax.stop_gradient(start.t - lags)

    # ---- for a gradient

    @property
    def keeping_all(self) -> Remembering:
        return replace(self, whole=True)

    def felt_nothing(self, ring: Piece) -> Felt:
        return felt_nothing(ring, self.windows)

    def felt_at(self, inputs: Inputs, start: State, n: jax.Array, turn: jax.Array) -> Felt:
        """The windows by which step n is taken back at its n-th turn."""
        past = self._past(inputs)._replace(count=n)
        near = near_to(past, self._reached(inputs, start))
        return windows_at(self.felt_nothing(past.ring), near, n, turn, rows_of(past.ring))

    # ---- one step

    def limited(self, target: jax.Array, start: State, dt: jax.Array, inputs: Inputs) -> jax.Array:
        """No longer than the shortest lag; several steps to the target are then alike."""
        lags = self.lags(inputs.args)
        if lags.size == 0:
            return dt
        left, least = lax.stop_gradient((jnp.abs(target - start.t), jnp.min(lags)))
        count = jnp.ceil(left / least * (1 - 4 * jnp.finfo(dt.dtype).eps))
        return jnp.where(1.01 * dt < least, dt, jnp.minimum(dt, left / jnp.maximum(count, 1)))

    def advance(self, inputs: Inputs, settings: Settings, start: State, dt: jax.Array, number: Any) -> Step:
        target, _ = self.ahead(inputs, start, number)
        t1, _ = self.end(inputs, target, start, dt)
        step = super().advance(self._during(inputs, start, t1, number), settings, start, dt, number)
        step = step._replace(dense=Dense(start.t, start.y, step.dense))
        if not self.whole:
            return step
        went_on = Result.running if step.result is None else step.result
        full = number >= rows_of(self._past(inputs).ring)
        return step._replace(result=jnp.where(full, Result.history_too_short, went_on))

    def restarted(self, inputs: Inputs, settings: Settings, step: Step, taken: jax.Array, number: Any) -> State:
        """The step just made is not in the ring yet; of it, f can ask for where it begins."""
        if step.restart is None:
            return step.after
        own = constant(step.dense.t, step.dense.y, self.stepper.degree)
        beyond = self._seen(inputs, number, own, jnp.full_like(inputs.t0, jnp.inf))
        return super().restarted(beyond, settings, step, taken, number)

    def polynomial(self, inputs: Inputs, step: StepView, dense: Dense, wanted: jax.Array) -> jax.Array:
        if self.stepper.evaluations[2]:
            inputs = self._during(inputs, step.before, step.after.t, step.number)
        return super().polynomial(inputs, step, dense.of_step, wanted)

    # ---- the loop

    def begin(self, inputs: Inputs) -> State:
        return super().begin(self._before_any(inputs))

    def start(self, inputs: Inputs, settings: Settings) -> Carry:
        return super().start(self._before_any(inputs), settings)

    def trip(self, inputs: Inputs, settings: Settings, carry: Carry, live: jax.Array) -> tuple[Any, LoopControl]:
        ring = carry.records.get(PAST)
        inputs = inputs if ring is None else self.recalling(inputs, ring)
        moving, control = super().trip(inputs, settings, carry, live)
        forgot = control.counts.steps > rows_of(self._past(inputs).ring)
        lost = (control.result == Result.nonfinite) & forgot  # what is no longer in the ring is NaN
        return moving, control._replace(result=jnp.where(lost, Result.history_too_short, control.result))
