"""Two methods, of which each step takes one: an explicit one while it is not held up by stiffness, else a stiff one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiffeq import errors
from jaxdiffeq.algebra.norm import rms
from jaxdiffeq.primitives.jax_internals import plain_path
from jaxdiffeq.primitives.varying_axes import vary_like
from jaxdiffeq.problems.vector_field import VectorField
from jaxdiffeq.steppers.base import NO_WORK, StepperDefaults
from jaxdiffeq.types import PyTree, State, Step, Work

NONSTIFF, STIFF = 0, 1
PATIENCE = 10, 5
"""how many steps in favour of the other method, more than against it, until it takes over"""
MARGIN = 0.8, 0.4
"""of the explicit method's stability limit: an explicit step above the first speaks for the stiff method, as does one
above the second that stability alone holds up; a step of the stiff method below the second for the explicit one"""

BEYOND = 1.2
"""times the stability limit: an explicit step is not longer, whatever its estimate of the error"""

MANY = 500  # unknowns of an adjoint equation, parameters included


class AutoMemory(NamedTuple):
    """Which method is next, how many steps spoke for the other one, and what each carries."""

    mode: jax.Array
    votes: jax.Array
    nonstiff: PyTree
    stiff: PyTree


@dataclass(frozen=True)
class Auto(StepperDefaults):
    """An explicit method that hands over to a stiff one, and back, during the solve.

    dt·|λ|, with an estimate of the fastest rate |λ| that every step makes anyway, is compared with the explicit
    method's stability limit on the negative real axis. A step at that limit is one whose size stability dictates.
    Source: Hairer, Wanner, Solving ODEs II, IV.2; Petzold 1983, doi:10.1137/0904010, for switching both ways.
    """

    nonstiff: Any
    stiff: Any

    def __post_init__(self) -> None:
        errors.automatic_pair(self.nonstiff, self.stiff)

    def __repr__(self) -> str:
        return f"Auto({self.nonstiff!r}, {self.stiff!r})"

    @property
    def name(self) -> str:
        return f"Auto({self.nonstiff.name}, {self.stiff.name})"

    work = NO_WORK

    @property
    def compact(self) -> Auto:
        return replace(self, nonstiff=self.nonstiff.compact, stiff=self.stiff.compact)

    @property
    def regularisers(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return tuple(name for name in self.nonstiff.regularisers if name in self.stiff.regularisers)

    @property
    def order(self) -> int:
        return self.nonstiff.order

    @property
    def error_order(self) -> int:
        return min(self.nonstiff.error_order, self.stiff.error_order)

    @property
    def embedded_order(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.nonstiff.embedded_order

    @property
    def dense_order(self) -> int:
        return min(self.nonstiff.dense_order, self.stiff.dense_order)

    @property
    def degree(self) -> int:
        return max(self.nonstiff.degree, self.stiff.degree)

    @property
    def evaluations(self) -> tuple[int, int, int]:
        """Calls of f: at the start, and at most in the dense output of a step; the rest is counted step by step."""
        return self.nonstiff.evaluations[0], 0, max(self.nonstiff.evaluations[2], self.stiff.evaluations[2])

    def sized(self, n: int) -> Any:
        """With very many the explicit one alone, as their Jacobian would fill the memory."""
        return self if n <= MANY else self.nonstiff

    def init(self, f: VectorField, t: jax.Array, y: jax.Array, args: PyTree) -> AutoMemory:
        zero = jnp.zeros((), jnp.int32)
        shape = jax.eval_shape(lambda: self.stiff.init(f, t, y, args))
        return AutoMemory(zero, zero, self.nonstiff.init(f, t, y, args), _zeros(shape, y))

    def step(self, f: VectorField, start: State, t1: jax.Array, args: PyTree, tolerance: Any) -> Step:
        memory = start.memory
        methods = replace(self.nonstiff, measures=True), replace(self.stiff.smallest, measures=True)

        def attempt(which: int) -> Step:
            carried = (memory.nonstiff, memory.stiff)[which]
            return _step(methods[which], f)(State(start.t, start.y, carried), t1, args, tolerance)

        shapes = [jax.eval_shape(lambda k=k: attempt(k)) for k in (NONSTIFF, STIFF)]

        def alike(which: int) -> Step:
            """The step, with room for what the other method would have left."""
            step = attempt(which)
            carried = [memory.nonstiff, memory.stiff]
            carried[which] = step.after.memory
            dense = [_zeros(shape.dense, start.y) for shape in shapes]
            dense[which] = step.dense
            after = step.after._replace(memory=tuple(carried))
            order = methods[which].error_order if step.error_order is None else step.error_order
            step_factor = jnp.zeros_like(start.t) if step.step_factor is None else step.step_factor
            step = step._replace(
                after=after,
                dense=tuple(dense),
                ok=jnp.asarray(step.ok),
                work=self._work(which, step),
                error_order=jnp.asarray(order, start.t.dtype),
                step_factor=step_factor,
            )
            return vary_like(step, start.y)

        step = lax.cond(memory.mode == STIFF, lambda: alike(STIFF), lambda: alike(NONSTIFF))
        stretch = self._stretch(step, jnp.abs(t1 - start.t))
        error, held_up = self._judged(step, start.y, memory.mode == STIFF, stretch, tolerance)
        after = step.after._replace(memory=self._vote(f, memory, step, (stretch, held_up), args))
        return step._replace(after=after, dense=(memory.mode, *step.dense), error=error)

    def _stretch(self, step: Step, dt: jax.Array) -> jax.Array:
        """dt·|λ| in units of the explicit method's stability limit."""
        assert step.spectral_radius is not None
        return dt * lax.stop_gradient(step.spectral_radius).astype(dt.dtype) / self.nonstiff.tableau.stability_limit

    def _judged(self, step: Step, y: jax.Array, stiff: jax.Array, stretch: jax.Array, tolerance: Any) -> tuple:
        """The error, and whether stability holds an explicit step up, which counts as (stretch/BEYOND)ᵏ tolerances.

        So no step is longer than that, nor is the next one meant to be: beyond the limit the estimate crosses zero, and
        what a step makes of stiff components at rest is nothing until it is too much.
        """
        assert step.error is not None
        unit, error = tolerance.of_error(y, step.after.y), jnp.abs(step.error)
        least = (stretch / BEYOND) ** self.nonstiff.error_order
        held_up = ~stiff & (lax.stop_gradient(rms(error / unit)) < least)
        # where errors do not count, their unit is infinite
        floor = jnp.where(jnp.isfinite(unit), unit, 0) * least.astype(unit.dtype)
        return jnp.where(held_up, jnp.maximum(error, floor).astype(step.error.dtype), step.error), held_up

    def _work(self, which: int, step: Step) -> Work:
        method = (self.nonstiff, self.stiff)[which]
        varied = step.work or NO_WORK
        total = [jnp.asarray(a + b, jnp.int32) for a, b in zip(method.costs, varied, strict=True)]
        total[0] = total[0] + method.evaluations[1]
        return Work(*total)

    def _vote(self, f: VectorField, memory: AutoMemory, step: Step, measured: tuple, args: PyTree) -> AutoMemory:
        stretch, held_up = measured
        stiff = memory.mode == STIFF
        limited = (stretch > MARGIN[NONSTIFF]) | (held_up & (stretch > MARGIN[STIFF]))
        other = jnp.where(stiff, stretch < MARGIN[STIFF], limited)
        votes = jnp.where(other, memory.votes + 1, jnp.maximum(memory.votes - 1, 0))
        switch = votes >= jnp.where(stiff, PATIENCE[STIFF], PATIENCE[NONSTIFF])
        mode = jnp.where(switch, 1 - memory.mode, memory.mode)
        t, y, carried = step.after.t, step.after.y, step.after.memory

        def begin():
            return vary_like(tuple(method.init(f, t, y, args) for method in (self.nonstiff, self.stiff)), y)

        nonstiff, stiff_memory = lax.cond(switch, begin, lambda: carried)
        return AutoMemory(mode, jnp.where(switch, 0, votes), nonstiff, stiff_memory)

    def polynomial(self, f: VectorField, dense: Any, args: PyTree) -> jax.Array:
        """Coefficients in θ of whichever method took the step; zeros beyond its degree."""
        mode, *parts = dense

        def of(which: int) -> jax.Array:
            method = (self.nonstiff, self.stiff)[which]
            coefficients = method.polynomial(f, parts[which], args)
            room = [(0, self.degree - method.degree)] + [(0, 0)] * (coefficients.ndim - 1)
            return jnp.pad(coefficients, room)

        return lax.cond(mode == STIFF, lambda: of(STIFF), lambda: of(NONSTIFF))


def _step(method: Any, f: VectorField) -> Callable:
    """`method.step(f, …)`, traced once, and not for its shapes, for the solve, with a log and for a replay."""
    key = method, plain_path()
    if key not in f.programs:
        f.programs[key] = jax.jit(lambda *given: method.step(f, *given), inline=True)
    return f.programs[key]


def _zeros(shapes: PyTree, y: jax.Array) -> PyTree:
    return vary_like(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes), y)
