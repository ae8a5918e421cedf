"""Large systems: the Brusselator on a periodic grid (1000 states), 100 bodies (600 states); solve and gradient.

At equal achieved error. The diffusion is small enough for an explicit method.
"""

from __future__ import annotations

import common
import jax
import jax.numpy as jnp
import numpy as np
import solvers
from problems import bodies, bodies_start, brusselator, brusselator_start
from scipy.integrate import solve_ivp

GRID = np.logspace(-4, -7, 4)
TARGET = 1e-5


def systems() -> dict[str, tuple]:
    """name ↦ f, y0, p, t1"""
    masses = np.full(100, 0.01)
    return {
        "Brusselator, 1000 states": (brusselator, brusselator_start(500), np.array([1.0, 3.0, 2e-4]), 2.0),
        "100 bodies, 600 states": (bodies, bodies_start(100), masses, 2.0),
    }


def contest(name: str, method: str) -> dict:
    f, y0, p, t1 = systems()[name]
    fast = jax.jit(lambda t, y: f(t, y.reshape(y0.shape), p).reshape(-1))
    with_jax = lambda t, y: np.asarray(fast(t, y))
    exact = solve_ivp(with_jax, (0, t1), y0.ravel(), "DOP853", rtol=1e-11, atol=1e-12).y[:, -1].reshape(y0.shape)
    y0, p = jnp.asarray(y0), jnp.asarray(p)
    runs, errors = {}, {}
    for who, make in (("ours", solvers.ours), ("diffrax", solvers.diffrax)):
        solve = make(f, method, t1)
        compiled, _ = solvers.jitted(solve, y0, p, jnp.asarray(1e-6))

        def at(tol, compiled=compiled):
            return common.relative_error(compiled(y0, p, jnp.asarray(tol))[-1], exact)

        tol, errors[who] = common.tolerance_for(at, TARGET, GRID, 7)
        tol = jnp.asarray(tol)
        runs[f"{who} solve"] = lambda compiled=compiled, tol=tol: compiled(y0, p, tol)
        gradient = jax.grad(lambda p, y0, tol, solve=solve: jnp.sum(solve(y0, p, tol) ** 2))
        pulled, _ = solvers.jitted(gradient, p, y0, tol)
        runs[f"{who} gradient"] = lambda pulled=pulled, tol=tol: pulled(p, y0, tol)
    scipy = lambda: solve_ivp(with_jax, (0, t1), y0.ravel(), "DOP853", rtol=1e-5, atol=1e-7).y[:, -1]
    errors["SciPy DOP853"] = common.relative_error(scipy().reshape(y0.shape), exact)
    runs["SciPy DOP853 solve"] = scipy
    seconds = common.interleaved(runs, 7)
    return {
        "system": name,
        "method": method,
        **{f"{who} ms": s * 1e3 for who, s in common.medians(seconds).items()},
        **{f"{who} error": e for who, e in errors.items()},
        "solve, ours / diffrax": common.ratio(seconds, "ours solve", "diffrax solve"),
        "gradient, ours / diffrax": common.ratio(seconds, "ours gradient", "diffrax gradient"),
    }


def main() -> None:
    rows = common.gather(contest(name, method) for name in systems() for method in ("Tsit5", "Dopri8"))
    common.report("large", "Large systems at equal error", rows)
    groups = {
        f"{r['system']}, {r['method']}": {k[:-3]: v * 1e-3 for k, v in r.items() if k.endswith(" ms")} for r in rows
    }
    common.bars("large", "Large systems at equal error", groups)


if __name__ == "__main__":
    main()
