"""The discrete adjoint: reverse mode over the steps that were taken."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiffeq.engine.log import Held, Log, Marks, WindowMarks
from jaxdiffeq.gradients.retaken import Retaken
from jaxdiffeq.gradients.rule import (
    Active,
    Constants,
    Outputs,
    is_real,
    joined,
    parted,
    parts_of,
    plain,
    pull_instant,
    recorded,
)
from jaxdiffeq.primitives.fused_region import fused_region
from jaxdiffeq.primitives.row_buffer import read, rows
from jaxdiffeq.primitives.scan import scan
from jaxdiffeq.primitives.varying_axes import vary_each, vary_like
from jaxdiffeq.primitives.while_loop import frozen_while
from jaxdiffeq.problems.past import PAST, Felt, Piece, add_windows, any_of
from jaxdiffeq.types import Estimates, Inputs, PyTree, Result, Settings, Sizing, State, StepCotangents, StepView


@dataclass(frozen=True)
class ReverseAD:
    """The exact gradient of the computed solution, by replaying its accepted steps from a log. The default.

    `memory` is the number of states that are kept (256, less for a state of more than 64 KiB), "sqrt" (the square root
    of `max_steps`) or "all": room for `max_steps` of them, which a CPU fills before it starts, so bound that too. While
    it suffices no step is recomputed before its own reversal; beyond that the log is thinned and steps are recomputed,
    most of them once, from the nearest state that was kept. No rejected step has a part in the derivative, so nothing
    that was thrown away reaches a gradient.
    Source: Griewank, Walther, Evaluating Derivatives, 2008, ch. 12 (checkpointing).
    """

    memory: int | str | None = None
    differentiates_scans: ClassVar[bool] = True

    def log(self, max_steps: int, state_bytes: int) -> Log:
        capacity = power_of_two(max_steps)
        if self.memory is None:
            slots = min(256, max(16, 2**24 // max(state_bytes, 1)))
        elif isinstance(self.memory, str):
            slots = capacity if self.memory == "all" else math.isqrt(capacity)
        else:
            slots = self.memory
        return Log(min(power_of_two(slots), capacity), capacity)

    def bind(self, max_steps: int, state_bytes: int) -> Replay:
        """The strategy for solves of at most `max_steps` steps with a state of this size."""
        return Replay(self.log(max_steps, state_bytes))

    def on_equal_steps(self, n: int, state_bytes: int) -> EqualReplay:
        """The strategy for `n` steps that are a scan."""
        kept: int | str | None = self.memory
        if kept is None and n * state_bytes > MOST:
            kept = "sqrt"
        if not isinstance(kept, int):
            kept = math.isqrt(n) if kept == "sqrt" else n
        return EqualReplay(max(1, min(kept, n)))


MOST = 2**28  # bytes of states that the gradient of equal steps keeps unless told otherwise


def power_of_two(n: int) -> int:
    return 2 ** math.ceil(math.log2(max(n, 2)))


@dataclass(frozen=True)
class Replay:
    """`ReverseAD` with its log sized."""

    log: Log

    def run(self, integration: Any, inputs: Inputs, settings: Settings) -> tuple[Outputs, Constants, PyTree]:
        logged = integration.with_recorders(**integration.recorders, log=self.log)
        if integration.remembers:
            outputs, constants = recorded(logged.keeping_all, inputs, settings)
            return (
                outputs,
                constants,
                (outputs.records.pop("log"), constants.marks.pop("log"), outputs.records.pop(PAST)),
            )
        outputs, constants = plain(logged, inputs, settings)
        tape = outputs.records.pop("log"), constants.marks.pop("log")
        return outputs, constants, tape

    def pull(
        self, integration: Any, active: Active, settings: Settings, constants: Constants, tape: Any, bars: Outputs
    ) -> list[jax.Array]:
        if integration.remembers:
            *log, ring = tape
            active = Recalling.of(active, integration, ring, integration.felt_nothing(ring))
            return _BackwardInPast(integration, active, settings, constants, bars, self.log, *log).sweep()
        return _Backward(integration, active, settings, constants, bars, self.log, *tape).sweep()


@dataclass(frozen=True)
class EqualReplay:
    """`ReverseAD` over equal steps, which keeps `blocks` of the states before them; all, if that many."""

    blocks: int

    def run(self, integration: Any, inputs: Inputs, settings: Settings) -> tuple[Outputs, Constants, PyTree]:
        return with_tape(lambda *of: integration.trips(*of, self.blocks), inputs, settings)

    def pull(
        self, integration: Any, active: Active, settings: Settings, constants: Constants, tape: Any, bars: Outputs
    ) -> list[jax.Array]:
        return _EqualBackward(integration, active, settings, constants, bars, self.blocks, *tape).sweep()


def with_tape(run: Callable, inputs: Inputs, settings: Settings) -> tuple[Outputs, Constants, PyTree]:
    """Of a run, (inputs, settings) ↦ its last carry and what a sweep goes by: outputs, constants, and the latter as
    real numbers and the rest."""

    def parts(inputs, settings):
        carry, tape = run(inputs, settings)
        outputs, constants = parts_of(carry)
        real, rest = parted(tape)
        return (outputs, real), (constants, rest)

    (outputs, real), (constants, rest) = fused_region(parts, inputs, settings, derivative=False)
    return outputs, constants, (real, rest)


class _Cotangents(NamedTuple):
    """Cotangents as the sweep goes back: of the state (its time only if that moves) and of the active inputs.

    Of the stepper's memory only what is real has one: numbers that count or choose are constants. The stops that steps
    asked for, and what events have left for later, are with it.
    """

    state: State
    inputs: list[jax.Array]
    ring: Any = ()
    """of the past, if steps ask for it"""


def _real(state: State) -> list[jax.Array]:
    return parted((state.memory, state.stops, state.events))[0]


def _with_real(state: State, t: jax.Array, y: jax.Array, real: list) -> State:
    rest = state.memory, state.stops, state.events
    return State(t, y, *joined(rest, real, parted(rest)[1]))


@dataclass(frozen=True)
class _Pull:
    """Cotangents taken back through one step, through what the recorders made of it, and through the start."""

    integration: Any
    active: Active
    settings: Settings
    constants: Constants
    bars: Outputs

    @property
    def dense(self) -> bool:
        return any(r.reads_interpolant for r in self.integration.recorders.values())

    @property
    def small(self) -> Any:
        """What takes a step again, as a small program."""
        return self.integration

    @property
    def time(self) -> bool:
        """Whether the clock moves."""
        return self.active.time or self.integration.moves_clock

    @property
    def estimated(self) -> bool:
        return any(r.reads_estimates for r in self.integration.recorders.values())

    @property
    def last_rows(self) -> dict[str, Any]:
        """Of every recorder, the last row that it wrote: cursors to begin with."""
        return {name: mark - 1 for name, mark in self.constants.marks.items()}

    def _pull_records(self, bars: _Cotangents, cursors: dict, passage: StepView, dense: PyTree, here: Active) -> tuple:
        """Let every recorder add its cotangents: around the step, to its dense output, to the active inputs `here`."""
        nothing = jax.tree.map(jnp.zeros_like, (passage.estimates, passage.chain))
        around = StepCotangents(jnp.zeros_like(bars.state.t), bars.state, None, bars.inputs, *nothing)
        pull = None
        if dense is not None:

            def polynomial(dense, leaves):
                return self.small.polynomial(here.fill(leaves), passage, dense, passage.taken)

            coefficients, pull = jax.vjp(polynomial, dense, here.leaves())
            passage = passage._replace(coefficients=coefficients)
            around = around._replace(coefficients=jnp.zeros_like(coefficients))
        moved = {}
        for name, recorder in self.integration.recorders.items():
            out = self.bars.records[name]
            around, moved[name] = recorder.vjp(around, cursors[name], passage, here, out)
        if not self.time:
            around = around._replace(
                before_t=jnp.zeros_like(bars.state.t), after=around.after._replace(t=jnp.zeros_like(bars.state.t))
            )
        if pull is None:
            return around, None, moved
        d_dense, more = pull(around.coefficients)
        leaves = [a + b for a, b in zip(around.inputs, more, strict=True)]
        return around._replace(inputs=leaves), d_dense, moved

    def _pull_start(self, bars: _Cotangents) -> list[jax.Array]:
        """Through the start: the initial state, the stepper's first memory, and what was saved at t₀ without a step."""

        def start(leaves):
            inputs = self.active.fill(leaves)
            state = self.integration.begin(inputs)
            kept = {name: r.at_start(inputs, state) for name, r in self.integration.recorders.items()}
            return State(state.t, state.y, _real(state)), kept

        (_, kept), pull = jax.vjp(start, self.active.leaves())
        unmoved = self.constants.counts.steps == 0
        bars_of = lambda name: jax.tree.map(lambda x: jnp.where(unmoved, x, 0), self.bars.records[name])
        records = {name: None if at_t0 is None else bars_of(name) for name, at_t0 in kept.items()}
        (d_leaves,) = pull((bars.state, records))
        found = [a + b for a, b in zip(bars.inputs, d_leaves, strict=True)]
        return pull_instant(self.integration, self.active, self.bars, found)


