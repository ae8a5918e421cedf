"""Accept or reject, and the next step size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdiffeq import errors
from jaxdiffeq.algebra.norm import rms
from jaxdiffeq.types import Result, State, Step, Verdict


def cause(step: Step, finite: jax.Array) -> jax.Array:
    """What a rejection of this step would be blamed on: on an inner solve only if it met with finite numbers."""
    blame = jnp.where(step.ok, Result.step_size_too_small, Result.nonlinear_solve_failed)
    return jnp.where(finite, blame, Result.nonfinite)


class Tolerance(NamedTuple):
    """What counts as an error of one: atol + rtol·max(|y₀|, |y₁|), a number or an array of the state's shape."""

    rtol: jax.Array
    atol: jax.Array
    counts: jax.Array | None = None
    """whether the error of a component counts, [*state]; None: all do"""

    def of_error(self, y0: jax.Array, y1: jax.Array) -> jax.Array:
        """What an error is measured by: infinity where it does not count."""
        scale = self.scale(y0, y1)
        return scale if self.counts is None else jnp.where(self.counts, scale, jnp.inf)

    def of_iterate(self, y: jax.Array) -> jax.Array:
        """What an iteration that begins at y is measured by: infinity where there is nothing to be relative to."""
        scale = self.scale(y, y)
        return jnp.where(scale > jnp.finfo(scale.dtype).tiny, scale, jnp.inf)

    def scale(self, y0: jax.Array, y1: jax.Array) -> jax.Array:
        return self.atol + self.rtol * jnp.maximum(jnp.abs(y0), jnp.abs(y1))


