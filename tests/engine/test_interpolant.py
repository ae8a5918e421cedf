"""Interpolants are polynomials in θ: against numpy's, and at their ends."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.polynomial import polynomial

from jaxdiffeq.engine.interpolant import LOST, combine, evaluate, hermite, powers, sample, slope, weigh
from jaxdiffeq.tableaux import explicit

RNG = np.random.default_rng(0)
THETAS = np.array([0.0, 0.1, 0.5, 1.0, 1.3])
CUBIC = jnp.asarray(RNG.normal(size=(4, 2, 3)))


@pytest.mark.parametrize("degree", [0, 1, 3, 8])
def test_values_and_slopes_are_those_of_the_polynomial(degree):
    coefficients = jnp.asarray(RNG.normal(size=(degree + 1, 2, 3)))
    values, slopes = (jax.vmap(lambda theta, at=at: at(coefficients, theta))(THETAS) for at in (evaluate, slope))
    np.testing.assert_allclose(np.moveaxis(values, 0, -1), polynomial.polyval(THETAS, coefficients), rtol=1e-13)
    wanted = polynomial.polyval(THETAS, polynomial.polyder(coefficients)) if degree else np.zeros((2, 3, len(THETAS)))
    np.testing.assert_allclose(np.moveaxis(slopes, 0, -1), wanted, rtol=1e-13)


def test_a_cubic_is_known_by_its_ends():
    ends = [at(CUBIC, jnp.array(theta)) for at in (evaluate, slope) for theta in (0.0, 1.0)]
    np.testing.assert_allclose(hermite(*ends), CUBIC, rtol=1e-13, atol=1e-13)


def test_sums_leave_out_what_they_can():
    slopes = [jnp.asarray(x) for x in RNG.normal(size=(4, 3))]
    np.testing.assert_allclose(
        combine((0.5, 0, -2.0, 1), slopes), slopes[0] / 2 - 2 * slopes[2] + slopes[3], rtol=1e-15
    )
    np.testing.assert_allclose(combine((0.5, 3.0), slopes), slopes[0] / 2 + 3 * slopes[1], rtol=1e-15)  # a row is short
    np.testing.assert_array_equal(combine((), slopes), np.zeros(3))
    np.testing.assert_array_equal(combine((0, 0), slopes), np.zeros(3))
    assert combine((0, 1, 0), slopes) is slopes[1]


@pytest.mark.parametrize("dtype", [float, complex, "float32"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_weighed_sums_of_every_power(dtype, shape):
    weights, slopes = RNG.normal(size=(4, 5)), [jnp.asarray(x, dtype) for x in RNG.normal(size=(4, *shape))]
    found = weigh(weights.tolist(), slopes)
    assert found.dtype == slopes[0].dtype and found.shape == (5, *shape)
    rtol = 1e-5 if dtype == "float32" else 1e-13
    np.testing.assert_allclose(found, np.einsum("sp,s...->p...", weights, np.stack(slopes)), rtol=rtol, atol=rtol)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", ["TSIT5", "VERN7", "VERN8", "FEAGIN14"])  # weights up to 90, 1e3, 1e6 and 5e6
def test_large_weights_of_powers_cost_no_digits_in_values(name, dtype):
    """Slopes as those of smooth solutions, at the times of the stages; plain sums lose 0.6 of FEAGIN14 in float32."""
    tableau = getattr(explicit, name)
    weights = np.array([[Fraction(w) for w in row] for row in tableau.interpolant.b])
    times = np.array([*tableau.c, *tableau.interpolant.c])
    slopes = np.stack([np.cos(times), np.sin(times)], 1).astype(dtype)
    found = np.asarray(powers(tableau.interpolant, list(jnp.asarray(slopes))), float)
    thetas = [[Fraction(i, 8) ** p for p in range(1, len(found) + 1)] for i in range(9)]
    exactly = (np.array(thetas) @ weights.T).astype(float)
    off = np.abs(np.array(thetas, float) @ found - exactly @ slopes.astype(float))
    assert np.all(off < max(LOST, 400 * jnp.finfo(dtype).eps) * np.abs(exactly).sum(1).max())


def test_a_sample_at_the_end_is_the_end_and_moves_as_the_polynomial():
    t0, t1 = jnp.array(2.0), jnp.array(2.5)
    y1 = evaluate(CUBIC, jnp.array(1.0)) + 1e-9  # what the step found, which its interpolant may miss by a little
    value = lambda t: sample(CUBIC, y1, t0, t1, t)
    np.testing.assert_array_equal(value(t1), y1)
    np.testing.assert_array_equal(value(t0), CUBIC[0])
    np.testing.assert_allclose(value(jnp.array(2.1)), evaluate(CUBIC, jnp.array(0.2)), rtol=1e-13)
    for t in (2.0, 2.1, 2.5):
        wanted = slope(CUBIC, jnp.array((t - 2) / 0.5)) / 0.5
        np.testing.assert_allclose(jax.jacobian(value)(t), wanted, rtol=1e-12, atol=1e-12)
    moved = jax.jacobian(lambda y1: sample(CUBIC, y1, t0, t1, t1))(y1)
    np.testing.assert_array_equal(moved, np.zeros((2, 3, 2, 3)))  # the derivative is all the polynomial's
    np.testing.assert_array_equal(sample(CUBIC, CUBIC[0], t0, t0, t0), CUBIC[0])  # a step of no length
