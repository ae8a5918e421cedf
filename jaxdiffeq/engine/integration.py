"""The one loop that steps through time: attempt, judge, move, record."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiffeq.engine.control import starting_step
from jaxdiffeq.engine.recorders import Estimates, Shapes, StepView
from jaxdiffeq.implicit.system import make_consistent
from jaxdiffeq.primitives.while_loop import frozen_while, vary_like
from jaxdiffeq.types import Counts, Inputs, PyTree, Result, Settings, State, Step

STAGNATION = 50  # rejections in a row: at a fifth of the size each, 1e-35 of the first attempt


class LoopControl(NamedTuple):
    """What is constant to differentiation: the next step size (unsigned), its choice, counts, each recorder's marks."""

    dt: jax.Array
    controller: PyTree
    counts: Counts
    result: jax.Array
    marks: dict[str, Any]


class Carry(NamedTuple):
    """Where a solve stands between two trips of the loop; all that is needed to go on."""

    state: State
    records: dict[str, Any]
    control: LoopControl


@dataclass(frozen=True)
class Integration:
    """An initial value problem with all its parts, as pure functions of its inputs."""

    field: Any
    stepper: Any
    recorders: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    watch: Callable | None = None
    """shows how far the loop has come; see `jaxdiffeq.progress`"""

    def with_recorders(self, **recorders: Any) -> Integration:
        return replace(self, recorders=recorders)

    @property
    def compact(self) -> Integration:
        """The same steps, up to rounding, as a smaller program: for derivatives, which come out smaller too."""
        return replace(self, stepper=self.stepper.compact)

    # ---- one step

    def next_stop(self, inputs: Inputs, t: jax.Array) -> tuple[jax.Array, Any]:
        """The next time to land on, and f on the way there.

        Between two stops f is asked only for times strictly between them: a jump of f at a stop is seen from the side
        on which the step lies, whether f says `t < stop` or `t <= stop`.
        """
        stops = inputs.stops
        if stops.size == 0:
            return inputs.t1, self.field
        direction = jnp.sign(inputs.t1 - inputs.t0)
        passed = jnp.sum(direction * stops <= direction * t)
        targets = jnp.append(stops, inputs.t1)
        target = targets[passed]
        far = jnp.array(jnp.inf, t.dtype)
        last = jnp.where(passed > 0, targets[passed - 1], -direction * far)
        ends = lax.stop_gradient((last, target))  # bounds for a clip that is constant; nextafter has no derivative
        first, final = jnp.nextafter(ends[0], direction * far), jnp.nextafter(ends[1], -direction * far)
        final = jnp.where(passed < stops.size, final, target)
        low, high = jnp.minimum(first, final), jnp.maximum(first, final)

        def one_sided(t):
            return t + lax.stop_gradient(jnp.clip(t, low, high) - t)

        return target, self.field.at(one_sided)

    def reach(self, inputs: Inputs, t: jax.Array, dt: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Whether a step of size `dt` lands on the next target, and its size if so: 1 % longer rather than a sliver."""
        target, _ = self.next_stop(inputs, t)
        left = jnp.abs(target - t)
        return left <= 1.01 * dt, left

    def advance(self, inputs: Inputs, settings: Settings, start: State, dt: jax.Array) -> Step:
        """One step of size `dt`, or to the next target. Derivatives flow through the clock; `dt` is a constant."""
        target, f = self.next_stop(inputs, start.t)
        lands, _ = self.reach(inputs, start.t, dt)
        direction = jnp.sign(inputs.t1 - inputs.t0)
        t1 = jnp.where(lands, target, start.t + direction * dt)
        step = self.stepper.step(f, start, t1, inputs.args, settings.tolerance)
        if inputs.stops.size == 0:
            return step
        after = step.after
        _, beyond = self.next_stop(inputs, t1)

        def begun_again():
            y = self._consistent(beyond, inputs, settings, after)
            return after._replace(y=y, memory=self._memory(beyond, after.t, y, inputs.args))

        return step._replace(after=lax.cond(lands, begun_again, lambda: after))

    def _consistent(self, beyond: Any, inputs: Inputs, settings: Settings, at: State) -> jax.Array:
        """y after a stop, at which algebraic components may jump; as it was if it does not satisfy the equations."""
        if not beyond.algebraic:
            return at.y
        y, _ = make_consistent(beyond, at.t, at.y, inputs.args, settings.tolerance)
        return jnp.where(at.t == inputs.t1, at.y, y)

    def polynomial(self, inputs: Inputs, start: State, dense: PyTree, wanted: jax.Array) -> jax.Array:
        """The step's interpolant; without `wanted`, zeros where it costs calls of f."""
        _, f = self.next_stop(inputs, start.t)

        def compute():
            return self.stepper.polynomial(f, dense, inputs.args)

        if self.stepper.evaluations[2] == 0:
            return compute()
        room = self.room(inputs)
        return lax.cond(wanted, compute, lambda: vary_like(jnp.zeros(room.shape, room.dtype), inputs.y0))

    def room(self, inputs: Inputs) -> jax.ShapeDtypeStruct:
        """The shape of an interpolant, known without tracing a step."""
        return jax.ShapeDtypeStruct((self.stepper.degree + 1, *inputs.y0.shape), inputs.y0.dtype)

    # ---- the loop

    def begin(self, inputs: Inputs) -> State:
        _, f = self.next_stop(inputs, inputs.t0)
        return State(inputs.t0, inputs.y0, self._memory(f, inputs.t0, inputs.y0, inputs.args))

    def _memory(self, f: Any, t: jax.Array, y: jax.Array, args: PyTree) -> PyTree:
        return vary_like(self.stepper.init(f, t, y, args), y)

    def start(self, inputs: Inputs, settings: Settings) -> Carry:
        """The carry before the first trip."""
        start = self.begin(inputs)
        _, f = self.next_stop(inputs, inputs.t0)
        controller = settings.controller.init(inputs.t0.dtype)
        records, marks = self._begin(inputs, start, controller)
        result = jnp.where(inputs.t0 == inputs.t1, Result.success, Result.running)
        if settings.consistent is not None:
            result = jnp.where(settings.consistent, result, Result.initialisation_failed)
        control = LoopControl(
            dt=lax.stop_gradient(self._first_step(f, inputs, settings)),
            controller=controller,
            counts=self._nothing(jnp.zeros((), jnp.int32)),
            result=result.astype(jnp.int32),
            marks=marks,
        )
        return Carry(start, records, control)

    def _begin(self, inputs: Inputs, start: State, controller: PyTree) -> tuple[dict, dict]:
        shapes = Shapes(self.room(inputs), controller)
        return _each_half({name: r.init(inputs, start, shapes) for name, r in self.recorders.items()})

    def _first_step(self, f: Callable, inputs: Inputs, settings: Settings) -> jax.Array:
        if settings.first_step is not None:
            return settings.first_step

        def estimate():
            norm, fixed = settings.controller.norm, lax.stop_gradient(inputs)
            return starting_step(f, fixed, settings.tolerance, self.stepper.order, norm)

        return settings.controller.bound(self.field.first_step(estimate, inputs.t0, inputs.t1))

    def run(self, inputs: Inputs, settings: Settings, carry: Carry | None = None, pause: Any = None) -> Carry:
        """Advance from t0 to t1, or for `pause` more accepted steps. Never raises: the result code says what happened.

        Shapes: see `Inputs`. Units: step sizes are in the unit of t; errors and tolerances in the unit of y.
        Source: Hairer, Nørsett, Wanner, Solving ODEs I, II.4.
        """
        carry = self.start(inputs, settings) if carry is None else carry
        until = None if pause is None else carry.control.counts.steps + pause

        def running(_, fixed):
            going = fixed.result == Result.running
            return going if until is None else going & (fixed.counts.steps < until)

        def trip(moving, fixed):
            state, records = moving
            return self.trip(inputs, settings, Carry(state, records, fixed), running(moving, fixed))

        (state, records), control = frozen_while(running, trip, carry[:2], carry.control)
        return Carry(state, records, control)

    def replay(
        self, inputs: Inputs, settings: Settings, state: State, made: tuple, span: tuple, held: tuple[dict, dict]
    ) -> tuple[dict, dict]:
        """Take again the steps numbered from span[0] up to span[1], the first of them as it was `made`: dt, controller.

        `held` is what the recorders have, and their marks; both are returned.
        """
        (dt, controller), (first, end) = made, span
        zero = jnp.zeros((), jnp.int32)
        counts = self._nothing(zero)._replace(steps=first)
        result = jnp.where(first < end, Result.running, Result.success).astype(jnp.int32)
        carry = Carry(state, held[0], LoopControl(dt, controller, counts, result, held[1]))
        done = replace(self, watch=None).run(inputs, settings, carry, end - first)
        return done.records, done.control.marks

    def trip(self, inputs: Inputs, settings: Settings, carry: Carry, live: jax.Array) -> tuple[Any, LoopControl]:
        """One attempt; nothing changes unless `live`."""
        before, control = carry.state, carry.control
        lands, left = self.reach(inputs, before.t, control.dt)
        used = jnp.where(lands, left, control.dt)

        step = self.advance(inputs, settings, before, control.dt)  # attempt
        verdict = lax.stop_gradient(  # judge
            settings.controller.judge(
                before, step, used, control.controller, settings.tolerance, self.stepper.error_order
            )
        )
        taken = live & verdict.accept  # move
        after = jax.tree.map(lambda new, old: jnp.where(taken, new, old), step.after, before)
        number, estimates = control.counts.steps, Estimates(step.error, step.spectral_radius)
        passage = StepView(before, step.after, None, control.dt, control.controller, taken, number, estimates)
        records, marks, dense = self._record(inputs, carry, passage, step.dense)  # record

        # a step cut short to land says nothing about the size that the solution allows
        dt = jnp.where(lands & verdict.accept, jnp.maximum(verdict.dt, control.dt), verdict.dt)
        counts = self._count(control.counts, verdict, live, dense, step.work)
        result = jnp.where(live, self._result(inputs, settings, after, dt, counts, verdict), control.result)
        if self.watch is not None:
            tries = lambda c: c.steps + c.rejected_error + c.rejected_solver
            spent = (before.t, tries(control.counts)), (after.t, tries(counts))
            result = self.watch(result, inputs, *spent, result != Result.running)
        keep = lambda new, old: jax.tree.map(lambda a, b: jnp.where(live, a, b), new, old)
        fixed = LoopControl(keep(dt, control.dt), keep(verdict.memory, control.controller), counts, result, marks)
        return (after, records), fixed

    def _record(self, inputs: Inputs, carry: Carry, passage: StepView, dense: PyTree) -> tuple[Any, Any, jax.Array]:
        """Let every recorder see the step; also whether its interpolant was needed."""
        direction = jnp.sign(inputs.t1 - inputs.t0)
        marks = carry.control.marks
        wanted = jnp.array(False)
        if any(r.reads_interpolant for r in self.recorders.values()):
            for name, r in self.recorders.items():
                wanted |= passage.taken & r.wants(marks[name], inputs, direction, passage.after.t)
            passage = passage._replace(coefficients=self.polynomial(inputs, passage.before, dense, wanted))
        done = {name: r.record(carry.records[name], marks[name], passage, inputs) for name, r in self.recorders.items()}
        return *_each_half(done), wanted

    def _nothing(self, zero: jax.Array) -> Counts:
        return Counts(zero, zero, zero, zero, zero, jax.tree.map(lambda _: zero, self.stepper.work))

    def _count(self, counts: Counts, verdict: Any, live: jax.Array, dense: jax.Array, work: Any) -> Counts:
        taken, refused = live & verdict.accept, live & ~verdict.accept
        error = refused & (verdict.cause == Result.step_size_too_small)
        one = lambda flag: flag.astype(jnp.int32)
        return Counts(
            steps=counts.steps + one(taken),
            rejected_error=counts.rejected_error + one(error),
            rejected_solver=counts.rejected_solver + one(refused & ~error),
            streak=jnp.where(taken, 0, counts.streak + one(refused)),
            dense=counts.dense + one(dense),
            work=jax.tree.map(lambda old, new: old + jnp.where(live, new, 0), counts.work, work),
        )

    def _result(self, inputs: Inputs, settings: Settings, after: State, dt: jax.Array, counts: Counts, verdict: Any):
        direction = jnp.sign(inputs.t1 - inputs.t0)
        stuck = (after.t + direction * dt == after.t) | (counts.streak >= STAGNATION) | verdict.stop
        tries = counts.steps + counts.rejected_error + counts.rejected_solver
        result = jnp.where(tries >= settings.max_steps, Result.max_steps_reached, Result.running)
        blame = jnp.where(verdict.accept, Result.step_size_too_small, verdict.cause)
        result = jnp.where(stuck, blame, result)
        return jnp.where(verdict.accept & (after.t == inputs.t1), Result.success, result).astype(jnp.int32)


def _each_half(pairs: dict[str, tuple]) -> tuple[dict, dict]:
    return {name: a for name, (a, _) in pairs.items()}, {name: b for name, (_, b) in pairs.items()}
