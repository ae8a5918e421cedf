"""Continuous adjoints across events: against the gradient of the computed solution, and closed forms.

Solves are at tolerances of 1e-10 both ways, and the adjoint's error is some ten to a hundred times that.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiffeq as jde

TIGHT: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-10}


def gradient(loss, x, strategy):
    return np.asarray(jax.jit(jax.grad(lambda x: loss(x, strategy)))(x))


def assert_agree(loss, x, strategy, limit):
    found, wanted = gradient(loss, x, strategy), gradient(loss, x, jde.ReverseAD())
    assert np.max(np.abs(found - wanted)) <= limit * np.max(np.abs(wanted))
    assert np.all(wanted != 0)


def eventful(x, strategy, way=1.0, steps=False):
    """A root, doses, one of them at a stop at which f jumps, another stop, a flag that ends steps, and a clock.

    Times to save at, twice, at the dose and the stop, rows of the log, and all times are differentiated.
    """
    a, t0, t1, stop, other, when, saved, c = x

    def f(t, y, args):
        jump = jnp.where(way * t < way * args["stop"], 0.0, 0.7 * y[0])
        return way * jnp.stack([y[1], jump - args["a"] * y[0] + 0.1 * t])

    events = [
        jde.Event(
            lambda t, y, args: y[0] - args["c"] * jnp.cos(t), lambda t, y, args: y * jnp.array([1, -0.8]) + 0.1 * t
        ),
        jde.PresetTimes(jnp.stack([when, stop]), lambda t, y, args: y + 0.2 * args["a"] * t),
        jde.DiscreteEvent(lambda t, y, args: y[1] > 1.2, lambda t, y, args: y * jnp.array([1.0, 0.5])),
        jde.Periodic(0.9 * a, lambda t, y, args: y * 1.1),
    ]
    problem = jde.ODEProblem(f, jnp.stack([a * 0.9, 0.0]), (t0, t1), {"a": a, "c": c, "stop": stop})
    saveat = jde.SaveAt(steps=True) if steps else jde.SaveAt(ts=jnp.stack([saved, saved, stop, stop, t1]), t1=True)
    options: dict[str, Any] = {
        "saveat": saveat,
        "stops": jnp.stack([stop, other]),
        "gradient": strategy,
        "max_steps": 2048,
    }
    solution = jde.solve(problem, jde.Tsit5(), events=events, **options, **TIGHT)
    assert solution.events is not None
    log, n, k = solution.events, jnp.arange(len(solution.ts)), jnp.arange(100)
    rows = jnp.where(solution.mask, jnp.cos(n) * jnp.sum(solution.ys**2, 1) + jnp.sin(n) * solution.ts, 0)
    of_log = jnp.sin(k) * log.ts + jnp.cos(k) * jnp.sum(log.before, 1) + jnp.sum(log.after**2, 1)
    return jnp.sum(rows) + jnp.sum(jnp.where(log.mask, of_log, 0))


EVENTFUL = jnp.array([1.3, 0.1, 4.0, 1.5, 2.4, 0.7, 2.0, 0.5])


def test_everything_at_once():
    """But the stop at which nothing happens, whose derivative is zero."""
    kept = jnp.array([0, 1, 2, 3, 5, 6, 7])
    loss = lambda x, strategy: eventful(EVENTFUL.at[kept].set(x), strategy)
    assert_agree(loss, EVENTFUL[kept], jde.GaussAdjoint(), 1e-8)


def test_backwards_in_time():
    signs = jnp.array([1.0, -1, -1, -1, -1, -1, -1, 1])
    kept = jnp.array([0, 1, 2, 3, 5, 6, 7])
    loss = lambda x, strategy: eventful((EVENTFUL * signs).at[kept].set(x), strategy, -1.0)
    assert_agree(loss, (EVENTFUL * signs)[kept], jde.QuadratureAdjoint(), 1e-8)


def test_steps_after_an_event_move_with_it():
    kept = jnp.array([0, 1, 2, 3, 4, 5, 7])
    loss = lambda x, strategy: eventful(EVENTFUL.at[kept].set(x), strategy, steps=True)
    assert_agree(loss, EVENTFUL[kept], jde.InterpolatingAdjoint(), 1e-8)


def test_parameters_that_events_change():
    """y′ = −k·y; where y = c, k is multiplied by m. At the end k is saved as well."""
    change = jde.Event(lambda t, y, args: y[0] - args["c"], affect_args=lambda t, y, a: {**a, "k": a["k"] * a["m"]})
    ts, weights = jnp.linspace(0.0, 3.0, 8), jnp.linspace(-1.0, 2.0, 9)

    def loss(x, strategy):
        problem = jde.ODEProblem(
            lambda t, y, args: -args["k"] * y, jnp.ones(1), (0.0, 3.0), dict(zip("kmc", x, strict=True))
        )
        saveat = jde.SaveAt(ts=ts, t1=True, fn=lambda t, y, args: y[0] * args["k"])
        return jnp.sum(
            weights * jde.solve(problem, jde.Tsit5(), events=change, saveat=saveat, gradient=strategy, **TIGHT).ys
        )

    def true(x):
        k, m, c = x
        at, t = -jnp.log(c) / k, jnp.append(ts, 3.0)
        return jnp.sum(weights * jnp.where(t < at, k * jnp.exp(-k * t), k * m * c * jnp.exp(-k * m * (t - at))))

    x = jnp.array([0.7, 2.5, 0.5])
    np.testing.assert_allclose(gradient(loss, x, jde.GaussAdjoint()), jax.grad(true)(x), rtol=1e-8)


def test_where_an_event_ends_the_solve():
    """u = t² crosses p at √p, between two stops."""
    at = jde.Event(lambda t, y, args: y[0] - args, terminate=True)

    def loss(p, strategy):
        problem = jde.ODEProblem(lambda t, y, args: 2 * t * jnp.ones(1), jnp.zeros(1), (0.0, 1.0), p)
        options: dict[str, Any] = {"events": at, "saveat": jde.SaveAt(t1=True), "gradient": strategy}
        solution = jde.solve(problem, jde.Tsit5(), stops=[0.5, 0.95], **options)
        assert solution.events is not None
        return solution.events.ts[0] + 3 * solution.ts[0] + solution.ys[0, 0] + solution.events.before[0, 0] ** 2

    np.testing.assert_allclose(gradient(loss, 0.7, jde.GaussAdjoint()), 2 / 0.7**0.5 + 1 + 2 * 0.7, rtol=1e-12)


def test_over_many_segments_from_few_checkpoints():
    def solve(x, strategy):
        flip = jde.Event(lambda t, y, args: y[0], lambda t, y, args: y * args[1] + jnp.array([0.0, 0.01]) * t)
        problem = jde.ODEProblem(
            lambda t, y, args: jnp.stack([y[1], -args[0] * y[0]]), jnp.stack([x[2], 0.0]), (0.0, 30.0), x
        )
        options: dict[str, Any] = {"saveat": jde.SaveAt(t1=True), "gradient": strategy, "max_steps": 4096}
        return jde.solve(problem, jde.Tsit5(), events=flip, **options, **TIGHT)

    x = jnp.array([1.3, 1.01, 0.8])
    solution = solve(x, jde.ReverseAD())
    assert solution.stats.accepted > 20 * 32
    assert solution.events is not None
    assert solution.events.count > 10
    assert_agree(lambda x, s: jnp.sum(solve(x, s).ys ** 2), x, jde.InterpolatingAdjoint(checkpoints=2), 1e-8)


def hybrid(x, strategy, residual):
    """y′ = 0.2·z − k·y, 0 = z − a·y² − t/10: an event whose condition and affect have z in them, and a dose."""
    root = jde.Event(
        lambda t, y, args: y["y"] - args[2] - 0.05 * y["z"],
        lambda t, y, args: {"y": y["y"] + args[3] * y["z"] + t, "z": y["z"]},
    )
    dose = jde.PresetTimes(x[2:3] * 1.9, lambda t, y, args: {"y": y["y"] * 1.5, "z": y["z"]})
    f = lambda t, y, args: {"y": 0.2 * y["z"] - args[0] * y["y"], "z": y["z"] - args[1] * y["y"] ** 2 - 0.1 * t}
    start = {"y": x[4], "z": jnp.array(0.0)}
    options: dict[str, Any] = {
        "saveat": jnp.array([0.3, 1.0, 2.0]),
        "gradient": strategy,
        "max_steps": 2048,
        "events": [root, dose],
    }
    if residual:
        zero = lambda t, y, dy, args: {"y": dy["y"] - f(t, y, args)["y"], "z": f(t, y, args)["z"]}
        solution = jde.solve(jde.DAEProblem(zero, start, None, (0.0, 2.0), x), jde.BDF(), **options, **TIGHT)
    else:
        mass = {"y": jnp.ones(()), "z": jnp.zeros(())}
        problem = jde.ODEProblem(f, start, (0.0, 2.0), x, mass_matrix=mass)
        solution = jde.solve(problem, jde.Rodas5P(), **options, **TIGHT)
    assert solution.events is not None
    log = solution.events
    of_log = jnp.where(log.mask, log.ts + log.before["z"] + log.after["z"] * log.after["y"], 0)
    return jnp.sum(jnp.array([1.0, -0.7, 2.0]) * (solution.ys["y"] ** 2 + solution.ys["z"])) + jnp.sum(of_log)


@pytest.mark.parametrize("residual", [False, True])
def test_algebraic_components(residual):
    """Consistent again after an event. What both methods compute of the solution differs by ten times the tolerance."""
    loss = lambda x, strategy: hybrid(x, strategy, residual)
    assert_agree(loss, jnp.array([0.8, 0.5, 0.6, 0.7, 1.0]), jde.GaussAdjoint(), 1e-7)


def test_complex_states():
    def loss(x, strategy):
        affect = lambda t, y, args: y * 1j * args[0] + jnp.conj(y) * t.astype(complex)
        event = jde.Event(lambda t, y, args: jnp.real(y[0] - 0.4 * args[1]), affect)
        f = lambda t, y, args: (1j * args[0] - 0.5) * y + 0.1 * jnp.conj(y)
        z = x.astype(complex)
        problem = jde.ODEProblem(f, z[2:] * (1 + 0.5j), (0.0, 2.0), z * (1 + 0.2j))
        options: dict[str, Any] = {"saveat": jnp.array([1.0, 2.0]), "gradient": strategy}
        solution = jde.solve(problem, jde.Tsit5(), events=event, **options, **TIGHT)
        assert solution.events is not None
        log = solution.events
        of_log = jnp.where(log.mask, log.ts + jnp.real(log.before[:, 0] * (1 - 2j)), 0)
        return jnp.sum(jnp.real(solution.ys**2 * (0.3 + 1j))) + jnp.sum(of_log)

    assert_agree(loss, jnp.array([1.2, 0.7, 1.0]), jde.GaussAdjoint(), 1e-8)


def test_what_is_refused():
    problem = jde.ODEProblem(lambda t, y, args: -y, jnp.ones(1), (0.0, 1.0))
    plain, asking = jde.Event(lambda t, y, args: y[0]), jde.Event(lambda t, y, args, info: info.dy[0])
    with pytest.raises(NotImplementedError, match=r"BacksolveAdjoint does not serve events: .* GaussAdjoint\(\)"):
        jde.solve(problem, jde.Tsit5(), events=plain, gradient=jde.BacksolveAdjoint())
    with pytest.raises(NotImplementedError, match=r"GaussAdjoint does not serve events that ask for `info`"):
        jde.solve(problem, jde.Tsit5(), events=asking, gradient=jde.GaussAdjoint())
