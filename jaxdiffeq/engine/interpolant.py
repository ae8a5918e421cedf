"""Dense output: every method's interpolant, written as one polynomial in θ = (t − t₀) / (t₁ − t₀)."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.polynomial import legendre

from jaxdiffeq.primitives.constant_matmul import constant_matmul


def combine(weights: Sequence[float], slopes: Sequence[jax.Array]) -> jax.Array:
    """Σᵢ weightsᵢ slopesᵢ, with no operation for a zero and none for a one."""
    terms = [k if w == 1 else w * k for w, k in zip(weights, slopes, strict=False) if w != 0]
    if not terms:
        return jnp.zeros_like(slopes[0])
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def weigh(weights: Sequence[Sequence[Any]] | np.ndarray, slopes: Sequence[jax.Array]) -> jax.Array:
    """Σᵢ weights[i][p] slopesᵢ for every p at once. Shapes: [stages, degree], stages of [*state] ↦ [degree, *state]."""
    return constant_matmul(np.transpose(np.asarray(weights, float)), jnp.stack(slopes))


LARGE = 100
"""weights of powers of θ above this are not summed as they are: a float32 would lose more than two digits"""


def powers(weights: Any, slopes: Sequence[jax.Array]) -> jax.Array:
    """Coefficients of θ¹, θ², … of Σᵢ bᵢ(θ) slopesᵢ for `InterpolantWeights`. Shapes: ↦ [degree, *state].

    Weights of powers, up to a million, may cancel in values. Where they are large, the values at some θ are found, the
    polynomial through them in powers of θ − ½, and from these those of θ. What the values miss by then is added.
    """
    if max(abs(w) for row in weights.b for w in row) <= LARGE:
        return weigh(weights.b, slopes)
    values, of_powers, middle, shift = _in_values(weights)
    through = lambda x: weigh(shift, list(weigh(middle, list(x))))
    wanted = weigh(values, slopes)
    rough = through(wanted)
    return rough + through(wanted - weigh(of_powers, list(rough)))


@functools.cache
def _in_values(weights: Any) -> tuple[np.ndarray, ...]:
    """Weights as for `weigh`: slopes ↦ values, powers of θ ↦ values, values ↦ powers of θ − ½, these ↦ powers of θ.

    The powers of θ begin with θ¹, those of θ − ½ with 1. The values are those at
    Lobatto's abscissae without 0, where the sum is zero.
    """
    degree = len(weights.b[0])
    inside = legendre.Legendre.basis(degree).deriv().roots().real / 2 + 0.5
    places = [Fraction(float(x)) for x in np.sort([*inside, 1.0])]
    of_powers = [[x**p for x in places] for p in range(1, degree + 1)]
    values = [[sum(Fraction(w) * x[j] for w, x in zip(row, of_powers, strict=True)) for j in range(degree)]
              for row in weights.b]  # fmt: skip
    ends = np.array([-0.5, *(float(x - Fraction(1, 2)) for x in places)])
    middle = np.linalg.inv(np.vander(ends, increasing=True))[:, 1:].T
    shift = [[math.comb(q, p) * (-0.5) ** (q - p) if p <= q else 0.0 for p in range(1, degree + 1)]
             for q in range(degree + 1)]  # fmt: skip
    return np.array(values, float), np.array(of_powers, float), middle, np.array(shift)


def hermite(y0: jax.Array, y1: jax.Array, d0: jax.Array, d1: jax.Array) -> jax.Array:
    """Coefficients [4, *state] of the cubic with ends y0, y1 and end slopes d0, d1 (per unit of θ)."""
    rise = y1 - y0
    return jnp.stack([y0, d0, 3 * rise - 2 * d0 - d1, d0 + d1 - 2 * rise])


def evaluate(coefficients: jax.Array, theta: jax.Array) -> jax.Array:
    """Σₚ coefficients[p] θᵖ by Horner's rule. Shapes: [degree + 1, *state], [] ↦ [*state]."""
    return _horner([coefficients[p : p + 1] for p in range(coefficients.shape[0])], theta)


def slope(coefficients: jax.Array, theta: jax.Array) -> jax.Array:
    """d/dθ of `evaluate`."""
    degree = coefficients.shape[0] - 1
    return _horner([p * coefficients[p : p + 1] for p in range(min(1, degree), degree + 1)], theta)


def _horner(rows: Sequence[jax.Array], theta: jax.Array) -> jax.Array:
    """Rows keep their leading 1 to the end: XLA moves a reshape over one operation in each round of its simplifier."""
    value = rows[-1]
    for row in reversed(rows[:-1]):
        value = value * theta + row
    return value[0]


def sample(coefficients: jax.Array, y1: jax.Array, t0: jax.Array, t1: jax.Array, at: jax.Array) -> jax.Array:
    """The state at time `at` in a step from t0 to t1; exactly `y1` at t1, with the derivative of the polynomial."""
    width = t1 - t0
    theta = (at - t0) / jnp.where(width == 0, 1, width)
    value = evaluate(coefficients, theta.astype(y1.dtype))
    return value + lax.stop_gradient(jnp.where(at == t1, y1 - value, 0))
