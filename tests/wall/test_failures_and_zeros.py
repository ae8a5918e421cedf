"""Law 13: a cotangent of zero gives a gradient of zero, and forward and reverse mode agree, failed solves included.

y′ = p·y² from y₀ is y₀/(1 − p·y₀·t), which ends at t = 1/(p·y₀): a solve beyond that fails, at a step size that is too
small or after `max_steps`, and the rows before are those of a solve that does not. All numbers wanted are of that form.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiffeq as jde
from jaxdiffeq.gradients import support

STRATEGIES = {kind.__name__: kind() for kind in support.STRATEGIES if support.serves(kind, "ODEProblem")}
METHODS = {"explicit": jde.BS3(), "Rosenbrock": jde.ROS2(), "implicit": jde.Kvaerno3(), "chosen": None}
RATE = 0.9
EQUAL = {"controller": jde.FixedSteps(10)}
END = jde.SaveAt(t1=True)


def blow_up(t, y, p):
    return p * y * y


def solve(y0, p, t1=1.0, method=METHODS["explicit"], **options):
    options = {"max_steps": 200, "throw": False, "saveat": END, **options}
    return jde.solve(jde.ODEProblem(blow_up, y0, (0.0, t1), p), method, **options)


def truth(y0, p, t):
    return y0 / (1 - p * y0 * t)


def both_modes(fun, *args):
    """The derivatives of a scalar function in both modes, of one program each, checked to be the same."""
    numbers = tuple(range(len(args)))
    reverse, forward = jax.jit(lambda *xs: (jax.grad(fun, numbers)(*xs), jax.jacfwd(fun, numbers)(*xs)))(*args)
    for a, b in zip(forward, reverse, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    return np.asarray(reverse)


# ---- a batch in which one sample fails


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_loss_that_masks_failures(method):
    def loss(p):
        sol = jax.vmap(lambda y0: solve(y0, p, method=method, max_steps=3000, rtol=1e-6, atol=1e-8))(
            jnp.array([0.3, 2.0])
        )
        return jnp.sum(jnp.where(sol.ok, sol.ys[:, 0], 0.0))

    (found,) = both_modes(loss, RATE)
    np.testing.assert_allclose(found, 0.3**2 / (1 - 0.3 * RATE) ** 2, rtol=1e-3)


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
def test_zero_in_zero_out(strategy):
    """What a loss does not look at has no gradient, and what it weighs with zero one of exactly zero."""

    def masked(y0, p):
        sol = jax.vmap(lambda y: solve(y, p, gradient=strategy))(y0 * jnp.array([1.0, 6.0]))
        return jnp.sum(jnp.where(sol.ok, sol.ys[:, 0], 0.0))

    def unused(y0, p):
        failed, good = (solve(c * y0, p, gradient=strategy) for c in (6.0, 1.0))
        return jnp.where(failed.ok, failed.ys[0], good.ys[0])

    def weighed(y0, p):
        return 0.0 * p * y0 + jnp.where(solve(6.0 * y0, p, gradient=strategy).ok, 1.0, 0.0)

    losses = lambda y0, p: jnp.stack([masked(y0, p), unused(y0, p), weighed(y0, p)])
    wanted = np.asarray(jax.grad(lambda y0, p: truth(y0, p, 1.0), (0, 1))(0.3, RATE))
    for mode in (jax.jacrev, jax.jacfwd):
        found = np.stack(jax.jit(mode(losses, (0, 1)))(0.3, RATE), 1)
        np.testing.assert_allclose(found[:2], np.stack([wanted] * 2), rtol=3e-3)
        np.testing.assert_array_equal(found[2], 0.0)


# ---- rows from before the failure

TIMES = np.array([0.1, 0.25, 0.9])  # the solution ends at 1/(0.9·2) = 0.56


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
def test_rows_before_a_failure(strategy):
    def reached(y0, p):
        ys = solve(y0, p, saveat=TIMES, gradient=strategy, rtol=1e-8, atol=1e-8).ys
        return ys[0] + 2.0 * ys[1]

    def wanted(y0, p):
        return truth(y0, p, TIMES[0]) + 2.0 * truth(y0, p, TIMES[1])

    np.testing.assert_allclose(jax.jit(reached)(2.0, RATE), wanted(2.0, RATE), rtol=1e-6)
    exact = np.asarray(jax.grad(wanted, (0, 1))(2.0, RATE))
    for mode in (jax.grad, jax.jacfwd):
        np.testing.assert_allclose(jax.jit(mode(reached, (0, 1)))(2.0, RATE), exact, rtol=1e-4)


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
def test_the_row_after_a_failure(strategy):
    """It is NaN, and so is each of its derivatives."""

    def beyond(y0, p):
        return solve(y0, p, saveat=TIMES, gradient=strategy).ys[2]

    assert np.isnan(jax.jit(beyond)(2.0, RATE))
    for mode in (jax.grad, jax.jacfwd):
        assert np.all(np.isnan(jax.jit(mode(beyond, (0, 1)))(2.0, RATE)))


@pytest.mark.parametrize("saveat", [jde.SaveAt(steps=1, t0=True), jde.SaveAt(steps=2)], ids=["all", "every second"])
def test_steps_before_a_failure(saveat):
    def third(y0, p):
        sol = solve(y0, p, saveat=saveat, max_steps=30, rtol=1e-6, atol=1e-8)
        return sol.ys[3] - truth(y0, p, jax.lax.stop_gradient(sol.ts[3]))

    assert abs(jax.jit(third)(2.0, RATE)) < 1e-5
    assert np.all(np.abs(both_modes(third, 2.0, RATE)) < 1e-3)


# ---- equal steps


def failing_root(t, y, p):
    """Without a root of an implicit step where y is negative, which it soon is."""
    return -p - jnp.sqrt(y)


IMPLICIT = {"Kvaerno3": jde.Kvaerno3(), "ImplicitEuler": jde.ImplicitEuler(), "RadauIIA3": jde.RadauIIA3()}
EXPLICIT = {"RK4": jde.RK4()}


def failed(y0, p, method, strategy, **options):
    problem = jde.ODEProblem(failing_root, y0, (0.0, 2.0), p)
    return jde.solve(problem, method, gradient=strategy, throw=False, **EQUAL, **{"saveat": END, **options})


@pytest.mark.parametrize("strategy", ["ReverseAD", "ForwardAD"])
@pytest.mark.parametrize("method", IMPLICIT | EXPLICIT)
def test_failed_equal_steps(method, strategy):
    def end(y0, p):
        return failed(y0, p, (IMPLICIT | EXPLICIT)[method], STRATEGIES[strategy]).ys[0]

    assert np.isnan(jax.jit(end)(1.0, 1.0))
    assert np.all(np.isnan(both_modes(end, 1.0, 1.0)))


@pytest.mark.parametrize("strategy", ["ReverseAD"])
@pytest.mark.parametrize("method", ["ImplicitEuler", "Kvaerno3", "RK4"])
def test_failed_equal_steps_that_are_masked(method, strategy):
    def end(y0, p):
        of = functools.partial(failed, method=(IMPLICIT | EXPLICIT)[method], strategy=STRATEGIES[strategy])
        sol = jax.vmap(lambda y, p: of(y, p))(y0 * jnp.array([1.0, 100.0]), p * jnp.ones(2))
        return jnp.sum(jnp.where(sol.ok, sol.ys[:, 0], 0.0))

    def alone(y0, p):
        return failed(100.0 * y0, p, (IMPLICIT | EXPLICIT)[method], STRATEGIES[strategy]).ys[0]

    np.testing.assert_allclose(both_modes(end, 1.0, 1.0), both_modes(alone, 1.0, 1.0), rtol=1e-9)


@pytest.mark.parametrize("method", ["Kvaerno3", "RK4"])
@pytest.mark.parametrize("saveat", [jde.SaveAt(steps=1), [0.2, 0.4, 1.8]], ids=["steps", "times"])
def test_rows_of_equal_steps_before_a_failure(method, saveat):
    def second(y0, p):
        return failed(y0, p, (IMPLICIT | EXPLICIT)[method], STRATEGIES["ReverseAD"], saveat=saveat).ys[1]

    def short(y0, p):
        problem = jde.ODEProblem(failing_root, y0, (0.0, 0.4), p)
        return jde.solve(problem, (IMPLICIT | EXPLICIT)[method], controller=jde.FixedSteps(2), saveat=END).ys[0]

    np.testing.assert_allclose(jax.jit(second)(1.0, 1.0), jax.jit(short)(1.0, 1.0), rtol=1e-9)
    np.testing.assert_allclose(both_modes(second, 1.0, 1.0), both_modes(short, 1.0, 1.0), rtol=1e-8)


# ---- the time at the end

TIMES_OF = {
    "t_end": lambda sol: sol.t_end,
    "ts of the end": lambda sol: sol.ts[-1],
}


def test_the_last_time_is_the_end():
    """Of every strategy, and of equal steps and dense output as well."""
    kinds = [{"gradient": strategy} for strategy in STRATEGIES.values()]
    kinds += [EQUAL, {"dense": True}, {"saveat": jde.SaveAt(t0=True, t1=True)}, {"method": jde.Kvaerno3()}]

    def ends(span):
        problem = jde.ODEProblem(blow_up, 0.3, (span[0], span[1]), 0.5)
        sols = [jde.solve(problem, **{"method": jde.BS3(), "saveat": END, **kind}) for kind in kinds]
        return jnp.stack([time(sol) for sol in sols for time in TIMES_OF.values()])

    span = jnp.array([0.0, 2.0])
    for mode in (jax.jacfwd, jax.jacrev):
        found = jax.jit(mode(ends))(span)
        np.testing.assert_array_equal(found, np.tile([0.0, 1.0], (len(found), 1)))


@pytest.mark.parametrize("strategy", ["ReverseAD", "ForwardAD"])
def test_the_last_of_all_steps_is_at_the_end(strategy):
    """Step sizes are constants, but for the last step, which goes to t1; before it the steps shift with t0."""

    def last(t0, t1):
        problem = jde.ODEProblem(blow_up, 0.3, (t0, t1), 0.5)
        sol = jde.solve(problem, jde.BS3(), gradient=STRATEGIES[strategy], saveat=jde.SaveAt(steps=1), max_steps=50)
        return sol.ts[-1]

    np.testing.assert_array_equal(both_modes(last, 0.0, 2.0), [0.0, 1.0])


def test_the_times_of_rows_are_those_asked_for():
    def times(at):
        problem = jde.ODEProblem(blow_up, 0.3, (0.0, 2.0), 0.5)
        return jde.solve(problem, jde.BS3(), saveat=at).ts

    at = jnp.array([0.5, 0.5, 2.0])
    np.testing.assert_array_equal(jax.jacrev(times)(at), np.eye(3))
    np.testing.assert_array_equal(jax.jacfwd(times)(at), np.eye(3))


def test_the_time_of_a_failure_has_a_derivative_in_neither_mode_or_both():
    def stopped(y0, p):
        return solve(y0, p, max_steps=7).t_end

    assert 0 < jax.jit(stopped)(2.0, RATE) < 1
    both_modes(stopped, 2.0, RATE)
