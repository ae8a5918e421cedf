"""Layers that solve: they compute what `solve` computes, and they learn."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdiffeq as jde
from jaxdiffeq import nn

KEY = jax.random.PRNGKey(0)


def train(model, loss, batch, steps, rate=0.02):
    """The loss before each of `steps` steps of Adam, and the trained model."""
    optimiser = optax.adam(rate)
    state = optimiser.init(eqx.filter(model, eqx.is_inexact_array))

    @eqx.filter_jit
    def step(model, state):
        value, gradient = eqx.filter_value_and_grad(loss)(model, *batch)
        with jax.numpy_dtype_promotion("standard"):  # optax raises a float to an int32 power
            updates, state = optimiser.update(gradient, state)
        return eqx.apply_updates(model, updates), state, value, gradient

    values = []
    for _ in range(steps):
        model, state, value, gradient = step(model, state)
        assert all(jnp.all(jnp.isfinite(g)) for g in jax.tree.leaves(gradient))
        assert any(jnp.any(g != 0) for g in jax.tree.leaves(gradient))
        values.append(float(value))
    return values, model


def cross_entropy(model, x, labels):
    logits = jax.vmap(model)(x)
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1))


# -------------------- what they compute -------------------------------------------------------------------------------


class Decay(eqx.Module):
    rate: jax.Array

    def __call__(self, y):
        return -self.rate * y


DECAY = Decay(jnp.array([1.0, 2.0]))
Y0 = jnp.array([3.0, 4.0])


def test_the_last_state():
    layer = nn.NeuralODE(DECAY, (0.0, 0.5), rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(layer(Y0), Y0 * jnp.exp(-0.5 * DECAY.rate), rtol=1e-7)


@pytest.mark.parametrize("saveat", [0.1, np.linspace(0.0, 0.5, 6)], ids=["spacing", "times"])
def test_the_trajectory(saveat):
    layer = nn.NeuralODE(DECAY, (0.0, 0.5), jde.Vern7(), saveat=saveat, rtol=1e-8, atol=1e-10)
    ts = np.linspace(0.0, 0.5, 6)[:, None]
    np.testing.assert_allclose(eqx.filter_jit(layer)(Y0), Y0[None] * np.exp(-ts * DECAY.rate[None]), rtol=1e-7)


def test_times_of_the_call_may_be_traced():
    layer = nn.NeuralODE(DECAY, (0.0, 0.5), rtol=1e-8, atol=1e-10)
    slope = jax.grad(lambda t: layer(Y0, saveat=t[None])[0, 0])(jnp.array(0.3))
    np.testing.assert_allclose(slope, -3.0 * np.exp(-0.3), rtol=1e-5)


def test_time_is_given_to_who_asks_for_it():
    layer = nn.NeuralODE(lambda t, y: 2 * t * jnp.ones_like(y), (0.0, 3.0))
    np.testing.assert_allclose(layer(Y0), Y0 + 9.0, rtol=1e-6)


def test_a_function_as_of_a_problem_is_one_of_a_layer():
    layer = nn.NeuralODE(lambda t, y, args: 2 * t * jnp.ones_like(y) if args is None else y, (0.0, 3.0))
    np.testing.assert_allclose(layer(Y0), Y0 + 9.0, rtol=1e-6)


def test_other_functions_are_refused():
    with pytest.raises(TypeError, match=r"func\(t, y\) or func\(t, y, args\), but needs 4"):
        nn.NeuralODE(lambda t, y, args, more: y)
    with pytest.raises(TypeError, match=r"another order: \(y, t\). Write `lambda t, y: func\(y, t\)`"):
        nn.NeuralODE(lambda y, t: y)


def test_more_dimensions():
    """y' = [0, z], z' = 1 from z = 0: what was appended moves, and is returned."""
    field = lambda y: jnp.array([0.0, 0.0, 1.0]) + jnp.array([1.0, 0.0, 0.0]) * y[2]
    layer = nn.AugmentedNeuralODE(field, 1, (0.0, 2.0), saveat=1.0, rtol=1e-8)
    np.testing.assert_allclose(layer(Y0), [[3, 4, 0], [3.5, 4, 1], [5, 4, 2]], rtol=1e-7)


def test_a_sequence_of_layers_is_one_function():
    keys = jax.random.split(KEY, 3)
    layer = nn.NeuralODE(eqx.nn.MLP(3, 3, 8, 1, key=keys[1]), rtol=1e-6)
    parts = eqx.nn.Linear(2, 3, key=keys[0]), layer, eqx.nn.Dropout(0.5, inference=True), eqx.nn.Linear(3, 1, key=KEY)
    model = eqx.nn.Sequential(parts)
    want = parts[3](layer(parts[0](Y0)))
    np.testing.assert_allclose(model(Y0, key=KEY), want, rtol=1e-12)
    batch = jnp.stack([Y0, 2 * Y0, -Y0])
    one_by_one = jnp.stack([model(y) for y in batch])
    np.testing.assert_allclose(eqx.filter_jit(eqx.filter_vmap(model))(batch), one_by_one, rtol=1e-12)


# -------------------- that they learn ---------------------------------------------------------------------------------


def test_an_augmented_layer_separates_nested_circles():
    """A flow in the plane can't take the inner disc out of its ring; with a third dimension it can."""
    keys = jax.random.split(KEY, 4)
    angles = jax.random.uniform(keys[0], (32,), maxval=2 * jnp.pi)
    labels = jnp.arange(32) % 2
    radius = jnp.where(labels == 1, 2.0, 0.5)
    x = jnp.stack([radius * jnp.cos(angles), radius * jnp.sin(angles)], axis=1)
    field = eqx.nn.MLP(3, 3, 16, 1, activation=jnp.tanh, key=keys[1])
    model = eqx.nn.Sequential([nn.AugmentedNeuralODE(field, 1), eqx.nn.Linear(3, 2, key=keys[2])])
    losses, model = train(model, cross_entropy, (x, labels), 60, rate=0.05)
    assert losses[-1] < 0.2 * losses[0]
    assert jnp.all(jnp.argmax(jax.vmap(model)(x), axis=1) == labels)


