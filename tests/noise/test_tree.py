"""Increments of a Brownian path by a key: their joint law, and that they are of one path."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiffeq.noise import tree
from jaxdiffeq.noise.normals import seed_of
from jaxdiffeq.noise.paths import Counted, Tree
from jaxdiffeq.types import Context

LANES = 4000
WORDS = jax.vmap(jax.random.key_data)(jax.random.split(jax.random.key(5), LANES))
BOTH = pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])


def whole(dtype):
    return (44, jnp.int64) if dtype == jnp.float64 else (20, jnp.int32)


@functools.partial(jax.jit, static_argnames=("dtype", "shape"))
@functools.partial(jax.vmap, in_axes=(0, 0, None, None))
def pieces(words, places, dtype, shape=()):
    """Over the parts between the places, and over all of it."""
    of = lambda a, b: tree.increment(seed_of(words, 1), a, b, jax.ShapeDtypeStruct(shape, dtype))
    return [of(a, b) for a, b in itertools.pairwise(places)], of(places[0], places[-1])


def standard(piece, lengths):
    """W and H with variance one. Shapes: lengths [lanes]."""
    return np.asarray(piece.w, float) / lengths**0.5, np.asarray(piece.h, float) * (12 / lengths) ** 0.5


@BOTH
def test_joint_law(dtype):
    """Over three random neighbours in every lane, which lie anywhere from the whole to a millionth of it."""
    depth, kind = whole(dtype)
    rng = np.random.default_rng(0)
    places = np.sort(rng.integers(0, 2**depth, (LANES, 4)) >> rng.integers(0, depth - 6, (LANES, 1)), 1)
    places += np.arange(4)
    parts, _ = pieces(WORDS, jnp.asarray(places, kind), dtype, ())
    lengths = np.diff(places, axis=1) / 2.0**depth
    z = np.stack([x for piece, length in zip(parts, lengths.T, strict=True) for x in standard(piece, length)])
    error = (z @ z.T / LANES - np.eye(6)) / np.sqrt(np.where(np.eye(6), 2, 1) / LANES)
    assert np.max(np.abs(error)) < 4, error
    squares = z**2 - 1  # no dependence of another kind
    assert (
        np.max(np.abs(squares @ squares.T / LANES - 2 * np.eye(6)) * LANES**0.5 / np.where(np.eye(6), 60**0.5, 2)) < 4
    )
    assert np.max(np.abs(z.mean(1))) < 4 / LANES**0.5


@BOTH
def test_neighbours_join(dtype):
    """To rounding relative to what they are, near the ends of nodes as anywhere: nothing cancels on the way."""
    depth, kind = whole(dtype)
    rng = np.random.default_rng(1)
    places = np.sort(rng.integers(0, 2**depth, (LANES, 4)) >> rng.integers(0, depth - 6, (LANES, 1)), 1)
    edges = (1 << rng.integers(3, depth - 2, (LANES, 1))) * np.array([[1, 2, 3, 3]])
    places = np.where(rng.random((LANES, 1)) < 0.5, places, edges) + np.arange(4)
    (one, two, three), both = pieces(WORDS, jnp.asarray(places, kind), dtype, ())
    joined = jax.vmap(tree.join)(jax.vmap(tree.join)(one, two), three)
    size = np.sqrt((places[:, 3] - places[:, 0]) / 2.0**depth)
    assert np.allclose(both.length, size**2, rtol=1e-6)
    for x, y in zip(joined[:2], both[:2], strict=True):
        assert np.max(np.abs(np.asarray(x, float) - np.asarray(y, float)) / size) < 60 * jnp.finfo(dtype).eps


def test_lanes_follow_the_path_of_their_key():
    """One by one as together, to rounding, and every number of W is another motion."""
    depth, kind = whole(jnp.float64)
    places = jnp.asarray(np.sort(np.random.default_rng(2).integers(0, 2**depth, (3, 3)), 1), kind)
    (together, _), _ = pieces(WORDS[:3], places, jnp.float64, (2, 2))
    (alone, _), _ = pieces(WORDS[2:3], places[2:], jnp.float64, (2, 2))
    assert together.w.shape == (3, 2, 2)
    assert len(np.unique(together.w)) == 12
    np.testing.assert_allclose(together.w[2], alone.w[0], atol=1e-15)
    np.testing.assert_allclose(together.h[2], alone.h[0], atol=1e-15)


@BOTH
def test_ends_of_steps_are_cheap_ends(dtype):
    t0, t1 = dtype(-3.0), dtype(7.0)
    for t, dt in ((-3.0, 10.0), (0.123, 0.5), (0.123, 1e-3), (6.9, 0.5), (0.0, 1e-12), (6.99999, 1e-2)):
        t = dtype(t)
        end = tree.snap(t, dtype(dt), (t0, t1))
        depth, _ = whole(dtype)
        place = int(tree.position(end, (t0, t1), depth))
        assert place > int(tree.position(t, (t0, t1), depth))
        assert end <= t1
        if dt > 1e-4 and end < t1:
            assert -dt / 4 - 1e-5 <= float(end - t) - dt <= 1e-5
            cells = dt / 10 * 2**depth
            assert place % 2 ** int(np.log2(cells / 4) - 0.01) == 0
            if dtype == jnp.float64:  # a step that is refused by little comes back shorter
                assert tree.snap(t, 0.999 * (end - t), (t0, t1)) < end


@BOTH
def test_a_path_over_a_span(dtype):
    path, span = Tree((2,), dtype, "threefry2x32"), (dtype(1.0), dtype(3.0))
    moves = jax.jit(lambda a, b: path.over(Context(0, span), a, b, WORDS[0]))
    over = lambda a, b: moves(dtype(a), dtype(b))
    there, back = over(1.25, 1.5), over(1.5, 1.25)
    np.testing.assert_array_equal(there.w, -back.w)
    np.testing.assert_array_equal(there.area, back.area)
    nothing = over(1.5, 1.5)
    assert not jnp.any(nothing.w) and not jnp.any(nothing.area)
    at = jax.jit(lambda t: path.at(span, None, t, WORDS[0]))
    np.testing.assert_allclose(at(dtype(1.5)), over(1.0, 1.25).w + there.w, rtol=1e-5)
    assert not jnp.any(at(dtype(1.0)))
    of_span = lambda t0, t1: path.over(Context(0, (t0, t1)), dtype(1.25), dtype(1.5), WORDS[0]).w
    by_start, by_end = jax.jit(jax.jacfwd(of_span, (0, 1)))(*span)  # W is stretched by √(t₁ − t₀)
    np.testing.assert_allclose(by_end, there.w / 4, rtol=1e-5)
    np.testing.assert_allclose(by_start, -there.w / 4, rtol=1e-5)


@BOTH
def test_inside_a_step(dtype):
    """Values in a step drawn by its number: the law, given the whole; the whole at its end, nothing at its start."""
    path, ends = Counted((), dtype, "threefry2x32"), (dtype(1.0), dtype(1.5))
    where = Context(jnp.int32(3))
    ts = [dtype(t) for t in (1.0, 1.1, 1.35, 1.5)]

    @jax.jit
    @jax.vmap
    def looked(words):
        return [path.within(where, ends, t, words) for t in ts], path.over(where, *ends, words)

    (start, a, b, end), step = looked(WORDS)
    np.testing.assert_array_equal(end.w, step.w)
    np.testing.assert_array_equal(end.area, step.area)
    assert not jnp.any(start.w) and not jnp.any(start.area)
    a, b, end = (jax.tree.map(lambda x: np.asarray(x, float), (x.w, x.area)) for x in (a, b, end))
    z = np.stack([a[0] / 0.1**0.5, a[1] * (12 / 0.1) ** 0.5, (b[0] - a[0]) / 0.25**0.5, (end[0] - b[0]) / 0.15**0.5])
    assert np.max(np.abs(z @ z.T / LANES - np.eye(4)) * LANES**0.5 / np.where(np.eye(4), 2**0.5, 1)) < 4
    for s, (w, area) in ((0.2, a), (0.7, b)):  # what is expected of it, given W and H of the step
        rest = np.stack([w - s * end[0] - 6 * s * (1 - s) * end[1], area - s * s * end[1]])
        for x in rest:
            for given in end:
                assert abs(np.mean(x * given)) < 4 * np.std(x * given) / LANES**0.5


def test_values_of_counted_steps_add_up():
    path, words, size = Counted((), jnp.float64, "rbg"), jax.random.key_data(jax.random.key(1, impl="rbg")), 0.125
    span = jnp.float64(0.0), jnp.float64(1.0)
    steps = jax.jit(jax.vmap(lambda i: path.over(Context(i), span[0], jnp.float64(size), words).w))(jnp.arange(8))
    at = jax.jit(lambda t: path.at(span, jnp.float64(size), t, words))
    np.testing.assert_allclose([at(i * size) for i in range(9)], np.concatenate([[0], np.cumsum(steps)]), atol=1e-14)
    assert np.isfinite(at(0.3)) and at(0.3) not in (at(0.25), at(0.375))
