"""Gradients of small solves: Lotka–Volterra with 101 saved times takes at most 0.6 of diffrax's time.

The gradient of Σ(ys − 1)² with respect to the parameters, at the tolerance where each solve reaches the target error.
The error shown is that of the gradient, against the same gradient at rtol 1e-13.
"""

from __future__ import annotations

from collections.abc import Callable

import common
import jax
import jax.numpy as jnp
import numpy as np
import solvers
from problems import CASES, Case

import jaxdiffeq as jde

GRID = np.logspace(-5, -9, 9)
CONTESTANTS = {
    "ours": (solvers.ours, {}),
    "diffrax": (solvers.diffrax, {}),
    "ours, all kept": (solvers.ours, {"gradient": jde.ReverseAD(memory="all"), "max_steps": 4096}),
}


def gradient(run: Callable) -> Callable:
    return jax.grad(lambda p, y0, tol: jnp.sum((run(y0, p, tol) - 1) ** 2))


def reference(case: Case, many: bool) -> np.ndarray:
    run = solvers.ours(case.f, "Dopri8", case.t1, case.ts if many else None)
    if many:  # eighth order between steps too: land on every saved time

        def run(y0, p, tol):
            problem = jde.ODEProblem(case.f, y0, (0.0, case.t1), p)
            return jde.solve(
                problem, jde.DormandPrince87(), saveat=case.ts, stops=case.ts[1:-1], rtol=tol, atol=1e-15
            ).ys

    return np.asarray(jax.jit(gradient(run))(*_args(case), 1e-13))


def _args(case: Case) -> tuple:
    return jnp.asarray(case.p), jnp.asarray(case.y0)


def contest(case: Case, method: str, many: bool) -> dict:
    exact, args = reference(case, many), _args(case)
    ts = case.ts if many else None
    values = case.reference(case.ts) if many else case.reference(case.ts)[-1:]
    runs, errors, tols = {}, {}, {}
    for name, (make, options) in CONTESTANTS.items():
        solve = make(case.f, method, case.t1, ts, **{k: v for k, v in options.items() if k == "max_steps"})
        if make not in tols:
            forward, _ = solvers.jitted(solve, args[1], args[0], jnp.asarray(1e-6))

            def at(tol, forward=forward):
                return common.relative_error(forward(args[1], args[0], jnp.asarray(tol)), values)

            tols[make] = jnp.asarray(common.tolerance_for(at, case.target, GRID)[0])
        tol = tols[make]
        compiled, _ = solvers.jitted(gradient(make(case.f, method, case.t1, ts, **options)), *args, tol)
        errors[name] = common.relative_error(compiled(*args, tol), exact)
        runs[name] = lambda compiled=compiled, tol=tol: compiled(*args, tol)
    seconds = common.interleaved(runs)
    mid, share = common.medians(seconds), common.ratio(seconds, "ours", "diffrax")
    return {
        "problem": case.name,
        "method": method,
        "saved": 101 if many else 1,
        **{f"{name} µs": mid[name] * 1e6 for name in runs},
        **{f"{name} error": errors[name] for name in ("ours", "diffrax")},
        "ours / diffrax": share,
        "≤ 0.6": common.verdict(share, 0.6),
    }


def main() -> None:
    cases = {case.name: case for case in CASES}
    plan = [("Lotka–Volterra", "Tsit5", True), ("Lotka–Volterra", "Tsit5", False)]
    plan += [("Arenstorf", "Dopri5", True), ("Pleiades", "Tsit5", True)]
    rows = common.gather(contest(cases[name], method, many) for name, method, many in plan)
    common.report("gradients", "Gradients of small solves", rows)
    groups = {
        f"{r['problem']}, {r['method']}, {r['saved']}": {name: r[f"{name} µs"] * 1e-6 for name in CONTESTANTS}
        for r in rows
    }
    common.bars("gradients", "Gradients of small solves", groups)


if __name__ == "__main__":
    main()
