"""Breaking points that come up while a solve runs, and where lags meet them again.

Constant lags meet them at times that are known. Where lags that vary do is found on a step's interpolant, and landed on
by the step's own map.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiffeq.engine.interpolant import evaluate
from jaxdiffeq.primitives.row_buffer import read
from jaxdiffeq.primitives.while_loop import frozen_while
from jaxdiffeq.problems.past import ULPS, Past, last_before, piece_of, rows_of
from jaxdiffeq.types import Inputs

SHORT = 0.9
"""of what it was meant to be, below which a step has been cut"""
JUST_LEFT = 0.01
"""of a step from a breaking point, within which there is no other one"""
AHEAD = 0.5
"""of a step beyond which nothing is looked for, by extrapolation"""
ROUNDS = 8
"""of corrections to where a step meets one"""


class Met(NamedTuple):
    """Where a step has to end, infinity if nowhere, and the piece at whose end the lag of that number arrives."""

    at: jax.Array
    piece: jax.Array
    lag: jax.Array
    level: jax.Array


def nothing_met(t: jax.Array) -> Met:
    none = jnp.zeros((), jnp.int32)
    return Met(jnp.full_like(t, jnp.inf), none - 1, none, jnp.zeros_like(t))


def _time_of(past: Past, i: jax.Array, t0: jax.Array) -> jax.Array:
    """Of the end of piece i; of the start of the solve."""
    return jnp.where(i < 0, t0, piece_of(past, i).end)


def _next(past: Past, s0: jax.Array, s1: jax.Array, depth: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The first breaking point in (s0, s1]: whether there is one, its piece, and its level."""
    rows = rows_of(past.ring)

    def of(i):
        row = jnp.maximum(i, 0) % rows
        end, level = read(past.ring.end, row), read(past.ring.level, row)
        return jnp.where(i < 0, past.t0, end), jnp.where(i < 0, jnp.ones_like(level), level)

    def passes(_, i):
        end, level = of(i)
        broken = (level > 0) & (level <= depth) & (end > s0)
        return (i < past.known) & (end <= s1) & ~broken

    first = last_before(past, s0)
    _, i = frozen_while(passes, lambda _, i: ((), i + passes((), i).astype(i.dtype)), (), first)
    end, level = of(i)
    there = (i < past.known) & (end <= s1) & (end > s0) & (level > 0)
    return there, i, level


def _asked(varying: Callable, lag: int, t: jax.Array, y: jax.Array, args: Any) -> jax.Array:
    return t - varying(t, y, args)[lag]


def may_meet(varying: Callable, past: Past, call: Any, t1: jax.Array, guess: jax.Array) -> jax.Array:
    """Whether a step, by its extrapolation, may meet a breaking point."""
    (t, y, *_), args = call.start, call.inputs.args
    before, after = t - varying(t, y, args), t1 - varying(t1, jnp.sum(guess, axis=0), args)
    found = jnp.array(False)
    for lag in range(before.size):
        beyond = after[lag] + AHEAD * jnp.abs(after[lag] - before[lag])
        found |= _next(past, before[lag], beyond, 2**20)[0] | ~jnp.isfinite(beyond)
    return found


def _depth(integration: Any) -> int:
    return 2**20 if integration.neutral else integration.stepper.order + 1


# ---- constant lags


def rounding(inputs: Inputs) -> jax.Array:
    """How far apart two times may be that rounding alone keeps apart."""
    t0, t1 = lax.stop_gradient((inputs.t0, inputs.t1))
    return 4 * ULPS * jnp.finfo(t0.dtype).eps * jnp.maximum(jnp.abs(t0), jnp.abs(t1))


def carried(integration: Any, inputs: Inputs, past: Past, t: jax.Array, dt: jax.Array) -> Met:
    """Where the first constant lag, in a step of this size from t, arrives at a breaking point: its time + the lag."""
    lags, found, unit = integration.lags(inputs.args), nothing_met(t), rounding(inputs)
    for lag in range(lags.size):
        begin = lax.stop_gradient(t - lags[lag])
        there, piece, level = _next(past, begin + unit, begin + 1.02 * dt, _depth(integration))
        new = Met(_time_of(past, piece, past.t0) + lags[lag], piece, jnp.full_like(piece, lag), level)
        closer = (new.at <= found.at + unit) & (new.level < found.level)
        found = chosen(there & ((new.at < found.at - unit) | closer), new, found)
    return found


def chosen(flag: jax.Array, new: Met, old: Met) -> Met:
    return jax.tree.map(lambda a, b: jnp.where(flag, a, b), new, old)


def sooner(a: Met | None, b: Met | None) -> Met | None:
    if a is None or b is None:
        return b if a is None else a
    return chosen(a.at < b.at, a, b)


# ---- lags that vary


def met(integration: Any, call: Any, at: Any, after: Any, step: Any, new: jax.Array) -> Any:
    """The round that comes after one, `at`, whose interpolant is settled: by the breaking point that the step meets."""
    settled = after.ok & ~after.going
    first = first_met(integration, call, step.after.t, new)
    is_new = settled & jnp.isinf(at.meets.at) & jnp.isfinite(first.at)
    off, rate = _residual(integration, call, at.meets, step)
    moved = -off / jnp.where(rate == 0, 1, rate)
    unit = 4 * jnp.finfo(moved.dtype).eps * jnp.maximum(jnp.abs(step.after.t), jnp.abs(call.start.t))
    close = (jnp.abs(moved) <= unit) | ~jnp.isfinite(moved) | (at.tries >= 2 * ROUNDS)
    again = settled & jnp.isfinite(at.meets.at) & ~close
    inside = (at.meets.at + moved > call.start.t) & again
    meets = chosen(is_new, first, at.meets)
    meets = meets._replace(at=jnp.where(inside, at.meets.at + moved, meets.at))
    whole = jnp.where(is_new, (first.at - call.start.t) / (step.after.t - call.start.t), 1).astype(new.dtype)
    powers = jnp.stack([whole**p for p in range(len(new))]).reshape(-1, *[1] * (new.ndim - 1))
    tries = jnp.where(is_new, 0, after.tries)
    going = after.going | is_new | again
    size = jnp.where(is_new, 0, after.size)
    return after._replace(own=new * powers, meets=meets, going=going, tries=tries, size=size)


