"""Derivatives of expectations against closed forms, within four standard errors."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiffeq as jde

KEY = jax.random.key(0)
END = jde.SaveAt(t1=True)
UNBIASED = {
    "score": jde.ScoreFunction(),
    "score without baseline": jde.ScoreFunction(baseline=None),
    "split": jde.CoupledFiniteDifferences(step=0.02),
    "common path": jde.CoupledFiniteDifferences(step=0.02, coupling="common path"),
    "hazard": jde.SmoothedPerturbation(),
}


def estimates(problem, loss, gradient, p, batches=40, paths=50, **options):
    """Value and gradient of so many batches."""
    options = {"saveat": END, **options}
    mean = lambda p, key: jde.expectation(loss, problem, args=p, key=key, paths=paths, gradient=gradient, **options)
    return jax.jit(jax.vmap(jax.value_and_grad(mean), (None, 0)))(p, jax.random.split(jax.random.key(7), batches))


def agrees(found, wanted, bias=0.0):
    found, wanted = np.asarray(found), np.asarray(wanted)
    error = found.std(0, ddof=1) / np.sqrt(len(found))
    assert (np.abs(found.mean(0) - wanted) < 4 * error + bias * np.abs(wanted)).all(), (found.mean(0), wanted, error)


@pytest.mark.parametrize("name", UNBIASED)
def test_the_mean_of_births_and_deaths(name):
    jumps = jde.MassActionJumps(lambda p: p, [[0], [1]], [[1], [-1]])
    problem = jde.JumpProblem(jde.DiscreteProblem(jnp.array([5.0]), (0.0, 2.0), jnp.array([10.0, 1.0])), jumps, key=KEY)
    p = problem.base.args
    mean = lambda p: 5 * jnp.exp(-2 * p[1]) + p[0] / p[1] * (1 - jnp.exp(-2 * p[1]))
    value, slope = estimates(problem, lambda sol: sol.y_end[0], UNBIASED[name], p)
    agrees(value, mean(p))
    agrees(slope, jax.grad(mean)(p))


@pytest.mark.parametrize("name", ["score", "split", "hazard"])
def test_a_queue(name):
    """M/M/1, not at rest: how likely it is to be longer than three at a time, from the exponential of its generator."""
    arrives = jde.ConstantRateJump(lambda t, x, args: args["in"], [1])
    leaves = jde.ConstantRateJump(lambda t, x, args: jnp.where(x[0] > 0, args["out"], 0), [-1])
    p = {"in": jnp.array(0.8), "out": jnp.array(1.0)}
    problem = jde.JumpProblem(jde.DiscreteProblem(jnp.array([2.0]), (0.0, 3.0), p), [arrives, leaves], key=KEY)

    def chance(p):
        n = 40
        up, down = jnp.eye(n, k=-1), jnp.eye(n, k=1)
        rates = p["in"] * up + p["out"] * down
        generator = rates - jnp.diag(rates.sum(0))
        return jax.scipy.linalg.expm(3 * generator)[4:, 2].sum()

    loss = lambda sol: (sol.y_end[0] > 3).astype(float)
    value, slope = estimates(problem, loss, UNBIASED[name], p, batches=60)
    agrees(value, chance(p))
    wanted = jax.grad(chance)(p)
    for key in p:
        agrees(slope[key], wanted[key], bias=0.02 if name == "split" else 0.0)


def black_scholes(spot, strike, sigma, t):
    """Of a call, without interest."""
    d = (jnp.log(spot / strike) + sigma**2 / 2 * t) / (sigma * jnp.sqrt(t))
    cdf = jax.scipy.stats.norm.cdf
    return spot * cdf(d) - strike * cdf(d - sigma * jnp.sqrt(t))


MERTON = {"rate": jnp.array(1.0), "mean": jnp.array(-0.1), "spread": jnp.array(0.2)}
SIGMA, STRIKE, TIME = 0.2, 1.0, 1.0


def merton_price(p):
    """Merton's series: Black and Scholes, given n jumps, by the Poisson law of n (J. Fin. Econ. 3 (1976) 125)."""
    kappa = jnp.exp(p["mean"] + p["spread"] ** 2 / 2) - 1
    total = 0.0
    for n in range(25):
        weight = jnp.exp(-p["rate"] * TIME) * (p["rate"] * TIME) ** n / math.gamma(n + 1)
        sigma = jnp.sqrt(SIGMA**2 + n * p["spread"] ** 2 / TIME)
        spot = jnp.exp(-p["rate"] * kappa * TIME + n * (p["mean"] + p["spread"] ** 2 / 2))
        total = total + weight * black_scholes(spot, STRIKE, sigma, TIME)
    return total


