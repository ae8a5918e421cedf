"""What the parts hand each other, and the result codes."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

PyTree = Any


class Result(IntEnum):
    """How a solve ended. `RUNNING` is internal: no solution carries it."""

    running = -1
    success = 0
    terminated = 1
    max_steps_reached = 2
    step_size_too_small = 3
    nonlinear_solve_failed = 4
    nonfinite = 5
    initialisation_failed = 6
    event_limit_reached = 7
    history_too_short = 8

    def __jax_array__(self) -> jax.Array:  # op by op, JAX takes a subclass of int for an int64
        return jnp.asarray(self.value, jnp.int32)


class Inputs(NamedTuple):
    """Everything a gradient may flow to.

    Shapes: y0 [*state], t0 and t1 [], ts [times] in the order of travel, stops [stops]; args is any pytree of arrays.
    """

    y0: jax.Array
    args: PyTree
    t0: jax.Array
    t1: jax.Array
    ts: jax.Array
    stops: jax.Array


class State(NamedTuple):
    """Where an integration stands: time, state, and what the stepper carries from step to step."""

    t: jax.Array
    y: jax.Array
    memory: PyTree
    stops: Any = ()
    """times to land on that steps have asked for; see `jaxdiffeq.engine.stops`"""
    events: Any = ()
    """an `Ahead`, of a solve with events"""


class Ahead(NamedTuple):
    """What events have left for later: the next time of every timer, [timers], and parameters that they change."""

    timers: jax.Array
    changed: list[jax.Array]


class Context(NamedTuple):
    """What a vector field may ask besides (t, y, args): the number of accepted steps before this one, and the span."""

    number: Any
    span: Any = ()
    """t₀ and t₁ of the solve"""


class Increment(NamedTuple):
    """What a Brownian motion W does over a step from t₀ to t₁ = t₀ + h. Shapes: w and area are those of W.

    Units: w and area have that of √t.
    """

    w: jax.Array
    """W(t₁) − W(t₀) ~ N(0, h)"""
    area: jax.Array
    """its space-time Lévy area, (1/h)·∫ (W(t) − W(t₀)) dt − (W(t₁) − W(t₀))/2 ~ N(0, h/12), independent of w"""
    key: jax.Array
    """for whatever else is drawn in this step"""


class Step(NamedTuple):
    """One attempted step: the new state, the raw error vector, and what its dense output needs.

    `ok` is false when an inner solve failed: the loop, and only the loop, turns that into a rejection.
    """

    after: State
    error: jax.Array | None
    dense: PyTree
    ok: jax.Array | bool
    work: Any = ()
    """a `Work`, of methods whose work varies from step to step"""
    spectral_radius: jax.Array | None = None
    """the fastest rate in the system, about the largest |eigenvalue| of ∂f/∂y; of methods that `measure` it"""
    error_order: jax.Array | None = None
    """the power of dt in the error, of methods whose order varies"""
    step_factor: jax.Array | None = None
    """the factor by which the next step should differ; None, or 0: the controller concludes it from the error alone"""
    restart: jax.Array | None = None
    """f is another one from here on: the stepper's memory is made again. None: never"""
    result: jax.Array | None = None
    """how the solve ends with this step, if it is accepted; None, or `Result.running`: it goes on"""
    stops: jax.Array | None = None
    """times ahead to land on, [asked]; NaN: not this time. Taken by an integration with room for them"""


class Work(NamedTuple):
    """What one attempted step took, or all of them, besides what every step of the method takes."""

    f_evals: Any
    jac_evals: Any
    factorizations: Any
    linear_solves: Any
    newton_iterations: Any


class Verdict(NamedTuple):
    """The controller's judgement: keep the step or not, the next size (unsigned), and its own memory.

    `cause` is the result code that a rejection stands for, should the solve end here; `stop`: it does.
    """

    accept: jax.Array
    dt: jax.Array
    memory: PyTree
    cause: jax.Array
    stop: jax.Array


class Counts(NamedTuple):
    """What happened so far; everything else in `sol.stats` follows from these."""

    steps: jax.Array
    rejected_error: jax.Array
    rejected_solver: jax.Array
    streak: jax.Array
    """rejections since the last accepted step"""
    dense: jax.Array
    """steps whose dense output was evaluated"""
    work: Any = ()
    """a `Work`, as in `Step`"""
    restarts: Any = ()
    """how often the stepper's memory was made again, of a solve where it may be"""
    located: Any = ()
    """attempts that have found an event on their way, and were taken again to land on it"""


class Sizing(NamedTuple):
    """How a step was made: the size that was tried, the controller's memory, and what events knew when it began."""

    dt: Any
    controller: PyTree = None
    watch: Any = ()
    """a `jaxdiffeq.engine.events.Watch`, of a solve with events"""
    fired: Any = ()
    """which conditions, flags and timers act at the end, [all of them]"""


class Settings(NamedTuple):
    """Numbers that steer a solve and that no gradient flows to; a new value never recompiles."""

    controller: PyTree
    tolerance: PyTree
    first_step: jax.Array | None
    max_steps: jax.Array
    begins: jax.Array | None = None
    """how a solve begins: `Result.running`, or the code of a failure that is known before the first step; None: the
    former"""
    patience: jax.Array | None = None
    """attempts after which it ends as if by `max_steps`, unless a tenth of the way is done; None: without end"""


# ---- what recorders see


class Estimates(NamedTuple):
    """What a step says about itself; see `Step`."""

    error: jax.Array | None = None
    spectral_radius: jax.Array | None = None


class StepView(NamedTuple):
    """One step as a recorder sees it. `taken` is false for a rejected attempt: then nothing may change."""

    before: State
    after: State
    end: jax.Array
    """y at the right end of the interpolant: that of `after`, unless the solve began anew there"""
    coefficients: jax.Array | None
    made: Sizing
    taken: jax.Array
    number: jax.Array
    """steps accepted before this one"""
    estimates: Estimates = Estimates()
    chain: Any = None
    """y at the right end, before and after each of the events there in turn, [events + 1, *state]"""
    grazing: Any = None
    """a condition that acts there hardly crosses zero"""
    together: bool = False
    """lanes of a `vmap` take this step at one time: its number is the same in all of them"""


class Shapes(NamedTuple):
    """What else a recorder may have to make room for."""

    coefficients: Any
    made: Sizing


class StepCotangents(NamedTuple):
    """Cotangents around one step, as a reverse sweep collects them."""

    before_t: jax.Array
    after: State
    coefficients: jax.Array | None
    inputs: list[jax.Array]
    """of the active leaves of the inputs"""
    estimates: Estimates = Estimates()
    chain: Any = None

    def add(self, before_t: Any, after: Any, coefficients: Any, inputs: Any, **more: Any) -> StepCotangents:
        """With these added; `more`: estimates and chain, if not zero."""
        rest = {name: jax.tree.map(jnp.zeros_like, getattr(self, name)) for name in ("estimates", "chain")} | more
        return jax.tree.map(jnp.add, self, StepCotangents(before_t, after, coefficients, inputs, **rest))