def first_met(integration: Any, call: Any, t1: jax.Array, coefficients: jax.Array) -> Met:
    """The earliest breaking point that a lag meets within the step to t1."""
    past, args, start = integration.got(call.inputs.args), call.inputs.args, call.start
    last = read(past.ring.level, jnp.maximum(past.known - 1, 0) % rows_of(past.ring))
    left = jnp.where((past.known > 0) & (last == 0), 0, JUST_LEFT)
    found = nothing_met(t1)
    for lag in range(integration.varying(start.t, start.y, args).size):
        place = lambda t, lag=lag: _asked(integration.varying, lag, t, _at(coefficients, start.t, t1, t), args)
        begin = place(start.t)
        s0 = jnp.where(left > 0, place(start.t + left * (t1 - start.t)), begin)
        there, piece, level = _next(past, s0, place(t1), _depth(integration))
        time = bisected(lambda t, p=place, b=_time_of(past, piece, past.t0): p(t) - b, start.t, t1, there)
        new = Met(time, piece, jnp.full_like(piece, lag), level)
        found = chosen(there & (time < found.at), new, found)
    return found


def _at(coefficients: jax.Array, t0: jax.Array, t1: jax.Array, t: jax.Array) -> jax.Array:
    return evaluate(coefficients, ((t - t0) / (t1 - t0)).astype(coefficients.dtype))


def bisected(g: Callable, low: jax.Array, high: jax.Array, wanted: jax.Array) -> jax.Array:
    """Where g, negative at `low` and not at `high`, changes sign."""

    def apart(_, at):
        low, high, live = at
        middle = (low + high) / 2
        return live & (middle > low) & (middle < high)

    def halve(_, at):
        low, high, live = at
        middle = (low + high) / 2
        below, go = g(middle) < 0, apart((), at)
        return (), (jnp.where(go & below, middle, low), jnp.where(go & ~below, middle, high), live)

    return frozen_while(apart, halve, (), (low, high, wanted))[1][1]


def _residual(integration: Any, call: Any, meets: Met, step: Any) -> tuple[jax.Array, jax.Array]:
    """What is left of t − τ(t, y) − b at the end of the step, and its rate along the solution."""
    past, args = integration.got(call.inputs.args), call.inputs.args
    t, y = step.after.t, step.after.y
    lags = lambda t, y: (t - integration.varying(t, y, args))[meets.lag]
    slope = (y - call.start.y) / (t - call.start.t).astype(y.dtype)
    value, rate = jax.jvp(lags, (t, y), (jnp.ones_like(t), slope))
    return value - _time_of(past, meets.piece, call.inputs.t0), rate


class End(NamedTuple):
    """Where a step that asks for itself has to end: where a lag meets a breaking point, or at a root."""

    at: jax.Array
    """infinity: nowhere"""
    root: Any
    """it is a root; None: no step is aimed at one"""


def end_of(integration: Any, call: Any, meets: Met | None) -> End | None:
    """Constants; None where no step has to."""
    rooted = bool(call.made.watch) and integration.events.conditions is not None
    if not rooted:
        return None if meets is None else lax.stop_gradient(End(meets.at, None))
    aim = call.made.watch.aim.at
    first = aim if meets is None else jnp.minimum(aim, meets.at)
    return lax.stop_gradient(End(first, aim == first))


def ended(call: Any, meets: Met | None, end: End | None) -> tuple[Any, Met | None]:
    """Both, with the end in its place."""
    if end is None:
        return call, meets
    if end.root is not None:
        watch = call.made.watch
        aim = watch.aim._replace(at=jnp.where(end.root, end.at, watch.aim.at))
        call = call._replace(made=call.made._replace(watch=watch._replace(aim=aim)))
    if meets is not None:
        here = True if end.root is None else ~end.root
        meets = meets._replace(at=jnp.where(here, end.at, meets.at))
    return call, meets


def missed(integration: Any, call: Any, meets: Met | None, end: End, step: Any, own: jax.Array) -> jax.Array:
    """What is left at the end of a step of what is zero there; zero if it has to end nowhere."""
    left = jnp.zeros_like(end.at)
    if meets is not None:
        left = _residual(integration, call, meets, step)[0]
    if end.root is not None:
        value = integration.condition(call.inputs, step, call.start, call.made, call.number, own)
        left = jnp.where(end.root, value.astype(left.dtype), left)
    return jnp.where(jnp.isfinite(end.at), left, 0)


def level_of(integration: Any, inputs: Inputs, t: jax.Array, meets: Met) -> jax.Array:
    """Of where a step ends, at t: one more than where its lag arrives, one at a stop, zero elsewhere.

    Where constant lags alone are carried on, stops are none that anything but an equation of neutral type would feel.
    """
    ended = jnp.isfinite(meets.at) & (jnp.abs(t - meets.at) <= rounding(inputs))
    felt = inputs.stops.size and (integration.neutral or integration.varying is not None)
    at_stop = jnp.any(inputs.stops == t) if felt else jnp.array(False)
    level = meets.level + (0 if integration.neutral else 1)
    return lax.stop_gradient(jnp.where(ended, level, at_stop.astype(meets.level.dtype)))
