"""Events: found, landed on, in the right order, and once; against closed forms."""

import functools
import math
from typing import Any, cast

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

import jaxdiffeq as jde

G = 9.8
TIGHT: dict[str, Any] = {"rtol": 1e-8, "atol": 1e-8}


def falling(t, y, args):
    return jnp.array([y[1], -G])


def bounced(t, y, args):
    return jnp.array([0.0, -args["e"] * y[1]])


BOUNCE = jde.Event(lambda t, y, args: y[0], affect=bounced, direction=-1)
BALL = jde.ODEProblem(falling, jnp.array([50.0, 0.0]), (0.0, 15.0), {"e": 0.8})
END = jde.SaveAt(t1=True)


def bounces(h, e, count):
    """The times of the bounces of a ball from height h."""
    first = math.sqrt(2 * h / G)
    return first + np.append(0.0, np.cumsum(2 * first * e ** np.arange(1, count)))


METHODS = [
    *(None, jde.Tsit5(), jde.Vern7(), jde.Rosenbrock23(), jde.Rodas5P(), jde.KenCarp4(), jde.RadauIIA5()),
    *(jde.BDF(), jde.Adams(), jde.Auto(jde.Tsit5(), jde.BDF())),
]


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_a_ball_bounces_by_every_kind_of_method(method):
    """The step to a bounce is taken to its root by the method itself, which, but for multistep ones, has no error."""
    sol = jde.solve(BALL, method, events=[BOUNCE], saveat=END, **TIGHT)
    assert sol.events is not None and int(sol.events.count) == int(sol.stats.events) == 3
    accurate = 1e-6 if isinstance(method, type(jde.BDF())) or "BDF" in repr(method) else 1e-11
    np.testing.assert_allclose(sol.events.ts[:3], bounces(50.0, 0.8, 3), rtol=accurate)
    np.testing.assert_allclose(sol.events.before[:3, 0], 0, atol=1e-11)  # rounding of a step
    np.testing.assert_allclose(sol.events.after[:3, 1], -0.8 * sol.events.before[:3, 1], rtol=1e-14)
    assert np.all(np.isnan(sol.events.ts[3:])) and not np.any(sol.events.mask[3:])
    assert not np.any(sol.events.grazing)


@pytest.mark.parametrize("controller", [jde.FixedSteps(37), jde.FixedSteps(dt=0.3)], ids=str)
def test_equal_steps_land_on_events(controller):
    sol = jde.solve(BALL, jde.RK4(), events=[BOUNCE], saveat=END, controller=controller)
    np.testing.assert_allclose(sol.events.ts[:3], bounces(50.0, 0.8, 3), rtol=1e-13)


def test_a_pendulum_is_stopped_where_the_method_says():
    """The state at the root is that of a step to there: as accurate as the steps, not as the interpolant."""
    problem = jde.ODEProblem(lambda t, y, args: jnp.array([y[1], -y[0]]), jnp.array([0.0, 1.0]), (0.0, 10.0))
    stop = jde.Event(lambda t, y, args: y[0], terminate=True)
    sol = jde.solve(problem, jde.Vern7(), events=stop, rtol=1e-11, atol=1e-11)
    assert sol.status == "terminated" and sol.ok
    np.testing.assert_allclose([sol.t_end, sol.ts[-1]], np.pi, rtol=1e-11)
    assert abs(sol.ys[-1, 0]) < 1e-15, "the condition is zero to rounding where it was landed on"


def test_a_thermostat_changes_parameters():
    """Heating and cooling in turn, by a parameter that two events change."""

    def heat(t, y, args):
        return jnp.where(args["on"], 30 - y, -0.5 * (y - 10))

    switch = lambda on: lambda t, y, args: {**args, "on": jnp.array(on)}
    events = [
        jde.Event(lambda t, y, args: y[0] - args["high"], affect_args=switch(False), direction=1),
        jde.Event(lambda t, y, args: y[0] - 18, affect_args=switch(True), direction=-1),
    ]
    args = {"on": jnp.array(True), "high": 22.0}
    problem = jde.ODEProblem(heat, jnp.array([15.0]), (0.0, 6.0), args)
    saveat = jde.SaveAt(t1=True, fn=lambda t, y, args: args["on"])
    sol = jde.solve(problem, jde.Tsit5(), events=events, saveat=saveat, **TIGHT)
    off, on = math.log(12 / 8) / 0.5, math.log(12 / 8)
    times = math.log(15 / 8) + np.append(0.0, np.cumsum([off, on] * 4))
    count = int(sol.events.count)
    assert count == np.sum(times < 6)
    np.testing.assert_allclose(sol.events.ts[:count], times[:count], rtol=1e-7)
    np.testing.assert_array_equal(sol.events.which[:count], np.arange(count) % 2)
    assert bool(sol.ys[0]) == (count % 2 == 0), "what is saved sees the parameters as they are"


