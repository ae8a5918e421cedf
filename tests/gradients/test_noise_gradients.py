"""Gradients along a Brownian path: in constant memory, backwards, through stops and events, and of what fails."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiffeq as jde

KEY = jax.random.key(3)
X = jnp.array([0.3, 0.5, 1.2, 1.0])  # a, b, y0, t1
END = jde.SaveAt(t1=True)
HEUN = jde.StochasticHeun()


def grows(t, y, x):
    return x[0] * y


def shakes(t, y, x):
    return x[1] * y


def geometric(x, key, method, interpretation="stratonovich", **options):
    """dy = a·y dt + b·y dW."""
    how = {"key": key, "noise": "scalar", "interpretation": interpretation}
    problem = jde.SDEProblem(grows, shakes, x[2:3], (0.0, x[3]), x, **how)
    return jde.solve(problem, method, **options)


# ---- steps that are run backwards


def reversed_loss(x, gradient, n):
    """With times that move, and a parameter that drift and diffusion share."""
    tilted = lambda t, y, x: x[1] * jnp.sin(y + t)
    problem = jde.SDEProblem(
        grows, tilted, jnp.stack([x[2], 0.5 * x[0]]), (0.0, x[3]), x, key=KEY, interpretation="stratonovich"
    )
    how = {"controller": jde.FixedSteps(n), "saveat": jnp.stack([0.3 * x[3], x[2] / 2]), "gradient": gradient}
    return jnp.sum(jde.solve(problem, jde.ReversibleHeun(), **how).ys ** 2)


def test_steps_run_backwards_give_the_gradient_of_the_steps():
    both = [jax.jit(jax.grad(lambda x, g=g: reversed_loss(x, g, 200)))(X) for g in (jde.ReverseAD(), BACK)]
    np.testing.assert_allclose(both[1], both[0], rtol=1e-11)


BACK = jde.ReversibleAdjoint()


def test_memory_of_steps_run_backwards_is_constant():
    def loss(x, n):
        how = {"controller": jde.FixedSteps(n), "saveat": END, "gradient": BACK}
        return geometric(x, KEY, jde.ReversibleHeun(), max_steps=n, **how).ys[-1, 0]

    def memory(n):
        compiled = jax.jit(jax.grad(lambda x: loss(x, n))).lower(X).compile()
        used = compiled.memory_analysis()
        assert used is not None
        return used.temp_size_in_bytes

    assert memory(100_000) <= 1.1 * memory(1000)


# ---- the adjoint that is solved backwards


def closed(x, w, ito):
    """y(t₁), where the path is stretched with the span: W(t₁) = √t₁·B."""
    w = w * jnp.sqrt(x[3] / X[3])
    return x[2] * jnp.exp((x[0] - (x[1] ** 2 / 2 if ito else 0)) * x[3] + x[1] * w)


@pytest.mark.parametrize(
    ("method", "back", "order"), [(HEUN, None, 1.0), (jde.EulerMaruyama(), None, 0.5), (HEUN, jde.SlowRK(), 1.0)]
)
def test_the_adjoint_that_is_solved_backwards_converges(method, back, order):
    """To the gradient of the true solution, in everything, in the order of the method; Itô's with its correction."""
    ito = isinstance(method, type(jde.EulerMaruyama()))
    keys = jax.random.split(KEY, 64)

    def error(n):
        def of(key):
            how = {"controller": jde.FixedSteps(n), "saveat": END, "gradient": jde.BacksolveAdjoint(method=back)}
            solve = lambda x: geometric(x, key, method, "ito" if ito else "stratonovich", **how)
            found = jax.grad(lambda x: solve(x).ys[-1, 0])(X)
            return found - jax.grad(closed)(X, solve(X).brownian(X[3]), ito)

        return np.sqrt(np.mean(np.square(jax.jit(jax.vmap(of))(keys)), 0))

    coarse, fine = error(10), error(160)
    found = np.log(coarse / fine) / math.log(16)
    assert np.all(found > order - 0.2), found
    assert np.all(fine < 0.1), fine