class ControllerDefaults:
    """The members that a controller may leave as they are."""

    needs_error: bool = False
    """it judges by an estimate of the error"""
    algebraic: bool = True
    """errors of components that have no derivative count"""
    max_step: Any = None
    """the largest that it makes; None: there is none"""
    equal: bool = False
    """its steps have one size, `n` of them or `dt`, and none is refused for its error"""

    def fixed_size(self, span: jax.Array) -> Any:
        """The unsigned size of its steps over a span of this length; None: it finds them as it goes."""

    def measured(self, around: Callable[[Callable], Callable]) -> Any:
        """The controller with another norm, made of its own."""
        return self


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PIDController(ControllerDefaults):
    """dt ← dt·safety·r₀^(−β₁/k)·r₁^(−β₂/k)·r₂^(−β₃/k) from the last three error ratios r and the order k.

    β₁ = p + i + d, β₂ = −(p + 2d), β₃ = d in the gains p, i, d. The defaults, p = 0.2 and i = 0.6, were chosen on five
    problems at two tolerances: as few steps as `IController()`, the classical controller with i = 1, with half of its
    rejections; Gustafsson's p = 0.4, i = 0.3 rejects almost nothing but takes a fifth more steps. Gains and limits are
    numbers that may be traced; `min_step` and `max_step` are in the unit of t. A step refused at `min_step` ends the
    solve. `norm` is that of moduli of errors in units of the tolerance. Without `algebraic`, errors of components of a
    DAE that have no derivative are left out.
    Source: Söderlind 2003, doi:10.1145/641876.641877; Hairer, Wanner, Solving ODEs II, IV.2, eq. (2.43).
    """

    pcoeff: Any = 0.2
    icoeff: Any = 0.6
    dcoeff: Any = 0.0
    safety: Any = 0.9
    factor_min: Any = 0.2
    factor_max: Any = 10.0
    min_step: Any = None
    max_step: Any = None
    norm: Callable[[jax.Array], jax.Array] = field(default=rms, metadata={"static": True})
    algebraic: bool = field(default=True, metadata={"static": True})

    needs_error = True

    def measured(self, around: Callable[[Callable], Callable]) -> Any:
        return replace(self, norm=around(self.norm))

    def init(self, dtype: Any) -> Any:
        """What was seen of accepted steps, and how much the next step may grow."""
        return *self.nothing_seen(dtype), jnp.asarray(self.factor_max, dtype)

    def nothing_seen(self, dtype: Any) -> tuple[jax.Array, jax.Array]:
        """The logarithms of the last two ratios."""
        return jnp.zeros((), dtype), jnp.zeros((), dtype)

    def seen(self, log_ratio: jax.Array, dt: jax.Array, before: tuple) -> tuple[jax.Array, jax.Array]:
        """The same after one more accepted step."""
        return log_ratio, before[0]

    def growth(self, log_ratio: jax.Array, dt: jax.Array, before: tuple, order: Any) -> jax.Array:
        """The logarithm of the next step size over this one, without safety."""
        (last, older), p, i, d = before, self.pcoeff, self.icoeff, self.dcoeff
        return -((p + i + d) * log_ratio - (p + 2 * d) * last + d * older) / order

    def judge(self, before: State, step: Step, dt: jax.Array, memory: Any, tolerance: Tolerance, order: int) -> Verdict:
        seen, cap = memory[:2], memory[2]
        log_ratio = self.log_ratio(before.y, step, tolerance)
        accept = (log_ratio <= 0) & step.ok

        k = order if step.error_order is None else step.error_order.astype(log_ratio.dtype)
        factor = self.safety * jnp.exp(jnp.where(accept, self.growth(log_ratio, dt, seen, k), -log_ratio / k))
        if step.step_factor is not None:
            factor = jnp.where(accept & (step.step_factor > 0), step.step_factor, factor)
        factor = jnp.clip(factor, self.factor_min, cap)
        factor = jnp.where(jnp.isfinite(log_ratio), factor, self.factor_min)
        # an inner solve that failed says nothing of the error: then half the step at most
        most = jnp.where(step.ok, self.safety, 0.5)
        factor = jnp.where(accept, factor, jnp.minimum(factor, most))
        at_floor = jnp.array(False) if self.min_step is None else dt <= self.min_step

        # after a rejection the next step may not grow: Hairer, Nørsett, Wanner, Solving ODEs I, II.4
        seen = [jnp.where(accept, a, b) for a, b in zip(self.seen(log_ratio, dt, seen), seen, strict=True)]
        cap = jnp.where(accept, self.factor_max, 1.0).astype(dt.dtype)
        why = cause(step, jnp.isfinite(log_ratio))
        return Verdict(accept, self.bound(dt * factor), (*seen, cap), why, at_floor & ~accept)

    def log_ratio(self, y: jax.Array, step: Step, tolerance: Tolerance) -> jax.Array:
        """The logarithm of the error in units of the tolerance."""
        y1 = step.after.y
        assert step.error is not None
        error = step.error
        if jnp.iscomplexobj(error):
            error, y1 = jnp.abs(error), jnp.abs(y1)
        # 0·y₁ is NaN wherever y₁ is not finite, so that an infinite state cannot hide in its own tolerance
        ratio = self.norm(jnp.abs(error / tolerance.of_error(y, step.after.y) + 0 * y1))
        errors.one_number(ratio, "norm")
        return jnp.log(jnp.maximum(ratio.astype(step.after.t.dtype), 1e-10))

    def bound(self, dt: jax.Array) -> jax.Array:
        """The size within `min_step` and `max_step`."""
        dt = dt if self.min_step is None else jnp.maximum(dt, self.min_step)
        return dt if self.max_step is None else jnp.minimum(dt, self.max_step)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PredictiveController(PIDController):
    """The smaller of the `IController` step and of one that continues the trend, dt·r₁^(1/k)/(dt₁·r₀^(2/k))·dt.

    For implicit methods: where errors grow from step to step it shortens the next one in time.
    Source: Gustafsson 1994, doi:10.1145/198429.198437; Hairer, Wanner, Solving ODEs II, IV.8, eq. (8.25).
    """

    pcoeff: Any = 0.0
    icoeff: Any = 1.0

    def nothing_seen(self, dtype: Any) -> tuple[jax.Array, jax.Array]:
        """The logarithms of the last ratio and of its step size, so small at first that there is no trend."""
        return jnp.zeros((), dtype), jnp.full((), -jnp.inf, dtype)

    def seen(self, log_ratio: jax.Array, dt: jax.Array, before: tuple) -> tuple[jax.Array, jax.Array]:
        return log_ratio, jnp.log(dt)

    def growth(self, log_ratio: jax.Array, dt: jax.Array, before: tuple, order: Any) -> jax.Array:
        trend = jnp.log(dt) - before[1] + (before[0] - log_ratio) / order
        return super().growth(log_ratio, dt, (log_ratio, log_ratio), order) + jnp.minimum(trend, 0)


def IController(**options: Any) -> PIDController:
    """dt ← dt·safety·r^(−1/k): each step is sized by its own error alone."""
    return PIDController(pcoeff=0.0, icoeff=1.0, dcoeff=0.0, **options)


def PIController(pcoeff: Any = 0.4, icoeff: Any = 0.3, **options: Any) -> PIDController:
    """Gustafsson's PI controller, β = (0.7, −0.4): hardly any rejections, shorter steps."""
    return PIDController(pcoeff=pcoeff, icoeff=icoeff, dcoeff=0.0, **options)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FixedSteps(ControllerDefaults):
    """Equal steps, no error control: `FixedSteps(n)` of them, or `FixedSteps(dt=...)` with a shorter last one.

    With a number of steps the solve is a plain scan.
    """

    n: int | None = field(default=None, metadata={"static": True})
    dt: Any = None

    equal = True

    def __post_init__(self) -> None:
        errors.fixed_steps(self.n, self.dt)

    def fixed_size(self, span: jax.Array) -> Any:
        return self.dt if self.n is None else span / self.n

    def init(self, dtype: Any) -> Any:
        return ()

    def judge(self, before: State, step: Step, dt: jax.Array, memory: Any, tolerance: Tolerance, order: int) -> Verdict:
        finite = jnp.all(jnp.isfinite(step.after.y))
        accept = finite & step.ok
        return Verdict(accept, dt, memory, cause(step, finite), ~accept)


