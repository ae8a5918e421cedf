"""Random processes as inputs: f of an ordinary equation calls `w(t)`, which a key makes a known function of time.

A `Realisation` is one path. It can be asked for at any time in any order, which is what lets any method at any steps,
refused ones among them, solve a random equation. Gradients flow to the parameters of the process at fixed randomness.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from jaxdiffeq.inputs.base import Input, Prepared
from jaxdiffeq.noise.given import data_of
from jaxdiffeq.noise.normals import pair, seed_of, threefry
from jaxdiffeq.primitives.scan import scan
from jaxdiffeq.primitives.search import count_until
from jaxdiffeq.types import PyTree

PROCESS, BELOW = 6, 7  # what numbers are for
CELLS = 128
DEPTH = 20  # halvings of a cell: 2⁻²⁷ of the span
Parameter = Any  # a number or an array


class Process(eqx.Module):
    """A law of random functions of time."""

    def realised(self, key: Any, t0: Any = None, t1: Any = None) -> Realisation:
        """A path of it. A solve gives it its span; give one to look at it before."""
        path = Realisation(self, data_of(key)[1])
        return path if t0 is None else path.prepared(*(jnp.asarray(t, float) for t in (t0, t1))).taken

    def drawn(self, words: jax.Array, t0: jax.Array, t1: jax.Array) -> PyTree:
        """What of a path is drawn at once, for the key's data `words`."""
        raise NotImplementedError

    def value(self, path: Realisation, t: jax.Array) -> jax.Array:
        """That of a path at t, [*shape]."""
        raise NotImplementedError

    def jumps(self, known: PyTree) -> jax.Array | None:
        """When a path jumps."""
        return None


class Realisation(Input):
    """One path of a process, for a span from t0 to t1, where it is known."""

    process: Process
    words: jax.Array
    known: PyTree = None
    t0: Any = None
    t1: Any = None

    def prepared(self, t0: Any, t1: Any) -> Prepared:
        process = jax.tree.map(lambda x: jnp.asarray(x, t0.dtype) if isinstance(x, float) else x, self.process)
        known = _drawn(process, self.words, t0, t1)
        taken, jumps = Realisation(process, self.words, known, t0, t1), process.jumps(known)
        if jumps is None:
            return Prepared(taken)
        return Prepared(taken, jumps=jumps, complete=abs(jumps[-1] - t0) > abs(t1 - t0))

    def moved(self, jumps: Any) -> Realisation:
        return dataclasses.replace(self, known=self.known | {"times": jumps})

    def at(self, t: jax.Array) -> jax.Array:
        if self.known is None:
            raise ValueError("this path has no span yet. Take process.realised(key, t0, t1), or give it to a solve.")
        return self.process.value(self, t)


@eqx.filter_jit
def _drawn(process: Process, words: jax.Array, t0: Any, t1: Any) -> PyTree:
    return process.drawn(words, t0, t1)


class Bridge(NamedTuple):
    """How a process that remembers nothing but its value goes on: decay·X + size·Z, Z ~ N(0, 1)."""

    decay: jax.Array
    size: jax.Array


class Markov(Process):
    """Gaussian, and without memory: part by part along the span, and each part by halving.

    Shapes: those of the parameters together.
    """

    def parameters(self) -> tuple[jax.Array, ...]:
        """The start, and whatever else has its shape."""
        raise NotImplementedError

    def onward(self, h: jax.Array) -> Bridge:
        """X(t + h) from X(t)."""
        raise NotImplementedError

    def halfway(self, half: jax.Array) -> Bridge:
        """X in the middle from the sum of X at the ends, which are two halves apart."""
        raise NotImplementedError

    def drawn(self, words: jax.Array, t0: jax.Array, t1: jax.Array) -> PyTree:
        """X at the ends of the parts, [129, *shape]."""
        first = self.parameters()[0]
        decay, size = self.onward((abs(t1 - t0) / CELLS).astype(first.dtype))
        normals, _ = pair(seed_of(words, PROCESS), 0, (CELLS, *first.shape), first.dtype)

        def onward(x, z):
            after = decay * x + size * z
            return after, after

        return jnp.concatenate([first[None], scan(onward, first, normals)[1]])

    def value(self, path: Realisation, t: jax.Array) -> jax.Array:
        at_ends = path.known
        h = (abs(path.t1 - path.t0) / CELLS).astype(at_ends.dtype)
        u = lax.stop_gradient(jnp.clip((t - path.t0) / (path.t1 - path.t0), 0, 1)) * CELLS
        cell = jnp.minimum(u.astype(jnp.int32), CELLS - 1)
        place = jnp.round((u - cell.astype(u.dtype)) * 2.0**DEPTH).astype(jnp.int32)
        seed = threefry(seed_of(path.words, BELOW), cell.astype(jnp.uint32), jnp.uint32(0))

        def halve(ends, level):
            left, right = ends
            decay, size = self.halfway(h / (2 << level).astype(h.dtype))
            node = (1 << level) + (place >> (DEPTH - level))
            middle = decay * (left + right) + size * pair(seed, node, at_ends.shape[1:], at_ends.dtype)[0]
            upper = (place >> (DEPTH - 1 - level)) & 1 == 1
            return (jnp.where(upper, middle, left), jnp.where(upper, right, middle)), ()

        ends = at_ends[cell], at_ends[cell + 1]
        (left, _), _ = scan(halve, ends, jnp.arange(DEPTH, dtype=jnp.int32))
        return jnp.where(place == 1 << DEPTH, at_ends[cell + 1], left)


