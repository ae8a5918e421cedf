"""What a solve costs besides stepping: a solve of ten Euler steps, eager and as a compiled function."""

from __future__ import annotations

import cProfile
import pstats

import common
import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np
import solvers

import jaxdiffeq as jde


def f(t, y, p):
    return -p * y


def main() -> None:
    y0, p = jnp.ones(2), jnp.ones(2)
    ts = np.linspace(0, 1, 11)
    problem = jde.ODEProblem(f, y0, (0.0, 1.0), p)

    def ours(y0, p, saveat):
        return jde.solve(problem, jde.Tsit5(), y0=y0, args=p, saveat=saveat, rtol=1e-3, atol=1e-6)

    def diffrax(y0, p, saveat, throw=True):
        control = dfx.PIDController(rtol=1e-3, atol=1e-6)
        return dfx.diffeqsolve(
            dfx.ODETerm(f), dfx.Tsit5(), 0.0, 1.0, None, y0, p, saveat=saveat, stepsize_controller=control, throw=throw
        )

    end, peer_end = jde.SaveAt(t1=True), dfx.SaveAt(t1=True)
    runs = {
        "ours, at t1": lambda: ours(y0, p, end).ys,
        "ours, 11 times": lambda: ours(y0, p, ts).ys,
        "ours, every step": lambda: ours(y0, p, None).ys,
        "diffrax, at t1": lambda: diffrax(y0, p, peer_end).ys,
        "diffrax, 11 times": lambda: diffrax(y0, p, dfx.SaveAt(ts=ts)).ys,
        "ours under jit": solvers.jitted(lambda y0, p: ours(y0, p, end).ys, y0, p)[1],
        "diffrax under jit": solvers.jitted(lambda y0, p: diffrax(y0, p, peer_end).ys, y0, p)[1],
        "an empty jitted function": lambda g=jax.jit(lambda y, p: y + p): g(y0, p),
    }
    seconds = common.interleaved(runs, 15)
    mid, exact = common.medians(seconds), np.exp(-1.0)
    errors = {name: abs(float(np.asarray(run())[-1][0]) - exact) for name, run in runs.items() if "empty" not in name}
    rows = [{"what": name, "µs": mid[name] * 1e6, "error": errors.get(name)} for name in runs]
    share = common.ratio(seconds, "ours, at t1", "diffrax, at t1")
    common.report(
        "overhead",
        "The cost of a tiny solve",
        rows,
        [f"Eager, ours / diffrax: {share:.2f}", _profile(runs["ours, at t1"])],
    )
    common.bars("overhead", "The cost of a tiny solve", {name: {"s": s} for name, s in mid.items()})


def _profile(run) -> str:
    """The five functions of ours that an eager solve spends most time in."""
    profile = cProfile.Profile()
    profile.enable()
    for _ in range(100):
        run()
    profile.disable()
    stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    mine = {k[2]: v[3] for k, v in stats.items() if "/jaxdiffeq/" in k[0]}
    total = max(mine.values())
    top = sorted(mine.items(), key=lambda kv: -kv[1])[:8]
    return "Share of an eager solve, inclusive: " + ", ".join(f"{name} {t / total:.0%}" for name, t in top) + "."


if __name__ == "__main__":
    main()
