"""Every adaptive method meets its tolerance, found by scanning `jaxdiffeq.methods`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.made import MADE
from scipy.integrate import solve_ivp

import jaxdiffeq as jde
from jaxdiffeq import methods
from jaxdiffeq.steppers.collocation import Collocation
from jaxdiffeq.steppers.explicit import ExplicitRK

METHODS = {name: m for name, m in MADE.items() if m.name == name}  # not the pairs of methods
ADAPTIVE = {name: m for name, m in METHODS.items() if m.error_order is not None}
END = jde.SaveAt(t1=True)


def lotka_volterra(t, y, args):
    x, w = y
    return jnp.stack([1.5 * x - x * w, x * w - 3 * w])


PROBLEM = jde.ODEProblem(lotka_volterra, jnp.ones(2), (0.0, 10.0))
ENDS = [9.25, 9.5, 9.75, 10.0]


@pytest.fixture(scope="module")
def reference():
    slope = lambda t, y: np.array([1.5 * y[0] - y[0] * y[1], y[0] * y[1] - 3 * y[1]])
    return solve_ivp(slope, (0, 10), [1, 1], "DOP853", ENDS, rtol=1e-13, atol=1e-13).y.T


@pytest.mark.parametrize("name", ADAPTIVE)
def test_tolerances_are_met(name, reference):
    @jax.jit
    def run(tol, end):
        sol = jde.solve(PROBLEM, ADAPTIVE[name], tspan=(0.0, end), saveat=END, rtol=tol, atol=tol)
        return sol.ys[-1], sol.result, sol.stats.accepted

    worst = []
    # the estimates of Feagin's methods compare two stages only: at loose tolerances, and with the long steps of so high
    # an order, they may miss an error altogether, and the solve ends with `nonfinite`
    for tol in (1e-4, 1e-7) if ADAPTIVE[name].order < 10 else (1e-8, 1e-11):
        ys, results, steps = zip(*(run(tol, end) for end in ENDS), strict=True)
        assert all(result == jde.Result.success for result in results)
        errors = np.abs(np.array(ys) - reference).max(1)
        # every step may err by the tolerance, and the end is about ten times as sensitive; the estimates of KenCarp5,
        # TanYam7 and RKV76IIa are small for their errors, so these are the worst, KenCarp5 at 11 times for each step
        assert errors[-1] < 20 * tol * int(steps[-1])
        worst.append(errors.max())  # at one end alone, the error may be small by chance
    # that of a first-order method goes with √tol, by 32
    assert worst[1] < worst[0] / (30 if ADAPTIVE[name].order > 1 else 20)
    assert run._cache_size() == 1  # pyright: ignore[reportAttributeAccessIssue]  # a method that JAX's stubs leave out


def test_the_arenstorf_orbit_returns():
    """Source: Hairer, Nørsett, Wanner, Solving ODEs I, II.0, eq. (0.1)."""
    mu, period = 0.012277471, 17.0652165601579625588917206249

    def field(t, y, args):
        x, v, u, w = y
        d1, d2 = ((x + mu) ** 2 + v**2) ** 1.5, ((x - 1 + mu) ** 2 + v**2) ** 1.5
        a = x + 2 * w - (1 - mu) * (x + mu) / d1 - mu * (x - 1 + mu) / d2
        b = v - 2 * u - (1 - mu) * v / d1 - mu * v / d2
        return jnp.stack([u, w, a, b])

    start = jnp.array([0.994, 0.0, 0.0, -2.00158510637908252240537862224])
    sol = jde.solve(jde.ODEProblem(field, start, (0.0, period)), jde.Vern9(), saveat=END, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(sol.ys[-1][:2], start[:2], atol=1e-6)


def test_saved_values_have_one_order_less_at_most():
    """That the stated order is there, trees show of every tableau. Of collocation it is that of the stages."""
    short = {name for name, m in METHODS.items() if m.dense_order < m.order - 1}
    assert all(isinstance(METHODS[name], Collocation) for name in short)


@pytest.fixture(scope="module")
def oscillation():
    ts = jnp.linspace(0, 10, 38)
    problem = jde.ODEProblem(lambda t, y, _: jnp.stack([y[1], -y[0]]), jnp.array([1.0, 0.0]), (0.0, 10.0))
    return problem, ts, np.stack([np.cos(ts), -np.sin(ts)], 1)


LATE = [name for name, m in ADAPTIVE.items() if m.order >= 5]


@pytest.mark.parametrize("name", LATE)
def test_saved_values_are_as_good_as_steps(name, oscillation):
    problem, ts, exact = oscillation
    for tol in (1e-5, 1e-8):
        saved = jde.solve(problem, ADAPTIVE[name], saveat=ts, rtol=tol, atol=tol).ys
        steps = jde.solve(problem, ADAPTIVE[name], saveat=jde.SaveAt(steps=True), rtol=tol, atol=tol)
        at_steps = np.abs(steps.ys - np.stack([np.cos(steps.ts), -np.sin(steps.ts)], 1)).max()
        assert np.abs(saved - exact).max() < 10 * max(at_steps, tol)


HIGH = [name for name in LATE if METHODS[name].order >= 6 and isinstance(METHODS[name], ExplicitRK)]


@pytest.mark.parametrize("name", HIGH)
def test_saved_values_lose_no_digits_in_float32(name, oscillation):
    """Weights of powers of θ are up to a million, and cancel."""
    problem, ts, exact = oscillation
    problem = problem.replace(y0=jnp.array([1.0, 0.0], "float32"), tspan=np.array([0.0, 10.0], "float32"))
    sol = jde.solve(problem, METHODS[name], saveat=ts.astype("float32"), rtol=1e-5, atol=1e-5)
    assert sol.ys.dtype == np.float32
    off = np.abs(np.asarray(sol.ys) - exact).max(1)
    assert off.max() < 1e-4 + 4 * off[-1]


@pytest.mark.smoke
def test_a_method_is_chosen_by_tolerance():
    names = [jde.recommend(PROBLEM, tol).method.name for tol in (1e-1, 1e-3, 1e-8, 1e-12)]
    assert names == [
        "Auto(Tsit5, Rosenbrock23)",
        "Auto(Tsit5, Rodas5P)",
        "Auto(Vern7, Rodas5P)",
        "Auto(Vern9, Rodas5P)",
    ]


@pytest.mark.smoke
def test_a_method_is_chosen_by_what_the_problem_is():
    large = jde.ODEProblem(lambda t, y, a: -y, jnp.ones(1000), (0.0, 1.0))
    assert jde.recommend(large).method == jde.Tsit5()
    assert "more than 200 unknowns" in jde.recommend(large).why
    assert jde.recommend(large, jac_structure=jde.Diagonal()).method.name == "Auto(Tsit5, Rodas5P)"
    massive = PROBLEM.replace(mass_matrix=jnp.array([1.0, 0.0]))
    assert jde.recommend(massive).method == jde.Rodas5P()
    assert jde.recommend(large, mass_matrix=jnp.ones(1000)).method == jde.BDF()
    split = jde.SplitODEProblem(lotka_volterra, lotka_volterra, jnp.ones(2), (0.0, 1.0))
    assert jde.recommend(split, 1e-5).method == jde.KenCarp4()
    equal = jde.solve(PROBLEM, controller=jde.FixedSteps(100), saveat=END)
    assert "Tsit5, order" in equal.explain()


@pytest.mark.parametrize("name", METHODS)
def test_names_and_claims(name):
    method = METHODS[name]
    assert repr(method) == f"{name}()"
    assert getattr(jde, name) is getattr(methods, name)
    assert method == METHODS[name]
    assert getattr(methods, name).__doc__.startswith(f"Order {method.order}")
