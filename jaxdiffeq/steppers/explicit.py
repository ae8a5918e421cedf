"""Explicit Runge–Kutta methods: one stepper for every tableau."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdiffeq.algebra.norm import safe_sqrt
from jaxdiffeq.engine.control import PIDController
from jaxdiffeq.engine.interpolant import combine, hermite, powers
from jaxdiffeq.problems.vector_field import VectorField
from jaxdiffeq.steppers.base import InTurn
from jaxdiffeq.steppers.stages import in_turn
from jaxdiffeq.tableaux.explicit import ButcherTableau
from jaxdiffeq.types import State, Step

UNSEEN = 0.2
"""What a difference of slopes, of weights with Σ |w| = 1, counts as an error.

With it the integrals of cos(20 t), 1/(1 + 25 t²) and exp(−3 t) are 1e-9 to 0.6 tolerances off at 1e-5 to 1e-11, once 15
with RKF78; with half of it some are off by 200. Lotka–Volterra, Kepler and Arenstorf orbits take 1 to 5 in a hundred
steps more with Feagin12 and Feagin14, 20 to 47 with Feagin10 and RKF78, which are more accurate by as much.
"""


@dataclass(frozen=True, repr=False)
class ExplicitRK(InTurn):
    """kᵢ = f(t + cᵢ·dt, y + dt·Σⱼ aᵢⱼ kⱼ),   y₁ = y + dt·Σᵢ bᵢ kᵢ.

    The memory from step to step is the slope at the start, k₀. A method whose last stage is not already f(t₁, y₁)
    evaluates it, so that every step costs its number of stages, whether or not the one before was rejected.
    Source: Hairer, Nørsett, Wanner, Solving ODEs I, II.1 and II.4.
    """

    tableau: ButcherTableau

    controller: ClassVar[Any] = PIDController()

    @property
    def error_order(self) -> int | None:
        """The power of dt in the error estimate of one step; None: no estimate, fixed steps only."""
        tableau = self.tableau
        if tableau.embedded_order is None:
            return None
        fifth = tableau.embedded_order + 1
        if tableau.null_rules is not None:
            fine, coarse = (sum(w != 0 for w in weights) for weights in tableau.null_rules)
            return min(fifth, 2 * fine - coarse)
        return fifth if tableau.e3 is None else 2 * fifth - 4  # DOP853 divides the square of one by the other

    @property
    def evaluations(self) -> tuple[int, int, int]:
        """Calls of f: at the start, in an attempted step, and in the dense output of one."""
        tableau, interpolant = self.tableau, self.tableau.interpolant
        extra = 0 if interpolant is None else len([row for row in interpolant.a if row != tableau.b])
        return 1, tableau.stages - tableau.fsal, extra

    @property
    def regularisers(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        tableau = self.tableau
        has = {"error": tableau.embedded_order is not None, "stiffness": tableau.pair is not None, "energy": True}
        return tuple(name for name in has if has[name])

    def init(self, f: VectorField, t: jax.Array, y: jax.Array, args: Any) -> jax.Array:
        return f(t, y, args)

    def step(self, f: VectorField, start: State, t1: jax.Array, args: Any, tolerance: Any = None) -> Step:
        tableau, t, y = self.tableau, start.t, start.y
        width = t1 - t
        dt = width.astype(y.dtype)

        def stage(i, numbers, sums):
            (c,), (moved,) = numbers, sums
            state = y + dt * moved()
            return f(t + c * width, state, args), state if self.measures else None

        numbers = [(tableau.c, t.dtype)]
        slopes, states = in_turn(stage, [start.memory], numbers, [tableau.a], self)
        y1 = y + dt * combine(tableau.b, slopes)
        k1 = slopes[-1] if tableau.fsal else f(t1, y1, args)
        after, dense = State(t1, y1, k1), (y, y1, dt, t, width, tuple(slopes), k1)
        spectral_radius = self._spectral_radius([y, *states], slopes, tolerance.scale(y, y1)) if self.measures else None
        return Step(after, self._error(dt, slopes, k1), dense, True, spectral_radius=spectral_radius)

    def _spectral_radius(self, states: list[jax.Array], slopes: list[jax.Array], scale: jax.Array) -> jax.Array:
        """‖f(t, Y) − f(t, Z)‖/‖Y − Z‖ of two stages at one time, whose difference is mostly in the fastest direction.

        Source: Hairer, Wanner, Solving ODEs II, IV.2, eq. (2.24), after Shampine.
        """
        pair = self.tableau.pair
        assert pair is not None
        i, j = pair
        apart, together = (jnp.sum((jnp.abs(x[j] - x[i]) / scale) ** 2) for x in (states, slopes))
        return safe_sqrt(together / jnp.where(apart > 0, apart, jnp.inf))

    def _error(self, dt: jax.Array, slopes: list[jax.Array], k1: jax.Array) -> jax.Array | None:
        tableau = self.tableau
        if tableau.e is None:
            return None
        error = dt * combine(tableau.e, slopes)
        if not (tableau.fsal and tableau.e[-1]):
            error = error + 0 * k1  # not finite where the next step could not start
        if tableau.e3 is not None:
            return _weighed(error, dt * combine(tableau.e3, slopes))
        if tableau.null_rules is None:
            return error
        fine, coarse = (dt * combine(weights, [*slopes, k1]) for weights in tableau.null_rules)
        unseen = _weighed(UNSEEN * fine, coarse)
        return jnp.where(jnp.abs(unseen) > jnp.abs(error), unseen, error)

    def polynomial(self, f: VectorField, dense: Any, args: Any) -> jax.Array:
        """Coefficients in θ, [degree + 1, *state], of the interpolant of the step that handed out `dense`."""
        y, y1, dt, t, width, slopes, k1 = dense
        tableau, interpolant = self.tableau, self.tableau.interpolant
        if interpolant is None:
            return hermite(y, y1, dt * slopes[0], dt * k1)
        known = [*slopes, k1] if interpolant.a and interpolant.a[0] == tableau.b else slopes

        def stage(i, numbers, sums):
            (c,), (moved,) = numbers, sums
            return f(t + c * width, y + dt * moved(), args), None

        numbers = [((*tableau.c, *interpolant.c), t.dtype)]
        slopes, _ = in_turn(stage, known, numbers, [(*tableau.a, *interpolant.a)], self)
        return jnp.concatenate([y[None], dt * powers(interpolant, slopes)])


def _weighed(error: jax.Array, coarse: jax.Array) -> jax.Array:
    """An estimate times its share in a coarser one: error²/√(error² + 0.01·coarse²).

    So DOP853 weighs an estimate of order 5 by one of order 3: Hairer, Nørsett, Wanner, II.10, eq. (10.21), here
    component by component, so that it needs no tolerance.
    """
    fine, coarse = jnp.abs(error), jnp.abs(coarse)
    size = jnp.sqrt(fine**2 + 0.01 * coarse**2)
    return error * (fine / jnp.where(size == 0, 1, size)).astype(error.dtype)
