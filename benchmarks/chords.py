"""A Jacobian and its factors used again in later steps, against new ones in every step: the same tolerance, the error
that each reaches, and what each took. `chosen`: what the library does by itself.

Equal steps never refuse one, so that there a Jacobian is used again only while it is as good as a new one.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import common
import jax
import jax.numpy as jnp
import numpy as np
import stiff

import jaxdiffeq as jde
from jaxdiffeq.implicit import jacobian_reuse as chord
from jaxdiffeq.steppers.collocation import Collocation
from jaxdiffeq.steppers.dirk import DIRK

EQUAL = 200


class Case(NamedTuple):
    problem: jde.ODEProblem
    atol: float


def of(problem: Any, **options: Any) -> Case:
    stated = jde.ODEProblem(problem.f, jnp.asarray(problem.y0), (0.0, problem.t1), jnp.asarray(problem.p), **options)
    return Case(stated, problem.atol)


def brusselator(n: int, **options: Any) -> Case:
    start = stiff.brusselator_start(n // 2)
    return of(stiff.Problem(stiff.brusselator, start, np.array([0.02]), 10.0, 1e-2), **options)


def network(n: int) -> Case:
    """Relaxation at rates from 1 to 1e4, and a network of 64 units."""
    into, out = (jax.random.normal(key, (n, 64)) for key in jax.random.split(jax.random.key(0)))

    def f(t, y, p):
        push = jnp.tanh(jnp.tanh(y @ into / n**0.5) @ out.T / 8 + jnp.sin(t))
        return p * jnp.logspace(0, 4, n) * (jnp.cos(t) - y) + 10 * push

    return Case(jde.ODEProblem(f, jnp.ones(n), (0.0, 10.0), 1.0), 1e-3)


def diffusion(n: int) -> Case:
    matrix = jnp.asarray(n**2 * (np.eye(n, k=1) - 2 * np.eye(n) + np.eye(n, k=-1)))
    return Case(jde.ODEProblem(lambda t, y, p: p * (matrix @ y), jnp.ones(n), (0.0, 0.1), 1.0), 1e-3)


CASES = {
    "HIRES": of(stiff.PROBLEMS["HIRES"]),
    "Brusselator, 20 states": brusselator(20),
    "Brusselator, 100 states": brusselator(100),
    "the same, banded": brusselator(100, jac_structure=jde.Banded(2, 2)),
    "network, 20 states": network(20),
    "network, 100 states": network(100),
    "diffusion, 20 states": diffusion(20),
    "diffusion, 100 states": diffusion(100),
}
ADAPTIVE = list(CASES)[:6], (jde.KenCarp4(), jde.RadauIIA5(), jde.BDF()), (1e-4, 1e-7)
EQUALLY = list(CASES)[6:], (jde.SBDF2(), jde.KenCarp4(), jde.RadauIIA5()), (1e-6,)


@contextlib.contextmanager
def kept(always: bool) -> Iterator[None]:
    """Jacobians used again by all methods, or by none."""
    before = chord.RENEWED, DIRK._keeps, Collocation._keeps
    if always:
        DIRK._keeps = Collocation._keeps = lambda self, system: True
    else:
        chord.RENEWED = 10**9
    try:
        yield
    finally:
        chord.RENEWED, DIRK._keeps, Collocation._keeps = before


def compiled(case: Case, method: Any, tol: float, **options: Any) -> Callable:
    jax.clear_caches()  # or a solve traced in one of the two ways would serve for the other

    def run(p):
        options_ = {"rtol": tol, "atol": case.atol * tol, **options}
        sol = jde.solve(case.problem, method, args=p, saveat=jde.SaveAt(t1=True), **options_)
        return sol.ys[-1], sol.stats

    return jax.jit(run).lower(case.problem.args).compile()


@functools.cache
def reference(name: str) -> jax.Array:
    case = CASES[name]
    with kept(False):
        return compiled(case, jde.RadauIIA9(), 1e-11)(jnp.asarray(case.problem.args))[0]


def contest(name: str, method: Any, tol: float, equal: bool) -> dict[str, Any]:
    case, options = CASES[name], {"controller": jde.FixedSteps(EQUAL)} if equal else {}
    p = jnp.asarray(case.problem.args)
    exact = reference(name)
    with kept(False):
        anew = compiled(case, method, tol, **options)
    with kept(True):
        again = compiled(case, method, tol, **options)
    runs = {"again": lambda: again(p), "anew": lambda: anew(p)}
    seconds = common.interleaved(runs, 15)
    middle = common.medians(seconds)
    (y, stats), (y_anew, _) = again(p), anew(p)
    chosen = compiled(case, method, tol, **options)(p)[1]
    return {
        "problem": name,
        "method": method.name,
        "tolerance": tol,
        "steps": int(stats.steps),
        "Jacobians": int(stats.jac_evals),
        "factorisations": int(stats.factorizations),
        "iterations": int(stats.newton_iterations),
        "again ms": middle["again"] * 1e3,
        "anew ms": middle["anew"] * 1e3,
        "again / anew": common.ratio(seconds, "again", "anew"),
        "error, again": common.relative_error(y, exact),
        "error, anew": common.relative_error(y_anew, exact),
        "chosen": "again" if chosen.jac_evals < chosen.steps else "anew",
    }


def contests() -> Iterator[dict[str, Any]]:
    for (names, methods, tolerances), equal in ((ADAPTIVE, False), (EQUALLY, True)):
        for name in names:
            for method in methods:
                for tol in tolerances:
                    yield contest(name, method, tol, equal)


def main() -> None:
    rows = common.gather(contests())
    common.report("chords", f"Jacobians used again; diffusion in {EQUAL} equal steps", rows)
    groups: dict[str, dict[str, float]] = {}
    for r in rows:
        groups.setdefault(f"{r['problem']}, {r['tolerance']:.0e}", {})[r["method"]] = r["again / anew"]
    common.bars("chords", "Jacobians used again", groups, "time, over a new one in every step")


if __name__ == "__main__":
    main()
