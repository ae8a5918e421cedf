"""Iterated integrals, given the increments and space-time areas of a step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiffeq.noise.areas import levy_areas
from jaxdiffeq.types import Increment

N, H = 100_000, 0.5


@functools.partial(jax.jit, static_argnames="terms")
def drawn(terms):
    normal = jax.random.normal(jax.random.key(0), (2, N, 3))
    w, area = normal[0] * H**0.5, normal[1] * (H / 12) ** 0.5
    keys = jax.random.split(jax.random.key(1), N)
    return w, area, jax.vmap(lambda *of: levy_areas(Increment(*of), jnp.float64(H), terms))(w, area, keys)


def error(x):
    """Of the mean, in standard errors, from zero."""
    return abs(x.mean()) / (x.std() / N**0.5)


@pytest.mark.parametrize("terms", [0, 1, 8])
def test_what_is_known_of_them(terms):
    """J + Jᵀ = W⊗W; given W and H, A₁₂ has mean H₁W₂ − W₁H₂, variance h²/20 + h(H₁² + H₂²)/5, and Cov(A₁₂, A₁₃) is
    h·H₂H₃/5 beyond that of the means. E cos λA = 1/cosh(λh/2) without terms too, to 2e-2."""
    w, area, found = (np.asarray(x) for x in drawn(terms))
    np.testing.assert_allclose(found + found.transpose(0, 2, 1), w[:, :, None] * w[:, None, :], atol=1e-14)
    a = (found - found.transpose(0, 2, 1)) / 2
    mean = area[:, :, None] * w[:, None, :] - w[:, :, None] * area[:, None, :]
    rest = a - mean
    r12, r13, (h1, h2, h3) = rest[:, 0, 1], rest[:, 0, 2], area.T
    unknown = r12**2 - H**2 / 20 - H / 5 * (h1**2 + h2**2)
    together = r12 * r13 - H / 5 * h2 * h3
    for x in (r12, r12 * w[:, 0] * area[:, 1], unknown, unknown * h1**2, together, together * h2 * h3):
        assert error(x) < 4
    assert error(a[:, 0, 1] ** 2 - H**2 / 4) < 4
    cosine = np.cos(4 / H * a[:, 0, 1]) - 1 / np.cosh(2.0)
    assert abs(cosine.mean()) < (2e-2 if terms == 0 else 4 * cosine.std() / N**0.5)


def test_a_step_of_no_length():
    step = Increment(jnp.zeros(2), jnp.zeros(2), jax.random.key(0))
    value, slope = jax.jit(lambda h: jax.jvp(lambda h: levy_areas(step, h, 2), (h,), (1.0,)))(0.0)
    assert not jnp.any(value) and jnp.all(jnp.isfinite(slope))
