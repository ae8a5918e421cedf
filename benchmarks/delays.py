"""Delays: a step and a gradient of the delay Lotka–Volterra equations, and Mackey–Glass against a method of steps."""

from __future__ import annotations

from collections.abc import Iterator

import common
import jax
import jax.numpy as jnp
import numba
import numpy as np

import jaxdiffeq as jde

END = jde.SaveAt(t1=True)
P, LAG = np.array([2.2, 1.0, 2.0, 0.4]), 0.1
TIMES = np.linspace(0, 10, 101)


def with_delay(t, y, h, p):
    a, b, d, g = p
    return jnp.stack([(a - b * y[1]) * h(t - LAG)[0], (d * y[0] - g) * y[1]])


def without(t, y, p):
    a, b, d, g = p
    return jnp.stack([(a - b * y[1]) * y[0], (d * y[0] - g) * y[1]])


DELAYED = jde.DDEProblem(with_delay, np.ones(2), (0.0, 10.0), P, history=lambda s, p: jnp.ones(2), lags=LAG)
PLAIN = jde.ODEProblem(without, np.ones(2), (0.0, 10.0), P)


def solve(problem, p, saveat, tol=1e-6):
    return jde.solve(problem, jde.Tsit5(), args=p, saveat=saveat, rtol=tol, atol=tol)


def step() -> dict:
    """Per step, since the delay asks for shorter ones."""
    runs = {name: jax.jit(lambda p, x=x: solve(x, p, END).ys) for name, x in (("with", DELAYED), ("without", PLAIN))}
    seconds = common.interleaved({name: lambda run=run: run(P) for name, run in runs.items()})
    steps = {name: int(solve(x, P, END).stats.steps) for name, x in (("with", DELAYED), ("without", PLAIN))}
    return {
        "solve": "Lotka–Volterra with a lag, of each step",
        "µs": 1e6 * common.medians(seconds)["with"] / steps["with"],
        "over": "without",
        "ratio": common.ratio(seconds, "with", "without") * steps["without"] / steps["with"],
        "at most": 3,
    }


def slope() -> dict:
    loss = lambda p: jnp.sum((solve(DELAYED, p, TIMES).ys - 1) ** 2)
    runs = {"gradient": jax.jit(jax.grad(loss)), "forward": jax.jit(loss)}
    seconds = common.interleaved({name: lambda run=run: run(P) for name, run in runs.items()})
    tight = lambda p: jnp.sum((solve(DELAYED, p, TIMES, 1e-11).ys - 1) ** 2)
    return {
        "solve": "gradient of a loss over 101 times",
        "µs": 1e6 * common.medians(seconds)["gradient"],
        "over": "the loss",
        "ratio": common.ratio(seconds, "gradient", "forward"),
        "at most": 6,
        "error": common.relative_error(runs["gradient"](P), jax.jacfwd(tight)(P)),
    }


# ---- Mackey–Glass


TAU, SPAN = 17.0, 170.0


def mackey_glass(t, y, h, p):
    past = h(t - TAU)
    return 0.2 * past / (1 + past**10) - 0.1 * y


GLASS = jde.DDEProblem(mackey_glass, np.array([1.2]), (0.0, SPAN), history=lambda s, p: jnp.full(1, 1.2), lags=TAU)


@numba.njit
def by_steps(per_lag):
    """RK4 in steps of τ/per_lag; half-way the past is the cubic between its neighbours, of order 4 too."""
    count, dt = round(SPAN / TAU) * per_lag, TAU / per_lag
    y, f = np.empty(count + 1), np.empty(count + 1)
    y[0] = 1.2

    def slope(y, past):
        return 0.2 * past / (1 + past**10) - 0.1 * y

    for i in range(count):
        j = i - per_lag
        first = 1.2 if j < 0 else y[j]
        last = 1.2 if j + 1 <= 0 else y[j + 1]
        middle = 1.2 if j < 0 else (first + last) / 2 + dt / 8 * (f[j] - f[j + 1])
        k1 = slope(y[i], first)
        f[i] = k1
        k2 = slope(y[i] + dt / 2 * k1, middle)
        k3 = slope(y[i] + dt / 2 * k2, middle)
        k4 = slope(y[i] + dt * k3, last)
        y[i + 1] = y[i] + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        f[i + 1] = slope(y[i + 1], last)
    return y[count]


def glass(tol: float) -> dict:
    ours = jax.jit(lambda tol: solve(GLASS, None, END, tol).ys[0, 0])
    exact = by_steps(200_000)
    error = abs(float(ours(tol)) - exact)
    grid = [2**k for k in range(3, 16)]
    per_lag = next((n for n in grid if abs(by_steps(n) - exact) <= error), grid[-1])
    seconds = common.interleaved({"ours": lambda: ours(tol), "numba": lambda: by_steps(per_lag)})
    return {
        "solve": f"Mackey–Glass, at {tol:g}",
        "µs": 1e6 * common.medians(seconds)["ours"],
        "over": f"a method of steps in numba, {per_lag} a lag",
        "ratio": common.ratio(seconds, "ours", "numba"),
        "at most": 1,
        "error": error,
        "its error": abs(by_steps(per_lag) - exact),
    }


def rows() -> Iterator[dict]:
    yield step()
    yield slope()
    for tol in (1e-5, 1e-8):
        yield glass(tol)


if __name__ == "__main__":
    common.report("delays", "Delays: a step, a gradient, and a peer", common.gather(rows()))
