"""One step of every explicit method, against the matrices of its tableau."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiffeq.engine.interpolant import evaluate, slope
from jaxdiffeq.steppers.explicit import UNSEEN, ExplicitRK
from jaxdiffeq.tableaux import explicit
from jaxdiffeq.tableaux.explicit import ButcherTableau
from jaxdiffeq.types import State

METHODS = {name: ExplicitRK(tab) for name, tab in vars(explicit).items() if isinstance(tab, ButcherTableau)}
EPS = 2.0**-52
T0, DT = jnp.array(0.3), jnp.array(0.125)

every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())


def taken(method, f, y):
    start = State(T0, y, method.init(f, T0, y, ()))
    return method.step(f, start, T0 + DT, ())


def matrix(tab):
    a = np.zeros((tab.stages, tab.stages))
    for i, row in enumerate(tab.a):
        a[i, :i] = row
    return a


@every_method
def test_f_is_called_as_often_as_is_declared(method):
    calls = []

    def f(t, y, args):
        calls.append(t)
        return jnp.cos(t) - y

    counted = []
    step = taken(method, f, jnp.ones(2))
    counted.append(len(calls) - 1)
    method.polynomial(f, step.dense, ())
    counted.append(len(calls) - 1 - counted[0])
    assert (1, *counted) == method.evaluations
    assert bool(step.ok) is True and step.after.t == T0 + DT


@every_method
def test_a_state_that_has_no_slope_is_refused(method):
    """Else no later step could be taken. Where the new state is no stage, no stage says so."""
    f = lambda t, y, args: -y
    y1 = taken(method, f, jnp.ones(2)).after.y
    error = taken(method, lambda t, y, args: jnp.where(y == y1, jnp.nan, -y), jnp.ones(2)).error
    assert error is None or np.all(np.isnan(error))


@every_method
def test_a_linear_equation(method):
    """k = (1 − z·A)⁻¹·λ·y for z = λ·dt, which gives the state, the error estimate and the memory."""
    tab, lam = method.tableau, np.array([-1.0, 2.0, 0.5j])
    y = np.array([1.0, -0.5, 2.0 + 0j])
    step = taken(method, lambda t, y, args: jnp.asarray(lam) * y, jnp.asarray(y))
    a = matrix(tab)
    k = np.stack(
        [
            np.linalg.solve(np.eye(tab.stages) - z * a, np.full(tab.stages, z * x))
            for z, x in zip(lam * float(DT), y, strict=True)
        ]
    )
    # some 20·stages operations, on intermediate results whose size the weights decide
    size = np.abs(k) @ (np.abs(a).sum(0) + np.abs(tab.b)) + np.abs(y)
    slack = 20 * tab.stages * EPS * size
    np.testing.assert_array_less(np.abs(step.after.y - (y + k @ np.array(tab.b))), slack)
    np.testing.assert_array_less(np.abs(step.after.memory - lam * (y + k @ np.array(tab.b))), 3 * slack)
    if tab.e is None:
        assert step.error is None and method.error_order is None
        return
    weighed = lambda fine, coarse: fine * np.abs(fine) / np.sqrt(np.abs(fine) ** 2 + 0.01 * np.abs(coarse) ** 2)
    error = k @ np.array(tab.e)
    if tab.e3 is not None:
        error = weighed(error, k @ np.array(tab.e3))
    if tab.null_rules is not None:
        with_last = np.concatenate([k, (lam * float(DT) * (y + k @ np.array(tab.b)))[:, None]], 1)
        fine, coarse = (with_last @ np.array(weights) for weights in tab.null_rules)
        unseen = weighed(UNSEEN * fine, coarse)
        error = np.where(np.abs(unseen) > np.abs(error), unseen, error)
    np.testing.assert_array_less(np.abs(step.error - error), slack + 20 * tab.stages * EPS * np.abs(k) @ np.abs(tab.e))


@every_method
def test_a_quadrature(method):
    """Where f depends on t alone, the step is the rule Σᵢ bᵢ·f(t₀ + cᵢ·dt)."""
    step = taken(method, lambda t, y, args: jnp.exp(3 * t) * jnp.ones_like(y), jnp.zeros(1))
    tab = method.tableau
    wanted = float(DT) * np.dot(tab.b, np.exp(3 * (float(T0) + np.array(tab.c) * float(DT))))
    np.testing.assert_allclose(step.after.y[0], wanted, rtol=20 * tab.stages * EPS * np.abs(tab.b).sum())
    np.testing.assert_allclose(step.after.memory[0], np.exp(3 * float(T0 + DT)), rtol=8 * EPS)


@every_method
def test_the_interpolant_joins_the_ends(method):
    """In value; and in slope if the tableau tells of none."""
    f = lambda t, y, args: jnp.cos(3 * t) - y**2
    y = jnp.array([1.0, -0.5])
    step = taken(method, f, y)
    coefficients = method.polynomial(f, step.dense, ())
    assert coefficients.shape == (method.degree + 1, 2)
    np.testing.assert_array_equal(evaluate(coefficients, jnp.array(0.0)), y)
    dense = method.tableau.interpolant
    # Σₚ bᵢₚ is bᵢ up to half an ulp of each weight, and the weights of some methods are large
    weights = 4.0 if dense is None else float(np.abs(np.array(dense.b, float)).sum())
    slack = 8 * EPS * (2 + float(DT) * weights)
    np.testing.assert_allclose(evaluate(coefficients, jnp.array(1.0)), step.after.y, rtol=0, atol=slack)
    if dense is None:
        for theta, t, end in ((0.0, T0, y), (1.0, T0 + DT, step.after.y)):
            found = slope(coefficients, jnp.array(theta)) / DT
            np.testing.assert_allclose(found, f(t, end, ()), rtol=0, atol=16 * EPS / float(DT))


def test_a_tableau_makes_the_method():
    tab = explicit.TSIT5
    assert ExplicitRK(tab) == ExplicitRK(tab) and hash(ExplicitRK(tab)) == hash(ExplicitRK(tab))
    assert ExplicitRK(tab) != ExplicitRK(explicit.BS3)
    unsure = ExplicitRK(dataclasses.replace(tab, dense=None))
    assert (unsure.degree, unsure.dense_order, unsure.evaluations[2]) == (4, 4, 1)
