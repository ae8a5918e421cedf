"""From what a run leaves behind, records by name, to a solution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdiffeq.engine import outcome
from jaxdiffeq.frontend.plan import Built, Plan
from jaxdiffeq.frontend.saveat import Keep
from jaxdiffeq.gradients.rule import Constants, Outputs, joined, poisoned
from jaxdiffeq.noise.realised import Realised
from jaxdiffeq.solution import EventLog, Interpolant, Saved, Solution, Stats
from jaxdiffeq.types import PyTree, Result, Work


class Ends(NamedTuple):
    """What is saved at the start and at the end, the time and the state there, and what was asked for in between."""

    t0: Any
    t: Any
    first: tuple
    last: tuple
    """both for each of `Plan.keeps`"""
    y: Any
    ts: Any
    """the times to save at, in the order of travel"""
    backs: tuple
    """how to put those of each in the order given, or None"""
    earlier: Any
    """see `Interpolant`"""
    noise: Any = None
    """the path"""


def ends_of(parts: Built, outputs: Outputs, constants: Constants) -> Ends:
    inputs, events, args = parts.inputs, parts.integration.events, parts.inputs.args
    if events is not None:
        args = events.changed(args, joined(events.changing(args), outputs.changed, constants.changed))
    first = tuple(observe(inputs.t0, inputs.y0, inputs.args) for observe in parts.observes)
    last = tuple(observe(outputs.t, outputs.y, args) for observe in parts.observes)
    return Ends(inputs.t0, outputs.t, first, last, outputs.y, inputs.ts, parts.backs, parts.earlier, _realised(parts))


def _realised(parts: Built) -> Realised | None:
    field, inputs = parts.integration.field, lax.stop_gradient(parts.inputs)
    if not field.noisy:
        return None
    size = parts.settings.controller.fixed_size(inputs.t1 - inputs.t0)
    size = jnp.full_like(inputs.t0, jnp.nan) if size is None else jnp.asarray(size)
    return Realised(field.of_path(inputs.args), inputs.t0, inputs.t1, size, field.path)


def assemble(xp: Any, plan: Plan, ends: Ends, records: dict[str, Any], constants: Constants) -> Solution:
    """Put together what was saved, with numpy outside of a trace (`xp`) and jax.numpy inside."""
    good = (constants.result == Result.success) | (constants.result == Result.terminated)
    marks = constants.marks
    sums = _if_good(xp, good, records["regularisers"]) if plan.regularisers else ()
    (ts, ys, mask), *besides = (_kept(xp, keep, ends, records, marks, good) for keep in plan.keeps)
    return Solution(
        ts=ts,
        ys=plan.ravel.unpack_rows(ys) if plan.keep.fn is None else ys,
        real=mask.astype(np.int32),  # a number as all others, so that solutions can be subtracted and averaged
        stats=_stats(plan, constants),
        result=constants.result,
        t_end=ends.t,
        y_end=plan.ravel.unpack(ends.y),
        next_step=constants.dt,
        interpolant=_interpolant(xp, plan, ends, records["interpolant"], marks["interpolant"]) if plan.dense else None,
        **({"events": _events(xp, plan, records["events"], marks["events"])} if "events" in records else {}),
        regularisers=dict(zip(plan.regularisers, sums, strict=True)),
        noise=ends.noise,
        integrals=jax.tree.map(lambda x: _if_good(xp, good, x), tuple(records.get("integrals", ()))),
        saved=tuple(Saved(*of) for of in besides),
    )


def _kept(
    xp: Any, keep: Keep, ends: Ends, records: dict[str, Any], marks: dict[str, Any], good: Any
) -> tuple[Any, PyTree, Any]:
    """Times, values, and which of them are real."""
    first, last = jax.tree.map(lambda x: x[None], (ends.first[keep.number], ends.last[keep.number]))
    parts = []
    if keep.t0 and not keep.steps:
        parts.append((xp.reshape(ends.t0, 1), first, xp.ones(1, bool)))
    if (name := keep.name("times")) in records:
        parts.append(_timed(xp, keep, ends, records[name], marks[name]))
    if (name := keep.name("steps")) in records:
        start = (ends.t0, ends.first[keep.number]) if keep.t0 else None
        parts.append(_padded(xp, start, records[name], marks[name], good))
    if (name := keep.name("instants")) in records:
        parts.append(_instants(xp, records[name], marks[name]))
    elif keep.events:
        parts.append(_both_sides(xp, records["events"], marks["events"]))
    if keep.t1:
        last = jax.tree.map(lambda x: _if_good(xp, good, x), last)
        parts.append((xp.reshape(ends.t, 1), last, xp.reshape(good, 1)))
    if not parts:  # an empty list of times
        parts.append(jax.tree.map(lambda x: x[:0], (xp.reshape(ends.t0, 1), first, xp.ones(1, bool))))
    return parts[0] if len(parts) == 1 else jax.tree.map(lambda *xs: xp.concatenate(xs), *parts)


def _instants(xp: Any, rows: Any, count: Any) -> tuple[Any, PyTree, Any]:
    """Rows after every event, NaN after the last."""
    real = xp.arange(len(rows.t), dtype=np.int32) < count
    nan = lambda x: xp.where(real.reshape(-1, *[1] * (x.ndim - 1)), x, np.nan)
    return *jax.tree.map(nan, (rows.t, rows.values)), real


def _both_sides(xp: Any, rows: Any, count: Any) -> tuple[Any, PyTree, Any]:
    """Rows before and after every event, in turn."""
    pairs = xp.stack([rows.before, rows.after], 1)
    real = xp.repeat(xp.arange(len(rows.t), dtype=np.int32) < count, 2)
    values = pairs.reshape(-1, *pairs.shape[2:])
    nan = lambda x: xp.where(real.reshape(-1, *[1] * (x.ndim - 1)), x, np.nan)
    return nan(xp.repeat(rows.t, 2)), nan(values), real


def _events(xp: Any, plan: Plan, rows: Any, count: Any) -> EventLog:
    real = xp.arange(plan.max_events, dtype=np.int32) < count
    only = lambda x, other: xp.where(real.reshape(-1, *[1] * (x.ndim - 1)), x, other)
    ts, before, after = (only(x, np.nan) for x in (rows.t, rows.before, rows.after))
    which, grazing = only(rows.which, -1).astype(np.int32), only(rows.grazing, 0) > 0
    unpack = plan.ravel.unpack_rows
    return EventLog(ts, which, unpack(before), unpack(after), real, xp.asarray(count), grazing)


def _timed(xp: Any, keep: Keep, ends: Ends, values: PyTree, count: Any) -> tuple[Any, PyTree, Any]:
    """Rows at given times, of which `count` were passed, in the order given."""
    at, back = ends.ts[keep.own], ends.backs[keep.number]
    real = (xp.arange(at.size, dtype=np.int32) < count) | (at == ends.t0)
    if keep.sort:  # times that no check has seen may lie before t0
        early = (at != ends.t0) & (xp.sign(at - ends.t0) == -xp.sign(ends.t - ends.t0))
        real &= ~early
        values = jax.tree.map(lambda x: xp.where(early.reshape(-1, *[1] * (x.ndim - 1)), xp.nan, x), values)
    return jax.tree.map(lambda x: x if back is None else x[back], (at, values, real))


def _padded(xp: Any, start: tuple | None, rows: Any, count: Any, good: Any) -> tuple[Any, PyTree, Any]:
    """Rows of steps, behind one of the start, if given; after the last one it is repeated, or NaN when the solve failed
    or there is none."""
    rows = rows.t, rows.values
    if start is not None:
        rows = jax.tree.map(lambda s, x: xp.concatenate([s[None], x]), start, rows)
        count = count + 1
    numbers = xp.arange(len(rows[0]), dtype=np.int32)
    real = numbers < count
    at = xp.maximum(xp.minimum(numbers, count - 1), 0)
    none = ~real & (count == 0)

    def pad(x):
        of_rows = [flags.reshape(-1, *[1] * (x.ndim - 1)) for flags in (none, real | good)]
        return _if_good(xp, of_rows[1], xp.where(of_rows[0], xp.nan, x[at]))

    return *jax.tree.map(pad, rows), real


def _if_good(xp: Any, good: Any, x: Any) -> Any:
    """NaN where the solve failed, in values and derivatives."""
    return poisoned(x, good) if xp is jnp else np.where(good, x, np.nan)


def _interpolant(xp: Any, plan: Plan, ends: Ends, rows: Any, count: Any) -> Interpolant:
    times = xp.concatenate([xp.reshape(ends.t0, 1), rows.t])
    jumps = plan.max_events > 0
    return Interpolant(times, rows.coefficients, ends.y, count, plan.ravel, jumps, ends.earlier)


def _stats(plan: Plan, constants: Constants) -> Stats:
    counts, events = constants.counts, constants.marks.get("events", 0)
    tries = outcome.tries(counts)
    start, step, dense = plan.stepper.evaluations
    restarts = sum(jax.tree.leaves(counts.restarts))
    probes = 0 if plan.has_first_step else 2
    each, more = plan.stepper.costs, counts.work or plan.stepper.costs._replace(**dict.fromkeys(Work._fields, 0))
    f_evals, *algebra = (a * tries + b for a, b in zip(each, more, strict=True))
    return Stats(
        tries,
        counts.steps,
        counts.rejected_error,
        counts.rejected_solver,
        start * (1 + restarts) + probes + step * tries + dense * counts.dense + f_evals,
        *algebra,
        events=events,
    )


@dataclass(frozen=True, eq=False)
class Account:
    """What `sol.explain()` says before a result is known.

    No part of a solution as data: all are equal, so that `jax.tree.map` and `lax.cond` take solutions by different
    methods, and what is pickled is the text, without the user's functions.
    """

    plan: Plan | None
    method_given: bool
    controller: type | None
    """the class of the one given"""
    said: tuple[tuple[str, str], ...] = ()

    def __eq__(self, other: object) -> bool:
        return type(other) is Account

    def __hash__(self) -> int:
        return hash(Account)

    def __reduce__(self) -> tuple:
        return Account, (None, self.method_given, None, tuple(self.lines()))

    def lines(self) -> Sequence[tuple[str, str]]:
        if self.plan is None:
            return self.said
        stepper = self.plan.stepper
        beside, own = stepper.embedded_order, " with an estimate of its own error," if stepper.error_order else ","
        seen = own if beside is None else f" with an embedded solution of order {beside},"
        how_small = f"order {stepper.order}{seen} dense output of order {stepper.dense_order}"
        why = "as given" if self.method_given else "chosen for the tolerance, as no method was given"
        default, given = type(stepper.controller), self.controller
        how = f"{default.__name__}, the default of this method" if given is None else f"{given.__name__}, as given"
        path = "public JAX alone, with the same numbers, slower" if self.plan.plain else "the fast one"
        return [
            ("method", f"{stepper.name}, {how_small}: {why}"),
            ("controller", how),
            ("gradient", f"{self.plan.gradient}, if one is asked for"),
            ("path", path),
        ]
