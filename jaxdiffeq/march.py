"""Equal steps as a plain `lax.scan`, which differentiates by itself in every mode."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdiffeq.control import FixedSteps
from jaxdiffeq.gradients.attach import Constants, Outputs, poisoned
from jaxdiffeq.gradients.reverse import ReverseAD
from jaxdiffeq.lower import Arrays, Lowered, Plan
from jaxdiffeq.types import Counts, Inputs, Result, State


def marches(plan: Plan, arrays: Arrays) -> bool:
    """Whether the solve is a number of equal steps, with nothing between them to save or to land on."""
    controller = arrays.knobs.controller
    if not isinstance(controller, FixedSteps) or controller.n is None or not isinstance(plan.gradient, ReverseAD):
        return False
    between = np.size(arrays.ts) or np.size(arrays.stops) or plan.dense or plan.keep.steps > 1
    return not between and controller.n <= plan.max_steps


def march(plan: Plan, parts: Lowered) -> tuple[Outputs, Constants]:
    """No error estimate, no controller, no interpolation: yᵢ₊₁ = step(t₀ + i·dt, yᵢ)."""
    integration, inputs, n = parts.integration, parts.inputs, parts.knobs.controller.n

    def step(carry, i):
        t1, after = _step(parts, inputs, carry, i)
        if integration.watch is not None:
            moves = (inputs.t0 + i * _width(inputs, n), i.astype(int)), (t1, i.astype(int) + 1)
            after = integration.watch(after[0], inputs, *moves, i == n - 1), after[1]
        return after, (t1, parts.observe(t1, after[0], inputs.args), None) if plan.keep.steps else None

    numbers = jnp.arange(n, dtype=inputs.t0.dtype)
    first = integration.begin(inputs)
    (y, _), rows = _scan(step, (first.y, first.memory), numbers, plan.gradient.memory)
    good = jnp.all(jnp.isfinite(y))
    done, last = _failure(parts, lax.stop_gradient(inputs), lax.stop_gradient(first), good)
    width = _width(inputs, n)
    constants = Constants(
        t=jnp.where(good, inputs.t1, inputs.t0 + done.astype(width.dtype) * width),
        dt=jnp.abs(width),
        counts=Counts(done, jnp.zeros_like(done), n - done, n - done, jnp.zeros_like(done)),
        result=jnp.where(good, Result.success, Result.nonfinite).astype(jnp.int32),
        marks=(done,) if plan.keep.steps else (),
    )
    outputs = Outputs(poisoned(y, good, last), (rows,) if plan.keep.steps else ())
    return outputs, lax.stop_gradient(constants)


def _width(inputs: Inputs, n: int) -> jax.Array:
    return (inputs.t1 - inputs.t0) / n


def _step(parts: Lowered, inputs: Inputs, carry: tuple, i: jax.Array) -> tuple[jax.Array, tuple]:
    """The time after step i, and the state and the stepper's memory."""
    integration, n = parts.integration, parts.knobs.controller.n
    width = _width(inputs, n)
    start = State(inputs.t0 + i * width, *carry)
    t1 = jnp.where(i == n - 1, inputs.t1, inputs.t0 + (i + 1) * width)
    after = integration.stepper.step(integration.field, start, t1, inputs.args, parts.knobs.tolerance).after
    return t1, (after.y, after.memory)


def _failure(parts: Lowered, inputs: Inputs, first: State, good: jax.Array) -> tuple[jax.Array, jax.Array]:
    """How many steps are finite, and the state after these: all, or found by taking them again.

    A loop without a trip if the solve succeeds: to look at every state on the way would slow down every solve.
    """
    n = parts.knobs.controller.n

    def finite(at):
        _, _, (y, _), i = at
        return ~good & (i < n) & jnp.all(jnp.isfinite(y))

    def again(at):
        _, _, carry, i = at
        return i, carry[0], _step(parts, inputs, carry, i.astype(inputs.t0.dtype))[1], i + 1

    zero = jnp.zeros((), jnp.int32)
    done, y, *_ = lax.while_loop(finite, again, (zero, first.y, (first.y, first.memory), zero))
    return jnp.where(good, n, done), y


def _scan(step: Callable, carry: Any, xs: Any, memory: Any) -> tuple[Any, Any]:
    """`lax.scan`, of which the backward pass keeps the states and recomputes the stages; "all" keeps these too.

    Recomputing is faster as well, since it touches less memory. With a bound on memory there are two levels, of which
    the inner one is recomputed.
    """
    n = xs.shape[0]
    if memory == "all":
        return lax.scan(step, carry, xs)
    if memory is None or n < 4:
        return lax.scan(jax.checkpoint(step, prevent_cse=False), carry, xs)
    outer = min(n, math.isqrt(n) if memory == "sqrt" else max(1, int(memory)))
    inner = n // outer

    @jax.checkpoint
    def block(carry, xs):
        return lax.scan(step, carry, xs)

    whole = outer * inner
    carry, rows = lax.scan(block, carry, xs[:whole].reshape(outer, inner))
    rows = jax.tree.map(lambda x: x.reshape(whole, *x.shape[2:]), rows)
    carry, tail = block(carry, xs[whole:])
    return carry, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), rows, tail)
