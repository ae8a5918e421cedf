"""What a solve returns."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxdiffeq import errors
from jaxdiffeq.engine import interpolant
from jaxdiffeq.noise.realised import Realised
from jaxdiffeq.plotting import plot_solution
from jaxdiffeq.problems import noise_errors
from jaxdiffeq.problems.past import Earlier
from jaxdiffeq.problems.ravel import Ravel
from jaxdiffeq.types import PyTree, Result


class Stats(NamedTuple):
    """What a solve cost. Integers, arrays of them under `vmap`."""

    steps: Any
    """attempted steps"""
    accepted: Any
    rejected_error: Any
    rejected_solver: Any
    """refused because of NaN, infinity or a failed inner solve"""
    f_evals: Any
    """calls of f; of its implicit part, where a method treats the parts of a split problem each in its way"""
    jac_evals: Any = 0
    factorizations: Any = 0
    linear_solves: Any = 0
    newton_iterations: Any = 0
    events: Any = 0


# Registered dataclasses: attribute access on an equinox module costs more than many a solve of this library takes.
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Interpolant:
    """The polynomials of all steps. Shapes: times [steps + 1], coefficients [steps, degree + 1, *state]."""

    times: jax.Array
    coefficients: jax.Array
    y_end: jax.Array
    count: jax.Array
    """how many of the steps are real"""
    ravel: Ravel = field(metadata={"static": True})
    jumps: bool = field(default=False, metadata={"static": True})
    """the state may be another one at the end of a step; there, it is that after the jump"""
    earlier: Earlier | None = None
    """what came before the first time, of an equation with delays"""

    def _locate(self, t: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        last = self.times[self.count]
        direction = jnp.where(last >= self.times[0], 1, -1).astype(t.dtype)
        t = self._snapped(t, last)
        real = jnp.arange(self.times.size, dtype=jnp.int32) <= self.count
        knots = jnp.where(real, direction * self.times, jnp.inf)
        side = "right" if self.jumps else "left"
        step = jnp.searchsorted(knots, direction * t, side=side).astype(jnp.int32) - 1
        i = jnp.clip(step, 0, jnp.maximum(jnp.asarray(self.count, jnp.int32) - 1, 0))
        width = self.times[i + 1] - self.times[i]
        theta = (t - self.times[i]) / jnp.where(width == 0, 1, width)
        inside = (direction * t >= direction * self.times[0]) & (direction * t <= direction * last)
        return self.coefficients[i], theta.astype(self.coefficients.dtype), width, inside

    def _snapped(self, t: jax.Array, last: jax.Array) -> jax.Array:
        """A time that rounding has put outside, as of one to save at, back to the end."""
        first = self.times[0]
        inside = jnp.clip(t, jnp.minimum(first, last), jnp.maximum(first, last))
        slack = errors.rounding(t) * jnp.maximum(jnp.abs(first), jnp.abs(last))
        return t + jax.lax.stop_gradient(jnp.where(jnp.abs(inside - t) <= slack, inside - t, 0))

    def _or_earlier(self, t: jax.Array, found: jax.Array, derivative: bool) -> PyTree:
        """`found`, or what the history has at t, or its slope."""
        earlier = self.earlier
        if earlier is not None:
            first = self.times[0]
            t = self._snapped(t, self.times[self.count])
            before, at = t < first, jnp.where(t < first, t, first)
            history = lambda t: earlier.value(t, self.y_end)
            told = jax.jvp(history, (at,), (jnp.ones_like(at),))[derivative]
            found = jnp.where(before, told, found)
        return self.ravel.unpack(found)

    def value(self, t: jax.Array) -> PyTree:
        if len(self.coefficients) == 0:
            t = self._snapped(t, self.times[0])
            return self._or_earlier(t, jnp.where(t == self.times[0], self.y_end, jnp.nan), False)
        coefficients, theta, _, inside = self._locate(t)
        at_end = self.count == 0
        if self.jumps:
            at_end |= self._snapped(t, self.times[self.count]) == self.times[self.count]
        y = jnp.where(at_end, self.y_end, interpolant.evaluate(coefficients, theta))
        return self._or_earlier(t, jnp.where(inside, y, jnp.nan), False)

    def slope(self, t: jax.Array) -> PyTree:
        if len(self.coefficients) == 0:
            return self._or_earlier(t, jnp.full_like(self.y_end, jnp.nan), True)
        coefficients, theta, width, inside = self._locate(t)
        width = jnp.where(width == 0, 1, width).astype(theta.dtype)
        real = inside & (self.count > 0)
        return self._or_earlier(t, jnp.where(real, interpolant.slope(coefficients, theta) / width, jnp.nan), True)


@functools.partial(jax.jit, static_argnames="what")
def _sample(interpolant: Interpolant, t: Any, what: str) -> PyTree:
    """`Interpolant.value` or `slope` at a time or at an array of times of any shape."""
    at, t = getattr(interpolant, what), jnp.asarray(t).astype(interpolant.times.dtype)
    if t.ndim == 0:
        return at(t)
    return jax.tree.map(lambda x: x.reshape(*t.shape, *x.shape[1:]), jax.vmap(at)(t.reshape(-1)))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class EventLog:
    """Events in the order in which they happened. Shapes: [max_events, ...], NaN and zero after the last.

    `before` and `after` are the state on both sides of each; of several at one time, each begins where the one before
    it has ended.
    """

    ts: jax.Array
    which: jax.Array
    """the number of the event in `events`, −1 after the last"""
    before: PyTree
    after: PyTree
    mask: jax.Array
    """which rows are real"""
    count: jax.Array
    """how many are"""
    grazing: jax.Array
    """the condition hardly crossed zero: a little change and it does not, so there is no derivative"""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Saved:
    """What a `SaveValues` has kept. Shapes: [rows, ...]."""

    ts: jax.Array
    ys: PyTree
    mask: jax.Array
    """which rows are real"""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Solution:
    """Times, values, and how it went.

    Shapes: ts [saved], ys a pytree of [saved, ...]; inside `jit` the rows of a solve that saves every step are padded
    with the last one, so that ys[-1] is the final state everywhere; `mask` and `num_saved` say what is real. What
    comes after a failure is NaN.
    """

    ts: jax.Array
    ys: PyTree
    real: jax.Array
    """1 for every row of `ts` and `ys` that is real, 0 for padding and after a failure"""
    stats: Stats
    result: jax.Array
    """a code of `Result`, 0 for success"""
    t_end: jax.Array
    """how far the solve came"""
    y_end: PyTree
    """the last accepted state, which is the final one of a solve that succeeded"""
    next_step: jax.Array
    """the step size that would have come next: `first_step` for going on"""
    interpolant: Interpolant | None = None
    events: EventLog = None  # pyright: ignore[reportAssignmentType]
    """what happened; None of a solve without events"""
    regularisers: dict[str, jax.Array] = field(default_factory=dict)
    """the sums asked for, by name; see `jaxdiffeq.engine.regularisers`"""
    integrals: Any = ()
    """∫g dt for each `Integrate` among the events, in their order"""
    noise: Realised | None = None
    """the Brownian path, of a solve with noise"""
    saved: Any = ()
    """a `Saved` for each `SaveValues` among the events, in their order"""
    account: Any = field(metadata={"static": True}, default=None)
    """what `explain` knows before the result: method, controller, strategy; of several solutions, the first one's"""

    def __repr__(self) -> str:
        shown = [f"{name}={eqx.tree_pformat(getattr(self, name), short_arrays=True)}" for name in ("ts", "ys")]
        return f"Solution({', '.join([*shown, *self._outcome()])})"

    def _outcome(self) -> list[str]:
        """How it ended, or how many solves ended how; nothing under `jit`."""
        if not hasattr(self.result, "__array__") or not errors.concrete(self.result):
            return []
        if np.ndim(self.result) == 0:
            return [f"{self.status} at t = {float(self.t_end):.6g}"]
        codes, counts = np.unique(np.asarray(self.result), return_counts=True)
        return [f"{count} × {Result(int(code)).name}" for code, count in zip(codes, counts, strict=True)]

    @property
    def mask(self) -> jax.Array:
        """Which rows of `ts` and `ys` are real: neither padding nor after a failure. Shapes: [saved]."""
        return self.real != 0

    @property
    def ok(self) -> jax.Array:
        """Whether the solve reached its end, or an event that ends it; usable under `jit` and `vmap`."""
        return (self.result == Result.success) | (self.result == Result.terminated)

    @property
    def status(self) -> str:
        """The result code by its name."""
        return Result(int(self.result)).name

    @property
    def num_saved(self) -> jax.Array:
        """How many rows are real."""
        return self.mask.sum(-1)

    def __call__(self, t: Any) -> PyTree:
        """The state at time t, or at an array of times, from the dense output; NaN outside of the solve.

        Of an equation with delays, what comes before t₀ is its history, of which a pickled solution knows nothing.
        """
        errors.is_dense(self)
        assert self.interpolant is not None
        return _sample(self.interpolant, t, what="value")

    def derivative(self, t: Any) -> PyTree:
        """d/dt of the dense output, which is f(t, y) up to the error of the interpolant; NaN where t₀ = t₁.

        Before t₀ it is the slope of the history, of an equation with delays.
        """
        errors.is_dense(self)
        assert self.interpolant is not None
        return _sample(self.interpolant, t, what="slope")

    def brownian(self, t: Any) -> jax.Array:
        """W(t), of the path that the solve has followed, at a time or at an array of times; zero at t₀.

        Shapes: [*t, *noise]; where every number of y has its own noise, several leaves of y come one after the other.
        """
        noise_errors.has_path(self)
        assert self.noise is not None
        noise_errors.one_path(self.t_end)
        return self.noise(t)

    def plot(self, vars: Any = None, ax: Any = None, **options: Any) -> Any:
        """Draw the solution on matplotlib axes; see `jaxdiffeq.plotting.plot_solution`."""
        return plot_solution(self, vars, ax, **options)

    def explain(self) -> str:
        """Which method, controller and gradient strategy were used, why, and what came of it."""
        lines = [f"{name:<12}{text}" for name, text in (self.account.lines() if self.account else ())]
        if outcome := self._outcome():
            lines.append(f"{'result':<12}{', '.join(outcome)}")
        if outcome and np.ndim(self.result) == 0:
            s = self.stats
            lines.append(
                f"{'cost':<12}{int(s.steps)} steps tried, {int(s.accepted)} accepted, {int(s.rejected_error)} rejected "
                f"by the error test, {int(s.rejected_solver)} by a failure; {int(s.f_evals)} evaluations of f"
            )
        return "\n".join(lines)
