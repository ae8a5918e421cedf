"""Steady states: f(y, args) = 0 by Newton's method, damped, and by following the flow where that fails."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdiffeq import errors
from jaxdiffeq.algebra.newton import attached
from jaxdiffeq.algebra.norm import rms
from jaxdiffeq.algebra.vectors import like, real_vector, spread
from jaxdiffeq.engine.control import FixedSteps, Tolerance
from jaxdiffeq.frontend.options import Options
from jaxdiffeq.frontend.plan import Arrays, Plan, build, prepare
from jaxdiffeq.gradients import support
from jaxdiffeq.gradients.rule import poisoned
from jaxdiffeq.primitives.varying_axes import left_to_xla
from jaxdiffeq.primitives.while_loop import frozen_while
from jaxdiffeq.problems.definitions import SteadyStateProblem, terms_at_rest
from jaxdiffeq.problems.vector_field import VectorField
from jaxdiffeq.solution import Stats
from jaxdiffeq.types import PyTree, Result

SMALLEST = 2.0**-10  # the last damping factor that is tried
FLOW = 10  # steps along the flow before Newton's method is tried again
ROUNDS = 50  # such turns before the search is given up
SLOW = 1e-6  # steps so short, in units of the tolerance, that do not shrink tenfold approach a multiple root
NO_STEP = FixedSteps(dt=1.0)  # over an instant: none is ever taken


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SteadyState:
    """A state with f(y, args) = 0, or NaN. Shapes: ys is a pytree like y0."""

    ys: PyTree
    stats: Stats
    result: jax.Array
    """a code of `Result`, 0 for success"""

    @property
    def ok(self) -> jax.Array:
        return self.result == Result.success

    @property
    def status(self) -> str:
        """The result code by its name."""
        return Result(int(self.result)).name


def solve_steady(problem: SteadyStateProblem, options: Options) -> SteadyState:
    """Find y with f(y, args) = 0. Gradients flow to args and to what f closes over; none to y0.

    Newton's method starts at y0; each step is shortened until it makes the next one shorter. Where that does not help,
    implicit Euler steps that grow follow dy/dt = f instead, to where it settles: pseudo-transient continuation. A root
    counts once a full step is within the tolerance, and the next one at most a tenth of it: at a multiple root, where
    there is no derivative, the search fails.
    Source: Deuflhard, Newton Methods for Nonlinear Problems, 3.3; Kelley, Keyes, SIAM J. Numer. Anal. 35 (1998) 508.
    """
    errors.no_time(options)
    support.check_steady(options.gradient)
    plan, arrays = prepare(terms_at_rest(problem), replace(options, controller=NO_STEP))
    errors.unknowns(plan.ravel.size, algebraic=True)
    found = errors.out_of_user_code(left_to_xla, functools.partial(_search, plan), arrays)
    if options.throw and errors.all_concrete(found):
        _raise_if_failed(found)
    return found


def _raise_if_failed(found: SteadyState) -> None:
    if np.ndim(found.result) == 0 and int(found.result) != Result.success:
        result = Result(int(found.result))
        raise errors.BY_RESULT[result](
            f"the search for a steady state stopped with {result.name} after {int(found.stats.steps)} steps. Look "
            f"whether f has a root, give a `y0` closer to it, or follow the flow with an ODEProblem. `throw=False` "
            f"returns NaN with the result code.",
            found,
        )


@functools.partial(jax.jit, static_argnums=0)
def _search(plan: Plan, arrays: Arrays) -> SteadyState:
    parts = build(plan, arrays, 1)
    y0, args, settings = lax.stop_gradient(parts.inputs.y0), parts.inputs.args, parts.settings
    system = parts.integration.field.on_vectors(y0)

    start = lax.stop_gradient(real_vector(y0))
    search = _Search(system, y0, lax.stop_gradient(args), settings.tolerance, settings.max_steps)
    v, result, stats = search.run(start)

    def slope(v, args):
        return system(jnp.zeros((), v.dtype), v, args)

    def exact(v, args):
        t = jnp.zeros((), v.dtype)
        return system.algebra.shifted(t, None, system.linearised(t, v, args)[1])

    v = attached(jnp.where(result == Result.success, v, start), slope, system.algebra, exact, args)
    y = poisoned(like(v, y0), result == Result.success)
    return SteadyState(plan.ravel.unpack(y), stats, result)


class _At(NamedTuple):
    """Where the search stands. `damping` is that of Newton's next step, `dt` the next step along the flow."""

    v: jax.Array
    anchor: jax.Array
    """where the flow was left for Newton's method"""
    damping: jax.Array
    dt: jax.Array
    left: jax.Array
    """steps to go along the flow; Newton's method if none are"""
    rounds: jax.Array
    tried: jax.Array
    accepted: jax.Array
    result: jax.Array


