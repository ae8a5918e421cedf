"""The problems of the benchmarks, each as f for JAX and, for the small ones, as f for numba and SciPy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.integrate import solve_ivp


@dataclass(frozen=True)
class Case:
    name: str
    f: Callable
    """f(t, y, args) in jax.numpy"""
    plain: Callable
    """f(t, y, p, out) in a form that numba compiles: it fills `out`"""
    y0: np.ndarray
    p: np.ndarray
    t1: float
    target: float
    """the relative error at which solvers are compared"""

    @property
    def ts(self) -> np.ndarray:
        return np.linspace(0.0, self.t1, 101)

    def reference(self, ts: np.ndarray) -> np.ndarray:
        """Shape: [times, n]. DOP853 at the limit of double precision."""

        def f(t, y):
            out = np.empty_like(y)
            self.plain(t, y, self.p, out)
            return out

        return solve_ivp(f, (0.0, self.t1), self.y0, "DOP853", t_eval=ts, rtol=3e-14, atol=1e-15).y.T


def lotka_volterra(t, y, p):
    x, w = y
    return jnp.stack([p[0] * x - p[1] * x * w, -p[2] * w + p[3] * x * w])


def lotka_volterra_plain(t, y, p, out):
    out[0] = p[0] * y[0] - p[1] * y[0] * y[1]
    out[1] = -p[2] * y[1] + p[3] * y[0] * y[1]


def lorenz(t, y, p):
    a, b, c = y
    return jnp.stack([p[0] * (b - a), a * (p[1] - c) - b, a * b - p[2] * c])


def lorenz_plain(t, y, p, out):
    out[0] = p[0] * (y[1] - y[0])
    out[1] = y[0] * (p[1] - y[2]) - y[1]
    out[2] = y[0] * y[1] - p[2] * y[2]


def arenstorf(t, y, p):
    a, b, da, db = y
    mu, nu = p[0], 1 - p[0]
    r1 = ((a + mu) ** 2 + b * b) ** 1.5
    r2 = ((a - nu) ** 2 + b * b) ** 1.5
    return jnp.stack(
        [da, db, a + 2 * db - nu * (a + mu) / r1 - mu * (a - nu) / r2, b - 2 * da - nu * b / r1 - mu * b / r2]
    )


def arenstorf_plain(t, y, p, out):
    mu, nu = p[0], 1 - p[0]
    r1 = ((y[0] + mu) ** 2 + y[1] ** 2) ** 1.5
    r2 = ((y[0] - nu) ** 2 + y[1] ** 2) ** 1.5
    out[0], out[1] = y[2], y[3]
    out[2] = y[0] + 2 * y[3] - nu * (y[0] + mu) / r1 - mu * (y[0] - nu) / r2
    out[3] = y[1] - 2 * y[2] - nu * y[1] / r1 - mu * y[1] / r2


def pleiades(t, y, p):
    """Seven stars in the plane, star i of mass i. Hairer, Nørsett, Wanner, Solving ODEs I, II.10."""
    x, w, dx, dw = y.reshape(4, 7)
    ax, aw = x[None] - x[:, None], w[None] - w[:, None]
    r2 = ax * ax + aw * aw + jnp.eye(7)
    pull = p / (r2 * jnp.sqrt(r2))
    return jnp.concatenate([dx, dw, jnp.sum(pull * ax, 1), jnp.sum(pull * aw, 1)])


def pleiades_plain(t, y, p, out):
    for i in range(7):
        out[i], out[7 + i] = y[14 + i], y[21 + i]
        sx, sw = 0.0, 0.0
        for j in range(7):
            if i != j:
                dx, dw = y[j] - y[i], y[7 + j] - y[7 + i]
                r2 = dx * dx + dw * dw
                pull = p[j] / (r2 * np.sqrt(r2))
                sx += pull * dx
                sw += pull * dw
        out[14 + i], out[21 + i] = sx, sw


PLEIADES = np.concatenate(
    [
        [3, 3, -1, -3, 2, -2, 2],
        [3, -3, 2, 0, 0, -4, 4],
        [0, 0, 0, 0, 0, 1.75, -1.5],
        [0, 0, 0, -1.25, 1, 0, 0],
    ]
)
CASES = (
    Case("Lotka–Volterra", lotka_volterra, lotka_volterra_plain, np.ones(2), np.array([1.5, 1, 3, 1]), 10.0, 1e-5),
    Case("Lorenz", lorenz, lorenz_plain, np.array([1.0, 0, 0]), np.array([10, 28, 8 / 3]), 10.0, 1e-4),
    Case(
        "Arenstorf",
        arenstorf,
        arenstorf_plain,
        np.array([0.994, 0, 0, -2.00158510637908252240537862224]),
        np.array([0.012277471]),
        17.0652165601579625588917206249,
        1e-4,
    ),
    Case("Pleiades", pleiades, pleiades_plain, PLEIADES, np.arange(1.0, 8.0), 3.0, 1e-5),
)


# ---- networks


@dataclass(frozen=True)
class Network:
    """dy/dt = mlp(y), tanh between the layers, on a batch of rows (none: one sample), in float32."""

    name: str
    sizes: tuple[int, ...]
    batch: int | None

    def weights(self, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
        rng = np.random.default_rng(seed)
        pairs = zip(self.sizes[:-1], self.sizes[1:], strict=True)
        return [
            ((rng.standard_normal((m, n)) / np.sqrt(m)).astype(np.float32), np.zeros(n, np.float32)) for m, n in pairs
        ]

    def y0(self, seed: int = 1) -> np.ndarray:
        shape = (self.sizes[0],) if self.batch is None else (self.batch, self.sizes[0])
        return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


NETWORKS = (
    Network("2-50-2, one sample", (2, 50, 2), None),
    Network("16-64-64-16, batch 64", (16, 64, 64, 16), 64),
    Network("16-128-128-16, batch 256", (16, 128, 128, 16), 256),
)


def mlp(t, y, weights: Any):
    *hidden, (w, b) = weights
    for m, c in hidden:
        y = jnp.tanh(y @ m + c)
    return y @ w + b


# ---- large systems


def brusselator(t, y, p):
    """u' = a + u²v − (b+1)u + α u_xx, v' = bu − u²v + α v_xx, periodic. Hairer, Wanner, Solving ODEs II, IV.10."""
    u, v = y.reshape(2, -1)
    k = p[2] * u.shape[0] ** 2

    def spread(x):
        return k * (jnp.roll(x, 1) - 2 * x + jnp.roll(x, -1))

    uuv = u * u * v
    return jnp.concatenate([p[0] + uuv - (p[1] + 1) * u + spread(u), p[1] * u - uuv + spread(v)])


def brusselator_start(n: int) -> np.ndarray:
    x = np.arange(n) / n
    return np.concatenate([1 + np.sin(2 * np.pi * x), 3 * np.ones(n)])


def bodies(t, y, p):
    """Softened gravity; p are the masses. Shapes: y [2, bodies, 3], positions and velocities."""
    x, v = y
    apart = x[None] - x[:, None]
    r2 = jnp.sum(apart * apart, -1) + 1e-2
    pull = p / (r2 * jnp.sqrt(r2))
    return jnp.stack([v, jnp.einsum("ij,ijk->ik", pull, apart)])


def bodies_start(n: int) -> np.ndarray:
    rng = np.random.default_rng(3)
    return np.stack([rng.standard_normal((n, 3)), 0.1 * rng.standard_normal((n, 3))])


def fresh(f: Callable) -> Callable:
    """A new function that does what f does: nothing compiled for f will serve it."""
    return lambda t, y, args: f(t, y, args)


def device(*xs: Any) -> Any:
    return jax.tree.map(jnp.asarray, xs)
