"""The matrix of Newton's method, kept from step to step for as long as it serves.

Source: Hairer, Wanner, Solving ODEs II, IV.8 (simplified Newton iterations); Brown, Byrne, Hindmarsh 1989,
doi:10.1137/0910062.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiffeq.algebra.norm import rms
from jaxdiffeq.problems.vector_field import VectorField
from jaxdiffeq.types import Work

RENEWED = 4
"""with up to so many unknowns a new Jacobian and its factors cost less than the iterations they save"""
LASTS = 20
"""steps with one Jacobian"""
LEAPS = 3.0
"""times the least step: a step so much longer than expected wants a new Jacobian"""
CONTRACTION = 0.001
"""of the contraction of Newton's method, beyond which the Jacobian has become another"""
SAME, ALIKE = 0.01, 0.2
"""relative changes of the step up to which its matrix is not factored again, by one stage a step and by several"""
SHORTER = 0.9
"""of a step: the next one of a Runge–Kutta method has a new Jacobian if it is smaller, since it may be one refused"""


class Chord(NamedTuple):
    """What Newton's method uses from step to step. Constant to differentiation."""

    jacobian: Any
    factors: Any
    """of c·M − J, or of several such"""
    c: jax.Array
    left: jax.Array
    """steps that the Jacobian still lasts"""
    least: jax.Array
    """|dt| of the next step, unless that was refused or cut short"""


Kept = Chord | None
"""None where every step makes its own"""


class Matrix(NamedTuple):
    """What makes the matrix of a step."""

    make: Callable[[], Any]
    """() ↦ the Jacobian"""
    factored: Callable[[Any], Any]
    """the Jacobian ↦ factors"""
    contraction: Callable[[Any, Any], jax.Array] | None = None
    """(Jacobian, factors) ↦ how fast Newton's method would converge with them, seen from the start of the step; where
    no step can be refused"""


def contraction(system: VectorField, solve: Callable, at: tuple, jacobian: Any) -> jax.Array:
    """The contraction W⁻¹(∂f/∂v − J) of Newton's method with a Jacobian of before, along one vector."""
    t, v, args = at
    x = jnp.cos(jnp.arange(v.size, dtype=v.dtype))
    _, now = jax.jvp(lambda v: system(t, v, args), (v,), (x,))
    return rms(jnp.abs(solve(now - system.algebra.times(jacobian, x)))) / rms(x)


def none(system: VectorField, t: jax.Array, v: jax.Array, matrix: Matrix, worth: bool = True) -> Kept:
    """Room for what the first step will make, if that is `worth` it."""
    if system.size <= RENEWED or not worth:
        return None

    def both():
        jacobian = matrix.make()
        return jacobian, matrix.factored(jacobian)

    jacobian, factors = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(both))
    return Chord(jacobian, factors, jnp.zeros((), v.dtype), jnp.zeros((), jnp.int32), jnp.zeros_like(t))


def renewed(
    kept: Kept, matrix: Matrix, c: jax.Array, width: jax.Array, same: float = SAME, of_step: bool = False
) -> tuple[Chord, Work]:
    """The matrix for a step of size `width`, and what it took: calls of f, Jacobians, matrices that were factored.

    A Jacobian is made anew when it has lasted its time, and for a step that is not the expected one, as after a
    refusal; where it depends on the step, as `of_step` says, with every matrix.
    """
    make, factored, contraction = matrix
    one = jnp.ones((), jnp.int32)
    if kept is None:
        jacobian = make()
        return Chord(jacobian, factored(jacobian), c, 0 * one, jnp.abs(width)), Work(0, one, one, 0, 0)
    expected = (jnp.abs(width) >= 0.99 * kept.least) & (jnp.abs(width) <= LEAPS * kept.least)
    renew = (kept.left <= 0) | ~expected
    if contraction is not None:
        renew |= ~(contraction(kept.jacobian, kept.factors) < CONTRACTION)
    again = renew | ~(jnp.abs(c - kept.c) < same * jnp.abs(kept.c))
    if of_step:
        renew = again
    jacobian = lax.cond(renew, make, lambda: kept.jacobian)
    factors = lax.cond(again, lambda: factored(jacobian), lambda: kept.factors)
    left = jnp.where(renew, LASTS, kept.left - 1)
    chord = Chord(jacobian, factors, jnp.where(again, c, kept.c), left, kept.least)
    return chord, Work(one * int(contraction is not None), renew.astype(one.dtype), again.astype(one.dtype), 0, 0)


def handed_on(chord: Chord, kept: Kept, slow: jax.Array, least: jax.Array) -> Kept:
    """For the next step, of size `least` or more; without the Jacobian if Newton's method was `slow` with it."""
    if kept is None:
        return None
    return lax.stop_gradient(chord._replace(left=jnp.where(slow, 0, chord.left), least=least))
