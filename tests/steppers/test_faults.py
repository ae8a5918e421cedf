"""Inner solves that fail at random: the steps are refused, and the answer is right or called a failure."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiffeq as jde
from jaxdiffeq.algebra import newton
from jaxdiffeq.steppers import rosenbrock

RATES = jnp.array([0.04, 3e7, 1e4])
AT_40 = np.array([0.7158270688, 9.185534764e-6, 0.2841637457])  # of the IVP test set
METHODS = [
    *(jde.Rosenbrock23(), jde.Rodas5P(), jde.ImplicitEuler(), jde.TRBDF2(), jde.Kvaerno5(), jde.KenCarp4()),
    *(jde.RadauIIA5(), jde.BDF()),
]


def lucky(x, limit=0.8):
    """One in five is not: digits far behind decide."""
    return jnp.sin(1e12 * x[0]) < limit


@pytest.fixture
def faults(monkeypatch):
    iterate, solve = newton._iterate, rosenbrock.solve

    def bad_iterate(*args):
        found = iterate(*args)
        good = lucky(found.z)
        return found._replace(z=jnp.where(good, found.z, jnp.nan), ok=found.ok & good)

    def bad_solve(*args):
        x = solve(*args)
        return x * jnp.where(lucky(jax.lax.stop_gradient(x), 0.995), 1, jnp.nan)  # one in thirty of up to eight a step

    monkeypatch.setattr(newton, "_iterate", bad_iterate)
    monkeypatch.setattr(rosenbrock, "solve", bad_solve)


def robertson():
    """A new function each time: no program that knows no faults is taken again."""

    def f(t, y, k):
        first, second = -k[0] * y[0] + k[2] * y[1] * y[2], k[1] * y[1] ** 2
        return jnp.stack([first, -first - second, second])

    return jde.ODEProblem(f, jnp.array([1.0, 0.0, 0.0]), (0.0, 40.0), RATES)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_faults_are_refused_and_survived(faults, method):
    rtol = 1e-3 if method == jde.ImplicitEuler() else 1e-5
    solution = jde.solve(robertson(), method, saveat=jde.SaveAt(t1=True), rtol=rtol, atol=1e-6 * rtol)
    assert solution.status == "success"
    assert solution.stats.rejected_solver > 5
    np.testing.assert_allclose(solution.ys[0], AT_40, rtol=100 * rtol)
    np.testing.assert_allclose(np.sum(solution.ys[0]), 1, rtol=1e-9)


@pytest.mark.parametrize("method", [jde.Rodas4(), jde.Kvaerno3()], ids=str)
def test_their_nan_reaches_no_gradient(faults, method):
    """Compared with a gradient that never met a fault: both are right to the tolerance."""

    def end(problem, method, k):
        return jde.solve(problem, method, args=k, saveat=jde.SaveAt(t1=True), rtol=1e-7, atol=1e-12).ys[0, 2]

    found = jax.jit(jax.grad(functools.partial(end, robertson(), method)))(RATES)
    h = 1e-4
    explicit = jax.jit(functools.partial(end, robertson(), jde.Tsit5()))
    ends = [(explicit(RATES * (1 + h * e)) - explicit(RATES * (1 - h * e))) / (2 * h) for e in jnp.eye(3)]
    np.testing.assert_allclose(found, np.array(ends) / RATES, rtol=1e-3)


def test_a_solve_that_always_fails_is_a_failure(monkeypatch):
    iterate = newton._iterate
    monkeypatch.setattr(newton, "_iterate", lambda *args: iterate(*args)._replace(ok=jnp.array(False)))
    solution = jde.solve(robertson(), jde.Kvaerno3(), throw=False, saveat=jde.SaveAt(t1=True))
    assert solution.status == "nonlinear_solve_failed"
    assert np.all(np.isnan(solution.ys))
