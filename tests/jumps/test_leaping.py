"""Leaps: their bias against their length, and what they keep."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiffeq as jde
from jaxdiffeq.jumps.counters import Draw, log_factorial, poisson, rolled, threefry

KEY = jax.random.key(0)
NETWORK = jde.ReactionNetwork([("2 A <-> B", (2e-3, 1.0)), ("B -> C", 0.5)])
START = NETWORK.state({"A": 1000})
END = jde.SaveAt(t1=True)
METHODS = [jde.TauLeaping, jde.MidpointTauLeaping, jde.ThetaTrapezoidalTauLeaping, jde.ImplicitTauLeaping]


def paths(method, count=64, problem=None):
    problem = NETWORK.jumps(START, (0.0, 1.0), key=KEY) if problem is None else problem
    run = jax.jit(jax.vmap(lambda key: jde.solve(problem, method, key=key, saveat=END)))
    return run(jax.random.split(jax.random.key(1), count))


@pytest.mark.parametrize("kind", METHODS)
def test_leaps_have_the_right_mean_and_keep_what_is_conserved(kind):
    exact = _exact()
    sol = paths(kind(epsilon=0.01))
    assert (sol.result == jde.Result.success).all()
    assert (NETWORK.totals(sol.y_end) == 1000).all() and (sol.y_end >= 0).all()
    assert (sol.y_end == jnp.round(sol.y_end)).all()
    a, b = np.asarray(sol.y_end), np.asarray(exact.y_end)
    error = np.sqrt(a.var(0) / len(a) + b.var(0) / len(b))
    assert (np.abs(a.mean(0) - b.mean(0)) < 4 * error + 0.01 * b.mean(0)).all()


_FOUND = []


def _exact():
    if not _FOUND:
        _FOUND.append(paths(jde.SSA(), 256))
    return _FOUND[0]


def test_the_bias_of_leaps_shrinks_with_their_length():
    """Pure decay, whose mean is known: explicit leaps of a few per cent, and half as long ones."""
    decay = jde.MassActionJumps([1.0], [[1]], [[-1]])
    problem = jde.JumpProblem(jde.DiscreteProblem(jnp.array([1e6]), (0.0, 1.0)), decay, key=KEY)
    bias = []
    for epsilon in (0.2, 0.1, 0.05):
        end = np.asarray(paths(jde.TauLeaping(epsilon), 32, problem).y_end)
        bias.append(abs(end.mean() / 1e6 - np.exp(-1)))
    noise = 4 * np.sqrt(1e-6 / 32)
    assert bias[0] > 10 * noise and bias[0] / bias[1] > 1.6 and bias[1] / bias[2] > 1.6
    second = np.asarray(paths(jde.ThetaTrapezoidalTauLeaping(0.2), 32, problem).y_end)
    assert abs(second.mean() / 1e6 - np.exp(-1)) < bias[0] / 10


def test_a_number_never_becomes_negative():
    """Two reactions that compete for few molecules, until none is left."""
    network = jde.ReactionNetwork([("A + B -> C", 0.05), ("A -> D", 1.0), ("B + D -> 0", 0.5)])
    problem = network.jumps({"A": 40, "B": 25}, (0.0, 20.0), key=KEY)
    sol = paths(jde.TauLeaping(epsilon=0.9), 64, problem)
    assert (sol.result == jde.Result.success).all() and (sol.y_end >= 0).all() and (sol.y_end[:, 0] == 0).all()


def test_implicit_leaps_are_longer_where_a_network_is_stiff():
    """A pair of fast reactions in equilibrium, of which the explicit method takes every fluctuation."""
    network = jde.ReactionNetwork([("A <-> B", (1e4, 1e4)), ("B -> C", 1.0)])
    problem = network.jumps({"A": 1e5, "B": 1e5}, (0.0, 0.1), key=KEY)
    explicit, implicit = (paths(m, 8, problem) for m in (jde.TauLeaping(), jde.ImplicitTauLeaping()))
    assert implicit.stats.steps.mean() < 0.05 * explicit.stats.steps.mean()
    assert abs(implicit.y_end[:, 2].mean() - 2e5 * (1 - np.exp(-0.05))) < 4 * np.sqrt(1e4 / 8)


def test_leaps_land_on_the_times_saved():
    problem = NETWORK.jumps(START, (0.0, 1.0), key=KEY)
    sol = jde.solve(problem, jde.TauLeaping(), saveat=0.25)
    assert sol.ts.tolist() == [0.0, 0.25, 0.5, 0.75, 1.0] and (sol.ys[0] == START).all()
    assert (sol.ys[-1] == sol.y_end).all()


def test_what_leaps_do_not_serve():
    jump = jde.ConstantRateJump(lambda t, x, args: 1.0, lambda t, x, args: 2 * x)
    problem = jde.JumpProblem(jde.DiscreteProblem(jnp.array([1.0]), (0.0, 1.0)), jump, key=KEY)
    with pytest.raises(TypeError, match="add given numbers"):
        jde.solve(problem, jde.TauLeaping())


def test_counters_are_the_published_generator():
    """Threefry-2x32 with 20 rounds: the known answers of its authors, by both programs."""
    known = [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ]
    for key, counter, bits in known:
        words = jnp.array(key, jnp.uint32)
        for f in (threefry, rolled):
            assert tuple(int(x) for x in f(words, np.uint32(counter[0]), np.uint32(counter[1]))) == bits


@pytest.mark.parametrize("mean", [0.7, 9.9, 12.0, 1e5])
def test_poisson_numbers(mean):
    draw = jax.jit(jax.vmap(lambda n: poisson(Draw(jnp.zeros(2, jnp.uint32), n), jnp.asarray(mean))))
    x = np.asarray(draw(64 * jnp.arange(4000, dtype=jnp.uint32)))
    assert abs(x.mean() - mean) < 4 * np.sqrt(mean / 4000)
    assert abs(x.var() / mean - 1) < 4 * np.sqrt((2 + 1 / mean) / 4000)
    assert abs(((x - x.mean()) ** 3).mean() / mean - 1) < 4 * np.sqrt(15 * mean / 4000) + 0.3


def test_logarithms_of_factorials():
    k = jnp.arange(200.0)
    np.testing.assert_allclose(log_factorial(k), jax.scipy.special.gammaln(k + 1), rtol=1e-10, atol=1e-10)
