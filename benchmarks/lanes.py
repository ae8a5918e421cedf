"""Many solves at once under `vmap`, and their gradients: Lotka–Volterra by Tsit5 from as many parameters as lanes.

101 saved times, at the tolerance where the solve of one lane reaches the target error; the error shown is the largest
of all lanes. What a lane costs falls with their number until the arrays leave the kernel, and then the caches.
"""

from __future__ import annotations

import functools

import common
import jax
import jax.numpy as jnp
import numpy as np
import solvers
from problems import CASES

LANES = (1, 10, 100, 1000)
GRID = np.logspace(-5, -9, 9)
CASE = next(case for case in CASES if case.name == "Lotka–Volterra")
CONTESTANTS = {"ours": solvers.ours, "diffrax": solvers.diffrax}


@functools.cache
def tolerance(name: str) -> float:
    run = CONTESTANTS[name](CASE.f, "Tsit5", CASE.t1, CASE.ts)
    forward, _ = solvers.jitted(run, jnp.asarray(CASE.y0), jnp.asarray(CASE.p), jnp.asarray(1e-6))
    exact = CASE.reference(CASE.ts)

    def error(tol):
        return common.relative_error(forward(jnp.asarray(CASE.y0), jnp.asarray(CASE.p), jnp.asarray(tol)), exact)

    return common.tolerance_for(error, CASE.target, GRID)[0]


def contest(lanes: int, gradient: bool) -> dict:
    ps = jnp.asarray(CASE.p) * jnp.linspace(0.9, 1.1, lanes)[:, None]
    y0 = jnp.asarray(CASE.y0)
    runs, found = {}, {}
    for name, make in CONTESTANTS.items():
        solve = make(CASE.f, "Tsit5", CASE.t1, CASE.ts)
        tol = jnp.asarray(tolerance(name))
        one = lambda p, tol, solve=solve: solve(y0, p, tol)
        if gradient:
            one = jax.grad(lambda p, tol, solve=solve: jnp.sum((solve(y0, p, tol) - 1) ** 2))
        compiled, _ = solvers.jitted(jax.vmap(one, (0, None)), ps, tol)
        found[name] = np.asarray(compiled(ps, tol))
        runs[name] = lambda compiled=compiled, tol=tol: compiled(ps, tol)
    exact = np.asarray(jax.jit(jax.vmap(exactly(gradient)))(ps))
    seconds = common.interleaved(runs, 15)
    middle = common.medians(seconds)
    return {
        "what": "gradient" if gradient else "solve",
        "lanes": lanes,
        **{f"{name} µs a lane": middle[name] * 1e6 / lanes for name in runs},
        **{f"{name} error": common.relative_error(found[name], exact) for name in runs},
        "ours / diffrax": common.ratio(seconds, "ours", "diffrax"),
    }


def exactly(gradient: bool):
    solve = solvers.ours(CASE.f, "Dopri8", CASE.t1, CASE.ts, stops=CASE.ts[1:-1])
    run = lambda p: solve(jnp.asarray(CASE.y0), p, 1e-12)
    return jax.grad(lambda p: jnp.sum((run(p) - 1) ** 2)) if gradient else run


def main() -> None:
    rows = common.gather(contest(lanes, gradient) for gradient in (False, True) for lanes in LANES)
    common.report("lanes", "Solves under vmap", rows)
    groups = {f"{r['what']}, {r['lanes']}": {name: r[f"{name} µs a lane"] * 1e-6 for name in CONTESTANTS} for r in rows}
    common.bars("lanes", "Solves under vmap", groups, "seconds a lane")


if __name__ == "__main__":
    main()
