"""Implicit methods on equal steps: each stage is solved to rounding, with new matrices where the old ones do not do.

That every method shows its order there with no option given is in `tests/test_convergence.py`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiffeq as jde

END = jde.SaveAt(t1=True)


def lotka_volterra(t, y, p):
    return jnp.stack([y[0] * (1.5 - y[1]), y[1] * (y[0] - 3.0)])


def robertson(t, y, k):
    first, second = -0.04 * y[0] + 1e4 * y[1] * y[2], 3e7 * y[1] ** 2
    return jnp.stack([first, -first - second, second])


@functools.cache
def end(f, start, t1, method, n):
    problem = jde.ODEProblem(f, jnp.asarray(start), (0.0, t1))
    run = lambda rtol: jde.solve(problem, method, saveat=END, controller=jde.FixedSteps(n), rtol=rtol, throw=False)
    return jax.jit(lambda rtol: (lambda sol: (sol.ys[-1], sol.result, sol.stats))(run(rtol)))


@pytest.mark.parametrize("method", [jde.SDIRK2(), jde.Gauss4(), jde.SBDF2(), jde.BDF()], ids=str)
def test_no_tolerance_changes_a_step(method):
    of = end(lotka_volterra, (1.0, 1.0), 5.0, method, 50)
    loose, tight = (of(rtol)[0] for rtol in (0.1, 1e-10))
    if method == jde.BDF():  # whose order is chosen by the tolerance
        np.testing.assert_allclose(loose, tight, rtol=0.1)
    else:
        np.testing.assert_array_equal(loose, tight)


def test_a_matrix_is_made_anew_before_a_step_is_given_up():
    """The slope at the start, where all of the second species is missing, leads 1500 times too far."""
    _, result, stats = end(robertson, (1.0, 0.0, 0.0), 40.0, jde.ImplicitEuler(), 20)(1e-3)
    assert result == jde.Result.success
    assert 20 + 10 < stats.jac_evals < 20 + 50
    assert stats.jac_evals == stats.factorizations


def test_old_factors_lead_nowhere_from_where_new_ones_do_not_come_back():
    """Methods that failed at t = 0 with factors that converge, slowly, to states far from all that can be."""
    truth = {40.0: [0.715827069, 9.18553476e-6, 0.284163746], 1e5: [0.0178659211, 7.27475e-8, 0.982134006]}
    for method, t1, n, off in ((jde.SDIRK2(), 40.0, 50, 3e-4), (jde.Kvaerno5(), 1e5, 200, 3e-3)):
        y, result, _ = end(robertson, (1.0, 0.0, 0.0), t1, method, n)(1e-3)
        assert result == jde.Result.success
        np.testing.assert_allclose(y[::2], np.array(truth[t1])[::2], rtol=2 * off)


def test_a_stage_that_has_no_solution_fails():
    """SDIRK2's second stage of the step from t = 1.6, x = bx + 0.2·x·(1.5 − w) and w = bw + 0.2·w·(x − 3), of which w
    is a root of a quadratic equation that has none."""
    _, result, _ = end(lotka_volterra, (1.0, 1.0), 5.0, jde.SDIRK2(), 25)(1e-3)
    assert result == jde.Result.nonlinear_solve_failed
    h, (bx, bw) = 0.2, (5.37061533, -0.24115835)
    # w·(1 + 3h − h·x) = bw with x = bx/(1 − 1.5h + h·w)
    quadratic = np.polynomial.Polynomial([-bw, 1 + 3 * h]) * np.polynomial.Polynomial([1 - 1.5 * h, h])
    roots = (quadratic - np.polynomial.Polynomial([0, h * bx])).roots()
    assert np.all(np.abs(roots.imag) > 0.1)
    problem = jde.ODEProblem(lotka_volterra, jnp.ones(2), (0.0, 5.0))
    with pytest.raises(jde.SolveError, match=r"at t = 1\.6: .* they may have no solution near the state, or none"):
        jde.solve(problem, jde.SDIRK2(), saveat=END, controller=jde.FixedSteps(25))


def test_backward_differentiation_converges_at_the_order_of_its_first_step():
    exact = jde.solve(jde.ODEProblem(lotka_volterra, jnp.ones(2), (0.0, 5.0)), jde.Vern9(), rtol=1e-12, atol=1e-12)
    of = lambda n: end(lotka_volterra, (1.0, 1.0), 5.0, jde.BDF(), n)(1e-3)[0]
    errors = [np.abs(of(n) - exact.ys[-1]).max() for n in (100, 200, 400)]
    assert errors[0] > 3.5 * errors[1] > 3.5**2 * errors[2]


def test_nothing_is_left_to_rounding_where_everything_has_decayed():
    of = end(lambda t, y, a: -500 * y, tuple(np.ones(8, np.float32)), 2.0, jde.RadauIIA5(), 200)
    y, result, _ = of(np.float32(1e-3))
    assert result == jde.Result.success
    assert np.all(np.abs(y) < 1e-30)