class BrownianMotion(Markov):
    """X(t) = X(t₀) + μ·(t − t₀) + σ·W(t): σ is `volatility`, μ `drift`, X(t₀) `start`.

    Shapes: those of the parameters together.
    """

    volatility: Parameter = 1.0
    drift: Parameter = 0.0
    start: Parameter = 0.0

    def parameters(self) -> tuple[jax.Array, ...]:
        return together(self.start, self.volatility, self.drift)

    def onward(self, h: jax.Array) -> Bridge:
        return Bridge(jnp.ones_like(h), self.parameters()[1] * jnp.sqrt(h))

    def halfway(self, half: jax.Array) -> Bridge:
        return Bridge(jnp.full_like(half, 0.5), self.parameters()[1] * jnp.sqrt(half / 2))

    def value(self, path: Realisation, t: jax.Array) -> jax.Array:
        return super().value(path, t) + _times(self.parameters()[2], t - path.t0)


class OrnsteinUhlenbeck(Markov):
    """dX = θ·(μ − X) dt + σ dW, by its exact law: θ is `rate`, μ `mean`, σ `volatility`, X(t₀) `start`.

    In the middle of a part of length 2δ it is μ + (Xₗ + Xᵣ − 2μ)/(2·cosh θδ) + σ·√(tanh θδ/(2θ))·Z.
    Shapes: those of the parameters together.
    """

    rate: Parameter
    mean: Parameter = 0.0
    volatility: Parameter = 1.0
    start: Parameter = 0.0

    def parameters(self) -> tuple[jax.Array, ...]:
        """X − μ at the start, θ, μ and σ."""
        start, rate, mean, volatility = together(self.start, self.rate, self.mean, self.volatility)
        return start - mean, rate, mean, volatility

    def onward(self, h: jax.Array) -> Bridge:
        _, rate, _, volatility = self.parameters()
        return Bridge(jnp.exp(-rate * h), volatility * jnp.sqrt(h * _expm1_over(-2 * rate * h)))

    def halfway(self, half: jax.Array) -> Bridge:
        _, rate, _, volatility = self.parameters()
        x = rate * half
        return Bridge(0.5 / jnp.cosh(x), volatility * jnp.sqrt(half / 2 * _tanh_over(x)))

    def value(self, path: Realisation, t: jax.Array) -> jax.Array:
        return self.parameters()[2] + super().value(path, t)


class Changed(Process):
    """A function of a Brownian motion and of time."""

    def motion(self) -> BrownianMotion:
        raise NotImplementedError

    def drawn(self, words: jax.Array, t0: jax.Array, t1: jax.Array) -> PyTree:
        return self.motion().drawn(words, t0, t1)


class GeometricBrownianMotion(Changed):
    """dX = μX dt + σX dW: X(t) = X(t₀)·exp((μ − σ²/2)(t − t₀) + σW(t)).

    Shapes: those of the parameters together.
    """

    drift: Parameter = 0.0
    volatility: Parameter = 1.0
    start: Parameter = 1.0

    def motion(self) -> BrownianMotion:
        drift, volatility, start = together(self.drift, self.volatility, self.start)
        return BrownianMotion(volatility, drift - volatility**2 / 2, jnp.zeros_like(start))

    def value(self, path: Realisation, t: jax.Array) -> jax.Array:
        return together(self.start, self.drift)[0] * jnp.exp(self.motion().value(path, t))


class BrownianBridge(Changed):
    """σ·W(t) on its way from `start` at t₀ to `end` at t₁, where σ is `volatility`.

    Shapes: those of the parameters together.
    """

    start: Parameter = 0.0
    end: Parameter = 0.0
    volatility: Parameter = 1.0

    def motion(self) -> BrownianMotion:
        start, _, volatility = together(self.start, self.end, self.volatility)
        return BrownianMotion(volatility, jnp.zeros_like(start), start)

    def value(self, path: Realisation, t: jax.Array) -> jax.Array:
        pull = together(self.end, self.start)[0] - path.known[-1]
        return self.motion().value(path, t) + _times(pull, (t - path.t0) / (path.t1 - path.t0))


