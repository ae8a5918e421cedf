"""Exact methods: the law, and a path that depends on the key alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.plain import plain
from jax.sharding import Mesh, PartitionSpec
from scipy import stats

import jaxdiffeq as jde

METHODS = [jde.SSA(), jde.SortingDirect(), jde.NextReaction(), jde.RSSA()]
NAMES = [m.name for m in METHODS]
KEY = jax.random.key(0)
BIRTH_DEATH = jde.MassActionJumps([20.0, 1.0], [[0], [1]], [[1], [-1]])
PROBLEM = jde.JumpProblem(jde.DiscreteProblem(jnp.array([0]), (0.0, 2.0)), BIRTH_DEATH, key=KEY)
TIMES = jnp.array([0.5, 1.0, 2.0])


@functools.cache
def compiled(method, problem=PROBLEM):
    return jax.jit(jax.vmap(lambda key: jde.solve(problem, method, key=key, saveat=TIMES)))


def chi_square(counts, probabilities):
    """The p-value of numbers, in which what is expected less than eight times is one class."""
    expected = probabilities * len(counts)
    observed = np.bincount(counts.astype(int), minlength=len(expected))[: len(expected)]
    often = expected > 8
    rest = len(counts) - observed[often].sum(), len(counts) - expected[often].sum()
    return stats.chisquare([*observed[often], rest[0]], [*expected[often], rest[1]]).pvalue


@pytest.mark.parametrize("method", METHODS, ids=NAMES)
def test_the_law_of_births_and_deaths(method):
    """Poisson, with the mean 20·(1 − e^(−t)), at every time."""
    sol = compiled(method)(jax.random.split(jax.random.key(1), 2000))
    assert (sol.result == jde.Result.success).all()
    for i, t in enumerate(np.asarray(TIMES)):
        law = stats.poisson.pmf(np.arange(80), 20 * (1 - np.exp(-t)))
        assert chi_square(np.asarray(sol.ys[:, i, 0]), law) > 1e-4
    assert np.array_equal(sol.ys[:, -1], sol.y_end)


def ring(species):
    """Molecules that walk around a ring, independent of each other, each with its own rates."""
    rates = np.linspace(0.5, 2, 2 * species)
    ahead = [{i: -1, (i + 1) % species: 1} for i in range(species)]
    back = [{i: -1, (i - 1) % species: 1} for i in range(species)]
    return rates, jde.MassActionJumps(rates, [{i: 1} for i in range(species)] * 2, ahead + back)


@pytest.mark.parametrize("method", METHODS, ids=NAMES)
def test_the_law_of_many_reactions(method):
    """Reactions in tables: where each of 40 molecules that start together is, after a time."""
    n = 20
    rates, jumps = ring(n)
    base = jde.DiscreteProblem(jnp.zeros(n).at[3].set(40.0), (0.0, 1.5))
    problem = jde.JumpProblem(base, jumps, key=KEY)
    run = jax.jit(jax.vmap(lambda key: jde.solve(problem, method, key=key, saveat=jde.SaveAt(t1=True))))
    sol = run(jax.random.split(jax.random.key(2), 500))
    generator = np.zeros((n, n))
    for i in range(n):
        for there, rate in (((i + 1) % n, rates[i]), ((i - 1) % n, rates[n + i])):
            generator[there, i] += rate
            generator[i, i] -= rate
    law = np.asarray(jax.scipy.linalg.expm(jnp.asarray(1.5 * generator)))[:, 3]
    assert (sol.ys.sum(-1) == 40).all() and (sol.ys >= 0).all()
    where = np.repeat(np.tile(np.arange(n), 500), np.asarray(sol.ys[:, 0], int).reshape(-1))
    assert chi_square(where, law) > 1e-4


def test_reactions_of_two_in_tables_are_those_written_out():
    """The propensities, and what fires, are the same numbers."""
    from jaxdiffeq.jumps.channels import Listed, Tabled, channels_of
    from jaxdiffeq.jumps.counters import Draw

    network = [("2 A + B -> C", 0.1), ("A + B <-> 2 C", (0.2, 0.3)), ("3 C -> A", 0.05), ("0 -> B", 2.0)]
    network = jde.ReactionNetwork(network)
    x, t, same = jnp.array([5.0, 2.0, 7.0]), jnp.zeros(()), lambda x: x
    rates = jnp.asarray(network.rates)
    jump = jde.MassActionJumps(rates, network.reactants, network.change)
    listed, tabled = channels_of([jump], same, same, None, x), Tabled(rates, network.reactants, network.change, 3)
    assert isinstance(listed, Listed)
    np.testing.assert_allclose(listed.all(t, x), [0.1 * 10 * 2, 0.2 * 10, 0.3 * 21, 0.05 * 35, 2.0], rtol=1e-14)
    np.testing.assert_allclose(tabled.all(t, x), listed.all(t, x), rtol=1e-14)
    draw, yes = Draw(jnp.zeros(2, jnp.uint32), jnp.zeros((), jnp.uint32)), jnp.ones((), bool)
    for r in range(5):
        number = jnp.asarray(r, jnp.int32)
        np.testing.assert_allclose(tabled.one(number, t, x), listed.all(t, x)[r], rtol=1e-14)
        assert (tabled.fire(number, t, x, draw, yes) == listed.fire(number, t, x, draw, yes)).all()


# ---- the key, and nothing else


@pytest.mark.parametrize("method", METHODS[::2], ids=NAMES[::2])
def test_a_path_depends_on_its_key_alone(method):
    """Under jit, vmap, shard_map and without, and on public JAX alone: bit by bit."""
    keys = jax.random.split(jax.random.key(4), 2)
    lanes = compiled(method)(keys)
    mesh = Mesh(np.array(jax.devices()[:2]), "x")
    spread = jax.shard_map(compiled(method), mesh=mesh, in_specs=PartitionSpec("x"), out_specs=PartitionSpec("x"))
    assert np.array_equal(jax.jit(spread)(keys).ys, lanes.ys)
    with plain():
        assert np.array_equal(jax.vmap(alone(method))(keys).ys, lanes.ys)
    for i, key in enumerate(keys):
        assert np.array_equal(alone(method)(key).ys, lanes.ys[i])


def alone(method):
    return lambda key: jde.solve(PROBLEM, method, key=key, saveat=TIMES)


def test_a_path_does_not_depend_on_what_is_saved():
    steps = jde.solve(PROBLEM)
    row = np.searchsorted(steps.ts, TIMES, side="right") - 1
    assert np.array_equal(steps.ys[row], jde.solve(PROBLEM, saveat=TIMES).ys)
    assert len(steps.ts) == int(steps.stats.events) + 1
    every = jde.solve(PROBLEM, saveat=jde.SaveAt(steps=5))
    assert np.array_equal(every.ys, steps.ys[5::5])
    dense = jde.solve(PROBLEM, dense=True, saveat=jde.SaveAt(t1=True))
    assert np.array_equal(dense(TIMES), steps.ys[row])
    assert dense(steps.ts[4])[0] == steps.ys[4, 0]
    padded = jax.jit(lambda: jde.solve(PROBLEM, max_steps=100))()
    assert np.array_equal(padded.ys[padded.mask], steps.ys) and (padded.ys[-1] == steps.ys[-1]).all()


def test_a_long_path_is_kept_in_chunks(monkeypatch):
    monkeypatch.setattr("jaxdiffeq.jumps.solve.CHUNK", 10)
    assert np.array_equal(
        jde.solve(PROBLEM).ys, jax.jit(lambda: jde.solve(PROBLEM, max_steps=80).ys)()[: len(jde.solve(PROBLEM).ts)]
    )


# ---- how it ends


def test_extinction_ends_a_path():
    deaths = jde.MassActionJumps([3.0], [[1]], [[-1]])
    problem = jde.JumpProblem(jde.DiscreteProblem(jnp.array([4]), (0.0, 50.0)), deaths, key=KEY)
    sol = jde.solve(problem, saveat=10.0)
    assert int(sol.result) == jde.Result.success
    assert sol.ys[:, 0].tolist() == [4, 0, 0, 0, 0, 0] and int(sol.stats.events) == 4


def test_a_span_may_end_at_zero():
    """Where the next float is one that a processor flushes to zero."""
    early = jde.solve(PROBLEM, tspan=(-2.0, 0.0), saveat=[-2.0, 0.0])
    assert early.ys[0] == 0 and early.ys[1] == jde.solve(PROBLEM, saveat=[2.0]).ys[0]


def test_a_span_that_turns_out_to_go_backwards():
    result = jax.jit(lambda t1: jde.solve(PROBLEM, tspan=(0.0, t1), saveat=jde.SaveAt(t1=True), throw=False).result)
    assert result(1.0) == jde.Result.success and result(-1.0) == jde.Result.nonfinite


def test_failures_are_values():
    sol = jde.solve(PROBLEM, saveat=TIMES, max_steps=15, throw=False)
    assert sol.status == "max_steps_reached" and int(sol.stats.steps) == 15
    assert not np.isnan(sol.ys[0]).any() and np.isnan(sol.ys[-1]).all() and sol.t_end < 2.0
    with pytest.raises(jde.SolveError, match="max_steps"):
        jde.solve(PROBLEM, saveat=TIMES, max_steps=15)
    wrong = PROBLEM.replace(jumps=jde.ConstantRateJump(lambda t, x, args: 9.5 - 10 * x[0], [1.0]))
    assert jde.solve(wrong, saveat=TIMES, throw=False).status == "nonfinite"


# ---- marks, trees, rates that vary


def test_marks_are_drawn_from_a_key():
    """A compound Poisson process: mean and variance of the sum."""

    def affect(t, x, args, key):
        return {"n": x["n"] + 1, "sum": x["sum"] + jax.random.normal(key, dtype=x["sum"].dtype) + args}

    base = jde.DiscreteProblem({"n": 0, "sum": 0.0}, (0.0, 3.0), 0.5)
    problem = jde.JumpProblem(base, jde.ConstantRateJump(lambda t, x, args: 4.0, affect), key=KEY)
    run = jax.jit(jax.vmap(lambda key: jde.solve(problem, key=key, saveat=jde.SaveAt(t1=True)).y_end))
    end = run(jax.random.split(KEY, 2000))
    total, n = np.asarray(end["sum"]), 2000
    assert abs(total.mean() - 12 * 0.5) < 4 * np.sqrt(12 * 1.25 / n)
    assert abs(total.var() / (12 * 1.25) - 1) < 4 * np.sqrt(2 / n + 3 / 12 / n)
    assert abs(np.asarray(end["n"]).mean() - 12) < 4 * np.sqrt(12 / n)


@pytest.mark.parametrize("bound", [None, 4.0])
def test_a_rate_that_changes_with_time(bound):
    """The number of events is Poisson(∫rate dt), by the hazard and by thinning."""
    jump = jde.VariableRateJump(lambda t, x, args: 2 + 2 * jnp.sin(t), [1.0], bound)
    problem = jde.JumpProblem(jde.DiscreteProblem(jnp.array([0.0]), (0.0, 5.0)), jump, key=KEY)
    run = jax.jit(jax.vmap(lambda key: jde.solve(problem, jde.Tsit5(), key=key, saveat=jde.SaveAt(t1=True))))
    sol = run(jax.random.split(KEY, 1000))
    law = stats.poisson.pmf(np.arange(40), 10 + 2 * (1 - np.cos(5.0)))
    assert chi_square(np.asarray(sol.y_end[:, 0]), law) > 1e-4
    assert np.array_equal(sol.stats.events, sol.y_end[:, 0])


# ---- what is refused


def test_what_is_saved_may_be_a_function():
    saveat = jde.SaveAt(ts=TIMES, fn=lambda t, x, args: {"t": t, "twice": 2 * x[0]})
    assert np.array_equal(jde.solve(PROBLEM, saveat=saveat).ys["twice"], 2 * jde.solve(PROBLEM, saveat=TIMES).ys[:, 0])


def test_the_rate_at_fault_is_named():
    jumps = jde.MassActionJumps([1.0, -2.0], [[0], [1]], [[1], [-1]])
    with pytest.raises(jde.SolveError, match="The rate of reaction 1 is -20 there"):
        jde.solve(PROBLEM, jumps=jumps, x0=jnp.array([10.0]))


def test_a_path_has_no_derivative():
    def end(rates):
        jumps = jde.MassActionJumps(rates, BIRTH_DEATH.reactants, BIRTH_DEATH.change)
        return jde.solve(PROBLEM, jumps=jumps, saveat=TIMES).ys[-1, 0]

    with pytest.raises(NotImplementedError, match="expectation"):
        jax.grad(end)(jnp.array([20.0, 1.0]))
    with pytest.raises(NotImplementedError, match="expectation"):
        jax.jvp(end, (jnp.array([20.0, 1.0]),), (jnp.ones(2),))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (lambda: jde.solve(PROBLEM, jde.Tsit5()), "is solved by SSA"),
        (lambda: jde.solve(PROBLEM, events=[jde.Event(lambda t, y, args: t)]), "`events` does not serve"),
        (lambda: jde.solve(PROBLEM, gradient=jde.ForwardAD()), "does not serve a path"),
        (lambda: jde.solve(PROBLEM, tspan=(1.0, 0.0)), "go forwards"),
        (lambda: jde.solve(jde.DiscreteProblem(1.0, (0.0, 1.0))), "takes a problem"),
        (lambda: jde.JumpProblem(PROBLEM.base, [lambda t, x: x], key=KEY), "must be jumps"),
        (lambda: jde.JumpProblem(PROBLEM, BIRTH_DEATH, key=KEY), "`base` must be one of"),
        (lambda: jde.MassActionJumps([1.0], [[1], [1]], [[1], [1]]), "one number for each of 2"),
        (lambda: jde.MassActionJumps([1.0], [[0.5]], [[1]]), "whole numbers"),
        (lambda: jde.ConstantRateJump(lambda x: x, [1.0]), "must take 3 arguments"),
        (lambda: jde.solve(PROBLEM, x0=jnp.array(1.0)), "is a vector"),
        (lambda: jde.solve(PROBLEM, "gillespie"), r"Take SSA\(\)"),
        (lambda: jde.solve(PROBLEM, jde.NextReaction), r"Call it: `NextReaction\(\)`"),
        (lambda: jde.solve(PROBLEM, key=3), "must be a key of jax.random"),
        (lambda: jde.solve(PROBLEM, key=jax.random.split(jax.random.PRNGKey(0), 3)), r"keys with shape \(3,\)"),
        (lambda: jde.solve(PROBLEM, trajectories=3), "vmap"),
        (lambda: jde.solve(PROBLEM, jumps=jde.ConstantRateJump(lambda t, x, args: t, [1.0])), "Give VariableRateJump"),
    ],
)
def test_what_is_refused(asked, message):
    with pytest.raises((TypeError, ValueError, NotImplementedError), match=message):
        asked()
