"""Iterated integrals of several Brownian motions over a step, Jⱼₖ = ∫∫ ∘dWⱼ ∘dWₖ, drawn from what is known of them."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jaxdiffeq.algebra.norm import safe_sqrt
from jaxdiffeq.noise.normals import pair, seed_of
from jaxdiffeq.types import Increment

AREAS = 4  # what the numbers are for


def levy_areas(increment: Increment, h: jax.Array, terms: int = 8) -> jax.Array:
    """J = ½ W⊗W + H⊗W − W⊗H + π Σᵣ r·(aᵣ⊗bᵣ − bᵣ⊗aᵣ), [m, m], for W and H as they are. J + Jᵀ = W⊗W to rounding.

    aᵣ and bᵣ ~ N(0, h/(2π²r²)) are the Fourier coefficients of the bridge of W, of which Σ aᵣ = −H. `terms` are drawn;
    the rest is normal with its right covariance given what has been drawn and H. Without terms that is the covariance
    of J given W and H, Foster's approximation.

    The error is in the fourth moment: of the area of two motions, E A⁴ = 5h⁴/16, it is −6e-3·h⁴ without terms; with
    some it is at most 3h⁴·Σ σᵣ⁴/h² of those left out, σᵣ² = h/(2π²r²): about h⁴/(4π⁴·terms³). In mean square it falls
    as h/terms (Wiktorsson), so that a method has strong order one with terms ~ h^−½.
    Shapes: of `increment` [m].
    Source: Kloeden, Platen, Wright 1992; Wiktorsson 2001, doi:10.1214/aoap/1015345301; Foster 2020, Oxford, thesis.
    """
    w, area = increment.w, increment.area
    (m,), dtype, h = w.shape, w.dtype, jnp.abs(h).astype(w.dtype)
    root, seed = safe_sqrt(h), seed_of(jax.random.key_data(increment.key), AREAS)
    free = 1 / 12  # Σ σᵣ²/h for σᵣ² = h/(2π²r²); what is left of it, and of Σ σᵣ⁴/h²:
    sizes = [(2 * math.pi**2 * r * r) ** -0.5 for r in range(1, terms + 1)]
    rho, kappa = free - sum(x**2 for x in sizes), 1 / 360 - sum(x**4 for x in sizes)
    rest, beta = pair(seed, 1, (m,), dtype)
    rest = root * rho**0.5 * rest
    found = 0.5 * jnp.outer(w, w) + _wedge(area, w)
    if terms:
        size = jnp.asarray(sizes, dtype)
        a, b = (root * size[:, None] * x for x in pair(seed, 0, (terms, m), dtype))
        excess = area + jnp.sum(a, 0) + rest
        a = a - jnp.outer(size**2 / free, excess)
        rest = rest - rho / free * excess
        weights = math.pi * jnp.arange(1, terms + 1, dtype=dtype)[:, None]
        half = jnp.tensordot(weights * a, b, (0, 0))
        found = found + half - half.T
    else:
        rest = -area
    upper = jnp.triu(pair(seed, 2, (m, m), dtype)[0], 1)
    found = found + (kappa / 2) ** 0.5 / rho * root * _wedge(rest, beta)
    return found + (rho - kappa / rho) ** 0.5 * h * (upper - upper.T)


def _wedge(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.outer(x, y) - jnp.outer(y, x)
