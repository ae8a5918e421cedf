"""The front door: options, plan, execution, solution."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from jaxdiffeq.algebra.detect import Detected
from jaxdiffeq.events import listed
from jaxdiffeq.frontend.assemble import Account
from jaxdiffeq.frontend.blame import held_up, impatient, with_patience
from jaxdiffeq.frontend.diagnose import raise_if_failed
from jaxdiffeq.frontend.execute import execute
from jaxdiffeq.frontend.options import Options
from jaxdiffeq.frontend.steady_doses import prepared
from jaxdiffeq.frontend.steady_state import solve_steady
from jaxdiffeq.gradients.check import tell_of_events
from jaxdiffeq.gradients.reverse import ReverseAD
from jaxdiffeq.habits import OURS
from jaxdiffeq.jumps.definitions import JumpProblem, with_fields
from jaxdiffeq.jumps.hybrid import lifted, or_failure
from jaxdiffeq.jumps.solve import solve_jumps
from jaxdiffeq.problems.definitions import SteadyStateProblem, Terms, replaced, terms_of
from jaxdiffeq.progress import watcher
from jaxdiffeq.solution import Solution

MAX_STEPS = 100_000  # where none are given, of an equation


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
    max_steps: int | None = None,
    stops: Any = (),
    events: Any = (),
    max_events: int = 100,
    regularisers: Sequence[str] = (),
    gradient: Any = ReverseAD(),
    progress: Any = False,
    throw: bool = True,
    history_steps: int | None = None,
    **replacements: Any,
) -> Solution:
    """Solve `problem`; a pure function that works under `jit`, `vmap`, `grad`, `jvp` and `hessian`.

    An `ODEProblem`, `SplitODEProblem`, `DAEProblem`, `DDEProblem`, one with noise or a `JumpProblem`; of a
    `SteadyStateProblem` the solution is a state, found with `rtol`, `atol`, `max_steps`, `gradient` and `throw`, and
    other options are refused.
    `method` is chosen by tolerance, size and structure when left out: `recommend(problem)` says which and why. Outside
    of `jit` a large stiff system that an explicit one could not solve is begun again, with ∂f/∂y's pattern read off f.
    `saveat` is None for every accepted step, an array of times, a spacing, or a `SaveAt`. An error of one is rtol·|y| +
    atol; both may be pytrees like y0. `first_step`, the tolerances, the times and the controller's numbers are dynamic:
    a new value does not recompile. `stops` are times to land on exactly, where f may jump; `events`, an `Event` or a
    list of such, are found on the way, at most `max_events`; see `jaxdiffeq.events`. `regularisers` are names out of
    "error", "stiffness", "energy", for `sol.regularisers`; see `jaxdiffeq.engine.regularisers`. `gradient` is the
    strategy for derivatives. `progress` shows a bar, or gives reports to a function; see `jaxdiffeq.progress`.
    `history_steps` is how many steps of the past a `DDEProblem` keeps, about a thousand when left out.
    `replacements` are fields of the problem: `solve(problem, args=p)`.
    Units: `first_step`, `stops` and `saveat` are in the unit of t, `atol` in that of y.
    Errors: `TypeError` and `ValueError` for bad input, before anything is compiled; a `SolveError` for a solve that
    fails outside `jit`, unless `throw=False`: then, and inside `jit`, `sol.result` says what happened.
    """
    if replacements:
        change = with_fields if isinstance(problem, JumpProblem) else replaced
        problem = change(problem, replacements, OURS)
    limit = MAX_STEPS if max_steps is None else max_steps
    steering = rtol, atol, first_step, controller, limit, stops
    extra = regularisers, gradient, watcher(progress), throw, listed(events), max_events, history_steps
    asked = Options(method, saveat, dense, *steering, *extra)
    if isinstance(problem, SteadyStateProblem):
        return solve_steady(problem, asked)  # pyright: ignore[reportReturnType]
    if isinstance(problem, JumpProblem):
        if problem.is_discrete:
            return solve_jumps(problem, dataclasses.replace(asked, max_steps=max_steps))
        problem, asked, lower = lifted(problem, asked)
        return or_failure(lambda: solve_terms(terms_of(problem), method, controller, asked), lower)
    return solve_terms(terms_of(problem), method, controller, asked)


def solve_terms(terms: Terms, method: Any, controller: Any, asked: Options) -> Solution:
    """Solve an equation: `method` and `controller` as they were given."""
    if method is None and terms.noise is not None:
        terms = terms._replace(noise=terms.noise._replace(convert=True))  # what is chosen may be of the other calculus
    plan, arrays = prepared(terms, asked.settled(terms))
    arrays = with_patience(plan, arrays) if method is None else arrays
    plan, solution = execute(plan, arrays)
    if impatient(arrays, solution) and not held_up(plan, arrays, solution):
        arrays = with_patience(plan, arrays, asked.max_steps)
        plan, solution = execute(plan, arrays)
    if method is None and held_up(plan, arrays, solution):
        terms = terms._replace(structure=Detected())
        plan, arrays = prepared(terms, asked.settled(terms))
        plan, solution = execute(plan, arrays)
    tell_of_events(solution.events)
    account = Account(plan, method is not None, None if controller is None else type(controller))
    solution = dataclasses.replace(solution, account=account)
    if asked.throw:
        raise_if_failed(plan, arrays, solution)
    return solution
