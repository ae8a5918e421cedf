"""Stiff problems at equal error: at most a thirtieth of diffrax's time, no more than LSODA's on most and twice on the
worst, BDF at most 1.3 times CVODE's calls of f.

Work–precision at three errors: every contestant gets the loosest tolerance on a grid at which it is right to that
error, relative and component by component; the best of ours is compared with the best of diffrax, and with LSODA
compiled, its f by numba. CVODE calls f in Python, so only its calls are compared, those for Jacobians aside. Also: the
compile time, the gradient's time over the solve's, and what the structure of a Jacobian is worth. Timed programs return
the state at the end and nothing else: to hand out a whole solution, ours or diffrax's, costs more than the cheapest of
these solves. With 100 states ours are told to find the pattern of the Jacobian in f, `Detected()`; the others' are
dense.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import common
import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np
from lsoda import lsoda
from scipy.integrate import solve_ivp

import jaxdiffeq as jde

TARGETS = (1e-3, 1e-5, 1e-7)
GRID = 10.0 ** np.arange(-2.0, -11.1, -0.5)
OURS = {
    "Rodas3P": jde.Rodas3P,
    "Rodas4": jde.Rodas4,
    "Rodas5P": jde.Rodas5P,
    "Kvaerno5": jde.Kvaerno5,
    "RadauIIA5": jde.RadauIIA5,
    "BDF": jde.BDF,
}
DIFFRAX = {"Kvaerno3": dfx.Kvaerno3, "Kvaerno5": dfx.Kvaerno5}


class Problem(NamedTuple):
    f: Callable
    y0: np.ndarray
    p: np.ndarray
    t1: float
    atol: float
    """over rtol"""


def robertson(t, y, p):
    a, b, c = y
    slow, fast, back = p[0] * a, p[1] * b * b, p[2] * b * c
    return jnp.stack([-slow + back, slow - back - fast, fast])


def hires(t, y, p):
    r, s = p[0] * y[5] * y[7], p[1] * y[6]
    return jnp.stack(
        [
            -1.71 * y[0] + 0.43 * y[1] + 8.32 * y[2] + 0.0007,
            1.71 * y[0] - 8.75 * y[1],
            -10.03 * y[2] + 0.43 * y[3] + 0.035 * y[4],
            8.32 * y[1] + 1.71 * y[2] - 1.12 * y[3],
            -1.745 * y[4] + 0.43 * y[5] + 0.43 * y[6],
            -r + 0.69 * y[3] + 1.71 * y[4] - 0.43 * y[5] + 0.69 * y[6],
            r - s,
            s - r,
        ]
    )


def van_der_pol(t, y, p):
    return jnp.stack([y[1], p[0] * (1 - y[0] ** 2) * y[1] - y[0]])


def oregonator(t, y, p):
    a, b, c = y
    return jnp.stack([p[0] * (b + a * (1 - p[1] * a - b)), (c - (1 + a) * b) / p[0], p[2] * (a - c)])


def e5(t, y, p):
    a, b = p[0] * y[0], p[1] * y[0] * y[2]
    c, d = p[2] * y[1] * y[2], p[3] * y[3]
    return jnp.stack([-a - b, a - c, a - b - c + d, b - d])


def brusselator(t, y, p):
    """In one dimension, u and v by turns: a band of two on either side."""
    u, v = y[0::2], y[1::2]
    n = u.size
    spread = p[0] * (n + 1) ** 2

    def diffused(x, edge):
        return spread * (
            jnp.pad(x[1:], (0, 1), constant_values=edge) - 2 * x + jnp.pad(x[:-1], (1, 0), constant_values=edge)
        )

    du = 1 + u * u * v - 4 * u + diffused(u, 1.0)
    dv = 3 * u - u * u * v + diffused(v, 3.0)
    return jnp.stack([du, dv], axis=1).reshape(-1)


def brusselator_start(n: int) -> np.ndarray:
    x = np.arange(1, n + 1) / (n + 1)
    return np.stack([1 + np.sin(2 * np.pi * x), np.full(n, 3.0)], axis=1).reshape(-1)


ROBERTSON = np.array([0.04, 3e7, 1e4])
PROBLEMS = {
    "Robertson, t = 1e5": Problem(robertson, np.array([1.0, 0, 0]), ROBERTSON, 1e5, 1e-5),
    "Robertson, t = 1e11": Problem(robertson, np.array([1.0, 0, 0]), ROBERTSON, 1e11, 1e-9),
    "HIRES": Problem(hires, np.array([1.0, 0, 0, 0, 0, 0, 0, 0.0057]), np.array([280.0, 1.81]), 321.8122, 1e-4),
    "Van der Pol, μ = 1000": Problem(van_der_pol, np.array([2.0, 0.0]), np.array([1000.0]), 2000.0, 1e-3),
    "Oregonator": Problem(oregonator, np.array([1.0, 2.0, 3.0]), np.array([77.27, 8.375e-6, 0.161]), 360.0, 1e-3),
    "E5, t = 1e5": Problem(e5, np.array([1.76e-3, 0, 0, 0]), np.array([7.89e-10, 1.1e7, 1.13e9, 1.13e3]), 1e5, 1e-18),
    "Brusselator, 100 states": Problem(brusselator, brusselator_start(50), np.array([0.02]), 10.0, 1e-2),
}


def componentwise(found: Any, exact: np.ndarray) -> float:
    error = np.abs(np.asarray(found) - exact) / np.abs(exact)
    return float(np.max(error)) if np.all(np.isfinite(error)) else np.inf


def reference(problem: Problem) -> np.ndarray:
    """SciPy's Radau as tight as it goes."""
    f = jax.jit(problem.f)
    jac = jax.jit(jax.jacfwd(problem.f, argnums=1))
    wrapped = [lambda t, y, g=g: np.asarray(g(t, y, problem.p)) for g in (f, jac)]
    span, start = (0.0, problem.t1), problem.y0
    sol = solve_ivp(wrapped[0], span, start, "Radau", jac=wrapped[1], rtol=1e-12, atol=1e-12 * problem.atol)
    return sol.y[:, -1]


