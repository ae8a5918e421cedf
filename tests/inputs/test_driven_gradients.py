"""Derivatives of driven solves in values and in breakpoints, against closed forms; lanes, directions and dtypes."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiffeq as jde
from jaxdiffeq.gradients import support
from jaxdiffeq.inputs import CubicSpline, PiecewiseConstant, PiecewiseLinear, Sampled, SquareWave

END = jde.SaveAt(t1=True)
OPTIONS = {"rtol": 1e-9, "atol": 1e-9, "saveat": END, "max_steps": 4096}
STRATEGIES = [kind() for kind in support.STRATEGIES if support.serves(kind, "ODEProblem")]
named = pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda s: type(s).__name__)
discrete_and_continuous = pytest.mark.parametrize("strategy", [jde.ReverseAD(), jde.GaussAdjoint()], ids=str)


def relax(t, y, args):
    """y' = u(t) − k·y."""
    return args["u"](t) - args["k"] * y


def end(k, u, y0: Any = 0.7, span=(0.0, 1.0), strategy=None, method=None, **options):
    problem = jde.ODEProblem(relax, jnp.atleast_1d(jnp.asarray(y0)), span, args={"k": k, "u": u})
    strategy = jde.ReverseAD() if strategy is None else strategy
    sol = jde.solve(problem, method or jde.Tsit5(), gradient=strategy, **{**OPTIONS, **options})
    return sol.ys[-1, 0]


def of_pulse(x, **options):
    """Of height x[1] from x[2] to x[3]; x[0] is k."""
    levels = jnp.stack([jnp.zeros_like(x[1]), x[1], jnp.zeros_like(x[1])])
    u = PiecewiseConstant(jnp.append(jnp.zeros_like(x[:1]), x[2:]), levels)
    return end(x[0], u, **options)


def of_pulse_true(x):
    k, height, begins, ends = x
    return 0.7 * jnp.exp(-k) + height / k * (jnp.exp(-k * (1 - ends)) - jnp.exp(-k * (1 - begins)))


def moments(k, ts, values):
    """∫ exp(−k·(1 − t))·u(t)dt of a piecewise linear u over (0, 1), by Gauss' rule on every piece."""
    x, w = GAUSS
    starts, widths = ts[:-1, None], jnp.diff(ts)[:, None]
    at = (x + 1) / 2
    u = values[:-1, None] * (1 - at) + values[1:, None] * at
    return jnp.sum(jnp.exp(-k * (1 - starts - widths * at)) * u * widths * (w / 2))


GAUSS = [x[None] for x in np.polynomial.legendre.leggauss(12)]
X = jnp.array([1.3, 2.0, 0.15, 0.4])
TS, VALUES = jnp.array([0.0, 0.3, 0.55, 1.0]), jnp.array([1.0, -0.5, 2.0, 0.3])


@discrete_and_continuous
def test_the_ends_of_a_pulse(strategy):
    """Height, begin and end of it, in reverse and, where it is not the same program, in forward mode."""
    found = jax.jit(jax.value_and_grad(lambda x: of_pulse(x, strategy=strategy)))(X)
    np.testing.assert_allclose(found[0], of_pulse_true(X), rtol=1e-8)
    np.testing.assert_allclose(found[1], jax.grad(of_pulse_true)(X), rtol=1e-7)


def test_the_ends_of_a_pulse_in_forward_mode_and_twice():
    np.testing.assert_allclose(jax.jit(jax.jacfwd(of_pulse))(X), jax.grad(of_pulse_true)(X), rtol=1e-7)
    np.testing.assert_allclose(jax.jit(jax.hessian(of_pulse))(X), jax.hessian(of_pulse_true)(X), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "method",
    [jde.Rodas5P(), jde.KenCarp4(), jde.RadauIIA5(), jde.BDF(), jde.Adams(), jde.AutoTsit5()],
    ids=lambda m: m.name,
)
def test_the_ends_of_a_pulse_by_every_family(method):
    found = jax.jit(jax.grad(lambda x: of_pulse(x, method=method)))(X)
    np.testing.assert_allclose(found, jax.grad(of_pulse_true)(X), rtol=1e-6)


def of_line(values, inner, **options):
    """In values, and in the times that are not the ends of the span."""
    land = options.pop("land", None)
    return end(1.3, PiecewiseLinear(jnp.concatenate([TS[:1], inner, TS[-1:]]), values, land=land), 0.0, **options)


LINE = VALUES, TS[1:-1]
LINE_TRUE = jax.grad(lambda v, inner: moments(1.3, jnp.concatenate([TS[:1], inner, TS[-1:]]), v), (0, 1))(*LINE)


@named
def test_values_and_times_of_a_line(strategy):
    found = jax.jit(jax.grad(lambda *x: of_line(*x, strategy=strategy), (0, 1)))(*LINE)
    for one, other in zip(found, LINE_TRUE, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-8)


