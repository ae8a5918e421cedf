"""Derivatives across events, against closed forms: of their times, of states after them, of what affects depend on."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiffeq as jde

STRATEGIES = [jde.ReverseAD(), jde.ForwardAD(), jde.ReverseAD(memory=2)]
ADJOINTS = [jde.InterpolatingAdjoint(), jde.QuadratureAdjoint(), jde.GaussAdjoint()]
BOTH = pytest.mark.parametrize("strategy", [jde.ReverseAD(), jde.GaussAdjoint()], ids=str)  # discrete, continuous
TIGHT: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-10}
G = 9.8


def bounce(args):
    return jde.Event(
        lambda t, y, args: y[0], lambda t, y, args: jnp.stack([0.0 * y[0], -args["e"] * y[1]]), direction=-1
    )


def ball(x, strategy, count=20):
    """Times of the first bounces and velocities after them, of x: restitution, height, gravity."""
    problem = jde.ODEProblem(
        lambda t, y, args: jnp.stack([y[1], -args["g"]]),
        jnp.stack([x[1], 0.0]),
        (0.0, 40.0),
        {"e": x[0], "g": x[2]},
    )
    options = {"saveat": jde.SaveAt(t1=True), "gradient": strategy, "max_events": 40, "throw": False}
    log = jde.solve(problem, jde.Tsit5(), events=bounce(None), **options, **TIGHT).events
    return jnp.stack([log.ts[:count], log.after[:count, 1]])


def ball_true(x, count=20):
    e, h, g = x
    first = jnp.sqrt(2 * h / g)
    flights = 2 * first * e ** jnp.arange(1.0, count)
    return jnp.stack([first + jnp.append(0.0, jnp.cumsum(flights)), g * first * e ** jnp.arange(1.0, count + 1)])


X = jnp.array([0.85, 20.0, G])


@pytest.mark.parametrize("strategy", STRATEGIES + ADJOINTS, ids=str)
def test_after_each_of_twenty_bounces(strategy):
    pick = jax.random.normal(jax.random.key(0), (2, 20))  # one cotangent for all: forty columns are forty programs
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(pick * ball(x, strategy))))(X)
    np.testing.assert_allclose(gradient, jax.grad(lambda x: jnp.sum(pick * ball_true(x)))(X), rtol=1e-8)


def test_each_row_has_its_own():
    """All rows, forward: any mix of them above could have hidden one."""
    np.testing.assert_allclose(
        jax.jit(jax.jacfwd(lambda x: ball(x, jde.ReverseAD())))(X), jax.jacfwd(ball_true)(X), rtol=1e-8, atol=1e-9
    )


@BOTH
def test_second_derivatives(strategy):
    found = jax.jit(jax.hessian(lambda x: jnp.sum(ball(x, strategy, 4))))(X)
    np.testing.assert_allclose(found, jax.hessian(lambda x: jnp.sum(ball_true(x, 4)))(X), rtol=1e-7, atol=1e-9)


@BOTH
def test_lanes_have_their_own(strategy):
    xs = jnp.stack([X, X.at[0].set(0.6), X.at[1].set(2.0)])
    loss = lambda x: jnp.sum(ball(x, strategy, 5))
    found = jax.jit(jax.vmap(jax.grad(loss)))(xs)
    np.testing.assert_allclose(found, jax.vmap(jax.grad(lambda x: jnp.sum(ball_true(x, 5))))(xs), rtol=1e-8)


@BOTH
def test_inside_shard_map(strategy):
    mesh = jax.make_mesh((1,), ("here",), axis_types=(jax.sharding.AxisType.Auto,))
    gradient = lambda x: jax.grad(lambda x: jnp.sum(ball(x, strategy, 5)))(x[0])[None]
    spec = jax.sharding.PartitionSpec("here")
    found = jax.jit(jax.shard_map(gradient, mesh=mesh, in_specs=spec, out_specs=spec))(X[None])
    np.testing.assert_allclose(found[0], jax.grad(lambda x: jnp.sum(ball_true(x, 5)))(X), rtol=1e-8)


def test_lanes_inside_shard_map():
    """With arrays in the user's functions, which do not vary over the mesh as all the rest does."""
    mesh = jax.make_mesh((1,), ("here",), axis_types=(jax.sharding.AxisType.Auto,))
    falls = jde.ODEProblem(
        lambda t, y, e: jnp.array([0.0, -9.8]) + y[::-1] * np.array([1.0, 0.0]), jnp.array([5.0, 0.0]), (0.0, 3.0)
    )
    floor, back = np.array([1.0, 0.0]), np.array([0.0, -1.0])
    bounce = jde.Event(lambda t, y, e: jnp.sum(y * floor), lambda t, y, e: e * y * back, direction=-1)
    second = lambda e: jde.solve(
        falls, jde.Tsit5(), args=e, events=bounce, saveat=jnp.array([3.0]), max_events=9
    ).events.ts[1]
    spec = jax.sharding.PartitionSpec("here")
    lanes = jax.shard_map(jax.vmap(jax.value_and_grad(second)), mesh=mesh, in_specs=spec, out_specs=spec)
    first, e = np.sqrt(10 / 9.8), jnp.array([0.5, 0.6])
    times, slopes = jax.jit(lanes)(e)
    np.testing.assert_allclose(times, first * (1 + 2 * e), rtol=1e-9)
    np.testing.assert_allclose(slopes, [2 * first] * 2, rtol=1e-9)


