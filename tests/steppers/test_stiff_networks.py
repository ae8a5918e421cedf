"""Solves of which nobody said that they are stiff: the hand-over comes in time. A thousand are in `benchmarks`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiffeq as jde

END = jde.SaveAt(t1=True)
ROBERTSON = np.array([0.04, 3e7, 1e4]) * np.exp(np.random.default_rng(0).uniform(-1, 1, (100, 3)))
SPECIES, REACTIONS = 6, 10


def robertson(t, y, k):
    first, second = -k[0] * y[0] + k[2] * y[1] * y[2], k[1] * y[1] ** 2
    return jnp.stack([first, -first - second, second])


def networks(count):
    """Of mass action, A + B → C + D and A → B, with rates over nine decades: reactants, changes, rates."""
    rng = np.random.default_rng(1)
    before, after = (rng.integers(1, SPECIES + 1, (count, REACTIONS, 2)) for _ in range(2))
    alone = rng.uniform(size=(count, REACTIONS)) < 0.5
    before[alone, 1] = after[alone, 1] = 0  # no second molecule
    molecules = np.eye(SPECIES + 1)
    made = molecules[after].sum(2) - molecules[before].sum(2)
    return before, np.moveaxis(made, 1, 2)[:, 1:], 10 ** rng.uniform(-2, 7, (count, REACTIONS))


def flow(t, y, network):
    reactants, change, rates = network
    present = jnp.concatenate([jnp.ones(1, y.dtype), y])[reactants]
    return jnp.sum(change * (rates * present[:, 0] * present[:, 1])[None], axis=1)


def solved(f, y0, t1, many, method=None, **options):
    """One after the other: a lane would wait for the slowest."""
    problem = jde.ODEProblem(f, jnp.asarray(y0), (0.0, t1))

    def one(args):
        sol = jde.solve(problem, method, args=args, saveat=END, throw=False, **options)
        return sol.ys[-1], sol.result, sol.stats.steps

    return jax.tree.map(np.asarray, jax.jit(lambda many: jax.lax.map(one, many))(many))


@pytest.mark.parametrize(
    "options",
    [{}, {"rtol": 1e-7}, {"method": jde.Auto(jde.DP5(), jde.Rodas5P())}, {"controller": jde.PIDController()}],
    ids=["default", "1e-7", "DP5", "PID"],
)
def test_robertson_with_any_rates(options):
    ends, results, steps = solved(robertson, [1.0, 0.0, 0.0], 1e5, ROBERTSON, **options)
    assert np.all(results == jde.Result.success)
    assert np.mean(steps) < 200 if "rtol" in options else np.mean(steps) < 80
    np.testing.assert_allclose(ends.sum(1), 1, rtol=1e-6)
    exact, _, _ = solved(robertson, [1.0, 0.0, 0.0], 1e5, ROBERTSON[:5], jde.Rodas5P(), rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(ends[:5], exact, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("rtol", [1e-3, 1e-6])
def test_networks(rtol):
    many, start = networks(60), np.full(SPECIES, 1 / SPECIES)
    exact, known, _ = solved(flow, start, 100.0, many, jde.Rodas5P(), rtol=1e-10, atol=1e-13)
    ends, results, steps = solved(flow, start, 100.0, many, rtol=rtol, atol=1e-3 * rtol)
    assert np.all(known == jde.Result.success)
    assert np.all(results == jde.Result.success)
    assert np.mean(steps) < 200
    off = np.max(np.abs(ends - exact) / (rtol * (1e-3 + np.abs(exact))), axis=1)
    assert np.sum(off > 30) <= 1  # what grows by itself from less than the tolerance no method can foretell
