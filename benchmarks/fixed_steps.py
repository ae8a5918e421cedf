"""RK4 with 1000 equal steps: at most 1.15 of a hand-written `lax.scan`, forward and gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import common
import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np
import solvers
from jax import lax
from problems import CASES, Case

import jaxdiffeq as jde

STEPS = 1000


def by_hand(case: Case) -> Callable:
    def run(y0, p):
        dt = case.t1 / STEPS

        def step(y, i):
            t = i * dt
            k1 = case.f(t, y, p)
            k2 = case.f(t + dt / 2, y + dt / 2 * k1, p)
            k3 = case.f(t + dt / 2, y + dt / 2 * k2, p)
            k4 = case.f(t + dt, y + dt * k3, p)
            return y + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4), None

        return lax.scan(step, y0, jnp.arange(STEPS, dtype=y0.dtype))[0]

    return run


def ours(case: Case, **options) -> Callable:
    problem = jde.ODEProblem(case.f, 0.0, (0.0, case.t1))

    def run(y0, p):
        control, saveat = jde.FixedSteps(STEPS), jde.SaveAt(t1=True)
        return jde.solve(problem, jde.RK4(), y0=y0, args=p, controller=control, saveat=saveat, **options).ys[-1]

    return run


def diffrax(case: Case, adjoint=None) -> Callable:
    """diffrax has no RK4 of its own: the tableau in its classes."""
    a = tuple(np.array(row) for row in ([0.5], [0.0, 0.5], [0.0, 0.0, 1.0]))
    b = np.array([1, 2, 2, 1]) / 6
    table = dfx.ButcherTableau(a_lower=a, b_sol=b, b_error=np.zeros(4), c=np.array([0.5, 0.5, 1.0]))

    class RK4(dfx.AbstractERK):
        tableau = table
        interpolation_cls = dfx.ThirdOrderHermitePolynomialInterpolation.from_k

        def order(self, terms):
            return 4

    options = {"throw": False, "max_steps": STEPS + 1}
    if adjoint is not None:
        options["adjoint"] = adjoint

    def run(y0, p):
        term, dt = dfx.ODETerm(case.f), case.t1 / STEPS
        return dfx.diffeqsolve(term, RK4(), 0.0, case.t1, dt, y0, p, saveat=dfx.SaveAt(t1=True), **options).ys[-1]

    return run


def contest(case: Case, differentiate: bool) -> dict:
    makers = {"ours": ours(case), "scan": by_hand(case), "diffrax": diffrax(case)}
    if differentiate:
        makers["ours, all kept"] = ours(case, gradient=jde.ReverseAD(memory="all"))
    args = jnp.asarray(case.y0), jnp.asarray(case.p)
    runs, errors, sizes = {}, {}, {}
    exact = case.reference(np.array([case.t1]))[-1]
    for name, make in makers.items():
        fun = jax.grad(lambda y0, p, make=make: jnp.sum((make(y0, p) - 1) ** 2), argnums=1) if differentiate else make
        compiled, runs[name] = solvers.jitted(fun, *args)
        sizes[name] = common.loop_size(compiled)
        if differentiate:
            exact = np.asarray(runs["ours"]()) if name == "ours" else exact
        errors[name] = common.relative_error(runs[name](), exact)
    seconds = common.interleaved(runs)
    mid, share = common.medians(seconds), common.ratio(seconds, "ours", "scan")
    return {
        "problem": case.name,
        "what": "gradient" if differentiate else "forward",
        **{f"{name} µs": mid[name] * 1e6 for name in runs},
        "ours / scan": share,
        "≤ 1.15": common.verdict(share, 1.15),
        "ours / diffrax": common.ratio(seconds, "ours", "diffrax"),
        **({"ours, all kept / scan": common.ratio(seconds, "ours, all kept", "scan")} if differentiate else {}),
        "error of ours": None if differentiate else errors["ours"],
        "error of scan": None if differentiate else errors["scan"],
        "gradients differ by": errors["scan"] if differentiate else None,
        "loops in one call, ours / scan": f"{sizes['ours']['small_calls']} / {sizes['scan']['small_calls']}",
    }


def main() -> None:
    rows = common.gather(
        contest(case, g) for case in (CASES[0], CASES[1], replace(CASES[3], t1=1.0)) for g in (False, True)
    )
    common.report("fixed_steps", "RK4, 1000 equal steps", rows)
    groups = {
        f"{r['problem']}, {r['what']}": {k[:-3]: v * 1e-6 for k, v in r.items() if k.endswith("µs")} for r in rows
    }
    common.bars("fixed_steps", "RK4, 1000 equal steps", groups)


if __name__ == "__main__":
    main()
