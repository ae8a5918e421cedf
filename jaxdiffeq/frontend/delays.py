"""What delays add to a plan: the lags as numbers, the times at which they break a solution, the room for the past."""

from __future__ import annotations

import itertools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdiffeq import errors
from jaxdiffeq.engine.history import Pieces, Remembering
from jaxdiffeq.problems import delay_errors
from jaxdiffeq.problems.definitions import Delays, Terms
from jaxdiffeq.problems.past import PAST, ULPS, Past, Piece, blank, felt_nothing
from jaxdiffeq.problems.ravel import as_array
from jaxdiffeq.problems.user_functions import OnArrays

STEPS, LEAST, BYTES = 1024, 64, 2**24
"""how many steps are kept of a small state, at least of any, and in how much memory at most"""
POINTS = 128
"""breaking points of one solve"""


class Memory(NamedTuple):
    """What of the delays is known when a solve is compiled."""

    rows: int
    windows: int
    neutral: bool
    varies: bool
    """some lags are not known to be longer than a step"""
    tracks: bool
    """some lags are functions, whose breaking points are found as the solve runs"""
    carries: bool
    """breaking points come up as the solve runs, that constant lags carry on"""
    most: int
    """rows that there may be where there are too few"""


def numbers(lags: Any, dtype: Any) -> Any:
    """The constant lags. Shapes: [lags]."""
    leaves = jax.tree.leaves(lags)
    for lag in leaves:
        delay_errors.lag(lag)
    if errors.all_concrete(leaves):
        return np.concatenate([np.zeros(0), *(np.ravel(x) for x in leaves)]).astype(dtype)
    return jnp.concatenate([jnp.ravel(as_array(x, dtype)) for x in leaves])


def memory_of(terms: Terms, lags: Any, options: Any, row_bytes: int) -> Memory:
    delays, history_steps, max_steps = terms.delays, options.history_steps, options.max_steps
    assert delays is not None
    errors.positive_integer(STEPS if history_steps is None else history_steps, "history_steps")
    few = min(STEPS, max(LEAST, BYTES // max(row_bytes, 1)))
    rows = max(2, min(few if history_steps is None else history_steps, max_steps + 1))
    known, varying = np.size(lags), len(delays.dependent_lags)
    most = max_steps + 1 if history_steps is None else rows
    most = min(most, max(rows, errors.ROOM // max(row_bytes, 1)))
    carries = known > 0 and any(event.jumps for event in options.events)
    asks = varying > 0 or known == 0
    return Memory(rows, max(known + varying, 1), delays.neutral, asks, varying > 0 or carries, carries, most)


def breaking_points(delays: Delays, lags: Any, span: tuple[Any, Any], order: int) -> Any:
    """t₀ + Σ mᵢ·lagᵢ: where a solution is not smooth. Shapes: [points].

    At t₀ its slope jumps, or it does itself, and from there each lag carries what is not smooth into a derivative one
    higher, until the method does not feel it; of neutral equations into the same derivative, all the way. The number of
    points is that of the lags, not of their values, except for neutral equations.
    """
    t0, t1 = span
    count = np.size(lags)
    if count == 0:
        return np.zeros(0, np.result_type(t0))
    depth = order + 1
    if delays.neutral:
        depth = POINTS
        if errors.all_concrete((lags, t0, t1)):
            depth = 2 ** math.ceil(math.log2(max(1.0, min(abs(float(t1 - t0)) / float(np.min(lags)), POINTS))))
    while depth > 1 and math.comb(count + depth, depth) - 1 > POINTS:
        depth -= 1
    sums = [
        np.bincount(chosen, minlength=count)
        for m in range(1, depth + 1)
        for chosen in itertools.combinations_with_replacement(range(count), m)
    ]
    xp = np if errors.all_concrete((lags, t0)) else jnp
    return t0 + xp.sum(xp.asarray(np.array(sums), lags.dtype) * lags[None], axis=1)


def apart(points: Any, t0: Any, t1: Any) -> Any:
    """Points, in order, of which those that rounding alone keeps apart are one, and those at an end are t₁."""
    if np.size(points) == 0:
        return points
    known = errors.all_concrete((points, t0, t1))
    xp = np if known else jnp
    unit = 4 * ULPS * jnp.finfo(points.dtype).eps * xp.maximum(abs(t0), abs(t1))
    points = xp.sort(xp.where((points <= t0 + unit) | (points >= t1 - unit), t1, points))
    far = xp.concatenate([xp.ones(1, bool), xp.diff(points) > unit])
    places = xp.where(far, xp.arange(points.size), 0)
    return points[np.maximum.accumulate(places) if known else lax.cummax(jnp.asarray(places))]


# ---- in a program


def pasts(memory: Memory, degree: int, at: tuple) -> tuple[Past, Past]:
    """An example of a past, and of one that a reverse pass has. `at` is t, y."""
    t, y = at
    time = jax.ShapeDtypeStruct((memory.rows + 1,), t.dtype)
    level = time if memory.tracks else None
    shape = Piece(time, time, jax.ShapeDtypeStruct((memory.rows + 1, degree + 1, *y.shape), y.dtype), level)
    past = blank(shape, memory.windows, t, y)
    return past, past._replace(felt=felt_nothing(shape, memory.windows))


def remembering(memory: Memory, on: OnArrays, dependent: tuple, at: tuple, *parts: Any) -> tuple[Remembering, list]:
    """The integration, and what the programs of lags that vary close over. `at` is t, y, leaves."""
    field, stepper, recorders, watch, events = parts
    program, of_lags = on.close(on.lags(dependent), *at) if dependent else (None, [])
    made = Remembering(
        field,
        stepper,
        {**recorders, PAST: Pieces(memory.rows, 0.0 if memory.tracks else None)},
        watch,
        events=events,
        put=lambda args, past: args._replace(past=past),
        got=lambda args: args.past,
        lags=lambda args: args.lags,
        varying=None if program is None else lambda t, y, args: program(args.of_lags, t, y, args.leaves),
        windows=memory.windows,
        asks_itself=memory.varies,
        neutral=memory.neutral,
        carries=memory.carries,
    )
    return made, of_lags
