"""IMEX multistep methods: published coefficients on equal steps, right ones on others, and a start of full order."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiffeq as jde
from jaxdiffeq.engine.control import Tolerance
from jaxdiffeq.problems.vector_field import SplitField
from jaxdiffeq.steppers.imex import ImexMemory
from jaxdiffeq.types import State

METHODS = {m.name: m for m in (jde.IMEXEuler(), jde.CNAB2(), jde.SBDF2(), jde.SBDF3(), jde.SBDF4())}
END = jde.SaveAt(t1=True)
TIGHT: dict[str, Any] = {"rtol": 1e-13, "atol": 1e-13}  # for the sake of Newton's method: the steps are given
TOLERANCE = Tolerance(jnp.asarray(1e-14), jnp.asarray(1e-14))
each = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())


def damped(t, y, args):
    return -(y**3)


def driven(t, y, args):
    return y**3 - y * jnp.cos(t)


SPLIT = jde.SplitODEProblem(damped, driven, jnp.array([1.0]), (0.0, 2.0))
WHOLE = jde.ODEProblem(lambda t, y, a: damped(t, y, a) + driven(t, y, a), SPLIT.y0, SPLIT.tspan)


def exact(t):
    return np.exp(-np.sin(t))


# -------------------- coefficients ------------------------------------------------------------------------------------

PUBLISHED = {  # Ascher, Ruuth, Wetton 1995: α₁ … relative to α₀, and the weights of the explicit part
    "IMEXEuler": ([-1], [1]),
    "CNAB2": ([-1], [3 / 2, -1 / 2]),
    "SBDF2": ([-4 / 3, 1 / 3], [2, -1]),
    "SBDF3": ([-18 / 11, 9 / 11, -2 / 11], [3, -3, 1]),
    "SBDF4": ([-48 / 25, 36 / 25, -16 / 25, 3 / 25], [4, -6, 4, -1]),
}


def past(method, widths, y, slopes):
    """The memory after steps of these sizes, the last one first, up to t = 0, of a solution y and its slopes."""
    ago = -np.cumsum(widths)
    rows = lambda f: jnp.asarray([[f(t)] for t in ago]).reshape(len(ago), 1)
    known, rate = jnp.asarray(method.tableau.steps, jnp.int32), jnp.asarray(jnp.inf)
    present = tuple(jnp.array([k(0.0)]) for k in slopes)
    return ImexMemory(present, rows(y), rows(slopes[-1]), jnp.asarray(widths), known, rate, None)


@each
def test_equal_steps_have_the_published_coefficients(method):
    """y₁ and its derivatives by the states and slopes before, for y′ = g(t) with f = 0."""
    alpha, eta = PUBLISHED[method.name]
    steps = method.tableau.steps
    memory = past(method, np.full(steps - 1, 0.1), lambda t: 1 + t, (lambda t: 0.0, lambda t: 1.0))
    g = lambda t, y, args: jnp.zeros_like(y)
    field = SplitField(g, implicit=g, explicit=g)

    def end(states, explicit_slopes):
        changed = memory._replace(
            states=states[1:], explicit_slopes=explicit_slopes[1:], slopes=(memory.slopes[0], explicit_slopes[0])
        )
        start = State(jnp.zeros(()), states[0], changed)
        return method.step(field, start, jnp.asarray(0.1), None, TOLERANCE).after.y[0]

    at = jnp.ones((steps, 1)), jnp.zeros((steps, 1))
    by_states, by_pushes = jax.jit(jax.grad(end, argnums=(0, 1)))(*at)
    first = sum(PUBLISHED[method.name][0]) and 1 / method.tableau.alpha[0]
    np.testing.assert_allclose(by_states[: len(alpha), 0], -np.array(alpha), rtol=1e-13)
    np.testing.assert_allclose(by_pushes[:, 0], 0.1 * first * np.array(eta), rtol=1e-13)


@each
def test_polynomials_are_exact_whatever_the_steps(method):
    k, steps = method.order, method.tableau.steps
    implicit = np.polynomial.Polynomial(np.arange(1, k + 1) / 3)  # slopes of degree k - 1
    explicit = np.polynomial.Polynomial(np.cos(np.arange(k)))
    y = (implicit + explicit).integ()
    f, g = (lambda t, y, args, p=p: jnp.polyval(p.coef[::-1], t) * jnp.ones_like(y) for p in (implicit, explicit))
    field = SplitField(lambda t, y, args: f(t, y, args) + g(t, y, args), implicit=f, explicit=g)
    memory = past(method, np.array([0.7, 0.31, 0.52])[: steps - 1], y, (implicit, explicit))
    start = State(jnp.zeros(()), jnp.array([y(0.0)]), memory)
    end = jax.jit(lambda width: method.step(field, start, width, None, TOLERANCE).after.y)
    for width in (0.05, 0.9):
        np.testing.assert_allclose(end(width), [y(width)], rtol=1e-13)


# -------------------- order -------------------------------------------------------------------------------------------


def orders(method, problem, **options):
    """Exponents of the error at the end, of the dense output, and how steps were counted."""

    @jax.jit
    def errors(dt):
        times = np.linspace(0.05, 2.0, 23)
        control = jde.FixedSteps(dt=dt)
        sol = jde.solve(problem, method, saveat=times, controller=control, **TIGHT, **options)
        apart = jnp.abs(sol.ys[:, 0] - exact(times))
        return apart[-1], jnp.max(apart), sol.stats.accepted

    sizes = 2.0 / (np.array([64, 96, 128, 192, 256]) + 0.37)  # the last step is a third as long
    end, along, steps = (np.array(x) for x in zip(*(errors(dt) for dt in sizes), strict=True))
    slope = lambda errors: np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    return slope(end), slope(along), steps


@pytest.mark.parametrize("problem", [SPLIT, WHOLE], ids=["split", "whole"])
@each
def test_order_with_a_stop_and_a_shorter_last_step(method, problem):
    """Restarts keep the order, and so do steps of other sizes. The cubic between steps is of order 3 globally 4."""
    end, along, steps = orders(method, problem, stops=[1.0])
    assert abs(end - method.order) < 0.2
    assert along > min(method.order, 4) - 0.3
    np.testing.assert_array_equal(steps, [66, 98, 130, 194, 258])


@each
def test_equal_steps_are_a_scan(method):
    marched = jde.solve(SPLIT, method, saveat=END, controller=jde.FixedSteps(50), **TIGHT)
    looped = jde.solve(SPLIT, method, saveat=END, controller=jde.FixedSteps(dt=0.04), **TIGHT)
    np.testing.assert_allclose(marched.ys, looped.ys, rtol=1e-13)
    stats = marched.stats
    assert stats.steps == stats.jac_evals == stats.factorizations == 50
    once = method.tableau.steps  # at the start, and after each step of the method that starts
    assert stats.f_evals == stats.newton_iterations + stats.jac_evals + once
    assert stats.newton_iterations == stats.linear_solves


@pytest.mark.parametrize("method", [jde.SBDF2(), jde.KenCarp3()], ids=str)
def test_the_implicit_part_is_called_as_often_as_is_counted(method):
    """The Jacobian of one number is one call."""
    calls = []

    def counted(t, y, args):
        jax.debug.callback(lambda: calls.append(1))
        return damped(t, y, args)

    problem = jde.SplitODEProblem(counted, driven, SPLIT.y0, SPLIT.tspan)
    stats = jde.solve(problem, method, saveat=END, controller=jde.FixedSteps(dt=0.04), rtol=1e-8, atol=1e-8).stats
    jax.effects_barrier()
    assert len(calls) == stats.f_evals


# -------------------- what they are for -------------------------------------------------------------------------------


def advection_diffusion(n=40):
    """Diffusion times 5, implicit; advection, explicit; periodic. Waves of the grid have closed forms in time."""
    dx = 1 / n

    def diffusion(t, y, args):
        return 5.0 * (jnp.roll(y, 1) - 2 * y + jnp.roll(y, -1)) / dx**2

    def advection(t, y, args):
        return -(jnp.roll(y, -1) - jnp.roll(y, 1)) / (2 * dx)

    wave = np.exp(2j * np.pi * np.arange(n) * dx)
    rate = 10 * (np.cos(2 * np.pi * dx) - 1) / dx**2
    truth = np.real(np.exp(0.02 * (rate - 1j * np.sin(2 * np.pi * dx) / dx)) * wave)
    noise = (-1.0) ** np.arange(n)  # the fastest mode: e^(-32000 t)
    return jde.SplitODEProblem(diffusion, advection, jnp.asarray(np.real(wave) + 0.1 * noise), (0.0, 0.02)), truth, rate


@each
def test_stiff_modes_are_damped_at_steps_far_beyond_explicit_stability(method):
    """dt·|λ| = 13, where explicit methods of these orders allow 2 to 3; the error is that of the smooth mode."""
    problem, truth, rate = advection_diffusion()
    run = lambda method: jde.solve(problem, method, saveat=END, controller=jde.FixedSteps(50), throw=False, **TIGHT)
    apart = np.max(np.abs(run(method).ys[-1] - truth)) / np.max(np.abs(truth))
    constant = 1 / 12 if method.name == "CNAB2" else 1 / (method.order + 1)
    expected = constant * (0.0004 * abs(rate)) ** method.order * 0.02 * abs(rate)  # that of the diffusion alone
    assert abs(apart / expected - 1) < 0.2
    if method.order == 4:
        assert not np.max(np.abs(run(jde.RK4()).ys[-1])) < 1e3


# -------------------- states, directions, lanes -----------------------------------------------------------------------


@each
def test_complex_states_backwards(method):
    problem = jde.SplitODEProblem(lambda t, y, a: -y, lambda t, y, a: 3j * y, jnp.array([[1 + 1j]]), (1.0, 0.0))
    times = np.array([0.93, 0.5, 0.5, 0.0])
    errors = []
    for dt in (0.02, 0.01):
        sol = jde.solve(problem, method, saveat=times, controller=jde.FixedSteps(dt=dt), **TIGHT)
        assert sol.ys.shape == (4, 1, 1)
        errors.append(np.max(np.abs(np.asarray(sol.ys)[:, 0, 0] - (1 + 1j) * np.exp((3j - 1) * (times - 1)))))
    assert errors[1] < errors[0] / 2 ** (method.order - 0.3)
    assert errors[1] < 0.1 ** (method.order - 0.5)


def test_single_precision_and_trees():
    problem = jde.SplitODEProblem(
        lambda t, y, a: {"x": -y["x"], "v": 0 * y["v"]},
        lambda t, y, a: {"x": y["v"] * jnp.ones_like(y["x"]), "v": 0 * y["v"]},
        {"x": jnp.zeros(2, jnp.float32), "v": jnp.ones((), jnp.float32)},
        (0.0, 1.0),
    )
    sol = jde.solve(problem, METHODS["SBDF3"], saveat=END, controller=jde.FixedSteps(40), rtol=1e-5, atol=1e-5)
    assert sol.ys["x"].dtype == jnp.float32
    np.testing.assert_allclose(sol.ys["x"][-1], 1 - np.exp(-1.0), rtol=2e-5)


LOG = jde.SplitODEProblem(  # y = 2^(e^(−at)): outside y > 0 the first part is NaN
    lambda t, y, a: -a * y * jnp.log(y), lambda t, y, a: 0 * y, jnp.array([2.0]), (0.0, 1.0), 1.0
)


def test_a_lane_is_the_single_solve_value_and_gradient():
    """Stops differ between lanes, so that some begin while others go on: neither branch may spoil the other."""

    def end(a, stop):
        control = jde.FixedSteps(dt=0.06)
        sol = jde.solve(LOG, METHODS["SBDF2"], args=a, stops=stop, saveat=END, controller=control, **TIGHT)
        return sol.ys[-1, 0]

    single = jax.jit(jax.value_and_grad(end))
    rates, stops = jnp.array([0.5, 1.0, 2.0]), jnp.array([[0.31], [0.5], [0.77]])
    lanes = jax.jit(jax.vmap(jax.value_and_grad(end)))(rates, stops)
    for i in range(3):
        for lane, alone in zip(lanes, single(rates[i], stops[i]), strict=True):
            np.testing.assert_allclose(lane[i], alone, rtol=1e-11)
    np.testing.assert_allclose(lanes[0], 2.0 ** np.exp(-np.asarray(rates)), rtol=5e-3)


def test_time_has_no_scale():
    @jax.jit
    def end(c):
        f, g = (lambda t, y, a, part=part: part(t / c, y, a) / c for part in (damped, driven))
        problem = jde.SplitODEProblem(f, g, SPLIT.y0, (0.0, 2.0 * c))
        return jde.solve(problem, METHODS["SBDF2"], saveat=END, controller=jde.FixedSteps(dt=0.03 * c), **TIGHT).ys

    for c in (1e-12, 1e12):
        np.testing.assert_allclose(end(c), end(1.0), rtol=1e-11)


def test_a_step_that_has_no_solution_is_reported():
    """y′ = 30 y² from 1 by steps of 1: the implicit equation has no real root."""
    problem = jde.SplitODEProblem(lambda t, y, a: 30 * y**2, lambda t, y, a: 0 * y, jnp.ones(1), (0.0, 3.0))
    for control in (jde.FixedSteps(3), jde.FixedSteps(dt=1.0)):
        sol = jde.solve(problem, METHODS["IMEXEuler"], saveat=END, controller=control, throw=False)
        assert sol.result == jde.Result.nonlinear_solve_failed
        assert np.all(np.isnan(sol.ys[-1]))


def test_what_is_not_served_is_refused():
    with pytest.raises(ValueError, match=r"SBDF2 has no error estimate.*FixedSteps"):
        jde.solve(SPLIT, METHODS["SBDF2"])
    massive = WHOLE.replace(mass_matrix=jnp.ones(1))
    with pytest.raises(ValueError, match=r"SBDF2 cannot solve .* with a mass matrix"):
        jde.solve(massive, METHODS["SBDF2"], controller=jde.FixedSteps(10))


# -------------------- gradients ---------------------------------------------------------------------------------------

X = jnp.array([0.9, 1.1, 1.3, 2.0])  # two parameters, y0, t1


def loss(x, method, **options):
    problem = jde.SplitODEProblem(
        lambda t, y, a: -a[0] * y**3, lambda t, y, a: y**3 - y * jnp.cos(a[1] * t), x[2:3], (0.0, x[3]), x[:2]
    )
    sol = jde.solve(problem, method, saveat=END, rtol=1e-12, atol=1e-12, **options)
    return jnp.sum(sol.ys[-1] ** 2)


def central(value, h=1e-4):
    central = lambda e, h: (value(X + h * e) - value(X - h * e)) / (2 * h)
    found = np.array([(4 * central(e, h / 2) - central(e, h)) / 3 for e in jnp.eye(4)])
    assert np.all(np.isfinite(found))  # NaN would equal NaN
    return found


def test_gradients_of_equal_steps():
    """By a plain scan, against differences of the same steps, the end time included."""
    method = METHODS["SBDF3"]
    value = jax.jit(lambda x: loss(x, method, controller=jde.FixedSteps(12)))
    reverse = jax.jit(jax.grad(lambda x: loss(x, method, controller=jde.FixedSteps(12))))(X)
    np.testing.assert_allclose(reverse, central(value), rtol=1e-8)


@pytest.mark.parametrize("gradient", [jde.ReverseAD(), jde.ForwardAD()], ids=["reverse", "forward"])
def test_gradients_by_replay(gradient):
    """With a stop, which begins anew; the step size is constant, so the end time moves the last step alone."""
    options = {"controller": jde.FixedSteps(dt=0.17), "stops": [0.5], "max_steps": 64}
    value = jax.jit(lambda x: loss(x, METHODS["CNAB2"], **options))
    found = jax.jit(jax.grad(lambda x: loss(x, METHODS["CNAB2"], gradient=gradient, **options)))(X)
    np.testing.assert_allclose(found, central(value), rtol=1e-8)


def test_hessian():
    run = lambda x: loss(x, METHODS["IMEXEuler"], controller=jde.FixedSteps(40))
    gradient = jax.jit(jax.grad(run))
    np.testing.assert_allclose(jax.jit(jax.hessian(run))(X), central(gradient), rtol=1e-7, atol=1e-9)
