"""Brownian motions of the user's: functions, increments on a grid, refined or not, and a tree over its own span."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiffeq.noise import path_errors
from jaxdiffeq.noise.given import BrownianIncrements, BrownianPath, BrownianTree, data_of
from jaxdiffeq.noise.paths import Tree
from jaxdiffeq.types import Context

KEY = jax.random.key(2)
SPAN = jnp.float64(1.0), jnp.float64(3.0)
WHERE = Context(0, SPAN)
LANES = 10_000


def bound(path, shape=(2,), key=None):
    return path.bound(shape, jnp.float64, SPAN, key)


def test_a_function():
    """W = (a·t², t): what it closes over is known by the path, areas come from the integral."""
    of = lambda a: BrownianPath(lambda t: jnp.stack([a * t**2, t]), lambda t: jnp.stack([a * t**3 / 3, t**2 / 2]))

    def over(a):
        path, known = bound(of(a))
        return path.over(WHERE, jnp.float64(1.2), jnp.float64(1.7), known)[:2]

    w, area = over(2.0)
    np.testing.assert_allclose(w, [2 * (1.7**2 - 1.2**2), 0.5])
    np.testing.assert_allclose(area, [2 * ((1.7**3 - 1.2**3) / 1.5 - (1.7**2 + 1.2**2) / 2), 0], atol=1e-12)
    np.testing.assert_allclose(jax.grad(lambda a: over(a)[0][0])(2.0), 1.7**2 - 1.2**2)
    path, known = bound(of(1.0), key=data_of(KEY))
    np.testing.assert_allclose(path.at(SPAN, None, SPAN[1], known), [8.0, 2.0])
    one, two = (path.over(WHERE, SPAN[0], t, known).key for t in (jnp.float64(2.0), jnp.float64(2.5)))
    assert not np.array_equal(jax.random.key_data(one), jax.random.key_data(two))


def test_what_a_path_does_not_tell():
    path, known = bound(BrownianPath(lambda t: jnp.stack([t, t])))
    found = path.over(WHERE, *SPAN, known)
    for use in (lambda x: 2.0 * x, lambda x: x + 1, lambda x: -x, lambda x: jnp.ones(2) * x, jnp.sum, lambda x: x.size):
        with pytest.raises(ValueError, match="takes the space-time Lévy area"):
            use(found.area)
    with pytest.raises(ValueError, match="draws numbers of its own"):
        jax.random.normal(found.key)
    with pytest.raises(ValueError, match=r"what `function` returns must have the shape .* \(3,\), but has \(2,\)"):
        bound(BrownianPath(lambda t: jnp.stack([t, t])), (3,))
    with pytest.raises(ValueError, match=r"a row of `w` must have the shape .* \(\), but has \(2,\)"):
        bound(BrownianIncrements(jnp.ones((4, 2))), ())
    with pytest.raises(ValueError, match="`area` must have the shape of `w`"):
        BrownianIncrements(jnp.ones(4), jnp.ones(3))
    with pytest.raises(ValueError, match="a row for each"):
        BrownianIncrements(1.0)
    with pytest.raises(ValueError, match=r"with 6 rows says nothing .* where 4 equal steps go"):
        path_errors.grid(6, 4, False)
    with pytest.raises(ValueError, match="where steps of other sizes go"):
        path_errors.grid(6, None, False)
    path_errors.grid(6, 3, False)
    path_errors.grid(6, None, True)


def test_increments_on_a_grid():
    """Steps of one part and of several; in between nothing is known."""
    w, area = jax.random.normal(KEY, (2, 8, 2))
    path, known = bound(BrownianIncrements(w, area))
    over = lambda a, b: path.over(WHERE, *(1.0 + jnp.float64(x) / 4 for x in (a, b)), known)
    np.testing.assert_array_equal(over(3, 4).w, w[3])
    np.testing.assert_array_equal(over(3, 4).area, area[3])
    np.testing.assert_allclose(over(2, 4).w, w[2] + w[3], rtol=1e-12)
    joined = (area[2] + area[3]) / 2 + (w[2] - w[3]) / 4
    np.testing.assert_allclose(over(2, 4).area, joined, rtol=1e-11)
    np.testing.assert_allclose(path.at(SPAN, None, SPAN[1], known), w.sum(0), rtol=1e-12)
    assert jnp.all(jnp.isnan(over(2, 3.5).w))


def test_refinement():
    """Increments of variance 1/2 over four parts, which need not be normal, and steps that end anywhere."""
    ts = 1 + jnp.array([0.0, 0.1875, 0.375, 0.75, 1.0, 1.75, 1.8125])

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, 0, None))
    def looked(w, key, ts):
        path, known = bound(BrownianIncrements(w, key=key))
        moves = jax.vmap(lambda a, b: path.over(WHERE, a, b, known)[:2])(ts[:-1], ts[1:])
        return (
            moves,
            path.at(SPAN, None, ts[-1], known),
            path.over(WHERE, *(jnp.float64(x) for x in (1.5, 2.0)), known).w,
        )

    keys, w = jax.random.split(KEY, LANES), jax.random.normal(KEY, (LANES, 4, 2)) * 0.5**0.5
    (moves, areas), end, row = looked(w, keys, ts)
    np.testing.assert_array_equal(row, w[:, 1])
    np.testing.assert_allclose(moves.sum(1), end, atol=1e-13)
    h = np.diff(ts)[:, None]
    z = np.concatenate([moves[:, :, 0].T / h**0.5, areas[:, :, 0].T * (12 / h) ** 0.5])
    error = (z @ z.T / LANES - np.eye(12)) / np.where(np.eye(12), 2**0.5, 1) * LANES**0.5
    assert np.max(np.abs(error)) < 4, error

    def at(w):
        path, known = bound(BrownianIncrements(w, key=KEY))
        return path.at(SPAN, None, jnp.float64(1 + 0.5 * 1.25), known)

    slope = jax.jit(jax.jacrev(at))(w[0])  # the part of a row that has passed
    np.testing.assert_allclose(slope[0, :, 0], [1, 0.25, 0, 0], atol=1e-6)
    assert not jnp.any(slope[0, :, 1])


def test_a_tree_over_its_own_span():
    """A solve over a part of the span follows the same path as one over all of it."""
    path, known = bound(BrownianTree(KEY, 0.0, 4.0))
    whole = Tree((2,), jnp.float64, "threefry2x32")
    ends = jnp.float64(1.5), jnp.float64(2.25)
    one = path.over(WHERE, *ends, known)
    other = whole.over(Context(0, (jnp.float64(0.0), jnp.float64(4.0))), *ends, jax.random.key_data(KEY))
    np.testing.assert_array_equal(one.w, other.w)
    assert not jnp.any(path.at(SPAN, None, SPAN[0], known))
