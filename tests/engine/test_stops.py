"""Times landed on: those that steps ask for on the way, restarts and their count, and the two sides of a stop."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiffeq as jde
from jaxdiffeq import Result
from jaxdiffeq.engine.control import Tolerance
from jaxdiffeq.engine.integration import Integration
from jaxdiffeq.engine.recorders import SaveSteps
from jaxdiffeq.engine.stops import asked_for, nothing_asked
from jaxdiffeq.gradients.rule import differentiable
from jaxdiffeq.problems.vector_field import VectorField
from jaxdiffeq.steppers.explicit import ExplicitRK
from jaxdiffeq.tableaux.explicit import BS3, TSIT5
from jaxdiffeq.types import Inputs, Settings, State, Step

TOLERANCE = Tolerance(jnp.asarray(1e-6), jnp.asarray(1e-6))


@dataclass(frozen=True)
class Asking(ExplicitRK):
    """An explicit method whose steps ask for the times `when(start, args)`, and end the solve as `ends(step)` says."""

    when: Any = None
    ends: Any = None

    def step(self, f, start, t1, args, tolerance=None) -> Step:
        step = super().step(f, start, t1, args, tolerance)
        if self.when is not None:
            step = step._replace(stops=jnp.atleast_1d(self.when(start, args)))
        return step if self.ends is None else step._replace(result=self.ends(step))


def inputs(y0, args=(), span=(0.0, 1.0), stops=()):
    t0, t1 = (jnp.asarray(t, float) for t in span)
    return Inputs(jnp.asarray(y0, float), args, t0, t1, jnp.zeros(0), jnp.asarray(stops, float))


def settings(dt=0.125, controller: Any = None):
    controller = jde.FixedSteps(dt=jnp.asarray(dt)) if controller is None else controller
    return Settings(controller, TOLERANCE, jnp.asarray(dt), jnp.asarray(200, jnp.int32))


def saved(stepper, f, given, room=0, **options):
    """The times of the steps, and the last carry."""
    recorder = SaveSteps(lambda t, y, args: y, 200)
    integration = Integration(VectorField(f), stepper, {"steps": recorder}, room_for_stops=room)
    carry = jax.jit(integration.run)(given, settings(**options))
    count = int(carry.control.counts.steps)
    return np.asarray(carry.records["steps"].t[:count]), carry


def grow(t, y, args):
    return y * jnp.cos(3 * t)


# ---- times that steps ask for


@pytest.mark.parametrize("sign", [1, -1])
def test_a_time_asked_for_is_landed_on(sign):
    """Once for all steps that ask for it, and neither what has passed nor what lies beyond the end."""
    asked = sign * jnp.array([0.3, 0.7, 0.01, 5.0, jnp.nan, 0.7])
    stepper = Asking(TSIT5, when=lambda start, args: asked)
    ts, carry = saved(stepper, grow, inputs([1.0], span=(0.0, sign)), room=2, dt=0.25)
    np.testing.assert_allclose(ts, sign * np.array([0.25, 0.3, 0.55, 0.7, 0.95, 1.0]), rtol=1e-14)
    assert np.isin(sign * np.array([0.3, 0.7]), ts).all()
    assert carry.control.counts.restarts == 2
    assert carry.control.result == Result.success


def test_times_asked_for_are_as_good_as_given_ones():
    """To the bit, with a jump of f there: it is seen from either side whatever f says."""
    for jump in (lambda t, at: t < at, lambda t, at: t <= at):
        f = lambda t, y, at, jump=jump: jnp.where(jump(t, at), 1.0, 3.0) * y
        at = jnp.array(0.4)
        given, first = saved(ExplicitRK(TSIT5), f, inputs([1.0], at, stops=[0.4]))
        asked, second = saved(Asking(TSIT5, when=lambda start, at: at), f, inputs([1.0], at), room=2)
        np.testing.assert_array_equal(given, asked)
        np.testing.assert_array_equal(first.state.y, second.state.y)
        np.testing.assert_allclose(first.state.y, np.exp(0.4 + 3 * 0.6), rtol=1e-6)


def test_more_than_there_is_room_for():
    asked = lambda start, args: start.t + jnp.array([0.3, 0.4, 0.5])
    ts, carry = saved(Asking(TSIT5, when=asked), grow, inputs([1.0]), room=2)
    assert carry.control.result == Result.event_limit_reached
    assert ts.tolist() == [0.125]
    assert saved(Asking(TSIT5, when=asked), grow, inputs([1.0]), room=32)[1].control.result == Result.success


def test_the_times_ahead_are_kept_in_order():
    given = inputs([1.0], span=(1.0, 0.0))
    stops = nothing_asked(given, 3)
    stops, fits = asked_for(stops, jnp.array(0.9), jnp.array([0.2, 0.95, 0.6]), given)
    np.testing.assert_array_equal(stops, [np.inf, 0.6, 0.2, -np.inf])
    assert fits
    stops, fits = asked_for(stops, jnp.array(0.6), jnp.array([0.3]), given)
    np.testing.assert_array_equal(stops, [0.6, 0.3, 0.2, -np.inf])
    stops, fits = asked_for(stops, jnp.array(0.5), jnp.array([0.1, 0.25]), given)
    np.testing.assert_array_equal(stops, [0.6, 0.3, 0.25, 0.2])
    assert not fits


def test_without_room_nothing_is_carried():
    """And who asks in vain is told."""
    integration = Integration(VectorField(grow), ExplicitRK(TSIT5))
    carry = jax.eval_shape(integration.start, inputs([1.0]), settings())
    assert jax.tree.leaves((carry.state.stops, carry.control.counts.restarts)) == []
    with pytest.raises(AssertionError, match="room"):
        saved(Asking(TSIT5, when=lambda start, args: start.t + 0.1), grow, inputs([1.0]))


def solved(y0, args, strategy, room, stops=()):
    """y(1) where the first step asks for a time that depends on its state, and f jumps at args[0]."""
    first = lambda start, args: jnp.where(start.t == 0, jnp.append(args[0], 0.2 + 0.1 * start.y[0]), jnp.nan)
    f = lambda t, y, args: jnp.where(t < args[0], 1.0, args[1]) * jnp.sin(y + t)
    integration = Integration(VectorField(f), Asking(BS3, when=first) if room else ExplicitRK(BS3), room_for_stops=room)
    bound = strategy.bind(200, 64)
    given = inputs(y0, args)._replace(y0=y0, args=args, stops=jnp.asarray(stops))
    controller = jde.PIDController()
    return differentiable(bound, integration, given, settings(controller=controller))[0].y


@pytest.mark.parametrize("memory", [None, 2])
def test_derivatives_in_what_the_times_depend_on(memory):
    """Of the steps that were taken, in both modes; a time moves f's jump, which a stop given would move as much."""
    x = jnp.array([0.8, 1.3, 0.55, 2.0])
    reverse = jax.jit(jax.jacrev(lambda x: solved(x[:2], x[2:], jde.ReverseAD(memory), 4)))(x)
    forward = jax.jit(jax.jacfwd(lambda x: solved(x[:2], x[2:], jde.ForwardAD(), 4)))(x)
    np.testing.assert_allclose(reverse, forward, rtol=1e-11, atol=1e-13)
    given = jax.jacrev(lambda x: solved(x[:2], x[2:], jde.ReverseAD(), 0, jnp.append(0.28, x[2:3])))(x)
    np.testing.assert_allclose(reverse, given, rtol=2e-5, atol=1e-6)
    assert np.all(np.abs(reverse[:, 2]) > 0.1)


