"""What a solve did, attempt by attempt."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.core import Tracer

import jaxdiffeq as jde

SEEN = []


def oscillator(t, y, mu):
    if not isinstance(y["x"], Tracer):
        SEEN.append(float(t))
    return {"x": y["v"], "v": mu * (1 - y["x"] ** 2) * y["v"] - y["x"]}


PROBLEM = jde.ODEProblem(oscillator, {"v": jnp.array([0.0]), "x": jnp.array([2.0])}, (0.0, 20.0), 10.0)


@pytest.mark.parametrize("method", [jde.Tsit5(), jde.Kvaerno3(), jde.Rosenbrock23()], ids=str)
def test_the_columns_are_the_solve(method):
    trace = jde.trace(PROBLEM, method)
    solution = jde.solve(PROBLEM, method)
    stats = solution.stats
    assert trace.result == jde.Result.success
    assert len(trace) == stats.steps and np.sum(trace.accepted) == stats.accepted
    assert np.sum(trace.newton_iterations) == stats.newton_iterations
    assert np.sum(trace.factorizations) == stats.factorizations
    np.testing.assert_allclose(trace.t[trace.accepted], solution.ts[:-1], rtol=1e-8)  # another program: other rounding
    np.testing.assert_allclose(trace.t + trace.dt * trace.accepted, [*trace.t[1:], 20.0], rtol=1e-14)
    error = trace.cause == jde.Result.step_size_too_small
    assert stats.rejected_error > 0
    assert np.all(trace.error[~trace.accepted & error] > 1) and np.all(trace.error[trace.accepted] <= 1)


def test_a_failure_is_shown_and_not_raised():
    problem = jde.ODEProblem(lambda t, y, a: y**2, jnp.array([0.1, 1.0]), (0.0, 2.0))
    trace = jde.trace(problem, jde.Tsit5())
    assert trace.result != jde.Result.success
    assert np.all(trace.t <= 1) and trace.components[trace.worst[-1]].endswith("[1]")
    text = repr(trace)
    assert text.splitlines()[0] == f"{len(trace)} attempts, {np.sum(~trace.accepted)} refused: {trace.result.name}"
    assert len(text.splitlines()) == 22
    assert " error " in trace.table(0, len(trace)) or "nonfinite" in text


def test_a_replay_calls_f_with_numbers():
    trace = jde.trace(PROBLEM, jde.Tsit5())
    i = int(np.argmin(trace.accepted))  # the first that was refused
    SEEN.clear()
    attempt = trace.replay(i)
    assert len(SEEN) >= 6 and trace.t[i] < max(SEEN) <= trace.t[i] + trace.dt[i]
    assert attempt.ratio > 1
    np.testing.assert_allclose(attempt.t1 - attempt.t, trace.dt[i])
    np.testing.assert_allclose(attempt.slope["x"], attempt.y["v"])
    scale = 1e-6 + 1e-3 * np.maximum(np.abs(attempt.y["x"]), np.abs(attempt.y1["x"]))
    scale_v = 1e-6 + 1e-3 * np.maximum(np.abs(attempt.y["v"]), np.abs(attempt.y1["v"]))
    ratios = np.concatenate([attempt.error["v"] / scale_v, attempt.error["x"] / scale])
    np.testing.assert_allclose(np.sqrt(np.mean(ratios**2)), attempt.ratio, rtol=1e-8)
    assert trace.worst[i] == np.argmax(np.abs(ratios))
    with pytest.raises(IndexError, match=f"{len(trace)} attempts"):
        trace.replay(len(trace))


def test_what_a_trace_is_not_for():
    with pytest.raises(TypeError, match="inside jit"):
        jax.jit(lambda mu: jde.trace(PROBLEM.replace(args=mu), jde.Tsit5()).t)(10.0)
    with pytest.raises(AttributeError, match=r"no 'spectral_radius'. It has t, dt, error"):
        _ = jde.trace(PROBLEM, jde.Tsit5()).spectral_radius


def test_equal_steps_have_no_error():
    trace = jde.trace(PROBLEM.replace(tspan=(0.0, 1.0)), jde.RK4(), controller=jde.FixedSteps(70))
    assert len(trace) == 70 and np.all(np.isnan(trace.error)) and np.all(trace.accepted)