# ---- which, when, and how often


def line(t, y, args):
    return jnp.array([1.0, 0.0])


STRAIGHT = jde.ODEProblem(line, jnp.array([0.0, 1.0]), (0.0, 1.0))


def at(height, affect=None, **options):
    return jde.Event(lambda t, y, args: y[0] - height, affect, **options)


def second(change):
    return lambda t, y, args: y.at[1].set(change(y[1]))


def test_events_at_one_time_act_in_the_order_of_the_list():
    add, triple = at(0.5, second(lambda x: x + 1)), at(0.5, second(lambda x: 3 * x))
    for events, end in (([add, triple], 6.0), ([triple, add], 4.0)):
        sol = jde.solve(STRAIGHT, jde.Tsit5(), events=events, saveat=END)
        assert sol.ys[0, 1] == end
        np.testing.assert_allclose(sol.events.ts[:2], 0.5, rtol=1e-14)
        assert sol.events.ts[0] == sol.events.ts[1]
        np.testing.assert_array_equal(sol.events.which[:2], [0, 1])
        np.testing.assert_array_equal(sol.events.before[1], sol.events.after[0])


def test_the_earliest_acts_whatever_the_order():
    late, early = at(0.7, second(lambda x: 10 * x)), at(0.2, second(lambda x: x + 1))
    for events in ([late, early], [early, late]):
        sol = jde.solve(STRAIGHT, jde.Tsit5(), events=events, saveat=END, first_step=1.0)
        assert sol.ys[0, 1] == 20.0
        np.testing.assert_allclose(sol.events.ts[:2], [0.2, 0.7], rtol=1e-14)


def test_two_roots_in_one_step_are_both_found():
    twice = jde.Event(lambda t, y, args: (y[0] - 0.45) * (y[0] - 0.7))
    sol = jde.solve(STRAIGHT, jde.Tsit5(), events=twice, first_step=1.0, saveat=END)
    np.testing.assert_allclose(sol.events.ts[:2], [0.45, 0.7], rtol=1e-14)


@pytest.mark.parametrize(("direction", "found"), [(1, [0.7]), (-1, [0.45]), (0, [0.45, 0.7])])
@pytest.mark.parametrize("span", [(0.0, 1.0), (1.0, 0.0)])
def test_directions_are_those_along_the_way(direction, found, span):
    """Backwards, what rises is what falls forwards."""
    twice = jde.Event(lambda t, y, args: (t - 0.45) * (t - 0.7), direction=direction)
    sol = jde.solve(STRAIGHT, jde.Tsit5(), tspan=span, events=twice, saveat=END)
    found = found if span[0] == 0 else [1.15 - t for t in found]
    count = int(sol.events.count)
    np.testing.assert_allclose(sol.events.ts[:count], np.sort(found)[:: 1 if span[0] == 0 else -1], rtol=1e-13)


def test_neither_a_start_on_a_root_nor_one_just_left_acts():
    """Nor does a condition that its affect leaves where it is."""
    sol = jde.solve(STRAIGHT, jde.Tsit5(), events=at(0.0), saveat=END)
    assert int(sol.events.count) == 0
    sol = jde.solve(STRAIGHT, jde.Tsit5(), events=[at(0.3), at(0.3, lambda t, y, args: y)], saveat=END)
    assert int(sol.events.count) == 2
    ball = jde.solve(BALL, jde.Tsit5(), y0=jnp.array([0.0, 10.0]), tspan=(0.0, 3.0), events=BOUNCE, saveat=END, **TIGHT)
    np.testing.assert_allclose(ball.events.ts[0], 20 / G, rtol=1e-12)


