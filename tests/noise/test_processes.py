"""Random processes: their laws at any times, their gradients, and equations that they drive."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiffeq as jde
from jaxdiffeq.noise import processes
from jaxdiffeq.problems.random import RODEProblem

N = 10_000
KEYS = jax.random.split(jax.random.key(1), N)
SPAN = 1.0, 3.0
TS = np.array([1.0, 1.2, 1.203, 2.0, 2.9, 3.0])
TAU = TS - 1
LEAST, SUM, GAP = np.minimum.outer(TAU, TAU), np.add.outer(TAU, TAU), np.abs(np.subtract.outer(TAU, TAU))
OMEGA = jnp.linspace(0.1, 5.0, 40)
POWER = jnp.exp(-OMEGA)
WAVES = np.asarray(POWER * jnp.gradient(OMEGA)) @ np.cos(np.multiply.outer(OMEGA, GAP)).reshape(40, -1)

LAWS = {  # the process, a function of its values, their mean and their covariance
    "motion": (processes.BrownianMotion(2.0, 0.5, 1.0), None, 1 + TAU / 2, 4 * LEAST),
    "relaxing": (
        processes.OrnsteinUhlenbeck(1.5, 0.3, 0.7, 1.0),
        None,
        0.3 + 0.7 * np.exp(-1.5 * TAU),
        0.49 / 3 * (np.exp(-1.5 * GAP) - np.exp(-1.5 * SUM)),
    ),
    "geometric": (
        processes.GeometricBrownianMotion(0.1, 0.3, 2.0),
        lambda x: np.log(x / 2),
        0.055 * TAU,
        0.09 * LEAST,
    ),
    "bridge": (processes.BrownianBridge(1.0, 2.0, 1.5), None, 1 + TAU / 2, 2.25 * (LEAST - np.outer(TAU, TAU) / 2)),
    "counts": (processes.CompoundPoisson(3.0), None, 3 * TAU, 3 * LEAST),
    "waves": (processes.Spectral(OMEGA, POWER), None, 0 * TAU, WAVES.reshape(6, 6)),
}


@pytest.mark.parametrize("name", LAWS)
def test_laws(name):
    """Means and covariances at six times within four standard errors."""
    process, seen, mean, covariance = LAWS[name]
    x = np.asarray(jax.jit(jax.vmap(lambda key: process.realised(key, *SPAN)(jnp.asarray(TS))))(KEYS))
    x = x if seen is None else seen(x)
    rest = x - mean
    products = rest[:, :, None] * rest[:, None, :] - covariance
    for sample in (rest, products):
        assert np.all(np.abs(sample.mean(0)) <= 4 * sample.std(0) / N**0.5 + 1e-12)


def test_correlated():
    matrix = jnp.array([[1.0, 0.8], [0.8, 2.0]])
    process = processes.Correlated(processes.BrownianMotion(jnp.ones(2)), matrix)
    x = np.asarray(jax.jit(jax.vmap(lambda key: process.realised(key, *SPAN)(2.0)))(KEYS))
    products = x[:, :, None] * x[:, None, :] - np.asarray(matrix)
    assert np.all(np.abs(products.mean(0)) < 4 * products.std(0) / N**0.5)


def test_gradients_of_a_path():
    """By every parameter, at a rate of zero too, where the process is a Brownian motion."""
    start = processes.OrnsteinUhlenbeck(1.5, 0.3, 0.7, 1.0)
    value = jax.jit(lambda process: process.realised(KEYS[0], *SPAN)(2.2345))
    slope = jax.jit(jax.grad(lambda process: process.realised(KEYS[0], *SPAN)(2.2345)))
    for process in (start, dataclasses.replace(start, rate=0.0)):
        for name in ("rate", "mean", "volatility", "start"):
            at = getattr(process, name)
            near = [value(dataclasses.replace(process, **{name: at + e})) for e in (1e-4, -1e-4)]
            np.testing.assert_allclose(getattr(slope(process), name), (near[0] - near[1]) / 2e-4, rtol=1e-5, atol=1e-7)


def relaxes(t, y, w, args):
    return args * (w - y)


def test_equations_that_they_drive():
    """Any method at any steps follows one path; the mean and variance are those of the linear equation."""
    noise = processes.OrnsteinUhlenbeck(1.0, 0.5, 0.8)
    problem = RODEProblem(relaxes, 1.0, (0.0, 1.0), 2.0, noise=noise)
    fixed = {"controller": jde.FixedSteps(64)}
    heun = jax.jit(lambda key, k: jde.solve(problem, jde.Heun(), key=key, args=k, **fixed).ys[-1])
    tight = jde.solve(problem, jde.Tsit5(), key=KEYS[0], rtol=1e-4, atol=1e-4, max_steps=10_000).ys[-1]
    assert abs(heun(KEYS[0], 2.0) - tight) < 5e-3
    slope = jax.jit(jax.grad(heun, 1))(KEYS[0], 2.0)
    near = (heun(KEYS[0], 2.0 + 1e-5) - heun(KEYS[0], 2.0 - 1e-5)) / 2e-5
    np.testing.assert_allclose(slope, near, rtol=1e-6)
    ends = np.asarray(jax.vmap(lambda key: heun(key, 2.0))(KEYS[:2000]))
    mean = np.exp(-2.0) + 0.5 * (1 - 2 * np.exp(-1.0) + np.exp(-2.0))  # of X: ½(1 − e⁻ᵗ)
    assert abs(ends.mean() - mean) < 4 * ends.std() / 2000**0.5 + 1e-3


def test_jumps_are_landed_on():
    """dy/dt = N(t): exact, and with the derivative by the rate that each time τᵢ ∝ 1/rate has."""
    counts = lambda rate: processes.CompoundPoisson(rate, most=32)
    total = lambda t, y, w, args: w
    of_rate = lambda rate: jde.solve(RODEProblem(total, 0.0, (0.0, 2.0), noise=counts(rate), key=KEYS[3]), jde.Tsit5())
    times = np.asarray(counts(6.0).realised(KEYS[3], 0.0, 2.0).known["times"])
    times = times[times < 2.0]
    assert times.size > 2
    np.testing.assert_allclose(of_rate(6.0).ys[-1], np.sum(2.0 - times), rtol=1e-12)
    np.testing.assert_allclose(jax.grad(lambda rate: of_rate(rate).ys[-1])(6.0), np.sum(times) / 6.0, rtol=1e-10)
    few = RODEProblem(total, 0.0, (0.0, 2.0), noise=processes.CompoundPoisson(6.0, most=2), key=KEYS[3])
    assert jde.solve(few, jde.Tsit5(), throw=False).result == jde.Result.event_limit_reached


def test_what_raises():
    with pytest.raises(TypeError, match="`noise` must be a process"):
        RODEProblem(relaxes, 1.0, (0.0, 1.0), noise="diagonal")
    with pytest.raises(ValueError, match="needs a key"):
        jde.solve(RODEProblem(relaxes, 1.0, (0.0, 1.0), 2.0, noise=processes.BrownianMotion()), jde.Tsit5())
    with pytest.raises(ValueError, match="no span yet"):
        processes.BrownianMotion().realised(KEYS[0])(0.5)
