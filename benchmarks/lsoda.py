"""LSODA compiled, with right-hand sides compiled by numba: no Python between the steps. Needs numbalsoda."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

MOST = 10_000_000
"""steps"""


def robertson(t, y, dy, p):
    slow, fast, back = p[0] * y[0], p[1] * y[1] * y[1], p[2] * y[1] * y[2]
    dy[0], dy[1], dy[2] = -slow + back, slow - back - fast, fast


def hires(t, y, dy, p):
    r, s = p[0] * y[5] * y[7], p[1] * y[6]
    dy[0] = -1.71 * y[0] + 0.43 * y[1] + 8.32 * y[2] + 0.0007
    dy[1] = 1.71 * y[0] - 8.75 * y[1]
    dy[2] = -10.03 * y[2] + 0.43 * y[3] + 0.035 * y[4]
    dy[3] = 8.32 * y[1] + 1.71 * y[2] - 1.12 * y[3]
    dy[4] = -1.745 * y[4] + 0.43 * y[5] + 0.43 * y[6]
    dy[5] = -r + 0.69 * y[3] + 1.71 * y[4] - 0.43 * y[5] + 0.69 * y[6]
    dy[6], dy[7] = r - s, s - r


def van_der_pol(t, y, dy, p):
    dy[0], dy[1] = y[1], p[0] * (1 - y[0] * y[0]) * y[1] - y[0]


def oregonator(t, y, dy, p):
    dy[0] = p[0] * (y[1] + y[0] * (1 - p[1] * y[0] - y[1]))
    dy[1], dy[2] = (y[2] - (1 + y[0]) * y[1]) / p[0], p[2] * (y[0] - y[2])


def e5(t, y, dy, p):
    a, b = p[0] * y[0], p[1] * y[0] * y[2]
    c, d = p[2] * y[1] * y[2], p[3] * y[3]
    dy[0], dy[1], dy[2], dy[3] = -a - b, a - c, a - b - c + d, b - d


def brusselator(t, y, dy, p):
    n = 50
    spread = p[0] * (n + 1) ** 2
    for i in range(n):
        u, v = y[2 * i], y[2 * i + 1]
        u_left, v_left = (y[2 * i - 2], y[2 * i - 1]) if i > 0 else (1.0, 3.0)
        u_right, v_right = (y[2 * i + 2], y[2 * i + 3]) if i < n - 1 else (1.0, 3.0)
        dy[2 * i] = 1 + u * u * v - 4 * u + spread * (u_right - 2 * u + u_left)
        dy[2 * i + 1] = 3 * u - u * u * v + spread * (v_right - 2 * v + v_left)


PLAIN = {f.__name__: f for f in (robertson, hires, van_der_pol, oregonator, e5, brusselator)}


def lsoda(problem: Any) -> Callable | None:
    """tol ↦ y(t1), NaN where it failed; None when it is not installed. `problem` as in `stiff`."""
    try:
        import numba
        from numbalsoda import lsoda, lsoda_sig
    except ImportError:
        return None
    right = numba.cfunc(lsoda_sig)(PLAIN[problem.f.__name__])
    address, y0, times, p = right.address, problem.y0.astype(float), np.array([0.0, problem.t1]), problem.p
    share = problem.atol

    @numba.njit
    def solve(tol):
        ys, success = lsoda(address, y0, times, p, tol, tol * share, MOST)
        return ys[-1] if success else np.full_like(y0, np.nan)

    def run(tol, _=None, keep=right):  # the function lives as long as its address is used
        return solve(float(tol))

    return run