def test_lanes_ask_for_themselves():
    starts = jnp.array([[0.1, 0.3], [0.8, 1.3], [2.5, -1.0]])
    args = jnp.array([0.55, 2.0])
    lanes = jax.jit(jax.vmap(lambda y0: solved(y0, args, jde.ReverseAD(), 4)))(starts)
    for y0, lane in zip(starts, lanes, strict=True):
        np.testing.assert_allclose(lane, solved(y0, args, jde.ReverseAD(), 4), rtol=1e-12)


def test_a_step_refused_at_a_stop_begins_nothing_anew():
    """As many calls as are counted, where attempts that would land on the stop are refused."""
    calls = []

    def f(t, y, args):
        jax.debug.callback(lambda t: calls.append(t), t)
        return jnp.where(t < 0.5, -y, 300 * jnp.cos(300 * (t - 0.5)))

    problem = jde.ODEProblem(f, 1.0, (0.0, 0.7))
    options = {"stops": [0.5, 0.53], "rtol": 1e-6, "atol": 1e-6, "first_step": 0.1}
    made = jde.trace(problem, jde.Tsit5(), **options)
    refused = made.rows.t + made.rows.dt == 0.53
    assert np.sum(refused) > 1
    calls.clear()
    sol = jde.solve(problem, jde.Tsit5(), saveat=jde.SaveAt(t1=True), **options)
    jax.effects_barrier()
    assert len(calls) == int(sol.stats.f_evals) == 1 + 6 * int(sol.stats.steps) + 2


# ---- how a step ends


def test_a_step_may_end_the_solve():
    ends = lambda step: jnp.where(step.after.t >= 0.5, Result.terminated, Result.running)
    ts, carry = saved(Asking(TSIT5, ends=ends), grow, inputs([1.0]))
    np.testing.assert_array_equal(ts, [0.125, 0.25, 0.375, 0.5])
    assert carry.control.result == Result.terminated
    assert carry.control.counts.steps == 4


