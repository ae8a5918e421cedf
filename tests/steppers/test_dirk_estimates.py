"""Error estimates of diagonally implicit methods: those that are the error itself, and those that are filtered."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import jaxdiffeq as jde
from jaxdiffeq.engine.control import Tolerance
from jaxdiffeq.problems.vector_field import MassField, VectorField
from jaxdiffeq.steppers.dirk import DIRK
from jaxdiffeq.tableaux import dirk
from jaxdiffeq.types import State

END = jde.SaveAt(t1=True)
TIGHT = Tolerance(jnp.asarray(1e-14), jnp.asarray(1e-14))
TABLEAUX = [t for t in vars(dirk).values() if isinstance(t, dirk.DIRKTableau)]
OWN = [DIRK(t) for t in TABLEAUX if t.own]
FILTERED = [t.name for t in TABLEAUX if t.filtered]
own = pytest.mark.parametrize("method", OWN, ids=str)


def exact(t):
    return jnp.stack([jnp.sin(t) + 2, jnp.cos(t)])


def field(t, y, args):
    """Nonlinear, of t as well, and with neighbours of the solution that leave it."""
    x, v = y
    s, c = exact(t)
    return jnp.stack([v + 0.7 * (x * v - s * c), 2 - x + 0.5 * (c * c - v * v)])


FIELD = VectorField(field)


def test_which_methods_these_are():
    assert [str(m) for m in OWN] == ["ImplicitEuler()", "ImplicitMidpoint()", "Trapezoid()", "SDIRK22()"]
    assert [
        *("ESDIRK437L2SA", "Cash4", "Hairer4", "Hairer42"),
        *("ESDIRK547L2SA", "ESDIRK547L2SA2", "ESDIRK659L2SA", "KenCarp5"),
    ] == FILTERED


@own
def test_the_estimate_is_the_error_to_leading_order(method):
    """Of a first step, and of one of half the size after it: estimate/error goes to 1 in proportion to dt."""

    @jax.jit
    def apart(dt):
        """|estimate - error| over |error|, of both steps."""
        t = jnp.asarray(0.3)
        start = State(t, exact(t), method.init(FIELD, t, exact(t), None))
        first = method.step(FIELD, start, t + dt, None, TIGHT)
        # the second step starts on the solution too, so that its own error is all there is
        again = first.after._replace(y=exact(t + dt))
        second = method.step(FIELD, again, t + 1.5 * dt, None, TIGHT)
        wrong = [step.after.y - exact(step.after.t) for step in (first, second)]
        return jnp.stack(
            [jnp.linalg.norm(s.error - w) / jnp.linalg.norm(w) for s, w in zip((first, second), wrong, strict=True)]
        )

    coarse, fine = apart(0.01), apart(0.005)
    assert np.all(fine < 0.03)
    assert np.all(fine < 0.6 * coarse)


@own
def test_the_achieved_error_follows_the_tolerance(method):
    """A step of order p has an error of order p + 1, so the solve has an error in proportion to rtol^(p/(p + 1))."""

    @jax.jit
    def run(tol):
        problem = jde.ODEProblem(field, exact(0.0), (0.0, 3.0))
        sol = jde.solve(problem, method, saveat=END, rtol=tol, atol=tol)
        return jnp.linalg.norm(sol.ys[-1] - exact(3.0)), sol.stats.accepted, sol.stats.rejected_error

    tolerances = 10.0 ** -np.arange(3, 7.1 if method.order > 1 else 6.1)
    errors, steps, rejected = (np.array(x) for x in zip(*map(run, tolerances), strict=True))
    share = method.order / (method.order + 1)
    assert abs(np.polyfit(np.log(tolerances), np.log(errors), 1)[0] - share) < 0.1
    assert np.all(errors < 4 * tolerances * steps)  # what every step may err by, for |y| up to 3
    assert np.all(10 * rejected < steps + 20)
    assert abs(np.polyfit(np.log(tolerances), -np.log(steps), 1)[0] - 1 / (method.order + 1)) < 0.1


def test_an_estimate_that_looks_back_begins_anew_at_a_stop():
    """The slope jumps at 1: a divided difference across it would be of the size of the jump over dt."""

    def jumping(t, y, args):
        return jnp.where(t < 1, -y, 50 - y)

    solved = [
        jde.solve(jde.ODEProblem(jumping, jnp.ones(1), (0.0, 2.0)), jde.Trapezoid(), rtol=1e-6, atol=1e-6, stops=stops)
        for stops in ([1.0], [])
    ]
    truth = 50 + (np.exp(-1) - 50) * np.exp(-1)
    assert abs(solved[0].ys[-1, 0] - truth) < 1e-6 * (1 + truth) * solved[0].stats.accepted
    assert solved[0].stats.rejected_error <= 2
    assert solved[0].stats.steps < solved[1].stats.steps


def test_equal_steps_are_those_of_before():
    """The estimate is not asked for, and y₁ does not depend on it."""
    problem = jde.ODEProblem(lambda t, y, a: -2 * y, jnp.ones(1), (0.0, 1.0))
    growth = {"ImplicitEuler": 1 / 1.2, "ImplicitMidpoint": 0.9 / 1.1, "Trapezoid": 0.9 / 1.1}
    for name, factor in growth.items():
        sol = jde.solve(problem, getattr(jde, name)(), saveat=END, controller=jde.FixedSteps(10), rtol=1e-12)
        np.testing.assert_allclose(sol.ys[-1], [factor**10], rtol=1e-12)


def test_trapezoid_on_an_algebraic_equation():
    """y′ = −y + z, 0 = z − sin t: y = (sin t − cos t + 3 e⁻ᵗ)/2. The first divided difference is of derived slopes."""

    def dae(t, y, args):
        return jnp.stack([y[1] - y[0], y[1] - jnp.sin(t)])

    problem = jde.ODEProblem(dae, jnp.array([1.0, 0.0]), (0.0, 5.0), mass_matrix=jnp.array([1.0, 0.0]))
    ends = [jde.solve(problem, jde.Trapezoid(), saveat=END, rtol=r, atol=r).ys[-1] for r in (1e-4, 1e-7)]
    truth = np.array([(np.sin(5) - np.cos(5) + 3 * np.exp(-5)) / 2, np.sin(5)])
    coarse, fine = (np.max(np.abs(end - truth)) for end in ends)
    assert coarse < 1e-2
    assert fine < coarse / 30


# -------------------- the filter --------------------------------------------------------------------------------------

HAIRER4 = dirk.HAIRER4


def estimate(tableau, mass=None, dt=0.1):
    """Of one step of a linear system with a fast and a slow component; also its Jacobian."""
    jacobian = jnp.array([[-1e4, 30.0], [2.0, -1.0]])
    slope = lambda t, y, args: jacobian @ y
    linear = VectorField(slope) if mass is None else MassField(slope, matrix_of=lambda args: mass)
    t, y = jnp.zeros(()), jnp.array([1.0, -2.0])
    method = DIRK(tableau)

    @jax.jit
    def error(y):
        start = State(t, y, method.init(linear, t, y, None))
        return method.step(linear, start, jnp.asarray(dt), None, TIGHT).error

    return np.asarray(error(y)), jacobian


@pytest.mark.parametrize("mass", [None, np.array([2.0, 0.5]), np.array([[2.0, 0.3], [0.1, 0.5]])], ids=np.ndim)
def test_the_filter_is_what_it_says(mass):
    """(M − γ·dt·J)⁻¹·M times the estimate without it."""
    mass = None if mass is None else jnp.asarray(mass)
    raw, jacobian = estimate(replace(HAIRER4, filtered=False), mass)
    full = np.eye(2) if mass is None else np.asarray(mass if mass.ndim == 2 else jnp.diag(mass))
    expected = np.linalg.solve(full - 0.25 * 0.1 * np.asarray(jacobian), full @ raw)
    found, _ = estimate(HAIRER4, mass)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert abs(found[0]) < 0.05 * abs(raw[0])


@own
def test_estimates_are_constant_to_differentiation(method):
    def error(y):
        t = jnp.asarray(0.3)
        step = method.step(FIELD, State(t, y, method.init(FIELD, t, y, None)), t + 0.1, None, TIGHT)
        return step.error

    at = exact(jnp.asarray(0.3))
    value, tangent = jax.jit(lambda at: jax.jvp(error, (at,), (jnp.ones(2),)))(at)
    assert np.all(np.asarray(value) != 0)
    np.testing.assert_array_equal(tangent, [0.0, 0.0])


def test_the_filter_pays_on_robertson():
    """A quarter of the steps at most, and no larger an error: it is the stiff component that the estimate overrates."""

    def robertson(t, y, args):
        slow, fast, back = 0.04 * y[0], 3e7 * y[1] * y[1], 1e4 * y[1] * y[2]
        return jnp.stack([-slow + back, slow - back - fast, fast])

    problem = jde.ODEProblem(robertson, jnp.array([1.0, 0.0, 0.0]), (0.0, 1e5))
    truth = jde.solve(problem, jde.Rodas5P(), saveat=END, rtol=1e-10, atol=1e-15).ys[-1]
    found = []
    for tableau in (HAIRER4, replace(HAIRER4, filtered=False)):
        sol = jde.solve(problem, DIRK(tableau), saveat=END, rtol=1e-6, atol=1e-11)
        found.append((int(sol.stats.steps), float(np.max(np.abs(sol.ys[-1] / truth - 1)))))
        assert found[-1][1] < 1e-5
    assert found[0][0] < found[1][0] / 4


PAIRS = [t for t in TABLEAUX if t.e is not None and t.embedded_order == t.order - 1 and t.order > 2]


def kinds(t, y, args):
    """An oscillator, predator and prey, and equations that Newton's method solves at once, or nearly, or slowly."""
    (a, b, x, w), (u, v, s) = y[:4], y[4:]
    cycle = [2 * b, -2 * a, x * (1.5 - w), w * (x - 3)]
    return jnp.stack([*cycle, jnp.cos(3 * t) - u, jnp.sin(5 * t) + u - 2 * v, jnp.cos(2 * t) * v - s * u])


