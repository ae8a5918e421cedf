"""A constant matrix times rows, in every mode, against the product."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiffeq.primitives.constant_matmul import constant_matmul, total

RNG = np.random.default_rng(3)
MATRIX = np.array([[1.0, 0.0, -2.0], [0.0, 0.0, 0.0]])
ROWS = RNG.normal(size=(3, 2, 4))


def product(rows):
    return jnp.tensordot(MATRIX.astype(rows.dtype), rows, 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
def test_it_is_the_product(dtype):
    rows = jnp.asarray(ROWS, dtype)
    found = constant_matmul(MATRIX, rows)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, product(rows), rtol=1e-6)
    np.testing.assert_allclose(total(rows), np.sum(ROWS, axis=0), rtol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_lanes_lie_anywhere(axis):
    lanes = jax.vmap(lambda rows: constant_matmul(MATRIX, rows), axis)(
        jnp.asarray(np.moveaxis(ROWS[None] * [[[[1.0]]], [[[2]]]], 0, axis))
    )
    np.testing.assert_allclose(lanes, [product(ROWS), 2 * product(ROWS)], rtol=1e-14)


def test_derivatives():
    cube = lambda f: lambda rows: jnp.sum(f(rows) ** 3)
    rows = jnp.asarray(ROWS[:, 0])
    for mode in (jax.grad, jax.jacfwd, jax.hessian):
        found, wanted = (mode(cube(f))(rows) for f in (lambda rows: constant_matmul(MATRIX, rows), product))
        np.testing.assert_allclose(found, wanted, rtol=1e-13, atol=1e-13)


def test_no_sum_is_left_to_a_library():
    """Neither forwards nor backwards, however many numbers a row has."""
    rows = jnp.ones((3, 5000))
    run = jax.jit(jax.value_and_grad(lambda rows: constant_matmul(MATRIX, rows)[0, 0]))
    text = run.lower(rows).compile().as_text()
    assert text is not None and "reduce" not in text and "ynn" not in text
    np.testing.assert_array_equal(run(rows)[1][:, 0], MATRIX[0])


def test_a_weight_of_zero_leaves_its_row_out():
    rows = jnp.asarray(ROWS).at[1].set(jnp.nan)
    assert np.all(np.isfinite(constant_matmul(MATRIX, rows)))
