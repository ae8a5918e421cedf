"""Steady states: f(y, args) = 0 by Newton's method, damped, or by following the flow to where it settles."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdiffeq import errors
from jaxdiffeq.algebra.conserved import amplification, conserved, rounding_of, size_of
from jaxdiffeq.algebra.newton import attached
from jaxdiffeq.algebra.norm import rms
from jaxdiffeq.algebra.vectors import like, real_vector, spread
from jaxdiffeq.engine.control import FixedSteps
from jaxdiffeq.frontend.options import Options
from jaxdiffeq.frontend.plan import Arrays, Plan, build, prepare
from jaxdiffeq.gradients import support
from jaxdiffeq.gradients.rule import poisoned
from jaxdiffeq.primitives.varying_axes import left_to_xla
from jaxdiffeq.primitives.while_loop import frozen_while
from jaxdiffeq.problems.definitions import SteadyStateProblem, terms_at_rest
from jaxdiffeq.problems.vector_field import VectorField
from jaxdiffeq.solution import Stats
from jaxdiffeq.types import PyTree, Result, Settings

SMALLEST = 2.0**-10  # the last damping factor that is tried
FLOW = 10  # steps along the flow before Newton's method is tried again
ROUNDS = 50  # such turns before the search is given up
LOOSE = 0.01  # what a followed flow may err by in a step, in units of the state
SLOW = 1e-6  # steps so short, in units of the tolerance, that do not shrink tenfold approach a multiple root
ROUNDED = 1e-4  # rounding of more than this, in units of the tolerance, excuses no step that does not shrink
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
    """Find y with f(y, args) = 0. Gradients flow to args, to what f closes over, and through conserved totals to y0.

    Newton's method starts at y0; each step is shortened until it makes the next one shorter. Where that does not help,
    implicit Euler steps that grow follow dy/dt = f instead, to where it settles: pseudo-transient continuation. With
    `root="flow"` such steps are taken from the start, with their error under control. A root counts once a full step is
    within the tolerance, and the next one at most a tenth of it: at a multiple root, where there is no derivative, the
    search fails. Totals that the flow conserves, l·f = 0, make ∂f/∂y singular: then f(y) + s·P·(y0 − y) = 0 is solved,
    where P projects on all such l.
    Source: Deuflhard, Newton Methods for Nonlinear Problems, 3.3; Kelley, Keyes, SIAM J. Numer. Anal. 35 (1998) 508.
    """
    errors.no_time(options)
    support.check_steady(options.gradient)
    plan, arrays = prepare(terms_at_rest(problem), replace(options, controller=NO_STEP))
    errors.unknowns(plan.ravel.size, algebraic=True)
    follows = problem.root == "flow"
    found = errors.out_of_user_code(left_to_xla, functools.partial(_search, plan, follows), arrays)
    if options.throw and errors.all_concrete(found):
        _raise_if_failed(found)
    return found


def _raise_if_failed(found: SteadyState) -> None:
    if np.ndim(found.result) == 0 and int(found.result) != Result.success:
        result = Result(int(found.result))
        raise errors.BY_RESULT[result](
            f"the search for a steady state stopped with {result.name} after {int(found.stats.steps)} steps. Look "
            f"whether f has a root at which ∂f/∂y is regular but for totals that f conserves (these are found where "
            f'`jac_structure` is dense), give a `y0` closer to it, or follow the flow: root="flow". `throw=False` '
            f"returns NaN with the result code.",
            found,
        )


@functools.partial(jax.jit, static_argnums=(0, 1))
def _search(plan: Plan, follows: bool, arrays: Arrays) -> SteadyState:
    parts = build(plan, arrays, 1)
    y0, args, settings = parts.inputs.y0, parts.inputs.args, parts.settings
    still, start, known = lax.stop_gradient((y0, real_vector(y0), args))
    system = _Pinned.of(parts.integration.field.on_vectors(still), start, known)

    search = _Search(system, still, known, settings, follows)
    v, result, stats = search.run(start)
    regular = amplification(system.system.algebra, system.matrix(v, known), v) < 0.01 / jnp.finfo(v.dtype).eps
    singular = (result == Result.success) & ~regular
    result = jnp.where(singular, Result.nonlinear_solve_failed, result).astype(jnp.int32)
    v = system.attached(jnp.where(result == Result.success, v, start), args, real_vector(y0))
    y = poisoned(like(v, still), result == Result.success)
    return SteadyState(plan.ravel.unpack(y), stats, result)


@dataclass(frozen=True)
class _Pinned:
    """f(v) + S·(start − v), where S projects on the totals that f conserves: regular where these alone are free."""

    system: VectorField
    start: jax.Array
    pins: jax.Array | None
    """S, [n, n]; None: totals are not looked for"""

    @staticmethod
    def of(system: VectorField, start: jax.Array, args: Any) -> _Pinned:
        found = _Pinned(system, start, None)
        if not system.algebra.full:
            return found
        linearised = functools.partial(found.linearised, args=args)
        largest = system.algebra.magnitude(linearised(start)[1])
        return replace(found, pins=conserved(system.algebra, linearised, start) * jnp.where(largest > 0, largest, 1))

    def __call__(self, v: jax.Array, args: Any) -> jax.Array:
        f = self.system(jnp.zeros((), v.dtype), v, args)
        return f if self.pins is None else f + self.pins @ (self.start - v)

    def linearised(self, v: jax.Array, args: Any) -> tuple[jax.Array, Any]:
        f, jacobian = self.system.linearised(jnp.zeros((), v.dtype), v, args)
        return (f, jacobian) if self.pins is None else (f + self.pins @ (self.start - v), jacobian - self.pins)

    def matrix(self, v: jax.Array, args: Any) -> Any:
        """−∂f/∂v, whose derivative is known."""
        return self.system.algebra.shifted(jnp.zeros((), v.dtype), None, self.linearised(v, args)[1])

    def attached(self, v: jax.Array, args: Any, start: jax.Array) -> jax.Array:
        """The root v with its derivative, that with respect to the start included.

        Where l depends on args, w with J·w = v − start, which there is since every l·(v − start) is zero, says how:
        d(l·J·w) = 0 for a fixed w, hence l·(dv − dstart) = l·dJ·w.
        """
        algebra = self.system.algebra
        field = lambda v, args: self.system(jnp.zeros((), v.dtype), v, args)

        def exact(v, operands):
            args, start, pins = operands
            return replace(self, start=start, pins=pins).matrix(v, args)

        def residual(v, operands):
            args, start, pins = operands
            if pins is None:
                return field(v, args)
            known = lax.stop_gradient(operands)
            w = algebra.solve(algebra.factor(exact(v, known)), known[1] - v)
            _, drift = jax.jvp(lambda v: field(v, args), (v,), (w,))
            return field(v, args) + pins @ (start - v + drift - lax.stop_gradient(drift))

        return attached(v, residual, algebra, exact, (args, start, self.pins))


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

    def __init__(self, f: _Pinned, y0: jax.Array, args: Any, settings: Settings, follows: bool):
        self.f, self.like, self.args, self.follows = f, y0, args, follows
        self.tolerance, self.max_steps, self.algebra = settings.tolerance, settings.max_steps, f.system.algebra

    def run(self, v: jax.Array) -> tuple[jax.Array, jax.Array, Stats]:
        zero, one = jnp.zeros((), jnp.int32), jnp.ones((), v.dtype)
        f, jacobian = self.f.linearised(v, self.args)
        largest = self.algebra.magnitude(jacobian)
        dt = 1 / jnp.where(largest > 0, largest, 1)
        finite = jnp.all(jnp.isfinite(f)) & jnp.isfinite(largest)
        result = jnp.where(finite, Result.running, Result.nonfinite).astype(jnp.int32)
        left = zero + int(self.follows)
        start = _At(v, v, one, jnp.where(finite, dt, one), left, zero, zero, zero, result)
        _, last = frozen_while(lambda _, at: at.result == Result.running, self._trip, (), start)
        tried, accepted = last.tried, last.accepted
        stats = Stats(tried, accepted, zero, tried - accepted, 2 * tried + 1, tried + 1, tried, 2 * tried, tried, zero)
        return last.v, last.result, stats

    def _size(self, dv: jax.Array, v: jax.Array) -> jax.Array:
        """In units of the tolerance."""
        y = like(v, self.like)
        scale = spread(self.tolerance.scale(y, y), y)
        return rms(dv / jnp.where(scale > 0, scale, jnp.finfo(v.dtype).tiny))

    def _trip(self, _: tuple, at: _At) -> tuple[tuple, _At]:
        """One step: of Newton's method, where 1/dt is zero, or along the flow."""
        flows = at.left > 0
        f, jacobian = self.f.linearised(at.v, self.args)
        matrix = self.algebra.shifted(jnp.where(flows, 1 / at.dt, 0), None, jacobian)
        factors = self.algebra.factor(matrix)
        dv = self.algebra.solve(factors, f)
        v = at.v + jnp.where(flows, 1, at.damping) * dv
        after = self.f(v, self.args)
        rest = self.algebra.solve(factors, after)
        finite = jnp.all(jnp.isfinite(v)) & jnp.all(jnp.isfinite(after)) & jnp.all(jnp.isfinite(rest))
        rounding = self._size(rounding_of(self.algebra, matrix, factors, v), v)
        newton = self._newton(at, v, rest, (self._size(dv, at.v), self._size(rest, at.v), rounding))
        along = self._followed if self.follows else self._flow
        flow = along(at, v, finite, (dv, rest) if self.follows else (rms(f), rms(after)))
        refused = self._refused(at)
        tried, rounds = at.tried + 1, at.rounds
        new = jax.tree.map(lambda a, b, c: jnp.where(flows, a, jnp.where(finite, b, c)), flow, newton, refused)
        given_up = jnp.where(tried >= self.max_steps, Result.max_steps_reached, Result.running)
        given_up = jnp.where(rounds >= ROUNDS, Result.nonlinear_solve_failed, given_up)
        result = jnp.where(new.result == Result.running, given_up, new.result).astype(jnp.int32)
        new = new._replace(tried=tried, result=result)
        return (), jax.tree.map(lambda a, b: jnp.where(at.result == Result.running, a, b), new, at)

    def _newton(self, at: _At, v: jax.Array, rest: jax.Array, sizes: tuple) -> _At:
        before, after, rounding = sizes
        full = at.damping == 1
        rounding = jnp.where(rounding <= ROUNDED, rounding, 0)
        floor = 100 * jnp.maximum(jnp.finfo(v.dtype).eps * self._size(v, v), rounding)
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

    def _followed(self, at: _At, v: jax.Array, finite: jax.Array, steps: tuple) -> _At:
        """A step that errs by a hundredth of the state at most, until such steps go nowhere however long they are.

        Steps are (1/dt − J)⁻¹f before and after, half of whose difference is the error. They settle once dt is a
        hundred times the slowest time of what still moves.
        """
        before, after = steps
        scale = LOOSE * size_of(at.v)
        error, moved, left = (rms(x / scale) for x in ((after - before) / 2, before, after))
        good = finite & (error <= 1)
        growth = jnp.clip(0.8 / jnp.sqrt(jnp.where(error > 0, error, 0.01)), 0.2, 5)
        settled = good & (moved <= 1) & (left <= 0.01 * moved)
        dt = at.dt * jnp.where(finite, growth, 0.1)
        taken = at._replace(v=v, anchor=v, left=jnp.where(settled, 0, 1).astype(at.left.dtype))
        taken = taken._replace(accepted=at.accepted + 1)
        new = jax.tree.map(lambda a, b: jnp.where(good, a, b), taken, at)
        endless = dt > jnp.finfo(dt.dtype).max ** 0.5  # towards a multiple root it slows down for ever
        result = jnp.where(endless, Result.nonlinear_solve_failed, Result.running)
        result = jnp.where(dt > 0, result, Result.nonfinite).astype(jnp.int32)
        return new._replace(dt=dt, result=result)
