"""Small linear systems: against LAPACK in twice the precision, whatever the size, the kind and the batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiffeq.algebra import lu

SIZES = (1, 2, 3, lu.SCALAR, lu.SCALAR + 1, 9, lu.ROLLED, lu.ROLLED + 1)


def system(n, dtype, batch=(), seed=0):
    rng = np.random.default_rng(seed)
    w, b = rng.normal(size=(n, n, *batch)), rng.normal(size=(n, *batch))
    if np.issubdtype(dtype, np.complexfloating):
        w, b = w + 1j * rng.normal(size=w.shape), b + 1j * rng.normal(size=b.shape)
    if n > 1:
        w[0, 0] = 0  # no pivot without an exchange
    return jnp.asarray(w.astype(dtype)), jnp.asarray(b.astype(dtype))


@jax.jit
def solved(w, b):
    factors = lu.factor(w)
    return lu.substitute(factors, b), lu.substitute(factors, b, transpose=True)


def exact(w, b):
    """x with w·x = b and its condition number, lane by lane."""
    high = np.complex128 if np.iscomplexobj(w) else np.float64
    w, b = (np.moveaxis(np.asarray(x, high).reshape(*x.shape[:k], -1), -1, 0) for x, k in ((w, 2), (b, 1)))
    return np.moveaxis(np.linalg.solve(w, b[..., None])[..., 0], 0, -1), np.linalg.cond(w).max()


@pytest.mark.parametrize(
    ("dtype", "batch"),
    [
        *((np.float64, batch) for batch in [(), (7,), (60, 2)]),
        *((np.complex128, (7,)), (np.complex64, ()), (np.float32, (60, 2))),
    ],
)
@pytest.mark.parametrize("n", SIZES)
def test_solves(n, dtype, batch):
    w, b = system(n, dtype, batch)
    plain, transposed = solved(w, b)
    for x, matrix in ((plain, w), (transposed, jnp.swapaxes(w, 0, 1))):
        truth, condition = exact(matrix, b)
        error = np.abs(np.asarray(x).reshape(truth.shape) - truth).max() / np.abs(truth).max()
        assert x.dtype == dtype
        assert error <= 4 * n * condition * np.finfo(dtype).eps


@pytest.mark.parametrize("n", SIZES)
def test_a_singular_matrix_gives_no_number(n):
    w, b = system(n, np.float64)
    w = w.at[:, -1].set(w[:, 0] if n > 1 else 0)
    x, _ = solved(w, b)
    # the last pivot is zero, or what rounding has left of it
    assert not np.all(np.abs(x) < 1e10)


@pytest.mark.parametrize("n", SIZES)
def test_a_matrix_that_needs_pivoting(n):
    """With pivots of 1e-20 on the diagonal, elimination without exchanges would lose every digit."""
    w, b = system(n, np.float64)
    if n > 1:
        w = w.at[jnp.arange(n), jnp.arange(n)].set(1e-20)
    x, _ = solved(w, b)
    truth, condition = exact(w, b)
    np.testing.assert_allclose(x, truth.reshape(x.shape), rtol=4 * n * condition * 2.0**-52, atol=1e-14)


@pytest.mark.parametrize("lanes", [5, 100])
@pytest.mark.parametrize("n", (3, 9, lu.ROLLED + 1))
def test_a_lane_is_the_single_system(n, lanes):
    """Whether all of them fit into a kernel or not."""
    w, b = system(n, np.float64, (lanes,))
    one = lambda w, b: lu.substitute(lu.factor(w), b)
    found = jax.vmap(one, in_axes=(2, 1), out_axes=1)(w, b)
    together, _ = solved(w, b)
    np.testing.assert_allclose(found, together, rtol=1e-9)
    pairs = jax.vmap(jax.vmap(one, in_axes=(2, 1), out_axes=1), in_axes=(2, 1), out_axes=1)
    np.testing.assert_allclose(
        pairs(*(x.reshape(*x.shape[:-1], 5, -1) for x in (w, b))).reshape(b.shape), together, rtol=1e-9
    )