@dataclass(frozen=True)
class _Backward(_Pull):
    """The sweep over the steps of the loop."""

    log: Log
    slots: State
    marks: Marks

    @property
    def small(self) -> Any:
        return self.integration.compact

    def sweep(self) -> list[jax.Array]:
        first = read(self.slots, jnp.zeros((), jnp.int32))
        bars = _Cotangents(
            State(self.bars.t, self.bars.y, self._of_end(first)),
            [jnp.zeros_like(x) for x in self.active.leaves()],
            self._of_past(),
        )

        def running(moving, fixed):
            return fixed[0] >= 0

        def trip(moving, fixed):
            (bars, states), (n, cursors, window) = moving, fixed
            live = n >= 0
            at = jnp.maximum(n, 0)
            states, window, start, made = self._before(states, window, at, live)
            new, cursors = self._pull_step(bars, cursors, at, start, made, live)
            kept = jax.tree.map(lambda a, b: jnp.where(live, a, b), new._replace(ring=()), bars._replace(ring=()))
            bars = kept._replace(ring=new.ring)  # which is changed row by row, and only if live
            return (bars, states), (n - live.astype(n.dtype), cursors, window)

        cursors = self.last_rows
        states, window = None, WindowMarks(jnp.array(2**30, jnp.int32), None)
        if self.log.thins:
            one = read(self.marks.made, jnp.zeros((), jnp.int32))._replace(controller=None)
            states, made = rows((first, one), self.log.window.size)
            window = window._replace(made=made)
        (bars, _), _ = frozen_while(running, trip, (bars, states), (self.constants.counts.steps - 1, cursors, window))
        return self._pull_start(bars)

    def _of_end(self, first: State) -> list[jax.Array]:
        """Cotangents of what else is real in the state at the end: last, of the parameters that events have changed."""
        real = [jnp.zeros_like(x) for x in _real(first)]
        return [*real[: len(real) - len(self.bars.changed)], *self.bars.changed]

    def _of_past(self) -> Any:
        return ()

    def _before(self, states: State, window: Any, n: jax.Array, live: jax.Array) -> tuple:
        """The state before step n and its size, from the log or, where that was thinned, from a window replayed.

        Each comes out of a branch, hence in memory: XLA's CPU backend puts what it can into one loop, where it would
        look a state up again for every number made of it, thirty thousand times for the forces among a hundred bodies.
        """
        slot, log = n // self.marks.stride, (self.slots, self.marks.made._replace(controller=None))
        if not self.log.thins:
            return states, window, *lax.cond(live, lambda: read(log, slot), lambda: read(log, jnp.zeros_like(slot)))
        kept, made = read(log, slot)
        thinned = self.marks.stride > 1
        enters = live & thinned & (n < window.first)
        first = jnp.where(enters, jnp.maximum(slot * self.marks.stride, n + 1 - self.log.window.size), window.first)
        held = self.integration.with_recorders(window=self.log.window).replay(
            self.active.inputs,
            self.settings,
            kept,
            made._replace(controller=read(self.marks.made.controller, slot)),
            (slot * self.marks.stride, jnp.where(enters, n + 1, 0)),
            Held({"window": states}, {"window": WindowMarks(first, window.made)}),
        )
        states, window = held.records["window"], held.marks["window"]
        start = lax.cond(thinned, lambda: read((states, window.made), n - first), lambda: (kept, made))
        return states, window, *start

    def _pull_step(
        self, bars: _Cotangents, cursors: dict, n: jax.Array, start: State, made: Sizing, live: jax.Array
    ) -> tuple:
        def forward(moves, leaves):
            inputs, start_ = self.active.fill(leaves), self._with(start, moves)
            step, view, after = self.small.moved(inputs, self.settings, start_, made, live, n)
            estimates = view.estimates if self.estimated else Estimates()
            out = self._moves(after), step.dense if self.dense else None, estimates, view.chain
            return out, (after, view.end)

        out, pull, (after, end) = jax.vjp(forward, self._moves(start), self.active.leaves(), has_aux=True)
        _, dense, estimates, chain = out
        passage = StepView(start, after, end, None, made, live, n, estimates, chain)
        here, changed = self._here(start)
        mine, kept, there, so_far = len(self.active.where), len(here.where) - len(changed), bars.inputs, {}
        if changed:
            so_far = dict(zip(self.active.where, bars.inputs[:mine], strict=True))
            none = [jnp.zeros_like(x) for x in here.leaves()[kept : len(here.where)]]
            there = [so_far[i] for i in here.where[:kept]] + none + bars.inputs[mine:]
        around, d_dense, cursors = self._pull_records(bars._replace(inputs=there), cursors, passage, dense, here)
        after, inputs = around.after, around.inputs
        d_after = (after.t, after.y, after.memory) if self.time else (after.y, after.memory)
        d_moves, more = pull(vary_each((d_after, d_dense, around.estimates, around.chain), out))
        d_start = State(*(d_moves if self.time else (bars.state.t, *d_moves)))
        if changed:  # the last of what is real in the state
            after, rest = inputs[kept : len(here.where)], inputs[len(here.where) :]
            own = [a + b for a, b in zip(d_start.memory[-len(changed) :], after, strict=True)]
            d_start = d_start._replace(memory=[*d_start.memory[: -len(changed)], *own])
            found = so_far | dict(zip(here.where, inputs[:kept], strict=False))
            inputs = [found[i] for i in self.active.where] + rest
        d_leaves = [a + b for a, b in zip(inputs, more, strict=True)]
        return _Cotangents(d_start._replace(t=d_start.t + around.before_t), d_leaves), cursors

    def _here(self, start: State) -> tuple[Active, Sequence[int]]:
        """The active inputs in a step, of which the last are those that events have changed, the state's; and these."""
        inputs, integration = self.active.given, self.integration
        if integration.events is None:
            return self.active, ()
        flat, changed = jax.tree.leaves(inputs), self.active.changed_by(integration.events)
        here = self.active.within(integration.inputs_at(inputs, start), changed)
        return here, [i for i in changed if is_real(flat[i])]

    def _moves(self, state: State) -> tuple:
        moves = state.t, state.y, _real(state)
        return moves if self.time else moves[1:]

    def _with(self, state: State, moves: tuple) -> State:
        t, y, real = moves if self.time else (state.t, *moves)
        return _with_real(state, t, y, real)


