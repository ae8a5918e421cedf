"""Where and why a solve failed, as the error that is raised for it."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiffeq import errors
from jaxdiffeq.frontend import blame
from jaxdiffeq.frontend.plan import Arrays, Plan, build
from jaxdiffeq.solution import Solution
from jaxdiffeq.types import PyTree, Result, Sizing

ADVICE = {
    Result.max_steps_reached: (
        "max_steps attempts did not suffice",
        "",
    ),
    Result.step_size_too_small: (
        "the error estimate cannot be met with any step that moves t",
        "Look for a singularity or a discontinuity of f near this time (name it in `stops`), loosen the tolerances, or "
        "use jax_enable_x64. For a stiff problem use an implicit method, such as Rodas5P() or BDF().",
    ),
    Result.nonfinite: (
        "f or the state was NaN or infinite at every step size tried",
        "Call f at `solution.t_end` and `solution.y_end`; look for a division by zero, a root or a logarithm "
        "of a negative number, or a solution that goes to infinity in finite time.",
    ),
    Result.nonlinear_solve_failed: (
        "the inner nonlinear solve did not converge at any step size tried, although all numbers in it were finite",
        "Look for a discontinuity of f near this time (name it in `stops`), for a `jac` or a `jac_structure` that is "
        "not that of f, for equations of index above 1, or give looser tolerances.",
    ),
    Result.initialisation_failed: (
        "no initial values were found that satisfy the algebraic equations",
        "Check that they have a solution near `y0` and that the index is 1: that they can be solved for the components "
        "whose derivative does not occur.",
    ),
    Result.event_limit_reached: ("more events happened than `max_events`", "Raise `max_events`."),
    Result.history_too_short: (
        "f asked for a past that was no longer kept, or a gradient for more steps than are kept",
        "Give a larger `history_steps`: at least the number of steps within the longest lag, and for a gradient the "
        "number of all steps.",
    ),
}

NO_STAGE = (
    "the equations of a stage were not solved: over so long a step they may have no solution near the state, or none",
    "Take more steps, or leave `FixedSteps` out, so that a step that fails is made shorter.",
)
RUN_AWAY = (
    " An explicit method may run away like this on a stiff problem: use an implicit one, such as Rodas5P() or BDF()."
)
IMPLICIT = "ImplicitEM(), or SKenCarp() for additive noise"
OUT_OF_DOMAIN = (
    "If the solution itself leaves there, end the solve by an `Event`, or look at f; else give a smaller `atol`, or "
    "the domain some `slack`."
)
ALWAYS_GIVEN = (
    "no state was found that comes again after each interval of doses that have always been given",
    "What is given must be removed as fast, and what nothing removes, such as the amount excreted so far, has no such "
    "state: leave it out and take `Integrate`. Give a `y0` closer to it, or smaller tolerances.",
)
FUTURE = " `h(s)` knows the past alone: see that no s is later than t, as with a lag of the wrong sign."
HALF = " Half precision is coarse: a `y0` of float32 has more."


def raise_failure(solution: Solution, place: dict[str, str], why: str = "", advice: str = "") -> None:
    """Raise the error that belongs to the result code of a solution that failed; `why` and `advice` replace its own."""
    result = Result(int(solution.result))
    why, advice = why or ADVICE[result][0], advice or ADVICE[result][1]
    where = "; ".join(f"{name} {text}" for name, text in place.items())
    counts = (
        f"{int(solution.stats.accepted)} steps accepted, {int(solution.stats.rejected_error)} rejected by the error "
        f"test, {int(solution.stats.rejected_solver)} by a failure"
    )
    raise errors.BY_RESULT[result](
        f"the solve stopped with {result.name} at t = {float(solution.t_end):.9g}: {why}. {where}. {counts}. {advice} "
        f"The solution up to there is in this error's `solution`; `throw=False` returns it with its result code.",
        solution,
    )


def raise_if_failed(plan: Plan, arrays: Arrays, solution: Solution) -> None:
    """One error for a single solve that is known to have failed; a batch has its result codes."""
    if not errors.all_concrete((solution.result, solution.t_end, solution.y_end, solution.next_step)):
        return
    if np.ndim(solution.result) == 0 and int(solution.result) not in (Result.success, Result.terminated):
        raise_failure(solution, _place(plan, arrays, solution), *_blamed(plan, arrays, solution))


def _blamed(plan: Plan, arrays: Arrays, solution: Solution) -> tuple[str, str]:
    """Why, and what to do, where more can be said than its code says."""
    result, why, advice = Result(int(solution.result)), "", ""
    if result is Result.nonfinite and (culprit := blame.event_not_finite(plan, arrays, solution)):
        why, advice = culprit, "Look at what it is given: the last row of `solution.events` has the state before it."
    elif result is Result.nonfinite and (culprit := blame.diffusion_not_finite(plan, arrays, solution))[0]:
        why, advice = culprit
    elif result is Result.nonfinite:
        why, advice = blame.not_finite(plan, arrays, solution, _moves(solution))
        explicit = int(solution.stats.jac_evals) == 0 and int(solution.stats.accepted) > 0
        advice = advice or ADVICE[result][1]
        advice += RUN_AWAY if explicit else ""
    elif result is Result.step_size_too_small:
        why = blame.out_of_domain(plan, arrays, solution, _moves(solution))
        advice = OUT_OF_DOMAIN if why else ""
    elif result is Result.initialisation_failed and _looked_for(arrays):
        why, advice = ALWAYS_GIVEN
    elif result is Result.initialisation_failed:
        why = f"{ADVICE[result][0]}: {text}" if (text := blame.inconsistent(plan, arrays)) else ""
    elif result is Result.max_steps_reached:
        advice = blame.too_many_steps(plan, arrays, solution)
    elif result is Result.nonlinear_solve_failed and getattr(plan.stepper, "equal", False):
        why, advice = NO_STAGE
    elif result is Result.event_limit_reached and solution.events is not None:
        why, advice = blame.too_many_events(solution)
    half = jnp.finfo(plan.ravel.dtype).bits <= 16
    ahead = plan.memory is not None and result in (Result.nonfinite, Result.step_size_too_small)
    advice = (advice or ADVICE[result][1]) + FUTURE * ahead + HALF * half
    return why, advice if plan.noise is None else _for_noise(advice)


def _for_noise(advice: str) -> str:
    """The same with methods that take noise."""
    return advice.replace("Rodas5P() or BDF()", IMPLICIT).replace("Vern9()", "SOSRI()")


def _looked_for(arrays: Arrays) -> bool:
    """Whether the solve began with what was not found, before its own start was made consistent."""
    begins = arrays.settings.begins
    return begins is not None and int(begins) == Result.initialisation_failed


def _moves(solution: Solution) -> Any:
    """The next step, or the least one that moves t: a smaller one would show no error at all."""
    least = 2 * np.spacing(np.abs(np.asarray(solution.t_end)))
    return np.maximum(np.nan_to_num(np.asarray(solution.next_step)), least)


@functools.partial(jax.jit, static_argnums=0)
def _attempt(plan: Plan, arrays: Arrays, t: Any, y: PyTree, dt: Any) -> tuple[PyTree, PyTree]:
    """The slope at (t, y), and the error of one more attempt in units of the tolerance."""
    parts = build(plan, arrays, 1)
    integration, inputs = parts.integration, parts.inputs._replace(t0=t, y0=plan.ravel.pack(y))
    start = integration.begin(inputs)
    step = integration.advance(inputs, parts.settings, start, Sizing(dt), 0)
    slope = integration.field(t, inputs.y0, inputs.args)
    scale = parts.settings.tolerance.scale(inputs.y0, step.after.y)
    error = slope if step.error is None else jnp.abs(step.error) / scale
    return plan.ravel.unpack(slope), plan.ravel.unpack(error.astype(slope.dtype))


def _place(plan: Plan, arrays: Arrays, solution: Solution) -> dict[str, str]:
    """Where a solve failed: the step size, and the component that is to blame, by its path."""
    t, y = solution.t_end, solution.y_end
    slope, error = _attempt(plan, arrays, t, y, _moves(solution))
    worst, size = "", -1.0
    for tree in (slope, error) if Result(int(solution.result)) is Result.nonfinite else (error,):
        for (path, leaf), value in zip(jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(y), strict=True):
            sizes = np.nan_to_num(np.abs(np.asarray(leaf)), nan=np.inf)
            if sizes.size and sizes.max() > size:
                size = float(sizes.max())
                at = np.unravel_index(int(np.argmax(sizes)), sizes.shape)
                index = f"[{', '.join(str(int(i)) for i in at)}]" if at else ""
                worst = f"{errors.path_of(path)}{index} = {np.asarray(value)[at]:.6g}"
    size = float(solution.next_step)
    sized = {} if np.isnan(size) else {"The next step would have been": f"{size:.3g}"}
    return sized | {f"{'the' if sized else 'The'} worst component is": worst}
