"""Compile time of a small solve (at most 0.4 of diffrax's) and of its gradient (at most 0.5).

A function never seen before, JAX's caches emptied, no cache on disk. Trace and compile apart. `warm` leaves what JAX
remembers of its own small functions, as for the second solve of a program. The ratio is that of processor seconds.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import common
import jax
import jax.numpy as jnp
import solvers
from problems import CASES, Case, fresh

REPEATS = 2
CONTESTANTS = {"ours": solvers.ours, "diffrax": solvers.diffrax}


def maker(case: Case, make: Callable, method: str, many: bool, gradient: bool) -> Callable:
    args = jnp.asarray(case.y0), jnp.asarray(case.p), jnp.asarray(1e-6)

    def build():
        run = make(fresh(case.f), method, case.t1, case.ts if many else None)
        if not gradient:
            return run, args
        return jax.grad(lambda p, y0, tol: jnp.sum(run(y0, p, tol) ** 2)), (args[1], args[0], args[2])

    return build


def contest(case: Case, method: str, many: bool, gradient: bool, cold: bool) -> dict:
    times: dict = {name: [] for name in CONTESTANTS}
    for _ in range(REPEATS):
        for name, make in CONTESTANTS.items():
            times[name].append(common.compile_seconds(maker(case, make, method, many, gradient), cold))
    totals = {name: [t[2] for t in values] for name, values in times.items()}
    share, target = common.ratio(totals, "ours", "diffrax"), 0.5 if gradient else 0.4
    row = {
        "problem": case.name,
        "method": method,
        "saved": 101 if many else 1,
        "what": "gradient" if gradient else "solve",
        "caches": "cold" if cold else "warm",
    }
    for name, values in times.items():
        row[f"{name} trace s"] = statistics.median(t[0] for t in values)
        row[f"{name} compile s"] = statistics.median(t[1] for t in values)
        row[f"{name} CPU s"] = statistics.median(t[2] for t in values)
    return {**row, "ours / diffrax": share, "target": target, "met": common.verdict(share, target)}


def main() -> None:
    small, *_, large = CASES
    plan = [(small, "Tsit5", many, g, True) for g in (False, True) for many in (False, True)]
    plan += [(small, "Tsit5", True, g, False) for g in (False, True)]
    plan += [(large, "Dopri8", False, False, True)]
    rows = common.gather(contest(*which) for which in plan)
    common.report("compile_time", "Time to trace and compile", rows)
    groups = {
        f"{r['problem']} {r['method']}, {r['what']}, {r['saved']} saved, {r['caches']}": {
            name: r[f"{name} CPU s"] for name in CONTESTANTS
        }
        for r in rows
    }
    common.bars("compile_time", "Time to trace and compile", groups)


if __name__ == "__main__":
    main()
