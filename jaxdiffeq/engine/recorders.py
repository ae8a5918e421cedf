"""What a solve keeps: values at given times, every n-th step, and dense output.

A recorder has two memories in the loop, one that gradients flow through and one that is constant to them. Every
buffer has a spare last row, where writes that must not happen go: a masked write under `vmap` would copy the buffer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdiffeq.engine.interpolant import sample
from jaxdiffeq.primitives.row_buffer import read, rows, write
from jaxdiffeq.primitives.while_loop import frozen_while
from jaxdiffeq.types import Inputs, PyTree, Shapes, State, StepCotangents, StepView

Observe = Callable[[jax.Array, jax.Array, PyTree], PyTree]  # (t, y, args) ↦ what is saved


class RecorderDefaults:
    """What a recorder answers unless it has more to say. Shapes: `moving`, pytree of [rows + 1, ...]."""

    reads_interpolant = False
    """a step must come with its coefficients"""
    reads_estimates = False
    """a reverse pass must take the estimates' cotangents"""
    inner = False
    """it serves the steps that follow: its rows are no output of a solve"""
    at_given_times = False
    """its rows lie at `inputs.ts`, which move by themselves, and not at steps, which move with the clock"""
    first: int = 0
    """where those of its own begin"""

    def wants(self, fixed: PyTree, inputs: Inputs, direction: jax.Array, t1: jax.Array) -> jax.Array:
        """Whether it needs the interpolant of a step to t1, if it ever does."""
        return jnp.array(True)

    def at_start(self, inputs: Inputs, start: State) -> PyTree:
        """What it keeps without a step; None: nothing."""

    def between_chunks(self, fixed: PyTree) -> tuple[jax.Array | None, PyTree]:
        """How many rows are taken away when a solve pauses, None if they stay, and `fixed` to go on with."""
        return None, fixed

    def reached(self, fixed: PyTree, count: int, inputs: Inputs) -> jax.Array:
        """Which of its `count` rows hold what a solve has come to. Shapes: [count], or [] for all alike."""
        return jnp.array(True)

    def rows(self, moving: PyTree) -> PyTree:
        """What a solution gets to see."""
        return jax.tree.map(lambda x: x[:-1], moving)


@dataclass(frozen=True)
class Beyond:
    """What a recorder knows of what holds after an event: that is what a value at its time is of."""

    changing: Callable
    """args ↦ the parameters that events change"""
    changed: Callable
    """(args, these) ↦ args with these"""
    slope: Callable | None
    """(t, y, args) ↦ dy/dt; None: not known"""

    def args(self, args: PyTree, state: State, here: Any = True) -> PyTree:
        """args as they are in this state, where `here`."""
        if not state.events.changed:
            return args
        pairs = zip(state.events.changed, self.changing(args), strict=True)
        return self.changed(args, [jnp.where(here, new, old) for new, old in pairs])

    def y(self, state: State, at: jax.Array, args: PyTree) -> jax.Array:
        """y of this state, `at` its time, of which one may move without the other: y + (at − t)·dy/dt."""
        return state.y if self.slope is None else _moved(self.slope, state.y, at - state.t, (state.t, args))


def _moved(f: Callable, y: jax.Array, apart: jax.Array, given: tuple) -> jax.Array:
    """y, with the derivative of y + apart·f(t, y, args), for `apart` that is zero."""

    @jax.custom_jvp
    def moved(y, apart, given):
        return y

    def rule(primals, tangents):
        (y, _, (t, args)), (dy, d_apart, _) = primals, tangents
        return moved(*primals), dy + d_apart.astype(dy.dtype) * f(t, y, args)

    moved.defjvp(rule)
    return moved(y, apart, given)


def _real(state: State) -> list[jax.Array]:
    """Parameters that events change and that have a derivative."""
    changed = state.events.changed if state.events else []
    return [x for x in changed if jnp.issubdtype(x.dtype, jnp.inexact)]


def _with_real(state: State, real: list) -> State:
    if not real:
        return state
    left = iter(real)
    changed = [next(left) if jnp.issubdtype(x.dtype, jnp.inexact) else x for x in state.events.changed]
    return state._replace(events=state.events._replace(changed=changed))


def _cotangent(like: State, t: jax.Array, y: jax.Array, real: list) -> State:
    """Of a state: of its time, of y, and of `_real` parameters, which come last of all that goes from step to step."""
    still = jax.tree.map(jnp.zeros_like, like)
    memory = [*still.memory[: len(still.memory) - len(real)], *real] if real else still.memory
    return still._replace(t=t, y=y, memory=memory)