def ours(problem: Problem, method: Any, **options: Any) -> Callable:
    stated = jde.ODEProblem(problem.f, jnp.asarray(problem.y0), (0.0, problem.t1), jnp.asarray(problem.p), **options)

    def run(tol, p):
        return jde.solve(stated, method, args=p, saveat=jde.SaveAt(t1=True), rtol=tol, atol=problem.atol * tol)

    return run


def diffrax(problem: Problem, solver: Any) -> Callable:
    def run(tol, p):
        control = dfx.PIDController(rtol=tol, atol=problem.atol * tol)
        y0 = jnp.asarray(problem.y0)
        return dfx.diffeqsolve(
            dfx.ODETerm(problem.f),
            solver,
            0.0,
            problem.t1,
            None,
            y0,
            p,
            saveat=dfx.SaveAt(t1=True),
            stepsize_controller=control,
            max_steps=100_000,
            throw=False,
        )

    return run


def loosest(run: Callable, p: Any, exact: np.ndarray) -> dict[float, tuple[float, float]]:
    """For each target the loosest tolerance that reaches it, and the error there."""
    found = {}
    for tol in GRID:
        error = componentwise(run(jnp.asarray(tol), p), exact)
        for target in TARGETS:
            if error <= target and target not in found:
                found[target] = float(tol), error
        if len(found) == len(TARGETS):
            break
    return found


