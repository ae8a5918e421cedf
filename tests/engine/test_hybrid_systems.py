"""Systems that jump and switch, against closed forms and values computed by other programs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import ellipkinc

import jaxdiffeq as jde

END = jde.SaveAt(t1=True)


# ---- Robertson's problem until y₁ = y₃


def test_robertson_until_two_components_are_equal():
    """The time and the state by SciPy's Radau and BDF at rtol 1e-12, which agree to ten digits."""

    def f(t, y, args):
        a, b, c = 0.04 * y[0], 1e4 * y[1] * y[2], 3e7 * y[1] ** 2
        return jnp.stack([b - a, a - b - c, c])

    equal = jde.Event(lambda t, y, args: y[0] - y[2], terminate=True)
    problem = jde.ODEProblem(f, jnp.array([1.0, 0.0, 0.0]), (0.0, 1e5))
    for method in (jde.BDF(), jde.Rodas5P()):
        tolerances = {"rtol": 1e-8, "atol": jnp.array([1e-10, 1e-14, 1e-10])}
        sol = jde.solve(problem, method, saveat=END, events=equal, **tolerances)
        y = sol.ys[0]
        np.testing.assert_allclose(sol.t_end, 268.3289904, rtol=1e-6)
        np.testing.assert_allclose(y, [4.99998046e-01, 3.90834984e-06, 4.99998046e-01], rtol=1e-6)
        np.testing.assert_allclose(y[0], y[2], rtol=1e-14)


# ---- a pendulum that hits a wall, as a DAE of index 1

G, WALL, FALLEN = 10.0, -0.3, 1.0


def swings(t, s, args):
    """Position, velocity, and the tension that keeps x·x″ + v·v = 0."""
    x, v, tension = s["x"], s["v"], s["tension"]
    pull = -tension * x - jnp.array([0.0, G])
    return {"x": v, "v": pull, "tension": jnp.sum(v * v) + jnp.sum(x * pull)}


def fallen(top, angle):
    """The time from rest at an angle `top` to another one."""
    k = np.sin(top / 2)
    down, up = (ellipkinc(np.arcsin(np.clip(np.sin(a / 2) / k, -1, 1)), k * k) for a in (angle, top))
    return (up - down) / np.sqrt(G)


def hits(e):
    """When a pendulum of length one that starts at rest meets the wall, for the first time and for the next."""
    first = fallen(FALLEN, WALL)
    speed = np.sqrt(2 * G * (np.cos(WALL) - np.cos(FALLEN)))
    top = np.arccos(np.cos(WALL) - (e * speed) ** 2 / (2 * G))
    return first, first + 2 * fallen(top, WALL)


def test_a_pendulum_hits_a_wall():
    """With its derivative in the restitution; the tension is consistent again after each hit."""

    def reflected(t, s, args):
        along = jnp.sum(s["v"] * jnp.array([s["x"][1], -s["x"][0]])) * jnp.array([s["x"][1], -s["x"][0]])
        return {**s, "v": -args["e"] * along}

    wall = jde.Event(lambda t, s, args: s["x"][0] - jnp.sin(WALL), reflected, direction=-1)
    at = jnp.array([np.sin(FALLEN), -np.cos(FALLEN)])
    start = {"x": at, "v": jnp.zeros(2), "tension": jnp.asarray(G * np.cos(FALLEN))}
    mass = {"x": jnp.ones(2), "v": jnp.ones(2), "tension": jnp.asarray(0.0)}
    problem = jde.ODEProblem(swings, start, (0.0, 2.0), mass_matrix=mass)

    def times(e):
        options = {"saveat": END, "rtol": 1e-8, "atol": 1e-8, "max_events": 3}
        log = jde.solve(problem, jde.RadauIIA5(), args={"e": e}, events=wall, **options).events
        return log.ts[1], log

    (_, log), slope = jax.jit(jax.value_and_grad(times, has_aux=True))(0.8)
    np.testing.assert_allclose(log.ts[:2], hits(0.8), rtol=1e-6)
    h = 1e-5
    np.testing.assert_allclose(slope, (hits(0.8 + h)[1] - hits(0.8 - h)[1]) / (2 * h), rtol=1e-5)
    speeds = np.sum(log.after["v"][:2] ** 2, 1)
    np.testing.assert_allclose(log.after["tension"][:2], speeds + G * np.cos(WALL), rtol=1e-6)


# ---- a neuron