def test_a_rejected_step_does_not_end_it():
    """Steps of 1/8 are refused, and say that they end the solve."""
    ends = lambda step: jnp.where(jnp.abs(step.error[0]) > 1e-5, Result.terminated, Result.running)
    f = lambda t, y, args: 20 * jnp.cos(20 * t) * jnp.ones_like(y)
    _, carry = saved(Asking(TSIT5, ends=ends), f, inputs([1.0]), controller=jde.PIDController())
    assert carry.control.counts.rejected_error > 0
    assert carry.control.result == Result.success


def test_a_derivative_up_to_the_end():
    ends = lambda step: jnp.where(step.after.t >= 0.5, Result.terminated, Result.running)

    def end(y0, strategy):
        integration = Integration(VectorField(grow), Asking(TSIT5, ends=ends))
        return differentiable(strategy.bind(200, 64), integration, inputs([1.0])._replace(y0=y0), settings())[0].y[0]

    reverse, forward = (jax.grad(end)(jnp.array([1.3]), way) for way in (jde.ReverseAD(), jde.ForwardAD()))
    np.testing.assert_allclose(reverse, np.exp(np.sin(1.5) / 3), rtol=1e-6)
    np.testing.assert_allclose(reverse, forward, rtol=1e-12)


# ---- what a field may ask of the step


def numbered(t, y, args, number):
    """A different rate in every step, as with noise that is keyed by steps."""
    return jnp.sin(args * jnp.asarray(number, float)) * jnp.cos(y) + t


@pytest.mark.parametrize("memory", [None, 2])
@pytest.mark.parametrize("stops", [(), (0.3,)])
def test_a_field_knows_the_number_of_the_step(memory, stops):
    """Rejected attempts repeat it, a replay has the same ones, and where the solve begins anew it is the next one's."""

    def of(context):
        return VectorField(lambda t, y, args: numbered(t, y, args, context.number))

    field = VectorField(lambda t, y, args: jnp.nan * y, in_context=of)
    integration = Integration(field, ExplicitRK(BS3))

    def end(y0, args, strategy):
        given = inputs(y0, args, stops=stops)._replace(y0=y0)
        control = jde.PIDController()
        return differentiable(strategy.bind(200, 64), integration, given, settings(0.5, control))[0].y[0]

    y0, args = jnp.array([0.4]), jnp.array(0.9)
    slope = lambda way: jax.jit(jax.grad(lambda y0, args: end(y0, args, way), (0, 1)))(y0, args)
    reverse, forward = slope(jde.ReverseAD(memory)), slope(jde.ForwardAD())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11), reverse, forward)

    given, logged = inputs(y0, args, stops=stops), replace(integration, recorders={"steps": SaveSteps(grow, 200)})
    carry = jax.jit(logged.run)(given, settings(0.5, jde.PIDController()))
    count = int(carry.control.counts.steps)
    assert count > 4 and carry.control.counts.rejected_error > 0
    f = [VectorField(lambda t, y, args, n=n: numbered(t, y, args, n)) for n in range(count + 1)]
    state = State(given.t0, y0, f[0](given.t0, y0, args))
    for n, t1 in enumerate(carry.records["steps"].t[:count]):
        state = ExplicitRK(BS3).step(f[n], state, t1, args).after
        if t1 in stops:
            state = state._replace(memory=f[n + 1](t1, state.y, args))
    np.testing.assert_allclose(carry.state.y, state.y, rtol=1e-13)


# ---- the two sides of a stop


def test_a_value_saved_at_a_stop_is_that_before_it():
    """z = 1 and then 3; a row after the step has what the solve goes on with."""
    residual = lambda t, y, dy, at: jnp.stack([dy[0] - y[1], y[1] - jnp.where(t < at, 1.0, 3.0)])
    problem = jde.DAEProblem(residual, jnp.array([0.0, 1.0]), None, (0.0, 2.0), jnp.array(0.7))
    options = {"stops": [0.7], "rtol": 1e-8, "atol": 1e-8}
    sol = jde.solve(problem, saveat=jde.SaveAt(ts=[0.5, 0.7, 0.9], steps=True), dense=True, **options)
    np.testing.assert_allclose(sol.ys[:3, 1], [1.0, 1.0, 3.0], rtol=1e-7)
    at_stop = np.flatnonzero(sol.ts == 0.7)[-1]
    np.testing.assert_allclose(sol.ys[at_stop], [0.7, 3.0], rtol=1e-7)
    np.testing.assert_allclose([sol(0.7)[1], sol(0.7 + 1e-9)[1]], [1.0, 3.0], rtol=1e-6)