def test_what_is_saved_within_a_step_is_felt_by_the_adjoint_that_is_solved_backwards():
    """Of noise with more motions than numbers; y is linear in x, so that there is nothing but rounding between them."""

    def loss(x, gradient):
        drift = lambda t, y, x: x[:1] * t
        noise = lambda t, y, x: jnp.stack([x[:1], x[1:2] * (1 + t), x[2:3]], -1)
        how = {"key": KEY, "noise": "general", "interpretation": "stratonovich"}
        problem = jde.SDEProblem(drift, noise, x[2:3], (0.0, 1.0), x, **how)
        saveat = jde.SaveAt(ts=jnp.array([0.0, 0.25, 0.4]), steps=2)
        options = {"controller": jde.FixedSteps(4), "saveat": saveat, "gradient": gradient}
        return jnp.sum(jde.solve(problem, HEUN, **options).ys ** 2)

    both = [jax.jit(jax.grad(lambda x, g=g: loss(x, g)))(X) for g in (jde.ReverseAD(), jde.BacksolveAdjoint())]
    np.testing.assert_allclose(both[1], both[0], rtol=1e-12)


# ---- what fails


CUBIC = lambda t, y, x: x[0] * y**3


def cubic(x, gradient, end, n, saveat):
    """Steps of a tenth along one path, which leave the numbers after a while."""
    method = jde.ReversibleHeun() if gradient == BACK else HEUN
    problem = jde.SDEProblem(CUBIC, shakes, x[2:3], (0.0, end), x, key=KEY)
    how = {"controller": jde.FixedSteps(n), "saveat": saveat, "gradient": gradient}
    return jde.solve(problem, method, convert=True, throw=False, **how)


@functools.cache
def blown(gradient):
    """Gradients of a solve that leaves the numbers: of what came before, of what did not, of a loss that leaves it."""

    def loss(x, which):
        solution = cubic(x, gradient, 4.0, 40, jnp.array([0.15, 3.9]))
        before, after = solution.ys[:, 0]
        return jnp.stack([before, after, jnp.where(solution.ok, after, 0.0), solution.y_end[0]])[which]

    return jax.jit(jax.vmap(jax.value_and_grad(loss), (None, 0)))(X * 2, jnp.arange(4))


@pytest.mark.parametrize("gradient", [jde.ReverseAD(), BACK, jde.BacksolveAdjoint()], ids=repr)
def test_what_came_before_a_failure_keeps_its_gradient(gradient):
    """That of a solve along the same path that ends before it; zero in, zero out."""
    values, (before, after, none, last) = blown(gradient)
    assert np.isfinite(values[0]) and np.isnan(values[1]) and values[2] == 0
    assert np.all(np.isnan(after[:3])) and np.all(none == 0)
    assert np.all(np.isfinite(before)) and np.all(before[:3] != 0)
    if not isinstance(gradient, jde.BacksolveAdjoint):  # which approximates: below
        np.testing.assert_array_equal(np.isfinite(last) & (last != 0), [True, True, True, False])
        short = jax.jit(jax.value_and_grad(lambda x: cubic(x, gradient, 0.2, 2, jnp.array([0.15])).ys[0, 0]))(X * 2)
        np.testing.assert_allclose(values[0], short[0], rtol=1e-12)
        np.testing.assert_allclose(before, short[1], rtol=1e-9)
    if gradient == jde.ReverseAD():
        np.testing.assert_allclose(before, blown(jde.ForwardAD())[1][0], rtol=1e-10)


