"""Times that a solve lands on exactly, and f on either side of them.

Some are given, `Inputs.stops`; others are asked for by steps, `Step.stops`, while the solve runs. `State.stops` holds
the latter, [room + 1]: first the last of them that was reached, then those ahead in the order of travel, then infinity.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiffeq import clock
from jaxdiffeq.primitives.row_buffer import read
from jaxdiffeq.primitives.search import count_until
from jaxdiffeq.types import Context, Inputs, State


def direction_of(inputs: Inputs) -> jax.Array:
    return jnp.sign(inputs.t1 - inputs.t0)


def next_stop(inputs: Inputs, field: Any, at: State, context: Context) -> tuple[jax.Array, Any]:
    """The next time to land on, and f on the way there.

    Between two stops f is asked only for times strictly between them, and so it is between the ends of the span and a
    stop: a jump of f is seen from the side on which the step lies, whether f says `t < stop` or `t <= stop`.
    """
    stops, asked = inputs.stops, at.stops
    if stops.size == 0 and not len(asked):
        return inputs.t1, field.at(None, context)
    direction = direction_of(inputs)
    last, target = inputs.t0, inputs.t1
    if stops.size:
        passed = count_until(stops, at.t, direction)
        last = jnp.where(passed > 0, read(stops, jnp.maximum(passed - 1, 0)), last)
        target = jnp.where(passed < stops.size, read(stops, jnp.minimum(passed, stops.size - 1)), target)
    if len(asked):
        target = jnp.where(direction * asked[1] < direction * target, asked[1], target)
        last = jnp.where(direction * asked[0] > direction * last, asked[0], last)
    ends = lax.stop_gradient((last, target))  # bounds for a clip that is constant; nextafter has no derivative
    first, final = clock.beside(ends[0], direction), clock.beside(ends[1], -direction)
    low, high = jnp.minimum(first, final), jnp.maximum(first, final)

    def one_sided(t):
        return t + lax.stop_gradient(jnp.clip(t, low, high) - t)

    return target, field.at(one_sided, context)


def reach(target: jax.Array, t: jax.Array, dt: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Whether a step of size `dt` lands on the target, and its size if so: 1 % longer rather than a sliver."""
    left = jnp.abs(target - t)
    return left <= 1.01 * dt, left


def nothing_asked(inputs: Inputs, room: int) -> Any:
    """`State.stops` at the start."""
    if room == 0:
        return ()
    far = jnp.where(direction_of(inputs) < 0, -jnp.inf, jnp.inf).astype(inputs.t0.dtype)
    return jnp.full(room + 1, far).at[0].set(-far)


def asked_for(stops: jax.Array, t: jax.Array, more: jax.Array | None, inputs: Inputs) -> tuple[jax.Array, jax.Array]:
    """`State.stops` after a step to t that asked for `more`, and whether there is room for all of them.

    Neither what has passed nor what lies beyond t1 is kept, and equal times are kept once.
    """
    room, direction = stops.size - 1, lax.stop_gradient(direction_of(inputs))
    far = jnp.where(direction < 0, -jnp.inf, jnp.inf).astype(t.dtype)
    ahead = stops[1:] if more is None else jnp.append(stops[1:], more)
    wanted = (direction * ahead > direction * t) & (direction * ahead < direction * inputs.t1)

    def in_order(wanted, times):
        times = jnp.where(wanted, times, far)
        return times[jnp.argsort(lax.stop_gradient(direction * times))]

    ahead = in_order(wanted, ahead)
    ahead = in_order(jnp.append(True, ahead[1:] != ahead[:-1]), ahead)
    last = lax.stop_gradient(jnp.where(jnp.any(stops[1:] == t), t, stops[0]))
    return jnp.append(last, ahead[:room]), jnp.all(jnp.isinf(ahead[room:]))
