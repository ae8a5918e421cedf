"""What a solve has done so far, and how it ends."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxdiffeq.engine.stops import direction_of
from jaxdiffeq.types import Counts, Inputs, Result, Settings, Step, Verdict

STAGNATION = 50  # rejections in a row: at a fifth of the size each, 1e-35 of the first attempt


def nothing_yet(work: Any, restarts: bool, events: bool = False) -> Counts:
    """All counts zero; `work` as the stepper counts it, and those of restarts and events if there may be any."""
    zero = jnp.zeros((), jnp.int32)
    of = lambda there: zero if there else ()
    return Counts(zero, zero, zero, zero, zero, jax.tree.map(lambda _: zero, work), of(restarts), of(events))


def tries(counts: Counts) -> jax.Array:
    """Attempted steps."""
    return counts.steps + counts.rejected_error + counts.rejected_solver + sum(jax.tree.leaves(counts.located))


def counted(counts: Counts, verdict: Verdict, live: jax.Array, dense: jax.Array, step: Step) -> Counts:
    """With one attempt more, if `live`; `dense`: its dense output was evaluated."""
    taken, refused = live & verdict.accept, live & ~verdict.accept
    error, located = refused & (verdict.cause == Result.step_size_too_small), jnp.array(False)
    if jax.tree.leaves(counts.located):
        located = refused & (verdict.cause == Result.running)
    one = lambda flag: flag.astype(jnp.int32)
    return Counts(
        steps=counts.steps + one(taken),
        rejected_error=counts.rejected_error + one(error),
        rejected_solver=counts.rejected_solver + one(refused & ~error & ~located),
        streak=jnp.where(taken, 0, counts.streak + one(refused & ~located)),
        dense=counts.dense + one(dense),
        work=jax.tree.map(lambda old, new: old + jnp.where(live, new, 0), counts.work, step.work),
        restarts=() if step.restart is None else counts.restarts + one(taken & step.restart),
        located=() if not jax.tree.leaves(counts.located) else counts.located + one(located),
    )


def result(
    inputs: Inputs, settings: Settings, t: jax.Array, dt: jax.Array, counts: Counts, verdict: Verdict, step: Step
) -> jax.Array:
    """The code after an attempt that has led to t, with `dt` to come next."""
    moves = jnp.abs(t + direction_of(inputs) * dt - t) > 0  # not by NaN, the size where f is undefined at the start
    stuck = ~moves | (counts.streak >= STAGNATION) | verdict.stop
    enough = tries(counts) >= settings.max_steps
    if settings.patience is not None:
        slow = jnp.abs(t - inputs.t0) < jnp.abs(inputs.t1 - inputs.t0) / 10
        enough |= slow & (tries(counts) >= settings.patience)
    result = jnp.where(enough, Result.max_steps_reached, Result.running)
    blame = jnp.where(verdict.accept, Result.step_size_too_small, verdict.cause)
    result = jnp.where(stuck, blame, result)
    result = jnp.where(verdict.accept & (t == inputs.t1), Result.success, result)
    if step.result is not None:
        result = jnp.where(verdict.accept & (step.result != Result.running), step.result, result)
    return result.astype(jnp.int32)
