"""Equations with delays: right values, the order of every family across breaking points, gradients, the memory."""

import functools
import itertools
import math
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiffeq as jde
from jaxdiffeq.frontend import delays as of_delays

FAMILIES = [jde.Tsit5(), jde.Rodas5P(), jde.Kvaerno5(), jde.RadauIIA5(), jde.BDF(), jde.Adams(), jde.KenCarp4(), None]
END = jde.SaveAt(t1=True)
P = jnp.array([2.2, 1.0, 2.0, 0.4])


def predators(t, y, h, p):
    """The delay Lotka–Volterra equations of the article on diffeqflux, doi:10.48550/arXiv.1902.02376."""
    a, b, d, g = p
    return jnp.stack([(a - b * y[1]) * h(t - 0.1)[0], (d * y[0] - g) * y[1]])


def of_predators(p=P):
    return jde.DDEProblem(predators, jnp.ones(2), (0.0, 10.0), p, history=jnp.ones(2), lags=0.1)


def decay(t, y, h, a):
    return -a * h(t - 1.0)


def of_decay(end=5.0, **fields):
    given = {"args": 1.0, "history": jnp.ones(1), "lags": 1.0, **fields}
    return jde.DDEProblem(decay, jnp.ones(1), (0.0, end), **given)


def decay_true(t):
    """By the method of steps."""
    return sum((-max(t - (k - 1), 0.0)) ** k / math.factorial(k) for k in range(1, 2 + math.ceil(t))) + 1


@pytest.mark.parametrize("method", FAMILIES, ids=str)
def test_every_family_solves_a_constant_delay(method):
    sol = jde.solve(of_decay(), method, rtol=1e-8, atol=1e-10, saveat=END)
    assert abs(sol.ys[-1, 0] - decay_true(5.0)) < 1e-6


def test_the_values_of_the_article():
    sol = jde.solve(of_predators(), jde.Tsit5(), rtol=1e-9, atol=1e-9, saveat=jnp.linspace(0, 10, 101))
    np.testing.assert_allclose(sol.ys[-1], [1.2133701190, 3.4159429447], rtol=1e-7)
    np.testing.assert_allclose(jnp.sum((sol.ys[:, 0] - 1) ** 2), 72.943615471, rtol=1e-7)


@functools.cache
def of_article():
    """The gradient of the loss, its Jacobian in forward mode, and its Hessian."""

    def loss(p):
        options = {"saveat": jnp.linspace(0, 10, 101), "rtol": 1e-8, "atol": 1e-8}
        return jnp.sum((jde.solve(of_predators(p), jde.Tsit5(), **options).ys[:, 0] - 1) ** 2)

    return jax.jit(lambda p: (jax.grad(loss)(p), jax.jacfwd(loss)(p), jax.jacfwd(jax.grad(loss))(p)))(P)


@pytest.mark.slow
def test_the_gradient_of_the_article():
    np.testing.assert_allclose(of_article()[0], [1.3118, -27.8669, 21.5625, -208.018], rtol=2e-6, atol=6e-5)


@pytest.mark.slow
def test_the_modes_of_differentiation_agree():
    grad, jac, hessian = of_article()
    np.testing.assert_allclose(grad, jac, rtol=1e-9)
    np.testing.assert_allclose(hessian, hessian.T, rtol=1e-5, atol=1e-4)


# -------------------- order across breaking points --------------------------------------------------------------------


ORDERS = {jde.BS3(): 3, jde.Tsit5(): 5, jde.Rodas4(): 4, jde.Kvaerno3(): 3, jde.RadauIIA5(): 5}


@pytest.mark.parametrize("method", ORDERS, ids=str)
def test_the_order_of_a_method_survives_breaking_points(method):
    def error(n):
        controller = jde.FixedSteps(dt=1 / n)
        smooth = jde.DDEProblem(nonlinear, jnp.ones(1), (0.0, 2.5), history=lambda s, _: jnp.ones(1) + s, lags=1.0)
        sol = jde.solve(smooth, method, controller=controller, saveat=END)
        return abs(float(sol.ys[-1, 0]) - NONLINEAR)

    slope = math.log2(error(24) / error(48))
    assert slope > ORDERS[method] - 0.3, slope


