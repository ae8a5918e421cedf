"""Sums over the steps of a solve that a network can be trained to keep small."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdiffeq as jde
from jaxdiffeq.engine.regularisers import MEANINGS

ALL = tuple(MEANINGS)
END = jde.SaveAt(t1=True)
SPAN = (0.0, 1.5)


def swing(t, y, p):
    return jnp.stack([y[1], p[0] * (1 - y[0] ** 2) * y[1] - p[1] * y[0] + 0.3 * jnp.sin(t)])


SWING = jde.ODEProblem(swing, jnp.array([1.0, 0.3]), SPAN, jnp.array([1.5, 1.0]))


def sums(problem, method: Any = jde.Tsit5(), names: Any = ALL, **options):
    return jde.solve(problem, method, regularisers=names, saveat=END, **options).regularisers


# ---- values


@pytest.mark.parametrize("span", [(0.0, 2.0), (2.0, 0.0)], ids=["forwards", "backwards"])
def test_sums_of_known_steps(span):
    """Heun's method on y′ = t, where Euler's method errs by dt²/2; a rate of −3 seen as 3; y′ = −y."""
    equal = {"controller": jde.FixedSteps(10)}
    ramp = sums(jde.ODEProblem(lambda t, y, p: t + 0 * y, 0.0, span), jde.Heun(), ["error"], **equal)
    np.testing.assert_allclose(ramp["error"], 10 * 0.2 * 0.2**2 / 2, rtol=1e-12)
    decay = jde.ODEProblem(lambda t, y, p: -3 * y, jnp.ones(2), span)
    np.testing.assert_allclose(sums(decay, names=["stiffness"], rtol=1e-6)["stiffness"], 3 * 2.0, rtol=1e-6)
    slow = jde.ODEProblem(lambda t, y, p: -y, jnp.array([2.0, 0.0]), span)
    grown = np.exp(-2 * np.array(span))
    wanted = 2.0**2 / 2 * abs(grown[1] - grown[0]) / 2 * np.exp(2 * span[0])  # the mean of two components
    np.testing.assert_allclose(sums(slow, names=["energy"], rtol=1e-8, atol=1e-10)["energy"], wanted, rtol=1e-6)


@pytest.mark.parametrize("method", [jde.Vern7(), jde.Rodas5P(), jde.KenCarp4(), jde.RadauIIA5(), jde.BDF()])
def test_energy_of_every_family(method):
    """Of y = e^{it}, which is complex and has |y′| = 1 all the way."""
    turn = jde.ODEProblem(lambda t, y, p: 1j * y, 1.0 + 0j, (0.0, 2.0))
    assert sums(turn, method, ["energy"], rtol=1e-5, atol=1e-8)["energy"] == pytest.approx(2, rel=1e-3)


def test_sums_are_free():
    """They take no call of f; and are the same in one program, in chunks of steps, and in lanes."""
    options = {"rtol": 1e-4, "saveat": END}
    bare, full = (jde.solve(SWING, jde.Tsit5(), regularisers=names, **options) for names in ((), ALL))
    assert bare.regularisers == {}
    assert bare.stats.f_evals == full.stats.f_evals
    np.testing.assert_array_equal(bare.ys, full.ys)
    fine = {"regularisers": ALL, "first_step": 1e-3, "controller": jde.FixedSteps(dt=1e-3)}
    whole = jde.solve(SWING, jde.Tsit5(), saveat=END, **fine).regularisers
    chunks = jde.solve(SWING, jde.Tsit5(), **fine).regularisers  # 1500 steps, of which a chunk has 1024
    lanes = jax.vmap(lambda p: jde.solve(SWING, jde.Tsit5(), args=p, saveat=END, **fine).regularisers)
    for other in (chunks, jax.tree.map(lambda x: x[1], lanes(jnp.stack([0.5 * SWING.args, SWING.args])))):
        for name in ALL:
            np.testing.assert_allclose(other[name], whole[name], rtol=1e-6)


def test_a_solve_that_fails_has_none():
    blows = jde.ODEProblem(lambda t, y, p: y**2, 1.0, (0.0, 2.0))
    sol = jde.solve(blows, jde.Tsit5(), regularisers=ALL, throw=False, saveat=END)
    assert not sol.ok
    assert all(np.isnan(x) for x in sol.regularisers.values())


# ---- derivatives


@pytest.mark.parametrize("method", [jde.Tsit5(), jde.Rodas5P(), jde.BDF()])
def test_derivatives_of_equal_steps(method):
    """Against central differences: what AD leaves out, that other parameters have other steps, does not happen here."""
    names = method.regularisers
    equal = {"controller": jde.FixedSteps(25)}

    def run(p, gradient):
        found = sums(SWING, method, names, args=p, gradient=gradient, **equal)
        return jnp.stack([jnp.log(found[name]) for name in names])

    at, h = SWING.args, 1e-4
    value = jax.jit(lambda p: run(p, jde.ReverseAD()))
    wanted = np.stack([(value(at + h * e) - value(at - h * e)) / (2 * h) for e in jnp.eye(2)], axis=1)
    reverse = jax.jit(jax.jacrev(lambda p: run(p, jde.ReverseAD())))(at)
    np.testing.assert_allclose(reverse, wanted, rtol=1e-4, atol=1e-4)
    forward = jax.jit(jax.jacrev(lambda p: run(p, jde.ForwardAD())))(at)
    np.testing.assert_allclose(forward, reverse, rtol=1e-6, atol=1e-6)


def test_derivatives_where_nothing_moves():
    """Sizes of zero have no derivative; theirs is zero, not NaN."""
    still = jde.ODEProblem(lambda t, y, p: p * y, jnp.zeros(2), SPAN, 1.0)
    found = jax.grad(lambda p: sum(jax.tree.leaves(sums(still, args=p))))(1.0)
    assert found == 0


def test_a_penalty_lowers_the_number_of_calls():
    """Of a flow that takes x to x³: it begins with fast changes in time, which the fit alone does not unlearn."""
    keys = jax.random.split(jax.random.key(0), 3)
    p = {name: jax.random.normal(key, (24,)) for name, key in zip("vw", keys[1:], strict=True)}
    p["u"] = 4 * jax.random.normal(keys[0], (24, 2))
    x = jnp.linspace(-1, 1, 16)

    def f(t, y, p):
        hidden = jnp.tanh(y[:, None] * p["u"][None, :, 0] + t.astype(y.dtype) * p["u"][None, :, 1] + p["v"][None])
        return hidden @ p["w"] / 2

    problem = jde.ODEProblem(f, x, (0.0, 1.0), p)
    optimiser = optax.adam(0.03)

    @jax.jit
    def train(weight):
        def loss(p):
            sol = jde.solve(problem, jde.Tsit5(), args=p, saveat=END, atol=1e-3, max_steps=64, regularisers=["energy"])
            return jnp.mean((sol.ys[-1] - x**3) ** 2) + weight * sol.regularisers["energy"]

        def epoch(carry, _):
            p, state = carry
            updates, state = optimiser.update(jax.grad(loss)(p), state)
            return (optax.apply_updates(p, updates), state), None

        (p_end, _), _ = jax.lax.scan(epoch, (p, optimiser.init(p)), length=300)
        sol = jde.solve(problem, jde.Tsit5(), args=p_end, saveat=END, rtol=1e-6, atol=1e-6)
        return jnp.mean((sol.ys[-1] - x**3) ** 2), sol.stats.f_evals

    with jax.numpy_dtype_promotion("standard"):
        (fit, calls), (penalised_fit, penalised) = train(0.0), train(0.03)
    assert fit < 1e-3 and penalised_fit < 1e-3
    assert int(penalised) < 0.85 * int(calls)


# ---- what is refused


def test_names_are_checked():
    with pytest.raises(ValueError, match=r"names out of .*'stiffness'.*but is 'energy'"):
        sums(SWING, names="energy")
    with pytest.raises(ValueError, match=r"but is \['entropy'\]"):
        sums(SWING, names=["entropy"])
    with pytest.raises(ValueError, match=r"KenCarp4 has no derivative of its 'error', only of \('energy',\)"):
        sums(SWING, jde.KenCarp4(), ["error"])
    with pytest.raises(ValueError, match="BS3 has no derivative of its 'stiffness'"):
        sums(SWING, jde.BS3())