def test_events_of_refused_steps_do_not_happen():
    """A first step far too long, which is refused, crosses where the solution never comes."""
    problem = jde.ODEProblem(lambda t, y, args: -50 * (y - jnp.cos(t)), jnp.array([1.0]), (0.0, 3.0))
    sol = jde.solve(problem, jde.Tsit5(), first_step=1.0, events=jde.Event(lambda t, y, args: y[0] - 1.5), saveat=END)
    assert int(sol.stats.rejected_error) > 0 and int(sol.events.count) == 0


def test_an_array_of_conditions_says_which_have_crossed():
    problem = jde.ODEProblem(lambda t, y, args: jnp.array([1.0, 2.0, 3.0]), jnp.zeros(3), (0.0, 1.0))
    saw = jde.Event(lambda t, y, args: y - 0.9, lambda t, y, args, which: jnp.where(which, 0.0, y))
    sol = jde.solve(problem, jde.Tsit5(), events=saw, saveat=END)
    np.testing.assert_allclose(sol.ys[0], [0.1, 0.2, 0.3], rtol=1e-12)
    np.testing.assert_allclose(sol.events.ts[:4], [0.3, 0.45, 0.6, 0.9], rtol=1e-12)


def test_info_has_the_slope_the_step_and_the_count():
    problem = jde.ODEProblem(lambda t, y, args: jnp.array([y[1], -y[0]]), jnp.array([0.0, 1.0]), (0.0, 10.0))

    def counted(t, y, args, info):
        assert info.y_before.shape == y.shape
        return jnp.where(info.count == 1, 2 * y + 0 * info.dt * info.t_before, y)

    peak = jde.Event(lambda t, y, args, info: info.dy[0], counted)
    sol = jde.solve(problem, jde.Tsit5(), events=peak, saveat=END, **TIGHT)
    np.testing.assert_allclose(sol.events.ts[:3], np.pi * np.array([0.5, 1.5, 2.5]), rtol=1e-7)
    np.testing.assert_allclose(jnp.abs(sol.events.after[:3, 0]), [1.0, 2.0, 2.0], rtol=1e-7)


@functools.cache
def crossings():
    """The times at which sin(ω·t + φ) crosses zero in [0, 5], of a solve that lands on them."""

    def solve(omega, phi):
        problem = jde.ODEProblem(
            lambda t, y, args: jnp.array([omega * y[1], -omega * y[0]]),
            jnp.stack([jnp.sin(phi), jnp.cos(phi)]),
            (0.0, 5.0),
        )
        return jde.solve(problem, jde.Tsit5(), events=jde.Event(lambda t, y, args: y[0]), saveat=END, **TIGHT).events

    return jax.jit(solve)


@settings(max_examples=25, deadline=None)
@given(st.floats(0.2, 6.0), st.floats(0.05, 3.0))
def test_every_crossing_is_found_once_in_order(omega, phi):
    events = crossings()(omega, phi)
    expected = (np.pi * np.arange(1, 30) - phi) / omega
    expected = expected[(expected > 0) & (expected < 5)]
    near_the_end = np.any(np.abs((np.pi * np.arange(1, 30) - phi) / omega - 5) < 1e-5)
    count = int(events.count)
    assert count == len(expected) or near_the_end
    n = min(count, len(expected))
    np.testing.assert_allclose(events.ts[:n], expected[:n], rtol=2e-6)


# ---- timers and flags


def test_preset_times_act_where_they_are_saved():
    """At t₀, in between, and at the end; what is saved there is the state after."""
    dose = jde.PresetTimes(jnp.array([0.5, 0.0, 0.25, 1.0, 0.25, 3.0]), second(lambda x: x + 1))
    times = jnp.array([0.0, 0.2, 0.25, 0.5, 0.75, 1.0])
    sol = jde.solve(STRAIGHT, jde.Tsit5(), events=dose, saveat=times)
    np.testing.assert_array_equal(sol.ys[:, 1], [2, 2, 3, 4, 4, 5])
    np.testing.assert_array_equal(sol.events.ts[:3], [0.25, 0.5, 1.0])
    steps = jde.solve(STRAIGHT, jde.Tsit5(), events=dose)
    np.testing.assert_array_equal(steps.ys[np.isin(steps.ts, [0.25, 0.5, 1.0]), 1], [3, 4, 5])


