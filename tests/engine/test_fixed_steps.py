"""`FixedSteps(n)` is a plain scan: bit-equal to one written by hand, in values and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxdiffeq as jde
from jaxdiffeq.errors import NonfiniteSolution

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
    """But for a loop after it, which looks for the place of a failure and takes no trip when there is none."""
    runs = []

    def counted(t, y, w):
        jax.debug.callback(lambda: runs.append(1))
        return layer(t, y, w)

    f = jax.jit(lambda y, w: march(counted, y, w, 8, 2.0, jde.Euler()))
    f(START, WEIGHTS)
    jax.effects_barrier()
    assert len(runs) == 9  # a step more, for the slope at the end that nobody asks for
    text = str(jax.make_jaxpr(f)(START, WEIGHTS))
    assert text.count("scan[") == text.count("while[") == 1
    assert "cond[" not in text


@pytest.mark.parametrize("n", [1, 5, 37])
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


def explosion(t, y, a):
    """From 1, by Euler steps of one half: 1.5, 2.625, 6.07, 24.5, 324, … and beyond all numbers at the twelfth."""
    return y * y


def until(y, dt):
    """Euler's method as far as numbers go: how many steps, and to where."""
    steps = 0
    with np.errstate(over="ignore"):
        while np.isfinite(y + dt * y * y):
            y, steps = y + dt * y * y, steps + 1
    return steps, y


@pytest.mark.parametrize("saveat", [END, None, jde.SaveAt(t1=True, fn=lambda t, y, a: 1 / y)])
@pytest.mark.parametrize("start", [1.0, 1e200])
def test_it_says_where_it_failed(start, saveat):
    problem = jde.ODEProblem(explosion, start, (1.0, 17.0))
    options = {"controller": jde.FixedSteps(32), "saveat": saveat, "max_steps": 50}
    sol = jax.jit(lambda: jde.solve(problem, jde.Euler(), throw=False, **options))()
    steps, last = until(np.float64(start), 0.5)
    assert sol.status == "nonfinite"
    assert sol.t_end == 1.0 + 0.5 * steps
    np.testing.assert_array_equal(sol.y_end, last)
    assert (int(sol.stats.accepted), int(sol.stats.steps)) == (steps, 32)  # the scan goes on to its end
    assert sol.num_saved == (0 if saveat is not None else 1 + steps)
    with pytest.raises(NonfiniteSolution, match=rf"t = {sol.t_end:g}: .* {steps} steps accepted"):
        jde.solve(problem, jde.Euler(), **options)


def test_every_lane_says_where_it_failed():
    def lane(y):
        problem = jde.ODEProblem(explosion, y, (1.0, 9.0))
        sol = jde.solve(problem, jde.Euler(), controller=jde.FixedSteps(16), saveat=END, throw=False)
        return sol.t_end, sol.y_end, sol.result

    starts = np.array([1.0, -0.5, 1e3, 1e200])
    t, y, result = jax.jit(jax.vmap(lane))(starts)
    wanted = [min(until(start, 0.5)[0], 16) for start in starts[[0, 2, 3]]]
    np.testing.assert_array_equal(t[np.array([0, 2, 3])], 1 + 0.5 * np.array(wanted))
    assert t[1] == 9.0 and result[1] == jde.Result.success and np.all(np.isfinite(y))
    assert np.all(np.delete(result, 1) == jde.Result.nonfinite)


@pytest.mark.parametrize("controller", [jde.FixedSteps(8), jde.FixedSteps(dt=0.125)], ids=["scan", "loop"])
@pytest.mark.parametrize("saveat", [END, None], ids=["end", "steps"])
def test_the_derivative_of_a_failure(controller, saveat):
    """NaN of what the solve did not come to, and what it was before; the same in both modes."""
    field = lambda t, y, a: jnp.where(t > 0.5, jnp.nan, a * y)

    def run(y):
        options = {"controller": controller, "saveat": saveat, "throw": False, "max_steps": 16}
        sol = jde.solve(jde.ODEProblem(field, y, (0.0, 1.0), 1.0), jde.Euler(), **options)
        early = 0.0 if saveat is END else sol.ys[3]
        return {"y_end": sol.y_end, "last": sol.ys[-1], "early": early + 0 * y, "t_end": sol.t_end}

    values, tangents = jax.jit(lambda y: jax.jvp(run, (y,), (1.0,)))(1.0)
    np.testing.assert_allclose(values["y_end"], 1.125**5, rtol=1e-15)  # at 0.625; the slope there is NaN
    assert np.isnan(values["last"]) and values["t_end"] == 0.625
    wanted = {"y_end": 1.125**5, "last": np.nan, "early": 0 if saveat is END else 1.125**3, "t_end": 0}
    gradients = {name: jax.jit(jax.grad(lambda y, name=name: run(y)[name]))(1.0) for name in wanted}
    for found in (tangents, gradients):
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-14), found, wanted)


@jax.custom_jvp
def ruled(x):
    return jnp.tanh(x)


ruled.defjvp(lambda x, dx: (ruled(*x), (1 - ruled(*x) ** 2) * dx[0]))


@pytest.mark.parametrize(
    ("method", "memory"),
    [(jde.RK4(), None), (jde.RK4(), "all"), (jde.RK4(), 3), (jde.ImplicitEuler(), 3), (jde.RadauIIA5(), "all")],
    ids=repr,
)
def test_second_derivatives(method, memory):
    """Through rules of f, and of the stages, which a plain scan forgets."""

    def end(w):
        f = lambda t, y, w: w * ruled(y) - y**3
        y = march(f, START, w, 5, 1.0, method, gradient=jde.ReverseAD(memory), rtol=1e-12)  # Newton's method goes on
        return jnp.sum(y**2)

    gradient, step = jax.jit(jax.grad(end)), 1e-4
    wanted = (gradient(1.3 + step) - gradient(1.3 - step)) / (2 * step)
    np.testing.assert_allclose(jax.jit(jax.hessian(end))(1.3), wanted, rtol=1e-6)