def test_a_neuron_spikes():
    """Hodgkin and Huxley's equations, spikes where V rises through 0 mV, and their derivatives in the current, in ms
    per µA/cm²: by SciPy's DOP853 and Radau at 1e-12, by central differences of these."""

    def f(t, s, current):
        v, m, h, n = s["v"], s["m"], s["h"], s["n"]
        opens = lambda scale, x: scale * x / -jnp.expm1(-x / 10)
        am, bm = opens(0.1, v + 40), 4 * jnp.exp(-(v + 65) / 18)
        ah, bh = 0.07 * jnp.exp(-(v + 65) / 20), 1 / (1 + jnp.exp(-(v + 35) / 10))
        an, bn = opens(0.01, v + 55), 0.125 * jnp.exp(-(v + 65) / 80)
        flows = 120 * m**3 * h * (v - 50) + 36 * n**4 * (v + 77) + 0.3 * (v + 54.387)
        return {
            "v": current - flows,
            "m": am * (1 - m) - bm * m,
            "h": ah * (1 - h) - bh * h,
            "n": an * (1 - n) - bn * n,
        }

    start = {"v": -65.0, "m": 0.05, "h": 0.6, "n": 0.32}
    problem = jde.ODEProblem(f, jax.tree.map(jnp.asarray, start), (0.0, 50.0))
    spike = jde.Event(lambda t, s, args: s["v"], direction=1)

    def times(current):
        options = {"saveat": END, "rtol": 1e-9, "atol": 1e-9, "max_events": 4}
        ts = jde.solve(problem, jde.Tsit5(), args=current, events=spike, **options).events.ts
        return ts, ts

    slopes, ts = jax.jit(jax.jacrev(times, has_aux=True))(10.0)
    np.testing.assert_allclose(ts, [1.92422951, 16.8482762, 31.49790523, 46.13510863], rtol=1e-7)
    np.testing.assert_allclose(slopes, [-0.11826276, -0.63144267, -1.17147077, -1.71333816], rtol=1e-6)


# ---- a clutch

J1, J2, SLIPS, HOLDS, RAMP, SPEED = 1.0, 2.0, 3.0, 4.0, 0.5, 10.0


def clutch(friction):
    """When it grips, when it slips again, and both speeds at t = 14: all pieces are polynomials."""
    apart = friction * (1 / J1 + 1 / J2)
    grips = (apart - jnp.sqrt(apart**2 - 2 * RAMP * SPEED / J1)) / (RAMP / J1)
    slips = HOLDS * (J1 + J2) / (J2 * RAMP)
    turned = lambda a, b: RAMP * (b * b - a * a) / 2
    joint = friction * grips / J2 + turned(grips, slips) / (J1 + J2)
    last = 14.0 - slips
    return grips, slips, joint + (turned(slips, 14.0) - friction * last) / J1, joint + friction * last / J2


@pytest.mark.parametrize("strategy", [jde.ReverseAD(), jde.GaussAdjoint()], ids=str)
def test_a_clutch_grips_and_slips(strategy):
    """Two wheels: the first is driven by a torque that grows, and friction carries the second along. Where both are
    equally fast they stick, until more torque would have to be carried than holds. The mode is a parameter."""

    def f(t, y, args):
        slipping = jnp.stack([(RAMP * t - args["friction"]) / J1, args["friction"] / J2])
        return jnp.where(args["grips"] > 0, RAMP * t / (J1 + J2), slipping)

    carried = lambda t: J2 / (J1 + J2) * RAMP * t
    mode = lambda value: lambda t, y, args: {**args, "grips": jnp.full_like(args["grips"], value)}
    events = [
        jde.Event(
            lambda t, y, args: jnp.where(args["grips"] > 0, 1.0, y[0] - y[1]),
            lambda t, y, args: jnp.full_like(y, (J1 * y[0] + J2 * y[1]) / (J1 + J2)),
            affect_args=mode(1.0),
            direction=-1,
        ),
        jde.Event(
            lambda t, y, args: jnp.where(args["grips"] > 0, carried(t) - HOLDS, -1.0),
            affect_args=mode(0.0),
            direction=1,
        ),
    ]
    problem = jde.ODEProblem(f, jnp.array([SPEED, 0.0]), (0.0, 14.0))

    def run(friction):
        args = {"friction": friction, "grips": jnp.asarray(0.0)}
        options = {"saveat": END, "rtol": 1e-9, "atol": 1e-9, "max_events": 5, "gradient": strategy}
        sol = jde.solve(problem, jde.Tsit5(), args=args, events=events, **options)
        found = jnp.concatenate([sol.events.ts[:2], sol.ys[0]])
        return found, (found, sol.events.count)

    slopes, (found, count) = jax.jit(jax.jacrev(run, has_aux=True))(jnp.asarray(SLIPS))
    assert count == 2
    np.testing.assert_allclose(found, jnp.array(clutch(SLIPS)), rtol=1e-9)
    np.testing.assert_allclose(slopes, jax.jacfwd(clutch)(SLIPS), rtol=1e-7, atol=1e-9)


