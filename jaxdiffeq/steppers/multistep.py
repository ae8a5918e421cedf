"""Backward differentiation of variable order: the past as backward differences on equal steps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdiffeq.algebra.newton import Found, Newton, Start, judged, root
from jaxdiffeq.algebra.structure import radius
from jaxdiffeq.algebra.vectors import like, real_vector, spread
from jaxdiffeq.engine.control import PIDController
from jaxdiffeq.implicit import jacobian_reuse
from jaxdiffeq.implicit.jacobian_reuse import Kept, Matrix
from jaxdiffeq.primitives.constant_matmul import blend, constant_matmul, total
from jaxdiffeq.problems.vector_field import VectorField
from jaxdiffeq.steppers.base import NO_WORK, StepperDefaults
from jaxdiffeq.tableaux.multistep import change_of_step, harmonic, through_differences
from jaxdiffeq.types import PyTree, State, Step, Work

SAFETY = 0.8
"""of the step size that would just meet the tolerance"""
CAP = 2.0
"""the largest factor to the next step: longer leaps carry small components beyond zero, where equations may run away"""
WORTHWHILE = 0.9, 1.1
"""a change of the step within these factors is not made"""
COLLAPSED = 0.05
"""of the last step: where several refusals have led there, only the first difference of the past is believed"""
EASY = Newton(kappa=0.05)
"""predicted to an order more than it is solved for, a state needs fewer iterations than a stage; CVODE has 0.1"""


class BDFMemory(NamedTuple):
    """The past, and what the next step will be."""

    differences: jax.Array
    """∇ʲy for j = 1 … orders + 2, [orders + 2, n], on steps of size `width`"""
    width: jax.Array
    """signed"""
    order: jax.Array
    equal: jax.Array
    """accepted steps of this size and order"""
    level: jax.Array
    """log of the last error without its power of the step size; infinity: there is none of this order"""
    rate: jax.Array
    """of convergence of Newton's method"""
    chord: Kept


class _Operands(NamedTuple):
    """All that a step depends on."""

    t: jax.Array
    base: jax.Array
    past: jax.Array
    c: jax.Array
    """α/dt"""
    args: PyTree


