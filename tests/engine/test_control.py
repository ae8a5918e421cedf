"""Controllers against numbers worked out by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiffeq as jde
from jaxdiffeq.engine.control import (
    FixedSteps,
    IController,
    PIController,
    PIDController,
    PredictiveController,
    Tolerance,
    rms,
    starting_step,
)
from jaxdiffeq.types import Inputs, Result, State, Step

TOLERANCE = Tolerance(jnp.zeros(()), jnp.ones(()))  # then the ratio is the error


def judge(controller, ratios, dt=1.0, order=3, ok=True):
    """The verdicts on attempts with these error ratios, one after the other, at the sizes asked for."""
    memory, verdicts, dt = controller.init(jnp.float64), [], jnp.asarray(dt)
    for ratio in ratios:
        y = jnp.zeros(4)
        step = Step(State(dt, y, ()), jnp.full(4, ratio, float), None, jnp.asarray(ok))
        verdicts.append(controller.judge(State(dt, y, ()), step, dt, memory, TOLERANCE, order))
        memory, dt = verdicts[-1].memory, verdicts[-1].dt
    return verdicts


def factors(controller, ratios, **options):
    sizes = np.array([1.0, *(float(v.dt) for v in judge(controller, ratios, **options))])
    return sizes[1:] / sizes[:-1]


def test_elementary_controller():
    found = factors(IController(), [0.5, 0.1, 0.9])
    np.testing.assert_allclose(found, [0.9 * r ** (-1 / 3) for r in (0.5, 0.1, 0.9)], rtol=1e-14)


def test_pi_controller():
    # β₁ = p + i, β₂ = −p, and a ratio of 1 before the first
    found = factors(PIController(pcoeff=0.4, icoeff=0.3), [0.5, 0.2, 0.8])
    wanted = [
        0.9 * 0.5 ** (-0.7 / 3),
        0.9 * 0.2 ** (-0.7 / 3) * 0.5 ** (0.4 / 3),
        0.9 * 0.8 ** (-0.7 / 3) * 0.2 ** (0.4 / 3),
    ]
    np.testing.assert_allclose(found, wanted, rtol=1e-14)


def test_pid_controller():
    # β₁ = p + i + d, β₂ = −(p + 2d), β₃ = d
    p, i, d, k = 0.2, 0.3, 0.1, 4
    found = factors(PIDController(p, i, d, safety=1.0), [0.5, 0.2, 0.8], order=k)
    r = [1.0, 1.0, 0.5, 0.2, 0.8]
    wanted = [r[n] ** (-(p + i + d) / k) * r[n - 1] ** ((p + 2 * d) / k) * r[n - 2] ** (-d / k) for n in (2, 3, 4)]
    np.testing.assert_allclose(found, wanted, rtol=1e-14)


@pytest.mark.parametrize("second, limits", [(0.8, True), (0.3, False)])
def test_predictive_controller(second, limits):
    """Where errors grow faster than the steps explain, the next step is shorter in time."""
    k, first = 3, 0.5
    grew = 0.9 * first ** (-1 / k)
    trend = grew * (first / second) ** (1 / k)
    assert (trend < 1) == limits
    wanted = [grew, 0.9 * second ** (-1 / k) * min(trend, 1)]
    np.testing.assert_allclose(factors(PredictiveController(), [first, second], order=k), wanted, rtol=1e-14)


def test_default_is_a_pi_controller():
    default = PIDController()
    assert default.dcoeff == 0
    assert default.pcoeff > 0
    assert default.icoeff > 0


def test_factors_are_limited():
    assert factors(IController(factor_max=4.0), [1e-9]) == 4
    assert factors(IController(), [0.0]) == IController().factor_max
    assert factors(IController(factor_min=0.3), [1e9]) == 0.3
    for bad in (math.nan, math.inf):
        assert factors(IController(factor_min=0.3), [bad]) == 0.3


@pytest.mark.parametrize(
    "controller", [IController(), PIController(), PIDController(0.2, 0.3, 0.1), PredictiveController()]
)
def test_a_rejection(controller):
    """It shrinks by the elementary rule, at least by the safety factor; the step after it does not grow."""
    refused, after, later = judge(controller, [8.0, 1e-6, 1e-6])
    assert not refused.accept
    np.testing.assert_allclose(refused.dt, 0.9 * 8 ** (-1 / 3), rtol=1e-14)
    assert after.accept
    assert after.dt == refused.dt
    assert later.dt > after.dt
    just = judge(controller, [1.0 + 1e-9])[0]
    assert not just.accept
    assert just.dt <= 0.9
    assert judge(controller, [1.0])[0].accept


def test_a_rejection_leaves_no_mark_on_the_history():
    refused, after = judge(PIController(), [0.5, 8.0])
    assert after.memory[:2] == refused.memory[:2]


def test_causes():
    controller = IController()
    assert judge(controller, [2.0])[0].cause == Result.step_size_too_small
    assert judge(controller, [math.nan])[0].cause == Result.nonfinite
    failed = judge(controller, [0.1], ok=False)[0]
    assert failed.cause == Result.nonlinear_solve_failed
    assert not failed.accept
    assert failed.dt < 1


def test_limits_on_the_step():
    low, high = judge(IController(min_step=0.8, max_step=1.5), [1e3, 1e-9])
    assert low.dt == 0.8
    assert not low.stop
    assert judge(IController(min_step=0.8), [1e3], dt=0.8)[0].stop
    assert not judge(IController(min_step=0.8), [0.5], dt=0.8)[0].stop
    assert judge(IController(max_step=1.5), [1e-9])[0].dt == 1.5
    assert high.dt <= 1.5


def test_norms():
    assert rms(jnp.array([3.0, 4.0])) == math.sqrt(12.5)
    assert rms(jnp.array([3.0 + 4.0j])) == 5
    assert rms(jnp.zeros(0)) == 0
    error = jnp.array([0.0, 0.0, 0.0, 1.5])
    step = Step(State(jnp.array(1.0), jnp.zeros(4), ()), error, None, True)

    def accepted(norm):
        controller = IController(norm=norm)
        before = State(jnp.array(0.0), jnp.zeros(4), ())
        return controller.judge(before, step, jnp.array(1.0), controller.init(float), TOLERANCE, 3).accept

    assert accepted(rms)  # 0.75
    assert not accepted(lambda x: jnp.max(jnp.abs(x)))


def test_tolerance_by_component():
    tolerance = Tolerance(jnp.array([0.1, 0.0]), jnp.array([0.0, 2.0]))
    scale = tolerance.scale(jnp.array([-3.0, 5.0]), jnp.array([2.0, -7.0]))
    np.testing.assert_allclose(scale, [0.3, 2.0], rtol=1e-15)


def oscillator(t, y, args):
    return jnp.stack([y[1], -y[0]])


def test_solves_know_norms_and_tolerances_by_component():
    problem = jde.ODEProblem(oscillator, jnp.array([1.0, 0.0]), (0.0, 5.0))

    def error(**options):
        sol = jde.solve(problem, jde.Tsit5(), saveat=jde.SaveAt(t1=True), **options)
        return np.abs(np.asarray(sol.ys[-1]) - [math.cos(5), -math.sin(5)]), int(sol.stats.accepted)

    loose, few = error(rtol=1e-3, atol=1e-3)
    tight, many = error(rtol=0.0, atol=np.array([1e-9, 1e-1]))
    assert tight[0] < 1e-7
    assert many > 3 * few
    strict = error(rtol=1e-3, atol=1e-3, controller=jde.PIDController(norm=lambda x: 1e6 * jnp.max(jnp.abs(x))))
    assert strict[0].max() < 1e-7 < loose.max()
    with pytest.raises(ValueError, match="atol"):
        error(atol=np.ones(3))


def test_solves_keep_to_the_limits_on_the_step():
    problem = jde.ODEProblem(oscillator, jnp.array([1.0, 0.0]), (0.0, 5.0))
    sol = jde.solve(problem, jde.Tsit5(), controller=jde.PIDController(max_step=0.1), first_step=0.05)
    steps = np.diff(sol.ts)
    assert steps.max() <= 0.1 * 1.01
    assert steps.max() > 0.0999
    sol = jde.solve(
        problem, jde.Tsit5(), controller=jde.PIDController(min_step=0.9), first_step=0.9, rtol=1e-8, throw=False
    )
    assert sol.status == "step_size_too_small"
    assert sol.stats.accepted == 0
    sol = jde.solve(
        problem, jde.Tsit5(), controller=jde.PIDController(min_step=0.2), first_step=0.3, rtol=1e-3, atol=1e-3
    )
    assert np.diff(sol.ts)[:-1].min() >= 0.2


def first(t1, y0=1.0, t0=0.0, speed=1.0, order=5):
    inputs = Inputs(jnp.full(2, y0), (), jnp.asarray(t0), jnp.asarray(t1), jnp.zeros(0), jnp.zeros(0))
    tolerance = Tolerance(jnp.asarray(1e-6), jnp.asarray(1e-6))
    return float(starting_step(lambda t, y, a: -speed * y, inputs, tolerance, order, rms))


def test_starting_step():
    # y′ = −y: in units of the tolerance and of the span, y″ = 10²/2e-6, and the probe sees it exactly
    np.testing.assert_allclose(first(10.0), 10 * (0.01 * 2e-6 / 10**2) ** (1 / 5), rtol=1e-6)
    assert first(-10.0) == first(10.0)
    assert first(1e-3, speed=1e-9) <= 1e-3  # never beyond the end
    for c in (1e-15, 1e15):
        np.testing.assert_allclose(first(10.0 * c, speed=1 / c), c * first(10.0), rtol=1e-12)
    assert 0 < first(10.0, y0=0.0) <= 10
    assert math.isnan(first(10.0, y0=math.nan))  # f is undefined at the start, which ends the solve there


def test_fixed_steps_are_checked():
    with pytest.raises((ValueError, TypeError)):
        FixedSteps()
    with pytest.raises((ValueError, TypeError)):
        FixedSteps(0)
    with pytest.raises((ValueError, TypeError)):
        FixedSteps(3, dt=0.1)


def test_gains_are_leaves():
    assert jax.tree.leaves(PIDController(0.1, 0.2, 0.3)) == [0.1, 0.2, 0.3, 0.9, 0.2, 10.0]


@pytest.mark.parametrize("norm", [jnp.max, lambda e: jnp.max(jnp.abs(e)), lambda e: jnp.linalg.norm(e.reshape(-1), 1)])
@pytest.mark.parametrize("method", [jde.Tsit5(), jde.Rodas5P(), jde.KenCarp4()], ids=repr)
def test_a_norm_sees_moduli(norm, method):
    """Not signed errors, of which jnp.max would see the positive ones alone."""
    problem = jde.ODEProblem(lambda t, y, args: jnp.stack([y[1], -y[0]]), jnp.array([1.0, 0.0]), (0.0, 20.0))
    sol = jde.solve(problem, method, controller=PIDController(norm=norm), saveat=[20.0], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(sol.ys[0], [np.cos(20.0), -np.sin(20.0)], atol=2e-4)


def test_a_norm_is_one_number():
    problem = jde.ODEProblem(lambda t, y, args: -y, jnp.ones(2), (0.0, 1.0))
    with pytest.raises(ValueError, match=r"`norm` must make one number of an array.*but made one of shape \(2,\)"):
        jde.solve(problem, jde.Tsit5(), controller=PIDController(norm=jnp.abs))


METHODS = [None, jde.Tsit5(), jde.Rodas5P(), jde.BDF(), jde.Adams(), jde.KenCarp4(), jde.RadauIIA5(), jde.TRBDF2()]


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_no_absolute_tolerance_and_components_at_zero(method):
    """One stays there, one leaves at once: A → B, with C beside it."""
    f = lambda t, y, k: k * jnp.stack([-y[0], y[0], -y[2]])
    problem = jde.ODEProblem(f, jnp.array([1.0, 0.0, 0.0]), (0.0, 1.0), 1.0)
    run = lambda k: jde.solve(problem, method, args=k, atol=0.0, rtol=1e-5, saveat=[1.0], throw=False)
    sol = jax.jit(run)(1.0)
    assert sol.status == "success" and sol.ys[0, 2] == 0
    np.testing.assert_allclose(sol.ys[0], [np.exp(-1.0), 1 - np.exp(-1.0), 0.0], rtol=1e-3)
    assert sol.stats.steps < 200
    lanes = jax.vmap(run)(jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(lanes.ys[:, 0, 0], np.exp([-1.0, -2.0]), rtol=1e-3)
