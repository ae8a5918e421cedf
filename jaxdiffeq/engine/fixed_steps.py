"""Equal steps as a plain scan, which differentiates by itself in every mode."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdiffeq.engine.control import FixedSteps
from jaxdiffeq.engine.recorders import StepRows
from jaxdiffeq.frontend.plan import Arrays, Built, Plan
from jaxdiffeq.gradients.reverse import ReverseAD
from jaxdiffeq.gradients.rule import Constants, Outputs, poisoned
from jaxdiffeq.primitives.fused_region import fused_region
from jaxdiffeq.primitives.scan import scan
from jaxdiffeq.primitives.varying_axes import vary_like
from jaxdiffeq.types import Counts, Inputs, Result, State

MOST = 2**28  # bytes of states that a gradient keeps unless told otherwise


def marches(plan: Plan, arrays: Arrays) -> bool:
    """Whether the solve is a number of equal steps, with nothing between them to save or to land on."""
    controller = arrays.settings.controller
    if not isinstance(controller, FixedSteps) or controller.n is None or not isinstance(plan.gradient, ReverseAD):
        return False
    between = np.size(arrays.ts) or np.size(arrays.stops) or plan.dense or plan.keep.steps > 1 or plan.regularisers
    return not between and controller.n <= plan.max_steps


def march(plan: Plan, parts: Built) -> tuple[Outputs, Constants]:
    """No error estimate, no controller, no interpolation: yᵢ₊₁ = step(t₀ + i·dt, yᵢ)."""
    return fused_region(lambda: _march(plan, parts), derivative=False)


def _march(plan: Plan, parts: Built) -> tuple[Outputs, Constants]:
    integration, inputs, n = parts.integration, parts.inputs, parts.settings.controller.n

    def step(carry, i):
        *carry, work = carry
        t1, after, _, spent = _step(parts, inputs, carry, i)
        if integration.watch is not None:
            moves = (inputs.t0 + i * _width(inputs, n), i.astype(int)), (t1, i.astype(int) + 1)
            after = integration.watch(after[0], inputs, *moves, i == n - 1), after[1]
        row = StepRows(t1, parts.observe(t1, after[0], inputs.args), None) if plan.keep.steps else None
        return (*after, jax.tree.map(jnp.add, work, spent)), row

    numbers = jnp.arange(n, dtype=inputs.t0.dtype)
    first = integration.begin(inputs)
    nothing = jax.tree.map(lambda _: jnp.zeros((), jnp.int32), integration.stepper.work)
    carry = first.y, first.memory, nothing
    (y, _, work), rows = _scan(step, carry, numbers, plan.gradient.memory or _within(carry, n))
    good = jnp.all(jnp.isfinite(y))
    done, last, solved = _failure(parts, lax.stop_gradient(inputs), lax.stop_gradient(first), good)
    width = _width(inputs, n)
    blame = jnp.where(solved, Result.nonfinite, Result.nonlinear_solve_failed)
    constants = Constants(
        t=jnp.where(good, inputs.t1, inputs.t0 + done.astype(width.dtype) * width),
        dt=jnp.abs(width),
        counts=Counts(done, jnp.zeros_like(done), n - done, n - done, jnp.zeros_like(done), work),
        result=jnp.where(good, Result.success, blame).astype(jnp.int32),
        marks={"steps": done} if plan.keep.steps else {},
    )
    outputs = Outputs(poisoned(y, good, last), {"steps": rows} if plan.keep.steps else {})
    return outputs, constants


def _width(inputs: Inputs, n: int) -> jax.Array:
    return (inputs.t1 - inputs.t0) / n


def _step(parts: Built, inputs: Inputs, carry: Any, i: jax.Array) -> tuple[jax.Array, tuple, jax.Array, Any]:
    """The time after step i, the state and the stepper's memory, whether inner solves succeeded, and their work.

    The state is NaN if they did not: no later step can pass for an answer.
    """
    integration, n = parts.integration, parts.settings.controller.n
    width = _width(inputs, n)
    start = State(inputs.t0 + i * width, *carry)
    t1 = jnp.where(i == n - 1, inputs.t1, inputs.t0 + (i + 1) * width)
    taken = integration.stepper.step(integration.field, start, t1, inputs.args, parts.settings.tolerance)
    y, ok = taken.after.y, jnp.asarray(taken.ok)
    y = y if taken.ok is True else jnp.where(ok, y, jnp.nan)
    return t1, (y, taken.after.memory), ok, taken.work


def _failure(parts: Built, inputs: Inputs, first: State, good: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """How many steps are finite, the state after these, and whether the inner solves of the next one succeeded.

    That is all of them, or found by taking them again.

    A loop without a trip if the solve succeeds: to look at every state on the way would slow down every solve.
    """
    n = parts.settings.controller.n

    def finite(at):
        (y, _), i = at[2:4]
        return ~good & (i < n) & jnp.all(jnp.isfinite(y))

    def again(at):
        carry, i = at[2:4]
        _, after, ok, _ = _step(parts, inputs, carry, i.astype(inputs.t0.dtype))
        return i, carry[0], after, i + 1, ok

    zero = jnp.zeros((), jnp.int32)
    start = vary_like((zero, first.y, (first.y, first.memory), zero, jnp.array(True)), first.y)
    done, y, _, _, ok = lax.while_loop(finite, again, start)
    return jnp.where(good, n, done), y, ok


def _within(carry: Any, n: int) -> str | None:
    """Two levels where all states, with the Jacobians that some methods keep, would take too much memory."""
    return "sqrt" if n * sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(carry)) > MOST else None


def _scan(step: Callable, carry: Any, xs: Any, memory: Any) -> tuple[Any, Any]:
    """A scan, of which the backward pass keeps the states and recomputes the stages; "all" keeps these too.

    Recomputing is faster as well, since it touches less memory. With a bound on memory there are two levels, of which
    the inner one is recomputed.
    """
    n = xs.shape[0]
    if memory is None or memory == "all" or n < 4:
        return scan(step, carry, xs)
    outer = min(n, math.isqrt(n) if memory == "sqrt" else max(1, int(memory)))
    inner = n // outer

    def block(carry, xs):
        return scan(step, carry, xs)

    whole = outer * inner
    carry, rows = scan(block, carry, xs[:whole].reshape(outer, inner))
    rows = jax.tree.map(lambda x: x.reshape(whole, *x.shape[2:]), rows)
    if whole == n:
        return carry, rows
    carry, tail = block(carry, xs[whole:])
    return carry, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), rows, tail)
