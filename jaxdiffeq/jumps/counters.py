"""Random numbers by a counter: what is drawn for an event depends on the key and the number of the event alone.

Nothing is carried from one draw to the next, so a path is the same under `jit`, `vmap` and `shard_map`, whatever is
saved, and the draws of the next event need not wait for this one.
Source: Salmon, Moraes, Dror, Shaw, Parallel random numbers: as easy as 1, 2, 3 (SC 2011), Threefry-2x32 with 20 rounds.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdiffeq.noise.normals import PARITY, ROTATIONS
from jaxdiffeq.noise.normals import threefry as block
from jaxdiffeq.primitives.while_loop import frozen_while

# What is drawn for an event, besides the time and the reaction: each from a stream of its own.
EVENT, MARKS, LEAP, SPLIT = 0, 1, 2, 3
SMALL = 10.0  # the mean up to which Poisson numbers are found by inversion


def words_of(key: Any) -> jax.Array:
    """A key of any kind as two words. Shapes: [2], unsigned."""
    return jax.random.bits(key, (2,), jnp.uint32)


def word(x: Any) -> jax.Array:
    return jnp.asarray(x).astype(jnp.uint32)


def threefry(words: Any, n: Any, stream: Any) -> tuple[jax.Array, jax.Array]:
    """64 random bits for the counter (n, stream)."""
    return block((words[0], words[1]), word(n), word(stream))


def rolled(words: Any, n: Any, stream: Any) -> tuple[jax.Array, jax.Array]:
    """The same bits by a loop over the rounds: a small program, for what happens seldom."""
    key = jnp.stack([words[0], words[1], words[0] ^ words[1] ^ np.uint32(PARITY)])
    rotations = jnp.asarray(ROTATIONS, jnp.uint32)

    def turn(i: jax.Array, bits: tuple) -> tuple:
        a, b = bits
        for rotation in lax.dynamic_index_in_dim(rotations, i % 2, keepdims=False):
            a = a + b
            b = (b << rotation | b >> (np.uint32(32) - rotation)) ^ a
        at = lambda k: lax.dynamic_index_in_dim(key, k % 3, keepdims=False)
        return a + at(i + 1), b + at(i + 2) + (i + 1).astype(jnp.uint32)

    start = word(n) + key[0], word(stream) + key[1]
    return lax.fori_loop(np.int32(0), np.int32(5), turn, start)


class Draw(NamedTuple):
    """What may be drawn for one event: `words` of the key, and its number."""

    words: Any
    n: jax.Array

    def bits(self, stream: Any) -> tuple[jax.Array, jax.Array]:
        return threefry(self.words, self.n, stream)

    def pair(self, stream: Any, dtype: Any) -> tuple[jax.Array, jax.Array]:
        """u in [0, 1 − ε] and w in (0, 1], uniform.

        In float64, each has 32 bits of its own, and below these those of the other one: so small a probability as that
        of a slow reaction among fast ones is exact to 2⁻⁵², and only what happens once in 2³² draws knows of the other.
        """
        a, b = self.bits(stream)
        if jnp.dtype(dtype).itemsize < 8:
            u, w = (x >> np.uint32(9) for x in (a, b))
            return u.astype(dtype) * _power(-23, dtype), (w.astype(dtype) + _power(0, dtype)) * _power(-23, dtype)
        high, low = a.astype(dtype), b.astype(dtype)
        u = (high * _power(20, dtype) + (b >> np.uint32(12)).astype(dtype)) * _power(-52, dtype)
        w = (low + (high + 0.5) * _power(-32, dtype)) * _power(-32, dtype)
        return u, w

    def exponential(self, stream: Any, dtype: Any) -> jax.Array:
        return -jnp.log(self.pair(stream, dtype)[1])

    def key(self) -> jax.Array:
        """A key for marks."""
        return jax.random.wrap_key_data(jnp.stack(self.bits(MARKS)), impl="threefry2x32")

    def aside(self, stream: Any) -> Draw:
        """Another sequence of draws for the same event."""
        return type(self)(self.bits(stream), jnp.zeros((), jnp.uint32))


class SeldomDraw(Draw):
    """What may be drawn in a program that should stay small."""

    def bits(self, stream: Any) -> tuple[jax.Array, jax.Array]:
        return rolled(self.words, self.n, stream)


def _power(k: int, dtype: Any) -> Any:
    return np.asarray(2.0**k, dtype)


def poisson(draw: Draw, mean: jax.Array) -> jax.Array:
    """A Poisson number, as a float: by inversion up to a mean of ten, by transformed rejection above.

    Source: Hörmann, The transformed rejection method for generating Poisson random variables, Insurance: Math. Econ. 12
    (1993) 39, algorithm PTRS.
    """
    dtype = mean.dtype
    small = mean < SMALL
    low = jnp.where(small & (mean > 0), mean, 0)
    high = jnp.where(small, SMALL, mean)
    u, w = draw.pair(0, dtype)
    one = jnp.ones((), dtype)

    # inversion: p₀ = e^(−m), pₖ = pₖ₋₁·m/k
    start = one * 0, jnp.exp(-low), u
    counted, _ = frozen_while(lambda c, _: c[2] >= c[1], lambda c, _: (_count(c, low), ()), start, ())

    b = 0.931 + 2.53 * jnp.sqrt(high)
    a = -0.059 + 0.02483 * b
    inverse_alpha = 1.1239 + 1.1328 / (b - 3.4)
    v_r = 0.9277 - 3.6224 / (b - 2)
    log_mean = jnp.log(high)

    def trial(c: tuple, _: tuple) -> tuple:
        _, u, v, n = c
        u = u - 0.5
        us = 0.5 - jnp.abs(u)
        k = jnp.floor((2 * a / us + b) * u + high + 0.43)
        quick = (us >= 0.07) & (v <= v_r)
        no = (k < 0) | ((us < 0.013) & (v > us))
        left = jnp.log(v) + jnp.log(inverse_alpha) - jnp.log(a / (us * us) + b)
        sure = left <= k * log_mean - high - log_factorial(k)
        taken = quick | (~no & sure)
        u, v = draw._replace(n=draw.n + n).pair(0, dtype)
        return (jnp.where(taken, k, -1), u, v, n + np.uint32(1)), ()

    begin = jnp.where(small, 0 * one, -1 * one), u, w, jnp.ones((), jnp.uint32)

    def trials(c: tuple, f: tuple) -> tuple:
        new, _ = trial(c, f)
        return jax.tree.map(lambda a, b: jnp.where(c[0] < 0, a, b), new, c), ()

    drawn, _ = frozen_while(lambda c, _: c[0] < 0, trials, begin, ())
    return jnp.where(small, counted[0], drawn[0])


def _count(c: tuple, mean: jax.Array) -> tuple:
    k, p, u = c
    go = (u >= p) & (k < 200)
    left = jnp.where(go, u - p, jnp.where(k < 200, u, -1))
    k = jnp.where(go, k + 1, k)
    return k, jnp.where(go, p * mean / jnp.maximum(k, 1), p), left


def log_factorial(k: jax.Array) -> jax.Array:
    """log k!, by a product up to nine and by Stirling's series above, to 1e-10."""
    x = jnp.maximum(k, 0) + 1
    shifted, product = x, jnp.ones_like(x)
    for _ in range(8):
        low = shifted < 9
        product = jnp.where(low, product * shifted, product)
        shifted = jnp.where(low, shifted + 1, shifted)
    inverse = 1 / shifted
    square = inverse * inverse
    series = inverse * (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square / 1680)))
    return (shifted - 0.5) * jnp.log(shifted) - shifted + 0.9189385332046727 + series - jnp.log(product)