@dataclass(frozen=True)
class SaveTimes(RecorderDefaults):
    """`observe(t, y, args)` at those of `inputs.ts` that are its own, in the order of travel, from the dense output.

    Shapes: moving, pytree of [times + 1, ...]; fixed, the number of times passed.
    """

    observe: Observe
    beyond: Beyond | None = None
    first: int = 0
    count: int | None = None
    """how many, from the `first` on; None: all"""
    reads_interpolant = at_given_times = True

    def own(self, inputs: Inputs) -> jax.Array:
        return inputs.ts if self.count is None else inputs.ts[self.first : self.first + self.count]

    def init(self, inputs: Inputs, start: State, shapes: Shapes) -> tuple[PyTree, PyTree]:
        return self.at_start(inputs, start), jnp.zeros((), jnp.int32)

    def at_start(self, inputs: Inputs, start: State) -> PyTree:
        """NaN, not reached, but for the times that are t₀: when t₀ = t₁ no step follows that would save them."""
        first = jnp.append(self.own(inputs) == inputs.t0, False)

        def blank(value):
            return jnp.where(first.reshape(-1, *[1] * value.ndim), value, jnp.nan)

        return jax.tree.map(blank, self.observe(start.t, start.y, inputs.args))

    def wants(self, fixed: jax.Array, inputs: Inputs, direction: jax.Array, t1: jax.Array) -> jax.Array:
        ts = self.own(inputs)
        at = ts[jnp.minimum(fixed, ts.size - 1)]
        return (fixed < ts.size) & (direction * at <= direction * t1)

    def record(self, moving: PyTree, fixed: jax.Array, step: StepView, inputs: Inputs) -> tuple[PyTree, PyTree]:
        direction, ts = jnp.sign(inputs.t1 - inputs.t0), self.own(inputs)
        coefficients = step.coefficients
        assert coefficients is not None

        def due(values, k):
            return step.taken & self.wants(k, inputs, direction, step.after.t)

        def save(values, k):
            wanted = due(values, k)
            at = ts[jnp.minimum(k, ts.size - 1)]
            value = self.value(step, coefficients, at, inputs)
            return write(values, k, value, wanted), k + wanted.astype(k.dtype)

        return frozen_while(due, save, moving, fixed)

    def value(self, step: StepView, coefficients: jax.Array, at: jax.Array, inputs: Inputs) -> PyTree:
        y = sample(coefficients, step.end, step.before.t, step.after.t, at)
        return self.seen(step, at, y, inputs.args)

    def seen(self, step: StepView, at: jax.Array, y: jax.Array, args: PyTree) -> PyTree:
        """What is saved of `y`, or at a time equal to that of an event of the state after it."""
        if len(step.made.fired):
            here = jnp.any(step.made.fired) & (at == step.after.t)
            after = step.after.y
            if self.beyond is not None:
                args = self.beyond.args(args, step.after, here)
                after = self.beyond.y(step.after, at, args)
            y = jnp.where(here, after, y)
        return self.observe(at, y, args)

    def reached(self, fixed: jax.Array, count: int, inputs: Inputs) -> jax.Array:
        return (jnp.arange(count, dtype=fixed.dtype) < fixed) | jnp.append(self.own(inputs) == inputs.t0, False)

    def times(self, moving: PyTree, inputs: Inputs) -> jax.Array:
        """Where its rows lie."""
        return self.own(inputs)

    def parted(self, bars: PyTree) -> tuple[PyTree, Any]:
        """Cotangents of rows as those of the values and of the times."""
        return bars, 0.0

    def vjp(
        self, bars: StepCotangents, cursor: jax.Array, step: StepView, active: Any, out: PyTree
    ) -> tuple[StepCotangents, jax.Array]:
        """Add the cotangents of every value saved in this step; `cursor` counts the saved ones down."""
        direction = jnp.sign(active.inputs.t1 - active.inputs.t0)

        def due(bars, k):
            at = self.own(active.inputs)[jnp.maximum(k, 0)]
            inside = (direction * at > direction * step.before.t) | (step.number == 0)
            return step.taken & (k >= 0) & inside

        def add(bars, k):
            wanted, row = due(bars, k), jnp.maximum(k, 0)

            def value(t0, t1, y1, real, coefficients, leaves):
                after = _with_real(step.after._replace(t=t1, y=y1), real)
                ends = step._replace(before=step.before._replace(t=t0), after=after)
                inputs = active.fill(leaves)
                return self.value(ends, coefficients, self.own(inputs)[row], inputs)

            ends = step.before.t, step.after.t, step.after.y, _real(step.after)
            _, pull = jax.vjp(value, *ends, step.coefficients, active.leaves())
            t0, t1, y1, real, coefficients, leaves = pull(read(out, row))
            after = _cotangent(bars.after, t1, y1, real)
            new = bars.add(t0, after, coefficients, leaves)
            return jax.tree.map(lambda a, b: jnp.where(wanted, a, b), new, bars), k - wanted.astype(k.dtype)

        return frozen_while(due, add, bars, cursor)


class StepRows(NamedTuple):
    """Shapes: [rows, ...]."""

    t: Any
    values: PyTree
    coefficients: Any


