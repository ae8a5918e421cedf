"""Normal numbers by key and counter: the cipher, the law, and the same bits in every program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from scipy import stats

from jaxdiffeq.noise import normals
from jaxdiffeq.primitives.while_loop import frozen_while

SEED = jnp.uint32(3), jnp.uint32(4)


@pytest.mark.parametrize(  # of the authors' own test vectors
    ("key", "counter", "block"),
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((2**32 - 1,) * 2, (2**32 - 1,) * 2, (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_the_cipher(key, counter, block):
    found = normals.threefry((jnp.uint32(key[0]), jnp.uint32(key[1])), *map(jnp.uint32, counter))
    assert tuple(map(int, found)) == block


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_the_law(dtype):
    """Moments of both and their products within four standard errors, tails and all by Kolmogorov and Smirnov."""
    n = 200_000
    x, y = (np.asarray(z, float) for z in jax.jit(lambda s: normals.pair(s, 7, (n,), dtype))(SEED))
    for product, mean, variance in (
        *((x**i * y**j, 0, v) for i, j, v in ((1, 0, 1), (0, 1, 1), (1, 1, 1), (3, 0, 15), (2, 1, 3), (1, 2, 3))),
        *((x**2, 1, 2), (y**2, 1, 2), (x**4, 3, 96), (y**4, 3, 96), ((x**2 - 1) * (y**2 - 1), 0, 4)),
    ):
        assert abs(product.mean() - mean) < 4 * np.sqrt(variance / n)
    for z in (x, y, (x + y) / 2**0.5, np.abs(x[::2]) * np.sign(x[1::2])):
        assert stats.kstest(z, "norm").pvalue > 1e-4


@pytest.mark.parametrize(("dtype", "kept", "tolerance"), [(jnp.float32, 23, 5e-6), (jnp.float64, 32, 2e-7)])
def test_far_out(dtype, kept, tolerance):
    """The radius is right to where a word has one number left, and the angle all the way round."""
    words = np.array([0, 1, 2, 3, 2**8, 2**9, 2**20, 2**31, 3 * 2**30, 2**32 - 2**9, 2**32 - 1], np.uint32)
    u = ((words >> (32 - kept)) + 0.5) / 2.0**kept
    np.testing.assert_allclose(normals._radius(jnp.asarray(words), dtype), np.sqrt(-2 * np.log(u)), atol=tolerance)
    t = np.asarray(normals._angle(jnp.asarray(words), dtype))
    np.testing.assert_allclose(t, words.view(np.int32) / 2.0**31, atol=2.0**-23)
    np.testing.assert_allclose(normals._sine(jnp.asarray(t)), np.sin(np.pi / 2 * t), atol=2e-7)
    assert np.all((np.abs(t) < 1) & (t != 0))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_the_same_bits_in_every_program(dtype):
    numbers = jnp.arange(64)
    one = lambda i: normals.pair(SEED, i, (), dtype)[0]

    def in_a_loop(first):
        def body(_, s):
            i, out = s
            return (), (i + 1, lax.dynamic_update_index_in_dim(out, one(i), i - first, 0))

        return frozen_while(lambda _, s: s[0] < first + 64, body, (), (first, jnp.zeros(64, dtype)))[1][1]

    eager = jax.vmap(one)(numbers)
    looped = jax.jit(in_a_loop)(numbers[0])
    scanned = jax.jit(lambda i: lax.map(one, i))(numbers)
    lanes = jax.jit(jax.vmap(in_a_loop))(numbers[:1])[0]
    exact = dtype == jnp.float64  # in single precision a compiler may sum erf⁻¹ in its own way, without optimisation
    for other in (looped, scanned, lanes):
        if exact:
            np.testing.assert_array_equal(other, eager)
        np.testing.assert_allclose(other, eager, rtol=1e-6)


def test_purposes_and_generators_differ():
    keys = [jax.random.key_data(jax.random.key(0, impl=impl)) for impl in ("threefry2x32", "rbg")]
    seeds = {tuple(map(int, normals.seed_of(words, purpose))) for words in keys for purpose in range(4)}
    assert len(seeds) == 8
