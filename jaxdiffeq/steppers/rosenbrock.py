"""Rosenbrock methods: linearly implicit, one Jacobian and one factorisation a step, no iteration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiffeq.algebra.structure import radius, solve, times_mass
from jaxdiffeq.algebra.vectors import like, real_vector
from jaxdiffeq.engine.interpolant import combine, hermite, weigh
from jaxdiffeq.problems.vector_field import VectorField
from jaxdiffeq.steppers.base import InTurn
from jaxdiffeq.steppers.stages import in_turn
from jaxdiffeq.tableaux.rosenbrock import RosenbrockTableau
from jaxdiffeq.types import State, Step, Work


@dataclass(frozen=True, repr=False)
class Rosenbrock(InTurn):
    """(M/(γ dt) − J) uᵢ = f(t + cᵢ dt, y + Σⱼ aᵢⱼ uⱼ) + M Σⱼ gᵢⱼ uⱼ/dt + dt dᵢ ∂f/∂t,   y₁ = y + Σᵢ mᵢ uᵢ.

    J = ∂f/∂y and ∂f/∂t at the start of the step. Nothing is carried from step to step. A step leaves algebraic
    equations by what is not linear in them. Of this an estimate that does not vanish at infinity would see a multiple
    in the next step, however short that is: some are filtered there, with a solve that is not counted.
    Source: Hairer, Wanner, Solving ODEs II, IV.7, eqs. (7.25) and (7.27), for the form without products with J.
    """

    tableau: RosenbrockTableau

    takes_mass: ClassVar[bool] = True
    regularisers: ClassVar[tuple[str, ...]] = ("error", "energy")

    @property
    def evaluations(self) -> tuple[int, int, int]:
        """Calls of f: at the start, in an attempted step, and in the dense output of one."""
        return 0, self._calls + (self.tableau.missed == "linear"), 1 if self.tableau.dense is None else 0

    @property
    def _calls(self) -> int:
        """A stage at the same place as the one before it needs no new f."""
        return len({(c, row) for c, row in self._places})

    @property
    def _places(self) -> list[tuple]:
        tableau = self.tableau
        return [(c, _trimmed(row)) for c, row in zip(tableau.c, tableau.a, strict=True)]

    @property
    def costs(self) -> Work:  # pyright: ignore[reportIncompatibleVariableOverride]
        return Work(0, 1, 1, self.tableau.stages, 0)

    def init(self, f: VectorField, t: jax.Array, y: jax.Array, args: Any) -> tuple:
        return ()

    def step(self, f: VectorField, start: State, t1: jax.Array, args: Any, tolerance: Any = None) -> Step:
        tableau, system = self.tableau, f.whole.on_vectors(start.y)
        algebra, mass = system.algebra, system.mass(args)
        t, y, width = start.t, real_vector(start.y), t1 - start.t
        dt = width.astype(y.dtype)
        f0, jacobian = system.linearised(t, y, args)
        w = algebra.shifted(1 / (tableau.gamma * dt), mass, jacobian)
        factors = lax.stop_gradient(algebra.factor(w))
        df_dt = self._df_dt(system, t, y, args, dt)

        known = {self._places[0]: f0}

        def slope(i, c, moved):
            if i is None:  # in a loop, whose stages are all alike, f is asked again where it is known
                return system(t + c * width, y + moved(), args)
            if self._places[i] not in known:
                known[self._places[i]] = system(t + c * width, y + moved(), args)
            return known[self._places[i]]

        def increment(k, before, d):
            right = k if before is None else k + times_mass(mass, before / dt)
            return solve(algebra, w, factors, right if df_dt is None or d is None else right + d * df_dt)

        def stage(i, numbers, sums):
            (c, d), (moved, before) = numbers, sums
            return increment(slope(i, c, moved), before(), d if i is None else d or None), None

        first = increment(f0, None, tableau.d[0] or None)
        numbers = [(tableau.c, width.dtype), (tableau.d, y.dtype)]
        us, _ = in_turn(stage, [first], numbers, [tableau.a, tableau.g], self)
        end = y + combine(tableau.m, us)
        error = None if tableau.e is None else combine(tableau.e, us)
        missed = self._missed(system, t, width, (y, end), args, (f0, df_dt, mass))
        if error is not None and missed is not None:
            error = error + solve(algebra, w, factors, missed / tableau.gamma)
        if error is not None and system.algebraic and tableau.filtered:
            error = solve(algebra, w, factors, times_mass(mass, error / (tableau.gamma * dt)))
        error = None if error is None else like(error, start.y)
        y1 = like(end, start.y)
        dense = start.y, y1, t1, width, tuple(us), f0
        spectral_radius = radius(algebra, jacobian, y.size) if self.measures else None
        return Step(State(t1, y1, ()), error, dense, jnp.all(jnp.isfinite(y1)), spectral_radius=spectral_radius)

    def _df_dt(self, system: VectorField, t: jax.Array, y: jax.Array, args: Any, dt: jax.Array) -> jax.Array | None:
        """dt ∂f/∂t."""
        if system.autonomous or not any(self.tableau.d):
            return None
        _, slope = jax.jvp(lambda t: system(t, y, args), (t,), (jnp.ones_like(t),))
        return dt * slope

    def _missed(self, system: VectorField, t: Any, width: Any, ends: Any, args: Any, known: Any) -> jax.Array | None:
        """What an estimate that is zero for some equations lacks, over dt and before (M − γ dt J)⁻¹ damps it.

        Linear ones: the distance from the trapezoidal rule. y′ = g(t): of f(t, y₀), that between the rule of three
        eighths and the one of order 5 that knows its derivative, a 270th of a divided difference at 0, 0, 1/3, 2/3, 1.
        """
        (y0, y1), (f0, df_dt, mass) = ends, known
        if self.tableau.missed == "linear":
            return times_mass(mass, (y1 - y0) / width.astype(y0.dtype)) - (f0 + system(t + width, y1, args)) / 2
        if self.tableau.missed == "integrals" and df_dt is not None:
            thirds = [system(t + c * width, y0, args) for c in (1 / 3, 2 / 3, 1.0)]
            return combine((11 / 120, -3 / 20, 3 / 40, -1 / 60, 1 / 60), [f0, *thirds, df_dt])
        return None

    def polynomial(self, f: VectorField, dense: Any, args: Any) -> jax.Array:
        """Coefficients in θ, [degree + 1, *state], of the interpolant of the step that handed out `dense`."""
        y, y1, t1, width, us, f0 = dense
        interpolant = self.tableau.dense
        if interpolant is None:
            dt = width.astype(y.dtype)
            k0, k1 = f.velocity(t1 - width, y, args, like(f0, y)), f.velocity(t1, y1, args)
            return hermite(y, y1, dt * k0, dt * k1)
        powers = weigh(interpolant.b, list(us))
        return jnp.concatenate([y[None], jax.vmap(lambda v: like(v, y))(powers)])


def _trimmed(row: tuple[float, ...]) -> tuple[float, ...]:
    """Without the zeros at its end."""
    while row and row[-1] == 0:
        row = row[:-1]
    return row