@dataclass(frozen=True)
class Recalling(Active):
    """`Active` with the past in its inputs, and among its leaves the zeros by which that is felt; see `Felt`."""

    inner: Active
    integration: Any
    ring: Piece
    felt: Felt

    @staticmethod
    def of(inner: Active, integration: Any, ring: Piece, felt: Felt) -> Recalling:
        inputs = integration.recalling(inner.inputs, ring)
        return Recalling(inputs, inner.where, inner, integration, ring, felt)

    def leaves(self) -> list[jax.Array]:
        return [*self.inner.leaves(), *jax.tree.leaves((self.felt.zeros, self.felt.missed))]

    def fill(self, values: Sequence[Any]) -> Inputs:
        some, zeros, missed = self.split(values)
        felt = self.felt._replace(zeros=zeros, missed=missed)
        return self.integration.recalling(self.inner.fill(some), self.ring, felt)

    @property
    def given(self) -> Inputs:
        return self.inner.inputs

    def within(self, inputs: Inputs, changed: Sequence[int]) -> Recalling:
        return Recalling.of(self.inner.within(inputs, changed), self.integration, self.ring, self.felt)

    def split(self, values: Sequence[Any]) -> tuple[Sequence[Any], Piece, Piece]:
        """Leaves, or their cotangents, as those of the inputs, of pieces in windows, and of pieces in none."""
        n, tree = len(self.inner.where), jax.tree.structure((self.felt.zeros, self.felt.missed))
        return values[:n], *jax.tree.unflatten(tree, values[n:])

    def names(self) -> set[str]:
        return self.inner.names()

    @property
    def time(self) -> bool:
        return self.inner.time or self.integration.varying is not None


