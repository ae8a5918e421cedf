"""Explicit methods with many stages, for stiffness of real negative eigenvalues: of diffusion, say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiffeq.problems.driven_field import DrivenField
from jaxdiffeq.steppers.stochastic import Sizes, StochasticDefaults, finished, iterated, sizes
from jaxdiffeq.steppers.weak import Columns, signs, three_point
from jaxdiffeq.tableaux.stabilized import StabilizedTableau
from jaxdiffeq.types import State, Step

WRITTEN_OUT = 8
"""stages in a row of the loop over them"""


@dataclass(frozen=True, repr=False)
class SROCK2Stepper(StochasticDefaults):
    """Kⱼ by the recurrence of `StabilizedTableau`. With s stages, and σ and τ as `last` has them,

    K* = Kₛ₋₂ + 2τ·dt·a(Kₛ₋₂) + Σₖ bᵏ(Kₛ) Iₖ
    y₁ = Kₛ₋₂ + (2σ − ½)·dt·a(Kₛ₋₂) + ½dt·a(K*) + Σₖ bᵏ(Kₛ₋₁) Iₖ
         + ½ Σₖ (bᵏ(Kₛ + Σₗ bˡ(Kₛ) Iₗₖ) − bᵏ(Kₛ − Σₗ bˡ(Kₛ) Iₗₖ))
         + ¼ Σₖ (bᵏ(Kₛ + √dt·Σₗ ±bˡ(Kₛ)) − 2bᵏ(Kₛ) + bᵏ(Kₛ − √dt·Σₗ ±bˡ(Kₛ))) Iₖ

    with numbers I as those of `WeakIto`. Diagonal noise is taken to depend on its own component alone. What noise puts
    in a component of rate λ has ½λ·dt times its size at the end of a step: nothing damps it before the next one.
    Source: Abdulle, Vilmart, Zygalakis 2013, doi:10.1137/12088954X.
    """

    tableau: StabilizedTableau

    name: ClassVar[Any] = "SROCK2"
    weak_order: ClassVar[Any] = 2

    def __repr__(self) -> str:
        return f"{self.name}({self.tableau.stages})"

    @property
    def evaluations(self) -> tuple[int, int, int]:
        return 0, self.tableau.stages + 1, 0

    def step(self, f: DrivenField, start: State, t1: jax.Array, args: Any, tolerance: Any = None) -> Step:
        size, inc = sizes(start, t1), f.over(start.t, t1, args)
        (t, y, width, dt, root, over_root), alpha = size, self.tableau.alpha
        sigma, tau = self.tableau.last
        (early, middle, late), a = self.stages(f, size, args)
        where = [float(alpha * c) for c in self.tableau.slopes[-3:]]
        numbers = three_point(inc, root)
        time = t + where[-3] * width
        b = f.diffusion(t + where[-1] * width, late, args)
        once = f.times(b, numbers)
        other = f(time + 2 * tau * width, early + 2 * tau * dt * a + once, args)
        y1 = early + dt * ((2 * sigma - 0.5) * a + 0.5 * other)
        y1 = y1 + f.times(f.diffusion(t + where[-2] * width, middle, args), numbers)
        if not f.kind.additive:
            columns = Columns(f, Sizes(t + where[-1] * width, late, width, dt, root, over_root), args)
            y1 = y1 + (self.own if f.kind.columns is None else self.mixed)(columns, b, numbers, inc.key)
        return finished(y, y1, t1)

    def stages(self, f: DrivenField, size: Sizes, args: Any) -> tuple[tuple, jax.Array]:
        """The last three K, and a at the first of these."""
        (t, y, width, dt, *_), alpha, (mu, kappa) = size, self.tableau.alpha, self.tableau.recurrence

        def stage(carry, row):
            (before, at), (mu, kappa, c) = carry, row
            slope = f(t + c.astype(t.dtype) * width, at, args)
            m, k = mu.astype(y.dtype), kappa.astype(y.dtype)
            return (at, m * dt * slope + (1 + k) * at - k * before), slope

        rows = tuple(jnp.asarray(x) for x in (alpha * mu, kappa, alpha * self.tableau.slopes[:-1]))
        first = tuple(x[:-2] for x in rows)
        kept = lambda carry, row: (stage(carry, row)[0], None)
        (before, early), _ = lax.scan(kept, (y, y), first, unroll=min(WRITTEN_OUT, self.tableau.stages - 2))
        (_, middle), a = stage((before, early), [x[-2] for x in rows])
        (_, late), _ = stage((early, middle), [x[-1] for x in rows])
        return (early, middle, late), a

    def own(self, columns: Columns, b: jax.Array, numbers: jax.Array, key: jax.Array) -> jax.Array:
        """The last two terms of y₁ where a component has nothing to do with the noise of others."""
        f, (t, y, _, dt, root, _), args = columns.f, columns.size, columns.args
        apart = f.times(b, iterated(numbers, dt))
        second = f.diffusion(t, y + apart, args) - f.diffusion(t, y - apart, args)
        bend = f.diffusion(t, y + root * b, args) - 2 * b + f.diffusion(t, y - root * b, args)
        return 0.5 * second + 0.25 * f.times(bend, numbers)

    def mixed(self, columns: Columns, b: jax.Array, numbers: jax.Array, key: jax.Array) -> jax.Array:
        """The same for columns, [*state, m]."""
        f, (t, y, _, dt, root, _), args = columns.f, columns.size, columns.args
        m, h = numbers.size, jnp.real(dt).astype(numbers.dtype)
        twice = 0.5 * (jnp.outer(numbers, numbers) - h * (jnp.eye(m, dtype=h.dtype) - signs(key, m, h.dtype)))
        apart = jnp.moveaxis(f.times(b, twice), -1, 0)
        second = jnp.sum(columns.own(0.0, y[None] + apart) - columns.own(0.0, y[None] - apart), 0)
        random = root * f.times(b, jax.random.rademacher(jax.random.fold_in(key, 1), (m,), h.dtype))
        bend = f.diffusion(t, y + random, args) - 2 * b + f.diffusion(t, y - random, args)
        return 0.5 * second + 0.25 * f.times(bend, numbers)
