"""Differential-algebraic equations of index 1, every method that takes a mass matrix, 13 tolerances: what fails.

Of the IVP test set: the transistor amplifier, the chemical Akzo Nobel problem; Robertson's equations with the sum in
place of the third, and a pendulum whose constraint was differentiated twice. Every method solves a problem at all
tolerances in one program. The references are of RadauIIA9 at a tolerance of 1e-11.
Source: Mazzia, Magherini, Test Set for IVP Solvers, release 2.4, 2008.
"""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import common
import jax
import jax.numpy as jnp
import numpy as np

import jaxdiffeq as jde
from jaxdiffeq import methods

TOLERANCES = np.geomspace(1e-2, 1e-6, 13)


class Problem(NamedTuple):
    f: Callable
    y0: Any
    t1: float
    mass: Any


def amplifier(t, y, args):
    signal = 0.1 * jnp.sin(200 * jnp.pi * t)
    first, second = (1e-6 * (jnp.exp((y[i] - y[i + 1]) / 0.026) - 1) for i in (1, 4))
    middle = [(2 * y[1] - 6) / 9000 + 0.01 * first, y[2] / 9000 - first, (y[3] - 6) / 9000 + 0.99 * first]
    right = [(2 * y[4] - 6) / 9000 + 0.01 * second, y[5] / 9000 - second, (y[6] - 6) / 9000 + 0.99 * second]
    return jnp.stack([(y[0] - signal) / 1000, *middle, *right, y[7] / 9000])


def capacities() -> np.ndarray:
    c, mass = np.arange(1, 6) * 1e-6, np.zeros((8, 8))
    for i, k in ((0, 0), (3, 2), (6, 4)):
        mass[i : i + 2, i : i + 2] = c[k] * np.array([[-1, 1], [1, -1]])
    mass[2, 2], mass[5, 5] = -c[1], -c[3]
    return mass


def akzo_nobel(t, y, args):
    r1, r5 = 18.7 * y[0] ** 4 * jnp.sqrt(y[1]), 0.42 * y[5] ** 2 * jnp.sqrt(y[1])
    r2, r3, r4 = 0.58 * y[2] * y[3], 0.58 / 34.4 * y[0] * y[4], 0.09 * y[0] * y[3] ** 2
    inflow = 3.3 * (0.9 / 737 - y[1])
    oxygen = -0.5 * r1 - r4 - 0.5 * r5 + inflow
    moving = [-2 * r1 + r2 - r3 - r4, oxygen, r1 - r2 + r3, -r2 + r3 - 2 * r4, r2 - r3 + r5]
    return jnp.stack([*moving, 115.83 * y[0] * y[3] - y[5]])


def robertson(t, y, args):
    slope = -0.04 * y[0] + 1e4 * y[1] * y[2]
    return jnp.stack([slope, -slope - 3e7 * y[1] ** 2, y[0] + y[1] + y[2] - 1])


def pendulum(t, y, args):
    (x, h), (u, v), tension = y[:2], y[2:4], y[4]
    return jnp.stack([u, v, -tension * x, -tension * h - 1, u * u + v * v - tension * (x * x + h * h) - h])


PROBLEMS = {
    "amplifier": Problem(amplifier, [0.0, 3.0, 3.0, 6.0, 3.0, 3.0, 6.0, 0.0], 0.2, capacities()),
    "Akzo Nobel": Problem(akzo_nobel, [0.444, 0.00123, 0.0, 0.007, 0.0, 0.35999964], 180.0, np.diag([1.0] * 5 + [0.0])),
    "Robertson": Problem(robertson, [1.0, 0.0, 0.0], 1e4, np.diag([1.0, 1.0, 0.0])),
    "pendulum": Problem(pendulum, [1.0, 0.0, 0.0, 0.0, 0.0], 5.0, np.diag([1.0] * 4 + [0.0])),
}


def solved(problem: Problem, method: Any, tolerances: Any) -> Any:
    """Ends, results and calls of f at each of them."""
    f, y0, t1, mass = problem
    given = jde.ODEProblem(f, jnp.asarray(y0), (0.0, t1), mass_matrix=jnp.asarray(mass))

    def one(tol):
        options = {"saveat": jde.SaveAt(t1=True), "throw": False, "max_steps": 100_000}
        small = 1e-4 if f is robertson else 1.0
        sol = jde.solve(given, method, rtol=tol, atol=small * tol, **options)
        return sol.ys[-1], sol.result, sol.stats.f_evals

    run = jax.jit(lambda tolerances: jax.lax.map(one, tolerances))
    return jax.tree.map(np.asarray, run(jnp.asarray(tolerances)))


def contest(names: list[str]) -> Any:
    exact = {name: solved(p, jde.RadauIIA9(), [1e-11])[0][0] for name, p in PROBLEMS.items()}
    for name in names:
        row: dict[str, Any] = {"method": name}
        for which, problem in PROBLEMS.items():
            ends, results, _ = solved(problem, getattr(methods, name)(), TOLERANCES)
            good = results == jde.Result.success
            off = np.max(np.abs(ends - exact[which]), axis=1) / TOLERANCES
            slow = results == jde.Result.max_steps_reached
            row["100 000 steps"] = row.get("100 000 steps", 0) + int(np.sum(slow))
            row |= {
                f"{which}, fail": int(np.sum(~good & ~slow)),
                f"{which}, worst": float(np.max(off[good], initial=0)),
            }
        yield row


def main() -> None:
    made = {name: m() for name, m in vars(methods).items() if isinstance(m, types.FunctionType) and name[0].isupper()}
    takes = lambda m: getattr(m, "takes_mass", False) and getattr(m, "error_order", None) is not None
    names = sys.argv[1:] or [name for name, m in made.items() if takes(m)]
    rows, kept = common.gather(contest(names)), common.RESULTS / "daes.json"
    if sys.argv[1:] and kept.exists():  # the other methods as they were
        rows = [row for row in json.loads(kept.read_text())["rows"] if row["method"] not in names] + rows
    common.report("daes", "Equations of index 1: failures of 13, and the worst error in tolerances", rows)


if __name__ == "__main__":
    main()
