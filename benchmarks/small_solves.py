"""Small non-stiff solves at equal achieved error: at most 0.6 of diffrax's time with the same method.

For each problem and method, every contestant gets the tolerance at which it reaches the target error (see
`common.tolerance_for`). Saved at t1 alone, then at 101 times. Compiled programs; dispatch is included.
"""

from __future__ import annotations

import sys

import common
import jax.numpy as jnp
import numpy as np
import solvers
from problems import CASES, Case
from scipy.integrate import odeint, solve_ivp

GRID = np.logspace(-4, -9, 11)
TARGET = 0.6


def contest(case: Case, method: str, many: bool) -> dict:
    ts = case.ts if many else None
    reference = case.reference(case.ts)
    reference = reference if many else reference[-1:]
    y0, p = jnp.asarray(case.y0), jnp.asarray(case.p)
    runs, tols, errors = {}, {}, {}
    for name, make in (("ours", solvers.ours), ("diffrax", solvers.diffrax)):
        compiled, _ = solvers.jitted(make(case.f, method, case.t1, ts), y0, p, jnp.asarray(1e-6))

        def at(tol, compiled=compiled):
            return common.relative_error(compiled(y0, p, jnp.asarray(tol)), reference)

        tols[name], errors[name] = common.tolerance_for(at, case.target, GRID)
        tol = jnp.asarray(tols[name])
        runs[name] = lambda compiled=compiled, tol=tol: compiled(y0, p, tol)
    plain = None if many else solvers.numba_runge_kutta(case.plain, method, case.y0.size)
    if plain is not None:

        def at(tol):
            return common.relative_error(plain(case.y0, case.p, case.t1, tol), reference[0])

        tols["numba"], errors["numba"] = common.tolerance_for(at, case.target, GRID)
        runs["numba"] = lambda tol=tols["numba"]: plain(case.y0, case.p, case.t1, tol)
    seconds = common.interleaved(runs)
    mid, share = common.medians(seconds), common.ratio(seconds, "ours", "diffrax")
    return {
        "problem": case.name,
        "method": method,
        "saved": 101 if many else 1,
        **{f"{name} µs": mid[name] * 1e6 for name in runs},
        **{f"{name} error": errors[name] for name in runs},
        "ours / diffrax": share,
        "ours / numba": common.ratio(seconds, "ours", "numba") if "numba" in runs else None,
        "≤ 0.6": common.verdict(share, TARGET),
    }


def scipy_rows(case: Case) -> list[dict]:
    """SciPy calls f from Python: another world, shown for scale."""
    reference, rows = case.reference(case.ts)[-1:], []

    def f(t, y):
        out = np.empty_like(y)
        case.plain(t, y, case.p, out)
        return out

    def dop853(tol):
        return solve_ivp(f, (0, case.t1), case.y0, "DOP853", rtol=tol, atol=solvers.ATOL * tol).y[:, -1]

    def lsoda(tol):
        ends = (0.0, case.t1)
        return odeint(f, case.y0, ends, tfirst=True, rtol=tol, atol=solvers.ATOL * tol, mxstep=100_000)[-1]

    for name, run in (("SciPy DOP853", dop853), ("SciPy LSODA", lsoda)):
        grid = GRID[:4]  # LSODA stops short of the tightest ones
        tol, error = common.tolerance_for(
            lambda tol, run=run: common.relative_error(run(tol), reference[0]), case.target, grid
        )
        mid = common.medians(common.interleaved({name: lambda run=run, tol=tol: run(tol)}, 3))
        rows.append({"problem": case.name, "method": name, "saved": 1, "µs": mid[name] * 1e6, "error": error})
    return rows


def main() -> None:
    methods = sys.argv[1:] or list(solvers.METHODS)
    rows = common.gather(contest(case, m, many) for case in CASES for m in methods for many in (False, True))
    slow = [row for case in CASES[:2] for row in scipy_rows(case)]
    notes = ["For scale, the same error with right-hand sides in Python:", common.markdown(slow)]
    common.report("small_solves", "Small solves at equal error", rows, notes)
    groups = {
        f"{r['problem']}, {r['method']}, {r['saved']}": {
            k[:-3]: v * 1e-6 for k, v in r.items() if k.endswith("µs") and v
        }
        for r in rows
    }
    common.bars("small_solves", "Small solves at equal error", groups)


if __name__ == "__main__":
    main()
