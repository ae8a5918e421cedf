"""States of a solve that failed, for a sweep that keeps none of them and has no end to go back from.

Where a solution leaves the numbers, the last state that is one says nothing any more of those before it. So its steps
are taken again from the start: once to keep some states on the way, evenly, and then to each state from the nearest one
before it. That costs m/2K times as many steps for m of them and K states kept; where all went well it costs nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiffeq.primitives.row_buffer import put_row, read
from jaxdiffeq.primitives.varying_axes import vary_like
from jaxdiffeq.primitives.while_loop import frozen_while
from jaxdiffeq.types import Inputs, PyTree, Settings

KEPT = 32  # what they take is taken too where nothing fails


class Retaken(NamedTuple):
    """Shapes: rows [K + 1, ...], y and memory before every `stride`-th step and a spare last row; stride []."""

    rows: PyTree
    stride: jax.Array

    @staticmethod
    def of(integration: Any, inputs: Inputs, settings: Settings, steps: jax.Array, failed: jax.Array) -> Retaken:
        """Of a solve of so many steps, if it has `failed`."""
        first = integration.begin(inputs)
        here = vary_like((first.y, first.memory), first.y)
        count = min(integration.n, KEPT)
        spare, stride = np.int32(count), jnp.maximum((steps + count - 1) // count, 1)

        def goes_on(_: Any, fixed: Any) -> jax.Array:
            return failed & (fixed < steps)

        def trip(moving: Any, at: jax.Array) -> tuple:
            (rows, here), live = moving, goes_on(moving, at)
            row = jnp.where(live & (at % stride == 0), at // stride, spare)
            rows = jax.tree.map(lambda xs, x: put_row(xs, row, x), rows, here)
            return (rows, _taken(integration, inputs, settings, here, at, live)), at + live.astype(at.dtype)

        rows = jax.tree.map(lambda x: jnp.zeros_like(x, shape=(count + 1, *x.shape)), here)
        start = vary_like(((rows, here), jnp.zeros((), jnp.int32)), first.y)
        return Retaken(frozen_while(goes_on, trip, *start)[0][0], stride)

    def before(
        self, integration: Any, inputs: Inputs, settings: Settings, i: jax.Array, wanted: jax.Array, otherwise: PyTree
    ) -> PyTree:
        """y and memory before step `i`, if that is `wanted`."""
        i = i.astype(jnp.int32)
        slot = i // self.stride

        def goes_on(_: Any, at: jax.Array) -> jax.Array:
            return wanted & (at < i)

        def trip(here: PyTree, at: jax.Array) -> tuple:
            live, begins = goes_on(here, at), at < 0
            kept = read(self.rows, slot)
            new = _taken(integration, inputs, settings, here, jnp.maximum(at, 0), live)
            here = jax.tree.map(lambda a, b: jnp.where(live & begins, a, b), kept, new)
            return here, jnp.where(begins & live, slot * self.stride, at + live.astype(at.dtype))

        return frozen_while(goes_on, trip, *vary_like((otherwise, jnp.full((), -1, jnp.int32)), otherwise[0]))[0]


def _taken(
    integration: Any, inputs: Inputs, settings: Settings, here: PyTree, at: jax.Array, live: jax.Array
) -> PyTree:
    """y and memory after a step, if it is `live`."""
    after = integration.step(inputs, settings, *here, at.astype(inputs.t0.dtype))[1].after
    return jax.tree.map(lambda a, b: jnp.where(live, a, b), (after.y, after.memory), here)