class _Search:
    """One search, from one guess."""

    def __init__(self, system: VectorField, y0: jax.Array, args: Any, tolerance: Tolerance, max_steps: jax.Array):
        self.system, self.like, self.args, self.max_steps = system, y0, args, max_steps
        self.tolerance, self.algebra = tolerance, system.algebra

    def run(self, v: jax.Array) -> tuple[jax.Array, jax.Array, Stats]:
        zero, one = jnp.zeros((), jnp.int32), jnp.ones((), v.dtype)
        f, jacobian = self._derivative(v)
        largest = self.algebra.magnitude(jacobian)
        dt = 1 / jnp.where(largest > 0, largest, 1)
        finite = jnp.all(jnp.isfinite(f)) & jnp.isfinite(largest)
        result = jnp.where(finite, Result.running, Result.nonfinite).astype(jnp.int32)
        start = _At(v, v, one, jnp.where(finite, dt, one), zero, zero, zero, zero, result)
        _, last = frozen_while(lambda _, at: at.result == Result.running, self._trip, (), start)
        tried, accepted = last.tried, last.accepted
        stats = Stats(tried, accepted, zero, tried - accepted, 2 * tried + 1, tried + 1, tried, 2 * tried, tried, zero)
        return last.v, last.result, stats

    def _derivative(self, v: jax.Array) -> tuple[jax.Array, Any]:
        return self.system.linearised(jnp.zeros((), v.dtype), v, self.args)

    def _size(self, dv: jax.Array, v: jax.Array) -> jax.Array:
        """In units of the tolerance."""
        y = like(v, self.like)
        scale = spread(self.tolerance.scale(y, y), y)
        return rms(dv / jnp.where(scale > 0, scale, jnp.finfo(v.dtype).tiny))

    def _trip(self, _: tuple, at: _At) -> tuple[tuple, _At]:
        """One step: of Newton's method, where 1/dt is zero, or along the flow."""
        flows = at.left > 0
        f, jacobian = self._derivative(at.v)
        factors = self.algebra.factor(self.algebra.shifted(jnp.where(flows, 1 / at.dt, 0), None, jacobian))
        dv = self.algebra.solve(factors, f)
        v = at.v + jnp.where(flows, 1, at.damping) * dv
        after = self.system(jnp.zeros((), v.dtype), v, self.args)
        rest = self.algebra.solve(factors, after)
        finite = jnp.all(jnp.isfinite(v)) & jnp.all(jnp.isfinite(after)) & jnp.all(jnp.isfinite(rest))
        newton = self._newton(at, v, rest, (self._size(dv, at.v), self._size(rest, at.v)))
        flow = self._flow(at, v, finite, (rms(f), rms(after)))
        refused = self._refused(at)
        tried, rounds = at.tried + 1, at.rounds
        new = jax.tree.map(lambda a, b, c: jnp.where(flows, a, jnp.where(finite, b, c)), flow, newton, refused)
        given_up = jnp.where(tried >= self.max_steps, Result.max_steps_reached, Result.running)
        given_up = jnp.where(rounds >= ROUNDS, Result.nonlinear_solve_failed, given_up)
        result = jnp.where(new.result == Result.running, given_up, new.result).astype(jnp.int32)
        new = new._replace(tried=tried, result=result)
        return (), jax.tree.map(lambda a, b: jnp.where(at.result == Result.running, a, b), new, at)

    def _newton(self, at: _At, v: jax.Array, rest: jax.Array, sizes: tuple) -> _At:
        before, after = sizes
        full = at.damping == 1
        floor = 100 * jnp.finfo(v.dtype).eps * self._size(v, v)
        done = full & (before <= 1) & (after <= jnp.maximum(0.1 * before, floor))
        shorter = (after <= (1 - at.damping / 4) * before) | done
        slow = full & (before <= SLOW) & ~done
        result = jnp.where(slow, Result.nonlinear_solve_failed, Result.running)
        result = jnp.where(done, Result.success, result).astype(jnp.int32)
        taken = at._replace(
            v=jnp.where(done, v + rest, v),
            damping=jnp.minimum(2 * at.damping, 1),
            accepted=at.accepted + 1,
            result=result,
        )
        return jax.tree.map(lambda a, b: jnp.where(shorter, a, b), taken, self._refused(at))

    def _refused(self, at: _At) -> _At:
        """Newton's method with half the step, or the flow from where it was left."""
        damping = at.damping / 2
        over = damping < SMALLEST
        return at._replace(
            v=jnp.where(over, at.anchor, at.v),
            damping=jnp.where(over, 1, damping),
            left=jnp.where(over, FLOW, 0).astype(at.left.dtype),
            rounds=at.rounds + over.astype(at.rounds.dtype),
        )

    def _flow(self, at: _At, v: jax.Array, finite: jax.Array, sizes: tuple) -> _At:
        """Steps grow as f falls, and at least twofold."""
        before, after = sizes
        growth = jnp.clip(2 * before / jnp.where(after > 0, after, 1), 2, 10)
        taken = at._replace(v=v, anchor=v, dt=at.dt * growth, left=at.left - 1, accepted=at.accepted + 1)
        small = at.dt / 10
        lost = jnp.where(small > 0, Result.running, Result.nonfinite).astype(jnp.int32)
        return jax.tree.map(lambda a, b: jnp.where(finite, a, b), taken, at._replace(dt=small, result=lost))
