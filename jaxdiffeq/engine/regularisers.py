"""What a solve cost its solver, as numbers that a network can be trained to keep small.

Their derivatives are those of the steps that were taken, whose sizes are constants.

Source: Pal, Ma, Shah, Rackauckas 2021, arXiv:2105.03918, for errors and stiffness; Finlay, Jacobsen, Nurbekyan, Oberman
2020, arXiv:2002.02798, for the kinetic energy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiffeq.algebra.norm import mean_square, safe_sqrt
from jaxdiffeq.engine.recorders import RecorderDefaults
from jaxdiffeq.primitives.constant_matmul import constant_matmul
from jaxdiffeq.types import Estimates, Inputs, PyTree, Shapes, State, StepCotangents, StepView

MEANINGS = {
    "error": "Σ |dt|·‖E‖, E the estimate of a step's error",
    "stiffness": "Σ |dt|·|λ|, |λ| the fastest rate in the system by two stages of a step",
    "energy": "∫ ‖dy/dt‖² |dt|, of the dense output",
}
"""sums over the accepted steps; ‖·‖ is a root mean square"""


@dataclass(frozen=True)
class RegulariserSums(RecorderDefaults):
    """The sums in `names`. Shapes: moving, [names + 1] of real numbers, the last spare as in every record.

    They come from what a step computes anyway: no call of f is added unless the method's dense output takes some.
    """

    names: tuple[str, ...]

    reads_estimates = True

    @property
    def reads_interpolant(self) -> bool:
        return "energy" in self.names

    def init(self, inputs: Inputs, start: State, shapes: Shapes) -> tuple[PyTree, PyTree]:
        return self.at_start(inputs, start), jnp.zeros((), jnp.int32)

    def at_start(self, inputs: Inputs, start: State) -> jax.Array:
        return jnp.zeros(len(self.names) + 1, jnp.finfo(start.y.dtype).dtype)

    def record(self, moving: jax.Array, fixed: jax.Array, step: StepView, inputs: Inputs) -> tuple[PyTree, PyTree]:
        gain = self._gain(step.before.t, step.after.t, step.coefficients, step.estimates)
        return moving + jnp.where(step.taken, gain, 0).astype(moving.dtype), fixed

    def _gain(self, t0: jax.Array, t1: jax.Array, coefficients: jax.Array | None, estimates: Estimates) -> jax.Array:
        """What one step adds."""
        width = jnp.abs(t1 - t0)
        found = {}
        if estimates.error is not None:
            found["error"] = width * safe_sqrt(mean_square(estimates.error))
        if estimates.spectral_radius is not None:
            found["stiffness"] = width * estimates.spectral_radius
        if coefficients is not None:
            found["energy"] = _energy(coefficients) / jnp.where(width > 0, width, jnp.inf)
        return jnp.stack([*(found[name].astype(width.dtype) for name in self.names), jnp.zeros_like(width)])

    def vjp(
        self, bars: StepCotangents, cursor: jax.Array, step: StepView, active: Any, out: jax.Array
    ) -> tuple[StepCotangents, jax.Array]:
        """Add the cotangents of what this step has added."""
        given = step.before.t, step.after.t, step.coefficients, step.estimates
        gain, pull = jax.vjp(self._gain, *given)
        t0, t1, coefficients, estimates = pull(jnp.where(step.taken, out, 0).astype(gain.dtype))
        after = jax.tree.map(jnp.zeros_like, bars.after)._replace(t=t1)
        return bars.add(t0, after, coefficients, jax.tree.map(jnp.zeros_like, bars.inputs), estimates=estimates), cursor


def _energy(coefficients: jax.Array) -> jax.Array:
    """∫₀¹ ‖Σₚ p·cₚ·θᵖ⁻¹‖² dθ as a sum of squares, with the factor of the matrix ∫ (θᵖ)′(θ^q)′ dθ."""
    p = np.arange(1, coefficients.shape[0])
    factor = np.linalg.cholesky(np.outer(p, p) / (p[:, None] + p - 1))
    parts = constant_matmul(factor.T, coefficients[1:])
    return len(p) * mean_square(parts)
