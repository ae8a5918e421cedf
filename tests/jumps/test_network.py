"""Networks of reactions: how they are read, and the three equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiffeq as jde

MICHAELIS = jde.ReactionNetwork([("S + E <-> C", (lambda args: args["on"], 0.1)), ("C -> P + E", 0.3)])
ARGS = {"on": jnp.array(0.01)}
X = jnp.array([100.0, 20.0, 5.0, 1.0])


def test_lines_are_read():
    assert MICHAELIS.species == ("S", "E", "C", "P")
    assert MICHAELIS.change.dense(4).tolist() == [[-1, -1, 1, 0], [1, 1, -1, 0], [0, 1, -1, 1]]
    other = jde.ReactionNetwork([("2A+B → 3*B", 1.0), ("∅ ⇌ A", (1, 2))], species=["B", "A"])
    assert other.change.dense(2).tolist() == [[2, -2], [0, 1], [0, -1]]
    assert MICHAELIS.state({"E": 2}).tolist() == [0, 2, 0, 0]


def test_what_is_conserved():
    laws = MICHAELIS.conserved
    assert laws.shape == (2, 4) and not (MICHAELIS.change.dense(4) @ laws.T).any()
    sol = jde.solve(MICHAELIS.jumps(X, (0.0, 5.0), ARGS, key=jax.random.key(0)))
    assert (MICHAELIS.totals(sol.ys) == MICHAELIS.totals(X)[None]).all()


def test_the_rate_equation():
    a = np.array([0.01 * 100 * 20, 0.1 * 5, 0.3 * 5])
    np.testing.assert_allclose(MICHAELIS.drift(0.0, X, ARGS), MICHAELIS.change.dense(4).T @ a, rtol=1e-14)
    sol = jde.solve(MICHAELIS.ode({"S": 100.0, "E": 20.0}, (0.0, 5.0), ARGS), saveat=[5.0])
    total = MICHAELIS.totals(jnp.array([100.0, 20.0, 0.0, 0.0]))
    np.testing.assert_allclose(MICHAELIS.totals(sol.ys[0]), total, rtol=1e-9)


def test_the_langevin_equation():
    """σσᵀ = ∑ aᵣ·νᵣνᵣᵀ, and no slope at zero that is not a number."""
    g = np.asarray(MICHAELIS.diffusion(0.0, X, ARGS))
    nu, a = MICHAELIS.change.dense(4), np.asarray(MICHAELIS.propensities(0.0, X, ARGS))
    np.testing.assert_allclose(g @ g.T, nu.T @ np.diag(a) @ nu, rtol=1e-13, atol=1e-13)
    slope = jax.jacfwd(lambda x: MICHAELIS.diffusion(0.0, x, ARGS))(jnp.zeros(4))
    assert np.isfinite(slope).all()


def test_many_molecules_follow_the_rate_equation():
    """Three ways: the means of the process and of the Langevin equation are near the rate equation."""
    x0, args = {"S": 20000.0, "E": 4000.0}, {"on": jnp.array(5e-5)}
    ode = jde.solve(MICHAELIS.ode(x0, (0.0, 3.0), args), rtol=1e-8, saveat=[3.0]).ys[0]
    problem = MICHAELIS.jumps(x0, (0.0, 3.0), args, key=jax.random.key(0))
    sol = jax.jit(jax.vmap(lambda key: jde.solve(problem, key=key, saveat=jde.SaveAt(t1=True)).y_end))
    keys = jax.random.split(jax.random.key(0), 16)
    mean = sol(keys).mean(0)
    assert (jnp.abs(mean - ode) < 4 * jnp.sqrt(jnp.maximum(ode, 1) / 16) + 3).all()
    langevin = MICHAELIS.sde(x0, (0.0, 3.0), args, key=jax.random.key(0))
    steps = {"controller": jde.FixedSteps(3000), "saveat": jde.SaveAt(t1=True)}
    run = jax.jit(jax.vmap(lambda key: jde.solve(langevin, jde.EulerMaruyama(), key=key, **steps).y_end))
    assert (jnp.abs(run(keys).mean(0) - ode) < 4 * jnp.sqrt(jnp.maximum(ode, 1) / 16) + 3).all()


def test_a_rate_that_is_all_of_it():
    """A function of (t, x, args) is the propensity itself; it may stand beside mass action, and be leapt over."""
    hill = lambda t, x, args: 50 / (1 + x[0] / 10)
    network = jde.ReactionNetwork([("0 -> P", hill), ("P -> 0", 1.0)])
    problem = network.jumps({"P": 5}, (0.0, 8.0), key=jax.random.key(0))
    run = lambda m: jax.jit(jax.vmap(lambda k: jde.solve(problem, m, key=k, saveat=jde.SaveAt(t1=True)).y_end[0]))
    keys = jax.random.split(jax.random.key(2), 400)
    rest = jde.solve(network.ode({"P": 5.0}, (0.0, 8.0)), saveat=[8.0]).ys[0, 0]
    exact, leaps = run(jde.SSA())(keys), run(jde.TauLeaping(0.03))(keys)
    assert abs(exact.mean() - rest) < 1.0
    assert abs(exact.mean() - leaps.mean()) < 4 * np.sqrt((exact.var() + leaps.var()) / 400)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([("A - B", 1.0)], "reads like"),
        ([("A <-> B", 1.0)], "takes two rates"),
        ([("A -> 2.5 B", 1.0)], "is no species"),
        ([("A -> -B", 1.0)], "is no species"),
        ("A -> B", "pairs of a line and a rate"),
        ([(1.0, "A -> B")], "pairs of a line and a rate"),
        ([("A -> B", "k")], r"Write `lambda args: args\['k'\]`"),
        ([("A <-> B", (1.0, None))], "must be a number"),
    ],
)
def test_lines_that_cannot_be_read(lines, message):
    with pytest.raises((TypeError, ValueError), match=message):
        jde.ReactionNetwork(lines)


def test_other_ways_to_write_a_network():
    lines = {"A --> B": 1.0, "B <--> C": (2.0, 3.0)}
    network = jde.ReactionNetwork(lines)
    assert network.reactants == jde.ReactionNetwork([("A -> B", 1.0), ("B ↔ C", (2.0, 3.0))]).reactants
    rates = jde.solve(network.ode([3, 0, 0], (0.0, 1.0)), saveat=[1.0]).ys
    np.testing.assert_allclose(rates, jde.solve(network.ode({"A": 3.0}, (0.0, 1.0)), saveat=[1.0]).ys)
    with pytest.raises(ValueError, match=r"3 numbers, of A, B, C, .* has the shape \(2,\)"):
        network.jumps([3, 0], (0.0, 1.0), key=jax.random.key(0))
