"""Two paths at once, of which each has the right law, and which jump together as often as they can.

Source: Anderson, SIAM J. Numer. Anal. 50 (2012) 2237: split coupling.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiffeq.jumps.channels import Channels
from jaxdiffeq.jumps.counters import Draw


class Pair(Channels):
    """A state [2, *state]: both jump at the smaller of the two propensities, and each alone at what is left of its own.

    Channel r: both by r; r + n: the first alone; r + 2·n: the second alone.
    """

    def __init__(self, first: Channels, second: Channels):
        self.both = first, second
        self.count = 3 * first.count

    def all(self, t: jax.Array, x: jax.Array) -> jax.Array:
        a, b = (channels.all(t, x[i]) for i, channels in enumerate(self.both))
        least = jnp.minimum(a, b)
        return jnp.concatenate([least, a - least, b - least])

    def each(self, t: jax.Array, x: jax.Array) -> list[jax.Array]:
        a, b = (channels.each(t, x[i]) for i, channels in enumerate(self.both))
        least = [jnp.minimum(p, q) for p, q in zip(a, b, strict=True)]
        return [
            *least,
            *(p - m for p, m in zip(a, least, strict=True)),
            *(q - m for q, m in zip(b, least, strict=True)),
        ]

    def fire(self, r: jax.Array, t: jax.Array, x: jax.Array, draw: Draw, go: jax.Array) -> jax.Array:
        n = np.int32(self.count // 3)
        alone, mine = r // n, r % n
        moves = [go & (alone != np.int32(2 - i)) for i in range(2)]
        new: list[Any] = [c.fire(mine, t, x[i], draw, moves[i]) for i, c in enumerate(self.both)]
        return jnp.stack(new)
