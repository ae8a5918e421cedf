"""How often f is traced: at most twice for a solve, three times more for its gradient, never again for new numbers."""

from __future__ import annotations

from collections.abc import Callable

import common
import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np
import solvers
from problems import CASES

CONTESTANTS = {"ours": solvers.ours, "diffrax": solvers.diffrax}
CASE = CASES[0]


class Counted:
    """f, and how often Python ran it."""

    def __init__(self):
        self.calls = 0

    def __call__(self, t, y, args):
        self.calls += 1
        return CASE.f(t, y, args)


def count(make: Callable, method: str, many: bool, gradient: bool) -> tuple[int, int]:
    """Traces of the first call, and of a second one with other tolerances, states and parameters."""
    counted = Counted()
    run = make(lambda t, y, args: counted(t, y, args), method, CASE.t1, CASE.ts if many else None)
    fun = jax.jit(
        jax.grad(lambda p, y0, tol: jnp.sum(run(y0, p, tol) ** 2)) if gradient else lambda p, y0, tol: run(y0, p, tol)
    )
    y0, p = jnp.asarray(CASE.y0), jnp.asarray(CASE.p)
    jax.block_until_ready(fun(p, y0, jnp.asarray(1e-6)))
    first = counted.calls
    jax.block_until_ready(fun(1.1 * p, 0.9 * y0, jnp.asarray(1e-5)))
    return first, counted.calls - first


def eager() -> dict:
    """A solve outside of `jit`, twice: the second with a new span, new times, Python floats for tolerances."""
    import jaxdiffeq as jde

    counted = Counted()
    f = lambda t, y, args: counted(t, y, args)
    problem = jde.ODEProblem(f, CASE.y0, (0.0, CASE.t1), CASE.p)
    jde.solve(problem, jde.Tsit5(), saveat=CASE.ts, rtol=1e-6)
    first = counted.calls
    jde.solve(problem, jde.Tsit5(), saveat=0.9 * CASE.ts, rtol=np.float64(1e-5), tspan=(0, 9.5))
    again = counted.calls - first
    counted.calls = 0
    term = dfx.ODETerm(f)
    for t1 in (CASE.t1, 0.9 * CASE.t1):
        peer = counted.calls
        control = dfx.PIDController(rtol=1e-6, atol=1e-8)
        saveat = dfx.SaveAt(ts=np.linspace(0, t1, 101))
        dfx.diffeqsolve(term, dfx.Tsit5(), 0.0, t1, None, CASE.y0, CASE.p, saveat=saveat, stepsize_controller=control)
    return {
        "what": "eager solve", "method": "Tsit5", "saved": 101, "ours": first, "ours, again": again,
        "diffrax": peer, "diffrax, again": counted.calls - peer, "target": 2, "met": common.verdict(first, 2),
    }  # fmt: skip


def contest(gradient: bool, many: bool) -> dict:
    row = {"what": "gradient" if gradient else "solve", "method": "Tsit5", "saved": 101 if many else 1}
    for name, make in CONTESTANTS.items():
        row[name], row[f"{name}, again"] = count(make, "Tsit5", many, gradient)
    target = 5 if gradient else 2
    return {**row, "target": target, "met": common.verdict(row["ours"] + 10 * row["ours, again"], target)}


def main() -> None:
    rows = common.gather(contest(*which) for which in ((False, True), (True, True), (False, False), (True, False)))
    rows += common.gather([eager()])
    common.report("traces", "How often f is traced", rows)
    groups = {f"{r['what']}, {r['method']}, {r['saved']}": {n: r[n] for n in CONTESTANTS} for r in rows}
    common.bars("traces", "Traces of f", groups, "traces")


if __name__ == "__main__":
    main()
