"""Stepping by hand: resuming, ends, failures, gradients."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiffeq as jde
from jaxdiffeq.integrator import finished


def lotka_volterra(t, y, p):
    a, b, c, d = p
    return jnp.stack([a * y[0] - b * y[0] * y[1], -c * y[1] + d * y[0] * y[1]])


P = (1.5, 1.0, 3.0, 1.0)
OPTIONS: dict[str, Any] = {"rtol": 1e-6, "atol": 1e-8}


def problem(p):
    return jde.ODEProblem(lotka_volterra, jnp.ones(2), (0.0, 10.0), p)


@pytest.fixture(scope="module")
def integrator():
    return jde.Integrator(problem(jnp.array(P)), jde.Tsit5(), **OPTIONS)


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_n_steps_and_then_m_are_n_plus_m_to_the_bit(integrator):
    five = integrator.run(integrator.init(), 5)
    stored = jax.tree.map(jnp.asarray, jax.tree.map(np.asarray, five))  # as from a file
    assert same(integrator.run(stored, 7), integrator.run(integrator.init(), 12))


def test_single_steps_resume_to_the_bit(integrator):
    states = [integrator.init()]
    for _ in range(6):
        states.append(integrator.step(states[-1]))
    again = jax.tree.map(jnp.asarray, jax.tree.map(np.asarray, states[3]))
    for expected in states[4:]:
        again = integrator.step(again)
        assert same(again, expected)
    assert all(a.t < b.t for a, b in itertools.pairwise(states))


def test_it_ends_where_solve_ends(integrator):
    end = integrator.run(integrator.init(), 10_000)
    sol = jde.solve(problem(jnp.array(P)), jde.Tsit5(), saveat=jde.SaveAt(t1=True), **OPTIONS)
    assert end.t == 10.0 and finished(end) and end.result == jde.Result.success
    np.testing.assert_allclose(end.y, sol.ys[-1], rtol=1e-9)
    assert same(integrator.step(end).y, end.y) and integrator.step(end).t == end.t


def test_a_failure_is_a_result_code():
    explosion = jde.ODEProblem(lambda t, y, _: y**2, 1.0, (0.0, 2.0))
    integrator = jde.Integrator(explosion, jde.Tsit5())
    end = integrator.run(integrator.init(), 10_000)
    assert end.result in (jde.Result.step_size_too_small, jde.Result.nonfinite)
    assert 0.99 < end.t < 1.01


def test_gradient_of_steps_under_scan_is_that_of_the_solve():
    def by_hand(p):
        integrator = jde.Integrator(problem(p), jde.Tsit5(), **OPTIONS)
        state, _ = jax.lax.scan(lambda s, _: (integrator.step(s), None), integrator.init(), None, length=120)
        return state.y[0]

    def in_one(p):
        return jde.solve(problem(p), jde.Tsit5(), saveat=jde.SaveAt(t1=True), **OPTIONS).ys[-1, 0]

    p = jnp.array(P)
    np.testing.assert_allclose(jax.jit(jax.grad(by_hand))(p), jax.jit(jax.grad(in_one))(p), rtol=1e-7)


def test_forward_mode_through_many_steps(integrator):
    def last(p):
        integrator = jde.Integrator(problem(p), jde.Tsit5(), **OPTIONS)
        return integrator.run(integrator.init(), 20).y[0]

    p, direction = jnp.array(P), jnp.array([1.0, 0.0, 0.0, 0.0])
    tangent = jax.jvp(last, (p,), (direction,))[1]
    h = 1e-6
    difference = (last(p + h * direction) - last(p - h * direction)) / (2 * h)
    # step sizes are constants to the derivative, and move with p in the difference: the clock is part of the tangent
    at = integrator.run(integrator.init(), 20)
    slope = lotka_volterra(at.t, at.y, p)[0]
    clock = (stopped(p + h * direction) - stopped(p - h * direction)) / (2 * h)
    np.testing.assert_allclose(tangent, difference - slope * clock, rtol=1e-3)


def stopped(p):
    integrator = jde.Integrator(problem(p), jde.Tsit5(), **OPTIONS)
    return integrator.run(integrator.init(), 20).t


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="no error estimate"):
        jde.Integrator(problem(jnp.array(P)), jde.RK4())


def test_options_mean_what_they_mean_to_solve():
    """A method is chosen by tolerance, and the size of equal steps is theirs, whatever `first_step` says."""
    by_hand = jde.Integrator(problem(jnp.array(P)), rtol=1e-8)
    assert by_hand.step(by_hand.init()).t == jde.solve(problem(jnp.array(P)), rtol=1e-8).ts[1]
    equal = jde.Integrator(problem(jnp.array(P)), jde.RK4(), controller=jde.FixedSteps(dt=0.25), first_step=0.1)
    assert equal.run(equal.init(), 3).t == 0.75
    with pytest.raises(TypeError, match="Call it"):
        jde.Integrator(problem(jnp.array(P)), jde.Tsit5)
