"""Laws of solutions of equations with noise, by ensembles: means within four standard errors of closed forms."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

import jaxdiffeq as jde

KEY = jax.random.key(2024)
PATHS = 4096
TIMES = jnp.array([0.3, 0.55, 1.0])


def ensemble(problem: Any, method: Any, seed: int, paths: int = PATHS, saveat: Any = TIMES, **how: Any) -> Any:
    """Shapes: [paths, times, *state]. Lanes of one solve wait for the slowest, so there are 64 at a time."""
    how = {"saveat": saveat, "max_steps": 2000, "throw": False, **how}
    one = lambda key: jde.solve(problem, method, key=key, **how).ys
    keys = jax.random.split(jax.random.fold_in(KEY, seed), paths)
    return np.asarray(jax.jit(lambda keys: jax.lax.map(one, keys, batch_size=64))(keys))


def check_means(values, expected, finest):
    """Each mean over the first axis is within four standard errors of what is expected, and these are small."""
    values = values.reshape(len(values), -1)
    expected = np.broadcast_to(expected, values.shape[1:])
    errors = values.std(0) / len(values) ** 0.5
    assert np.all(errors < finest * np.abs(expected)), errors / expected
    assert np.all(np.abs(values.mean(0) - expected) < 4 * errors), (values.mean(0) - expected) / errors


def moments(values, mean, variance, finest=0.05):
    check_means(values, mean, finest)
    check_means((values - mean) ** 2, variance, 2 * finest)


T = np.asarray(TIMES)


def test_geometric_brownian_motion():
    a, b = 0.3, 0.5
    problem = jde.SDEProblem(lambda t, y, p: a * y, lambda t, y, p: b * y, jnp.ones(()), (0.0, 1.0), key=KEY)
    ys = ensemble(problem, jde.SOSRI(), 1, rtol=1e-2, atol=1e-2)
    moments(ys, np.exp(a * T), np.exp(2 * a * T) * np.expm1(b**2 * T))


def test_ornstein_and_uhlenbeck():
    problem = jde.SDEProblem(
        lambda t, y, p: -2.0 * y, lambda t, y, p: 0.5, jnp.ones(()), (0.0, 1.0), key=KEY, noise="additive"
    )
    ys = ensemble(problem, jde.SOSRA(), 2, rtol=1e-2, atol=1e-2)
    moments(ys, np.exp(-2 * T), 0.25 * (1 - np.exp(-4 * T)) / 4)


def test_cox_ingersoll_and_ross():
    k, m, s, y0 = 2.0, 0.5, 0.4, 0.8
    problem = jde.SDEProblem(
        lambda t, y, p: k * (m - y), lambda t, y, p: s * jnp.sqrt(y), jnp.asarray(y0), (0.0, 1.0), key=KEY
    )
    ys = ensemble(problem, jde.SRIW1(), 3, controller=jde.FixedSteps(50))
    e = np.exp(-k * T)
    moments(ys, y0 * e + m * (1 - e), y0 * s**2 / k * (e - e**2) + m * s**2 / (2 * k) * (1 - e) ** 2)


def test_a_double_well_forgets_where_it_began():
    """dy = (y − y³) dt + σ dW has the density exp((y² − y⁴/2)/σ²), up to a factor."""
    s = 0.8
    problem = jde.SDEProblem(
        lambda t, y, p: y - y**3, lambda t, y, p: s, jnp.asarray(1.0), (0.0, 40.0), key=KEY, noise="additive"
    )
    ys = ensemble(problem, jde.SOSRA(), 4, saveat=jde.SaveAt(t1=True), controller=jde.FixedSteps(400))[:, 0]
    density = lambda y: np.exp((y**2 - y**4 / 2) / s**2)
    edges = np.array([-4, -1.3, -1.0, -0.7, 0.0, 0.7, 1.0, 1.3, 4])
    parts = np.array([integrate.quad(density, a, b)[0] for a, b in itertools.pairwise(edges)])
    assert stats.chisquare(np.histogram(ys, edges)[0], PATHS * parts / parts.sum()).pvalue > 1e-4


def test_noisy_predators_and_prey():
    """Of V = d·x − c·ln x + b·w − a·ln w, conserved without noise, the mean grows by σ²(a + c)/2 with noise σ·u."""
    a, b, c, d, s = 1.5, 1.0, 3.0, 1.0, 0.1
    drift = lambda t, y, p: jnp.stack([a * y[0] - b * y[0] * y[1], d * y[0] * y[1] - c * y[1]])
    problem = jde.SDEProblem(drift, lambda t, y, p: s * y, jnp.ones(2), (0.0, 4.0), key=KEY)
    ys = ensemble(problem, jde.SOSRI(), 5, paths=2048, saveat=4 * TIMES, rtol=1e-3, atol=1e-3)
    x, w = ys[..., 0], ys[..., 1]
    grown = d * x - c * np.log(x) + b * w - a * np.log(w) - (d + b)
    check_means(grown, s**2 * (a + c) / 2 * 4 * T, 0.2)


HESTON = {"k": 2.0, "m": 0.04, "xi": 0.3, "rho": -0.7, "v0": 0.05, "r": 0.03, "strike": 1.0}


def heston_price(k, m, xi, rho, v0, r, strike):
    """Of a call in a year, on one unit that is worth 1, by the characteristic function of its logarithm.

    Source: Heston 1993, doi:10.1093/rfs/6.2.327, in the form of Albrecher et al. 2007 that has no jumps.
    """

    def characteristic(u):
        beta = k - rho * xi * 1j * u
        root = np.sqrt(beta**2 + xi**2 * (1j * u + u**2))
        g, decay = (beta - root) / (beta + root), np.exp(-root)
        mean = k * m / xi**2 * (beta - root - 2 * np.log((1 - g * decay) / (1 - g)))
        return np.exp(1j * u * r + mean + v0 / xi**2 * (beta - root) * (1 - decay) / (1 - g * decay))

    def probability(shift, scale):
        part = lambda u: (np.exp(-1j * u * np.log(strike)) * characteristic(u - shift * 1j) / (1j * u * scale)).real
        return 0.5 + integrate.quad(part, 1e-8, 200, limit=500)[0] / np.pi

    return probability(1, np.exp(r)) - strike * np.exp(-r) * probability(0, 1.0)


def test_the_price_of_a_call_with_two_correlated_noises():
    q = HESTON
    root = lambda y: jnp.sqrt(jnp.maximum(y[1], 0.0))
    drift = lambda t, y, p: jnp.stack([q["r"] - y[1] / 2, q["k"] * (q["m"] - y[1])])
    columns = jnp.array([[1.0, 0.0], [q["xi"] * q["rho"], q["xi"] * (1 - q["rho"] ** 2) ** 0.5]])
    start = jnp.array([0.0, q["v0"]])
    problem = jde.SDEProblem(drift, lambda t, y, p: root(y) * columns, start, (0.0, 1.0), key=KEY, noise="general")
    ys = ensemble(problem, jde.EulerMaruyama(), 6, 40_000, jde.SaveAt(t1=True), controller=jde.FixedSteps(200))
    paid = np.exp(-q["r"]) * np.maximum(np.exp(ys[:, 0, 0]) - q["strike"], 0)
    check_means(paid, heston_price(**q), 0.01)


def turns(*axes):
    """b with a column for each rotation about an axis of space."""
    generators = jnp.stack([jnp.array(np.cross(np.eye(3), np.eye(3)[i])) for i in axes])
    return lambda t, y, p: jnp.stack([g @ y for g in generators], -1)


def test_rotations_that_do_not_commute():
    """About two axes, dy = Σ Gₖy ∘ dWₖ: E y = exp(t/2 · Σ Gₖ²)·y₀, and |y| stays."""
    tol = 0.03
    still = lambda t, y, p: jnp.zeros_like(y)
    start = jnp.array([0.6, 0.48, 0.64])
    problem = jde.SDEProblem(
        still, turns(0, 2), start, (0.0, 1.0), key=KEY, noise="general", interpretation="stratonovich"
    )
    ys = ensemble(problem, jde.SPaRK(), 7, rtol=tol, atol=tol)
    decay = np.exp(-T[:, None] * np.array([0.5, 1.0, 0.5]))
    check_means(ys, (decay * np.asarray(start)).reshape(-1), 0.1)
    assert np.sqrt(np.mean((np.linalg.norm(ys, axis=-1) - 1) ** 2)) < tol


@pytest.mark.parametrize("how", ["counter", "tree", "adaptive"])
def test_values_between_steps_have_the_law_of_the_path(how):
    """Increments of W between times saved, none of which is an end of a step, are independent normals."""
    problem = jde.SDEProblem(
        lambda t, y, p: jnp.zeros_like(y), lambda t, y, p: 1.0, jnp.zeros(()), (0.0, 1.0), key=KEY, noise="additive"
    )
    times = jnp.array([0.011, 0.03, 0.31, 0.32, 0.55, 0.9997])
    steps = {"rtol": 0.1, "atol": 0.1} if how == "adaptive" else {"controller": jde.FixedSteps(7), "brownian": how}
    ws = ensemble(problem, jde.SOSRA(), 8, paths=8192, saveat=times, **steps)
    lengths = np.diff(np.concatenate([[0.0], times]))
    z = np.diff(ws, axis=1, prepend=0) / lengths**0.5
    moments(1 + z, np.ones(6), np.ones(6))
    cross = np.stack([z[:, i] * z[:, j] for i in range(6) for j in range(i)], 1)
    check_means(1 + cross, 1.0, 0.05)
    assert stats.kstest(z.reshape(-1), "norm").pvalue > 1e-4


# Rackauckas, Nie, Discrete Contin. Dyn. Syst. B 22 (2017) 2731: snail, SNAIL, miR34, their complex, zeb, ZEB, miR200,
# five complexes of both, tgf, TGF, its complex with miR200, Ecad, Ncad, OVOL2 and its protein, from rest.
OVAL2 = np.array(
    [
        *(0.128483, 1.256853, 0.0030203, 0.0027977, 0.0101511, 0.0422942, 0.2391346),
        *(0.0008014, 0.0001464, 2.67e-05, 4.8e-6, 9e-7),
        *(0.0619917, 1.2444292, 0.0486676, 199.9383546, 137.4267984, 1.5180203, 1.5180203),
    ]
)
NOISY = np.zeros(19)
NOISY[[0, 15, 16, 17]] = 0.02, 0.02, 0.02, 0.2


def oval2(t, y, args):
    """What binds to miR200 is a thousand times as fast as the rest."""
    snail, snail_p, mir34, sr, zeb, zeb_p, mir200, *bound, tgf, tgf_p, tr, ecad, ncad, ovol, ovol_p = y
    ways = 5.0, 10.0, 10.0, 5.0, 1.0
    held = sum(n * z for n, z in zip(ways, bound, strict=True))
    taken = sum(k * n * z for k, (n, z) in enumerate(zip(ways, bound, strict=True), 1))
    free_snail, free_zeb, free_tgf, free_200 = snail - sr, zeb - held, tgf - tr, mir200 - taken - tr
    up, stops = (tgf_p / 0.6) ** 2, (snail_p / 3) ** 2
    chain = [free_zeb, *bound]
    return jnp.stack(
        [
            0.0005 + 0.05 * up / (1 + up + (ovol_p / 0.5) ** 2) / (1 + snail_p / 1.8) - 0.09 * free_snail - 0.9 * sr,
            16 * free_snail - 1.6 * snail_p,
            0.001 + 0.019 / (1 + (snail_p / 0.15) ** 2 + (zeb_p / 0.35) ** 2) - 0.035 * (mir34 - sr) - 0.45 * sr,
            1000 * (100 * free_snail * (mir34 - sr) - sr),
            0.003 + 0.06 * stops / (1 + stops + (ovol_p / 0.9) ** 6) - 0.1 * free_zeb - 0.5 * held,
            16 * free_zeb - 1.66 * zeb_p,
            0.0002
            + 0.02 / (1 + (snail_p / 0.2) ** 3 + (zeb_p / 0.2) ** 2)
            - 0.035 * free_200
            - 0.25 * taken
            - 0.2 * tr,
            *(1000 * (free_200 * before - z) for before, z in itertools.pairwise(chain)),
            0.05 - 0.1 * free_tgf - tr,
            1.1 + 1.5 * free_tgf - 0.9 * tgf_p,
            1000 * (20 * free_200 * free_tgf - tr),
            5 + 15 / ((snail_p / 0.1) ** 2 + 1) + 5 / ((zeb_p / 0.3) ** 2 + 1) - 0.05 * ecad,
            5 + 2 / (1 + (0.4 / snail_p) ** 2) + 5 / (1 + (0.4 / zeb_p) ** 2) / (1 + ovol_p / 2) - 0.05 * ncad,
            0.35 + 1.2 / (1 + (zeb_p / 0.918) ** 2) - ovol,
            10 * (ovol - ovol_p),
        ]
    )


@pytest.mark.slow
def test_oval2():
    """Means against those of 8000 paths by another program, Milstein's method with 20 000 steps and fewer, ± theirs."""
    problem = jde.SDEProblem(oval2, lambda t, y, p: NOISY * y, jnp.array(OVAL2), (0.0, 1.0), key=KEY)
    ys = ensemble(problem, jde.SOSRI(), 30, 32, jde.SaveAt(t1=True), rtol=1e-2, atol=1e-3, max_steps=20_000)[:, 0]
    wanted = {  # mean and its standard error, spread
        0: (0.124115, 2.8e-5, 0.00251),
        1: (1.234695, 1.6e-4, 0.01376),
        5: (0.0442306, 4.0e-6, 0.000360),
        15: (199.968, 0.044, 3.943),
        16: (137.410, 0.029, 2.632),
        17: (1.53509, 0.0023, 0.2040),
        18: (1.53302, 0.0021, 0.1890),
    }
    assert np.all(np.isfinite(ys))
    for k, (mean, error, spread) in wanted.items():
        off = ys[:, k] - mean
        assert np.all(np.abs(off) < 6 * spread), k  # no path leaves the state at rest
        assert abs(off.mean()) < 4 * np.hypot(error, spread / len(ys) ** 0.5), k
        assert abs(ys[:, k].std() / spread - 1) < 4 / (2 * len(ys)) ** 0.5, k