# ---- everything at once, for every controller and every strategy

PAIRS = [
    (jde.PIDController(), jde.ReverseAD()),
    (jde.FixedSteps(60), jde.ForwardAD()),
    (jde.PIDController(max_step=0.1), jde.InterpolatingAdjoint()),
    (jde.PredictiveController(), jde.QuadratureAdjoint()),
    (jde.FixedSteps(dt=0.07), jde.GaussAdjoint()),
]


def everything(x, controller, strategy):
    """y′ = −k·y, with every kind of event; none of them hides another's derivative."""
    add = lambda amount: lambda t, y, args: y + amount * args["k"] * t
    events = [
        jde.Event(lambda t, y, args: y[0] - args["level"], add(1.0), direction=-1),
        jde.Event(
            lambda t, y, args: jnp.stack([t - 1.7, t - 2 * args["level"]]),
            lambda t, y, args, which: jnp.where(which[0], y + 1, y),
        ),
        jde.DiscreteEvent(lambda t, y, args: t == x["at"], lambda t, y, args: y * 0.5),
        jde.PresetTimes(jnp.stack([x["at"]]), add(0.3)),
        jde.Periodic(1.1, add(0.1)),
        jde.NextTime(lambda t, y, args: t + 0.9 + 0.1 * args["level"], add(0.05)),
        jde.Doses(0.4 * x["at"], 0.5, 0, duration=0.6),
        jde.Event(lambda t, y, args: t - 2.9, terminate=True),
    ]
    args = {"k": x["k"], "level": x["level"]}
    problem = jde.ODEProblem(lambda t, y, args: -args["k"] * y, jnp.ones(1), (0.0, 4.0), args)
    options = {"controller": controller, "gradient": strategy, "max_events": 20, "max_steps": 1000}
    sol = jde.solve(problem, jde.Tsit5(), saveat=END, events=events, rtol=1e-10, atol=1e-10, **options)
    return sol.ys[0, 0] + jnp.sum(jnp.where(sol.events.mask, sol.events.after[:, 0], 0)), sol.events


def by_hand(x):
    """The same, piece by piece: y where each acts, in turn."""
    t, y, log = 0.0, 1.0, []
    infused, until, rate = 0.4 * x["at"], 0.4 * x["at"] + 0.6, 0.5 / 0.6
    timers = {"periodic": 1.1, "next": 0.9 + 0.1 * x["level"], "at": x["at"], "array 0": 1.7, "array 1": 2 * x["level"]}
    timers |= {"end": 2.9, "begins": infused, "ends": until}
    flow = lambda y, s, r: r / x["k"] + (y - r / x["k"]) * np.exp(-x["k"] * s)
    while True:
        r = rate if "begins" not in timers and "ends" in timers else 0.0
        name = min(timers, key=lambda n: timers[n])
        ahead = timers[name]
        rest = r / x["k"]
        share = (y - rest) / (x["level"] - rest)
        root = np.log(share) / x["k"] if share > 1 else np.inf
        if y > x["level"] and t + root < ahead:
            name, ahead = "root", t + root
        t, y = ahead, flow(y, ahead - t, r)
        if name == "at":
            y = y * 0.5
            log.append(y)
        gain = {"root": 1.0, "at": 0.3, "periodic": 0.1, "next": 0.05}
        y = y + gain.get(name, 0.0) * x["k"] * t + (name == "array 0")
        if name not in ("begins", "ends"):
            log.append(y)
        if name == "end":
            return y + sum(log), log
        timers.pop(name, None)
        timers |= {"periodic": {"periodic": t + 1.1}, "next": {"next": t + 0.9 + 0.1 * x["level"]}}.get(name, {})


@pytest.mark.parametrize(("controller", "strategy"), PAIRS, ids=lambda x: type(x).__name__)
def test_every_kind_of_event_by_every_controller_and_strategy(controller, strategy):
    """The values and, by central differences, the slopes of what is done by hand."""
    x = {"k": 0.5, "level": 0.6, "at": 0.8}
    loss = lambda x: everything(x, controller, strategy)
    differentiate = jax.jacfwd if isinstance(strategy, jde.ForwardAD) else jax.jacrev
    slopes, log = jax.jit(differentiate(loss, has_aux=True))(jax.tree.map(jnp.asarray, x))
    np.testing.assert_allclose(log.after[: int(log.count), 0], by_hand(x)[1], rtol=1e-7)
    for name in x:
        up, down = (by_hand(x | {name: x[name] + h})[0] for h in (1e-5, -1e-5))
        np.testing.assert_allclose(slopes[name], (up - down) / 2e-5, rtol=1e-5, err_msg=name)
