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


LARGE, LOST = 100, 3e-12
"""Weights of powers of θ above this are not summed as they are, unless less than that is lost of the slopes."""


def powers(weights: Any, slopes: Sequence[jax.Array]) -> jax.Array:
    """Coefficients of θ¹, θ², … of Σᵢ bᵢ(θ) slopesᵢ for `InterpolantWeights`. Shapes: ↦ [degree, *state].

    Weights of powers of θ, up to millions, cancel in values. Where they are large, those of θ − ½ are summed, which are
    a thousand times smaller, and then the sums are small from which those of θ follow.
    """
    largest = float(max(abs(w) for row in weights.b for w in row))
    if largest <= LARGE or largest * float(jnp.finfo(slopes[0].dtype).eps) <= LOST:
        return weigh(weights.b, slopes)
    around_middle, shift = _around_middle(weights)
    return constant_matmul(shift, constant_matmul(around_middle, jnp.stack(slopes)))


@functools.cache
def _around_middle(weights: Any) -> tuple[np.ndarray, np.ndarray]:
    """Weights of (θ − ½)^q, q = 0, 1, …, and what makes those of θ¹, θ², … of their sums, each [rows, columns]."""
    degree = len(weights.b[0])
    half, number = Fraction(1, 2), range(degree + 1)
    taylor = [[math.comb(p, q) * half ** (p - q) if q <= p else 0 for q in number] for p in number[1:]]
    rows = [[sum(Fraction(w) * x[q] for w, x in zip(row, taylor, strict=True)) for row in weights.b] for q in number]
    shift = [[math.comb(q, p) * (-half) ** (q - p) if p <= q else 0 for q in number] for p in number[1:]]
    return np.array(rows, float), np.array(shift, float)


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