@dataclass(frozen=True)
class SaveSteps(RecorderDefaults):
    """t, `observe(t, y, args)` and, if `reads_interpolant`, the interpolant, after every `every`-th accepted step.

    Shapes: moving, `StepRows` of [capacity + 1, ...]; fixed, the number of rows written.
    """

    observe: Observe
    capacity: int
    every: int = 1
    reads_interpolant: bool = False
    beyond: Beyond | None = None

    def init(self, inputs: Inputs, start: State, shapes: Shapes) -> tuple[PyTree, PyTree]:
        row = jax.eval_shape(self.row, start.t, start.y, shapes.coefficients, inputs.args)
        return rows(row, self.capacity), jnp.zeros((), jnp.int32)

    def row(self, t: jax.Array, y: jax.Array, coefficients: jax.Array | None, args: PyTree) -> StepRows:
        return StepRows(t, self.observe(t, y, args), coefficients if self.reads_interpolant else None)

    def record(self, moving: PyTree, fixed: jax.Array, step: StepView, inputs: Inputs) -> tuple[PyTree, PyTree]:
        due = self.due(step) & (fixed < self.capacity)
        row = self.row(step.after.t, step.after.y, step.coefficients, self.args(inputs.args, step.after))
        return write(moving, fixed, row, due), fixed + due.astype(fixed.dtype)

    def place(self, step: StepView, cursor: jax.Array) -> jax.Array:
        """The row of a step. Where lanes step together it is one for all: no gather."""
        return step.number // self.every if step.together else cursor

    def due(self, step: StepView) -> jax.Array:
        return step.taken & ((step.number + 1) % self.every == 0)

    def args(self, args: PyTree, after: State) -> PyTree:
        return args if self.beyond is None else self.beyond.args(args, after)

    def between_chunks(self, fixed: jax.Array) -> tuple[jax.Array | None, jax.Array]:
        return fixed, jnp.zeros_like(fixed)

    def reached(self, fixed: jax.Array, count: int, inputs: Inputs) -> jax.Array:
        return jnp.arange(count, dtype=fixed.dtype) < fixed

    def times(self, moving: StepRows, inputs: Inputs) -> jax.Array:
        """Where its rows lie."""
        return moving.t

    def parted(self, bars: StepRows) -> tuple[PyTree, Any]:
        """Cotangents of rows as those of the values and of the times."""
        return bars.values, bars.t

    def vjp(
        self, bars: StepCotangents, cursor: jax.Array, step: StepView, active: Any, out: PyTree
    ) -> tuple[StepCotangents, jax.Array]:
        """Add the cotangents of this step's row, if it has one; `cursor` is the last row not yet pulled."""
        due = self.due(step) & (cursor >= 0)

        def row(t1, y1, real, coefficients, leaves):
            args = self.args(active.fill(leaves).args, _with_real(step.after, real))
            return self.row(t1, y1, coefficients, args)

        coefficients = step.coefficients if self.reads_interpolant else None
        ends = step.after.t, step.after.y, _real(step.after)
        _, pull = jax.vjp(row, *ends, coefficients, active.leaves())
        t1, y1, real, coefficients, leaves = pull(read(out, self.place(step, jnp.maximum(cursor, 0))))
        if bars.coefficients is not None and coefficients is None:
            coefficients = jnp.zeros_like(bars.coefficients)
        after = _cotangent(bars.after, t1, y1, real)
        new = bars.add(jnp.zeros_like(bars.before_t), after, coefficients, leaves)
        return jax.tree.map(lambda a, b: jnp.where(due, a, b), new, bars), cursor - due.astype(cursor.dtype)


@dataclass(frozen=True)
class Stacked(SaveSteps):
    """The same after every step of a scan, which stacks the rows: under `vmap`, where each row is one of all lanes.

    Shapes: moving, one row; fixed, the number of them.
    """

    def init(self, inputs: Inputs, start: State, shapes: Shapes) -> tuple[PyTree, PyTree]:
        return (), jnp.zeros((), jnp.int32)

    def record(self, moving: PyTree, fixed: PyTree, step: StepView, inputs: Inputs) -> tuple[PyTree, PyTree]:
        row = self.row(step.after.t, step.after.y, step.coefficients, self.args(inputs.args, step.after))
        return row, fixed + step.taken.astype(fixed.dtype)


@dataclass(frozen=True)
class SaveAtEvents(SaveSteps):
    """The same after every step at whose end an event acts that is logged. Shapes: capacity, the most events."""

    logged: Callable[[jax.Array], jax.Array] = jnp.any
    """of all that acts, whether one does that is"""

    def due(self, step: StepView) -> jax.Array:
        return step.taken & self.logged(step.made.fired)

    def between_chunks(self, fixed: jax.Array) -> tuple[jax.Array | None, jax.Array]:
        return None, fixed