def test_a_price_by_merton():
    """The jumps of the logarithm, with the diffusion in closed form: the rate by its score, the sizes by the path."""
    sized = lambda t, y, args, key: y + args["mean"] + args["spread"] * jax.random.normal(key, dtype=y.dtype)
    jump = jde.ConstantRateJump(lambda t, y, args: args["rate"], sized)
    base = jde.ODEProblem(lambda t, y, args: 0 * y, jnp.array(0.0), (0.0, TIME), MERTON)
    problem = jde.JumpProblem(base, jump, key=KEY)

    def price(p, key):
        kappa = jnp.exp(p["mean"] + p["spread"] ** 2 / 2) - 1
        loss = lambda sol: black_scholes(jnp.exp(sol.y_end - p["rate"] * kappa * TIME), STRIKE, SIGMA, TIME)
        return jde.expectation(loss, problem, jde.Tsit5(), args=p, key=key, paths=64, saveat=END)

    value, slope = jax.jit(jax.vmap(jax.value_and_grad(price), (None, 0)))(MERTON, jax.random.split(KEY, 40))
    agrees(value, merton_price(MERTON))
    wanted = jax.grad(merton_price)(MERTON)
    for name in MERTON:
        agrees(slope[name], wanted[name])


def test_sizes_by_the_path():
    """The mean of shot noise with respect to the size of a jump and to the decay: unbiased, and without a score."""
    jump = jde.ConstantRateJump(lambda t, y, args: 3.0, lambda t, y, args: y + args["size"])
    p = {"k": jnp.array(1.0), "size": jnp.array(2.0)}
    base = jde.ODEProblem(lambda t, y, args: -args["k"] * y, jnp.array([0.0]), (0.0, 2.0), p)
    problem = jde.JumpProblem(base, jump, key=KEY)
    mean = lambda p: 3 * p["size"] / p["k"] * (1 - jnp.exp(-2 * p["k"]))
    value, slope = estimates(problem, lambda sol: sol.y_end[0], jde.Pathwise(), p, batches=20, method=jde.Tsit5())
    agrees(value, mean(p), bias=1e-3)
    for name, wanted in jax.grad(mean)(p).items():
        agrees(slope[name], wanted, bias=1e-3)


def test_a_loss_of_several_numbers_and_of_what_it_depends_on_itself():
    """A pytree of losses, for a standard error, and a loss that has the parameter in it besides."""
    jumps = jde.MassActionJumps(lambda p: p, [[0]], [[1]])
    problem = jde.JumpProblem(jde.DiscreteProblem(jnp.array([0.0]), (0.0, 1.0), jnp.array([4.0])), jumps, key=KEY)

    def mean(p):
        loss = lambda sol: (p[0] * sol.y_end[0], sol.y_end[0] ** 2)
        return jde.expectation(loss, problem, args=p, paths=4000, saveat=END)

    (first, second), slope = mean(jnp.array([4.0])), jax.jacrev(mean)(jnp.array([4.0]))
    assert abs(first - 16) < 4 * 4 * np.sqrt(4 / 4000) and abs(second - 20) < 4 * np.sqrt(300 / 4000)
    assert abs(slope[0][0] - 8) < 1 and abs(slope[1][0] - 9) < 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"gradient": jde.ReverseAD()}, "is estimated by"),
        ({"gradient": jde.Pathwise()}, "does not serve a DiscreteProblem"),
        ({"saveat": None}, "known number of rows"),
        ({"method": jde.TauLeaping()}, "does not serve leaps"),
        ({"speed": 3}, "has no field 'speed'"),
    ],
)
def test_what_is_refused(given, message):
    jumps = jde.MassActionJumps(lambda p: p, [[0]], [[1]])
    problem = jde.JumpProblem(jde.DiscreteProblem(jnp.array([0.0]), (0.0, 1.0), jnp.array([4.0])), jumps, key=KEY)
    given = {"saveat": END, **given}
    with pytest.raises((TypeError, ValueError, NotImplementedError), match=message):
        jde.expectation(lambda sol: sol.y_end[0], problem, paths=3, **given)


def test_an_equation_has_derivatives_itself():
    with pytest.raises(TypeError, match="takes a JumpProblem, but got ODEProblem"):
        jde.expectation(lambda sol: sol.y_end, jde.ODEProblem(lambda t, y, args: -y, 1.0, (0.0, 1.0)))


def test_an_affect_that_depends_on_what_is_differentiated_raises():
    jump = jde.ConstantRateJump(lambda t, x, args: args["rate"], lambda t, x, args: x + args["size"])
    p = {"rate": jnp.array(2.0), "size": jnp.array(3.0)}
    problem = jde.JumpProblem(jde.DiscreteProblem(jnp.array(0.0), (0.0, 1.0), p), jump, key=KEY)
    mean = lambda p: jde.expectation(lambda sol: sol.y_end, problem, args=p, paths=8, saveat=END)
    assert np.isfinite(jax.grad(lambda r: mean({**p, "rate": r}))(2.0))
    with pytest.raises(NotImplementedError, match="does not serve what x0 or an affect"):
        jax.grad(lambda s: mean({**p, "size": s}))(3.0)