def test_a_perceptron_with_an_ode_learns_digits():
    x, labels = nn.digits(KEY, 32)
    model = nn.MLPClassifier(28 * 28, 10, 16, key=KEY)
    losses, _ = train(model, cross_entropy, (x.reshape(32, -1), labels), 12)
    assert losses[-1] < 0.5 * losses[0]


def test_a_convolutional_network_with_an_ode_learns_digits():
    x, labels = nn.digits(KEY, 8)
    model = nn.CNNClassifier(key=KEY, rtol=1e-2)
    features = eqx.nn.Sequential(list(model.layers)[:7])(x[0])
    assert features.shape == (288,)
    assert jax.vmap(model)(x).shape == (8, 10)
    losses, _ = train(model, cross_entropy, (x, labels), 10, rate=0.003)
    assert losses[-1] < 0.5 * losses[0]


def small_network(t, y, p):
    """32 numbers as a network 2-8-2: y' = W₂ tanh(W₁ y)."""
    return p[16:].reshape(2, 8) @ jnp.tanh(p[:16].reshape(8, 2) @ y)


def test_the_layer_before_gives_the_parameters():
    """Dense 784 → 32 parameters → 32 saved values of the first component → Dense 10."""
    keys = jax.random.split(KEY, 2)
    problem = jde.ODEProblem(small_network, jnp.array([1.0, 0.5]), (0.0, 1.0))
    solves = nn.SolveLayer(problem, saveat=np.linspace(0.0, 1.0, 32), select=lambda ys: ys[:, 0])
    dense = eqx.nn.Linear(784, 32, key=keys[0])
    model = eqx.nn.Sequential([eqx.nn.Lambda(jnp.ravel), dense, solves, eqx.nn.Linear(32, 10, key=keys[1])])
    x, labels = nn.digits(KEY, 16)
    p = dense(x[0].ravel())
    want = jde.solve(problem, jde.Tsit5(), args=p, saveat=np.linspace(0.0, 1.0, 32)).ys[:, 0]
    np.testing.assert_allclose(solves(p), want, rtol=1e-12)
    losses, trained = train(model, cross_entropy, (x, labels), 15)
    assert losses[-1] < 0.7 * losses[0]
    assert jnp.any(trained.layers[2].problem.y0 != problem.y0)  # the initial state is learned too


# -------------------- the pictures ------------------------------------------------------------------------------------


def test_digits_are_reproducible_and_distinct():
    x, labels = nn.digits(KEY, 200, noise=0.0)
    again, same = nn.digits(KEY, 200, noise=0.0)
    assert x.shape == (200, 1, 28, 28)
    assert jnp.array_equal(x, again)
    assert jnp.array_equal(labels, same)
    assert set(labels.tolist()) == set(range(10))
    lit = {(int(k), int(jnp.sum(picture > 0))) for k, picture in zip(labels, x, strict=True)}
    assert len(lit) == 10  # every picture of a digit lights the same number of pixels
    assert len({n for _, n in lit}) >= 6