@dataclass(frozen=True)
class _BackwardInPast(_Backward):
    """The sweep over steps that ask for the past, each of which adds to the cotangents of pieces before it.

    To add up a cotangent of the whole ring in each step would take far longer than the step. So a step is taken back by
    a window of pieces for each lag; and again, by windows further and further back, as long as some piece that it has
    asked for lies in none.
    """

    active: Recalling

    def sweep(self) -> list[jax.Array]:
        return list(self.active.split(super().sweep())[0])

    def _of_past(self) -> Piece:
        return jax.tree.map(jnp.zeros_like, self.active.ring)

    def _pull_step(
        self, bars: _Cotangents, cursors: dict, n: jax.Array, start: State, made: Sizing, live: jax.Array
    ) -> tuple:
        nothing = [jnp.zeros_like(x) for x in self.active.leaves()]

        def going(moving, fixed):
            return live & fixed[1]

        def trip(moving, fixed):
            (of_step, ring), (count, more, _) = moving, fixed
            now = live & more
            felt = self.integration.felt_at(self.active.inputs, start, n, count)
            new, cursors_back = self._through(felt, bars._replace(inputs=nothing), cursors, (n, start, made, live))
            found, zeros, missed = self.active.split(new.inputs)
            at = (new.state, list(found)), (count + 1, felt.goes_on & any_of(missed), cursors_back)
            of_step, fixed = jax.tree.map(lambda a, b: jnp.where(now, a, b), at, (of_step, fixed))
            return (of_step, add_windows(ring, felt, zeros, now)), fixed

        of_step = bars.state, list(self.active.split(nothing)[0])
        begin = (of_step, bars.ring), (jnp.zeros((), jnp.int32), jnp.array(True), cursors)
        ((state, found), ring), (_, _, cursors) = frozen_while(going, trip, *begin)
        inputs = [a + b for a, b in zip(bars.inputs, [*found, *nothing[len(found) :]], strict=True)]
        return _Cotangents(state, inputs, ring), cursors

    def _through(self, felt: Felt, bars: _Cotangents, cursors: dict, step: tuple) -> tuple:
        """The step taken back by these windows."""
        active, records = self.active, {**self.bars.records, PAST: bars.ring}
        seen = Recalling.of(active.inner, self.integration, active.ring, felt)
        at = replace(self, active=seen, bars=self.bars._replace(records=records))
        return _Backward._pull_step(at, bars, cursors, *step)


