"""Leaps over many reactions at once: their numbers are Poisson, as if propensities stood still meanwhile.

The length of a leap is chosen so that no propensity changes by more than about `epsilon` of itself. Reactions that are
about to run out of a reactant are critical: at most one of them happens in a leap. A leap after which a number would be
negative is refused and halved; nothing is clipped, so what the reactions conserve is conserved. Where leaps would be
shorter than ten events, the next event is taken exactly.
Source: Cao, Gillespie, Petzold, J. Chem. Phys. 124 (2006) 044109.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdiffeq.algebra import lu
from jaxdiffeq.jumps.blocks import search
from jaxdiffeq.jumps.channels import Channels
from jaxdiffeq.jumps.counters import LEAP, SPLIT, Draw, poisson
from jaxdiffeq.primitives.while_loop import frozen_while

CRITICAL = 10  # a reaction that may happen less often than this is critical
EVENTS = 10  # that a leap must be worth
EQUILIBRIUM = 0.05  # a pair of reactions whose propensities differ by less is in equilibrium
NEWTON = 12


class Leap(NamedTuple):
    """To the time t, at which the state is x. A leap is not `taken` if some number were negative there."""

    t: jax.Array
    x: jax.Array
    taken: jax.Array
    finite: jax.Array


class Memory(NamedTuple):
    """By how much the next leap is shorter than chosen, after some were refused."""

    shorter: jax.Array


class _Known(NamedTuple):
    """What does not change along a path. Shapes: change [channels, species]."""

    change: np.ndarray
    order: np.ndarray
    """of the highest reaction that a species takes part in: gᵢ of the source, [species]; 0: none"""
    pairs: np.ndarray
    """of each reaction the number of the one that undoes it, or its own, [channels]"""


@dataclass(frozen=True)
class TauLeaping:
    """Numbers of reactions are Poisson(aᵣ(x)·τ): explicit, of weak order 1. Serves jumps that add given numbers.

    `epsilon` is the change of propensities in a leap, about the relative bias.
    """

    epsilon: float = 0.03
    exact = False

    @property
    def name(self) -> str:
        return type(self).__name__

    def evaluations(self, count: int) -> int:
        return count

    def begin(self, channels: Channels, t: Any, x: Any, words: Any) -> Memory:
        if channels.change is None:
            raise TypeError(
                f"{self.name}() serves jumps of a vector that add given numbers: MassActionJumps, or ConstantRateJump "
                f"whose affect is numbers. Take SSA()."
            )
        return Memory(jnp.ones((), x.dtype))

    def step(self, channels: Channels, t: Any, x: Any, draw: Draw, memory: Memory, horizon: Any) -> tuple[Leap, Memory]:
        known = known_of(channels)
        a = channels.all(t, x)
        total = a.sum()
        finite = jnp.isfinite(total) & (a.min() >= 0)
        critical = _critical(known.change, a, x)
        tau = self.chosen(channels, known, t, x, a, critical) * memory.shorter
        some = total > 0
        u, w = draw.pair(LEAP, x.dtype)
        wait = -jnp.log(w)
        slow = jnp.where(some, tau * total < EVENTS, True)
        rare = jnp.where(critical, a, 0)
        first = jnp.where(slow, total, rare.sum())
        when = jnp.where(first > 0, wait / jnp.where(first > 0, first, 1), jnp.inf)
        length = jnp.where(slow, when, jnp.minimum(tau, when))
        left = horizon - t
        lands = length >= left
        happens = ~lands & (slow | (when <= tau))
        length = jnp.where(lands, left, length)

        many = lambda: self.numbers(channels, known, t, x, jnp.where(critical, 0, a), length, draw)
        none = lambda: jnp.zeros_like(a)
        counts = lax.cond(slow, none, many)
        r, _ = search(jnp.where(slow, a, rare), u * first)
        one = happens & (jnp.arange(channels.count, dtype=jnp.int32) == r)
        counts = counts + one.astype(x.dtype)
        new = x + _times(known.change.T, counts)
        taken = jnp.all(new >= 0)
        shorter = jnp.where(taken, jnp.ones((), x.dtype), memory.shorter / 2)
        return Leap(jnp.where(lands, horizon, t + length), new, taken, finite), Memory(shorter)

    def chosen(self, channels: Channels, known: _Known, t: Any, x: Any, a: Any, critical: Any) -> jax.Array:
        """τ with |Δaᵣ| ≤ ε·aᵣ: from mean and variance of the change of every reactant, (33) of the source."""
        calm = jnp.where(critical, 0, a)
        return self._length(known, x, calm)

    def _length(self, known: _Known, x: Any, a: Any) -> jax.Array:
        change = known.change.T
        mean, variance = jnp.abs(_times(change, a)), _times(change * change, a)
        order = jnp.asarray(known.order, x.dtype)
        # gᵢ grows while few are left: 2 + 1/(x − 1) of a reaction of two alike, in which order 3 is marked as 2.5, 3.5
        pairs, alike = jnp.floor(order), order - jnp.floor(order)
        g = pairs + jnp.where(alike > 0, (pairs - 1) / jnp.maximum(x - 1, 1), 0)
        allowed = jnp.maximum(self.epsilon * x / jnp.maximum(g, 1), 1)
        reacts = order > 0
        by_mean = jnp.where(reacts & (mean > 0), allowed / jnp.where(mean > 0, mean, 1), jnp.inf)
        by_noise = jnp.where(reacts & (variance > 0), allowed**2 / jnp.where(variance > 0, variance, 1), jnp.inf)
        return jnp.minimum(by_mean.min(), by_noise.min())

    def numbers(self, channels: Channels, known: _Known, t: Any, x: Any, a: Any, tau: Any, draw: Draw) -> jax.Array:
        """How often each reaction happens, [channels]; `a` without the critical ones."""
        return all_poisson(draw, a * tau)


def all_poisson(draw: Draw, means: jax.Array, stream: int = SPLIT) -> jax.Array:
    """Independent Poisson numbers. Shapes: [channels] ↦ [channels]."""
    count = len(means)
    if count <= 4:
        apart = [draw.aside(np.uint32(stream + 64 * (i + 1))) for i in range(count)]
        return jnp.stack([poisson(d, m) for d, m in zip(apart, means, strict=True)])

    def one(c: tuple, _: Any) -> tuple:
        i, out = c
        own = draw.aside(np.uint32(stream) + np.uint32(64) * (i + 1).astype(jnp.uint32))
        safe = jnp.minimum(i, np.int32(count - 1))
        value = poisson(own, lax.dynamic_index_in_dim(means, safe, keepdims=False))
        return (i + 1, lax.dynamic_update_index_in_dim(out, value, safe, 0)), ()

    start = jnp.zeros((), jnp.int32), jnp.zeros_like(means)
    return frozen_while(lambda c, _: c[0] < np.int32(count), one, start, ())[0][1]


def _critical(change: np.ndarray, a: jax.Array, x: jax.Array) -> jax.Array:
    """Which reactions use up one of their reactants if they happen ten times more."""
    uses = jnp.asarray(np.maximum(-change, 0), x.dtype)
    often = jnp.where(uses > 0, jnp.floor(x[None, :] / jnp.where(uses > 0, uses, 1)), jnp.inf).min(1)
    return (a > 0) & (often < CRITICAL)


@dataclass(frozen=True)
class MidpointTauLeaping(TauLeaping):
    """Numbers are Poisson of the propensities at the middle, x + ½·τ·∑ νᵣ·aᵣ(x), of a leap.

    Source: Gillespie, J. Chem. Phys. 115 (2001) 1716.
    """

    def numbers(self, channels: Channels, known: _Known, t: Any, x: Any, a: Any, tau: Any, draw: Draw) -> jax.Array:
        middle = x + tau / 2 * _times(known.change.T, a)
        there = channels.all(t + tau / 2, jnp.maximum(middle, 0))
        return all_poisson(draw, jnp.where(a > 0, jnp.maximum(there, 0), 0) * tau)

    def evaluations(self, count: int) -> int:
        return 2 * count


@dataclass(frozen=True)
class ThetaTrapezoidalTauLeaping(TauLeaping):
    """Of weak order 2: a leap of θ·τ, and one of (1 − θ)·τ with the propensities (α₁·a(x*) − α₂·a(x))⁺.

    α₁ = 1/(2θ(1 − θ)), α₂ = α₁ − 1.
    Source: Hu, Li, Min, J. Chem. Phys. 135 (2011) 024113; Anderson, Mattingly, Commun. Math. Sci. 9 (2011) 301.
    """

    theta: float = 0.5

    def numbers(self, channels: Channels, known: _Known, t: Any, x: Any, a: Any, tau: Any, draw: Draw) -> jax.Array:
        theta = self.theta
        first = all_poisson(draw, a * (theta * tau))
        middle = jnp.maximum(x + _times(known.change.T, first), 0)
        there = jnp.where(a > 0, channels.all(t + theta * tau, middle), 0)
        alpha = 1 / (2 * theta * (1 - theta))
        rest = jnp.maximum(alpha * there - (alpha - 1) * a, 0)
        return first + all_poisson(draw, rest * ((1 - theta) * tau), stream=SPLIT + 1)

    def evaluations(self, count: int) -> int:
        return 2 * count


@dataclass(frozen=True)
class ImplicitTauLeaping(TauLeaping):
    """For stiff networks: X = x + ∑ νᵣ·(Pᵣ − τ·aᵣ(x) + τ·aᵣ(X)), Pᵣ = Poisson(τ·aᵣ(x)), by Newton's method.

    Numbers of reactions are then rounded, so that counts stay whole. Pairs of a reaction and its reverse that are in
    equilibrium do not shorten a leap. Fluctuations of fast reactions are damped, which is the price.
    Source: Rathinam, Petzold, Cao, Gillespie, J. Chem. Phys. 119 (2003) 12784; Cao, Gillespie, Petzold, J. Chem. Phys.
    126 (2007) 224101.
    """

    def chosen(self, channels: Channels, known: _Known, t: Any, x: Any, a: Any, critical: Any) -> jax.Array:
        back = a[known.pairs]
        itself = jnp.asarray(known.pairs == np.arange(len(known.pairs)))
        still = ~itself & (jnp.abs(a - back) <= EQUILIBRIUM * jnp.minimum(a, back))
        return self._length(known, x, jnp.where(critical | still, 0, a))

    def numbers(self, channels: Channels, known: _Known, t: Any, x: Any, a: Any, tau: Any, draw: Draw) -> jax.Array:
        counts, change = all_poisson(draw, a * tau), known.change.T
        calm = lambda y: jnp.where(a > 0, channels.all(t + tau, y), 0)
        start = x + _times(change, counts - tau * a)
        defect = lambda y: y - start - tau * _times(change, calm(y))

        def newton(c: tuple, _: Any) -> tuple:
            k, y, _ = c
            jacobian = jax.jacfwd(defect)(y)
            dy = lu.substitute(lu.factor(jacobian), -defect(y))
            done = jnp.max(jnp.abs(dy)) < 0.1
            return (jnp.where(done, np.int32(NEWTON), k + 1), y + dy, done), ()

        begin = jnp.zeros((), jnp.int32), x, jnp.zeros((), bool)
        (_, y, done), _ = frozen_while(lambda c, _: c[0] < np.int32(NEWTON), newton, begin, ())
        found = jnp.maximum(jnp.round(counts + tau * (calm(jnp.maximum(y, 0)) - a)), 0)
        return jnp.where(done, found, jnp.inf)  # no state: refused, and halved

    def evaluations(self, count: int) -> int:
        return 4 * count


def _times(matrix: np.ndarray, v: jax.Array) -> jax.Array:
    """matrix·v, without a product that no kernel takes."""
    return (jnp.asarray(matrix, v.dtype) * v[None, :]).sum(1)


def known_of(channels: Channels) -> _Known:
    assert channels.change is not None
    change = channels.change
    species = change.shape[1]
    order = np.zeros(species)
    for row in channels.reads:
        if row is None:
            order = np.maximum(order, 2)
            continue
        total = sum(m for _, m in row)
        for s, m in row:
            order[s] = max(order[s], total + (0.5 if m > 1 else 0))
    index = {tuple(row): r for r, row in enumerate(change)}
    pairs = np.array([index.get(tuple(-row), r) for r, row in enumerate(change)])
    pairs = np.array([p if pairs[p] == r else r for r, p in enumerate(pairs)], np.int32)
    return _Known(change, order, pairs)