@pytest.mark.parametrize(
    ("event", "times"),
    [
        (jde.Periodic(0.3, second(lambda x: x + 1)), [0.3, 0.6, 0.9]),
        (jde.Periodic(0.3, second(lambda x: x + 1), start=-0.4), [0.2, 0.5, 0.8]),
        (jde.Periodic(0.4, second(lambda x: x + 1), start=0.1), [0.1, 0.5, 0.9]),
        (jde.NextTime(lambda t, y, args: t + 0.1 * y[1], second(lambda x: x + 1)), [0.1, 0.3, 0.6]),
    ],
    ids=["from the start", "begun before", "begun later", "chosen"],
)
def test_timers(event, times):
    sol = jde.solve(STRAIGHT, jde.Tsit5(), events=event, saveat=END, tspan=(0.0, 0.95))
    np.testing.assert_allclose(sol.events.ts[:3], times, rtol=1e-14)
    assert int(sol.events.count) == 3 and sol.ys[0, 1] == 4


def test_a_timer_that_chooses_the_past_stays_silent():
    sol = jde.solve(STRAIGHT, jde.Tsit5(), events=jde.NextTime(lambda t, y, args: t - 1.0), saveat=END)
    assert int(sol.events.count) == 0


def test_flags_act_at_the_end_of_steps_where_they_are_true():
    late = jde.DiscreteEvent(lambda t, y, args: y[0] > 0.35, second(lambda x: x + 1))
    sol = jde.solve(STRAIGHT, jde.Tsit5(), events=late, controller=jde.FixedSteps(10), saveat=END)
    assert sol.ys[0, 1] == 8.0
    quiet = jde.DiscreteEvent(lambda t, y, args: y[0] > 0.35, counts=False)
    sol = jde.solve(STRAIGHT, jde.Tsit5(), events=quiet, controller=jde.FixedSteps(10), saveat=END, max_events=1)
    assert int(sol.events.count) == 0


# ---- kinds of problems


def test_algebraic_components_follow_an_affect():
    """y₁ = 2·y₀ holds again after y₀ alone was changed."""
    half = jde.Event(lambda t, y, args: y[0] - 0.5, lambda t, y, args: jnp.array([1.0, 0.0]))
    mass = jde.ODEProblem(
        lambda t, y, args: jnp.array([-y[0], y[1] - 2 * y[0]]),
        jnp.array([1.0, 2.0]),
        (0.0, 2.0),
        mass_matrix=jnp.array([1.0, 0.0]),
    )
    residual = jde.DAEProblem(
        lambda t, y, dy, args: jnp.array([dy[0] + y[0], y[1] - 2 * y[0]]),
        jnp.array([1.0, 2.0]),
        jnp.array([-1.0, -2.0]),
        (0.0, 2.0),
    )
    for problem, method in ((mass, jde.Rodas5P()), (residual, jde.BDF()), (mass, jde.RadauIIA5())):
        sol = jde.solve(problem, method, events=half, saveat=END, **TIGHT)
        np.testing.assert_allclose(sol.events.ts[:2], np.log(2) * np.array([1, 2]), rtol=1e-6)
        np.testing.assert_allclose(sol.events.after[:2], [[1, 2]] * 2, rtol=1e-7)
        np.testing.assert_allclose(sol.ys[0], 4 * np.exp(-2) * np.array([1, 2]), rtol=1e-6)


def test_complex_and_tree_states():
    problem = jde.ODEProblem(
        lambda t, y, args: {"z": 1j * y["z"], "n": jnp.zeros(())}, {"z": jnp.array(1.0 + 0j), "n": 0.0}, (0.0, 10.0)
    )
    real = jde.Event(lambda t, y, args: y["z"].real, lambda t, y, args: {"z": y["z"], "n": y["n"] + 1})
    sol = jde.solve(problem, jde.Tsit5(), events=real, saveat=END, **TIGHT)
    np.testing.assert_allclose(sol.ys["n"], 3.0)
    np.testing.assert_allclose(sol.events.before["z"][0], 1j, atol=1e-7)


def test_lanes_have_their_own_events():
    def ball(e):
        options = {"saveat": END, "throw": False, "max_events": 12, **TIGHT}
        return jde.solve(BALL, jde.Tsit5(), args={"e": e}, events=BOUNCE, **options)

    es = jnp.array([0.3, 0.6, 0.9])
    lanes = jax.vmap(ball)(es)
    for i, e in enumerate(es):
        one = ball(float(e))
        assert int(lanes.events.count[i]) == int(one.events.count) and int(lanes.result[i]) == int(one.result)
        np.testing.assert_allclose(lanes.events.ts[i], one.events.ts, rtol=1e-11)
        np.testing.assert_allclose(lanes.ys[i], one.ys, rtol=1e-8, atol=1e-12)