@dataclass(frozen=True)
class EqualPull(_Pull):
    """Cotangents taken back over equal steps, from the end."""

    def at_end(self) -> _Cotangents:
        """Those there: of the state, not yet of its memory, and of what the time there depends on."""
        inputs, first = self.active.inputs, jax.eval_shape(self.integration.begin, self.active.inputs)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), _real(first))
        start = vary_like(State(jnp.zeros_like(inputs.t0), self.bars.y, zeros), inputs.y0)
        end = lambda leaves: self.integration.end(self.active.fill(leaves), self.constants.counts.steps)
        (more,) = jax.vjp(end, self.active.leaves())[1](self.bars.t)
        return _Cotangents(start, more)

    def live(self, i: jax.Array) -> jax.Array:
        """Whether step `i` was taken."""
        return i < self.constants.counts.steps.astype(i.dtype)

    @property
    def failed(self) -> jax.Array:
        return self.constants.result != Result.success

    def retaken(self) -> Retaken:
        """The steps of a solve that failed."""
        steps = self.constants.counts.steps
        return Retaken.of(self.integration, self.active.inputs, self.settings, steps, self.failed)

    def before(self, steps: Retaken, i: jax.Array, otherwise: PyTree) -> PyTree:
        """y and memory before step `i`, if a solve that failed has taken it."""
        wanted = self.failed & self.live(i)
        return steps.before(self.integration, self.active.inputs, self.settings, i, wanted, otherwise)

    def pull_step(self, bars: _Cotangents, cursors: dict, at: tuple, i: jax.Array) -> tuple:
        """Through step `i` from `at`, y and memory; nothing changes if it was not taken."""
        live = self.live(i)
        new, cursors = self._through(bars, cursors, at, i, live)
        return jax.tree.map(lambda a, b: jnp.where(live, a, b), new, bars), cursors

    def _through(self, bars: _Cotangents, cursors: dict, at: tuple, i: jax.Array, live: jax.Array) -> tuple:
        real, rest = parted(at)

        def forward(real, leaves):
            inputs = self.active.fill(leaves)
            before, step = self.integration.step(inputs, self.settings, *joined(at, real, rest), i)
            after = step.after
            estimates = Estimates(step.error, step.spectral_radius) if self.estimated else Estimates()
            out = before.t, after.t, after.y, _real(after), step.dense if self.dense else None, estimates
            return out, (before, step)

        (*_, dense, estimates), pull, (before, step) = jax.vjp(forward, real, self.active.leaves(), has_aux=True)
        view = self.integration.view(self.active.inputs, before, step, live, i)._replace(estimates=estimates)
        around, d_dense, cursors = self._pull_records(bars, cursors, view, dense, self.active)
        d_after = around.after
        d_at, more = pull((around.before_t, d_after.t, d_after.y, d_after.memory, d_dense, around.estimates))
        leaves = [a + b for a, b in zip(around.inputs, more, strict=True)]
        return _Cotangents(State(jnp.zeros_like(bars.state.t), d_at[0], d_at[1:]), leaves), cursors