def starting_step(f: Callable, inputs: Any, tolerance: Tolerance, order: int, norm: Callable) -> jax.Array:
    """A first step size whose explicit Euler step errs by about a hundredth of the tolerance.

    Unlike the source it compares with the span where the source has absolute numbers, so it scales with time. NaN if
    f is not finite at the start.
    Source: Hairer, Nørsett, Wanner, Solving ODEs I, II.4, "Starting step size".
    """
    t0, y0, args = inputs.t0, inputs.y0, inputs.args
    span = jnp.abs(inputs.t1 - t0)
    scale = tolerance.of_iterate(y0)
    over_span = lambda slope: norm(jnp.abs(slope * span.astype(y0.dtype)) / scale)  # slopes squared may overflow
    f0 = f(t0, y0, args)
    d0, d1 = norm(jnp.abs(y0) / scale), over_span(f0)
    tiny = (d0 < 1e-5) | (d1 < 1e-5)
    guess = jnp.where(tiny, 1e-6, 0.01 * d0 / jnp.where(tiny, 1, d1))
    guess = jnp.minimum(guess, 1)
    probe = jnp.sign(inputs.t1 - t0) * guess.astype(span.dtype) * span
    f1 = f(t0 + probe, y0 + probe.astype(y0.dtype) * f0, args)
    d2 = over_span(f1 - f0) / jnp.where(guess > 0, guess, 1)
    steep = jnp.maximum(d1, d2)
    better = jnp.where(steep <= 1e-15, jnp.maximum(1e-6, guess * 1e-3), (0.01 / steep) ** (1 / order))
    fraction = jnp.minimum(jnp.minimum(100 * guess, better), 1)
    ulp = jnp.finfo(span.dtype).eps * jnp.maximum(jnp.abs(t0), jnp.abs(inputs.t1))  # a step must move the clock
    size = jnp.maximum(span * jnp.where(jnp.isfinite(fraction), fraction, 1e-6).astype(span.dtype), 4 * ulp)
    # at an infinite f0 the probe is NaN; where only its norm overflows it is none, and f1 is f0
    return jnp.where(~jnp.isfinite(d1) & jnp.isnan(d2), jnp.nan, size)


ENDS = 24
"""refused ends that are remembered at once; each lies in the first half of the way to the one before it"""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Revisiting(ControllerDefaults):
    """A controller for noise that does not commute: after a refusal half the step is tried, and its end is visited
    later on.

    Where a step is refused because of what W does in it, and its end then left out, the steps know something of W that
    the method does not, and the law of y is another one.
    Source: Foster 2023, arXiv:2311.14201 (steps that do not skip).
    """

    inner: Any

    needs_error = True

    @property
    def algebraic(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.inner.algebraic

    @property
    def norm(self) -> Any:
        return self.inner.norm

    @property
    def max_step(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.inner.max_step

    @property
    def min_step(self) -> Any:
        return self.inner.min_step

    def measured(self, around: Callable[[Callable], Callable]) -> Any:
        return replace(self, inner=self.inner.measured(around))

    def bound(self, dt: jax.Array) -> jax.Array:
        return self.inner.bound(dt)

    def log_ratio(self, y: jax.Array, step: Step, tolerance: Tolerance) -> jax.Array:
        return self.inner.log_ratio(y, step, tolerance)

    def init(self, dtype: Any) -> Any:
        """The inner memory, and the refused ends, the nearest first, infinity where there is none."""
        return self.inner.init(dtype), jnp.full(ENDS, jnp.inf, dtype)

    def judge(self, before: State, step: Step, dt: jax.Array, memory: Any, tolerance: Tolerance, order: int) -> Verdict:
        (of_inner, ends), t1 = memory, step.after.t
        verdict = self.inner.judge(before, step, dt, of_inner, tolerance, order)
        passed = jnp.sort(jnp.where(ends - t1 < 1e-3 * dt, jnp.inf, ends))  # several may lie at one place
        ends = jnp.where(verdict.accept, passed, jnp.append(t1, ends[:-1]))
        left = jnp.where(verdict.accept, ends[0] - t1, dt / 2)
        least = jnp.where(verdict.accept, jnp.minimum(verdict.dt, left), left)
        return verdict._replace(dt=least.astype(verdict.dt.dtype), memory=(verdict.memory, ends))