def nonlinear(t, y, h, _):
    return -y * h(t - 1.0) + jnp.sin(3 * t)


def fixed_step_reference(f, y0, history, lags, end, n):
    """Classical Runge–Kutta steps of 1/n with cubic Hermite interpolation, in numpy; n·lag/2 are whole numbers."""
    dt, ys, ks = 1 / n, [np.asarray(y0, float)], []

    def past(s):
        if s <= 1e-12:
            return np.asarray(history(s), float)
        i = min(round(s * n * 2) // 2, len(ks) - 2)
        th, a, b, da, db = s * n - i, ys[i], ys[i + 1], ks[i] * dt, ks[i + 1] * dt
        rise = b - a
        return a + th * (da + th * (3 * rise - 2 * da - db + th * (da + db - 2 * rise)))

    ks.append(f(0.0, ys[0], [past(-lag) for lag in lags]))
    for i in range(round(end * n)):
        t, y = i * dt, ys[-1]
        middle, late = ([past(t + c * dt - lag) for lag in lags] for c in (0.5, 1.0))
        k2 = f(t + dt / 2, y + dt / 2 * ks[-1], middle)
        k3 = f(t + dt / 2, y + dt / 2 * k2, middle)
        k4 = f(t + dt, y + dt * k3, late)
        ys.append(y + dt / 6 * (ks[-1] + 2 * k2 + 2 * k3 + k4))
        ks.append(f(t + dt, ys[-1], late))
    return ys[-1]


def of_numpy(t, y, z):
    return -y * z[0] + np.sin(3 * t)


NONLINEAR = float(fixed_step_reference(of_numpy, [1.0], lambda s: [1.0 + s], [1.0], 2.5, 2000)[0])


class Example:
    """A delay equation y′ = f(t, y, [y(t − lag), …]) in the literature; `xp` is numpy or jax.numpy."""

    def __init__(self, f, y0, lags, end, n):
        self.f, self.y0, self.lags, self.end, self.n = f, y0, lags, end, n

    def reference(self):
        f = lambda t, y, z: np.stack(self.f(y, z))
        return fixed_step_reference(f, self.y0, lambda s: self.y0, self.lags, self.end, self.n)

    def problem(self):
        f = lambda t, y, h, _: jnp.stack(self.f(y, [h(t - lag) for lag in self.lags]))
        y0 = jnp.array(self.y0)
        return jde.DDEProblem(f, y0, (0.0, self.end), history=y0, lags=self.lags)


def epidemic(y, z):
    """Kermack and McKendrick. Source: Hairer, Nørsett, Wanner, Solving ODEs I, II.17."""
    ill = y[0] * z[0][1]
    return [z[1][1] - ill, ill - y[1], y[1] - z[1][1]]


def wheldon(y, z):
    """Chronic granulocytic leukaemia. Source: Hairer, Nørsett, Wanner, Solving ODEs I, II.17."""
    flow = y[0] / (1 + 40 * y[1])
    return [1.1 / (1 + 10**0.5 * z[0][0] ** 1.25) - 10 * flow, 100 * flow - 2.43 * y[1]]


EXAMPLES = {
    "Mackey–Glass": Example(lambda y, z: [2 * z[0][0] / (1 + z[0][0] ** 9.65) - y[0]], [0.5], [2.0], 20.0, 200),
    "Kermack–McKendrick": Example(epidemic, [5.0, 0.1, 1.0], [1.0, 10.0], 40.0, 200),
    "Wheldon": Example(wheldon, [1.05767027 / 3, 1.030713491 / 3], [20.0], 100.0, 100),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_equations_of_the_literature(name):
    example = EXAMPLES[name]
    sol = jde.solve(example.problem(), jde.Tsit5(), rtol=1e-9, atol=1e-9, saveat=END)
    np.testing.assert_allclose(sol.ys[-1], example.reference(), rtol=2e-6)


# -------------------- lags that are shorter than a step, that vary, that vanish ---------------------------------------


def pantograph_true(t, a=-1.0, q=0.5):
    return sum(a**k * q ** (k * (k - 1) / 2) * t**k / math.factorial(k) for k in range(40))


def of_pantograph(**fields):
    f = lambda t, y, h, a: a * h(0.5 * t)
    return jde.DDEProblem(f, jnp.ones(1), (0.0, 6.0), -1.0, history=jnp.ones(1), **fields)


@pytest.mark.parametrize("method", [jde.Tsit5(), jde.Rodas5P(), jde.Kvaerno5(), jde.RadauIIA5(), jde.BDF()], ids=str)
@pytest.mark.parametrize("declared", [False, True])
def test_a_vanishing_lag(method, declared):
    lags = {"dependent_lags": lambda t, y, a: 0.5 * t} if declared else {}
    sol = jde.solve(of_pantograph(**lags), method, rtol=1e-8, atol=1e-10, saveat=END)
    assert abs(sol.ys[-1, 0] - pantograph_true(6.0)) < 2e-7


def test_a_lag_that_depends_on_the_state():
    """y′ = y(t)·y(ln y)/t has the solution t up to e, and exp(t/e) up to e². Source: Paul 1994, problem 1.1.10."""
    f = lambda t, y, h, _: y * h(jnp.log(y[0])) / t
    lag = lambda t, y, _: t - jnp.log(y[0])
    problem = jde.DDEProblem(f, jnp.ones(1), (1.0, math.e**2), history=jnp.ones(1), dependent_lags=lag)
    sol = jde.solve(problem, jde.Tsit5(), rtol=1e-9, atol=1e-9)
    assert np.min(np.abs(sol.ts - math.e)) < 1e-13  # where the slope jumps
    assert abs(sol.ys[-1, 0] - math.exp(math.e)) < 1e-8


@pytest.mark.slow
def test_gradients_know_where_lags_meet_breaking_points():
    """Of an end value by a rate, a lag and an initial value, against differences; the slope jumps where s = 0."""
    lag = lambda t, y, p: p[1] * (1 + 0.3 * jnp.sin(t) + 0.2 * jnp.tanh(y[0]))

    def end(p):
        f = lambda t, y, h, p: -p[0] * h(t - lag(t, y, p))
        history = lambda s, p: p[2:3] * (1 + s)
        problem = jde.DDEProblem(f, p[2:3], (0.0, 3.0), p, history=history, dependent_lags=lag)
        return jde.solve(problem, jde.BS3(), saveat=END, rtol=1e-8, atol=1e-9).ys[-1, 0]

    at, value = jnp.array([1.1, 0.8, 0.7]), jax.jit(end)
    differences = [(value(at + e) - value(at - e)) / 2e-5 for e in 1e-5 * jnp.eye(3)]
    np.testing.assert_allclose(jax.jit(jax.jacfwd(end))(at), differences, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.grad(end))(at), differences, rtol=1e-6)


@pytest.mark.slow
def test_steps_that_ask_for_themselves_have_gradients():
    """Of y at 2 by a, against the derivative of the series."""

    def end(a):
        sol = jde.solve(
            of_pantograph().replace(args=a, tspan=(0.0, 2.0)), jde.Tsit5(), rtol=1e-9, atol=1e-9, saveat=END
        )
        return sol.ys[-1, 0]

    grad, jac = jax.jit(lambda a: (jax.grad(end)(a), jax.jacfwd(end)(a)))(-1.0)
    true = (pantograph_true(2.0, -1 + 1e-5) - pantograph_true(2.0, -1 - 1e-5)) / 2e-5
    np.testing.assert_allclose([grad, jac], [true, true], rtol=1e-6)


# -------------------- what comes before, and what h is ----------------------------------------------------------------


def test_a_history_that_jumps_is_seen_from_either_side():
    """y = 0 before 0 and 1 there: y′ = −y(t − 1) is 0 up to 1."""
    sol = jde.solve(
        of_decay(2.5, history=jnp.zeros(1)), jde.Tsit5(), rtol=1e-9, atol=1e-9, saveat=jnp.array([0.7, 2.5])
    )
    np.testing.assert_allclose(sol.ys[:, 0], [1.0, 1 - 1.5 + 0.5**2 / 2], atol=1e-9)


def test_a_neutral_equation():
    """y′ = y′(t − 1) + 1, y = 0 before: the slope is ⌈t⌉."""
    f = lambda t, y, h, _: h(t - 1.0, derivative=True) + 1
    problem = jde.DDEProblem(f, jnp.zeros(1), (0.0, 3.5), history=jnp.zeros(1), lags=1.0, neutral=True)
    sol = jde.solve(problem, jde.Tsit5(), saveat=END)
    assert abs(sol.ys[-1, 0] - (1 + 2 + 3 + 0.5 * 4)) < 1e-9


def test_a_distributed_delay():
    """y′ = −∫ y over the last unit of time; y = 1 before. For t < 1, y″ = 1 − y, y(0) = 1, y′(0) = −1."""
    nodes, weights = np.polynomial.legendre.leggauss(8)
    nodes, weights = (nodes + 1) / 2, weights / 2

    def f(t, y, h, _):
        """Of the part since 0, and of the part before, whose length is known."""
        since = jnp.minimum(t, 1.0)
        late = jnp.sum(weights[:, None] * h(t - since * nodes), axis=0) * since
        return -(late + (1 - since))

    problem = jde.DDEProblem(f, jnp.ones(1), (0.0, 0.9), history=jnp.ones(1))
    sol = jde.solve(problem, jde.Tsit5(), rtol=1e-9, atol=1e-9, saveat=END)
    assert abs(sol.ys[-1, 0] - (1 - math.sin(0.9))) < 1e-7


def test_states_of_any_kind():
    """A pytree with a complex leaf, whose equation turns it by one rotation in each unit of time."""

    def f(t, y, h, _):
        return {"a": 2j * math.pi * h(t - 1.0)["a"], "b": -h(t - 1.0)["b"]}

    start = {"a": jnp.ones((), complex), "b": jnp.ones((2, 2))}
    history = lambda s, _: {"a": jnp.exp(2j * math.pi * s.astype(complex)), "b": jnp.ones((2, 2))}
    problem = jde.DDEProblem(f, start, (0.0, 4.0), history=history, lags=1.0)
    sol = jde.solve(problem, jde.Tsit5(), rtol=1e-9, atol=1e-9, saveat=END)
    assert abs(sol.ys["a"][-1] - 1) < 1e-6  # exp(2πi·t), of which a delay of one is no delay
    np.testing.assert_allclose(sol.ys["b"][-1], decay_true(4.0), atol=1e-7)


def test_an_algebraic_equation_with_a_delay():
    """y′ = −z, 0 = z − y(t − 1)."""
    f = lambda t, y, h, _: jnp.stack([-y[1], y[1] - h(t - 1.0)[0]])
    problem = jde.DDEProblem(
        f, jnp.ones(2), (0.0, 3.5), history=jnp.ones(2), lags=1.0, mass_matrix=jnp.array([[1.0, 0], [0, 0]])
    )
    sol = jde.solve(problem, jde.Rodas5P(), rtol=1e-8, atol=1e-8, saveat=END)
    assert abs(sol.ys[-1, 0] - decay_true(3.5)) < 1e-6


# -------------------- the memory --------------------------------------------------------------------------------------


def test_a_memory_that_is_too_short_says_so():
    short = jde.solve(of_decay(), jde.BS3(), rtol=1e-7, atol=1e-7, saveat=END, history_steps=4, throw=False)
    assert short.result == jde.Result.history_too_short and np.all(np.isnan(short.ys[-1]))
    with pytest.raises(jde.SolveError, match="history_steps"):
        jde.solve(of_decay(), jde.BS3(), rtol=1e-7, atol=1e-7, saveat=END, history_steps=4)


def test_a_short_memory_suffices_for_a_short_lag():
    whole, ring = (
        jde.solve(of_predators(), jde.Tsit5(), rtol=1e-7, atol=1e-7, saveat=END, history_steps=n) for n in (512, 8)
    )
    assert int(ring.stats.accepted) > 8 and np.array_equal(whole.ys, ring.ys)


def test_outside_of_jit_the_memory_grows(monkeypatch):
    monkeypatch.setattr(of_delays, "STEPS", 4)
    sol = jde.solve(of_decay(), jde.BS3(), rtol=1e-7, atol=1e-7, saveat=END)
    assert abs(sol.ys[-1, 0] - decay_true(5.0)) < 1e-5 and int(sol.stats.accepted) > 16


def test_stepping_by_hand_remembers():
    integrator = jde.Integrator(of_decay(), jde.Tsit5(), rtol=1e-8, atol=1e-8)
    state = integrator.step(integrator.step(integrator.init()))
    state = integrator.run(state, 1000)
    assert state.result == jde.Result.success and abs(state.y[0] - decay_true(5.0)) < 1e-7


def test_a_gradient_needs_every_step():
    def end(a, steps):
        problem = of_decay(args=a)
        options = {"rtol": 1e-7, "atol": 1e-7, "saveat": END, "throw": False, "history_steps": steps}
        return jde.solve(problem, jde.Tsit5(), **options).ys[-1, 0]

    enough, few = (jax.grad(end)(1.0, n) for n in (64, 8))
    assert np.isfinite(enough) and np.isnan(few)


# -------------------- transformations ---------------------------------------------------------------------------------


def by_lag(lag):
    f = lambda t, y, h, lag: -h(t - lag)
    problem = jde.DDEProblem(f, jnp.ones(1), (0.0, 3.0), lag, history=jnp.ones(1), lags=lambda lag: lag)
    return jde.solve(problem, jde.Tsit5(), rtol=1e-8, atol=1e-8, saveat=END, history_steps=64).ys[-1, 0]


def by_lag_true(lag, t=3.0):
    return 1 + sum((-jnp.maximum(t - (k - 1) * lag, 0)) ** k / math.factorial(k) for k in range(1, 8))


@pytest.mark.slow
def test_lanes_have_lags_and_gradients_of_their_own():
    lags = jnp.array([0.7, 1.0, 1.3])
    values, grads = jax.jit(jax.vmap(jax.value_and_grad(by_lag)))(lags)
    np.testing.assert_allclose(values, jax.vmap(by_lag_true)(lags), atol=1e-7)
    np.testing.assert_allclose(grads, jax.vmap(jax.grad(by_lag_true))(lags), atol=1e-6)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"lags": 0.0}, "positive"),
        ({"lags": -1.0}, "positive"),
        ({"lags": "1"}, "real numbers"),
        ({"tspan": (1.0, 0.0)}, "forwards"),
        ({"history": lambda s, a: jnp.ones(2)}, "shapes of `y0`"),
        ({"history": lambda s: 1}, "history"),
        ({"dependent_lags": lambda t, y, a: jnp.ones(2)}, "one number"),
        ({"f": lambda t, y, h, a: -h(a, t - 1)}, "neither True nor False"),
        ({"f": lambda t, y, h, a: -h(None)}, "or an array of times"),
        ({"f": lambda t, y, h, a: -h(t + 0.1)}, "lag of the wrong sign"),
        ({"tau": 1.0}, "`lags=` here"),
        ({"h": 1.0}, "`history=` here"),
    ],
)
def test_what_is_wrong_is_said(fields, message):
    with pytest.raises((TypeError, ValueError, jde.SolveError), match=message):
        jde.solve(of_decay().replace(**fields), jde.Tsit5())