@dataclass(frozen=True)
class _EqualBackward(EqualPull):
    """The sweep with a log. Shapes: of y and the stepper's memory, real numbers and the rest, [blocks, ...]."""

    blocks: int
    real: list[jax.Array]
    rest: list[jax.Array]

    def sweep(self) -> list[jax.Array]:
        integration, inputs = self.integration, self.active.inputs
        first = jax.eval_shape(integration.begin, inputs)
        kept = joined((first.y, first.memory), self.real, self.rest)
        carry, numbers = (self.at_end(), self.last_rows), integration.numbers(inputs)
        whole = integration.n // self.blocks * self.blocks
        if whole == self.blocks:
            return self._pull_start(self._block(carry, kept, numbers)[0])

        def block(carry, row):
            states = integration.states(inputs, self.settings, *row)
            return self._block(carry, states, row[1]), None

        if whole < integration.n:
            carry, _ = block(carry, (jax.tree.map(lambda x: x[-1], kept), numbers[whole:]))
        rows = jax.tree.map(lambda x: x[: self.blocks], kept), numbers[:whole].reshape(self.blocks, -1)
        return self._pull_start(scan(block, carry, rows, reverse=True, forward_only=True)[0][0])

    def _block(self, carry: tuple, states: PyTree, numbers: jax.Array) -> tuple:
        def trip(carry, row):
            return self.pull_step(*carry, *row), None

        return scan(trip, carry, (states, numbers), reverse=True, forward_only=True)[0]
