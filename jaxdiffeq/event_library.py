"""Events that are often wanted: doses, projections onto manifolds, domains, limits of steps, an end at rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxdiffeq import errors
from jaxdiffeq.algebra.lu import factor, substitute
from jaxdiffeq.events import EventDefaults, Times, Trigger, static, unchecked_tree
from jaxdiffeq.problems.ravel import Ravel
from jaxdiffeq.types import PyTree

# ---- doses


@jax.tree_util.register_pytree_node_class
class Doses(EventDefaults):
    """Doses of a drug: `amounts` that come `into` the state at `times`, at once or at a constant rate for a `duration`.

    `into` is an index, a name or a path in y, such as "gut" or ("gut", 0), or a function (y, amount) ↦ y with the
    amount in it; to y₀ = 0 that function must add the amount alone. With `every` and `count` each dose is given `count`
    times, so far apart. What arrives is bioavailability·amount, `lag` later than it was given; a `duration` is kept, so
    the rate of an infusion is bioavailability·amount/duration, which is added to dy/dt as long as it lasts: f knows
    nothing of doses. An infusion that lasts at t₀ is in its course, a dose at t₀ acts before the first step, one given
    at once before t₀ is part of y0. With counts=True doses are logged in `sol.events`, where an infusion begins and
    where it ends, and counted against `max_events`.
    With steady_state=True doses have always been given, `every` so far apart: the solve starts where that has led to,
    y(t₀) = y(t₀ + every), found by Newton's method on the solution over one interval, from y0 on, to the tolerances of
    the solve. f must not depend on t then, or come again as often. An infusion may last longer than `every`, but not if
    its duration is traced: that gives NaN. Other events have no part in the search.
    Derivatives: with respect to every number. That of a time that several doses at once share, to rounding, is divided
    among them as their amounts are, which is right for a linear f. That of a dose at t₀ is the one for later.
    Shapes: times [doses] or []; amounts, duration, bioavailability, lag like times, or []. Units: times, duration,
    every, lag in that of t; amounts in that of y. Time must go forwards.
    Errors: `ValueError` for shapes that do not match, and for `every` without `count`; `TypeError` for an `into` of
    another kind.
    Source: Beal, Boeckmann, Sheiner, NONMEM Users Guide VI, "PREDPP" (dose records, bioavailability, lag times).
    """

    forwards = True

    def __init__(
        self,
        times: Any,
        amounts: Any,
        into: Any,
        duration: Any = 0.0,
        every: Any = None,
        count: int | None = None,
        *,
        steady_state: bool = False,
        bioavailability: Any = 1.0,
        lag: Any = 0.0,
        counts: bool = False,
        name: str | None = None,
    ):
        _reaches(into)
        numbers = _together(times=times, amounts=amounts, duration=duration, bioavailability=bioavailability, lag=lag)
        course = _course(*_repeated(numbers, every, count))
        self.infuses = not errors.all_concrete(duration) or bool(np.any(np.asarray(duration) > 0))
        self.into, self.counts, self.name = into, counts, name
        if steady_state:
            self.laps = _laps(duration, every)
            self.regimen = Regimen(*_course(*numbers), jnp.asarray(every, numbers[0].dtype)).within(self.laps)
            course = self.regimen.after_earlier(course, self.laps)
        self._given(course)

    laps = 0
    """how many earlier intervals have infusions that may last"""

    def _given(self, course: Course) -> None:
        self.starts, self.ends, self.at_once, self.rates = course
        self.adds = self._slope if self.infuses else None

    def interval(self, t0: Any) -> Doses:
        """What is given from t₀ on, one interval long, of doses that have always been given."""
        assert self.regimen is not None
        one = object.__new__(Doses)
        one.into, one.infuses, one.counts, one.name = self.into, self.infuses, False, self.name
        now = self.regimen.from_time(t0)
        one._given(now.after_earlier(Course(*now[:4]), self.laps))
        return one

    def affect(self, t: Any, y: PyTree, args: PyTree) -> PyTree:
        """With what comes at once at t. Where an infusion begins or ends is another time than that which was landed on
        in its derivative alone: then what it has brought in between."""
        starts, ends = self.starts.astype(t.dtype), self.ends.astype(t.dtype)
        amount = _sum(starts == t, self.at_once)
        if self.infuses:
            rates = self.rates.astype(t.dtype)
            amount += _sum(starts == t, rates * (t - starts)) - _sum(ends == t, rates * (t - ends))
        return added(y, self.into, amount)

    def _slope(self, t: Any, y: PyTree) -> PyTree:
        lasts = (self.starts.astype(t.dtype) <= t) & (t < self.ends.astype(t.dtype))
        return added(jax.tree.map(jnp.zeros_like, y), self.into, _sum(lasts, self.rates))

    @property
    def trigger(self) -> Trigger:
        times = jnp.concatenate([self.starts, self.ends]) if self.infuses else self.starts
        jumps = jnp.concatenate([self.at_once, jnp.zeros_like(self.ends)])[: times.size]

        def ahead(t):
            at = times.astype(t.dtype)
            return first_of(at, at > t)

        def now(t):
            at = times.astype(t.dtype)
            given = first_of(at, at == t)
            return jnp.where(jnp.isnan(given), t, given) if self.infuses else given

        def first_of(at, which):
            """The first of times. Of several that are one it is the mean, by what comes at once, in its derivative."""
            if times.size == 0:
                return jnp.nan
            passed = jax.lax.stop_gradient(jnp.where(which, at, jnp.inf))
            next_one = jnp.min(passed)
            share = jnp.where(passed == next_one, jumps.astype(at.dtype), 0)
            whole = jnp.sum(share)
            alone = (jnp.arange(at.size) == jnp.argmin(passed)).astype(at.dtype)
            share = jnp.where(whole == 0, alone, share / jnp.where(whole == 0, 1, whole))
            moved = jnp.sum(jnp.where(share != 0, share * (at - jax.lax.stop_gradient(at)), 0))
            return jnp.where(next_one < jnp.inf, next_one + moved, jnp.nan)

        return Trigger(
            times=Times(
                now=lambda t0, y, args, way: now(t0),
                first=lambda t0, y, args, way: ahead(t0),
                next=lambda ticks, t, y, args, t0, way: ahead(t),
            )
        )

    def on_whole(self, on: Callable) -> Doses:
        return self

    def tree_flatten(self) -> tuple[tuple, tuple]:
        static = self.into, self.infuses, self.counts, self.name, self.laps
        return (self.starts, self.ends, self.at_once, self.rates, self.regimen), static

    @classmethod
    def tree_unflatten(cls, static: tuple, numbers: tuple) -> Doses:
        self = object.__new__(cls)
        *course, self.regimen = numbers
        self.into, self.infuses, self.counts, self.name, self.laps = static
        self._given(Course(*course))
        return self


class Course(NamedTuple):
    """What arrives, dose by dose. Shapes: [doses]."""

    starts: jax.Array
    ends: jax.Array
    at_once: jax.Array
    rates: jax.Array


class Regimen(NamedTuple):
    """The doses of one interval out of a course without beginning, like `Course`, and how long it is."""

    starts: jax.Array
    ends: jax.Array
    at_once: jax.Array
    rates: jax.Array
    every: jax.Array

    def within(self, laps: int) -> Regimen:
        """NaN where an infusion lasts longer than so many intervals."""
        most = laps * self.every * (1 + 8 * jnp.finfo(self.every.dtype).eps)
        short = (self.ends - self.starts <= most) | (self.rates == 0)
        return self._replace(rates=jnp.where(short, self.rates, jnp.nan))

    def from_time(self, t0: Any) -> Regimen:
        """Those of the interval that begins at t₀."""
        passed = jax.lax.stop_gradient(jnp.floor((self.starts - jnp.asarray(t0, self.starts.dtype)) / self.every))
        return self._replace(starts=self.starts - passed * self.every, ends=self.ends - passed * self.every)

    def after_earlier(self, course: Course, laps: int) -> Course:
        """A course behind the infusions of so many earlier intervals."""
        earlier = [self.every * j for j in range(laps, 0, -1)]
        parts = [Course(self.starts - s, self.ends - s, jnp.zeros_like(self.at_once), self.rates) for s in earlier]
        return Course(*(jnp.concatenate(x) for x in zip(*parts, course, strict=True)))


def _course(times: Any, amounts: Any, duration: Any, available: Any, lag: Any) -> Course:
    lasts, starts = duration > 0, times + lag
    rates = jnp.where(lasts, available * amounts / jnp.where(lasts, duration, 1), 0)
    return Course(starts, starts + duration, jnp.where(lasts, 0, available * amounts), rates)


def _laps(duration: Any, every: Any) -> int:
    if every is None:
        raise ValueError("Doses(steady_state=True) needs `every`, how far apart they have always been, and `count`.")
    if not errors.all_concrete((duration, every)):
        return 1
    return int(np.ceil(np.max(np.asarray(duration)) / float(every)))


def _sum(which: jax.Array, values: jax.Array) -> jax.Array:
    return jnp.sum(jnp.where(which, values, 0))


def _reaches(into: Any) -> None:
    path = into if isinstance(into, tuple) else (into,)
    if not (callable(into) or all(isinstance(step, int | str) for step in path)):
        raise TypeError(
            "`into` must be an index, a name, a tuple of such, which is a path in y, or a function (y, amount) ↦ y, "
            f"but is {into!r}."
        )


def _together(**given: Any) -> list[jax.Array]:
    """Numbers for each of the doses. Shapes: [doses]."""
    arrays = {name: jnp.asarray(x) for name, x in given.items()}
    arrays = {name: x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(float) for name, x in arrays.items()}
    size = arrays["times"].size
    wrong = [f"{name} {x.shape}" for name, x in arrays.items() if x.ndim > 1 or x.size not in (1, size)]
    if wrong or arrays["times"].ndim > 1:
        raise ValueError(
            f"`times` must be a number or a list of such, here of shape {arrays['times'].shape}, and the other numbers "
            f"of Doses a number or one for each time, but came {', '.join(wrong)}. For doses of several kinds, or of "
            "several patients, take one Doses each, or `jax.vmap`."
        )
    dtype = jnp.result_type(*arrays.values())
    return [jnp.broadcast_to(x.astype(dtype).reshape(-1), (size,)) for x in arrays.values()]


def _repeated(numbers: list[jax.Array], every: Any, count: int | None) -> list[jax.Array]:
    if (every is None) != (count is None):
        raise ValueError(
            f"`every` and `count` go together: how far apart doses are, and how many, but came every={every!r}, "
            f"count={count!r}."
        )
    if every is None or count is None:
        return numbers
    errors.positive(every, "every")
    errors.positive_integer(count, "count")
    later = jnp.asarray(every, numbers[0].dtype) * jnp.arange(count, dtype=numbers[0].dtype)
    times, *rest = numbers
    return [(times[:, None] + later[None]).reshape(-1), *(jnp.repeat(x, count) for x in rest)]


def added(y: PyTree, into: Any, amount: jax.Array) -> PyTree:
    """y with an amount more at a place in it, a path or a function."""
    if callable(into):
        return errors.call(into, y, amount)
    path = into if isinstance(into, tuple) else (into,)
    if isinstance(y, jax.Array):
        _is_in(y, path)
        return y.at[path].add(amount.astype(y.dtype)) if path else y + amount.astype(y.dtype)
    if not path:
        raise ValueError(f"`into` of Doses ends at {type(y).__name__}, which is no array: name one in it.")
    head = path[0]
    get = (lambda y: getattr(y, head)) if isinstance(head, str) and not isinstance(y, dict) else (lambda y: y[head])
    try:
        child = get(y)
    except (AttributeError, KeyError, IndexError, TypeError):
        raise ValueError(
            f"`into` of Doses names {head!r}, which is not in the state: {jax.tree.structure(y)}."
        ) from None
    return eqx.tree_at(get, y, added(child, path[1:], amount))


def _is_in(y: jax.Array, path: tuple) -> None:
    """An index outside of an array would be left out without a word."""
    inside = len(path) <= y.ndim and all(
        isinstance(i, int) and -n <= i < n for i, n in zip(path, y.shape, strict=False)
    )
    if not inside:
        raise ValueError(f"`into` of Doses names {path}, which is no place in an array of shape {y.shape}.")


# ---- what holds along a solution


@unchecked_tree
@dataclass(frozen=True)
class ManifoldProjection(EventDefaults):
    """After every step the state is moved, as little as possible, to where `g(t, y, args)` is zero: an invariant kept.

    By `iterations` of Gauss and Newton, y ← y − Gᵀ(GGᵀ)⁻¹g with G = ∂g/∂y, which square a residual that is as small as
    the error of a step. The order of the method is kept, as g is zero along the solution. Values between steps are
    those of the step's interpolant, which is not projected.
    The stepper's memory is made anew after each step: that costs an explicit method with its first stage for free, such
    as Tsit5, this stage; BDF and Adams stay at order 1, so take one-step methods.
    Derivatives: through the iterations. Shapes: g, any number of equations, fewer than y has numbers.
    Source: Hairer, Lubich, Wanner, Geometric Numerical Integration, 2nd ed., IV.4.
    """

    g: Callable
    _: KW_ONLY
    iterations: int = static(3)
    name: str | None = static(None)

    counts, corrects = False, True

    def __post_init__(self) -> None:
        errors.callable_with(self.g, "g", ("t", "y", "args"), silence="write `lambda *given: fn(*given)`")
        errors.positive_integer(self.iterations, "iterations")

    @property
    def trigger(self) -> Trigger:
        return Trigger(holds=lambda t, y, args: jnp.array(True))

    def affect(self, t: Any, y: PyTree, args: PyTree) -> PyTree:
        ravel = Ravel.of(y)
        v = ravel.pack(y)

        def g(v):
            return _flat(errors.call(self.g, t, ravel.unpack(v.reshape(shape)), args))

        shape, v = v.shape, v.reshape(-1)
        for _ in range(self.iterations):
            v = v - _least(jax.jacrev(g)(v), g(v))
        return ravel.unpack(v.reshape(shape))


def _flat(tree: PyTree) -> jax.Array:
    return jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(tree)])


def _least(matrix: jax.Array, right: jax.Array) -> jax.Array:
    """The least x with matrix·x = right. Shapes: [m, n], [m]."""
    square = matrix @ matrix.T
    return matrix.T @ _solved(square, right)


@jax.custom_jvp
def _solved(square: jax.Array, right: jax.Array) -> jax.Array:
    return substitute(factor(square), right)


@_solved.defjvp
def _(primals, tangents):
    (square, right), (d_square, d_right) = primals, tangents
    x = _solved(square, right)
    return x, _solved(square, d_right - d_square @ x)


@unchecked_tree
@dataclass(frozen=True)
class Domain(EventDefaults):
    """Where the solution lives: `g(t, y, args)` ≥ −`slack`. A step that leaves it is refused and tried with half the
    size; nothing is clipped.

    For a right-hand side that holds only there, such as a square root or a concentration. Where the solution itself
    leaves, or the method cannot follow it any closer, the solve ends with `step_size_too_small`, and names the event.
    So it may where a component is smaller than its `atol`, and no step is too wrong that makes it negative: give a
    smaller `atol`, or some `slack`. Steps of equal size cannot be shortened: there it ends at once.
    Shapes: g any. Units: slack in that of g.
    Source: Shampine, Thompson, Kierzenka, Byrne 2005, doi:10.1016/j.amc.2004.12.011.
    """

    g: Callable
    _: KW_ONLY
    slack: Any = 0.0
    name: str | None = static(None)

    counts = False

    def __post_init__(self) -> None:
        errors.callable_with(self.g, "g", ("t", "y", "args"), silence="write `lambda *given: fn(*given)`")

    @property
    def trigger(self) -> Trigger:
        def stays(t, y, args):
            values = _flat(errors.call(self.g, t, y, args))
            return values + jnp.asarray(self.slack, values.dtype)

        return Trigger(stays=stays)


@unchecked_tree
@dataclass(frozen=True)
class PositiveDomain(EventDefaults):
    """Every component of y stays ≥ −`slack`: `Domain(lambda t, y, args: y)`."""

    _: KW_ONLY
    slack: Any = 0.0
    name: str | None = static(None)

    counts = False

    @property
    def trigger(self) -> Trigger:
        return Domain(_state, slack=self.slack).trigger


def _state(t: Any, y: PyTree, args: PyTree) -> PyTree:
    return y


@unchecked_tree
@dataclass(frozen=True)
class StepLimit(EventDefaults):
    """No step is longer than `fn(t, y, args)` at its start, times `safety`: such as a Courant number asks for.

    Shapes: fn a number, or an array of which the least counts. Units: those of t, unsigned.
    """

    fn: Callable
    _: KW_ONLY
    safety: Any = 1.0
    name: str | None = static(None)

    counts, sizes = False, True

    def __post_init__(self) -> None:
        errors.callable_with(self.fn, "fn", ("t", "y", "args"), silence="write `lambda *given: fn(*given)`")
        errors.positive(self.safety, "safety")

    @property
    def trigger(self) -> Trigger:
        def caps(t, y, args):
            most = jnp.asarray(errors.call(self.fn, t, y, args))
            return most * jnp.asarray(self.safety, most.dtype)

        return Trigger(caps=caps)


@unchecked_tree
@dataclass(frozen=True)
class TerminateAtSteadyState(EventDefaults):
    """Ends the solve after a step where |dy/dt| ≤ rtol·|y| + atol in every component, dy/dt that of the interpolant.

    Units: rtol one over that of t; atol that of y over that of t. To find the steady state itself to rounding, and its
    derivatives whatever the way there, solve a `SteadyStateProblem`.
    """

    rtol: Any = 1e-6
    atol: Any = 1e-8
    _: KW_ONLY
    name: str | None = static(None)

    terminate = True

    @property
    def trigger(self) -> Trigger:
        def holds(t, y, args, info):
            def slow(dy, y):
                size = jnp.abs(y)
                return jnp.all(
                    jnp.abs(dy) <= jnp.asarray(self.rtol, size.dtype) * size + jnp.asarray(self.atol, size.dtype)
                )

            return jnp.all(jnp.stack(jax.tree.leaves(jax.tree.map(slow, info.dy, y))))

        return Trigger(holds=holds)


@unchecked_tree
@dataclass(frozen=True)
class Integrate(EventDefaults):
    """∫ g(t, y, args) dt from t₀ to where the solve ends, in `sol.integrals`, in the order of the list.

    By Gauss's rule on the interpolant of each step, with as many points as keep the order of the method. No part of the
    error estimate, unlike a component of y: where g varies faster than y does, put it into y.
    Derivatives: with respect to everything. Shapes: g any pytree, the integral too. Units: that of g times that of t.
    """

    g: Callable
    _: KW_ONLY
    name: str | None = static(None)

    counts = False

    def __post_init__(self) -> None:
        errors.callable_with(self.g, "g", ("t", "y", "args"), silence="write `lambda *given: fn(*given)`")

    @property
    def integrand(self) -> Callable:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.g

    @property
    def trigger(self) -> Trigger:
        return Trigger()


@unchecked_tree
@dataclass(frozen=True)
class SaveValues(EventDefaults):
    """`fn(t, y, args)` is kept besides, in `sol.saved`, in the order of the list: its `ts`, `ys` and `mask`.

    `when` has the forms of `saveat`: times, a spacing, None for t₀ and every step, or a `SaveAt`, of which
    `events=True` keeps the value after every event that is logged, one where several share an instant. args are those
    that hold at the time, and where an event changes them or the state, what there is after it.
    Derivatives: with respect to everything, as those of `sol.ys`. Shapes: fn any pytree of numbers.
    """

    fn: Callable
    when: Any = None
    _: KW_ONLY
    name: str | None = static(None)

    counts = False

    def __post_init__(self) -> None:
        errors.callable_with(self.fn, "fn", ("t", "y", "args"), silence="write `lambda *given: fn(*given)`")
        if getattr(self.when, "fn", None) is not None:
            raise ValueError("the `when` of SaveValues says when, and its own fn what is saved: leave SaveAt(fn=) out.")

    @property
    def saved(self) -> Callable:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.fn

    @property
    def timeless(self) -> SaveValues:
        """Without its times, which are known to the plan."""
        return replace(self, when=None)

    @property
    def trigger(self) -> Trigger:
        return Trigger()


@unchecked_tree
@dataclass(frozen=True)
class CallEach(EventDefaults):
    """`fn(t, y, args)` is called on the host, with numpy arrays, after every accepted step: to print, to log, to plot.

    What it returns is not used. Under `jit` calls may come late, and under `vmap` in any order of the lanes; a gradient
    may take the steps forwards, and call it, once more. Every step waits for Python then: for watching, not for speed.
    """

    fn: Callable
    _: KW_ONLY
    name: str | None = static(None)

    counts = False

    def __post_init__(self) -> None:
        errors.callable_with(self.fn, "fn", ("t", "y", "args"), silence="write `lambda *given: fn(*given)`")

    @property
    def tells(self) -> Callable:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.fn

    @property
    def trigger(self) -> Trigger:
        return Trigger()


__all__ = [
    "CallEach",
    "Domain",
    "Doses",
    "Integrate",
    "ManifoldProjection",
    "PositiveDomain",
    "SaveValues",
    "StepLimit",
    "TerminateAtSteadyState",
]