# -------------------- events: what jumps comes back a lag later -------------------------------------------------------


JUMP = jnp.array([1.0, 0.5, 2.0, 1.0, 1.1])
"""a rate, the value at which something is added, how much, the lag, and the history"""


def with_a_jump(p, end, **lags):
    """y′ = −p₀·y(t − p₃) from p₄, with p₂ more where it comes down to p₁."""
    gain = jde.Event(lambda t, y, p: y[0] - p[1], lambda t, y, p: y + p[2], direction=-1)
    f, history = (lambda t, y, h, p: -p[0] * h(t - p[3])), (lambda s, p: p[4:])
    problem = jde.DDEProblem(f, p[4:], (0.0, end), p, history=history, **lags)
    return jde.solve(problem, jde.BS3(), events=gain, rtol=1e-9, atol=1e-9, saveat=END).ys[-1, 0]


def with_a_jump_true(p, end):
    """By the method of steps, for p₃ + T < end < 2p₃, where T is the time of the event."""
    rate, value, gain, lag, start = p
    since = end - lag
    first = start * (1 - rate * lag) + gain
    return first - rate * (start * (since - rate * since**2 / 2) + gain * (since - (1 - value / start) / rate))


@pytest.mark.parametrize(
    "lags",
    [{"lags": lambda p: p[3]}, pytest.param({"dependent_lags": lambda t, y, p: p[3]}, marks=pytest.mark.slow)],
    ids=["constant", "varying"],
)
def test_jumps_come_back_a_lag_later(lags):
    """Values and derivatives in both modes, of a solution made of polynomials that the method has exactly."""
    end = lambda p: with_a_jump(p, 1.9, **lags)
    value, *found = jax.jit(lambda p: (end(p), jax.jacfwd(end)(p), jax.grad(end)(p)))(JUMP)
    np.testing.assert_allclose(value, with_a_jump_true(JUMP, 1.9), rtol=1e-12)
    for slopes in found:
        np.testing.assert_allclose(slopes, jax.grad(with_a_jump_true)(JUMP, 1.9), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("method", [jde.Tsit5(), jde.Kvaerno3()], ids=str)
def test_the_order_of_a_method_survives_jumps(method):
    """Of y and of f by what comes back, at steps that a dose at 0.3 and lags of 1 and 0.7 have nothing to do with."""
    f = lambda t, y, h, _: nonlinear(t, y, h, _) - 0.5 * h(t - 0.7) ** 2
    dose = jde.PresetTimes([0.3], lambda t, y, _: y + 0.7)

    def end(n, of=method, **options):
        controller = jde.FixedSteps(dt=1 / n) if n else None
        problem = jde.DDEProblem(f, jnp.ones(1), (0.0, 2.5), history=lambda s, _: jnp.ones(1) + s, lags=(1.0, 0.7))
        return float(jde.solve(problem, of, events=dose, controller=controller, saveat=END, **options).ys[-1, 0])

    true = end(None, jde.Vern7(), rtol=1e-12, atol=1e-12)
    slope = math.log2(abs(end(24) - true) / abs(end(48) - true))
    assert slope > ORDERS[method] - 0.4, slope


def test_infusions_and_integrals():
    """y′ = −y(t − 1) with 2 more a unit of time from 0.2 to 0.5; and ∫y."""
    infusion = jde.Doses(0.2, 0.6, lambda y, amount: y + amount, duration=0.3)
    integral = jde.Integrate(lambda t, y, args: y[0])
    at = jnp.array([0.5, 1.0, 1.9])
    sol = jde.solve(of_decay(1.9), jde.Tsit5(), events=[infusion, integral], rtol=1e-9, atol=1e-9, saveat=at)
    until = 0.9 - 0.9**2 / 2 + 2 * (0.3**2 / 2 + 0.3 * 0.4)  # ∫y up to 0.9
    np.testing.assert_allclose(sol.ys[:, 0], [1.1, 0.6, 0.6 - until], rtol=1e-10)
    # up to 1, and from there 0.6 less ∫(1.9 − s)·y(s) up to 0.9
    first = 1 - 0.5 + 2 * (0.3**2 / 2 + 0.3 * 0.5)
    late = sum(w * (0.9 - s) * (1 - s + 2 * min(max(s - 0.2, 0), 0.3)) for s, w in in_pieces(0, 0.2, 0.5, 0.9))
    np.testing.assert_allclose(sol.integrals[0], first + 0.6 * 0.9 - late, rtol=1e-9)


def in_pieces(*ends):
    """Nodes and weights of a quadrature that is exact for cubics between the ends."""
    rule = np.stack(np.polynomial.legendre.leggauss(2), axis=1)
    pairs = itertools.pairwise(ends)
    return [(a + (b - a) * (x + 1) / 2, w * (b - a) / 2) for a, b in pairs for x, w in rule]


@pytest.mark.slow
def test_gradients_of_an_equation_of_neutral_type_with_doses():
    """By a rate, both lags, the history, the time and the amount of a dose, which all move where the slope jumps."""

    def end(p):
        f = lambda t, y, h, p: -p[0] * h(t - p[1]) * y + 0.3 * h(t - p[2], derivative=True)
        dose = jde.Doses(p[4:5], p[5:6], lambda y, amount: y + amount)
        history = lambda s, p: p[3:4] * (1 + 0.5 * jnp.sin(s))
        lags = lambda p: (p[1], p[2])
        problem = jde.DDEProblem(f, p[3:4], (0.0, 2.2), p, history=history, lags=lags, neutral=True)
        return jde.solve(problem, jde.BS3(), events=dose, saveat=END, rtol=1e-8, atol=1e-8).ys[-1, 0]

    at, value = jnp.array([0.8, 0.7, 0.45, 1.2, 0.33, 0.5]), jax.jit(end)
    differences = [(value(at + e) - value(at - e)) / 2e-5 for e in 1e-5 * jnp.eye(6)]
    forward, reverse = jax.jit(lambda p: (jax.jacfwd(end)(p), jax.grad(end)(p)))(at)
    np.testing.assert_allclose(forward, differences, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(reverse, forward, rtol=1e-9)


# -------------------- what a solve shows ------------------------------------------------------------------------------


def test_dense_output_has_the_history():
    def solve(scale):
        f = lambda t, y, h, scale: {"a": -h(t - 1.0)["a"], "b": h(t - 0.5)["a"][0]}
        history = lambda s, scale: {"a": scale * jnp.sin(s) * jnp.ones(2), "b": s**2}
        start = {"a": jnp.ones(2), "b": jnp.zeros(())}
        problem = jde.DDEProblem(f, start, (0.0, 1.0), scale, history=history, lags=(1.0, 0.5))
        return jde.solve(problem, jde.BS3(), dense=True, max_steps=100)

    sol, before = solve(2.0), jnp.array([-3.0, -0.2])
    np.testing.assert_allclose(sol(before)["a"], 2 * np.sin(before)[:, None] * np.ones(2), rtol=1e-14)
    np.testing.assert_allclose(sol(before)["b"], before**2, rtol=1e-14)
    np.testing.assert_allclose(sol.derivative(before)["b"], 2 * before, rtol=1e-14)
    assert sol(0.0)["a"][0] == 1 and np.isnan(sol(1.5)["b"])
    _, slope = jax.jvp(lambda scale: solve(scale)(-0.3)["a"][0], (2.0,), (1.0,))
    np.testing.assert_allclose(slope, math.sin(-0.3), rtol=1e-14)
    again = pickle.loads(pickle.dumps(sol))
    assert np.isnan(again(-0.2)["b"])
    np.testing.assert_allclose(again(0.7)["b"], sol(0.7)["b"], rtol=1e-12)


@pytest.mark.parametrize("lags", [1.0, ()])
def test_attempts_are_traced_and_taken_again(lags):
    """With the past that they had; where a step asks for itself, with all its rounds of three stages."""
    problem = of_decay(1.9, lags=lags)
    seen = jde.trace(problem, jde.BS3(), rtol=1e-4, atol=1e-4)
    sol = jde.solve(problem, jde.BS3(), rtol=1e-4, atol=1e-4, saveat=END)
    rounds = int(np.sum(seen.f_evals)) // 3
    assert rounds == len(seen) if lags else rounds > 2 * len(seen)
    assert 0 <= int(sol.stats.f_evals) - 3 * rounds < 20
    if lags:
        last = seen.replay(len(seen) - 1)
        np.testing.assert_allclose([last.y1[0], last.slope1[0]], [decay_true(1.9), -decay_true(0.9)], rtol=1e-6)


@pytest.mark.parametrize("method", [jde.BDF(), jde.Adams(), jde.KenCarp4()], ids=str)
def test_errors_follow_the_tolerance_across_breaking_points(method):
    problem = jde.DDEProblem(nonlinear, jnp.ones(1), (0.0, 2.5), history=lambda s, _: jnp.ones(1) + s, lags=1.0)
    errors = [
        abs(float(jde.solve(problem, method, rtol=tol, atol=tol, saveat=END).ys[-1, 0]) - NONLINEAR)
        for tol in (1e-4, 1e-8)
    ]
    slope = math.log(errors[0] / errors[1]) / math.log(1e4)
    assert slope > 0.75 and errors[1] < 1e-6, errors
