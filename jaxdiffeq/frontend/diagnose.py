"""Where and why a solve failed, as the error that is raised for it."""

from __future__ import annotations

from jaxdiffeq.errors import BY_RESULT
from jaxdiffeq.solution import Solution
from jaxdiffeq.types import Result

ADVICE = {
    Result.max_steps_reached: (
        "max_steps attempts did not suffice",
        "If the steps are tiny the problem is probably stiff for this explicit method: use an implicit one, such as "
        "Rodas5P() or BDF(), or none, so that `solve` switches by itself; looser "
        "tolerances, or a larger max_steps.",
    ),
    Result.step_size_too_small: (
        "the error estimate cannot be met with any step that moves t",
        "Look for a singularity or a discontinuity of f near this time (name it in `stops`), loosen the tolerances, or "
        "use jax_enable_x64. For a stiff problem use an implicit method, such as Rodas5P() or BDF().",
    ),
    Result.nonfinite: (
        "f or the state was NaN or infinite at every step size tried",
        "Call f at `solution.t_end` and `solution.y_end`; look for a division by zero, a root or a logarithm "
        "of a negative number, or a solution that goes to infinity in finite time. An explicit method may run away "
        "like this on a stiff problem: use an implicit one, such as Rodas5P() or BDF().",
    ),
    Result.nonlinear_solve_failed: ("the inner nonlinear solve did not converge at any step size tried", "Check jac."),
    Result.initialisation_failed: (
        "no initial values were found that satisfy the algebraic equations",
        "Check that they have a solution near `y0` and that the index is 1: that they can be solved for the components "
        "whose derivative does not occur.",
    ),
    Result.event_limit_reached: ("more events happened than there is room for", "Raise the limit."),
}


def raise_failure(solution: Solution, place: dict[str, str]) -> None:
    """Raise the error that belongs to the result code of a solution that failed."""
    result = Result(int(solution.result))
    why, advice = ADVICE[result]
    where = "; ".join(f"{name} {text}" for name, text in place.items())
    counts = (
        f"{int(solution.stats.accepted)} steps accepted, {int(solution.stats.rejected_error)} rejected by the error "
        f"test, {int(solution.stats.rejected_solver)} by a failure"
    )
    raise BY_RESULT[result](
        f"the solve stopped with {result.name} at t = {float(solution.t_end):.9g}: {why}. {where}. {counts}. {advice} "
        f"The solution up to there is in this error's `solution`; `throw=False` returns it with its result code.",
        solution,
    )