def test_float32():
    sol = jde.solve(BALL, jde.Tsit5(), y0=jnp.array([50.0, 0.0], jnp.float32), events=BOUNCE, rtol=1e-4)
    np.testing.assert_allclose(sol.events.ts[:3], bounces(50.0, 0.8, 3), rtol=1e-5)


# ---- failures


def test_accumulating_events_are_a_result_that_says_where():
    problem = BALL.replace(y0=jnp.array([1.0, 0.0]), args={"e": 0.5}, tspan=(0.0, 5.0))
    with pytest.raises(jde.SolveError, match=r"each interval 0\.5\d* of the one before.*t = 1\.3552618"):
        jde.solve(problem, jde.Tsit5(), events=BOUNCE, max_events=20, **TIGHT)
    sol = jde.solve(problem, jde.Tsit5(), events=BOUNCE, max_events=20, throw=False, **TIGHT)
    assert sol.status == "event_limit_reached" and int(sol.events.count) == 20
    np.testing.assert_allclose(sol.t_end, 3 * math.sqrt(2 / G), rtol=1e-5)


def test_sliding_is_told_apart():
    def push(t, y, args):
        return -args["side"] * jnp.ones(1)

    side = lambda s: lambda t, y, args: {"side": jnp.array(s)}
    events = [
        jde.Event(lambda t, y, args: y[0], affect_args=side(-1.0), direction=-1),
        jde.Event(lambda t, y, args: y[0], affect_args=side(1.0), direction=1),
    ]
    problem = jde.ODEProblem(push, jnp.ones(1), (0.0, 5.0), {"side": jnp.array(1.0)})
    with pytest.raises(jde.SolveError, match=r"events \[0, 1\] .*t = 1: the solution chatters.*sliding"):
        jde.solve(problem, jde.Tsit5(), events=events)


def test_a_touching_event_is_flagged():
    near = jde.Event(lambda t, y, args: (y[0] - 0.5) ** 2 - 1e-12, direction=0)
    sol = jde.solve(STRAIGHT, jde.Tsit5(), events=near, controller=jde.FixedSteps(dt=0.5), saveat=END)
    assert np.all(sol.events.grazing[: int(sol.events.count)]) and int(sol.events.count) > 0


def test_an_affect_that_is_not_finite_names_its_event():
    bad = at(0.5, lambda t, y, args: y / 0.0, name="division")
    with pytest.raises(jde.SolveError, match=r"nonfinite at t = 0\.5: the affect of Event 'division' returned"):
        jde.solve(STRAIGHT, jde.Tsit5(), events=[at(0.2), bad], saveat=END)


# ---- wrong ones


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: jde.Event(cast(Any, 3.0)), TypeError, "must be a function"),
        (lambda: jde.Event(lambda y: y), TypeError, "must take 3 arguments"),
        (lambda: jde.Event(lambda y, t, args: y), TypeError, "order"),
        (lambda: jde.Event(lambda t, y, args: y[0], direction=2), ValueError, "direction"),
        (lambda: jde.Event(lambda t, y, args: y[0] > 0), TypeError, "DiscreteEvent"),
        (lambda: jde.DiscreteEvent(lambda t, y, args: y[0]), TypeError, "truth value"),
        (lambda: at(0.5, lambda t, y, args: None), TypeError, "returned None"),
        (lambda: at(0.5, lambda t, y, args: y[0]), ValueError, "state like y0"),
        (lambda: jde.Event, TypeError, "Call it"),
        (lambda: lambda t, y, args: y[0], TypeError, "Write Event"),
        (lambda: jde.Periodic(-1.0), ValueError, "every"),
    ],
)
def test_wrong_events_are_explained(make, error, said):
    with pytest.raises(error, match=said):
        jde.solve(STRAIGHT, jde.Tsit5(), events=make())


def test_a_parameter_that_is_fixed_cannot_be_changed():
    change = jde.Event(lambda t, y, args: y[0] - 0.5, affect_args=lambda t, y, args: {"mode": 2})
    with pytest.raises(ValueError, match=r"jnp\.asarray\(1\)"):
        jde.solve(STRAIGHT, jde.Tsit5(), args={"mode": 1}, events=change)


