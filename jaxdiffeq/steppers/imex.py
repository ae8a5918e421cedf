"""IMEX multistep methods: one implicit equation a step, the explicit part extrapolated from the steps before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdiffeq.algebra.newton import NEWTON, Newton, Start, judged
from jaxdiffeq.algebra.vectors import like, real_vector
from jaxdiffeq.engine.interpolant import hermite
from jaxdiffeq.implicit import jacobian_reuse
from jaxdiffeq.implicit.jacobian_reuse import Kept, Matrix
from jaxdiffeq.primitives.constant_matmul import blend
from jaxdiffeq.problems.vector_field import VectorField
from jaxdiffeq.steppers.base import NO_WORK, OfTableau
from jaxdiffeq.steppers.dirk import DIRK, DirkMemory, Operands, slopes_of, solve_stage
from jaxdiffeq.tableaux.multistep import IMEXTableau
from jaxdiffeq.types import PyTree, State, Step, Work


class ImexMemory(NamedTuple):
    """The past, the last step first. What is not known yet holds the present, so that nothing overflows."""

    slopes: tuple
    """at the start of the step, of the implicit and the explicit part, or of the whole; each [*state]"""
    states: jax.Array
    """at the starts of the steps before, [steps - 1, n]"""
    explicit_slopes: jax.Array
    """slopes of the explicit part there, [steps - 1, n]"""
    widths: jax.Array
    """of the steps before, signed, [steps - 1]"""
    known: jax.Array
    """states that are known, the present one too"""
    rate: jax.Array
    """of convergence of Newton's method; constant to differentiation"""
    chord: Kept