@dataclass(frozen=True)
class MultistepBDF(StepperDefaults):
    """α (y₁ − y⁽⁰⁾) + Σₘ γₘ ∇ᵐy = dt·y₁′, m = 1 … k, with y⁽⁰⁾ = Σₘ ∇ᵐy, γₘ = Σⱼ≤ₘ 1/j, α = (1 − κ) γₖ.

    y₁′ is that of the equation at t₁, M·y₁′ = f(t₁, y₁) or F(t₁, y₁, y₁′) = 0.
    κ = 0 is the backward differentiation formula of order k. The step size stays the same for k + 1 steps at least;
    then that one of the orders k − 1, k, k + 1 is taken which allows the longest steps. A new size turns the past into
    differences on steps of that size. A restart is at order 1, with the slope as ∇y on steps of size 1.

    Differences of a high order carry what Newton's method leaves, larger than the tolerance now and then, above all in
    algebraic components; no step is short enough for them. So a step that has collapsed begins anew at order 1.

    The Jacobian lasts 20 steps, less if Newton's method takes more than two iterations or a step was refused, its
    factors as long as dt and k; systems of up to four unknowns have a new one in each step.
    Source: Shampine, Reichelt 1997, doi:10.1137/S1064827594276424; Hairer, Wanner, Solving ODEs II, V.
    """

    kappa: tuple[float, ...]
    newton: Newton = EASY
    measures: bool = False
    """every step estimates the fastest rate in the system, for those who switch on it"""
    equal: bool = False
    """every step has the same size, and none is refused"""

    regularisers: ClassVar[tuple[str, ...]] = ("error", "energy")
    controller: ClassVar[Any] = PIDController()
    takes_mass: ClassVar[bool] = True
    takes_residual: ClassVar[bool] = True
    error_order = 2
    """of the first step; later ones say theirs"""
    evaluations = (1, 0, 0)
    """Calls of f besides those of Newton's method: at the start, in an attempted step, in the dense output."""
    work = NO_WORK
    name: ClassVar[str] = "BDF"

    def __repr__(self) -> str:
        return "BDF()"

    @property
    def on_equal_steps(self) -> MultistepBDF:
        return replace(self, equal=True)

    @property
    def order(self) -> int:
        """The highest one."""
        return len(self.kappa)

    @property
    def degree(self) -> int:
        """Of the dense output's polynomial."""
        return self.order

    @property
    def dense_order(self) -> int:
        return self.order

    def init(self, f: VectorField, t: jax.Array, y: jax.Array, args: PyTree) -> BDFMemory:
        system, v = f.whole.on_vectors(y), real_vector(y)
        slope = real_vector(f.velocity(t, y, args))
        rest = jnp.zeros((self.order + 1, v.size), v.dtype)
        one = jnp.ones((), jnp.int32)
        far = jnp.full((), jnp.inf, v.dtype)
        kept = jacobian_reuse.none(system, t, v, self._matrix(system, _Operands(t, v, v, v[0], args)))
        return BDFMemory(
            jnp.concatenate([slope[None], rest]), jnp.ones_like(t), one, jnp.zeros_like(one), far, far, kept
        )

    def step(self, f: VectorField, start: State, t1: jax.Array, args: PyTree, tolerance: Any) -> Step:
        system, y, width = f.whole.on_vectors(start.y), real_vector(start.y), t1 - start.t
        collapsed = jnp.abs(width) < COLLAPSED * jnp.abs(start.memory.width)
        k = jnp.where(collapsed, 1, start.memory.order)
        memory = start.memory._replace(order=k)
        past, equal = self._rescaled(memory, width)
        base = y + total(past)
        weights = self._table([harmonic(m + 1) for m in range(self.order)], y)
        alpha = self._table([(1 - kappa) * harmonic(m + 1) for m, kappa in enumerate(self.kappa)], y)[k - 1]
        at = _Operands(t1, base, blend(weights[:, None], past) / alpha, alpha / width.astype(y.dtype), args)
        scale, floor = judged(tolerance, start.y, self.equal)
        fixed = lax.stop_gradient(at)
        matrix, of_step = self._matrix(system, fixed), system.at_slope
        used, work = jacobian_reuse.renewed(memory.chord, matrix, fixed.c, width, of_step=of_step)
        begin = Start(jnp.zeros_like(base), used.factors, scale, floor, memory.rate, y - base)
        found = self._solve(system, at, begin)

        y1 = like(base + found.z, start.y)
        differences = self._differences(memory.differences, past, found.z, k)
        constants = self._table(self._error_constants, y)
        ratios = differences / spread(tolerance.of_error(start.y, y1), start.y)[None]
        sizes = jnp.sqrt(jnp.sum(ratios * ratios, axis=1) / start.y.size)
        order, step_factor, equal, level = self._choose(*lax.stop_gradient((sizes, memory, width, equal + 1)))
        rate = lax.stop_gradient(jnp.maximum(found.rate, jnp.finfo(y.dtype).eps) ** 0.8)
        n, jac_evals = found.iterations, work.jac_evals + found.renewed
        least = jnp.abs(width) * jnp.minimum(step_factor, 1).astype(width.dtype)
        slow = found.renewed > 0 if self.equal else n > 2
        kept = jacobian_reuse.handed_on(used, memory.chord, slow, least)
        after = State(t1, y1, BDFMemory(differences, width, order, equal, level, rate, kept))
        return Step(
            after,
            like(constants[k - 1] * found.z, start.y),
            (y1, differences[: self.order], k),
            found.ok & jnp.all(jnp.isfinite(y1)),
            Work(n + jac_evals, jac_evals, work.factorizations + found.renewed, n, n),
            spectral_radius=radius(system.algebra, used.jacobian, system.size) if self.measures else None,
            step_factor=step_factor.astype(width.dtype),
            error_order=k + 1,
        )

    @property
    def _error_constants(self) -> list[float]:
        """Of ∇ᵏ⁺¹y₁ in the error of order k."""
        return [kappa * harmonic(m + 1) + 1 / (m + 2) for m, kappa in enumerate(self.kappa)]

    @staticmethod
    def _table(numbers: Any, y: jax.Array) -> jax.Array:
        return jnp.asarray(numbers, y.dtype)

    def _numbers(self, rows: int) -> jax.Array:
        return jnp.arange(1, rows + 1, dtype=jnp.int32)

    def _rescaled(self, memory: BDFMemory, width: jax.Array) -> tuple[jax.Array, jax.Array]:
        """∇¹ … ∇ᵏ on steps of size `width`, zeros above; and how many of the steps before had that size."""
        stretch = width / memory.width
        same = jnp.abs(stretch - 1) < 0.01  # the clock's rounding, or a hair's breadth to land
        rows = memory.differences[: self.order]
        rows = jnp.where((self._numbers(self.order) <= memory.order)[:, None], rows, 0)
        powers = [stretch.astype(rows.dtype)]
        for _ in range(self.order - 1):
            powers.append(powers[-1] * powers[0])
        change = blend(self._table(change_of_step(self.order), rows), jnp.stack(powers)[:, None, None])
        return blend(change[:, :, None], rows[:, None]), jnp.where(same, memory.equal, 0)

    def _matrix(self, system: VectorField, at: _Operands) -> Matrix:
        """Of a step."""

        def make():
            return system.tangent(at.t, at.base, at.c * at.past, at.c, at.args)

        def factored(jacobian):
            return system.algebra.factor(system.matrix(at.c, at.args, jacobian))

        return Matrix(make, factored)

    def _solve(self, system: VectorField, at: _Operands, begin: Start) -> Found:
        """d = y₁ − y⁽⁰⁾."""

        def residual(d, at):
            return system.defect(at.t, at.base + d, at.c * (d + at.past), at.args)

        def exact(d, at):
            return system.matrix(at.c, at.args, system.tangent(at.t, at.base + d, at.c * (d + at.past), at.c, at.args))

        return root(
            self.newton, residual, system.algebra, exact, begin, at, to_rounding=self.equal, algebraic=system.algebraic
        )

    def _differences(self, before: jax.Array, past: jax.Array, d: jax.Array, k: jax.Array) -> jax.Array:
        """∇ʲy₁ = ∇ʲy + ∇ʲ⁺¹y₁ from ∇ᵏ⁺¹y₁ = d downwards, and ∇ᵏ⁺²y₁ = d − ∇ᵏ⁺¹y."""
        sums = constant_matmul(np.triu(np.ones((self.order, self.order))), past)
        sums = jnp.concatenate([sums, jnp.zeros((2, d.size), d.dtype)])
        numbers = self._numbers(self.order + 2)[:, None]
        last = total(jnp.where(numbers == k + 1, before, 0))
        return jnp.where(numbers <= k + 1, sums + d[None], jnp.where(numbers == k + 2, (d - last)[None], 0))

    def _choose(self, sizes: jax.Array, memory: BDFMemory, width: jax.Array, equal: jax.Array) -> tuple:
        """The next order, the factor by which the step should change, equal steps by then, and the level of the error.

        Shapes: `sizes` of all differences, in units of the tolerance, [orders + 2].
        """
        k = memory.order
        constants = self._table([1.0, *self._error_constants, 1.0], sizes)
        at = jnp.stack([k - 1, k, k + 1])
        ready = equal > k
        allowed = (at >= 1) & (at <= jnp.where(ready, self.order, k))
        low, high = WORTHWHILE
        shift, step_factor, level = order_change(constants[at] * sizes[at], k, allowed, width, memory.level)
        # before it is ready, the step only shrinks, and only from an error that is too large soon
        change = jnp.where(ready, (step_factor < low) | (step_factor > high), level.soon > 0)
        order = jnp.where(change, k + shift, k)
        kept = jnp.where(order == k, level.now, jnp.inf)
        return order, jnp.where(change, step_factor, 1.0), jnp.where(change, 0, equal), kept

    def polynomial(self, f: VectorField, dense: Any, args: PyTree) -> jax.Array:
        """Coefficients in θ, [degree + 1, *state], of the polynomial through y₁ and the states before."""
        y1, differences, k = dense
        end = real_vector(y1)
        rows = jnp.where((self._numbers(self.order) <= k)[:, None], differences, 0)
        powers = constant_matmul(through_differences(self.order), jnp.concatenate([end[None], rows]))
        return jax.vmap(lambda v: like(v, y1))(powers)