def test_what_a_landing_is_good_for():
    """Without it both modes have the derivative of the steps taken; in the times that is far from the solution's."""
    landing, blind = (jax.jit(jax.grad(lambda *x, d=d: of_line(*x, land=d), (0, 1)))(*LINE) for d in (True, False))
    forward = jax.jit(jax.jacfwd(lambda *x: of_line(*x, land=False), (0, 1)))(*LINE)
    for one, other in zip(blind, forward, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10)
    good, rough = (np.abs(found[1] - LINE_TRUE[1]).max() for found in (landing, blind))
    assert 1e4 * good < rough < 0.01


@pytest.mark.parametrize("kind", ["natural", "not-a-knot", "hermite", "akima"])
def test_values_and_times_of_splines(kind):
    """Slopes, which a solve finds by itself, move with values and times."""

    def loss(values, inner):
        ts = jnp.concatenate([TS[:1], inner, TS[-1:]])
        return end(1.3, CubicSpline(ts, values, kind), 0.0)

    def true(values, inner):
        x, w = GAUSS
        ts = jnp.concatenate([TS[:1], inner, TS[-1:]])
        at = ts[:-1, None] + jnp.diff(ts)[:, None] * (x + 1) / 2
        u = CubicSpline(ts, values, kind)(at)
        return jnp.sum(jnp.exp(-1.3 * (1 - at)) * u * jnp.diff(ts)[:, None] * (w / 2))

    found = jax.jit(jax.grad(loss, (0, 1)))(VALUES, TS[1:-1])
    for one, other in zip(found, jax.grad(true, (0, 1))(VALUES, TS[1:-1]), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-8)


def of_wave_true(period, duty, phase, low, high):
    """∫₀² exp(−1.3·(2 − t))·u(t)dt, edge by edge."""
    weight = lambda t: jnp.exp(-1.3 * (2 - t)) / 1.3
    rises = phase + period * np.arange(-1.0, 4)
    total = 0.0
    for rise in rises:
        begins, ends, next_rise = (jnp.clip(t, 0.0, 2.0) for t in (rise, rise + duty * period, rise + period))
        total += high * (weight(ends) - weight(begins)) + low * (weight(next_rise) - weight(ends))
    return total


def test_every_number_of_a_wave():
    """In a solve outside of `jit`, whose number of jumps is known; inside, where `count` bounds it."""
    numbers = {"period": 0.7, "duty": 0.3, "phase": 0.11, "low": -0.4, "high": 1.5}
    numbers = jax.tree.map(jnp.asarray, numbers)
    true = jax.grad(lambda n: of_wave_true(**n))(numbers)
    loss = lambda n, count=None: end(1.3, SquareWave(**n, count=count), 0.0, (0.0, 2.0))
    for found in (jax.grad(loss)(numbers), jax.jit(jax.grad(lambda n: loss(n, 8)))(numbers)):
        for name in numbers:
            np.testing.assert_allclose(found[name], true[name], rtol=1e-7, err_msg=name)


@discrete_and_continuous
def test_breakpoints_at_one_time_have_derivatives_of_their_own(strategy):
    """Two jumps and a kink at 0.4, in different inputs, next to a stop there."""
    at = jnp.array([0.4, 0.4])

    def loss(at):
        pulse = lambda x, height: PiecewiseConstant(jnp.append(jnp.zeros(1), x[None]), jnp.array([height, 0.0]))
        pulses = [pulse(at[0], 2.0), pulse(at[1], 5.0)]
        line = PiecewiseLinear(jnp.array([0.0, 0.4, 1.0]), jnp.array([1.0, 2.0, 0.0]))
        f = lambda t, y, u: u[0](t) * (1 + u[2](t)) + u[1](t) - 1.3 * y
        problem = jde.ODEProblem(f, jnp.zeros(1), (0.0, 1.0), args=[*pulses, line])
        return jde.solve(problem, jde.Tsit5(), stops=[0.4], gradient=strategy, **OPTIONS).ys[-1, 0]

    # λ·(f before − f after), where the line is 2
    true = np.exp(-1.3 * 0.6) * np.array([2.0 * 3.0, 5.0])
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(at), true, rtol=1e-7)


def test_an_input_is_a_leaf_like_any_other():
    """A gradient of one is an input of the same kind, and so is what an optimiser makes of it."""
    u = PiecewiseConstant([0.0, 0.15, 0.4], [0.0, 2.0, 0.0])
    found = jax.grad(lambda u: end(1.3, u))(u)
    true = jax.grad(of_pulse_true)(X)
    np.testing.assert_allclose(found.ts, [0.0, true[2], true[3]], rtol=1e-7)
    np.testing.assert_allclose(found.values[1], true[1], rtol=1e-7)
    moved = jax.tree.map(lambda x, d: x - 0.1 * d, u, found)
    assert end(1.3, moved) < end(1.3, u)


def test_a_table_of_samples():
    values = jnp.sin(jnp.linspace(0.0, 3.0, 41))
    loss = lambda values, t0, dt: end(1.3, Sampled(t0, dt, values, land=True), 0.0)
    found = jax.jit(jax.grad(loss, (0, 1, 2)))(values, jnp.asarray(0.0), jnp.asarray(0.025))
    true = jax.grad(lambda values, dt: moments(1.3, dt * jnp.arange(41.0), values), (0, 1))(values, jnp.asarray(0.025))
    np.testing.assert_allclose(found[0], true[0], rtol=1e-6, atol=1e-9)


