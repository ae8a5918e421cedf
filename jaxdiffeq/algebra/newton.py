"""Newton's method for the stages of implicit steps, with the derivative of the implicit function theorem."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiffeq import errors
from jaxdiffeq.algebra import structure
from jaxdiffeq.algebra.norm import rms
from jaxdiffeq.algebra.vectors import spread
from jaxdiffeq.primitives.while_loop import frozen_while
from jaxdiffeq.types import PyTree

Vector = jax.Array  # [n]


@dataclass(frozen=True)
class Newton:
    """z ← z + W⁻¹·r(z) with one W for all iterations of a step, until what is left is `kappa` of the tolerance.

    What is left is judged by the rate: ‖dz‖·θ/(1 − θ), where θ is the last ratio of two increments. Iterations that
    diverge (θ ≥ 2), are not finite, or too slow to arrive within `iterations`, refuse the step.
    Equal steps, which nothing refuses and no tolerance judges, are solved to rounding whatever `kappa` is, where need
    be with a new W in each of five times as many iterations more.
    Source: Hairer, Wanner, Solving ODEs II, IV.8.
    """

    kappa: float = 0.02
    iterations: int = 10

    def __post_init__(self) -> None:
        errors.positive(self.kappa, "Newton(kappa)")
        errors.positive_integer(self.iterations, "Newton(iterations)")


NEWTON = Newton()
SHARPER = 0.03
"""of kappa, where there are algebraic components: what is left there is in differences of the past and in estimates of
the error, undivided by any step size, so that no step is short enough for it"""
DOUBT = 0.1
"""the smallest rate of the step before that is believed there"""
ROUNDING = 20
"""units of rounding, relative to each component: what is solved no further"""
PATIENCE = 5
"""times as many iterations with a new W in each: far from a double root each of them halves what is left"""
FASTEST = 1e-3
"""rate of convergence that is believed where all digits are wanted"""
NOISE = 1000
"""units of rounding of the largest component: increments that a new W does not shorten are rounding below that"""


class Start(NamedTuple):
    """Where the iteration begins, and what steers it. Constant to differentiation."""

    z: Vector
    factors: Any
    """of W, an approximation of −∂r/∂z"""
    scale: Vector
    """an error of one, in each component; to rounding: the size of what z is added to"""
    floor: jax.Array
    """rounding, in units of `scale`"""
    rate: jax.Array
    """θ/(1 − θ) of an iteration with the same W, or infinity"""
    again: Vector
    """where an iteration to rounding begins again, where the first did not arrive: what stands for no change of y"""


class Found(NamedTuple):
    z: Vector
    ok: jax.Array
    iterations: jax.Array
    rate: jax.Array
    renewed: Any = 0
    """how often W was made anew"""


class _Rules(NamedTuple):
    """When an iteration ends."""

    size: Callable[[Vector, Vector], jax.Array]
    """(dz, z) ↦ how large an increment is"""
    enough: jax.Array
    """of what is left, by the rate"""
    least: jax.Array
    """of an increment, whatever the rate"""
    iterations: int
    fastest: float = 0.0
    """the smallest rate that is believed: two increments may happen to differ by more"""
    noise: Callable[[Vector, Vector], jax.Array] | None = None
    """(dz, z) ↦ whether an increment that is not shorter than the last is rounding; where W is new, so that to give up
    is for nothing but the number of iterations"""


class _At(NamedTuple):
    z: Vector
    size: jax.Array
    rate: jax.Array
    slowest: jax.Array
    """of the rates so far: the last one may be small by accident, and is no promise to another iteration"""
    tried: jax.Array
    going: jax.Array
    ok: jax.Array


def judged(tolerance: Any, y: jax.Array, to_rounding: bool) -> tuple[Vector, jax.Array]:
    """`scale` and `floor` of a step that begins at y, [*state]."""
    eps = jnp.finfo(y.dtype).eps
    if to_rounding:
        return spread(jnp.abs(y), y), jnp.asarray(ROUNDING * eps, jnp.finfo(y.dtype).dtype)
    return spread(tolerance.of_iterate(y), y), 10 * eps / jnp.max(tolerance.rtol)


def root(
    newton: Newton,
    residual: Callable,
    algebra: Any,
    exact: Callable,
    start: Start,
    operands: PyTree,
    *,
    to_rounding: bool = False,
    algebraic: bool = False,
) -> Found:
    """z with residual(z, operands) = 0, by Newton's method with the factors that `start` has; see `implied`.

    `algebraic`: components may have no derivative, and what is left there harms the steps that follow.
    """
    if algebraic:
        newton = replace(newton, kappa=SHARPER * newton.kappa)
        start = start._replace(rate=jnp.maximum(start.rate, DOUBT))

    def search(residual, exact, start):
        chord = lambda z: algebra.solve(start.factors, residual(z))
        if not to_rounding:
            at = _iterate(chord, _to_tolerance(newton, start), start.z, start.rate)
            return Found(at.z, at.ok, at.tried, jnp.where(at.ok, at.slowest, jnp.inf))
        anew = lambda z: algebra.solve(algebra.factor(exact(z)), residual(z))
        return _to_rounding(newton, chord, anew, start)

    return implied(search, residual, algebra, exact, start, operands)


def implied(search: Callable, residual: Callable, algebra: Any, exact: Callable, start: Any, operands: PyTree) -> Found:
    """What `search(z ↦ residual(z, operands), z ↦ exact(z, operands), start)` found, with an exact derivative.

    `start` has all that the search depends on, and a `z` to begin with; `exact(z, operands)` is −∂residual/∂z at z, as
    `algebra` stores it. What the two functions close over, such as the ends of a leg between stops, becomes an operand.
    """
    residual, of_residual = jax.closure_convert(residual, start.z, operands)
    exact, of_exact = jax.closure_convert(exact, start.z, operands)

    operands = (operands, *of_residual), (operands, *of_exact)
    fixed, fixed_exact = lax.stop_gradient(operands)
    found = search(lambda z: residual(z, *fixed), lambda z: exact(z, *fixed_exact), lax.stop_gradient(start))
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


def _to_tolerance(newton: Newton, start: Start) -> _Rules:
    enough = jnp.maximum(newton.kappa, start.floor)
    return _Rules(lambda dz, z: rms(dz / start.scale), enough, 0.01 * start.floor, newton.iterations)


def _to_rounding(newton: Newton, chord: Callable, anew: Callable, start: Start) -> Found:
    """With the factors of `start`, and where these do not lead there with new ones in each iteration.

    Old factors may have led, slowly but far, to where no new ones lead back: then it begins again.
    """
    eps, tiny = (getattr(jnp.finfo(start.z.dtype), name) for name in ("eps", "tiny"))

    def beside(dz, z):
        return jnp.maximum(start.scale, jnp.abs(z + dz))

    def size(dz, z):
        own = beside(dz, z)
        return rms(dz / jnp.maximum(own, eps * jnp.max(own) + tiny / eps))

    def noise(dz, z):
        return jnp.max(jnp.abs(dz)) <= NOISE * eps * jnp.max(beside(dz, z))

    unknown = jnp.full_like(start.rate, jnp.inf)
    rules = _Rules(size, start.floor, start.floor, newton.iterations, FASTEST)
    first = _iterate(chord, rules, start.z, unknown)
    rules = rules._replace(iterations=PATIENCE * newton.iterations, noise=noise)
    last = _iterate(anew, rules, jnp.where(first.ok, first.z, start.again), unknown, first.ok)
    return Found(last.z, last.ok, first.tried + last.tried, unknown, last.tried)


def _iterate(increment: Callable, rules: _Rules, z: Vector, rate: jax.Array, ok: Any = False) -> _At:
    """z ← z + increment(z) until the rules are met, not at all if it is `ok`."""

    def improve(_, at):
        dz = increment(at.z)
        size = rules.size(dz, at.z)
        theta = size / jnp.where(at.size > 0, at.size, 1)
        seen = at.tried > 0
        rate = jnp.where(seen, theta / jnp.where(theta < 1, 1 - theta, 1), at.rate)
        rate = jnp.where(seen & (theta >= 1), jnp.inf, rate)
        rate = jnp.maximum(rate, rules.fastest) if rules.fastest else rate
        done = (rate * size <= rules.enough) | (size <= rules.least) | (size == 0)
        left = rules.iterations - 1 - at.tried
        if rules.noise is None:
            slow = rate * size * theta ** left.astype(size.dtype) > rules.enough
            hopeless = seen & ((theta >= 2) | slow)
        else:
            hopeless, done = False, done | (seen & (theta >= 0.5) & rules.noise(dz, at.z))
        lost = ~jnp.isfinite(size) | (left <= 0) | hopeless
        slowest = jnp.where(at.tried > 1, jnp.maximum(at.slowest, rate), rate)
        new = _At(at.z + dz, size, rate, slowest, at.tried + 1, ~(done | lost), done & jnp.isfinite(size))
        return (), jax.tree.map(lambda a, b: jnp.where(at.going, a, b), new, at)

    ok = jnp.asarray(ok)
    first = _At(z, jnp.zeros((), z.dtype), rate, rate, jnp.zeros((), jnp.int32), ~ok, ok)
    _, last = frozen_while(lambda _, at: at.going, improve, (), first)
    return last
