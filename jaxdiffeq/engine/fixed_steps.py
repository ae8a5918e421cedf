"""Equal steps as a scan: no error estimate and no controller, yᵢ₊₁ = step(t₀ + i·dt, yᵢ) with dt = (t₁ − t₀)/n.

Every step moves with both ends of the span, which is what derivatives with respect to these are taken of.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiffeq.engine import outcome
from jaxdiffeq.engine.integration import Carry, Integration, LoopControl
from jaxdiffeq.engine.log import Held
from jaxdiffeq.engine.recorders import SaveSteps, Stacked
from jaxdiffeq.primitives.scan import counted
from jaxdiffeq.primitives.scan import scan as any_scan
from jaxdiffeq.primitives.varying_axes import vary_like
from jaxdiffeq.primitives.while_loop import frozen_while
from jaxdiffeq.types import Estimates, Inputs, PyTree, Result, Settings, Sizing, State, Step, StepView

scan = functools.partial(any_scan, forward_only=True)


class _At(NamedTuple):
    """What goes from step to step."""

    y: jax.Array
    memory: PyTree
    held: Held
    alive: jax.Array | None
    """every step so far is a number; where nothing is recorded, nobody looks"""
    dense: jax.Array
    work: Any


@dataclass(frozen=True)
class EqualSteps:
    """What `Integration` is, in `n` equal steps and without stops."""

    loop: Integration
    n: int
    moves_clock: ClassVar[bool] = False
    remembers: ClassVar[bool] = False
    skips_an_instant: ClassVar[bool] = False

    @property
    def differentiates_itself(self) -> bool:
        """Lanes that f talks across owe one another cotangents, which only JAX can tell who sees all lanes at once."""
        return self.loop.field.crosses_lanes

    @property
    def field(self) -> Any:
        return self.loop.field

    @property
    def recorders(self) -> Mapping[str, Any]:
        return self.loop.recorders

    def begin(self, inputs: Inputs) -> State:
        return self.loop.begin(inputs)

    def polynomial(self, inputs: Inputs, step: StepView, dense: PyTree, wanted: jax.Array) -> jax.Array:
        return self.loop.polynomial(inputs, step, dense, wanted)

    def end(self, inputs: Inputs, done: jax.Array) -> jax.Array:
        """The time after so many steps."""
        return jnp.where(done == self.n, inputs.t1, inputs.t0 + done.astype(inputs.t0.dtype) * self._width(inputs))

    def numbers(self, inputs: Inputs) -> jax.Array:
        """Of the steps, in the dtype of t. Shapes: [n]."""
        return jnp.arange(self.n, dtype=inputs.t0.dtype)

    def _width(self, inputs: Inputs) -> jax.Array:
        return (inputs.t1 - inputs.t0) / self.n

    # ---- one step

    def ends(self, inputs: Inputs, i: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The times between which step `i` lies."""
        width = self._width(inputs)
        return inputs.t0 + i * width, jnp.where(i == self.n - 1, inputs.t1, inputs.t0 + (i + 1) * width)

    def asked(self, inputs: Inputs, t: jax.Array, y: jax.Array, i: jax.Array) -> Any:
        """The field in step `i`, which begins at (t, y)."""
        return self.loop.ahead(inputs, State(t, y, ()), i.astype(jnp.int32))[1]

    def back(self, inputs: Inputs, y: jax.Array, memory: PyTree, i: jax.Array) -> tuple[jax.Array, PyTree]:
        """y and memory before step `i`, from those after it, of a method that can be run backwards."""
        t, t1 = self.ends(inputs, i)
        before = self.loop.stepper.back(self.asked(inputs, t, y, i), State(t1, y, memory), t, inputs.args)
        return before.y, before.memory

    def step(
        self, inputs: Inputs, settings: Settings, y: jax.Array, memory: PyTree, i: jax.Array
    ) -> tuple[State, Step]:
        """The state before step `i`, and that step, NaN where an inner solve failed: no later one can pass for good.

        `ok` is false only for one that met with finite numbers.
        """
        t, t1 = self.ends(inputs, i)
        start = State(t, y, memory)
        step = self.loop.stepper.step(self.asked(inputs, t, y, i), start, t1, inputs.args, settings.tolerance)
        if step.ok is not True:
            after = step.after._replace(y=jnp.where(step.ok, step.after.y, jnp.nan))
            step = step._replace(after=after, ok=step.ok | ~jnp.all(jnp.isfinite(step.after.y)))
        return start, step

    def view(self, inputs: Inputs, before: State, step: Step, taken: Any, i: jax.Array) -> StepView:
        """The step as recorders see it."""
        after, estimates = step.after, Estimates(step.error, step.spectral_radius)
        width = lax.stop_gradient(jnp.abs(self._width(inputs)))
        made, number = Sizing(width), i.astype(jnp.int32)
        return StepView(before, after, after.y, None, made, taken, number, estimates, together=True)

    def _trip(self, inputs: Inputs, settings: Settings, at: _At, i: jax.Array) -> tuple[_At, dict[str, Any]]:
        """What goes on, and the rows of this step that are stacked."""
        before, step = self.step(inputs, settings, at.y, at.memory, i)
        y, memory, work = step.after.y, step.after.memory, jax.tree.map(jnp.add, at.work, step.work)
        if self.loop.watch is not None:
            spent = (before.t, i.astype(jnp.int32)), (step.after.t, i.astype(jnp.int32) + 1)
            y = self.loop.watch(y, inputs, *spent, i == self.n - 1)
        if at.alive is None:
            return at._replace(y=y, memory=memory, work=work), {}
        alive = at.alive & jnp.all(jnp.isfinite(y))
        held, wanted = self.stacking.recorded(inputs, at.held, self.view(inputs, before, step, alive, i), step.dense)
        rows = {name: row for name, row in held.records.items() if self._stacks(name)}
        held = held._replace(records={**held.records, **dict.fromkeys(rows, ())})
        return _At(y, memory, held, alive, at.dense + wanted.astype(at.dense.dtype), work), rows

    def _stacks(self, name: str) -> bool:
        """Whether a recorder has a row for every step."""
        recorder = self.recorders[name]
        return type(recorder) is SaveSteps and recorder.every == 1 and recorder.capacity == self.n

    @property
    def stacking(self) -> Integration:
        """The loop, with rows of every step as the scan stacks them."""
        parts = {name: Stacked(**vars(r)) if self._stacks(name) else r for name, r in self.recorders.items()}
        return self.loop.with_recorders(**parts)

    # ---- all of them

    def run(self, inputs: Inputs, settings: Settings) -> Carry:
        return self.trips(inputs, settings, 0)[0]

    def trips(self, inputs: Inputs, settings: Settings, blocks: int) -> tuple[Carry, PyTree]:
        """The scan, in so many blocks of as many steps and one of those left, and y and memory before each block."""
        first = self.begin(inputs)
        zero = jnp.zeros((), jnp.int32)
        work = jax.tree.map(lambda _: zero, self.loop.stepper.work)
        alive = jnp.array(True) if self.recorders else None
        held = jax.tree.map(_filled, self.stacking.held(inputs, first, Sizing(inputs.t0)))
        at = _At(first.y, first.memory, held, alive, zero, work)

        def trip(at, i):
            return self._trip(inputs, settings, at, i)

        def block(at, numbers):
            after, rows = scan(trip, at, numbers)
            return after, ((at.y, at.memory), rows)

        def alone(at, i):
            after, rows = trip(at, i)
            return after, ((at.y, at.memory), rows)

        numbers, whole = self.numbers(inputs), self.n // max(blocks, 1) * blocks
        tape, flat = None, lambda x: x.reshape(-1, *x.shape[2:])
        if blocks == self.n:
            at, (tape, rows) = scan(alone, at, numbers)
        elif blocks == 0 and not any(map(self._stacks, self.recorders)):
            at, rows = counted(lambda at, i: trip(at, i)[0], at, jnp.zeros_like(inputs.t0), 1, self.n), {}
        elif blocks == 0:
            at, rows = scan(trip, at, numbers)
        else:
            at, (tape, rows) = scan(block, at, numbers[:whole].reshape(blocks, -1))
            rows = jax.tree.map(flat, rows)
            if whole < self.n:
                at, (last, more) = block(at, numbers[whole:])
                tape = jax.tree.map(lambda x, one: jnp.concatenate([x, one[None]]), tape, last)
                rows = jax.tree.map(lambda x, y: jnp.concatenate([x, y]), rows, more)
        spare = jax.tree.map(lambda x: jnp.concatenate([x, x[-1:]]), rows)
        at = at._replace(held=at.held._replace(records={**at.held.records, **spare}))
        return self._ended(inputs, settings, first, at), tape

    def states(self, inputs: Inputs, settings: Settings, first: tuple, numbers: jax.Array) -> tuple:
        """y and memory before each of these steps, the first of which begins at `first`."""

        def trip(at, i):
            y, memory = at
            after = self.step(inputs, settings, y, memory, i)[1].after
            return (after.y, after.memory), at

        return scan(trip, first, numbers)[1]

    # ---- how it ended

    def _ended(self, inputs: Inputs, settings: Settings, first: State, at: _At) -> Carry:
        good, again = jnp.all(jnp.isfinite(at.y)), (inputs, settings, first)
        if self.differentiates_itself:
            again = lax.stop_gradient(again)  # a loop has no reverse mode, and if all went well no trip
        done, last, solved = self._failure(*again, good)
        blame = jnp.where(solved, Result.nonfinite, Result.nonlinear_solve_failed)
        result = jnp.where(good, Result.success, blame)
        if settings.begins is not None:
            result = jnp.where(settings.begins == Result.running, result, settings.begins)
        refused = self.n - done
        counts = outcome.nothing_yet(self.loop.stepper.work, False)
        control = LoopControl(
            dt=lax.stop_gradient(jnp.abs(self._width(inputs))),
            controller=None,
            counts=counts._replace(steps=done, rejected_solver=refused, streak=refused, dense=at.dense, work=at.work),
            result=result.astype(jnp.int32),
            marks=at.held.marks,
        )
        y = at.y if self.differentiates_itself else jnp.where(good, at.y, last)
        return Carry(State(self.end(inputs, done), y, at.memory), at.held.records, control)

    def _failure(
        self, inputs: Inputs, settings: Settings, first: State, good: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """m, y_m and whether inner solves succeeded: m steps are finite, y_m follows them, the next one is not finite.

        All n where the end is finite, without a trip; else the steps are taken again, since to look at every state on
        the way would slow down every solve.
        """

        def goes_on(moving, fixed):
            return ~good & (fixed[0] < self.n) & jnp.all(jnp.isfinite(moving[1]))

        def again(moving, fixed):
            (_, y, memory), (i, _) = moving, fixed
            _, step = self.step(inputs, settings, y, memory, i.astype(inputs.t0.dtype))
            new = (y, step.after.y, step.after.memory), (i + 1, jnp.asarray(step.ok))
            live = goes_on(moving, fixed)
            return jax.tree.map(lambda a, b: jnp.where(live, a, b), new, (moving, fixed))

        start = (first.y, first.y, first.memory), (jnp.zeros((), jnp.int32), jnp.array(True))
        (last, y, _), (i, ok) = frozen_while(goes_on, again, *vary_like(start, first.y))
        lost = ~jnp.all(jnp.isfinite(y))
        return jnp.where(good, self.n, i - lost.astype(i.dtype)), jnp.where(lost, last, y), ok


def _filled(x: Any) -> jax.Array:
    return lax.empty(x.shape, x.dtype) if isinstance(x, jax.ShapeDtypeStruct) else x
