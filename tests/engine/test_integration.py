"""The loop with stubs in the places of stepper and controller: exact counts and result codes."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiffeq import FixedSteps, IController, PIDController, Result
from jaxdiffeq.engine.control import Tolerance
from jaxdiffeq.engine.integration import Integration
from jaxdiffeq.engine.outcome import STAGNATION
from jaxdiffeq.problems.vector_field import VectorField
from jaxdiffeq.types import Inputs, Settings, State, Step, Verdict

ZERO = jnp.zeros(())


@dataclass(frozen=True)
class Stub:
    """y ← y + dt, with whatever error, success or value `how(t, dt, y1)` says: error, ok, y1."""

    how: Any
    order = error_order = 2
    degree = 1
    evaluations = (1, 1, 0)
    work = ()

    def init(self, f, t, y, args):
        return ()

    def step(self, f, start, t1, args, tolerance):
        dt = t1 - start.t
        error, ok, y1 = self.how(start.t, jnp.abs(dt), start.y + dt)
        return Step(State(t1, y1, ()), jnp.broadcast_to(error, start.y.shape), None, ok)


@dataclass(frozen=True)
class Refuse:
    """A controller that rejects the first `times` attempts at every step, halving the size, and then accepts."""

    times: int
    norm = None

    def init(self, dtype):
        return jnp.zeros((), jnp.int32)

    def judge(self, before, step, dt, memory, tolerance, order):
        accept = memory >= self.times
        cause = jnp.array(Result.step_size_too_small)
        return Verdict(accept, jnp.where(accept, dt, dt / 2), jnp.where(accept, 0, memory + 1), cause, jnp.array(False))


jax.tree_util.register_static(Refuse)
ALWAYS = Stub(lambda t, dt, y1: (0.0, True, y1))


def run(stub, controller, span=(0.0, 1.0), *, first=0.125, max_steps=1000, stops=(), size=2):
    """The last carry. The controller and the numbers are dynamic, the stub is not."""
    integration = Integration(VectorField(lambda t, y, args: jnp.ones_like(y)), stub)
    t0, t1 = (jnp.asarray(t, float) for t in span)
    inputs = Inputs(jnp.zeros(size) + t0, (), t0, t1, jnp.zeros(0), jnp.asarray(stops, float))
    settings = Settings(
        controller, Tolerance(jnp.asarray(1e-3), jnp.asarray(1e-3)), jnp.asarray(first), jnp.asarray(max_steps)
    )
    return jax.jit(integration.run)(inputs, settings)


def counted(carry):
    c = carry.control.counts
    return int(c.steps), int(c.rejected_error), int(c.rejected_solver), Result(int(carry.control.result)).name


def test_a_stepper_that_always_succeeds():
    carry = run(ALWAYS, FixedSteps(dt=0.125))
    assert counted(carry) == (8, 0, 0, "success")
    assert carry.state.t == 1.0
    np.testing.assert_array_equal(carry.state.y, [1.0, 1.0])


def test_growth_is_limited_by_the_largest_factor():
    carry = run(ALWAYS, IController(factor_max=2.0), (0.0, 100.0), first=1.0)
    assert counted(carry)[0] == 7  # 1 + 2 + 4 + 8 + 16 + 32 = 63, and 37 more
    assert counted(carry)[3] == "success"


def test_backwards():
    carry = run(ALWAYS, FixedSteps(dt=0.25), (1.0, -1.0), first=0.25)
    assert counted(carry) == (8, 0, 0, "success")
    np.testing.assert_array_equal(carry.state.y, [-1.0, -1.0])


def test_nothing_to_do():
    carry = run(ALWAYS, PIDController(), (0.5, 0.5))
    assert counted(carry) == (0, 0, 0, "success")
    np.testing.assert_array_equal(carry.state.y, [0.5, 0.5])


def test_a_last_step_is_stretched_rather_than_followed_by_a_sliver():
    assert counted(run(ALWAYS, FixedSteps(dt=0.125), (0.0, 1.001)))[0] == 8  # 0.126 is within 1 % of 0.125
    assert counted(run(ALWAYS, FixedSteps(dt=0.125), (0.0, 1.002)))[0] == 9


@pytest.mark.parametrize("times", [1, 3])
def test_a_controller_that_rejects(times):
    carry = run(ALWAYS, Refuse(times), first=0.5, max_steps=12)
    # the size goes down by 2^times at every step: 1/4, 1/8, ... or 1/16, 1/128, ...
    taken = 12 // (times + 1)
    assert counted(carry) == (taken, 12 - taken, 0, "max_steps_reached")
    reached = sum(0.5 * 2.0 ** (-times * k) for k in range(1, taken + 1))
    assert carry.state.t == reached
    np.testing.assert_array_equal(carry.state.y, [reached, reached])


def test_a_controller_that_always_rejects_stagnates():
    carry = run(ALWAYS, Refuse(10**6))
    assert counted(carry) == (0, STAGNATION, 0, "step_size_too_small")
    assert carry.state.t == 0


def test_an_error_that_no_step_meets():
    huge = Stub(lambda t, dt, y1: (1.0, True, y1))
    steps, errors, solver, result = counted(run(huge, PIDController(factor_min=0.5)))
    assert (steps, solver, result) == (0, 0, "step_size_too_small")
    assert errors == STAGNATION
    # at t = 1 the size falls below the spacing of floats before that
    steps, errors, solver, result = counted(run(huge, PIDController(), (1.0, 2.0)))
    assert (steps, solver, result) == (0, 0, "step_size_too_small")
    assert errors == np.ceil(np.log(0.125 / 2.0**-53) / np.log(5))


def only(where, how):
    """As `how` says where `where(t, dt)`, and a success elsewhere."""

    def mixed(t, dt, y1):
        return jax.tree.map(lambda a, b: jnp.where(where(t, dt), a, b), how(t, dt, y1), (0.0, True, y1))

    return mixed


@pytest.mark.parametrize(
    ("how", "result"),
    [
        (lambda t, dt, y1: (0.0, False, y1), "nonlinear_solve_failed"),
        (lambda t, dt, y1: (0.0, True, y1 * jnp.nan), "nonfinite"),
        (lambda t, dt, y1: (0.0, True, y1 + jnp.inf), "nonfinite"),
        (lambda t, dt, y1: (jnp.nan, True, y1), "nonfinite"),
        (lambda t, dt, y1: (jnp.inf, True, y1), "nonfinite"),
        (lambda t, dt, y1: (jnp.nan, False, y1 * jnp.nan), "nonfinite"),
    ],
)
def test_inner_failure_is_rejection(how, result):
    """Law 2: whatever the error estimate says, such a step is refused, retried smaller and never kept."""
    carry = run(Stub(how), PIDController())
    assert counted(carry) == (0, 0, STAGNATION, result)
    np.testing.assert_array_equal(carry.state.y, [0, 0])
    # where smaller steps succeed, the solve does: 0.125 is refused, a fifth of it is not
    carry = run(Stub(only(lambda t, dt: dt > 0.1, how)), PIDController(max_step=0.09))
    _, errors, solver, code = counted(carry)
    assert (errors, solver, code) == (0, 1, "success")
    np.testing.assert_allclose(carry.state.y, 1.0, rtol=1e-15)


@pytest.mark.parametrize("how", [lambda t, dt, y1: (0.0, True, y1 * jnp.nan), lambda t, dt, y1: (0.0, False, y1)])
def test_fixed_steps_end_at_a_failure(how):
    carry = run(Stub(only(lambda t, dt: t >= 0.5, how)), FixedSteps(dt=0.125))
    assert counted(carry)[:3] == (4, 0, 1)
    assert counted(carry)[3] in ("nonfinite", "nonlinear_solve_failed")
    assert carry.state.t == 0.5
    np.testing.assert_array_equal(carry.state.y, [0.5, 0.5])


def test_nan_at_random_steps_never_reaches_the_state():
    def how(t, dt, y1):
        bad = jnp.sin(1e6 * (t + dt)) > 0.5
        return jnp.where(bad, jnp.nan, 0.0), True, jnp.where(bad, jnp.nan, y1)

    carry = run(Stub(how), PIDController(max_step=0.01))
    _, errors, solver, result = counted(carry)
    assert result == "success"
    assert errors == 0
    assert solver > 10
    np.testing.assert_allclose(carry.state.y, 1.0, rtol=1e-13)


def test_the_bound_on_attempts_counts_the_rejected_ones():
    assert counted(run(ALWAYS, FixedSteps(dt=0.125), max_steps=8)) == (8, 0, 0, "success")
    carry = run(ALWAYS, FixedSteps(dt=0.125), max_steps=7)
    assert counted(carry) == (7, 0, 0, "max_steps_reached")
    assert carry.state.t == 0.875
    assert counted(run(ALWAYS, Refuse(1), max_steps=5, first=0.5)) == (2, 3, 0, "max_steps_reached")


def test_smallest_and_largest_steps():
    huge = Stub(lambda t, dt, y1: (1.0, True, y1))
    carry = run(huge, PIDController(min_step=0.01))
    assert counted(carry) == (0, 3, 0, "step_size_too_small")  # 0.125, 0.025, 0.01
    carry = run(ALWAYS, PIDController(max_step=0.125))
    assert counted(carry) == (8, 0, 0, "success")


def test_stops_are_landed_on_and_the_size_survives_them():
    carry = run(ALWAYS, FixedSteps(dt=0.25), first=0.25, stops=[0.3, 0.31])
    assert counted(carry) == (6, 0, 0, "success")  # 0.25 0.3 0.31 0.56 0.81 1
    assert carry.control.dt == 0.25
    carry = run(ALWAYS, IController(factor_max=1.0, safety=1.0), first=0.25, stops=[0.3, 0.31])
    assert counted(carry) == (6, 0, 0, "success")


def test_a_pause_changes_nothing():
    """Steps in pieces equal steps in one go, to the bit."""
    stub = Stub(lambda t, dt, y1: (dt**2 * jnp.cos(3 * t), True, y1))
    integration = Integration(VectorField(lambda t, y, args: jnp.ones_like(y)), stub)
    inputs = Inputs(jnp.zeros(2), (), ZERO, jnp.array(3.0), jnp.zeros(0), jnp.array([1.1]))
    settings = Settings(
        PIDController(), Tolerance(jnp.asarray(1e-4), jnp.asarray(1e-4)), jnp.asarray(0.1), jnp.asarray(500)
    )
    whole = jax.jit(integration.run)(inputs, settings)
    piece = jax.jit(lambda c: integration.run(inputs, settings, c, pause=7))
    carry, pieces = integration.start(inputs, settings), 0
    while carry.control.result == Result.running:
        carry, pieces = piece(carry), pieces + 1
    assert pieces == -(-int(whole.control.counts.steps) // 7)
    assert pieces > 3
    jax.tree.map(np.testing.assert_array_equal, carry, whole)
