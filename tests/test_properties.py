"""What must hold for any problem: shifts, scalings, reversal, changes of variables, structure, lanes. Compiled once."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import jaxdiffeq as jde

RTOL = ATOL = 1e-7
FRACTIONS = np.linspace(0.0, 1.0, 6)
STARTS = st.tuples(st.floats(0.5, 2.0), st.floats(0.5, 2.0)).map(np.array)


def field(t, y, args):
    """Lotka–Volterra with a season: t in the unit 1/speed, counted from `origin`, state in the basis `a`."""
    speed, origin, a = args
    x, w = a @ y
    season = 1 + 0.3 * jnp.cos(speed * (t - origin))
    return speed * jnp.linalg.inv(a) @ jnp.stack([1.5 * season * x - x * w, x * w - 3 * w])


@jax.jit
def run(y0, t0, t1, speed=1.0, origin=0.0, a=jnp.eye(2)):
    problem = jde.ODEProblem(field, y0, (t0, t1), (jnp.asarray(speed), jnp.asarray(origin), a))
    sol = jde.solve(problem, jde.Tsit5(), saveat=t0 + FRACTIONS * (t1 - t0), rtol=RTOL, atol=ATOL)
    return sol.ys, sol.stats, sol.result


@given(STARTS, st.integers(-50, 50))
def test_scaling_time_by_a_power_of_two_changes_no_bit(y0, k):
    c = 2.0**k
    ours, wanted = run(y0, 0.0, 3.0 * c, 1 / c), run(y0, 0.0, 3.0, 1.0)
    jax.tree.map(np.testing.assert_array_equal, ours, wanted)


@given(STARTS, st.floats(-15, 15))
def test_scaling_time(y0, k):
    c = 10.0**k
    (ys, stats, result), (wanted, counts, _) = run(y0, 0.0, 3.0 * c, 1 / c), run(y0, 0.0, 3.0, 1.0)
    assert result == 0
    assert stats == counts
    np.testing.assert_allclose(ys, wanted, rtol=1e-9)


@given(STARTS, st.floats(-1e3, 1e3))
def test_shifting_time(y0, shift):
    ys, _, result = run(y0, shift, shift + 3.0, 1.0, shift)
    assert result == 0
    np.testing.assert_allclose(ys, run(y0, 0.0, 3.0)[0], rtol=1e-6)


@given(STARTS)
def test_there_and_back(y0):
    there = run(y0, 0.0, 3.0)[0][-1]
    np.testing.assert_allclose(run(there, 3.0, 0.0)[0][-1], y0, rtol=2e-5)


@given(STARTS, st.floats(0.1, 3.0), st.floats(0.5, 2.0))
def test_linear_change_of_variables(y0, angle, stretch):
    a = np.array([[np.cos(angle), -np.sin(angle)], [stretch * np.sin(angle), stretch * np.cos(angle)]])
    ys = run(np.linalg.solve(a, y0), 0.0, 3.0, 1.0, 0.0, a)[0]
    np.testing.assert_allclose(ys @ a.T, run(y0, 0.0, 3.0)[0], rtol=2e-5)


@jax.jit
def run_tree(y0):
    def tree_field(t, y, args):
        slope = field(t, jnp.stack([y["a"][0], y["b"][0][0, 0]]), (1.0, 0.0, jnp.eye(2)))
        return {"a": slope[:1], "b": (slope[1].reshape(1, 1),)}

    problem = jde.ODEProblem(tree_field, y0, (0.0, 3.0))
    return jde.solve(problem, jde.Tsit5(), saveat=FRACTIONS * 3.0, rtol=RTOL, atol=ATOL).ys


@given(STARTS)
def test_a_pytree_is_solved_like_its_vector(y0):
    tree = run_tree({"a": y0[:1], "b": (y0[1].reshape(1, 1),)})
    flat = np.concatenate([tree["a"], tree["b"][0].reshape(-1, 1)], 1)
    np.testing.assert_allclose(flat, run(y0, 0.0, 3.0)[0], rtol=1e-12)


@jax.jit
def lanes(y0s, t1s):
    return jax.vmap(lambda y, t1: run(y, 0.0, t1))(y0s, t1s)


@given(st.tuples(STARTS, STARTS, STARTS), st.tuples(*[st.floats(0.1, 9.0)] * 3))
def test_vmap_is_map(y0s, t1s):
    ys, stats, result = lanes(np.stack(y0s), np.array(t1s))
    for i in range(3):
        one, counts, _ = run(y0s[i], 0.0, t1s[i])
        assert result[i] == 0
        assert jax.tree.map(lambda x, i=i: int(x[i]), stats.accepted) == counts.accepted
        np.testing.assert_allclose(ys[i], one, rtol=1e-10)


@given(STARTS, st.sampled_from([np.nan, np.inf, -1e300]))
def test_a_dead_lane_disturbs_no_other(y0, bad):
    dead = np.array([bad, 1.0])
    alone = lanes(np.stack([y0] * 3), np.full(3, 3.0))
    beside = lanes(np.stack([y0, dead, y0]), np.full(3, 3.0))
    assert beside[2][1] != 0
    assert not np.isfinite(beside[0][1, -1]).any()
    for lane in (0, 2):
        jax.tree.map(lambda a, b, i=lane: np.testing.assert_array_equal(a[i], b[i]), alone, beside)


@given(STARTS)
def test_jit_is_eager(y0):
    problem = jde.ODEProblem(field, y0, (0.0, 3.0), (jnp.ones(()), jnp.zeros(()), jnp.eye(2)))
    eager = jde.solve(problem, jde.Tsit5(), saveat=FRACTIONS * 3.0, rtol=RTOL, atol=ATOL)
    np.testing.assert_allclose(eager.ys, run(y0, 0.0, 3.0)[0], rtol=1e-12)