def kinds_exactly(y0, t1):
    slope = lambda t, y: np.asarray(kinds(t, y, None))
    return solve_ivp(slope, (0.0, t1), y0, "DOP853", rtol=1e-12, atol=1e-13).y[:, -1]


KINDS = np.array([1.0, 0.0, 1.0, 1.0, 1.0, 0.5, 0.2])
REFERENCE = kinds_exactly(KINDS, 6.0)


@pytest.mark.parametrize("tableau", PAIRS, ids=lambda t: t.name)
def test_a_tolerance_is_worth_what_it_says(tableau):
    """And what Newton's method leaves in a stage, by which y₁ is off in some methods by thirty times as much."""
    problem = jde.ODEProblem(kinds, KINDS, (0.0, 6.0))

    def one(tol):
        sol = jde.solve(problem, DIRK(tableau), saveat=END, rtol=tol, atol=tol, throw=False)
        return sol.ys[-1], sol.stats.rejected_error, sol.stats.steps

    tolerances = np.array([1e-4, 1e-7, 1e-9])
    run = jax.jit(lambda tolerances: jax.lax.map(one, tolerances))
    ends, rejected, steps = jax.tree.map(np.asarray, run(tolerances))
    off = np.abs(ends - REFERENCE) / (tolerances[:, None] * (1 + np.abs(REFERENCE)))
    np.testing.assert_array_less(np.sqrt(np.mean(off**2, axis=1)), 30)
    np.testing.assert_array_less(rejected, 0.25 * steps)
