"""Events: what it costs to look for one, and a ball that bounces, against SciPy and diffrax restarted by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import common
import diffrax as dfx
import jax
import jax.numpy as jnp
import numba
import numpy as np
from jax import lax
from scipy.integrate import solve_ivp

import jaxdiffeq as jde

G, HEIGHT, RESTITUTION, BOUNCES = 9.8, 20.0, 0.9, 20
END = jde.SaveAt(t1=True)
TIGHT = {"rtol": 1e-6, "atol": 1e-6}


# ---- the price of looking


def lorenz(t, y, p):
    return jnp.stack([10 * (y[1] - y[0]), y[0] * (p - y[2]) - y[1], y[0] * y[1] - 8 / 3 * y[2]])


def brusselator(t, y, p):
    u, v = y[:50], y[50:]
    along = lambda x: jnp.pad(x, 1, mode="edge")
    spread = lambda x: 0.02 * 51**2 * (along(x)[2:] - 2 * x + along(x)[:-2])
    return jnp.concatenate([1 + u**2 * v - (p + 1) * u + spread(u), p * u - u**2 * v + spread(v)])


NEVER = jde.Event(lambda t, y, args: y[0] + 1e3)
WAVES = np.concatenate([1 + np.sin(2 * np.pi * np.arange(1, 51) / 51), np.full(50, 3.0)])
SYSTEMS = {
    "Lorenz": (lorenz, np.array([1.0, 0.0, 0.0]), 28.0, 20.0, 1.3),
    "Brusselator, 100 states": (brusselator, WAVES, 3.0, 1.0, 1.05),
}


def never_fires(name: str) -> dict:
    f, y0, p, t1, most = SYSTEMS[name]
    problem = jde.ODEProblem(f, y0, (0.0, t1), p)
    solve = lambda p, events: jde.solve(problem, jde.Tsit5(), args=p, saveat=END, events=events, **TIGHT).ys[-1]
    runs = {"with": lambda p: solve(p, NEVER), "without": lambda p: solve(p, ())}
    jitted = {key: jax.jit(run) for key, run in runs.items()}
    seconds = common.interleaved({key: lambda run=run: run(p) for key, run in jitted.items()})
    again = {key: lambda run=run: (lambda p: run(p), (jnp.asarray(p),)) for key, run in runs.items()}
    compiled = {key: min(common.compile_seconds(make)[2] for _ in range(3)) for key, make in again.items()}
    same = common.relative_error(jitted["with"](p), jitted["without"](p))
    return {
        "solve": f"{name}, an event that never happens",
        "ms": 1e3 * common.medians(seconds)["with"],
        "over": "the same without",
        "ratio": common.ratio(seconds, "with", "without"),
        "at most": most,
        "compile ratio": compiled["with"] / compiled["without"],
        "error": same,
    }


# ---- a ball


def ball(t, y, args):
    return jnp.stack([y[1], jnp.full_like(y[1], -G)])


BOUNCE = jde.Event(lambda t, y, e: y[0], lambda t, y, e: jnp.stack([0.0 * y[0], -e * y[1]]), direction=-1)
FIRST = math.sqrt(2 * HEIGHT / G)
TIMES = FIRST + np.append(0.0, np.cumsum(2 * FIRST * RESTITUTION ** np.arange(1, BOUNCES)))
LAST = TIMES[-1] + 1e-3


def ours(e, height=HEIGHT):
    problem = jde.ODEProblem(ball, jnp.stack([jnp.asarray(height), 0.0 * e]), (0.0, LAST), e)
    options = {"saveat": END, "max_events": BOUNCES, "throw": False, **TIGHT}
    return jde.solve(problem, jde.Tsit5(), events=BOUNCE, **options).events.ts


@numba.njit
def falling(t, y):
    return np.array([y[1], -9.8])


def scipy(e):
    """RK45 and its events, begun again after each."""
    hits = lambda t, y: y[0]
    hits.terminal, hits.direction = True, -1
    t, y, times = 0.0, np.array([HEIGHT, 0.0]), []
    for _ in range(BOUNCES):
        found = solve_ivp(falling, (t, LAST), y, events=hits, rtol=1e-6, atol=1e-6)
        t = found.t[-1]
        y = np.array([0.0, -e * found.y[1, -1]])
        times.append(t)
    return np.array(times)


def diffrax(e):
    """A solve ended by an event in a scan."""
    hit = dfx.Event(lambda t, y, args, **_: y[0], optimistix_newton(), direction=False)
    control = dfx.PIDController(rtol=1e-6, atol=1e-6)

    def flight(at, _):
        t, y = at
        options = {"stepsize_controller": control, "event": hit, "saveat": dfx.SaveAt(t1=True), "max_steps": 256}
        found = dfx.diffeqsolve(dfx.ODETerm(ball), dfx.Tsit5(), t, LAST, None, y, **options)
        t, y = found.ts[-1], found.ys[-1]
        return (t, jnp.stack([1e-12 + 0 * e, -e * y[1]])), t

    start = jnp.zeros(()), jnp.stack([jnp.asarray(HEIGHT), 0.0 * e])
    return lax.scan(flight, start, length=BOUNCES)[1]


def optimistix_newton():
    import optimistix

    return optimistix.Newton(rtol=1e-8, atol=1e-8)


def bounces(peer: str, run: Callable, most: float) -> dict:
    """Each peer by itself: after a long call of SciPy the next program waits for its threads."""
    runs: dict[str, Callable] = {"ours": jax.jit(ours), peer: run}
    seconds = common.interleaved({name: lambda run=run: run(RESTITUTION) for name, run in runs.items()}, rounds=31)
    errors = {name: common.relative_error(run(RESTITUTION), TIMES) for name, run in runs.items()}
    return {
        "solve": f"ball, {BOUNCES} bounces",
        "ms": 1e3 * common.medians(seconds)["ours"],
        "over": f"{peer}, restarted",
        "ratio": common.ratio(seconds, "ours", peer),
        "at most": most,
        "error": errors["ours"],
        "its error": errors[peer],
    }


def slope() -> dict:
    loss = lambda e: jnp.sum(ours(e))
    runs = {"gradient": jax.jit(jax.grad(loss)), "forward": jax.jit(loss)}
    seconds = common.interleaved({name: lambda run=run: run(RESTITUTION) for name, run in runs.items()})
    powers = np.arange(1, BOUNCES)
    each = np.append(0.0, np.cumsum(2 * FIRST * powers * RESTITUTION ** (powers - 1)))
    return {
        "solve": "its gradient",
        "ms": 1e3 * common.medians(seconds)["gradient"],
        "over": "the solve",
        "ratio": common.ratio(seconds, "gradient", "forward"),
        "at most": 5,
        "error": common.relative_error(runs["gradient"](RESTITUTION), np.sum(each)),
    }


def lanes(count: int = 10_000) -> dict:
    """Balls of random restitution and height, as many bounces as come in the time."""
    e = np.random.default_rng(0).uniform(0.5, 0.9, count)
    many, one = jax.jit(jax.vmap(ours)), jax.jit(ours)
    some = iter(np.tile(e, 100))
    seconds = common.interleaved({"many": lambda: many(e), "one": lambda: one(next(some))}, rounds=7)
    return {
        "solve": f"{count} balls, of each",
        "ms": 1e3 * common.medians(seconds)["many"] / count,
        "over": "one alone",
        "ratio": common.ratio(seconds, "many", "one") / count,
        "at most": 0.5,
        "error": common.relative_error(np.nan_to_num(many(e[:8])), np.nan_to_num(np.stack([one(x) for x in e[:8]]))),
    }


def rows() -> Iterator[dict]:
    for name in SYSTEMS:
        yield never_fires(name)
    yield bounces("diffrax", jax.jit(diffrax), 0.3)
    yield bounces("SciPy", scipy, 0.05)
    yield slope()
    yield lanes()


if __name__ == "__main__":
    notes = ["SciPy's f is compiled by numba; its event function and its loop are Python's."]
    common.report("events", "Events: their price, and a bouncing ball", common.gather(rows()), notes)