@pytest.mark.parametrize("rtol", [1e-3, 1e-8])
@pytest.mark.parametrize(
    "method", [jde.BS3(), jde.Tsit5(), jde.Vern7(), jde.Rodas5P(), jde.KenCarp4(), jde.BDF()], ids=str
)
def test_the_time_of_a_linear_crossing_is_exact(method, rtol):
    """u′ = 1 crosses p at t = p, whatever the tolerance: the theorem is applied to the step that was taken."""
    problem = jde.ODEProblem(lambda t, y, args: jnp.ones(1), jnp.zeros(1), (0.0, 1.0), 0.7)
    at = jde.Event(lambda t, y, args: y[0] - args, terminate=True)
    time = lambda p: jde.solve(problem, method, args=p, events=at, saveat=jde.SaveAt(t1=True), rtol=rtol).events.ts[0]
    value, slope = jax.value_and_grad(time)(0.7)
    np.testing.assert_allclose([value, slope], [0.7, 1.0], rtol=1e-11)


def test_parameters_that_events_change():
    """y′ = −k·y; where y = c, k is multiplied by m. Saved between steps by a method whose interpolant asks f again."""
    change = jde.Event(lambda t, y, args: y[0] - args["c"], affect_args=lambda t, y, a: {**a, "k": a["k"] * a["m"]})
    ts = jnp.linspace(0.0, 3.0, 8)

    def solve(x, strategy):
        args = {"k": x[0], "m": x[1], "c": x[2]}
        problem = jde.ODEProblem(lambda t, y, args: -args["k"] * y, jnp.ones(1), (0.0, 3.0), args)
        saveat = jde.SaveAt(ts=ts, t1=True, fn=lambda t, y, args: y[0] * args["k"])
        return jde.solve(problem, jde.Vern7(), events=change, saveat=saveat, gradient=strategy, **TIGHT).ys

    def true(x):
        k, m, c = x
        at = -jnp.log(c) / k
        rate = lambda t: jnp.where(t < at, k, k * m)
        return jax.vmap(lambda t: jnp.where(t < at, jnp.exp(-k * t), c * jnp.exp(-k * m * (t - at))) * rate(t))(
            jnp.append(ts, 3.0)
        )

    x = jnp.array([0.7, 2.5, 0.5])
    for strategy in STRATEGIES:
        value, slopes = solve(x, strategy), jax.jit(jax.jacrev(lambda x, s=strategy: solve(x, s)))(x)
        np.testing.assert_allclose(value, true(x), rtol=1e-9)
        np.testing.assert_allclose(slopes, jax.jacobian(true)(x), rtol=1e-8, atol=1e-9)


@functools.cache
def dosed(strategy):
    """The end of y′ = −k·y with doses at two times, one every third of a unit, and one when y tells."""

    def solve(x):
        k, first, second, amount, every = x
        events = [
            jde.PresetTimes(jnp.stack([first, second]), lambda t, y, args: y + args["a"]),
            jde.Periodic(every, lambda t, y, args: y + 0.1),
            jde.NextTime(lambda t, y, args: t + 0.4 * y[0], lambda t, y, args: 0.9 * y),
        ]
        problem = jde.ODEProblem(lambda t, y, args: -args["k"] * y, jnp.ones(1), (0.0, 2.0), {"k": k, "a": amount})
        saveat = jde.SaveAt(ts=jnp.array([0.31, 1.2, 2.0]))
        sol = jde.solve(problem, jde.Tsit5(), events=events, saveat=saveat, gradient=strategy, **TIGHT)
        return jnp.sum(sol.ys[:, 0] * jnp.array([1.0, -0.5, 2.0]))

    return jax.jit(solve), jax.jit(jax.grad(solve))


