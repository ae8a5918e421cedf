"""What a solve did, attempt by attempt, and any one of them again with numbers that can be looked at."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdiffeq import errors
from jaxdiffeq.engine.integration import Carry
from jaxdiffeq.frontend.plan import Arrays, Plan, build
from jaxdiffeq.integrator import Integrator
from jaxdiffeq.types import Counts, PyTree, Result, Sizing, State, Work

AT_ONCE = 64  # attempts in one call of the compiled program


class Row(NamedTuple):
    """One attempt. Of an array of them, each field has the shape [attempts]."""

    t: Any
    dt: Any
    """signed; cut short where it lands on a stop"""
    error: Any
    """in units of the tolerance, at most one if accepted; NaN with equal steps"""
    accepted: Any
    cause: Any
    """the code of `Result` that a rejection stands for; `running`: it is taken again, to land on an event"""
    worst: Any
    """the number of the component with the largest error, or the first that is not finite"""
    events: Any
    """how many happen at its end"""
    work: Work


class Attempt(NamedTuple):
    """An attempt with all its numbers: a step from y at t to y1 at t1. Pytrees like y0; `ratio` as in the trace."""

    t: Any
    y: PyTree
    slope: PyTree
    t1: Any
    y1: PyTree
    slope1: PyTree
    error: PyTree
    """estimated, in the unit of y; NaN with a method that has no estimate"""
    ratio: Any


@dataclass(frozen=True)
class Trace:
    """Every attempted step of a solve. Shapes: the fields of `rows` are numpy arrays of [attempts]."""

    rows: Row
    components: tuple[str, ...]
    """their names, as `rows.worst` numbers them"""
    result: Result
    _states: State
    _plan: Plan
    _arrays: Arrays
    _records: dict[str, Any]
    """what its steps read, as it was at the end"""

    def __len__(self) -> int:
        return len(self.rows.t)

    def __getattr__(self, name: str) -> Any:
        """A column: `trace.t`, `trace.newton_iterations`."""
        if name in Row._fields:
            return getattr(self.rows, name)
        if name in Work._fields:
            return getattr(self.rows.work, name)
        raise AttributeError(f"a trace has no {name!r}. It has {', '.join((*Row._fields[:-1], *Work._fields))}.")

    def __repr__(self) -> str:
        return f"{len(self)} attempts, {int(np.sum(~self.rows.accepted))} refused: {self.result.name}\n{self.table()}"

    def table(self, first: int | None = None, last: int | None = None) -> str:
        """Rows `first` up to `last`, the last twenty if neither is given, as text."""
        chosen = slice(-20, None) if first is None and last is None else slice(first, last)
        head = ("attempt", "t", "dt", "error", "refused", "worst", "events", "f", "J", "LU", "solves", "Newton")
        lines = [head, *(self._line(i) for i in range(len(self))[chosen])]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join("  ".join(x.rjust(w) for x, w in zip(line, widths, strict=True)) for line in lines)

    def _line(self, i: int) -> tuple[str, ...]:
        row = jax.tree.map(lambda x: x[i], self.rows)
        named = {Result.step_size_too_small: "error", Result.running: "to land"}
        refused = named.get(row.cause, Result(int(row.cause)).name)
        verdict = "" if row.accepted else refused
        numbers = f"{row.t:.9g}", f"{row.dt:.4g}", f"{row.error:.3g}"
        counts = (str(int(n)) for n in (row.events, *row.work))
        return str(i), *numbers, verdict, self.components[row.worst], *counts

    def replay(self, i: int) -> Attempt:
        """Attempt i once more, operation by operation: f is called with numbers, which may be printed or stopped at.

        A method that differentiates f, as implicit ones do, calls it with tracers too.
        """
        if not -len(self) <= i < len(self):
            raise IndexError(f"there are {len(self)} attempts, 0 to {len(self) - 1}, but attempt {i} was asked for.")
        start = jax.tree.map(lambda x: jnp.asarray(x[i]), self._states)
        with jax.disable_jit():
            parts = build(self._plan, self._arrays, 1, traced=False)
            integration, inputs, settings = parts.integration, parts.inputs, parts.settings
            number = jnp.asarray(np.sum(self.rows.accepted[:i]), jnp.int32)
            inputs = integration.inputs_at(integration.recalled(inputs, self._records, start), start)
            step = integration.advance(inputs, settings, start, Sizing(jnp.asarray(abs(self.rows.dt[i]))), number)
            ends = zip(integration.at_ends(inputs, start, step, number), (start, step.after), strict=True)
            slope, slope1 = (integration.field(at.t, at.y, given.args) for given, at in ends)
            error = jnp.full_like(start.y, jnp.nan) if step.error is None else step.error
            states = start.y, slope, step.after.y, slope1, error
        y, k, y1, k1, error = map(self._plan.ravel.unpack, states)
        return Attempt(start.t, y, k, step.after.t, y1, k1, error, self.rows.error[i])


def trace(problem: Any, method: Any = None, **options: Any) -> Trace:
    """Solve, and keep what every attempted step did: to see why a solve is slow, or fails. For looking, not for `jit`.

    Options are those of `solve` that steer its steps: `rtol`, `atol`, `first_step`, `controller`, `max_steps`, `stops`,
    `events`.
    A failure is no error here. Memory: all states, accepted or not.
    """
    integrator = Integrator(problem, method, **options)
    plan, arrays = integrator.plan, integrator.arrays
    if not errors.all_concrete(arrays):
        raise TypeError("`trace` is for looking at numbers, but was called inside jit, vmap or grad. Call it outside.")
    carry, pieces = integrator.init().carry, []
    while True:
        carry, rows, states, count = jax.device_get(_attempts(plan, arrays, carry))
        pieces.append(jax.tree.map(lambda x, n=count: x[:n], (rows, states)))
        if carry.control.result != Result.running:
            break
    rows, states = jax.tree.map(lambda *xs: np.concatenate(xs), *pieces)
    return Trace(rows, _names(plan), Result(int(carry.control.result)), states, plan, arrays, carry.records)


@functools.partial(jax.jit, static_argnums=0)
def _attempts(plan: Plan, arrays: Arrays, carry: Carry) -> tuple[Carry, Row, State, jax.Array]:
    """Up to `AT_ONCE` attempts, the states before them, and how many they are."""
    parts = build(plan, arrays, 1)
    integration, inputs, settings = parts.integration.bare, parts.inputs, parts.settings

    def one(carry, _):
        before, control = carry.state, carry.control
        live = control.result == Result.running
        here = integration.inputs_at(integration.recollecting(inputs, carry.records), before)
        made = Sizing(control.dt, watch=control.watch)
        step = integration.advance(here, settings, before, made, control.counts.steps)
        dt, error = step.after.t - before.t, _error(step, before, settings)
        (state, records), control = integration.trip(inputs, settings, carry, live)
        new, old = control.counts, carry.control.counts
        refused = jnp.where(new.rejected_error > old.rejected_error, Result.step_size_too_small, Result.nonfinite)
        cause = jnp.where(step.ok, refused, Result.nonlinear_solve_failed)
        landing, happened = jnp.array(False), jnp.zeros((), jnp.int32)
        if integration.events is not None:
            landing = new.located > old.located
            happened = control.watch.happened - carry.control.watch.happened
        cause = jnp.where(landing, Result.running, cause)
        accepted, work = new.steps > old.steps, _work(integration, old, new)
        row = Row(before.t, dt, error[0], accepted, cause, error[1], happened, work)
        return Carry(state, records, control), (row, before, live)

    carry, (rows, states, live) = lax.scan(one, carry, length=AT_ONCE)
    return carry, rows, states, jnp.sum(live)


def _error(step: Any, before: State, settings: Any) -> tuple[jax.Array, jax.Array]:
    """In units of the tolerance, and the component that it is largest in."""
    y1 = step.after.y
    lost = ~jnp.isfinite(y1).reshape(-1)
    if lost.size == 0:
        return jnp.zeros_like(before.t), jnp.zeros((), jnp.int32)
    if step.error is None or not settings.controller.needs_error:
        return jnp.full_like(before.t, jnp.nan), jnp.argmax(lost)
    sizes = (jnp.abs(step.error) / settings.tolerance.of_error(before.y, y1)).reshape(-1)
    ratio = jnp.exp(settings.controller.log_ratio(before.y, step, settings.tolerance))
    return ratio, jnp.argmax(jnp.where(lost | ~jnp.isfinite(sizes), jnp.inf, sizes))


def _work(integration: Any, old: Counts, new: Counts) -> Work:
    """That of one attempt, with what every step of the method takes."""
    stepper = integration.stepper
    varying = jax.tree.map(jnp.subtract, new.work, old.work) or Work(0, 0, 0, 0, 0)
    fixed = stepper.costs._replace(f_evals=stepper.costs.f_evals + stepper.evaluations[1])
    return Work(*(jnp.asarray(a + b, jnp.int32) for a, b in zip(fixed, varying, strict=True)))


def _names(plan: Plan) -> tuple[str, ...]:
    """Of the numbers in y, one after the other."""
    return tuple(map(plan.ravel.name, range(plan.ravel.size))) or ("none",)
