"""The parts of the continuous adjoints: quadrature rules, checkpoints, failure."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiffeq as jde
from jaxdiffeq.gradients import quadrature

P = jnp.array([1.3, 0.7])


def field(t, y, p):
    return jnp.stack([p[0] * y[1] * jnp.cos(t), -p[1] * y[0] - 0.1 * y[1] ** 3])


def loss(p, strategy, size=1.0, **options):
    options = {"saveat": np.array([0.7, 9.0, 30.0]), "rtol": 1e-8, "atol": 1e-8, "max_steps": 2048, **options}
    problem = jde.ODEProblem(field, jnp.array([1.0, -0.5]), (0.0, 30.0), args=p)
    return size * jnp.sum(jde.solve(problem, jde.Tsit5(), gradient=strategy, **options).ys ** 2)


@pytest.mark.parametrize("degree", range(0, 23, 2))
def test_quadrature_rules(degree):
    """Kronrod's 15 points integrate polynomials of degree 22 exactly, Gauss's 7 of degree 13, on [0, 1]."""
    nodes, kronrod, gauss = quadrature.mirrored(
        quadrature.KRONROD_NODES, quadrature.KRONROD_WEIGHTS, quadrature.GAUSS_WEIGHTS
    )
    exact = 1 / (degree + 1)
    assert abs(kronrod @ nodes**degree - exact) < 1e-14
    assert (abs(gauss @ nodes**degree - exact) < 1e-14) == (degree <= 13)


def test_few_checkpoints_give_the_same_gradient():
    """The forward steps are recomputed exactly, so where they are recomputed from makes no difference but rounding."""
    steps = jde.solve(
        jde.ODEProblem(field, jnp.array([1.0, -0.5]), (0.0, 30.0), args=P), jde.Tsit5(), rtol=1e-8, atol=1e-8
    ).stats.accepted
    assert steps > 4 * 32  # so that two checkpoints are thinned
    few, many = (jax.grad(loss)(P, jde.InterpolatingAdjoint(checkpoints=n)) for n in (2, None))
    assert np.allclose(few, many, rtol=1e-10)


def test_a_backward_solve_that_fails_gives_nan():
    """With tolerances at rounding it needs more steps than `max_steps` allows; the forward solve does not."""
    strategy = jde.InterpolatingAdjoint(rtol=1e-14, atol=1e-14)
    gradient = jax.grad(loss)(P, strategy, max_steps=400, rtol=1e-5, atol=1e-5, saveat=np.array([30.0]))
    assert np.all(np.isnan(gradient))


def test_a_gradient_scales_with_its_loss():
    """Absolute tolerances do not swallow small cotangents: 2⁻⁶⁰ changes no bit but the exponent's."""
    strategy = jde.GaussAdjoint()
    size = 2.0**-60
    one, small = (jax.grad(loss)(P, strategy, s) for s in (1.0, size))
    assert np.array_equal(small, size * one)


@pytest.mark.parametrize("wrong", [{"rtol": -1.0}, {"atol": 0.0}])
def test_bad_options_are_refused(wrong):
    with pytest.raises(ValueError, match="must be a positive number"):
        jde.GaussAdjoint(**wrong)
    with pytest.raises(ValueError, match="checkpoints"):
        jde.InterpolatingAdjoint(checkpoints=0)
