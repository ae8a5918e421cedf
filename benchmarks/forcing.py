"""What a table that drives an equation costs: one of 100 000 samples over one of 100, and over a formula.

A pendulum of two states, so that the look-up is a large part of a step. With equal steps both tables take the same
ones; at a tolerance, each those that its kinks ask for. The error is that of the table. Times of an uneven table are
found by a few reads as well, but in places that no cache foresees.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import common
import jax
import jax.numpy as jnp
import numpy as np

import jaxdiffeq as jde

SIZES = (100, 100_000)
SPAN = (0.0, 20.0)
END = jde.SaveAt(t1=True)
UNEVEN = np.random.default_rng(0)


def _sampled(ts: np.ndarray, values: np.ndarray) -> Any:
    return jde.inputs.Sampled(ts[0], ts[1] - ts[0], values)


def _uneven(ts: np.ndarray, _: Any) -> Any:
    inner = np.sort(UNEVEN.uniform(*SPAN, ts.size - 2))
    ts = np.concatenate([ts[:1], inner, ts[-1:]])
    return jde.inputs.PiecewiseLinear(ts, _drive(ts), land=False)


TABLES: dict[str, Callable] = {
    "Sampled": _sampled,
    "PiecewiseLinear": lambda ts, v: jde.inputs.PiecewiseLinear(ts, v, land=False),
    "PiecewiseLinear, uneven": _uneven,
    "CubicSpline": lambda ts, v: jde.inputs.CubicSpline(ts, v, land=False).with_slopes(),
    "PiecewiseLinear, landed on": jde.inputs.PiecewiseLinear,
}


def _drive(t: Any) -> Any:
    xp = jnp if isinstance(t, jax.Array) else np
    return xp.sin(0.9 * t) + 0.3 * xp.cos(0.23 * t)


def pendulum(t, y, args):
    return jnp.stack([y[1], -jnp.sin(y[0]) - args["damping"] * y[1] + args["u"](t)])


def runs(steps: str, gradient: bool) -> Callable[[Any], Any]:
    equal = steps == "1000 equal"
    options: dict[str, Any] = {"controller": jde.FixedSteps(1000)} if equal else {"rtol": 1e-6, "atol": 1e-6}

    def solve(u, damping):
        problem = jde.ODEProblem(pendulum, jnp.array([1.0, 0.0]), SPAN, args={"u": u, "damping": damping})
        sol = jde.solve(problem, jde.RK4() if equal else jde.Tsit5(), saveat=END, max_steps=4096, **options)
        return sol.ys[-1, 0], sol.stats.accepted

    return jax.value_and_grad(solve, 1, has_aux=True) if gradient else solve


def contest(table: str, steps: str, gradient: bool) -> dict:
    compiled, found, damping = {}, {}, jnp.asarray(0.1)
    for size in ("formula", *SIZES):
        ts = np.linspace(*SPAN, 2 if size == "formula" else size)
        u = _drive if size == "formula" else TABLES[table](ts, _drive(ts))
        # a formula is part of the program, a table an operand of it
        program = jax.jit(lambda u, d: runs(steps, gradient)(u, d)) if size != "formula" else None
        run = program or jax.jit(lambda _, d: runs(steps, gradient)(_drive, d))
        operand = u if program else None
        found[size] = run(operand, damping)
        compiled[size] = lambda run=run, operand=operand: run(operand, damping)
    seconds = common.interleaved(compiled, 41)
    middle = common.medians(seconds)
    end = lambda size: found[size][0][0] if gradient else found[size][0]
    taken = lambda size: int(found[size][0][1] if gradient else found[size][1])
    return {
        "table": table,
        "what": "gradient" if gradient else "solve",
        "steps": steps,
        **{f"{size} µs": middle[size] * 1e6 for size in compiled},
        **{f"{size} steps": taken(size) for size in SIZES},
        **{f"{size} error": abs(float(end(size) - end("formula"))) for size in SIZES},
        "100 000 / 100": common.ratio(seconds, 100_000, 100),  # pyright: ignore[reportArgumentType]
        "100 000 / formula": common.ratio(seconds, 100_000, "formula"),  # pyright: ignore[reportArgumentType]
    }


def main() -> None:
    cases = itertools.product((False, True), ("1000 equal", "rtol 1e-6"), TABLES)
    kept = [case for case in cases if case[2] != "PiecewiseLinear, landed on" or case[1] == "rtol 1e-6"]
    rows = common.gather(contest(table, steps, gradient) for gradient, steps, table in kept)
    common.report("forcing", "Tables that drive an equation", rows)


if __name__ == "__main__":
    main()
