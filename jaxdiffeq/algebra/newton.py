"""Newton's method for the stages of implicit steps, with the derivative of the implicit function theorem."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiffeq import errors
from jaxdiffeq.algebra import structure
from jaxdiffeq.algebra.norm import rms
from jaxdiffeq.primitives.while_loop import frozen_while
from jaxdiffeq.types import PyTree

Vector = jax.Array  # [n]


@dataclass(frozen=True)
class Newton:
    """z ← z + W⁻¹·r(z) with one W for all iterations of a step, until what is left is `kappa` of the tolerance.

    What is left is judged by the rate: ‖dz‖·θ/(1 − θ), where θ is the last ratio of two increments. Iterations that
    diverge (θ ≥ 2), are not finite, or too slow to arrive within `iterations`, refuse the step.
    Source: Hairer, Wanner, Solving ODEs II, IV.8.
    """

    kappa: float = 0.02
    iterations: int = 10

    def __post_init__(self) -> None:
        errors.positive(self.kappa, "Newton(kappa)")
        errors.positive_integer(self.iterations, "Newton(iterations)")


NEWTON = Newton()


class Start(NamedTuple):
    """Where the iteration begins, and what steers it. Constant to differentiation."""

    z: Vector
    factors: Any
    """of W, an approximation of −∂r/∂z"""
    scale: Vector
    """an error of one, in each component"""
    floor: jax.Array
    """rounding, in units of the tolerance"""
    rate: jax.Array
    """θ/(1 − θ) of an iteration with the same W, or infinity"""


class Found(NamedTuple):
    z: Vector
    ok: jax.Array
    iterations: jax.Array
    rate: jax.Array


class _At(NamedTuple):
    z: Vector
    size: jax.Array
    rate: jax.Array
    tried: jax.Array
    going: jax.Array
    ok: jax.Array


def root(newton: Newton, residual: Callable, algebra: Any, exact: Callable, start: Start, operands: PyTree) -> Found:
    """z with residual(z, operands) = 0, by Newton's method with the factors that `start` has; see `implied`."""

    def search(residual, start):
        return _iterate(newton, residual, algebra, start)

    return implied(search, residual, algebra, exact, start, operands)


def implied(search: Callable, residual: Callable, algebra: Any, exact: Callable, start: Any, operands: PyTree) -> Found:
    """What `search(z ↦ residual(z, operands), start)` found. Its derivative is exact, however rough the search.

    `start` has all that the search depends on, and a `z` to begin with; `exact(z, operands)` is −∂residual/∂z at z, as
    `algebra` stores it. What the two functions close over, such as the ends of a leg between stops, becomes an operand.
    """
    residual, of_residual = jax.closure_convert(residual, start.z, operands)
    exact, of_exact = jax.closure_convert(exact, start.z, operands)

    operands = (operands, *of_residual), (operands, *of_exact)
    fixed = lax.stop_gradient(operands[0])
    found = search(lambda z: residual(z, *fixed), lax.stop_gradient(start))
    # where the iteration failed the step is refused: a derivative there need only be finite
    z = jnp.where(found.ok, found.z, lax.stop_gradient(start.z))
    z = attached(z, lambda z, at: residual(z, *at[0]), algebra, lambda z, at: exact(z, *at[1]), operands)
    return found._replace(z=jnp.where(found.ok, z, found.z))


def attached(z: Vector, residual: Callable, algebra: Any, exact: Callable, operands: PyTree) -> Vector:
    """The root z of residual(z, operands), with the derivative that the implicit function theorem gives it.

    `exact(z, operands)` is −∂residual/∂z; neither function may close over what is differentiated.
    """

    @jax.custom_jvp
    def root(z, operands):
        return z

    @root.defjvp
    def _(primals, tangents):
        z, operands = root(*primals), primals[1]
        _, d_residual = jax.jvp(lambda operands: residual(z, operands), (operands,), (tangents[1],))
        w = exact(z, operands)
        return z, structure.solve(algebra, w, algebra.factor(lax.stop_gradient(w)), d_residual)

    return root(z, operands)


def _iterate(newton: Newton, residual: Callable, algebra: Any, start: Start) -> Found:
    enough = jnp.maximum(newton.kappa, start.floor)

    def improve(_, at):
        dz = algebra.solve(start.factors, residual(at.z))
        size = rms(dz / start.scale)
        theta = size / jnp.where(at.size > 0, at.size, 1)
        seen = at.tried > 0
        rate = jnp.where(seen, theta / jnp.where(theta < 1, 1 - theta, 1), at.rate)
        rate = jnp.where(seen & (theta >= 1), jnp.inf, rate)
        done = (rate * size <= enough) | (size <= 0.01 * start.floor) | (size == 0)
        left = newton.iterations - 1 - at.tried
        hopeless = seen & ((theta >= 2) | (rate * size * theta ** left.astype(size.dtype) > enough))
        lost = ~jnp.isfinite(size) | (left <= 0) | hopeless
        new = _At(at.z + dz, size, rate, at.tried + 1, ~(done | lost), done & jnp.isfinite(size))
        return (), jax.tree.map(lambda a, b: jnp.where(at.going, a, b), new, at)

    zero = jnp.zeros((), start.scale.dtype)
    first = _At(start.z, zero, start.rate, jnp.zeros((), jnp.int32), jnp.array(True), jnp.array(False))
    _, last = frozen_while(lambda _, at: at.going, improve, (), first)
    return Found(last.z, last.ok, last.tried, jnp.where(last.ok, last.rate, jnp.inf))
