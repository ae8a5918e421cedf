"""Stepping by hand: init, step, look, go on."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiffeq import errors
from jaxdiffeq.engine.integration import Carry
from jaxdiffeq.engine.log import Held, Window, WindowMarks
from jaxdiffeq.events import listed
from jaxdiffeq.frontend.options import Options
from jaxdiffeq.frontend.plan import Arrays, Built, Plan, build
from jaxdiffeq.frontend.saveat import SaveAt
from jaxdiffeq.frontend.steady_doses import prepared
from jaxdiffeq.primitives.row_buffer import read, rows
from jaxdiffeq.problems.definitions import terms_of
from jaxdiffeq.types import PyTree, Result, Sizing

OPTIONS = "method", "rtol", "atol", "first_step", "controller", "max_steps", "stops", "events", "max_events"


class IntegratorState(NamedTuple):
    """Where an integration stands: a pytree of arrays, which may be stored and gone on from."""

    t: jax.Array
    y: PyTree
    result: jax.Array
    """`Result.running` until the end or a failure"""
    carry: Carry


class Integrator:
    """A problem taken step by step: `state = integrator.init()`, then `state = integrator.step(state)`.

    n steps and then m are n + m steps to the bit, whether or not the state was stored in between. After the end, or a
    failure, a step changes nothing. `step` is differentiable in every mode, in the problem and in the state, and may
    be used under `jit`, `vmap` and `lax.scan`. Options are those of `solve`.
    """

    def __init__(
        self,
        problem: Any,
        method: Any = None,
        *,
        rtol: Any = 1e-3,
        atol: Any = 1e-6,
        first_step: Any = None,
        controller: Any = None,
        max_steps: int = 100_000,
        stops: Any = (),
        events: Any = (),
        max_events: int = 100,
        **others: Any,
    ):
        errors.no_other_options(others, "Integrator", OPTIONS)
        terms = terms_of(problem)
        steering = rtol, atol, first_step, controller, max_steps, stops
        happen = {"events": listed(events), "max_events": max_events}
        asked = Options(method, SaveAt(t1=True), False, *steering, **happen)
        self.plan, self.arrays = prepared(terms, asked.settled(terms))

    def init(self) -> IntegratorState:
        """The state before the first step."""
        return _init(self.plan, self.arrays)

    def step(self, state: IntegratorState) -> IntegratorState:
        """One accepted step, after as many rejected attempts as it takes."""
        return _step(self.plan, self.arrays, state)

    def run(self, state: IntegratorState, steps: int) -> IntegratorState:
        """`steps` accepted steps in one loop, or fewer to the end; differentiable in forward mode."""
        return _run(self.plan, self.arrays, state, jnp.asarray(steps, jnp.int32))


def _built(plan: Plan, arrays: Arrays) -> Built:
    """Without a log of events: a state is as large after every step."""
    parts = build(plan, arrays, 1)
    return parts._replace(integration=parts.integration.bare)


def _state(plan: Plan, carry: Carry) -> IntegratorState:
    return IntegratorState(carry.state.t, plan.ravel.unpack(carry.state.y), carry.control.result, carry)


@functools.partial(jax.jit, static_argnums=0)
def _init(plan: Plan, arrays: Arrays) -> IntegratorState:
    parts = _built(plan, arrays)
    carry = parts.integration.start(parts.inputs, parts.settings)
    filled = lambda x: jnp.zeros(x.shape, x.dtype) if isinstance(x, jax.ShapeDtypeStruct) else x
    return _state(plan, carry._replace(records=jax.tree.map(filled, carry.records)))


@functools.partial(jax.jit, static_argnums=0)
def _run(plan: Plan, arrays: Arrays, state: IntegratorState, steps: jax.Array) -> IntegratorState:
    parts = _built(plan, arrays)
    return _state(plan, parts.integration.run(parts.inputs, parts.settings, state.carry, steps))


@functools.partial(jax.jit, static_argnums=0)
def _step(plan: Plan, arrays: Arrays, state: IntegratorState) -> IntegratorState:
    """The size of the step is found first, as a constant to differentiation; then the step is taken once more."""
    parts = _built(plan, arrays)
    integration, inputs, carry = parts.integration, parts.inputs, state.carry
    before = carry.control
    begun = Sizing(before.dt, None, before.watch, integration.nothing_fired)
    window = rows((carry.state, begun), 1)
    records, made = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), window)
    mark = WindowMarks(before.counts.steps, made)
    inputs = integration.recollecting(inputs, carry.records)
    searching = Carry(carry.state, {"window": records}, before._replace(marks={"window": mark}))
    fixed = lax.stop_gradient((inputs, parts.settings, searching))
    found = integration.with_recorders(window=Window(1)).run(*fixed, pause=1)
    taken = found.control.counts.steps > before.counts.steps

    made = read(found.control.marks["window"].made, jnp.zeros((), jnp.int32))
    made = jax.tree.map(lambda new, old: jnp.where(taken, new, old), made, begun)
    step, view, after = integration.moved(inputs, parts.settings, carry.state, made, taken, before.counts.steps)
    kept = jax.tree.map(lambda new, old: jnp.where(taken, new, old), after, carry.state)
    held, _ = integration.recorded(inputs, Held(carry.records, before.marks), view, step.dense)
    return _state(plan, Carry(kept, held.records, found.control._replace(marks=held.marks)))


def finished(state: IntegratorState) -> jax.Array:
    """Whether there is nothing left to do, for good or ill."""
    return state.result != Result.running
