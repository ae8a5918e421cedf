"""A linear map with a transpose of our choosing keeps it under every transformation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiffeq.primitives.linear_call import linear_call

A = jnp.array([[1.0, 2.0], [3.0, 5.0]])
X = jnp.array([0.3, -0.7])
BAR = jnp.array([1.0, -2.0])


def cubed(x):
    """x³ with its derivative by `linear_call`; the transpose is written by hand, with a factor that gives it away."""

    @jax.custom_jvp
    def f(x):
        return x**3

    def rule(primals, tangents):
        (x,), (d,) = primals, tangents
        fun = lambda x, d: 3 * x**2 * d
        back = lambda x, bar: 5.0 * (3 * x**2 * bar)
        return f(x), linear_call(fun, back, x, d)

    f.defjvp(rule)
    return f(x)


def test_forward_runs_the_map_and_reverse_the_transpose():
    assert np.allclose(jax.jvp(cubed, (X,), (BAR,))[1], 3 * X**2 * BAR)
    assert np.allclose(jax.vjp(cubed, X)[1](BAR)[0], 5 * 3 * X**2 * BAR)


def test_under_vmap_and_jit():
    xs = jnp.stack([X, 2 * X, -X])
    wanted = 15 * xs**2
    total = lambda x: jnp.sum(cubed(x))
    assert np.allclose(jax.jit(jax.vmap(jax.grad(total)))(xs), wanted)
    assert np.allclose(jax.grad(lambda xs: jnp.sum(jax.vmap(cubed)(xs)))(xs), wanted)
    assert np.allclose(jax.jacfwd(cubed)(X), jnp.diag(3 * X**2))
    assert np.allclose(jax.jacrev(cubed)(X), jnp.diag(15 * X**2))


def test_forward_over_reverse_is_the_derivative_of_the_transpose():
    assert np.allclose(jax.hessian(lambda x: jnp.sum(cubed(x)))(X), jnp.diag(30 * X))


@pytest.mark.parametrize("inner", [jax.jacfwd, jax.grad])
def test_reverse_over_anything_says_what_to_do(inner):
    with pytest.raises(NotImplementedError, match=r"jax\.hessian"):
        jax.jacrev(inner(lambda x: jnp.sum(cubed(x))))(X)


def test_what_is_closed_over_is_a_residual():
    def f(a, x):
        return linear_call(lambda _, d: a @ d, lambda _, bar: a.T @ bar, (), x)

    assert np.allclose(jax.grad(lambda x: f(A, x) @ BAR)(X), A.T @ BAR)
    assert np.allclose(jax.vmap(f, (0, None))(jnp.stack([A, 2 * A]), X), jnp.stack([A @ X, 2 * A @ X]))
    assert np.allclose(jax.jvp(lambda a: f(a, X), (A,), (A,))[1], A @ X)
