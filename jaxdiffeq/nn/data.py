"""Pictures of digits made from a seed, for examples and tests that must not download anything."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

# The segments of a seven-segment display that each digit lights: top, three in the middle, and so on down.
#   0: top, 1: upper left, 2: upper right, 3: middle, 4: lower left, 5: lower right, 6: bottom
LIT = ("012456", "25", "02346", "02356", "1235", "01356", "013456", "025", "0123456", "012356")
HEIGHT, WIDTH, SIZE = 16, 9, 28


def _glyphs() -> np.ndarray:
    """The ten digits. Shape: [10, HEIGHT, WIDTH]."""
    middle = HEIGHT // 2
    boxes = (
        *((slice(0, 2), slice(0, WIDTH)), (slice(0, middle), slice(0, 2)), (slice(0, middle), slice(-2, WIDTH))),
        (slice(middle - 1, middle + 1), slice(0, WIDTH)),
        *((slice(middle, HEIGHT), slice(0, 2)), (slice(middle, HEIGHT), slice(-2, WIDTH))),
        (slice(HEIGHT - 2, HEIGHT), slice(0, WIDTH)),
    )
    glyphs = np.zeros((10, HEIGHT, WIDTH), np.float32)
    for glyph, segments in zip(glyphs, LIT, strict=True):
        for segment in segments:
            glyph[boxes[int(segment)]] = 1.0
    return glyphs


@functools.partial(jax.jit, static_argnums=1)
def digits(key: jax.Array, count: int, noise: float = 0.1) -> tuple[jax.Array, jax.Array]:
    """`count` pictures of seven-segment digits, each at a place and of a brightness of its own, with noise; and labels.

    Shapes: pictures [count, 1, 28, 28] in the default float type, labels [count].
    """
    which, where, bright, grain = jax.random.split(key, 4)
    labels = jax.random.randint(which, (count,), 0, 10)
    room = jnp.array([SIZE - HEIGHT, SIZE - WIDTH])
    corners = jax.random.randint(where, (count, 2), jnp.zeros_like(room)[None], room[None])
    brightness = jax.random.uniform(bright, (count, 1, 1), minval=0.6, maxval=1.0)
    glyphs = jnp.asarray(_glyphs(), brightness.dtype)[labels] * brightness

    def place(glyph, corner):
        return jax.lax.dynamic_update_slice(jnp.zeros((SIZE, SIZE), glyph.dtype), glyph, (corner[0], corner[1]))

    pictures = jax.vmap(place)(glyphs, corners)
    return (pictures + noise * jax.random.normal(grain, pictures.shape, pictures.dtype))[:, None], labels
