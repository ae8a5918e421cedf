"""The pattern read off f is never too small, and exact where f is made of what programs of this kind are made of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

import jaxdiffeq as jde
from jaxdiffeq.algebra.detect import Detected, TooMany, detect, pattern
from jaxdiffeq.algebra.structure import Dense, Layout, Sparse

N = 24
RANDOM = np.random.default_rng(0)
MATRIX = RANDOM.normal(size=(N, N)) * (RANDOM.random((N, N)) < 0.1)
ORDER = RANDOM.permutation(N)
KERNEL = np.array([1.0, 0.0, 2.0])
FILTER = RANDOM.normal(size=(2, 2, 3, 3))
SMALL = RANDOM.normal(size=(4, 4)) * np.tri(4)


@jax.custom_jvp
def straight_through(x):
    return jnp.floor(x)


straight_through.defjvp(lambda x, dx: (straight_through(*x), dx[0]))


def laplacian(u):
    return u[2:] - 2.0 * u[1:-1] + u[:-2]


def brusselator(y):
    u, v = y[: N // 2], y[N // 2 :]
    spread = [jnp.concatenate([w[:1], w, w[-1:]]) for w in (u, v)]
    flux = [laplacian(w) for w in spread]
    return jnp.concatenate([1.0 + u * u * v - 4.0 * u + flux[0], 3.0 * u - u * u * v + flux[1]])


def plane(y):
    u, v = y.reshape(2, 3, 4)
    around = [sum(jnp.roll(w, s, a) for s in (1, -1) for a in (0, 1)) for w in (u, v)]
    return jnp.stack([1.0 + u * u * v + around[0], 3.0 * u - u * u * v + around[1]]).reshape(-1)


def cell(x):
    return jnp.stack([x[0] * x[1], jnp.sin(x[2]), x[0] + x[3], x[1]])


def blocks(f):
    return lambda y: f(y.reshape(-1, 4)).reshape(-1)


EXACT = {
    "diagonal": lambda y: jnp.sin(y) * jnp.exp(-y) + 1.0 / (2.0 + y**2),
    "slices": lambda y: jnp.pad(laplacian(y), 1),
    "roll": lambda y: jnp.roll(y, 1) * y,
    "pad": lambda y: jnp.pad(y, 1, mode="wrap")[2:] - jnp.pad(y, (1, 0), mode="edge")[:-1],
    "differences": lambda y: jnp.concatenate([jnp.diff(y), y[:1] ** 2]),
    "reversed and transposed": lambda y: y.reshape(4, 6)[::-1].T.reshape(-1),
    "strided": lambda y: jnp.concatenate([y[::2], y[1::2] * y[::2]]),
    "brusselator": brusselator,
    "brusselator in a plane": plane,
    "blocks by vmap": blocks(jax.vmap(cell)),
    "blocks by map": blocks(lambda y: lax.map(cell, y)),
    "blocks by einsum": blocks(lambda y: jnp.einsum("bi,ij->bj", y, SMALL)),
    "matrix": lambda y: MATRIX @ y,
    "matrix from the left": lambda y: y @ MATRIX,
    "network": lambda y: jnp.sum(MATRIX * jnp.sin(y[:, None] - y[None]), axis=1),
    "outer product": lambda y: jnp.outer(y[:4], y[:6]).reshape(-1),
    "sum": lambda y: jnp.zeros(N).at[0].set(jnp.sum(y)).at[1].set(jnp.mean(y[:3])),
    "largest": lambda y: jnp.concatenate([y[1:], jnp.linalg.norm(y[:3])[None]]),
    "running sums": blocks(lambda y: jnp.cumsum(y, axis=1)),
    "running sums, associative": blocks(lambda y: lax.associative_scan(jnp.add, y, axis=1)),
    "scan": lambda y: lax.scan(lambda c, x: (0.5 * c + x, c), 0.0, y)[1],
    "scan backwards": lambda y: lax.scan(lambda c, x: (0.5 * c + x, c), y[0], y, reverse=True)[1],
    "loop": lambda y: lax.fori_loop(0, 2, lambda i, x: jnp.roll(x, 1) + x, y),
    "constant condition": lambda y: jnp.where(np.arange(N) < 9, y, y[::-1]),
    "constant indices": lambda y: y[ORDER],
    "set": lambda y: y.at[np.array([1, 1, 5])].set(2.0 * y[np.array([0, 3, 9])]),
    "add": lambda y: y.at[1:4].add(y[5:8] ** 2),
    "multiply": lambda y: y.at[3].multiply(y[7]),
    "update": lambda y: lax.dynamic_update_slice(y, y[:3] ** 2, (5,)),
    "tiles": lambda y: jnp.tile(y[:6], 4) + jnp.repeat(y[:6], 4),
    "convolution": lambda y: jnp.convolve(y, KERNEL, mode="same"),
    "image": lambda y: lax.conv(y.reshape(1, 2, 3, 4), jnp.asarray(FILTER), (1, 1), "SAME").reshape(-1),
    "gradient of an energy": jax.grad(lambda y: jnp.sum(jnp.diff(y) ** 4)),
    "a rule of its own": straight_through,
    "nothing comes through": lambda y: lax.stop_gradient(jnp.sum(y)) * y + jnp.floor(y[::-1]),
    "compiled and saved for later": jax.checkpoint(jax.jit(lambda y: jnp.roll(y, 2) ** 2)),
}
COARSE = {
    "sorted": lambda y: jnp.concatenate([jnp.sort(y[:5]), y[5:]]),
    "fourier": lambda y: jnp.concatenate([jnp.fft.fft(y[:4]).real, y[4:]]),
    "indices that depend": lambda y: jnp.concatenate([y[:4][jnp.argsort(y[:4])], y[4:]]),
    "system": lambda y: jnp.concatenate([jnp.linalg.solve(2.0 * np.eye(3), y[:3]), y[3:]]),
    "branches": lambda y: lax.cond(y[0] > 0, lambda y: jnp.roll(y, 1), lambda y: 2.0 * y, y),
    "while": lambda y: lax.while_loop(lambda x: x[0] < 3.0, lambda x: x.at[0].add(1.0 + x[1] ** 2), y),
}


def matrix_of(sets, n):
    found = np.zeros((n, n), bool)
    found[np.repeat(np.arange(n), np.diff(sets.starts)), sets.members] = True
    return found


def found_for(f, n=N):
    return matrix_of(pattern(lambda y, _: f(y), jnp.ones(n), ()), n)


def true_for(f, n=N):
    """Where the Jacobian differs from zero at any of some random points."""
    jacobian = jax.jit(jax.jacfwd(f))
    points = np.random.default_rng(1).normal(size=(4, n))
    return np.any([np.asarray(jacobian(jnp.asarray(y))) != 0 for y in points], axis=0)


@pytest.mark.parametrize("name", EXACT)
def test_exact(name):
    np.testing.assert_array_equal(found_for(EXACT[name]), true_for(EXACT[name]))


@pytest.mark.parametrize("name", COARSE)
def test_never_too_small(name):
    found, true = found_for(COARSE[name]), true_for(COARSE[name])
    assert np.all(found >= true)
    assert not np.all(found)


def test_a_choice_that_depends_on_the_state_has_both_sides():
    found = found_for(lambda y: jnp.where(y > 0, y, y[::-1]))
    np.testing.assert_array_equal(found, np.eye(N, dtype=bool) | np.eye(N, dtype=bool)[::-1])


def test_what_is_not_known_now_may_be_anything():
    """Time, state and args may take other values in the same program: only what f closes over is constant."""
    matrix = np.eye(N)

    def f(y, rest):
        return rest @ y

    def closed(y, rest):
        return matrix @ y

    assert np.all(matrix_of(pattern(f, jnp.ones(N), jnp.eye(N)), N))
    np.testing.assert_array_equal(matrix_of(pattern(closed, jnp.ones(N), ()), N), matrix != 0)

    def traced(matrix):
        return np.sum(matrix_of(pattern(lambda y, _: matrix @ y, jnp.ones(N), ()), N))

    counts = []
    jax.jit(lambda m: (counts.append(traced(m)), m)[1])(matrix)
    assert counts == [N * N]


STEPS = {
    "sin": jnp.sin,
    "roll": lambda y: jnp.roll(y, 2),
    "pairs": lambda y: y * y[::-1],
    "halves": lambda y: jnp.concatenate([y[6:], y[:6] ** 2]),
    "table": lambda y: y.reshape(3, 4).T.reshape(-1),
    "sums": lambda y: jnp.repeat(jnp.sum(y.reshape(3, 4), axis=1), 4),
    "fixed": lambda y: y.at[3:5].set(1.0),
    "moved": lambda y: y[np.array([0, 0, 3, 1, 9, 2, 4, 4, 5, 11, 10, 8])],
    "added": lambda y: y.at[np.array([1, 1, 7])].add(y[:3]),
    "mixed": lambda y: jnp.where(np.arange(12) % 3 == 0, y, jnp.cos(jnp.roll(y, -1))),
}


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=5))
def test_chains(names):
    def f(y):
        for name in names:
            y = STEPS[name](y)
        return y

    assert np.all(found_for(f, 12) >= true_for(f, 12))


def test_large_systems_are_handed_to_what_fits_them():
    n = 10_000
    y = jnp.ones(n)

    def bound(f, y=y):
        return detect(lambda y, _: f(y), y, ()).bind(y.size)

    band = bound(lambda y: jnp.pad(laplacian(jnp.pad(y, 1)), 0) + y**2)
    assert isinstance(band, Layout)
    assert (band.k, band.order, band.colour.max()) == (1, None, 2)
    groups = bound(lambda y: jax.vmap(lambda x: x * jnp.sum(x))(y.reshape(-1, 4)).reshape(-1))
    assert isinstance(groups, Layout)
    assert (groups.k, groups.order, groups.entries[0], groups.colour.max()) == (4, None, None, 3)
    alone = bound(lambda y: y**3)
    assert isinstance(alone, Layout)
    assert (alone.k, alone.entries[0]) == (1, None)
    assert bound(lambda y: y * jnp.sum(y)) == Dense()
    with pytest.raises(TooMany):
        pattern(lambda y, _: y * jnp.sum(y), y, ())
    assert detect(lambda y, _: jnp.ones(5), jnp.ones(5), ()) == Sparse((), ())
    assert Detected().bind(3) == Dense()


# ---- in solves


def diffuse(t, y, rate):
    return rate * laplacian(jnp.pad(y, 1)) - jnp.cos(t) * y**3


START = np.sin(np.pi * np.arange(1, 41) / 41)


@pytest.mark.parametrize("method", [jde.Rosenbrock23(), jde.BDF()], ids=repr)
def test_a_solve_is_the_one_with_the_band_given(method):
    """The same Jacobian, fewer derivatives for it: equal step for step."""

    def end(structure):
        problem = jde.ODEProblem(diffuse, START, (0.0, 1.0), 300.0, jac_structure=structure)
        sol = jde.solve(problem, method, saveat=jde.SaveAt(t1=True), rtol=1e-6, atol=1e-8)
        return sol.ys[-1], sol.stats.steps

    (found, steps), (wanted, as_many) = end(jde.Detected()), end(jde.Banded(1, 1))
    assert steps == as_many
    np.testing.assert_allclose(found, wanted, rtol=1e-11)


def test_states_of_several_leaves_and_a_constant_matrix():
    """Leaves follow one another, and a constant is known inside the compiled solve too."""
    seen = []
    coupling = np.diag(-np.arange(1.0, 9.0)) + np.diag(0.5 * np.ones(7), 1)

    def f(t, y, args):
        seen.append(y["u"].shape)
        return {"u": jnp.asarray(coupling) @ y["u"], "v": y["u"][:2] - args * y["v"]}

    y0 = {"u": np.ones(8), "v": np.zeros(2)}

    def end(structure):
        problem = jde.ODEProblem(f, y0, (0.0, 1.0), 3.0, jac_structure=structure)
        return jde.solve(problem, jde.Rodas4(), saveat=jde.SaveAt(t1=True), rtol=1e-6, atol=1e-8).ys

    found = end(jde.Detected())
    assert len(seen) == 1
    wanted = end(None)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), found, wanted)


def test_gradients_and_steady_states():
    def loss(structure):
        def of(rate):
            problem = jde.SteadyStateProblem(
                lambda y, r: diffuse(0.0, y, r) + 1.0, START, rate, jac_structure=structure
            )
            return jnp.sum(jde.solve(problem, rtol=1e-9, atol=1e-11).ys ** 2)

        return jax.jit(jax.value_and_grad(of))(30.0)

    np.testing.assert_allclose(loss(jde.Detected()), loss(jde.Dense()), rtol=1e-9)


def test_a_mass_matrix_has_entries_of_its_own():
    """Of a full one nothing is known when the program is made: no structure, then."""
    mass = np.eye(40) + np.diag(0.3 * np.ones(35), 5)

    def end(structure):
        problem = jde.ODEProblem(diffuse, START, (0.0, 0.1), 9.0, mass_matrix=mass, jac_structure=structure)
        return jde.solve(problem, jde.Rodas4(), saveat=jde.SaveAt(t1=True), rtol=1e-6, atol=1e-8).ys[-1]

    np.testing.assert_allclose(end(jde.Detected()), end(None), rtol=1e-12)


def test_the_choice_of_a_method_counts_it_as_known():
    problem = jde.ODEProblem(diffuse, np.ones(1000), (0.0, 1.0), 9.0)
    assert "unknown structure" in jde.recommend(problem).why
    assert "switches" in jde.recommend(problem.replace(jac_structure=jde.Detected())).why


def test_ten_thousand_points():
    """u_t = a·u_xx with u = 0 at the ends: the first mode of the differences decays by itself."""
    n = 10_000
    x = np.arange(1, n + 1) / (n + 1)

    def f(t, y, a):
        return a * (n + 1) ** 2 * laplacian(jnp.pad(y, 1))

    problem = jde.ODEProblem(f, np.sin(np.pi * x), (0.0, 0.1), 0.5, jac_structure=jde.Detected())
    sol = jde.solve(problem, jde.Rosenbrock23(), saveat=jde.SaveAt(t1=True), rtol=1e-5, atol=1e-7)
    rate = 0.5 * (2 * (n + 1) * np.sin(np.pi / 2 / (n + 1))) ** 2
    np.testing.assert_allclose(sol.ys[-1], np.exp(-0.1 * rate) * np.sin(np.pi * x), atol=1e-4)
