"""The front door: check, lower, run with a gradient attached, return a solution."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiffeq import errors
from jaxdiffeq.engine.control import FixedSteps
from jaxdiffeq.engine.fixed_steps import EqualSteps
from jaxdiffeq.frontend.packed import Packed
from jaxdiffeq.frontend.plan import Arrays, Lowered, Plan, chunk, lower, prepare, row_bytes
from jaxdiffeq.frontend.steady_state import solve_steady
from jaxdiffeq.gradients import support as table
from jaxdiffeq.gradients.reverse import ReverseAD
from jaxdiffeq.gradients.rule import Constants, Outputs, differentiable, parts_of, poisoned
from jaxdiffeq.methods.choice import Recommendation, Traits, choose
from jaxdiffeq.primitives.varying_axes import left_to_xla
from jaxdiffeq.problems.definitions import SteadyStateProblem, Terms, lower_problem, replaced
from jaxdiffeq.solution import Interpolant, Solution, Stats, raise_failure
from jaxdiffeq.types import PyTree, Result, Work


def solve(
    problem: Any,
    method: Any = None,
    *,
    saveat: Any = None,
    dense: bool = False,
    rtol: Any = 1e-3,
    atol: Any = 1e-6,
    first_step: Any = None,
    controller: Any = None,
    max_steps: int = 100_000,
    stops: Any = (),
    regularisers: Sequence[str] = (),
    gradient: Any = ReverseAD(),
    progress: Any = False,
    throw: bool = True,
    **replacements: Any,
) -> Solution:
    """Solve `problem`; a pure function that works under `jit`, `vmap`, `grad`, `jvp` and `hessian`.

    An `ODEProblem`, `SplitODEProblem` or `DAEProblem`; of a `SteadyStateProblem` the solution is a state, found with
    `rtol`, `atol`, `max_steps`, `gradient` and `throw`, and other options are refused.
    `method` is chosen by tolerance, size and structure when left out: `recommend(problem)` says which and why. `saveat`
    is None for every accepted step, an array of times, a spacing, or a `SaveAt`. An error of one is rtol·|y| + atol;
    both may be pytrees like y0. `first_step`, the tolerances, the times and the controller's numbers are dynamic: a new
    value does not recompile. `stops` are times to land on exactly, where f may jump. `regularisers` are names out of
    "error", "stiffness", "energy", for `sol.regularisers`; see `jaxdiffeq.engine.regularisers`. `gradient` is the
    strategy for derivatives. `progress` shows a bar, or gives reports to a function; see `jaxdiffeq.progress`.
    `replacements` are fields of the problem: `solve(problem, args=p)`.
    Units: `first_step`, `stops` and `saveat` are in the unit of t, `atol` in that of y.
    Errors: `TypeError` and `ValueError` for bad input, before anything is compiled; a `SolveError` for a solve that
    fails outside `jit`, unless `throw=False`: then, and inside `jit`, `sol.result` says what happened.
    """
    if replacements:
        problem = replaced(problem, replacements)
    options = {"saveat": saveat, "dense": dense, "atol": atol, "stops": stops, "max_steps": max_steps}
    options |= {"regularisers": regularisers, "gradient": gradient}
    if isinstance(problem, SteadyStateProblem):
        options |= {"method": method, "rtol": rtol, "first_step": first_step, "controller": controller, "throw": throw}
        return solve_steady(problem, options)  # pyright: ignore[reportReturnType]
    terms = lower_problem(problem)
    stepper, settled = _settle(terms, method, rtol, first_step, controller)
    options |= {**settled, "watch": _watch(progress)}
    plan, arrays = prepare(terms, stepper, table.check(gradient, options, is_residual(terms)))
    solution = _run(plan, arrays)
    if isinstance(solution, Exception):
        raise solution  # from the user's function, with its traceback from there on
    account = Account(plan, method is not None, None if controller is None else type(controller))
    solution = dataclasses.replace(solution, account=account)
    if throw and errors.all_concrete((solution.result, solution.t_end, solution.y_end, solution.next_step)):
        _raise_if_failed(plan, arrays, solution)
    return solution


def _settle(terms: Terms, method: Any, rtol: Any, first_step: Any, controller: Any) -> tuple[Any, dict[str, Any]]:
    """The method, and the options that depend on one another, with what was left out chosen."""
    equal = isinstance(controller, FixedSteps)
    if equal and controller.dt is not None:
        first_step = errors.positive(controller.dt, "FixedSteps(dt)")
    stepper = choose(rtol, traits_of(terms, equal)).method if method is None else method
    errors.method(stepper)
    control = stepper.controller if controller is None else controller
    errors.controlled(stepper, control, first_step)
    stepper = getattr(stepper, "on_equal_steps", stepper) if equal else stepper
    return stepper, {"rtol": rtol, "first_step": first_step, "controller": control}


def recommend(problem: Any, rtol: Any = 1e-3, **replacements: Any) -> Recommendation:
    """What `solve(problem, rtol=rtol)` would use, and why: `.method`, `.why`."""
    terms = lower_problem(replaced(problem, replacements) if replacements else problem)
    return choose(rtol, traits_of(terms, False))


def traits_of(terms: Terms, equal_steps: bool) -> Traits:
    size = sum(np.size(x) for x in jax.tree.leaves(terms.y0))
    known = terms.structure is not None
    return Traits(size, terms.mass is not None, known, terms.explicit is not None, equal_steps, is_residual(terms))


def is_residual(terms: Terms) -> bool:
    """Whether dy/dt has to be solved for, by methods that can."""
    return terms.residual is not None or callable(terms.mass)


def _run(plan: Plan, arrays: Arrays) -> Solution | Exception:
    try:
        chunks = plan.every_step and equal_steps(plan, arrays) is None and errors.all_concrete(arrays)
        solution = _in_chunks(plan, arrays) if chunks else None
        return left_to_xla(functools.partial(_whole, plan), arrays).open() if solution is None else solution
    except errors.InUserCode as inside:
        return inside.error


def _watch(progress: Any) -> Any:
    if progress is False:
        return None
    from jaxdiffeq.progress import watcher  # above us, and not needed by most

    return watcher(progress)


# ---- one compiled program


class Ends(NamedTuple):
    """What is saved at the start and at the end, and the state there."""

    t0: Any
    first: PyTree
    last: PyTree
    y: Any


@functools.partial(jax.jit, static_argnums=0)
def _whole(plan: Plan, arrays: Arrays) -> Packed:
    n = equal_steps(plan, arrays)
    room = plan.max_steps if n is None else n if plan.dense else n // max(plan.keep.steps, 1)
    if plan.every_step:
        errors.buffer_size(room, row_bytes(plan), room)
    parts = lower(plan, arrays, room)
    integration = parts.integration if n is None else EqualSteps(parts.integration, n)
    state = jax.eval_shape(parts.integration.begin, parts.inputs)  # with a Jacobian, if the method keeps one
    state_bytes = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    bind = plan.gradient.bind if n is None else plan.gradient.on_equal_steps
    strategy = bind(plan.max_steps if n is None else n, state_bytes)
    outputs, constants = differentiable(strategy, integration, parts.inputs, parts.settings)
    recorders = parts.integration.recorders
    outputs = outputs._replace(records={name: r.rows(outputs.records[name]) for name, r in recorders.items()})
    solution = _assemble(jnp, plan, _ends(parts, outputs, constants), parts.times, outputs, constants)
    return Packed.of(solution)


def equal_steps(plan: Plan, arrays: Arrays) -> int | None:
    """How many equal steps the solve is, if it is a scan: between two of them it may land nowhere."""
    controller = arrays.settings.controller
    if not isinstance(controller, FixedSteps) or controller.n is None or np.size(arrays.stops):
        return None
    return controller.n if plan.gradient.differentiates_scans and controller.n <= plan.max_steps else None


def _ends(parts: Lowered, outputs: Outputs, constants: Constants) -> Ends:
    inputs = parts.inputs
    first = parts.observe(inputs.t0, inputs.y0, inputs.args)
    t1 = jnp.where(constants.result == Result.success, inputs.t1, constants.t)
    last = parts.observe(t1, outputs.y, inputs.args)
    return Ends(inputs.t0, first, last, outputs.y)


# ---- chunks: exactly as many rows as steps, whatever max_steps is, and a solve that can be interrupted


@functools.partial(jax.jit, static_argnums=0)
def _chunk(plan: Plan, arrays: Arrays, before: Packed | None) -> Packed:
    parts = lower(plan, arrays, chunk(plan))
    recorders = parts.integration.recorders
    carry = None
    if before is not None:  # go on; the rows of the last chunk have been taken away
        carry = before.open()[0]
        marks = {name: r.between_chunks(carry.control.marks[name])[1] for name, r in recorders.items()}
        carry = carry._replace(control=carry.control._replace(marks=marks))
    carry = parts.integration.run(parts.inputs, parts.settings, carry, pause=chunk(plan))
    counts = {name: r.between_chunks(carry.control.marks[name])[0] for name, r in recorders.items()}
    staying = {name: recorders[name].rows(carry.records[name]) for name, count in counts.items() if count is None}
    return Packed.of((carry, _ends(parts, *parts_of(carry)), parts.times, (counts, staying)), limit=64)


def _in_chunks(plan: Plan, arrays: Arrays) -> Solution | None:
    """Run outside of any trace; None when f turns out to close over a tracer."""
    bundle, pieces = None, []
    while True:
        bundle = _chunk(plan, arrays, bundle)
        if not errors.all_concrete(bundle):
            return None
        carry, ends, times, (counts, staying) = jax.device_get(bundle.open())
        outputs, constants = parts_of(carry)
        leaving = {name: count for name, count in counts.items() if count is not None}
        pieces.append({name: _head(outputs.records[name], count) for name, count in leaving.items()})
        if constants.result != Result.running:
            break
    rows = jax.tree.map(lambda *xs: np.concatenate(xs), *pieces)
    totals = {name: sum(len(piece[name].t) for piece in pieces) for name in rows}
    outputs = outputs._replace(records=staying | rows)
    constants = constants._replace(marks=constants.marks | totals)
    return _on_device(_assemble(np, plan, ends, times, outputs, constants))


def _head(rows: PyTree, count: int) -> PyTree:
    return jax.tree.map(lambda x: x[:count], rows)


def _on_device(solution: Solution) -> Solution:
    """Its arrays as JAX arrays; single numbers stay on the host, where a solve outside of `jit` looks at them."""
    leaves, tree = jax.tree.flatten(solution)
    arrays = iter(jax.device_put([x for x in leaves if np.ndim(x)]))
    return tree.unflatten([next(arrays) if np.ndim(x) else x for x in leaves])


# ---- the solution


def _assemble(xp: Any, plan: Plan, ends: Ends, times: tuple, outputs: Outputs, constants: Constants) -> Solution:
    """Put together what was saved, with numpy outside of a trace (`xp`) and jax.numpy inside."""
    good = (constants.result == Result.success) | (constants.result == Result.terminated)
    records, marks = outputs.records, constants.marks
    first, last = jax.tree.map(lambda x: x[None], (ends.first, ends.last))
    parts = []  # (times, values, which of them are real)
    if plan.keep.t0 and not plan.keep.steps:
        parts.append((xp.reshape(ends.t0, 1), first, xp.ones(1, bool)))
    if "times" in records:
        parts.append(_timed(xp, plan, ends, times, records["times"], (marks["times"], constants.t)))
    if "steps" in records:
        parts.append(_padded(xp, plan.keep.t0, ends, records["steps"], marks["steps"], good))
    if plan.keep.t1:
        last = jax.tree.map(lambda x: _if_good(xp, good, x), last)
        parts.append((xp.reshape(outputs.t, 1), last, xp.reshape(good, 1)))
    if not parts:  # an empty list of times
        parts.append(jax.tree.map(lambda x: x[:0], (xp.reshape(ends.t0, 1), first, xp.ones(1, bool))))
    sums = _if_good(xp, good, records["regularisers"]) if plan.regularisers else ()
    ts, ys, mask = parts[0] if len(parts) == 1 else jax.tree.map(lambda *xs: xp.concatenate(xs), *parts)
    return Solution(
        ts=ts,
        ys=plan.ravel.unpack_rows(ys) if plan.keep.fn is None else ys,
        mask=mask,
        stats=_stats(plan, constants),
        result=constants.result,
        t_end=outputs.t,
        y_end=plan.ravel.unpack(ends.y),
        next_step=constants.dt,
        interpolant=_interpolant(xp, plan, ends, records["interpolant"], marks["interpolant"]) if plan.dense else None,
        regularisers=dict(zip(plan.regularisers, sums, strict=True)),
    )


def _timed(xp: Any, plan: Plan, ends: Ends, times: tuple, values: PyTree, reached: tuple) -> tuple[Any, PyTree, Any]:
    """Rows at given times, in the order given. Shapes: `reached` is the number of them, and the time."""
    at, back = times
    count, t_end = reached
    real = (xp.arange(at.size, dtype=np.int32) < count) | (at == ends.t0)
    if plan.keep.sort:  # traced times, which no check has seen, may lie before t0
        early = (at != ends.t0) & (xp.sign(at - ends.t0) == -xp.sign(t_end - ends.t0))
        real &= ~early
        values = jax.tree.map(lambda x: xp.where(early.reshape(-1, *[1] * (x.ndim - 1)), xp.nan, x), values)
    return jax.tree.map(lambda x: x if back is None else x[back], (at, values, real))


def _padded(xp: Any, with_start: bool, ends: Ends, rows: Any, count: Any, good: Any) -> tuple[Any, PyTree, Any]:
    """Rows of steps; after the last one it is repeated, or NaN when the solve failed or there is none."""
    rows = rows.t, rows.values
    if with_start:
        rows = jax.tree.map(lambda s, x: xp.concatenate([s[None], x]), (ends.t0, ends.first), rows)
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
    return Interpolant(xp.concatenate([xp.reshape(ends.t0, 1), rows.t]), rows.coefficients, ends.y, count, plan.ravel)


def _stats(plan: Plan, constants: Constants) -> Stats:
    counts = constants.counts
    tries = counts.steps + counts.rejected_error + counts.rejected_solver
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
    )


@dataclass(frozen=True)
class Account:
    """What `sol.explain()` says before a result is known."""

    plan: Plan
    method_given: bool
    controller: Any

    def lines(self) -> list[tuple[str, str]]:
        stepper = self.plan.stepper
        why = "as given" if self.method_given else "chosen for the tolerance, as no method was given"
        how = (
            f"{type(stepper.controller).__name__}, the default of this method"
            if self.controller is None
            else f"{self.controller.__name__}, as given"
        )
        how_small = (
            f"order {stepper.order}, error estimate of order {stepper.error_order}, dense output {stepper.dense_order}"
        )
        return [
            ("method", f"{stepper.name}, {how_small}: {why}"),
            ("controller", how),
            ("gradient", f"{self.plan.gradient}, if one is asked for"),
        ]


def _raise_if_failed(plan: Plan, arrays: Arrays, solution: Solution) -> None:
    if np.ndim(solution.result) == 0 and int(solution.result) not in (Result.success, Result.terminated):
        raise_failure(solution, _place(plan, arrays, solution))


@functools.partial(jax.jit, static_argnums=0)
def _attempt(plan: Plan, arrays: Arrays, t: Any, y: PyTree, dt: Any) -> tuple[PyTree, PyTree]:
    """The slope at (t, y), and the error of one more attempt in units of the tolerance."""
    parts = lower(plan, arrays, 1)
    integration, inputs = parts.integration, parts.inputs._replace(t0=t, y0=plan.ravel.pack(y))
    start = integration.begin(inputs)
    step = integration.advance(inputs, parts.settings, start, dt, 0)
    slope = integration.field(t, inputs.y0, inputs.args)
    scale = parts.settings.tolerance.scale(inputs.y0, step.after.y)
    error = slope if step.error is None else jnp.abs(step.error) / scale
    return plan.ravel.unpack(slope), plan.ravel.unpack(error.astype(slope.dtype))


def _place(plan: Plan, arrays: Arrays, solution: Solution) -> dict[str, str]:
    """Where a solve failed: the step size, and the component that is to blame, by its path."""
    t, y = solution.t_end, solution.y_end
    moves = np.maximum(solution.next_step, 2 * np.spacing(np.abs(t)))  # a smaller step would show no error at all
    slope, error = _attempt(plan, arrays, t, y, moves)
    worst, size = "", -1.0
    for tree in (slope, error) if Result(int(solution.result)) is Result.nonfinite else (error,):
        for (path, leaf), value in zip(jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(y), strict=True):
            sizes = np.nan_to_num(np.abs(np.asarray(leaf)), nan=np.inf)
            if sizes.size and sizes.max() > size:
                size = float(sizes.max())
                at = np.unravel_index(int(np.argmax(sizes)), sizes.shape)
                index = f"[{', '.join(str(int(i)) for i in at)}]" if at else ""
                worst = f"{errors.path_of(path)}{index} = {np.asarray(value)[at]:.6g}"
    return {"The next step would have been": f"{float(solution.next_step):.3g}", "the worst component is": worst}
