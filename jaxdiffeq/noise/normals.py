"""Standard normal numbers by their place: a key and a counter, the same on every machine and however often asked for.

JAX's own generator is the same cipher, but as a loop, and it takes two or three calls of it for a number; here it is
written out, which a compiler fuses with what it is for, and normals come of polynomials that it makes vectors of. A
scan that adds them takes a quarter to a half of the time that it takes with `jax.random.normal`.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Seed = tuple[jax.Array, jax.Array]

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA


def threefry(key: Seed, x: Any, y: Any) -> Seed:
    """The block cipher Threefry-2x32 of 20 rounds: 64 random bits for every key and counter (x, y), all uint32.

    Source: Salmon, Moraes, Dror, Shaw 2011, doi:10.1145/2063384.2063405.
    """
    keys = (*key, key[0] ^ key[1] ^ jnp.uint32(PARITY))
    x, y = x + keys[0], y + keys[1]
    for group in range(5):
        for bits in ROTATIONS[group % 2]:
            x = x + y
            y = x ^ ((y << jnp.uint32(bits)) | (y >> jnp.uint32(32 - bits)))
        x, y = x + keys[(group + 1) % 3], y + keys[(group + 2) % 3] + jnp.uint32(group + 1)
    return x, y


def seed_of(words: jax.Array, purpose: int) -> Seed:
    """Of the data of a key, uint32 [any], for one purpose: numbers of others, and of `jax.random`, are unrelated."""
    seed = jnp.uint32(purpose), jnp.uint32(words.size)
    for i in range(0, words.size, 2):
        seed = threefry((words[i], words[i + 1]), *seed)
    return seed


def pair(seed: Seed, number: Any, shape: tuple[int, ...], dtype: Any) -> tuple[jax.Array, jax.Array]:
    """Two independent standard normals of one counter, each [*shape].

    r·sin ½πt and ±r·cos ½πt with r = √(−2 log u): u of one word, t ∈ (−1, 1) and the sign of the other one. In double
    precision r and the sine are rounded to multiples of 2⁻²⁴, so that their product is exact and the same whatever a
    compiler makes of their sums, up to 6.8; in single precision it is up to 5.7. The law is right to 1e-7.
    Source: Box, Muller 1958, doi:10.1214/aoms/1177706645.
    """
    element = lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)
    return normals(seed, jnp.asarray(number).astype(jnp.uint32), element, dtype)


def normals(seed: Seed, number: jax.Array, element: jax.Array, dtype: Any) -> tuple[jax.Array, jax.Array]:
    """The same of counters that are given, uint32 of shapes that go together.

    A fence keeps the CPU from computing them once more for everything that is made of them.
    """
    shape = jnp.broadcast_shapes(*(x.shape for x in (*seed, number, element)))
    *key, number, element = (jnp.broadcast_to(x, shape) for x in (*seed, number, element))
    u, v = threefry((key[0], key[1]), number, element)
    if jnp.dtype(dtype) == jnp.float64:
        words = lax.optimization_barrier(u.astype(jnp.uint64) << jnp.uint64(32) | v.astype(jnp.uint64))
        u, v = (words >> jnp.uint64(32)).astype(jnp.uint32), words.astype(jnp.uint32)
    real = jnp.float64 if jnp.dtype(dtype) == jnp.float64 else jnp.float32
    r, t = _radius(u, real), _angle(v, real)
    cosine = _sine(1 - jnp.abs(t))
    found = r * _sine(t), r * jnp.where(v & jnp.uint32(1) == 1, cosine, -cosine)
    return lax.optimization_barrier(tuple(x.astype(dtype) for x in found))


# log(1 + x)/x between √½ − 1 and √2 − 1, to 3e-8, and sin(½πt)/t in powers of t², to 5e-9
LOG = (
    *(0.9999999742, -0.4999998796, 0.3333418563, -0.2500207405, 0.1995683351),
    *(-0.1656239359, 0.1495226763, -0.1436683988, 0.08722349049),
)
SINE = (1.570796318, -0.6459637106, 0.07968967894, -0.004673766597, 0.000151485123)


def _radius(bits: jax.Array, real: Any) -> jax.Array:
    """√(−2 log u), u = 2ᵉ(1 + x) with 1 + x between √½ and √2."""
    whole, digits, half = (jnp.int64, 52, 32) if real == jnp.float64 else (jnp.int32, 23, 23)
    u = ((bits >> jnp.uint32(32 - half)).astype(real) + 0.5) * 2.0**-half
    root = lax.bitcast_convert_type(jnp.asarray(0.5**0.5, real), whole)
    places = lax.bitcast_convert_type(u, whole) - root
    x = lax.bitcast_convert_type((places & whole(2**digits - 1)) + root, real) - 1
    log = x * _polynomial(LOG, x) + (places >> whole(digits)).astype(real) * math.log(2)
    return _rounded(jnp.sqrt(-2 * log))


def _angle(bits: jax.Array, real: Any) -> jax.Array:
    """Between −1 and 1, of all bits but the last."""
    left = 30 if real == jnp.float64 else 23
    return ((lax.bitcast_convert_type(bits, jnp.int32) >> (31 - left)).astype(real) + 0.5) * 2.0**-left


def _sine(t: jax.Array) -> jax.Array:
    """sin ½πt for |t| ≤ 1."""
    return _rounded(t * _polynomial(SINE, t * t))


def _rounded(x: jax.Array) -> jax.Array:
    if x.dtype == jnp.float32:
        return x
    return lax.round(x * 2.0**24, lax.RoundingMethod.TO_NEAREST_EVEN) * 2.0**-24


def _polynomial(coefficients: tuple[float, ...], x: jax.Array) -> jax.Array:
    *rest, total = coefficients
    for c in reversed(rest):
        total = total * x + c
    return jnp.asarray(total)
