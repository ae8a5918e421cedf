"""Equations with noise from end to end: one key is one path, whoever asks; laws, derivatives, messages."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiffeq as jde

KEY = jax.random.key(7)
END = jde.SaveAt(t1=True)
ARGS = jnp.array([0.3, 0.5])


def grows(t, y, args):
    return args[0] * y


def shakes(t, y, args):
    return args[1] * y


GBM = jde.SDEProblem(grows, shakes, jnp.array([1.0, 2.0]), (0.0, 1.0), ARGS, key=KEY)
EQUAL = jde.FixedSteps(16)
EULER = jde.EulerMaruyama()


def exact(w, t, args=ARGS):
    """Geometric Brownian motion, dy = a·y dt + b·y dW."""
    return jnp.exp((args[0] - args[1] ** 2 / 2) * t + args[1] * w) * jnp.array([[1.0, 2.0]])


# ---- one key is one path


def ends(key, args=ARGS, gradient=None):
    how = {} if gradient is None else {"gradient": gradient}
    return jde.solve(GBM, EULER, key=key, args=args, controller=EQUAL, saveat=END, **how).ys[-1]


def test_a_path_is_the_same_however_it_is_run():
    eager, jitted = ends(KEY), jax.jit(ends)(KEY)
    lanes = jax.vmap(ends)(jax.random.split(KEY, 3))
    np.testing.assert_array_equal(eager, jitted)
    np.testing.assert_array_equal(lanes[1], jax.jit(ends)(jax.random.split(KEY, 3)[1]))
    legacy = jax.random.wrap_key_data(jax.random.PRNGKey(3))
    np.testing.assert_array_equal(ends(jax.random.PRNGKey(3)), ends(legacy))
    assert not np.array_equal(eager, ends(jax.random.key(8)))


def test_gradients_take_the_same_path_again():
    loss = lambda args, gradient: jnp.sum(jnp.sin(ends(KEY, args, gradient)))
    reverse, forward = (jax.grad(loss)(ARGS, g) for g in (jde.ReverseAD(), jde.ForwardAD()))
    np.testing.assert_allclose(reverse, forward, rtol=1e-12)
    h = 1e-5
    near = [(loss(ARGS.at[i].add(h), None) - loss(ARGS.at[i].add(-h), None)) / (2 * h) for i in range(2)]
    np.testing.assert_allclose(reverse, jnp.stack(near), rtol=1e-8)
    hessian = jax.hessian(lambda args: loss(args, None))(ARGS)
    np.testing.assert_allclose(hessian, hessian.T, rtol=1e-10)


@functools.partial(jax.jit, static_argnames=("tree", "n"))
def along(key, tree, n, tol=1e-2):
    how: dict[str, Any] = {"controller": jde.FixedSteps(n), "brownian": "tree"} if n else {"rtol": tol, "atol": tol}
    saveat = jnp.linspace(0.0, 1.0, 5) ** 1.5
    sol = jde.solve(GBM, jde.SOSRI(), key=key, saveat=saveat, max_steps=1000, **how)
    return sol.ys, exact(sol.brownian(sol.ts), sol.ts[:, None]), sol.stats.accepted, sol.ok


@pytest.mark.parametrize("n", [0, 32])
def test_solves_follow_the_path_that_they_show(n):
    """Strong error against the closed form at the path's own W, at steps and between them."""
    ys, right, steps, ok = jax.vmap(lambda key: along(key, True, n))(jax.random.split(KEY, 64))
    assert jnp.all(ok)
    error = jnp.sqrt(jnp.mean((ys - right) ** 2, (0, 2)))
    assert error[0] == 0
    assert jnp.all(error[1:] < 0.02), error
    if n == 0:
        finer, same, more, _ = jax.vmap(lambda key: along(key, True, n, 1e-3))(jax.random.split(KEY, 64))
        np.testing.assert_allclose(same, right, rtol=1e-12)  # one path at both tolerances
        assert jnp.mean(more) > 1.5 * jnp.mean(steps)
        assert jnp.sqrt(jnp.mean((finer - right) ** 2)) < 0.4 * jnp.sqrt(jnp.mean((ys - right) ** 2))
