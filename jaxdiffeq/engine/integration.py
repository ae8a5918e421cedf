"""The one loop that steps through time: attempt, judge, move, record."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdiffeq.engine import outcome
from jaxdiffeq.engine.control import starting_step
from jaxdiffeq.engine.log import Held
from jaxdiffeq.engine.stops import asked_for, direction_of, next_stop, nothing_asked, reach
from jaxdiffeq.implicit.system import make_consistent
from jaxdiffeq.primitives.varying_axes import cond, vary_like
from jaxdiffeq.primitives.while_loop import frozen_while
from jaxdiffeq.types import (
    Context,
    Counts,
    Estimates,
    Inputs,
    PyTree,
    Result,
    Settings,
    Shapes,
    Sizing,
    State,
    Step,
    StepView,
    Verdict,
)

START = np.int32(0)  # the number of the step that begins at t0


class LoopControl(NamedTuple):
    """What is constant to differentiation: the next step size (unsigned), its choice, counts, each recorder's marks,
    and what is known of events."""

    dt: jax.Array
    controller: PyTree
    counts: Counts
    result: jax.Array
    marks: dict[str, Any]
    watch: Any = ()


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
    room_for_stops: int = 0
    """how many times that steps have asked for may lie ahead at once; see `jaxdiffeq.engine.stops`"""
    events: Any = None
    """a `jaxdiffeq.engine.events.Events`"""

    skips_an_instant: ClassVar[bool] = True
    """no step is taken where t₀ = t₁"""
    differentiates_itself: ClassVar[bool] = False
    """by JAX, and not by a strategy"""
    remembers: ClassVar[bool] = False
    """f asks for the past; see `jaxdiffeq.engine.history`"""

    def with_recorders(self, **recorders: Any) -> Integration:
        return replace(self, recorders=recorders)

    @property
    def bare(self) -> Integration:
        """With those recorders alone that its own steps read."""
        return self.with_recorders(**{name: r for name, r in self.recorders.items() if r.inner})

    @property
    def compact(self) -> Integration:
        """The same steps, up to rounding, as a smaller program: for derivatives, which come out smaller too."""
        return replace(self, stepper=self.stepper.compact)

    @property
    def work(self) -> Any:
        """What varies from step to step of the work that they take: a `Work`, or ()."""
        return self.stepper.work

    @property
    def moves_clock(self) -> bool:
        """Times that are landed on may move with the inputs, whichever of these do."""
        return self.room_for_stops > 0 or self.events is not None

    @property
    def nothing_fired(self) -> Any:
        """`Sizing.fired` of a step at whose end no event acts."""
        return () if self.events is None else self.events.nothing

    def recollecting(self, inputs: Inputs, records: Mapping[str, Any]) -> Inputs:
        """The inputs of a step, in which f finds what the recorders have of the past."""
        return inputs

    def recalled(self, inputs: Inputs, records: Mapping[str, Any], start: State) -> Inputs:
        """The inputs of a step from `start`, once more, with what the recorders had when the solve was done."""
        return inputs

    def at_ends(self, inputs: Inputs, start: State, step: Step, number: Any) -> tuple[Inputs, Inputs]:
        """The inputs with which f can be asked at the beginning of a step, and at its end."""
        return inputs, inputs

    def restarts(self, inputs: Inputs) -> bool:
        """Whether f, or the state, may be another one after some step."""
        return bool(inputs.stops.size or self.room_for_stops or self.events)

    def inputs_at(self, inputs: Inputs, at: State) -> Inputs:
        """With the parameters that events have changed."""
        if self.events is None:
            return inputs
        return inputs._replace(args=self.events.changed(inputs.args, at.events.changed))

    # ---- one step

    def ahead(self, inputs: Inputs, at: State, number: Any, watch: Any = ()) -> tuple[jax.Array, Any]:
        """The next time to land on, and f on the way there, in the step of that number."""
        target, f = next_stop(inputs, self.field, at, Context(number, (inputs.t0, inputs.t1)))
        if self.events is not None:
            target = self.events.soonest(inputs, target, at.events, watch)
        return target, f

    def advance(self, inputs: Inputs, settings: Settings, start: State, made: Sizing, number: Any) -> Step:
        """One step of the size that was `made`, or to the next target.

        Derivatives flow through the clock; the size is a constant.
        """
        target, f = self.ahead(inputs, start, number, made.watch)
        t1, lands = self.end(inputs, target, start, made.dt)
        if made.watch and self.events.conditions is not None:
            t1 = self._as_root(t1, inputs, settings, start, made, number)
        step = self.stepper.step(f, start, t1, inputs.args, settings.tolerance)
        assert step.stops is None or self.room_for_stops, "a step asks for times to land on, but there is no room"
        step = step._replace(after=step.after._replace(events=start.events))
        if not self.restarts(inputs):
            assert step.restart is None, "f may be another one only at stops"
            return step
        lands &= t1 != inputs.t1
        step = step._replace(restart=lands if step.restart is None else lands | step.restart)
        if self.room_for_stops == 0:
            return step
        stops, fits = asked_for(start.stops, t1, step.stops, inputs)
        went_on = Result.running if step.result is None else step.result
        result = jnp.where(fits, went_on, Result.event_limit_reached)
        return step._replace(after=step.after._replace(stops=stops), result=result)

    def end(self, inputs: Inputs, target: jax.Array, start: State, dt: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Where a step of size `dt` ends, and whether that is the target."""
        dt = self.limited(target, start, dt, inputs)
        lands, _ = reach(target, start.t, dt)
        return jnp.where(lands, target, start.t + direction_of(inputs) * dt), lands

    def limited(self, target: jax.Array, start: State, dt: jax.Array, inputs: Inputs) -> jax.Array:
        """The size of a step that might be as long as `dt`, which is constant to differentiation."""
        return dt

    def _as_root(
        self, t1: jax.Array, inputs: Inputs, settings: Settings, start: State, made: Sizing, number: Any
    ) -> jax.Array:
        """t₁, and where that is the root of a condition g the derivative of a root, −(∂g/∂t₁)⁻¹·dg.

        With y₁ in g(t₁, y₁) that of the step, whose derivative along t₁ is not quite f.
        """

        @jax.custom_jvp
        def landed(t1, given):
            return t1

        def rule(primals, tangents):
            (t1, given), (dt1, d_given) = primals, tangents
            t1 = landed(t1, given)  # so that derivatives of this derivative know it too

            def condition(t1, given):
                inputs, settings, start, made, number = given
                _, f = self.ahead(inputs, start, number)
                step = self.stepper.step(f, start, t1, inputs.args, settings.tolerance)
                own = self.stepper.polynomial(f, step.dense, inputs.args) if self.events.asks else None
                return self.condition(inputs, step, start, made, number, own)

            def moved():
                _, along = jax.jvp(lambda given: condition(t1, given), (given,), (d_given,))
                _, rate = jax.jvp(lambda t1: condition(t1, given), (t1,), (jnp.ones_like(t1),))
                return (-along / jnp.where(lands, rate, 1)).astype(t1.dtype)

            lands = t1 == given[3].watch.aim.at
            return t1, cond(lands, moved, lambda: dt1)

        landed.defjvp(rule)
        return landed(t1, (inputs, settings, start, made, number))

    def condition(self, inputs: Inputs, step: Step, start: State, made: Sizing, number: Any, own: Any) -> jax.Array:
        """The condition that a step is aimed at, at its end; `own` is its interpolant, of events that ask for it."""
        view = StepView(start, step.after, step.after.y, own, made, jnp.array(True), number)
        return self.events.condition(inputs, view, made.watch.happened, made.watch.aim.condition)

    def moved(
        self, inputs: Inputs, settings: Settings, start: State, made: Sizing, taken: jax.Array, number: Any
    ) -> tuple[Step, StepView, State]:
        """A step that was `made`, as recorders see it but for its interpolant, and the state after it.

        Derivatives flow through all of them.
        """
        inputs = self.inputs_at(inputs, start)
        step = self.advance(inputs, settings, start, made, number)
        view = self.view(start, step, made, taken, number)
        if self.events is not None and self.events.asks:
            view = view._replace(coefficients=self.polynomial(inputs, view, step.dense, taken))
        if self.events is not None:
            acts = jnp.any(made.fired)
            step = step._replace(restart=acts if step.restart is None else step.restart | acts)
        after, chain = self.restarted(inputs, settings, step, view)
        return step, view._replace(after=after, chain=chain), after

    def view(self, start: State, step: Step, made: Sizing, taken: jax.Array, number: Any) -> StepView:
        """A step as it was made, before anything happens at its end."""
        estimates = Estimates(step.error, step.spectral_radius)
        return StepView(start, step.after, step.after.y, None, made, taken, number, estimates)

    def restarted(self, inputs: Inputs, settings: Settings, step: Step, view: StepView) -> tuple[State, Any]:
        """The state after a step, and what events made of it in turn.

        With the stepper's memory made again where f, or the state, is another one from there on.
        """
        after = step.after
        if step.restart is None:
            return after, None

        def begun_again():
            new, chain, beyond = self.acted(inputs, settings, view, after)
            memory = self._memory(beyond, new.t, new.y, self.inputs_at(inputs, new).args)
            # t too comes out of the branch: what is written after t is known is written after the branch was read from
            between = None if chain is None else chain[1:-1]
            return new._replace(t=jnp.where(view.taken, new.t, 0), memory=memory), between

        def as_it_is():
            still = None if self.events is None else jnp.stack([after.y] * len(self.events.members))[1:]
            return after, still

        new, between = cond(view.taken & step.restart, begun_again, as_it_is)
        return new, None if between is None else jnp.concatenate([after.y[None], between, new.y[None]])

    def acted(self, inputs: Inputs, settings: Settings, view: StepView, after: State) -> tuple[State, Any, Any]:
        """The state at the end of a step once events have acted, with the memory it had; y before and after each; and
        f on the way from there."""
        new, chain = after, None
        if self.events is not None:
            plain = not (self.field.algebraic or self.field.in_context)
            new, chain = self.events.act(inputs, view, after, self.field if plain else None)
        _, beyond = self.ahead(inputs, new, view.number + 1)
        if beyond.algebraic:  # its components may jump; they stay if that satisfies no equation
            y, _ = make_consistent(beyond, new.t, new.y, self.inputs_at(inputs, new).args, settings.tolerance)
            new, chain = new._replace(y=y), chain if chain is None else jnp.concatenate([chain[:-1], y[None]])
        return new, chain, beyond

    def polynomial(self, inputs: Inputs, step: StepView, dense: PyTree, wanted: jax.Array) -> jax.Array:
        """The step's interpolant; without `wanted`, zeros where it costs calls of f."""
        _, f = self.ahead(inputs, step.before, step.number)

        def compute():
            return self.stepper.polynomial(f, dense, inputs.args)

        if self.stepper.evaluations[2] == 0:
            return compute()
        room = self.room(inputs)
        return cond(wanted, compute, lambda: vary_like(jnp.zeros(room.shape, room.dtype), inputs.y0))

    def room(self, inputs: Inputs) -> jax.ShapeDtypeStruct:
        """The shape of an interpolant, known without tracing a step."""
        return jax.ShapeDtypeStruct((self.stepper.degree + 1, *inputs.y0.shape), inputs.y0.dtype)

    # ---- the start

    def begin(self, inputs: Inputs) -> State:
        events = () if self.events is None else self.events.ahead(inputs)
        at = State(inputs.t0, inputs.y0, (), nothing_asked(inputs, self.room_for_stops), events)
        _, f = self.ahead(inputs, at, START)
        return at._replace(memory=self._memory(f, inputs.t0, inputs.y0, inputs.args))

    def _memory(self, f: Any, t: jax.Array, y: jax.Array, args: PyTree) -> PyTree:
        return vary_like(self.stepper.init(f, t, y, args), y)

    def start(self, inputs: Inputs, settings: Settings) -> Carry:
        """The carry before the first trip."""
        start = self.begin(inputs)
        _, f = self.ahead(inputs, start, START)
        controller = settings.controller.init(inputs.t0.dtype)
        watch = () if self.events is None else self.events.watch(inputs)
        first = self._first_step(f, inputs, settings)
        first = first if self.events is None else self.events.longest(inputs, start, first)
        made = Sizing(lax.stop_gradient(first), controller, watch, self.nothing_fired)
        held = self.held(inputs, start, made)
        result = jnp.where(inputs.t0 == inputs.t1, Result.success, Result.running)
        if settings.begins is not None:
            result = jnp.where(settings.begins == Result.running, result, settings.begins)
        counts = outcome.nothing_yet(self.work, self.restarts(inputs), self.events is not None)
        control = LoopControl(made.dt, controller, counts, result.astype(jnp.int32), held.marks, watch)
        return Carry(start, held.records, control)

    def held(self, inputs: Inputs, start: State, made: Sizing) -> Held:
        """What the recorders have before the first step."""
        shapes = Shapes(self.room(inputs), made)
        return _each_half({name: r.init(inputs, start, shapes) for name, r in self.recorders.items()})

    def _first_step(self, f: Callable, inputs: Inputs, settings: Settings) -> jax.Array:
        if settings.first_step is not None:
            return settings.first_step

        def estimate():
            norm, fixed = settings.controller.norm, lax.stop_gradient(inputs)
            return starting_step(f, fixed, settings.tolerance, self.stepper.order, norm)

        return settings.controller.bound(self.field.first_step(estimate, inputs.t0, inputs.t1))

    # ---- the loop

    def run(self, inputs: Inputs, settings: Settings, carry: Carry | None = None, pause: Any = None) -> Carry:
        """Advance from t0 to t1, or for `pause` more accepted steps. Never raises: the result code says what happened.

        Shapes: see `Inputs`. Units: step sizes are in the unit of t; errors and tolerances in the unit of y.
        Source: Hairer, Nørsett, Wanner, Solving ODEs I, II.4.
        """
        carry = self.start(inputs, settings) if carry is None else carry
        until = None if pause is None else carry.control.counts.steps + pause

        def running(_, control):
            going = control.result == Result.running
            return going if until is None else going & (control.counts.steps < until)

        def trip(moving, control):
            state, records = moving
            return self.trip(inputs, settings, Carry(state, records, control), running(moving, control))

        (state, records), control = frozen_while(running, trip, (carry.state, carry.records), carry.control)
        return Carry(state, records, control)

    def replay(self, inputs: Inputs, settings: Settings, state: State, made: Sizing, span: tuple, held: Held) -> Held:
        """Take again the steps numbered from span[0] up to span[1], the first of them as it was `made`."""
        first, end = span
        counts = outcome.nothing_yet(self.work, self.restarts(inputs), self.events is not None)
        result = jnp.where(first < end, Result.running, Result.success).astype(jnp.int32)
        counts = counts._replace(steps=first)
        control = LoopControl(made.dt, made.controller, counts, result, held.marks, made.watch)
        done = replace(self, watch=None).run(inputs, settings, Carry(state, held.records, control), end - first)
        return Held(done.records, done.control.marks)

    def trip(self, inputs: Inputs, settings: Settings, carry: Carry, live: jax.Array) -> tuple[Any, LoopControl]:
        """One attempt; nothing changes unless `live`."""
        (before, records, control), inputs = carry, self.inputs_at(inputs, carry.state)
        number, made = control.counts.steps, Sizing(control.dt, control.controller, control.watch)
        target, _ = self.ahead(inputs, before, number, made.watch)
        size = self.limited(target, before, made.dt, inputs)
        lands, left = reach(target, before.t, size)
        used = jnp.where(lands, left, size)

        step = self.advance(inputs, settings, before, made, number)  # attempt
        judge = settings.controller.judge
        if self.events is not None and self.events.domains is not None:
            judge = self._within(inputs, judge)
        verdict = lax.stop_gradient(  # judge
            judge(before, step, used, control.controller, settings.tolerance, self.stepper.error_order)
        )
        view, watch = self.view(before, step, made, live & verdict.accept, number), made.watch
        if self.events is not None:
            step, verdict, view, watch = self.watched(inputs, step, verdict, view)
        moved, chain = self.restarted(inputs, settings, step, view)  # move
        after = jax.tree.map(lambda new, old: jnp.where(view.taken, new, old), moved, before)
        view = view._replace(after=moved, chain=chain)
        if self.events is not None:
            lost = view.taken & ~jnp.all(jnp.isfinite(moved.y))
            step = step._replace(result=jnp.where(lost, Result.nonfinite, jnp.asarray(step.result)))
        held, dense = self.recorded(inputs, Held(records, control.marks), view, step.dense)  # record

        # a step cut short to land says nothing about the size that the solution allows
        dt = jnp.where(lands & verdict.accept, jnp.maximum(verdict.dt, control.dt), verdict.dt)
        if self.events is not None and self.events.caps is not None:
            dt = lax.stop_gradient(self.events.longest(self.inputs_at(inputs, after), after, dt))
        counts = outcome.counted(control.counts, verdict, live, dense, step)
        result = outcome.result(inputs, settings, after.t, dt, counts, verdict, step)
        result = jnp.where(live, result, control.result)
        if self.watch is not None:
            spent = (before.t, outcome.tries(control.counts)), (after.t, outcome.tries(counts))
            result = self.watch(result, inputs, *spent, result != Result.running)
        keep = lambda new, old: jax.tree.map(lambda a, b: jnp.where(live, a, b), new, old)
        dt, controller = keep((dt, verdict.memory), (made.dt, made.controller))
        return (after, held.records), LoopControl(dt, controller, counts, result, held.marks, watch)

    def _within(self, inputs: Inputs, judge: Callable) -> Callable:
        """The judgement of a controller on a step that has left a domain: as if an inner solve had failed."""

        def judged(before, step, *rest):
            inside = self.events.inside(inputs, before, step)
            verdict = judge(before, step._replace(ok=step.ok & inside), *rest)
            left = step.ok & ~inside & (verdict.cause == Result.nonlinear_solve_failed)
            return verdict._replace(cause=jnp.where(left, Result.step_size_too_small, verdict.cause))

        return judged

    def watched(self, inputs: Inputs, step: Step, verdict: Verdict, view: StepView) -> tuple:
        """A step, its verdict and view once events have had a look at it, and the next watch.

        A step that has to land on one of them is refused for that, and nothing else changes.
        """
        made = view.made
        view = view._replace(coefficients=self.polynomial(inputs, view, step.dense, view.taken))
        fixed, known, dense = lax.stop_gradient((inputs, view, step.dense))
        free = self.stepper.evaluations[2] == 0
        once_more = lambda: self.polynomial(fixed, known, dense, view.taken) if free else known.coefficients
        seen = self.events.look(fixed, known, view.taken, once_more)
        again = lambda new, old: jax.tree.map(lambda a, b: jnp.where(seen.again, a, b), new, old)
        dt, memory, cause = again(
            (made.dt, made.controller, Result.running), (verdict.dt, verdict.memory, verdict.cause)
        )
        accept, stop = verdict.accept & ~seen.again, verdict.stop & ~seen.again
        acts = jnp.any(seen.fired)
        went_on = seen.result == Result.running
        result = seen.result if step.result is None else jnp.where(went_on, step.result, seen.result)
        step = step._replace(restart=acts if step.restart is None else step.restart | acts, result=result)
        view = view._replace(made=made._replace(fired=seen.fired), taken=view.taken & ~seen.again, grazing=seen.grazing)
        return step, Verdict(accept, dt, memory, cause, stop), view, seen.watch

    def recorded(self, inputs: Inputs, held: Held, step: StepView, dense: PyTree) -> tuple[Held, jax.Array]:
        """Let every recorder see the step; also whether its interpolant was needed."""
        direction, (records, marks) = direction_of(inputs), held
        wanted = jnp.array(self.events is not None)
        readers = {name: r for name, r in self.recorders.items() if r.reads_interpolant}
        for name, r in readers.items():
            wanted |= step.taken & r.wants(marks[name], inputs, direction, step.after.t)
        if readers and step.coefficients is None:
            step = step._replace(coefficients=self.polynomial(inputs, step, dense, wanted))
        done = {name: r.record(records[name], marks[name], step, inputs) for name, r in self.recorders.items()}
        return _each_half(done), wanted


def _each_half(pairs: dict[str, tuple]) -> Held:
    return Held({name: a for name, (a, _) in pairs.items()}, {name: b for name, (_, b) in pairs.items()})
