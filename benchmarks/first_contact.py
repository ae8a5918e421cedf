"""What a newcomer meets first: time to compile, the method that nobody chose, an eager call, a second process.

`python benchmarks/first_contact.py [compile default stiff eager larger cache]`: those tables, or all. Compile time is
that of the processor, for a loss over 101 saved times, caches emptied, in turns with diffrax. Run times are those of
compiled programs at equal error: each contestant gets the loosest tolerance on a grid at which it is right to that
error, and of several methods the fastest counts.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import common
import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np
from problems import CASES, fresh
from stiff import PROBLEMS as STIFF
from stiff import componentwise
from stiff import reference as stiff_reference

import jaxdiffeq as jde

REPEATS, ROUNDS = 2, 11
GRID = 10.0 ** np.arange(-2.0, -13.1, -0.5)
ATOL = 1e-2  # over rtol
EXPLICIT = {"Tsit5": jde.Tsit5, "Vern7": jde.Vern7, "Vern9": jde.Vern9}
IMPLICIT = {"Rodas4": jde.Rodas4, "Rodas5P": jde.Rodas5P, "Kvaerno5": jde.Kvaerno5, "BDF": jde.BDF}
PEERS = {"Tsit5": dfx.Tsit5, "Dopri8": dfx.Dopri8}
TIMES = np.linspace(0.0, 10.0, 101)


class Problem(NamedTuple):
    f: Callable
    y0: Any
    p: Any
    t1: float


def row(table: str, case: str, ours: Any, theirs: Any, share: float, target: float) -> dict[str, Any]:
    names = {"table": table, "case": case, "ours s": ours, "theirs s": theirs, "ratio": share}
    return {**names, "at most": target, "met": common.verdict(share, target)}


# ---- time to compile


def network(t, y, w):
    *hidden, (m, b) = w
    for k, c in hidden:
        y = jnp.tanh(y @ k + c)
    return y @ m + b


def weights() -> list:
    rng, sizes = np.random.default_rng(0), (2, 50, 50, 2)
    return [(jnp.asarray(rng.normal(size=s) / s[0] ** 0.5), jnp.zeros(s[1])) for s in itertools.pairwise(sizes)]


def loss_of(f: Callable, method: Any, p: Any) -> Callable:
    """p ↦ the loss, by a method of ours or of diffrax, or without one."""
    y0 = jnp.ones(2)

    def ours(p):
        problem = jde.ODEProblem(f, y0, (0.0, 10.0), p)
        return jnp.sum(jde.solve(problem, method, saveat=TIMES, rtol=1e-6, atol=1e-6).ys ** 2)

    def theirs(p):
        control, saveat = dfx.PIDController(rtol=1e-6, atol=1e-6), dfx.SaveAt(ts=TIMES)
        how = {"saveat": saveat, "stepsize_controller": control, "throw": False}
        return jnp.sum(dfx.diffeqsolve(dfx.ODETerm(f), method, 0.0, 10.0, None, y0, p, **how).ys ** 2)

    return theirs if isinstance(method, dfx.AbstractSolver) else ours


def compile_times() -> Iterator[dict]:
    lotka = CASES[0].f, jnp.asarray(CASES[0].p)
    nearest = {"Tsit5": dfx.Tsit5(), "Vern7": dfx.Dopri8(), "Vern9": dfx.Dopri8(), "none given": dfx.Tsit5()}
    methods = {"Tsit5": jde.Tsit5(), "Vern7": jde.Vern7(), "Vern9": jde.Vern9(), "none given": None}
    implicit = {"Rodas5P": (jde.Rodas5P(), dfx.Kvaerno5())}
    pairs = {name: (methods[name], nearest[name]) for name in methods}
    for name, (f, p), share, cases in (
        ("Lotka–Volterra", lotka, 0.5, pairs),
        ("network 2-50-50-2", (network, weights()), 0.7, pairs | implicit),
    ):
        for method, both in cases.items():
            for what in ("solve", "gradient"):
                used = [[_compiled(f, m, p, what) for m in both] for _ in range(REPEATS)]
                ours, theirs = (statistics.median(column) for column in zip(*used, strict=True))
                target = 1.0 if both[0] is None else share
                yield row("compile", f"{name}, {method}, {what}", ours, theirs, ours / theirs, target)


def _compiled(f: Callable, method: Any, p: Any, what: str) -> float:
    def make():
        loss = loss_of(fresh(f), method, p)
        return (jax.grad(loss) if what == "gradient" else loss), (p,)

    return common.compile_seconds(make)[2]


# ---- the method that nobody chose


def van_der_pol(t, y, p):
    return jnp.stack([y[1], p[0] * (1 - y[0] ** 2) * y[1] - y[0]])


def kepler(t, y, p):
    r2 = y[0] ** 2 + y[1] ** 2
    r3 = r2 * jnp.sqrt(r2)
    return jnp.stack([y[2], y[3], -y[0] / r3, -y[1] / r3])


def pendulum(t, y, p):
    return jnp.stack([y[1], -p[0] * jnp.sin(y[0])])


def rigid_body(t, y, p):
    return jnp.stack([p[0] * y[1] * y[2], p[1] * y[0] * y[2], p[2] * y[0] * y[1]])


def oscillators(t, y, p):
    """A ring of them, each with its neighbours. Shapes: y [2·n], places and velocities."""
    x, v = y.reshape(2, -1)
    return jnp.concatenate([v, -x + p[0] * (jnp.roll(x, 1) - 2 * x + jnp.roll(x, -1))])


def orbit(e: float, turns: float) -> Problem:
    return Problem(kepler, np.array([1 - e, 0, 0, ((1 + e) / (1 - e)) ** 0.5]), np.ones(1), 2 * np.pi * turns)


def ring(n: int) -> Problem:
    return Problem(oscillators, np.random.default_rng(0).normal(size=2 * n), np.ones(1), 20.0)


NONSTIFF = {case.name: Problem(case.f, case.y0, case.p, case.t1) for case in CASES} | {
    "Van der Pol, μ = 1": Problem(van_der_pol, np.array([2.0, 0.0]), np.ones(1), 20.0),
    "Kepler, e = 0.5": orbit(0.5, 3.3),
    "pendulum": Problem(pendulum, np.array([3.0, 0.0]), np.array([9.81]), 10.0),
    "rigid body": Problem(rigid_body, np.array([0.0, 1.0, 0.9]), np.array([1.0, -1.0, -0.51]), 20.0),
}
LARGER = {
    "Pleiades": NONSTIFF["Pleiades"],
    "Kepler, e = 0.9": orbit(0.9, 3.3),
    "three bodies": NONSTIFF["Arenstorf"],
    "100 oscillators": ring(100),
    "1000 oscillators": ring(1000),
}


def ours(problem: Problem, method: Any, atol: float = ATOL, **options: Any) -> Callable:
    stated = jde.ODEProblem(problem.f, jnp.asarray(problem.y0), (0.0, problem.t1), **options)

    def run(tol, p):
        end = jde.SaveAt(t1=True)
        return jde.solve(stated, method, args=p, saveat=end, rtol=tol, atol=atol * tol, throw=False).ys[-1]

    return run


def theirs(problem: Problem, solver: Any) -> Callable:
    def run(tol, p):
        control = dfx.PIDController(rtol=tol, atol=ATOL * tol)
        how = {"saveat": dfx.SaveAt(t1=True), "stepsize_controller": control, "max_steps": 100_000, "throw": False}
        y0, term = jnp.asarray(problem.y0), dfx.ODETerm(problem.f)
        return dfx.diffeqsolve(term, solver, 0.0, problem.t1, None, y0, p, **how).ys[-1]

    return run


def at_any(run: Callable, p: Any) -> Callable:
    """tol ↦ a call: one program for all tolerances."""
    compiled = jax.jit(run)

    def at(tol):
        tol = jnp.asarray(tol)
        return lambda: compiled(tol, p)

    return at


def at_each(run: Callable, p: Any) -> Callable:
    """tol ↦ a call: a program for each, as the tolerance chooses the method."""

    def at(tol):
        compiled = jax.jit(lambda p: run(float(tol), p))
        return lambda: compiled(p)

    return at


def contest(sides: dict[str, dict[str, Callable]], error: Callable, targets: tuple) -> Iterator[tuple]:
    """Of each target the best of both sides in time: names, seconds, and the ratio."""
    found = {(side, who): _loosest(at, error, targets) for side, all_of in sides.items() for who, at in all_of.items()}
    for target in targets:
        calls = {key: calls[target] for key, calls in found.items() if target in calls}
        seconds = common.interleaved({str(k): call for k, call in calls.items()}, ROUNDS)
        median = common.medians(seconds)
        best = [min((k for k in calls if k[0] == side), key=lambda k: median[str(k)], default=None) for side in sides]
        if None not in best:
            a, b = map(str, best)
            yield target, best, median[a], median[b], common.ratio(seconds, a, b)


def _loosest(at: Callable, error: Callable, targets: tuple) -> dict[float, Callable]:
    found: dict[float, Callable] = {}
    for tol in GRID:
        call = at(tol)
        off = error(call())
        found |= {target: call for target in targets if target not in found and off <= target}
        if len(found) == len(targets):
            break
    return found


def default_method() -> Iterator[dict]:
    for name, problem in NONSTIFF.items():
        p = jnp.asarray(problem.p)
        exact = at_any(ours(problem, jde.Vern9()), p)(3e-14)()
        sides = {
            "none": {"none": at_each(ours(problem, None), p)},
            "best": {who: at_any(ours(problem, make()), p) for who, make in EXPLICIT.items()},
        }
        yield from _against_best("default, not stiff", name, sides, lambda y, x=exact: common.relative_error(y, x), 1.6)


def default_stiff() -> Iterator[dict]:
    for name, problem in STIFF.items():
        p, exact = jnp.asarray(problem.p), stiff_reference(problem)
        stated = Problem(problem.f, problem.y0, problem.p, problem.t1)
        known = {"jac_structure": jde.Detected()} if problem.y0.size > 24 else {}
        of = lambda method, stated=stated, a=problem.atol, known=known: ours(stated, method, a, **known)
        sides = {
            "none": {"none": at_each(of(None), p)},
            "best": {who: at_any(of(make()), p) for who, make in IMPLICIT.items()},
        }
        yield from _against_best("default, stiff", name, sides, lambda y, x=exact: componentwise(y, x), 2.5)


def _against_best(table: str, name: str, sides: dict, error: Callable, target: float) -> Iterator[dict]:
    for at, (_, best), a, b, share in contest(sides, error, (1e-3, 1e-6)):
        yield row(table, f"{name}, error ≤ {at:g}, best {best[1]}", a, b, share, target)


def larger() -> Iterator[dict]:
    for name, problem in LARGER.items():
        p = jnp.asarray(problem.p)
        exact = at_any(ours(problem, jde.Vern9()), p)(3e-14)()
        sides = {
            "ours": {who: at_any(ours(problem, make()), p) for who, make in EXPLICIT.items()},
            "diffrax": {who: at_any(theirs(problem, make()), p) for who, make in PEERS.items()},
        }
        error = lambda y, x=exact: common.relative_error(y, x)
        for at, (a, b), mine, peers, share in contest(sides, error, (1e-4, 1e-7, 1e-9)):
            yield row("against diffrax", f"{name}, error ≤ {at:g}, {a[1]} and {b[1]}", mine, peers, share, 0.9)


# ---- an eager call, and a second process


def eager() -> Iterator[dict]:
    case = CASES[0]
    y0, p = jnp.asarray(case.y0), jnp.asarray(case.p)
    problem, control = jde.ODEProblem(case.f, y0, (0.0, 10.0), p), dfx.PIDController(rtol=1e-3, atol=1e-6)

    def mine(saveat):
        return jde.solve(problem, jde.Tsit5(), saveat=saveat).ys

    def peers(saveat):
        how = {"saveat": saveat, "stepsize_controller": control}
        return dfx.diffeqsolve(dfx.ODETerm(case.f), dfx.Tsit5(), 0.0, 10.0, None, y0, p, **how).ys

    wanted = {"at t1": (jde.SaveAt(t1=True), dfx.SaveAt(t1=True)), "101 times": (TIMES, dfx.SaveAt(ts=TIMES))}
    for what, (a, b) in wanted.items():
        seconds = common.interleaved({"ours": lambda a=a: mine(a), "diffrax": lambda b=b: peers(b)}, 31)
        median = common.medians(seconds)
        yield row("eager", what, median["ours"], median["diffrax"], common.ratio(seconds, "ours", "diffrax"), 0.7)


def cache() -> Iterator[dict]:
    for method in ("Tsit5", "None"):
        with tempfile.TemporaryDirectory() as folder:
            settings = {"JAX_COMPILATION_CACHE_DIR": folder, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
            settings |= {"JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1", "JAX_ENABLE_X64": "1"}
            command = [sys.executable, __file__, "--child", method]
            env = {**os.environ, **settings}
            first, second = (
                json.loads(subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout)
                for _ in range(2)
            )
        for what in first:
            share = second[what] / first[what]
            yield row("second process", f"Lotka–Volterra, {method}, {what}", second[what], first[what], share, 0.35)


def child(method: str) -> None:
    """Processor seconds of the first solve and gradient, and of the second solve of another f, which is mostly ours."""
    jax.config.update("jax_enable_compilation_cache", True)
    p = jnp.asarray(CASES[0].p)
    jax.block_until_ready(jax.jit(lambda p: p + 1)(p))
    loss = loss_of(CASES[0].f, None if method == "None" else getattr(jde, method)(), p)
    start = time.process_time()
    jax.block_until_ready(jax.jit(loss)(p))
    middle = time.process_time()
    jax.block_until_ready(jax.jit(jax.grad(loss))(p))
    print(json.dumps({"solve": middle - start, "gradient": time.process_time() - middle}))


TABLES = {
    "compile": compile_times,
    "default": default_method,
    "stiff": default_stiff,
    "eager": eager,
    "larger": larger,
    "cache": cache,
}


def main() -> None:
    chosen = sys.argv[1:] or list(TABLES)
    rows = common.gather(row for name in chosen for row in TABLES[name]())
    kept = common.RESULTS / "first_contact.json"
    if len(chosen) < len(TABLES) and kept.exists():  # the other tables as they were
        new = {row["table"] for row in rows}
        rows = [row for row in json.loads(kept.read_text())["rows"] if row["table"] not in new] + rows
    common.report("first_contact", "First contact", rows)


if __name__ == "__main__":
    child(sys.argv[2]) if sys.argv[1:2] == ["--child"] else main()
