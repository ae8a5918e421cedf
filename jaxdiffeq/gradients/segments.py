"""The forward solution again, a few steps at a time: checkpoints, and the polynomials between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiffeq.engine.events import Watch
from jaxdiffeq.engine.interpolant import evaluate
from jaxdiffeq.engine.log import Held, Log, Marks
from jaxdiffeq.engine.recorders import RecorderDefaults
from jaxdiffeq.primitives.cpu_kernel import kept_apart
from jaxdiffeq.primitives.row_buffer import read, rows, write
from jaxdiffeq.types import Ahead, Inputs, Settings, Shapes, State, StepView

SEGMENT = 32  # steps whose polynomials are held at a time


@dataclass(frozen=True)
class Checkpoints(Log):
    """A log that keeps every 32nd state from the start, and fewer when it is full."""

    first_stride: int = SEGMENT

    def record(self, moving: State, fixed: Marks, step: StepView, inputs: Inputs) -> tuple[State, Marks]:
        if len(step.made.fired):  # see `Polynomials.record`
            step = step._replace(number=kept_apart(step.number))
        return super().record(moving, fixed, step, inputs)


class Landing(NamedTuple):
    """The end of a step of a solve with events."""

    y: jax.Array
    """after what happened there"""
    ahead: Ahead
    """what had been left for later before it"""
    watch: Watch
    fired: jax.Array


class Segment(NamedTuple):
    """The solution over up to 32 consecutive steps. Shapes: t0 and t1 [33], coefficients [33, degree + 1, *state]."""

    t0: jax.Array
    t1: jax.Array
    coefficients: Any
    landings: Any = ()
    """a `Landing` of [33, ...], of a solve with events"""

    def value(self, t: jax.Array, count: jax.Array, direction: jax.Array, y0: jax.Array, first: Any = ()) -> jax.Array:
        """y(t), of the earlier step where two meet, but of none before the `first`; y0 if there are no steps at all."""
        passed = (jnp.arange(SEGMENT, dtype=jnp.int32) < count) & (direction * self.t0[:SEGMENT] < direction * t)
        piece, end, inside = jnp.maximum(jnp.sum(passed, dtype=jnp.int32) - 1, 0), y0, count > 0
        if self.landings:  # after the last step there is what it has become
            piece = jnp.maximum(piece, first)
            end = jnp.where(inside, read(self.landings.y, jnp.maximum(count - 1, 0)), y0)
            inside &= piece < count
        t0, t1, coefficients = read(self[:3], piece)
        t0, t1 = jnp.where(inside, t0, 0), jnp.where(inside, t1, 1)
        theta = ((t - t0) / (t1 - t0)).astype(y0.dtype)
        # a branch, so that XLA does not evaluate it again for every number that f makes of it
        return lax.cond(inside, lambda: evaluate(coefficients, theta), lambda: end)

    def happens_before(self, step: jax.Array) -> jax.Array:
        """The number of the first step after the last event at the end of a step before this one; 0: none."""
        numbers = jnp.arange(SEGMENT, dtype=jnp.int32)
        acts = (numbers < step) & jnp.any(self.landings.fired[:SEGMENT], axis=1)
        return jnp.max(jnp.where(acts, numbers + 1, 0))


@dataclass(frozen=True)
class Polynomials(RecorderDefaults):
    """What `Segment` holds, of the steps from `first` on. Shapes: moving, a `Segment`; fixed, `first`."""

    reads_interpolant = True

    def init(self, inputs: Inputs, start: State, shapes: Shapes) -> tuple[Segment, jax.Array]:
        landing = Landing(start.y, start.events, shapes.made.watch, shapes.made.fired) if start.events else ()
        return _room(inputs, shapes.coefficients, landing), jnp.zeros((), jnp.int32)

    def record(self, moving: Segment, fixed: jax.Array, step: StepView, inputs: Inputs) -> tuple[Segment, jax.Array]:
        place = step.number - fixed
        if len(step.made.fired):  # as a kernel that is not optimised, lanes of this loop lose what they have written
            place = kept_apart(place)
        due, landing = step.taken & (place >= 0) & (place < SEGMENT), ()
        if step.before.events:
            landing = Landing(step.after.y, step.before.events, step.made.watch, step.made.fired)
        return write(moving, place, Segment(step.before.t, step.after.t, step.coefficients, landing), due), fixed


def empty(integration: Any, inputs: Inputs) -> Segment:
    """Uninitialised room for a segment."""
    events, landing = integration.events, ()
    if events is not None:
        nothing_yet = jax.eval_shape(lambda x: (events.ahead(x), events.watch(x), events.nothing), inputs)
        landing = Landing(inputs.y0, *nothing_yet)
    return _room(inputs, integration.room(inputs), landing)


def _room(inputs: Inputs, coefficients: Any, landing: Any) -> Segment:
    t = jax.ShapeDtypeStruct((), inputs.t0.dtype)
    return Segment(*rows((t, t, coefficients, landing), SEGMENT))


def load(integration: Any, inputs: Inputs, settings: Settings, tape: tuple[State, Marks], segment: Segment, span: Any):
    """Take the steps numbered from span[0] up to span[1] again, from the nearest state kept; none if span[1] is 0."""
    states, marks = tape
    first, end = span
    slot = first // marks.stride
    again = integration.with_recorders(polynomials=Polynomials())
    held = Held({"polynomials": segment}, {"polynomials": first})
    place = slot * marks.stride, end
    held = again.replay(inputs, settings, read(states, slot), read(marks.made, slot), place, held)
    return held.records["polynomials"]
