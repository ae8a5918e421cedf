"""One compiled program for a solve, or chunks of steps outside of any trace."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiffeq import errors
from jaxdiffeq.engine.fixed_steps import EqualSteps
from jaxdiffeq.frontend.assemble import assemble, ends_of
from jaxdiffeq.frontend.packed import Packed
from jaxdiffeq.frontend.plan import Arrays, Plan, build, chunk, row_bytes
from jaxdiffeq.gradients.rule import differentiable, parts_of
from jaxdiffeq.primitives.jax_internals import on_plain_path, warn_of_failure
from jaxdiffeq.primitives.varying_axes import left_to_xla
from jaxdiffeq.solution import Solution
from jaxdiffeq.types import PyTree, Result

SYMBOLIC = 2**16  # bytes that a state is taken to have whose size is a symbol, in an export


def execute(plan: Plan, arrays: Arrays) -> tuple[Plan, Solution]:
    """Run, and raise what the user's functions raise; on the plain path, which then is in the plan returned, where the
    fast one cannot be built."""
    with failures_as_values():
        return errors.out_of_user_code(_on_either_path, plan, arrays)


@contextlib.contextmanager
def failures_as_values() -> Iterator[None]:
    """NaN is an answer here: of a solve that failed, which says so itself, and in rows that were never written."""
    if not (jax.config.jax_debug_nans or jax.config.jax_debug_infs):
        yield
        return
    with jax.debug_nans(False), jax.debug_infs(False):
        yield


def _on_either_path(plan: Plan, arrays: Arrays) -> tuple[Plan, Solution]:
    if plan.plain:
        with on_plain_path():
            return plan, _run(plan, arrays)
    try:
        return plan, _run(plan, arrays)
    except errors.InUserCode:
        raise
    except Exception as error:
        try:
            ran = _on_either_path(dataclasses.replace(plan, plain=True), arrays)
        except Exception:
            raise error from None
        warn_of_failure("a solve", error)
        return ran


def _run(plan: Plan, arrays: Arrays) -> Solution:
    """Once; where it is known that the past was too short, again with four times as much of it."""
    while True:
        solution = _once(plan, arrays)
        memory = plan.memory
        if memory is None or memory.rows >= memory.most or not errors.concrete(solution.result):
            return solution
        if np.all(np.asarray(solution.result) != Result.history_too_short):
            return solution
        plan = dataclasses.replace(plan, memory=memory._replace(rows=min(4 * memory.rows, memory.most)))


def _once(plan: Plan, arrays: Arrays) -> Solution:
    solution = _in_chunks(plan, arrays) if plan.every_step and errors.all_concrete(arrays) else None
    return left_to_xla(functools.partial(_whole, plan), arrays).open() if solution is None else solution


def whole(plan: Plan, arrays: Arrays) -> Solution:
    """All of it as one program, for another one that it is a part of."""
    return _whole(plan, arrays).open()


@functools.partial(jax.jit, static_argnums=0)
def _whole(plan: Plan, arrays: Arrays) -> Packed:
    n, room = plan.equal_steps, plan.room
    if plan.every_step:
        errors.buffer_size(room, row_bytes(plan), room)
    parts = build(plan, arrays, room)
    integration = parts.integration if n is None else EqualSteps(parts.integration, n)
    state = jax.eval_shape(integration.begin, parts.inputs)  # with a Jacobian, if the method keeps one
    state_bytes = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    state_bytes = state_bytes if isinstance(state_bytes, int) else SYMBOLIC
    bind = plan.gradient.bind if n is None else plan.gradient.on_equal_steps
    strategy = bind(plan.max_steps if n is None else n, state_bytes)
    outputs, constants = differentiable(strategy, integration, parts.inputs, parts.settings)
    records = {name: integration.recorders[name].rows(record) for name, record in outputs.records.items()}
    return Packed.of(assemble(jnp, plan, ends_of(parts, outputs, constants), records, constants))


# ---- chunks: exactly as many rows as steps, whatever max_steps is, and a solve that can be interrupted


@functools.partial(jax.jit, static_argnums=0)
def _chunk(plan: Plan, arrays: Arrays, before: Packed | None) -> Packed:
    n = plan.equal_steps if plan.room * row_bytes(plan) <= errors.ROOM else None
    parts = build(plan, arrays, chunk(plan) if n is None else plan.room)
    recorders = parts.integration.recorders
    carry = None
    if before is not None:  # go on; the rows of the last chunk have been taken away
        carry = before.open()[0]
        marks = {name: r.between_chunks(carry.control.marks[name])[1] for name, r in recorders.items()}
        carry = carry._replace(control=carry.control._replace(marks=marks))
    if n is None:
        carry = parts.integration.run(parts.inputs, parts.settings, carry, pause=chunk(plan))
    else:  # all of them at once
        carry = EqualSteps(parts.integration, n).run(parts.inputs, parts.settings)
    counts = {name: r.between_chunks(carry.control.marks[name])[0] for name, r in recorders.items()}
    stay = [name for name, count in counts.items() if count is None and not recorders[name].inner]
    staying = {name: recorders[name].rows(carry.records[name]) for name in stay}
    return Packed.of((carry, ends_of(parts, *parts_of(carry)), counts, staying), limit=64)


def _in_chunks(plan: Plan, arrays: Arrays) -> Solution | None:
    """Run outside of any trace; None when f turns out to close over a tracer."""
    bundle, pieces = None, []
    while True:
        bundle = left_to_xla(lambda operands: _chunk(plan, *operands), (arrays, bundle))
        if not errors.all_concrete(bundle):
            return None
        carry, ends, counts, staying = jax.device_get(bundle.open())
        outputs, constants = parts_of(carry)
        leaving = {name: count for name, count in counts.items() if count is not None}
        pieces.append({name: _head(outputs.records[name], count) for name, count in leaving.items()})
        if constants.result != Result.running:
            break
    rows = jax.tree.map(lambda *xs: np.concatenate(xs), *pieces)
    totals = {name: sum(len(piece[name].t) for piece in pieces) for name in rows}
    constants = constants._replace(marks=constants.marks | totals)
    return _on_device(assemble(np, plan, ends, staying | rows, constants))


def _head(rows: PyTree, count: int) -> PyTree:
    return jax.tree.map(lambda x: x[:count], rows)


def _on_device(solution: Solution) -> Solution:
    """Its arrays as JAX arrays; single numbers stay on the host, where a solve outside of `jit` looks at them."""
    leaves, tree = jax.tree.flatten(solution)
    arrays = iter(jax.device_put([x for x in leaves if np.ndim(x)]))
    return tree.unflatten([next(arrays) if np.ndim(x) else x for x in leaves])
