"""The same solve written for each contestant. Everything returns saved values, [times, n], of a jitted function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffrax as dfx
import jax
import numpy as np

import jaxdiffeq as jde
from jaxdiffeq.tableaux import explicit

METHODS = {
    "Tsit5": (jde.Tsit5, dfx.Tsit5, explicit.TSIT5),
    "Dopri5": (jde.DP5, dfx.Dopri5, explicit.DP5),
    "Dopri8": (jde.DormandPrince87, dfx.Dopri8, explicit.DORMANDPRINCE87),
}
ATOL = 1e-2  # atol = ATOL · rtol everywhere


def ours(f: Callable, method: str, t1: float, ts: Any = None, **options: Any) -> Callable:
    """(y0, p, rtol) ↦ ys; at t1 alone without `ts`."""
    problem = jde.ODEProblem(f, 0.0, (0.0, t1))
    saveat = jde.SaveAt(t1=True) if ts is None else ts
    method = METHODS[method][0]()

    def run(y0, p, rtol):
        return jde.solve(problem, method, y0=y0, args=p, saveat=saveat, rtol=rtol, atol=ATOL * rtol, **options).ys

    return run


def diffrax(f: Callable, method: str, t1: float, ts: Any = None, max_steps: int = 4096, **options: Any) -> Callable:
    """(y0, p, rtol) ↦ ys. Without its error check, which costs it time, and with its first-step heuristic."""
    term, solver = dfx.ODETerm(f), METHODS[method][1]()
    saveat = dfx.SaveAt(t1=True) if ts is None else dfx.SaveAt(ts=ts)
    options = {"throw": False, **options}

    def run(y0, p, rtol):
        control = dfx.PIDController(rtol=rtol, atol=ATOL * rtol)
        return dfx.diffeqsolve(
            term,
            solver,
            0.0,
            t1,
            None,
            y0,
            p,
            saveat=saveat,
            stepsize_controller=control,
            max_steps=max_steps,
            **options,
        ).ys

    return run


# ---- compiled by numba: the same tableau in a plain loop over floats, no options


def numba_runge_kutta(plain: Callable, method: str, n: int) -> Callable | None:
    """(y0, p, t1, rtol) ↦ y(t1) with the I controller of the textbooks; None when numba is not installed."""
    try:
        import numba
    except ImportError:
        return None
    tab = METHODS[method][2]
    stages, order = len(tab.b), tab.order
    a = np.zeros((stages, stages))
    for i, row in enumerate(tab.a):
        a[i, : len(row)] = row
    b, c, e = np.array(tab.b, float), np.array(tab.c, float), np.array(tab.e, float)
    f = numba.njit(plain, fastmath=False)
    fsal = bool(tab.fsal)

    @numba.njit
    def run(y0, p, t1, rtol):
        atol = ATOL * rtol
        k = np.zeros((stages, n))
        y, z, t = y0.copy(), y0.copy(), 0.0
        f(t, y, p, k[0])
        dt = 0.01 * rtol ** (1.0 / order) * t1
        while t < t1:
            last = t + 1.01 * dt >= t1
            h = t1 - t if last else dt
            for i in range(1, stages):
                for m in range(n):
                    s = 0.0
                    for j in range(i):
                        s += a[i, j] * k[j, m]
                    z[m] = y[m] + h * s
                f(t + c[i] * h, z, p, k[i])
            total = 0.0
            for m in range(n):
                s, r = 0.0, 0.0
                for j in range(stages):
                    s += b[j] * k[j, m]
                    r += e[j] * k[j, m]
                z[m] = y[m] + h * s
                total += (h * r / (atol + rtol * max(abs(y[m]), abs(z[m])))) ** 2
            ratio = max(np.sqrt(total / n), 1e-10)
            if ratio <= 1:
                t = t1 if last else t + h
                y[:] = z
                if fsal:
                    k[0] = k[stages - 1]
                else:
                    f(t, y, p, k[0])
            dt = h * min(10.0, max(0.2, 0.9 * ratio ** (-1.0 / order)))
        return y

    return run


def peak_bytes(compiled: Any) -> int:
    """Temporary memory plus output of a compiled program."""
    analysis = compiled.memory_analysis()
    return int(analysis.temp_size_in_bytes + analysis.output_size_in_bytes)


def jitted(fun: Callable, *args: Any) -> tuple[Callable, Any]:
    """The compiled function, and a call of it without arguments."""
    compiled = jax.jit(fun).lower(*args).compile()
    return compiled, lambda: compiled(*args)