def test_what_came_before_a_failure_is_approached_by_the_adjoint_that_is_solved_backwards():
    """Of several rows, the last of them in a step before the one that failed, in the order of the method."""
    keys = jax.random.split(KEY, 32)

    def loss(x, key, gradient, n):
        drift = lambda t, y, x: jnp.where(t > 0.52, jnp.nan, x[0]) * y
        problem = jde.SDEProblem(drift, shakes, x[2:3], (0.0, 1.0), x, key=key, interpretation="stratonovich")
        how = {"controller": jde.FixedSteps(n), "saveat": jnp.linspace(0.0, 1.0, 8), "gradient": gradient}
        ys = jde.solve(problem, HEUN, throw=False, **how).ys
        return jnp.sum(jnp.where(jnp.isfinite(ys), ys, 0) ** 2)

    def error(n):
        of = lambda g: jax.jit(jax.vmap(jax.grad(lambda x, key: loss(x, key, g, n)), (None, 0)))(X, keys)
        found, exact = of(jde.BacksolveAdjoint()), of(jde.ReverseAD())
        return np.sqrt(np.mean((found - exact) ** 2, 0)) / np.maximum(np.sqrt(np.mean(exact**2, 0)), 1e-12)

    coarse, fine = error(20), error(640)
    assert np.all(fine[:2] < coarse[:2] / 16) and np.all(fine < 1e-3), (coarse, fine)


@pytest.mark.parametrize("gradient", [BACK, jde.BacksolveAdjoint()], ids=repr)
def test_a_first_step_that_fails_leaves_the_start(gradient):
    def loss(x):
        problem = jde.SDEProblem(
            lambda t, y, x: jnp.where(t > 0, jnp.nan, x[0]) * y, shakes, x[2:3], (0.0, 1.0), x, key=KEY
        )
        how = {"controller": jde.FixedSteps(4), "saveat": jnp.array([0.0, 0.5]), "gradient": gradient, "throw": False}
        solution = jde.solve(problem.replace(interpretation="stratonovich"), jde.ReversibleHeun(), **how)
        return solution.ys[0, 0] ** 2

    np.testing.assert_allclose(jax.jit(jax.grad(loss))(X), np.array([0.0, 0.0, 2.4, 0.0]))


# ---- stops and events


def happening(x, gradient, **options):
    how = {"rtol": 1e-2, "atol": 1e-2, "max_steps": 256, "gradient": gradient, "key": KEY}
    problem = jde.SDEProblem(grows, shakes, x[2:3], (0.0, 1.0), x)
    solution = jde.solve(problem, jde.SOSRI(), saveat=END, **how, **options)
    return jnp.sum(solution.ys[-1]) + solution.t_end


@pytest.mark.parametrize(
    "options",
    [
        lambda x: {"stops": x[2:3] / 2},
        lambda x: {"events": jde.PresetTimes(jnp.array([0.4]), lambda t, y, x: y * x[1])},
        lambda x: {"events": jde.Event(lambda t, y, x: y[0] - 1.1 * x[2], terminate=True)},
    ],
    ids=["stops", "preset", "terminate"],
)
def test_events_along_a_path(options):
    loss = lambda x, gradient: happening(x, gradient, **options(x))
    reverse, forward = (jax.jit(jax.grad(loss), static_argnums=1)(X, g) for g in (jde.ReverseAD(), jde.ForwardAD()))
    assert np.all(np.isfinite(reverse)) and np.all(reverse[:3] != 0)
    np.testing.assert_allclose(reverse, forward, rtol=1e-9, atol=1e-12)


# ---- what is refused


@pytest.mark.parametrize(
    ("gradient", "options", "message"),
    [
        (jde.GaussAdjoint(), {}, "GaussAdjoint does not serve SDEProblem: between the steps"),
        (jde.BacksolveAdjoint(), {"controller": None}, r"steps that are not equal.*Give controller=FixedSteps\(n\)"),
        (jde.BacksolveAdjoint(), {"stops": [0.5]}, "nor with stops"),
        (jde.BacksolveAdjoint(method=jde.EulerMaruyama()), {}, r"Stratonovich's.*Give StochasticHeun\(\)"),
        (BACK, {}, r"ReversibleAdjoint does not serve StochasticHeun\(\).*ReversibleHeun"),
        (BACK, {"method": jde.ReversibleHeun(), "stops": [0.5]}, "nor with stops"),
    ],
)
def test_what_a_strategy_cannot_is_refused_by_name(gradient, options, message):
    options = {"method": HEUN, "controller": jde.FixedSteps(4), "saveat": END, **options}
    with pytest.raises(NotImplementedError, match=message):
        geometric(X, KEY, gradient=gradient, **options)