# ---- lanes, directions, dtypes


def test_lanes_have_values_and_breakpoints_of_their_own():
    levels, ends = jnp.array([1.0, 2.0, -1.0]), jnp.array([0.3, 0.9, 1.4])
    one = lambda level, at: of_pulse(jnp.stack([jnp.asarray(1.3), level, jnp.asarray(0.1), at]))
    lanes = jax.jit(jax.vmap(jax.value_and_grad(one, (0, 1))))(levels, ends)
    for i in range(3):
        alone = jax.value_and_grad(one, (0, 1))(levels[i], ends[i])
        for a, b in zip(jax.tree.leaves(lanes), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-10, atol=1e-12)
    periods = jnp.array([0.21, 0.4, 1.1])
    wave = lambda period: end(1.3, SquareWave(period, 0.3, count=5))
    for lane, period in zip(jax.jit(jax.vmap(wave))(periods), periods, strict=True):
        np.testing.assert_allclose(lane, end(1.3, SquareWave(float(period), 0.3)), rtol=1e-9)


def test_more_periods_than_were_allowed_for_end_the_solve():
    """With a code in the lane that has them, and the others are as they were."""

    def solve(period):
        args = {"k": jnp.asarray(1.3), "u": SquareWave(period, 0.3, count=5)}
        return jde.solve(jde.ODEProblem(relax, jnp.ones(1), (0.0, 1.0), args), jde.Tsit5(), **OPTIONS)

    sol = jax.jit(jax.vmap(solve))(jnp.array([0.05, 0.4]))
    assert sol.result.tolist() == [jde.Result.event_limit_reached, jde.Result.success]
    assert np.isnan(sol.ys[0]).all() and np.isfinite(sol.ys[1]).all()


@pytest.mark.parametrize("make", [PiecewiseConstant, PiecewiseLinear, CubicSpline])
def test_there_and_back(make):
    """To where it began, over breakpoints at both ends of the span and one at zero."""
    u = make([-1.0, -0.4, 0.0, 0.7, 1.0], jnp.array([1.0, -0.5, 2.0, 0.3, -3.0]))
    there = end(1.3, u, 0.2, (-1.0, 1.0))
    np.testing.assert_allclose(end(1.3, u, there, (1.0, -1.0)), 0.2, rtol=1e-6)


def test_single_precision():
    """Of state and time, with a table in the other precision as well: neither end of a piece is missed."""
    for dtype in (np.float32, np.float64):
        ts = np.array([0.0, 0.1, 0.3, 0.7], dtype)
        u = PiecewiseConstant(ts, np.array([1.0, -2.0, 3.0, 0.5], dtype))
        f = lambda t, y, u: u(t).astype(jnp.float32) * jnp.ones_like(y)
        problem = jde.ODEProblem(f, jnp.zeros(1, jnp.float32), (0.0, 1.0), args=u)
        for method in (jde.RK4(), jde.RadauIIA5()):
            sol = jde.solve(problem, method, controller=jde.FixedSteps(3))
            assert sol.ys.dtype == sol.ts.dtype == jnp.float32
            np.testing.assert_allclose(sol.ys[-1], 0.1 - 0.4 + 1.2 + 0.15, rtol=2e-6)
        wave = SquareWave(np.asarray(0.1, dtype), np.asarray(0.5, dtype), low=np.float32(0), high=np.float32(1))
        sol = jde.solve(problem, jde.RK4(), args=wave, controller=jde.FixedSteps(3))
        np.testing.assert_allclose(sol.ys[-1], 0.5, rtol=2e-6)


def test_a_complex_drive(loose_dtypes):
    """y' = u(t) − k·y with u = exp(iωt) in pieces, against the sum of its parts."""
    ts = np.linspace(0.0, 1.0, 9)
    u = PiecewiseLinear(ts, np.exp(2j * ts))
    parts = [end(1.3, PiecewiseLinear(ts, part(np.exp(2j * ts))), 0.0) for part in (np.real, np.imag)]
    np.testing.assert_allclose(end(1.3, u, 0.0 + 0.0j), parts[0] + 1j * parts[1], rtol=1e-8)


def test_new_numbers_are_no_new_program():
    traces = []

    def f(t, y, args):
        traces.append(1)
        return relax(t, y, args)

    def run(*levels, period=0.7):
        args = {"k": 1.3, "u": PiecewiseConstant([0.0, 0.1 + levels[0] / 10], levels)}
        args["u"] = eqx.tree_at(lambda u: u.values, args["u"], jnp.asarray(levels))
        jde.solve(jde.ODEProblem(f, jnp.ones(1), (0.0, 1.0), args), jde.Tsit5(), saveat=END)
        args["u"] = SquareWave(period, 0.4)
        jde.solve(jde.ODEProblem(f, jnp.ones(1), (0.0, 1.0), args), jde.Tsit5(), saveat=END)

    run(1.0, 2.0)
    seen = len(traces)
    run(2.0, 1.0, period=0.75)
    assert seen and len(traces) == seen