# ---- together with what else a solve can do


def test_both_sides_are_saved_and_dense_output_has_each():
    ts = bounces(50.0, 0.8, 3)
    saveat = jde.SaveAt(ts=jnp.array([1.0, 4.0]), events=True, t1=True)
    sol = jde.solve(BALL, jde.Tsit5(), events=BOUNCE, saveat=saveat, dense=True, max_events=4, **TIGHT)
    np.testing.assert_allclose(sol.ts[2:8], np.repeat(ts, 2), rtol=1e-12)
    np.testing.assert_array_equal(sol.ys[2:8:2], sol.events.before[:3])
    np.testing.assert_array_equal(sol.ys[3:8:2], sol.events.after[:3])
    np.testing.assert_array_equal(np.asarray(sol.mask), [True] * 8 + [False] * 2 + [True])
    at = sol.events.ts[:3]
    np.testing.assert_allclose(sol(at), sol.events.after[:3], atol=1e-11)
    np.testing.assert_allclose(sol(np.nextafter(at, 0.0)), sol.events.before[:3], atol=1e-9)
    np.testing.assert_allclose(sol.derivative(at)[:, 0], sol.events.after[:3, 1], rtol=1e-7)
    np.testing.assert_allclose(sol(15.0), sol.ys[-1], rtol=1e-12)


def test_stops_and_events_and_a_jump_of_f():
    """f jumps at a stop; the event comes after it, or exactly there."""
    problem = jde.ODEProblem(lambda t, y, args: jnp.where(t < 0.5, 1.0, 3.0) * jnp.ones(1), jnp.zeros(1), (0.0, 1.0))
    for height, time in ((1.1, 0.7), (0.5, 0.5)):
        sol = jde.solve(problem, jde.Tsit5(), events=at(height), stops=[0.5], saveat=END, first_step=1.0)
        np.testing.assert_allclose(sol.events.ts[0], time, rtol=1e-14)
        np.testing.assert_allclose(sol.ys[0], 2.0, rtol=1e-14)


def test_an_integrator_takes_the_steps_of_solve():
    sol = jde.solve(BALL, jde.Tsit5(), events=BOUNCE, **TIGHT)
    integrator = jde.Integrator(BALL, jde.Tsit5(), events=BOUNCE, **TIGHT)
    state, ts = integrator.init(), []
    while state.result == jde.Result.running:
        state = integrator.step(state)
        ts.append(float(state.t))
    np.testing.assert_allclose(ts, sol.ts[1:], rtol=1e-13)  # another program, rounded otherwise near a root
    np.testing.assert_allclose(state.y, sol.ys[-1], rtol=1e-10)


def test_a_trace_shows_what_was_taken_again_to_land():
    trace = jde.trace(BALL, jde.Tsit5(), events=BOUNCE, **TIGHT)
    assert np.sum(trace.events) == 3 and "to land" in trace.table()
    landed = trace.t[1:][trace.events[:-1] == 1]
    np.testing.assert_allclose(landed, bounces(50.0, 0.8, 3), rtol=1e-12)
    i = int(np.argmax(trace.events))
    attempt = trace.replay(i)
    np.testing.assert_allclose(attempt.t1, bounces(50.0, 0.8, 1)[0], rtol=1e-12)
    np.testing.assert_allclose(attempt.y1[0], 0, atol=1e-11)


def test_networks_and_closures_in_events():
    """What an event closes over is differentiated, and seen when it changes."""

    def height(level):
        up = jde.Event(lambda t, y, args: y[0] - level, lambda t, y, args: y.at[1].set(level))
        return jde.solve(STRAIGHT, jde.Tsit5(), events=up, saveat=END).ys[0, 1]

    np.testing.assert_allclose([height(0.3), height(0.6)], [0.3, 0.6])
    np.testing.assert_allclose(jax.grad(lambda x: height(x) ** 2)(0.3), 0.6, rtol=1e-12)


@pytest.mark.parametrize("saveat", [None, END, 0.1], ids=["steps", "end", "spacing"])
def test_without_events_there_is_no_log(saveat):
    assert jde.solve(STRAIGHT, jde.Tsit5(), saveat=saveat).events is None
    with pytest.raises(ValueError, match="events"):
        jde.solve(STRAIGHT, jde.Tsit5(), saveat=jde.SaveAt(events=True))