@pytest.mark.parametrize("strategy", [*STRATEGIES[:2], jde.GaussAdjoint()], ids=str)
def test_times_of_timers(strategy):
    """Against central differences of the solve, which has no error of its own that depends on the step."""
    x, h = jnp.array([0.6, 0.2, 0.9, 1.5, 0.43]), 1e-5
    value, gradient = dosed(strategy)
    central = [(value(x + h * e) - value(x - h * e)) / (2 * h) for e in jnp.eye(5)]
    np.testing.assert_allclose(gradient(x), central, rtol=1e-6)


@BOTH
def test_events_at_one_time(strategy):
    """Both act at the root of the first, and their order matters."""
    add = jde.Event(lambda t, y, args: y[0] - args, lambda t, y, args: y.at[1].add(args))
    times = jde.Event(lambda t, y, args: y[0] - args, lambda t, y, args: y.at[1].multiply(t))

    def end(p, events):
        problem = jde.ODEProblem(lambda t, y, args: jnp.array([2.0, 0.0]), jnp.array([0.0, 1.0]), (0.0, 1.0), p)
        options = {"saveat": jde.SaveAt(t1=True), "gradient": strategy}
        return jde.solve(problem, jde.Tsit5(), events=events, **options).ys[0, 1]

    found = [jax.jit(jax.grad(lambda p, e=events: end(p, e)))(0.5) for events in ([add, times], [times, add])]
    np.testing.assert_allclose(found, [(1 + 2 * 0.5) / 2, 0.5 + 1], rtol=1e-12)  # (1 + p)·p/2 and p/2 + p


@BOTH
def test_what_does_not_act_has_no_part(strategy):
    """An affect that is NaN wherever it does not act, in one of two lanes."""
    root = jde.Event(lambda t, y, args: y[0] - 2.0, lambda t, y, args: jnp.sqrt(y - 2.0 + 1e-3))

    def end(rate):
        problem = jde.ODEProblem(lambda t, y, args: args * jnp.ones(1), jnp.zeros(1), (0.0, 1.0), rate)
        options = {"saveat": jde.SaveAt(t1=True), "gradient": strategy}
        return jde.solve(problem, jde.Tsit5(), events=root, **options).ys[0, 0]

    value, slope = jax.jit(jax.vmap(jax.value_and_grad(end)))(jnp.array([1.0, 3.0]))
    np.testing.assert_allclose(value, [1.0, 1e-3**0.5 + 1.0], rtol=1e-9)
    np.testing.assert_allclose(slope, [1.0, 1.0], rtol=1e-9)


@BOTH
def test_a_value_at_the_time_of_an_event_has_the_derivative_of_what_is_after_it(strategy):
    """y after a dose at T, e^(−k·t) + 2e^(−k·(t − T)), saved at t = T: by T alone, by t alone, and at a root."""
    decay = jde.ODEProblem(lambda t, y, k: -k * y, jnp.ones(1), (0.0, 3.0), 0.4)

    def saved(x):
        add = lambda t, y, args: y + 2.0
        events = [jde.PresetTimes(x[:1], add), jde.Event(lambda t, y, k: t - x[2], add)]
        options = {"events": events, "saveat": jnp.stack([x[1], x[3]]), "gradient": strategy}
        return jde.solve(decay, jde.Tsit5(), rtol=1e-10, atol=1e-10, **options).ys[:, 0]

    def after(x):
        late = jnp.exp(-0.4 * x[3]) + 2 * jnp.exp(-0.4 * (x[3] - x[0])) + 2 * jnp.exp(-0.4 * (x[3] - x[2]))
        return jnp.stack([jnp.exp(-0.4 * x[1]) + 2 * jnp.exp(-0.4 * (x[1] - x[0])), late])

    x = jnp.array([1.0, 1.0, 2.0, 2.0])
    np.testing.assert_allclose(saved(x), after(x), rtol=1e-9)
    np.testing.assert_allclose(jax.jit(jax.jacrev(saved))(x), jax.jacfwd(after)(x), rtol=1e-7, atol=1e-9)