class Level(NamedTuple):
    now: jax.Array
    """log of the error without its power of the step size"""
    soon: jax.Array
    """log of the next error with the same step, if it has been rising; else not positive"""


def order_change(
    errors: jax.Array, k: jax.Array, allowed: jax.Array, width: jax.Array, before: jax.Array
) -> tuple[jax.Array, jax.Array, Level]:
    """The change of order, −1, 0 or 1, that allows the longest step, the factor to that step, and the error's level.

    An error whose level has risen since the one `before` is expected to rise as much once more.
    Shapes: `errors` of orders k − 1, k, k + 1, in units of the tolerance, and whether these are `allowed`, [3].
    """
    logs = jnp.log(jnp.maximum(errors, jnp.finfo(errors.dtype).eps))
    powers = (jnp.stack([k - 1, k, k + 1]) + 1).astype(errors.dtype)
    now = logs[1] - powers[1] * jnp.log(jnp.abs(width)).astype(errors.dtype)
    rise = jnp.maximum(now - before, 0)
    factors = jnp.where(allowed, SAFETY * jnp.exp(-(logs + rise) / powers), 0)
    best = jnp.max(factors)
    shift = jnp.where(best > factors[1], jnp.where(factors[0] == best, -1, 1), 0).astype(k.dtype)
    return shift, jnp.minimum(best, CAP), Level(now, jnp.where(rise > 0, logs[1] + rise, -1))
