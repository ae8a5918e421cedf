"""Problems: replacing fields, and y0 and tspan as functions of the parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiffeq as jde
from jaxdiffeq.problems.definitions import terms_of


def relax(t, y, args):
    return -args["rate"] * y


PROBLEM = jde.ODEProblem(relax, 1.0, (0, 1), {"rate": 2.0})


def test_replace_leaves_the_rest_and_the_original():
    other = PROBLEM.replace(y0=3.0, tspan=(0, 2))
    assert (other.f, other.y0, other.tspan, other.args) == (relax, 3.0, (0, 2), {"rate": 2.0})
    assert PROBLEM.y0 == 1.0
    with pytest.raises(TypeError, match="`f` must take 3 arguments"):
        PROBLEM.replace(f=lambda y: y)


def test_a_problem_is_a_frozen_pytree():
    assert jax.tree.leaves(PROBLEM.replace(f=jax.tree_util.Partial(relax))) == [1.0, 0, 1, 2.0]
    with pytest.raises(AttributeError):
        PROBLEM.y0 = 2.0


def test_functions_of_the_parameters_are_called_with_them():
    seen = []

    def start(args, t0):
        seen.append((args, t0))
        return args["rate"] + t0

    terms = terms_of(PROBLEM.replace(y0=start, tspan=lambda args: (args["rate"], 7)))
    assert seen == [({"rate": 2.0}, 2.0)]
    assert (terms.y0, terms.t0, terms.t1) == (4.0, 2.0, 7)


def test_a_bad_span_from_a_function_is_refused():
    with pytest.raises(ValueError, match="`tspan` must be finite, but t1 = inf"):
        jde.solve(PROBLEM, tspan=lambda args: (0.0, np.inf))


def decay(t, y, p):
    return -p[0] * y


def end(p):
    """y(10·p₂) of y' = −p₀y, y(0) = p₁: a problem that is a function of its parameters, its end time among them."""
    problem = jde.ODEProblem(decay, lambda p, t0: p[1] * jnp.ones(2), lambda p: (0, 10 * p[2]), p)
    return jde.solve(problem, jde.Tsit5(), saveat=jde.SaveAt(t1=True), rtol=1e-9, atol=1e-12).ys[0, 0]


def test_the_gradient_reaches_y0_and_the_end_time():
    p = jnp.array([0.3, 2.0, 0.1])
    y = 2 * np.exp(-0.3)
    np.testing.assert_allclose(end(p), y, rtol=1e-8)
    exact = [-y, y / 2, -10 * 0.3 * y]  # d/dp₀ is −t₁y, and t₁ = 1
    np.testing.assert_allclose(jax.grad(end)(p), exact, rtol=1e-7)


def test_args_in_passing_reach_the_functions_too():
    problem = jde.ODEProblem(decay, lambda p, t0: p[1], lambda p: (0.0, p[2]), jnp.zeros(3))
    sol = jde.solve(problem, jde.Tsit5(), args=jnp.array([1.0, 5.0, 2.0]), saveat=jde.SaveAt(t1=True), rtol=1e-8)
    assert float(sol.t_end) == 2.0
    np.testing.assert_allclose(sol.ys[-1], 5 * np.exp(-2), rtol=1e-6)