def contest(name: str):
    problem = PROBLEMS[name]
    exact, p = reference(problem), jnp.asarray(problem.p)
    runs, reached, seconds_to_compile = {}, {}, {}
    pattern = jde.Detected() if problem.y0.size > 24 else None
    candidates = {f"ours {who}": ours(problem, make(), jac_structure=pattern) for who, make in OURS.items()}
    candidates |= {f"diffrax {who}": diffrax(problem, make()) for who, make in DIFFRAX.items()}
    for who, make in candidates.items():
        seconds_to_compile[who] = sum(
            common.compile_seconds(lambda make=make: (make, (jnp.asarray(1e-3), p)), False)[:2]
        )
        runs[who] = jax.jit(lambda tol, p, make=make: make(tol, p).ys[-1])
        reached[who] = loosest(runs[who], p, exact)
    compiled = lsoda(problem)
    if compiled is not None:
        runs["LSODA"], reached["LSODA"] = compiled, loosest(compiled, p, exact)
    for target in TARGETS:
        here = {who: r[target] for who, r in reached.items() if target in r}
        # now, and once: to make an array takes longer than a small solve
        tols = {who: tol if who == "LSODA" else jnp.asarray(tol) for who, (tol, _) in here.items()}
        calls = {who: (lambda who=who, tol=tol: runs[who](tol, p)) for who, tol in tols.items()}
        seconds = common.interleaved(calls, 11, 5e-3)
        median = common.medians(seconds)
        best = {
            side: min((w for w in here if w.startswith(side)), key=median.get, default=None)
            for side in ("ours", "diffrax")
        }
        row = {"problem": name, "error ≤": target}
        for side, who in best.items():
            row |= {
                side: who and who.split()[1],
                f"{side} µs": who and median[who] * 1e6,
                f"{side} error": who and here[who][1],
            }
        both = all(best.values())
        row["ours / diffrax"] = common.ratio(seconds, best["ours"], best["diffrax"]) if both else None
        row["≤ 1/30"] = common.verdict(row["ours / diffrax"], 1 / 30) if both else None
        if "LSODA" in here:
            row |= {"LSODA µs": median["LSODA"] * 1e6, "LSODA error": here["LSODA"][1]}
            row["ours / LSODA"] = common.ratio(seconds, best["ours"], "LSODA") if best["ours"] else None
            row["≤ 2"] = common.verdict(row["ours / LSODA"], 2) if best["ours"] else None
        row |= cvode(problem, exact, target, reached["ours BDF"], candidates["ours BDF"], p)
        kv = seconds_to_compile
        row["compile, Kvaerno5 ours / diffrax"] = kv["ours Kvaerno5"] / kv["diffrax Kvaerno5"]
        yield row


def cvode(problem: Problem, exact: np.ndarray, target: float, reached: dict, run: Callable, p: Any) -> dict:
    """Calls of f by CVODE and by our BDF, those for Jacobians aside, where both are right to the target."""
    try:
        from sksundae.cvode import CVODE
    except ImportError:
        return {}
    if target not in reached:
        return {"BDF f calls": None, "CVODE f calls": None, "BDF / CVODE": None}
    f = jax.jit(problem.f)
    jac = jax.jit(jax.jacfwd(problem.f, argnums=1))

    def right(t, y, out):
        out[:] = f(t, y, problem.p)

    def jacobian(t, y, yp, out):
        out[:, :] = jac(t, y, problem.p)

    for tol in GRID:
        solver = CVODE(right, rtol=tol, atol=problem.atol * tol, method="BDF", jacfn=jacobian, max_num_steps=100_000)
        sol = solver.solve(np.array([0.0, problem.t1]), problem.y0)
        if sol.success and componentwise(sol.y[-1], exact) <= target:
            stats = jax.jit(run)(jnp.asarray(reached[target][0]), p).stats
            calls = int(stats.f_evals - stats.jac_evals)
            return {"BDF f calls": calls, "CVODE f calls": int(sol.nfev), "BDF / CVODE": calls / int(sol.nfev)}
    return {"BDF f calls": None, "CVODE f calls": None, "BDF / CVODE": None}


def gradients():
    for name in ("Robertson, t = 1e5", "HIRES"):
        for who in ("Rodas5P", "Kvaerno5"):
            problem = PROBLEMS[name]
            run, p, tol = ours(problem, OURS[who]()), jnp.asarray(problem.p), jnp.asarray(1e-6)
            forward = jax.jit(lambda p, run=run, tol=tol: run(tol, p).ys[-1, 0])
            backward = jax.jit(jax.value_and_grad(lambda p, run=run, tol=tol: run(tol, p).ys[-1, 0]))
            seconds = common.interleaved(
                {"forward": lambda f=forward, p=p: f(p), "gradient": lambda g=backward, p=p: g(p)}, 15
            )
            over = common.ratio(seconds, "gradient", "forward")
            median = common.medians(seconds)
            yield {
                "problem": name,
                "method": who,
                "forward µs": median["forward"] * 1e6,
                "gradient µs": median["gradient"] * 1e6,
                "gradient / forward": over,
                "≤ 5": common.verdict(over, 5),
            }


