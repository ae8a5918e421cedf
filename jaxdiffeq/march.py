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
from jaxdiffeq.gradients.attach import Constants, Outputs
from jaxdiffeq.gradients.reverse import ReverseAD
from jaxdiffeq.lower import Arrays, Lowered, Plan
from jaxdiffeq.types import Counts, Result, State


def marches(plan: Plan, arrays: Arrays) -> bool:
    """Whether the solve is a number of equal steps, with nothing between them to save or to land on."""
    controller = arrays.knobs.controller
    if not isinstance(controller, FixedSteps) or controller.n is None or not isinstance(plan.gradient, ReverseAD):
        return False
    between = np.size(arrays.ts) or np.size(arrays.stops) or plan.dense or plan.keep.steps > 1
    return not between and controller.n <= plan.max_steps


def march(plan: Plan, parts: Lowered) -> tuple[Outputs, Constants]:
    """No error estimate, no controller, no interpolation: yᵢ₊₁ = step(t₀ + i·dt, yᵢ)."""
    integration, inputs, controller = parts.integration, parts.inputs, parts.knobs.controller
    n, f = controller.n, integration.field
    width = (inputs.t1 - inputs.t0) / n

    def step(carry, i):
        start = State(inputs.t0 + i * width, *carry)
        t1 = jnp.where(i == n - 1, inputs.t1, inputs.t0 + (i + 1) * width)
        after = integration.stepper.step(f, start, t1, inputs.args, parts.knobs.tolerance).after
        if integration.watch is not None:
            moves = (start.t, i.astype(int)), (t1, i.astype(int) + 1)
            after = after._replace(y=integration.watch(after.y, inputs, *moves, i == n - 1))
        row = (t1, parts.observe(t1, after.y, inputs.args), None) if plan.keep.steps else None
        return (after.y, after.memory), row

    numbers = jnp.arange(n, dtype=inputs.t0.dtype)
    first = integration.begin(inputs)
    (y, _), rows = _scan(step, (first.y, first.memory), numbers, plan.gradient.memory)
    good = jnp.all(jnp.isfinite(y))
    zero = jnp.zeros((), jnp.int32)
    counts = Counts(zero + n, zero, zero, zero, zero)
    result = jnp.where(good, Result.success, Result.nonfinite).astype(jnp.int32)
    t_end, marks = inputs.t1, ()
    if plan.keep.steps:
        done = _finite(rows[1], n)
        t_end, marks = jnp.where(good, t_end, inputs.t0 + done.astype(width.dtype) * width), (done,)
    constants = Constants(t_end, jnp.abs(width), counts, result, marks)
    return Outputs(y, (rows,) if plan.keep.steps else ()), lax.stop_gradient(constants)


def _finite(rows: Any, n: int) -> jax.Array:
    """How many rows come before the first that is not finite."""
    flags = [jnp.all(jnp.isfinite(x).reshape(n, -1), axis=1) for x in jax.tree.leaves(rows)]
    return jnp.sum(jnp.cumprod(jnp.all(jnp.stack(flags), axis=0)), dtype=jnp.int32)


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
