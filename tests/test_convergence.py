"""Stated order is measured order, for every method that `jaxdiffeq.methods` names: found by scanning, not listed.

The problem is nonlinear, depends on time and has a closed form; there are sixteen solutions of it, since the error of
one alone passes through zero here and there. Every step size goes through one compiled function.

What is measured is an exponent at finite sizes. A method tuned to a small leading error, and any of high order, shows
more than its order before rounding takes over (Vern6 shows 7.0, Feagin14 17.6): so no exponent may be smaller than
stated by 0.2. That no order is understated, which no measurement in float64 could show, rooted trees show in
`tests/tableaux`.
"""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.made import MADE

import jaxdiffeq as jde
from jaxdiffeq.algebra.newton import Newton
from jaxdiffeq.engine.control import Tolerance
from jaxdiffeq.problems.vector_field import VectorField
from jaxdiffeq.steppers.explicit import ExplicitRK
from jaxdiffeq.types import State

PATIENT = {"newton": Newton(iterations=50)}  # for steps longer than anybody would take
METHODS = {
    name: replace(m, **PATIENT) if hasattr(m, "newton") else m for name, m in MADE.items() if hasattr(m, "tableau")
}  # of one order
EXPLICIT = [name for name, m in METHODS.items() if isinstance(m, ExplicitRK)]
# What trees show of every tableau, a step shows of one of each family and order: an implicit step is long to compile.
FIRST = {(type(m), m.order): name for name, m in reversed(METHODS.items())}
STEPPED = [name for name in METHODS if name in EXPLICIT or name in FIRST.values()]
T1 = 4.0
PHASES = 2 * np.pi * np.arange(16) / 16


def exact(t, phase):
    return jnp.stack([jnp.sin(t + phase), jnp.cos(t + phase)])


def field(t, y, phase):
    """An oscillator with a quadratic force that vanishes on the solution (sin, cos), but not beside it."""
    (x, v), (s, c) = y, exact(t, phase)
    return jnp.stack([v + 0.3 * (x * v - s * c), -x + 0.3 * (c * c - v * v)])


PROBLEM = jde.ODEProblem(field, exact(0.0, 0.0), (0.0, T1), 0.0)
FIELD = VectorField(lambda t, y, args: field(t, y, args))


def rms(x):
    return jnp.sqrt(jnp.mean(x * x))


def assert_order(order, sizes, errors, smallest, leads=True):
    """The least-squares exponent p of error ∝ size^p, over the errors between `smallest` and 1e-3 (1e-4 if implicit).

    `leads`: the sizes are so small that up to order 4 no more than the order may show.
    """
    sizes, errors = np.asarray(sizes), np.asarray(errors)
    window = (errors < (1e-3 if order < 5 or leads else 1e-4)) & (errors > smallest)
    assert window.sum() >= 4
    found = np.polyfit(np.log(sizes[window]), np.log(errors[window]), 1)[0]
    assert found > order - max(0.2, 0.02 * order)
    if leads and order <= 4:
        assert found < order + 0.2


def solver(method, span):
    @jax.jit
    def error(dt):
        options = {"saveat": jde.SaveAt(t1=True), "controller": jde.FixedSteps(dt=dt), "tspan": (0.0, span)}

        def end(phase):
            sol = jde.solve(PROBLEM, method, y0=exact(0.0, phase), args=phase, **options)
            return sol.ys[-1] - exact(span, phase), sol.stats.accepted

        off, accepted = jax.lax.map(end, jnp.asarray(PHASES))  # one solve compiles faster than sixteen lanes
        return rms(off), jnp.min(accepted)

    return error


@pytest.mark.parametrize("name", METHODS)
def test_order_of_a_solve(name):
    """At every number of steps, whatever the tolerances are: these are not given."""
    method, explicit = MADE[name], name in EXPLICIT
    span = T1 if explicit or method.order < 9 else 8 * T1  # else few numbers of steps lie between 1e-3 and rounding
    error = solver(method, span)
    numbers, errors = [], []
    most = 30_000 if method.order == 1 else 5_000
    ratio = 2 ** (0.5 if method.order == 1 else 0.25 if span == T1 else 0.125)
    while not errors or (errors[-1] > (1e-11 if explicit else 2e-12) and numbers[-1] < most):
        numbers.append(2 if not numbers else int(numbers[-1] * ratio) + 1)
        size, accepted = error(span / numbers[-1])
        errors.append(float(size) if accepted == numbers[-1] else np.inf)  # two steps of Feagin14 go to infinity
    assert np.all(np.isfinite(np.array(errors)[np.array(numbers) >= 2 * span]))
    assert error._cache_size() == 1  # pyright: ignore[reportAttributeAccessIssue]  # a method that JAX's stubs leave out
    assert_order(method.order, span / np.array(numbers), errors, 1e-11 if explicit else 2e-12, explicit)


# ---- one step: its end, its dense output, its error estimate

THETAS = np.linspace(0.0, 1.0, 17)
SIZES = 2.0 ** -np.arange(-1, 12, 0.25)


@functools.cache
def errors_of_a_step(method):
    """Of the end, of the dense output (the largest over θ), and the error estimate. Shapes: three of [sizes].

    Where Newton's method did not arrive they are infinite.
    """

    def one(phase, dt):
        y = exact(0.0, phase)
        zero = jnp.zeros(())
        start = State(zero, y, method.init(FIELD, zero, y, phase))
        step = method.step(FIELD, start, dt, phase, Tolerance(jnp.asarray(1e-13), jnp.asarray(1e-13)))
        polynomial = method.polynomial(FIELD, step.dense, phase)
        along = THETAS[:, None] ** np.arange(polynomial.shape[0]) @ polynomial
        off = along - jax.vmap(exact, (0, None))(THETAS * dt, phase)
        estimate = jnp.zeros(2) if step.error is None else step.error
        errors = step.after.y - exact(dt, phase), off, estimate
        return jax.tree.map(lambda x: jnp.where(step.ok, x, jnp.inf), errors)

    def over_phases(dt):
        end, off, estimate = jax.vmap(one, (0, None))(jnp.asarray(PHASES), dt)
        return rms(end), jnp.max(jax.vmap(rms, 1)(off)), rms(estimate)

    return jax.tree.map(np.asarray, jax.jit(jax.vmap(over_phases))(SIZES))


def smallest(name):
    """The smallest error that is no rounding, nor what Newton's method leaves."""
    return 1e-14 if name in EXPLICIT else 4e-13


@pytest.mark.parametrize("name", STEPPED)
def test_order_of_a_step(name):
    assert_order(METHODS[name].order + 1, SIZES, errors_of_a_step(METHODS[name])[0], smallest(name), name in EXPLICIT)


@pytest.mark.parametrize("name", STEPPED)
def test_order_of_dense_output(name):
    method = METHODS[name]
    assert_order(method.dense_order + 1, SIZES, errors_of_a_step(method)[1], 1e-11, leads=name in EXPLICIT)


@pytest.mark.parametrize("name", [name for name in STEPPED if METHODS[name].error_order is not None])
def test_order_of_the_error_estimate(name):
    assert_order(METHODS[name].error_order, SIZES, errors_of_a_step(METHODS[name])[2], smallest(name), name in EXPLICIT)
