"""`FixedSteps(n)` is a plain scan: bit-equal to one written by hand, in values and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxdiffeq as jde

END = jde.SaveAt(t1=True)
WEIGHTS = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3))) / 2
START = jnp.array([0.3, -0.2, 0.5])


def layer(t, y, w):
    return jnp.tanh(w @ y)


def timed(t, y, w):
    return jnp.tanh(w @ y) * jnp.cos(t)


def euler(f, y, w, n, t1):
    def block(y, i):
        return y + (t1 / n) * f(i * (t1 / n), y, w), None

    return lax.scan(block, y, jnp.arange(n, dtype=float))[0]


def rk4(f, y, w, n, t1):
    h = t1 / n

    def step(y, i):
        t = i * h
        k1 = f(t, y, w)
        k2 = f(t + h / 2, y + h / 2 * k1, w)
        k3 = f(t + h / 2, y + h / 2 * k2, w)
        k4 = f(t + h, y + h * k3, w)
        return y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), None

    return lax.scan(step, y, jnp.arange(n, dtype=float))[0]


def march(f, y, w, n, t1, method, **options):
    problem = jde.ODEProblem(f, y, (0.0, t1), w)
    return jde.solve(problem, method, controller=jde.FixedSteps(n), saveat=END, **options).ys[-1]


def value_and_gradient(final):
    return jax.jit(jax.value_and_grad(lambda y, w: jnp.sum(final(y, w) ** 2), (0, 1)))(START, WEIGHTS)


def test_a_residual_network_is_euler_to_the_bit():
    ours = value_and_gradient(lambda y, w: march(layer, y, w, 8, 2.0, jde.Euler()))
    theirs = value_and_gradient(lambda y, w: euler(layer, y, w, 8, 2.0))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.parametrize("f", [layer, timed])
def test_rk4_by_hand(f):
    ours = value_and_gradient(lambda y, w: march(f, y, w, 16, 2.0, jde.RK4()))
    theirs = value_and_gradient(lambda y, w: rk4(f, y, w, 16, 2.0))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-14, atol=1e-15), ours, theirs)


def test_it_is_a_scan_and_nothing_else():
    text = str(jax.make_jaxpr(lambda y, w: march(layer, y, w, 8, 2.0, jde.RK4()))(START, WEIGHTS))
    assert "scan[" in text
    assert "while" not in text


@pytest.mark.parametrize("n", [1, 3, 5, 16, 37])
@pytest.mark.parametrize("memory", [None, "all", "sqrt", 5])
def test_memory_changes_no_number(memory, n):
    ours = value_and_gradient(
        lambda y, w: march(layer, y, w, n, 2.0, jde.Euler(), gradient=jde.ReverseAD(memory=memory))
    )
    theirs = value_and_gradient(lambda y, w: euler(layer, y, w, n, 2.0))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-14, atol=1e-15), ours, theirs)


def test_memory_bounds_what_the_backward_pass_keeps():
    y, w = jnp.ones((4096,)), jnp.ones((4096,))

    def used(memory):
        def loss(w):
            f = lambda t, y, w: jnp.tanh(w * y)
            return jnp.sum(march(f, y, w, 400, 1.0, jde.Euler(), gradient=jde.ReverseAD(memory=memory)))

        analysis = jax.jit(jax.grad(loss)).lower(w).compile().memory_analysis()
        assert analysis is not None
        return analysis.temp_size_in_bytes

    assert used("sqrt") < used("all") / 4


def test_every_step_is_saved():
    problem = jde.ODEProblem(layer, START, (0.0, 2.0), WEIGHTS)
    sol = jde.solve(problem, jde.Euler(), controller=jde.FixedSteps(8))
    np.testing.assert_allclose(sol.ts, np.linspace(0, 2, 9), rtol=1e-15)
    assert sol.ys.shape == (9, 3)
    for k in (1, 4, 8):
        np.testing.assert_allclose(sol.ys[k], euler(layer, START, WEIGHTS, k, 0.25 * k), rtol=1e-15)
    assert sol.stats.accepted == 8
    assert sol.stats.f_evals <= 10


def test_equal_steps_in_the_loop_agree_with_the_scan():
    problem = jde.ODEProblem(timed, START, (0.0, 2.0), WEIGHTS)
    scan = jde.solve(problem, jde.RK4(), controller=jde.FixedSteps(16), saveat=END)
    loop = jde.solve(problem, jde.RK4(), controller=jde.FixedSteps(dt=0.125), saveat=END)
    saved = jde.solve(problem, jde.RK4(), controller=jde.FixedSteps(16), saveat=np.array([0.5, 2.0]))
    np.testing.assert_allclose(loop.ys[-1], scan.ys[-1], rtol=1e-14)
    np.testing.assert_allclose(saved.ys[-1], scan.ys[-1], rtol=1e-14)
    assert loop.stats.accepted == saved.stats.accepted == 16


def test_backwards_and_forwards():
    there = march(timed, START, WEIGHTS, 200, 1.0, jde.RK4())
    problem = jde.ODEProblem(timed, there, (1.0, 0.0), WEIGHTS)
    back = jde.solve(problem, jde.RK4(), controller=jde.FixedSteps(200), saveat=END)
    assert back.ts[-1] == 0
    np.testing.assert_allclose(back.ys[-1], START, rtol=1e-8)


def test_not_finite_is_a_result():
    problem = jde.ODEProblem(lambda t, y, a: y * y, jnp.array([1e200]), (0.0, 1.0))
    options = {"controller": jde.FixedSteps(4), "saveat": END}
    sol = jde.solve(problem, jde.Euler(), throw=False, **options)
    assert sol.status == "nonfinite"
    assert np.isnan(sol.ys).all()
    with pytest.raises(jde.SolveError, match="nonfinite"):
        jde.solve(problem, jde.Euler(), **options)