@dataclass(frozen=True, repr=False)
class IMEXMultistep(OfTableau):
    """Σⱼ αⱼ y₁₋ⱼ = dt·(Σⱼ βⱼ f(t₁₋ⱼ, y₁₋ⱼ) + Σⱼ ηⱼ g(t₋ⱼ, y₋ⱼ)),   f implicit, g explicit.

    A problem that is not split is implicit altogether. α and η are those of the steps as they are: α differentiates
    the polynomial through the states, η extrapolates g, so that a last step of another size costs no accuracy. A
    Runge–Kutta pair of the same order takes the first steps, and those after a stop. Calls of f are counted, not of g.
    Source: Ascher, Ruuth, Wetton 1995, doi:10.1137/0732037; on unequal steps Wang, Ruuth 2008.
    """

    tableau: IMEXTableau
    newton: Newton = NEWTON

    work = NO_WORK
    evaluations = (1, 0, 0)
    """Calls of f besides those of Newton's method: at the start, in an attempted step, in the dense output."""

    def init(self, f: VectorField, t: jax.Array, y: jax.Array, args: PyTree) -> ImexMemory:
        slopes = slopes_of(f.terms, t, y, args)
        before = self.tableau.steps - 1
        repeated = lambda x: jnp.broadcast_to(real_vector(x), (before, real_vector(x).size))
        far = jnp.full((), jnp.inf, jnp.finfo(y.dtype).dtype)
        widths, known = jnp.ones(before, t.dtype), jnp.ones((), jnp.int32)
        system, v = f.terms[0].on_vectors(y), real_vector(y)
        worth = system.algebra.worth_keeping(system.size)
        kept = jacobian_reuse.none(system, t, v, self._matrix(system, (t, v, args), v[0]), worth)
        return ImexMemory(slopes, repeated(y), repeated(slopes[-1]), widths, known, far, kept)

    def _matrix(self, system: VectorField, at: tuple, shift: jax.Array) -> Matrix:
        """Of a step from (t, v, args)."""
        algebra = system.algebra

        def factored(jacobian):
            return algebra.factor(algebra.shifted(shift, None, jacobian))

        def contraction(jacobian, factors):
            return jacobian_reuse.contraction(system, lambda x: algebra.solve(factors, x), at, jacobian)

        return Matrix(lambda: system.linearised(*at)[1], factored, contraction)

    def step(self, f: VectorField, start: State, t1: jax.Array, args: PyTree, tolerance: Any) -> Step:
        def go_on():
            return self._step(f, start, t1, args, tolerance)

        def begin():
            assert self.tableau.starter is not None
            method = DIRK(self.tableau.starter, self.newton, equal=self.equal)
            memory = start.memory
            taken = method.step(f, start._replace(memory=DirkMemory(memory.slopes)), t1, args, tolerance)
            after, carried = taken.after, (memory.rate, memory.chord)
            return self._taken(start, t1, after.y, after.memory.slopes, carried, taken.ok, taken.work)

        if self.tableau.starter is None:
            return go_on()
        return lax.cond(start.memory.known < self.tableau.steps, begin, go_on)

    def _step(self, f: VectorField, start: State, t1: jax.Array, args: PyTree, tolerance: Any) -> Step:
        (now, *before), memory = self.tableau.beta, start.memory
        implicit, explicit = f.terms
        system = implicit.on_vectors(start.y)
        width = t1 - start.t
        y, slopes = real_vector(start.y), [real_vector(k) for k in memory.slopes]
        dt = width.astype(y.dtype)
        alpha, eta = (x.astype(y.dtype) for x in self._weights(memory, width))
        states = jnp.concatenate([y[None], memory.states])

        known = jnp.zeros_like(y)
        if explicit is not None:
            known = now * blend(eta[:, None], jnp.concatenate([slopes[1][None], memory.explicit_slopes]))
        if before:
            known = known + before[0] * sum(slopes[1:], slopes[0])
        first = -jnp.sum(alpha)  # α₀: a constant has no slope
        # in differences from y, of which rounding takes less
        base = y + (dt * known - blend(alpha[:, None], states[: alpha.size] - y[None])) / first
        shift = first / (now * dt)
        guess = blend(eta[:, None], states) - base if self.tableau.steps > 1 else slopes[0] / shift
        fixed = lax.stop_gradient((start.t, y, args))
        matrix = self._matrix(system, fixed, lax.stop_gradient(shift))
        used, made = jacobian_reuse.renewed(memory.chord, matrix, lax.stop_gradient(shift), width)
        scale, floor = judged(tolerance, start.y, self.equal)
        begin = Start(guess, used.factors, scale, floor, memory.rate, y - base)
        found = solve_stage(self.newton, system, begin, Operands(t1, base, shift, args), self.equal)

        y1 = like(base + found.z, start.y)
        after = (like(shift * found.z, start.y), *(() if explicit is None else (explicit(t1, y1, args),)))
        rate = jnp.maximum(found.rate, jnp.finfo(y.dtype).eps) ** 0.8
        n = found.iterations
        kept = jacobian_reuse.handed_on(used, memory.chord, jnp.array(False), jnp.abs(width))
        jac_evals, factorizations = made.jac_evals + found.renewed, made.factorizations + found.renewed
        work = Work(n + made.f_evals + jac_evals, jac_evals, factorizations, n, n)
        return self._taken(start, t1, y1, after, (lax.stop_gradient(rate), kept), found.ok, work)

    def _weights(self, memory: ImexMemory, width: jax.Array) -> tuple[jax.Array, jax.Array]:
        """αⱼ for j > 0, and η without β. Shapes: [len(alpha) - 1], [steps]."""
        numbers = np.arange(self.tableau.steps, dtype=np.int32)
        known = numbers[1:] < memory.known
        ago = jnp.where(known, memory.widths / width, 1)
        places = -1 - jnp.concatenate([jnp.zeros(1, width.dtype), jnp.cumsum(ago)])  # (t₁₋ⱼ − t₁)/dt
        eta = jnp.ones_like(places)
        for i in numbers:
            apart = jnp.where(numbers == i, 1, places - places[i])
            eta = eta * jnp.where(numbers == i, 1, -places[i] / apart)
        # the basis of the polynomial through y₁ as well has one factor more: θ/placeⱼ, which is zero at t₁
        return eta / places if len(self.tableau.alpha) > 2 else -jnp.ones(1, width.dtype), eta

    def _taken(
        self, start: State, t1: jax.Array, y1: jax.Array, slopes: tuple, newton: tuple, ok: Any, work: Work
    ) -> Step:
        before = start.memory

        def put_first(row, rows):
            return jnp.concatenate([row[None], rows])[: self.tableau.steps - 1]

        states = put_first(real_vector(start.y), before.states)
        explicit_slopes = put_first(real_vector(before.slopes[-1]), before.explicit_slopes)
        width = t1 - start.t
        known = jnp.minimum(before.known + 1, self.tableau.steps)
        memory = ImexMemory(tuple(slopes), states, explicit_slopes, put_first(width, before.widths), known, *newton)
        k0, k1 = (sum(k[1:], k[0]) for k in (before.slopes, memory.slopes))
        ok = jnp.asarray(ok) & jnp.all(jnp.isfinite(y1))
        return Step(State(t1, y1, memory), None, (start.y, y1, width.astype(y1.dtype), k0, k1), ok, work)

    def polynomial(self, f: VectorField, dense: Any, args: PyTree) -> jax.Array:
        """Coefficients in θ, [degree + 1, *state], of the interpolant of the step that handed out `dense`."""
        y, y1, dt, k0, k1 = dense
        return hermite(y, y1, dt * k0, dt * k1)
