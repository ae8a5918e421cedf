"""One equation, posed as each kind: all that methods and gradients ask has the answer that mathematics gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiffeq.algebra import structure
from jaxdiffeq.problems.vector_field import MassField, ResidualField, SplitField, VectorField
from jaxdiffeq.types import Context

T, C = jnp.array(0.3), jnp.array(2.5)
Y, X, ARGS = jnp.array([[0.4, -0.7]]), jnp.array([0.2, 0.9]), jnp.array([1.3, 0.6])
FULL, DIAGONAL = jnp.array([[2.0, 0.3], [0.1, 0.5]]), jnp.array([2.0, 0.5])


def slope(t, y, args):
    """y′, [1, 2], which depends on all it may."""
    u, v = y[0]
    return jnp.stack([args[0] * v - u**2 + t, jnp.sin(u * v) * args[1] - t * v])[None]


def pushed(mass, y):
    return (mass * y[0] if mass.ndim == 1 else mass @ y[0])[None]


def with_mass(mass):
    return MassField(lambda t, y, args: pushed(mass, slope(t, y, args)), matrix_of=lambda args: mass)


def residual(t, y, dy, args):
    return pushed(FULL, dy - slope(t, y, args))


KINDS = {
    "slope": (VectorField(slope), jnp.eye(2)),
    "split": (
        SplitField(
            slope,
            implicit=lambda t, y, args: slope(t, y, args) - y,
            explicit=lambda t, y, args: y,
        ),
        jnp.eye(2),
    ),
    "full mass": (with_mass(FULL), FULL),
    "diagonal mass": (with_mass(DIAGONAL), jnp.diag(DIAGONAL)),
    "residual": (
        ResidualField(lambda t, y, args: -residual(t, y, jnp.zeros_like(y), args), residual=residual),
        FULL,
    ),
}
each = pytest.mark.parametrize("name", KINDS)
close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-12)


def jacobian(mass):
    """∂f/∂y of M·y′ = f."""
    return mass @ jax.jacfwd(lambda v: slope(T, v[None], ARGS)[0])(Y[0])


def total(field):
    """Of the terms."""
    implicit, explicit = field.terms
    return implicit.velocity(T, Y, ARGS) + (0 if explicit is None else explicit(T, Y, ARGS))


@each
def test_the_slope_is_that_of_the_equation(name):
    field, _ = KINDS[name]
    dy = slope(T, Y, ARGS)
    close(field.velocity(T, Y, ARGS), dy)
    vector = field.whole.on_vectors(Y)
    close(vector.defect(T, Y[0], dy[0], ARGS), np.zeros(2))
    close(vector.derivative(T, Y[0], ARGS), dy[0])
    close(total(field), dy)


@each
def test_the_matrices_are_those_of_newtons_method(name):
    field, mass = KINDS[name]
    vector, dv, j = field.whole.on_vectors(Y), slope(T, Y, ARGS)[0], jacobian(mass)
    algebra = vector.algebra
    one = vector.matrix(C, ARGS, vector.tangent(T, Y[0], dv, C, ARGS))
    close(algebra.times(one, X), (C * mass - j) @ X)
    cs = [C, 3 * C]
    several = vector.matrices(cs, ARGS, vector.tangents(T, Y[0], dv, cs, ARGS))
    for c, w in zip(cs, several, strict=True):
        close(algebra.times(w, X), (c * mass - j) @ X)
    of_state, inertia = vector.pair(vector.pencil(T, Y[0], dv, ARGS), ARGS)
    close(algebra.times(of_state, X), j @ X)
    close(structure.times(algebra, inertia, X), mass @ X)
    close(vector.inertia(T, Y[0], ARGS, X), mass @ X)


@each
def test_the_adjoint_has_the_transposes(name):
    field, mass = KINDS[name]
    dy, lam = slope(T, Y, ARGS), X[None]
    close(field.momentum(T, Y, dy, ARGS, lam), (mass.T @ X)[None])
    assert field.diagonal(ARGS) == (name in ("slope", "split", "diagonal mass"))
    _, pull = jax.vjp(lambda y, args: field.balance(T, y, dy, args, ARGS), Y, ARGS)
    of_state, of_args = pull(lam)
    close(of_state, (jacobian(mass).T @ X)[None])
    close(of_args, jax.jacfwd(lambda args: slope(T, Y, args)[0])(ARGS).T @ mass.T @ X)


def test_a_mass_that_is_a_parameter_has_a_cotangent():
    """−λᵀ·dM·y′, although what is differentiated is zero."""
    field = MassField(lambda t, y, args: pushed(FULL, slope(t, y, ARGS)), matrix_of=lambda args: args)
    dy = field.slope_felt(T, Y, None, FULL, [FULL])
    _, pull = jax.vjp(lambda mass: field.balance(T, Y, dy, mass, FULL), FULL)
    close(pull(X[None])[0], -jnp.outer(X, slope(T, Y, ARGS)[0]))
    assert field.slope_felt(T, Y, None, FULL, [ARGS]) is None


@each
def test_another_clock_moves_all_of_it(name):
    field, _ = KINDS[name]
    moved = field.at(lambda t: t + 0.2, Context(0))
    assert field.at(None, Context(0)) is field
    close(moved.velocity(T, Y, ARGS), slope(T + 0.2, Y, ARGS))
    close(moved.whole.on_vectors(Y).derivative(T, Y[0], ARGS), slope(T + 0.2, Y, ARGS)[0])
    close(total(moved), slope(T + 0.2, Y, ARGS))


@pytest.mark.parametrize("mass", [FULL, DIAGONAL], ids=["full", "diagonal"])
def test_complex_numbers_are_real_vectors(mass):
    rate, y = 1.3j - 0.4, jnp.array([0.3 + 0.2j, -0.5j])
    field = MassField(lambda t, y, args: rate * y, matrix_of=lambda args: mass)
    vector = field.on_vectors(y)
    v, full = jnp.concatenate([y.real, y.imag]), mass if mass.ndim == 2 else jnp.diag(mass)
    expected = jnp.linalg.solve(full.astype(complex), rate * y)
    close(field.velocity(T, y, ARGS), expected)
    close(vector.defect(T, v, jnp.concatenate([expected.real, expected.imag]), ARGS), np.zeros(4))
    close(vector.inertia(T, v, ARGS, v), jnp.kron(jnp.eye(2), full) @ v)