class Correlated(Process):
    """L·X(t) for X of independent numbers, [n, *shape], and a covariance matrix L·Lᵀ, [n, n].

    For correlated motions, Correlated(BrownianMotion(jnp.ones(n)), matrix).
    """

    process: Process
    covariance: jax.Array

    def drawn(self, words: jax.Array, t0: jax.Array, t1: jax.Array) -> PyTree:
        return self.process.drawn(words, t0, t1), jnp.linalg.cholesky(self.covariance)

    def value(self, path: Realisation, t: jax.Array) -> jax.Array:
        known, root = path.known
        inner = self.process.value(dataclasses.replace(path, process=self.process, known=known), t)
        return jnp.tensordot(root, inner, 1)


class CompoundPoisson(Process):
    """Σ of marks at the times of a Poisson process of a `rate`, after t₀: a solve lands on each of them.

    `mark(key)` draws one, [*shape]; without it each is one. There is room for `most` jumps; with more, a solve ends
    with `Result.event_limit_reached`. The derivative by the rate is that of times τᵢ ∝ 1/rate: it is that of the path,
    and that of a mean as well if what is solved for does not jump itself.
    """

    rate: Parameter
    mark: Any = None
    start: Parameter = 0.0
    most: int = eqx.field(default=256, static=True)

    def drawn(self, words: jax.Array, t0: jax.Array, t1: jax.Array) -> PyTree:
        key = jax.random.wrap_key_data(jnp.stack(seed_of(words, PROCESS)), impl="threefry2x32")
        of_times, of_marks = jax.random.split(key)
        gaps = jax.random.exponential(of_times, (self.most,), t0.dtype)
        times = t0 + jnp.sign(t1 - t0) * jnp.cumsum(gaps) / jnp.asarray(self.rate).astype(t0.dtype)
        marks = jnp.ones(self.most, t0.dtype)
        if self.mark is not None:
            marks = jax.vmap(self.mark)(jax.random.split(of_marks, self.most))
        sums = jnp.cumsum(marks, 0)
        return {"times": times, "sums": jnp.concatenate([jnp.zeros_like(sums[:1]), sums])}

    def jumps(self, known: PyTree) -> jax.Array:
        return known["times"]

    def value(self, path: Realisation, t: jax.Array) -> jax.Array:
        passed = count_until(path.known["times"], t)
        return jnp.asarray(self.start).astype(path.known["sums"].dtype) + path.known["sums"][passed]


class Spectral(Process):
    """A stationary Gaussian process of which the spectrum is given: Σₖ √(S(ωₖ)·Δωₖ)·(Aₖ·cos ωₖt + Bₖ·sin ωₖt).

    Its variance is Σ S·Δω, its autocovariance Σ S·Δω·cos ωτ, smooth, and periodic when the frequencies are multiples
    of one. Source: Shinozuka, Deodatis 1991, doi:10.1115/1.3119501.
    Shapes: frequencies [n], in radians a unit of time, increasing; power S [n, *shape], one-sided.
    """

    frequencies: jax.Array
    power: jax.Array

    def drawn(self, words: jax.Array, t0: jax.Array, t1: jax.Array) -> PyTree:
        power, frequencies = jnp.asarray(self.power), jnp.asarray(self.frequencies)
        size = jnp.sqrt(power * jnp.gradient(frequencies).reshape(-1, *(1,) * (power.ndim - 1)))
        return [size * z for z in pair(seed_of(words, PROCESS), 0, size.shape, size.dtype)]

    def value(self, path: Realisation, t: jax.Array) -> jax.Array:
        a, b = path.known
        angle = jnp.asarray(self.frequencies) * t.astype(a.dtype)
        return jnp.tensordot(jnp.cos(angle), a, 1) + jnp.tensordot(jnp.sin(angle), b, 1)


def together(*xs: Any) -> tuple[jax.Array, ...]:
    """Arrays of one shape and real dtype."""
    given = [x if isinstance(x, jax.Array) else jnp.asarray(x, float) for x in xs]
    dtype = functools.reduce(jnp.promote_types, [x.dtype for x in given])
    shape = jnp.broadcast_shapes(*(x.shape for x in given))
    return tuple(jnp.broadcast_to(x.astype(dtype), shape) for x in given)


def _expm1_over(x: jax.Array) -> jax.Array:
    """(eˣ − 1)/x"""
    small = jnp.abs(x) < 1e-5
    return jnp.where(small, 1 + x / 2, jnp.expm1(x) / jnp.where(small, 1, x))


def _tanh_over(x: jax.Array) -> jax.Array:
    """(tanh x)/x"""
    small = jnp.abs(x) < 1e-4
    return jnp.where(small, 1 - x * x / 3, jnp.tanh(x) / jnp.where(small, 1, x))


def _times(x: Any, t: jax.Array) -> jax.Array:
    return jnp.asarray(x) * t.astype(jnp.asarray(x).dtype)