def structures():
    for states in (20, 100, 500):
        problem = Problem(brusselator, brusselator_start(states // 2), np.array([0.02]), 10.0, 1e-2)
        p, tol = jnp.asarray(problem.p), jnp.asarray(1e-5)
        runs = {
            "dense": jax.jit(ours(problem, jde.Rodas4())),
            "banded": jax.jit(ours(problem, jde.Rodas4(), jac_structure=jde.Banded(2, 2))),
        }
        seconds = common.interleaved({k: lambda r=r, p=p, tol=tol: r(tol, p) for k, r in runs.items()}, 5)
        apart = componentwise(runs["dense"](tol, p).ys[-1], np.asarray(runs["banded"](tol, p).ys[-1]))
        median = common.medians(seconds)
        yield {
            "states": states,
            "dense ms": median["dense"] * 1e3,
            "banded ms": median["banded"] * 1e3,
            "dense / banded": common.ratio(seconds, "dense", "banded"),
            "they differ by": apart,
        }


def ensembles():
    """Cells that do not see each other, each with its rates: one system with a block-diagonal Jacobian, or lanes."""
    for cells in (333, 3333):
        rates = jnp.asarray(ROBERTSON) * jnp.asarray(np.random.default_rng(0).uniform(0.8, 1.2, (cells, 3)))
        start = np.tile([1.0, 0.0, 0.0], cells)

        def together(t, y, p):
            return jax.vmap(robertson, (None, 0, 0))(t, y.reshape(-1, 3), p).reshape(-1)

        def whole(p, together=together, start=start):
            problem = Problem(together, start, p, 40.0, 1e-5)
            return ours(problem, jde.Rodas4(), jac_structure=jde.BlockDiagonal(3))(1e-5, p).ys[-1]

        one = ours(PROBLEMS["Robertson, t = 1e5"]._replace(t1=40.0), jde.Rodas4())
        runs = {"system": jax.jit(whole), "lanes": jax.jit(jax.vmap(lambda p, one=one: one(1e-5, p).ys[-1]))}
        seconds = common.interleaved({k: lambda r=r, p=rates: r(p) for k, r in runs.items()}, 5)
        apart = componentwise(runs["system"](rates), np.asarray(runs["lanes"](rates)).reshape(-1))
        median = common.medians(seconds)
        over = common.ratio(seconds, "system", "lanes")
        yield {
            "unknowns": 3 * cells,
            "system ms": median["system"] * 1e3,
            "lanes ms": median["lanes"] * 1e3,
            "system / lanes": over,
            "≤ 2": common.verdict(over, 2),
            "they differ by": apart,
        }


def main() -> None:
    rows = common.gather(row for name in PROBLEMS for row in contest(name))
    slopes = common.gather(gradients())
    bands = common.gather(structures())
    notes = ["Gradient of the first component with respect to all parameters, over the solve:", common.markdown(slopes)]
    cells = common.gather(ensembles())
    notes += ["Robertson's cells to t = 40 by Rodas4, one block-diagonal system or lanes:", common.markdown(cells)]
    notes += ["Rodas4 on the Brusselator, rtol 1e-5, dense or banded:", common.markdown(bands)]
    common.report("stiff", "Stiff problems at equal error", rows, notes)
    groups = {
        f"{r['problem']}, {r['error ≤']:.0e}": {
            side: r[f"{side} µs"] * 1e-6 for side in ("ours", "diffrax") if r[f"{side} µs"]
        }
        for r in rows
    }
    common.bars("stiff", "Stiff problems at equal error", groups)


if __name__ == "__main__":
    main()
