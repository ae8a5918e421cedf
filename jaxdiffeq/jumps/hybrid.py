"""Jumps of a state that moves between them: the equation, with what the jumps need to know besides.

Each jump with a rate that varies has a hazard, ∫rate dt, and happens where that reaches an exponential number: an
event, found as a root. Where all rates are bounded, or constant between jumps, times are proposed instead, and a
proposal is taken with the probability rate/bound (thinning): no hazard is integrated.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiffeq import errors
from jaxdiffeq import events as user
from jaxdiffeq.frontend.options import Options
from jaxdiffeq.frontend.saveat import normalise
from jaxdiffeq.gradients import estimators
from jaxdiffeq.gradients.estimators import Pathwise, ScoreFunction
from jaxdiffeq.jumps.counters import Draw, SeldomDraw, words_of
from jaxdiffeq.jumps.definitions import (
    Added,
    ConstantRateJump,
    JumpProblem,
    MassActionJumps,
    VariableRateJump,
    moving,
    takes_key,
)
from jaxdiffeq.jumps.jump_errors import constant_in_time, first_rates, forwards, like_state, one_rate
from jaxdiffeq.jumps.refusals import refusing
from jaxdiffeq.primitives.jax_internals import Tracer
from jaxdiffeq.problems import noise_errors
from jaxdiffeq.problems.definitions import DDEProblem, ODEProblem, SDEProblem, begun, is_function
from jaxdiffeq.problems.ravel import at_least_float32, inexact_dtype, real_dtype
from jaxdiffeq.solution import Interpolant, Solution
from jaxdiffeq.types import PyTree

TIMES, CHOICE = 8, 9  # streams of the clocks
ROUNDING = 1e-3  # by which a rate may exceed its bound, as the state that it is of may be off


class Whole(NamedTuple):
    """A state, and what the jumps know. Shapes: all but y [clocks]."""

    y: PyTree
    rings: jax.Array
    """how often each clock has rung, jumps or proposals"""
    hazard: jax.Array
    level: jax.Array
    """at which the next jump comes; to thinning, what the rates do not exceed until the next proposal, [jumps]"""
    jumps: jax.Array
    """how many have happened, []"""
    score: jax.Array
    """the log-probability of the proposals taken and left, []; see `jaxdiffeq.jumps.expectation`"""


class Parameters(NamedTuple):
    args: PyTree
    jumps: PyTree
    """arrays in jumps"""
    words: jax.Array


@user.unchecked_tree
@dataclass(frozen=True)
class Hazard(user.Event):
    """Where a hazard reaches its level."""

    counts = False


@user.unchecked_tree
@dataclass(frozen=True)
class Proposal(user.NextTime):
    """Where a jump may happen; proposed again where the user's events make another state, and with it other rates."""

    counts = False
    follows = True


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class OfState(Interpolant):
    """Of the state alone."""

    def value(self, t: jax.Array) -> PyTree:
        return super().value(t).y

    def slope(self, t: jax.Array) -> PyTree:
        return super().slope(t).y


class Lifted(NamedTuple):
    problem: Any
    options: Options
    lower: Callable[[Solution], Solution]


def lifted(problem: JumpProblem, options: Options, scored: bool = False) -> Lifted:
    """The equation of a `Whole`, its events, and how to make a solution of the state alone of its solution.

    `scored`: log-probabilities are summed up, and times of proposals are constant to differentiation.
    """
    problem = moving(problem)
    estimators.refuse(options.gradient, estimators.ONE_PATH)
    pathwise = isinstance(options.gradient, Pathwise)
    strategy = options.gradient.strategy if pathwise else options.gradient
    clocks = _Clocks(problem, scored)
    saveat = normalise(options.saveat)
    fn = _state if saveat.fn is None else _seen(saveat.fn)
    events = tuple(clocks.of_user(event) for event in options.events) + clocks.events()
    atol = _like_whole(options.atol, clocks)
    asked = dataclasses.replace(
        options,
        gradient=strategy,
        saveat=dataclasses.replace(saveat, fn=fn),
        events=events,
        atol=atol,
        rtol=_like_whole(options.rtol, clocks),
    )
    refuses = not pathwise and not scored
    return Lifted(clocks.problem(), asked, functools.partial(_lowered, refuses=refuses, keep=scored))


def _state(t: Any, whole: Whole, given: Parameters) -> PyTree:
    return whole.y


def _seen(f: Callable) -> Callable:
    """A function of the state as one of the whole."""

    @functools.wraps(f)
    def of_whole(t: Any, whole: Whole, given: Parameters, *more: Any) -> Any:
        return errors.call(f, t, whole.y, given.args, *more)

    return of_whole


def _like_whole(tolerance: PyTree, clocks: _Clocks) -> PyTree:
    if jax.tree_util.all_leaves([tolerance]) and np.ndim(tolerance) == 0:
        return tolerance
    rest = [jnp.full(x.shape, 1e-6, x.dtype) for x in clocks.start(clocks.y0)[1:]]
    return Whole(tolerance, *rest)


NOT_PATHWISE = (
    "the number and the order of jumps do not have a derivative, and their law may depend on what is differentiated. "
    "Take jaxdiffeq.expectation(loss, problem, gradient=ScoreFunction()), or, where no jump is caused or avoided by "
    "what changes, as by jump sizes, solve(…, gradient=Pathwise()); or jax.lax.stop_gradient, if none is wanted."
)


def _lowered(solution: Solution, refuses: bool, keep: bool) -> Solution:
    log, ends = solution.events, solution.y_end
    if log is not None:
        log = dataclasses.replace(log, before=log.before.y, after=log.after.y)
    dense = solution.interpolant
    if dense is not None:
        dense = OfState(**{f.name: getattr(dense, f.name) for f in dataclasses.fields(dense)})
    stats = solution.stats._replace(events=ends.jumps.astype(jnp.int32))
    lower = dataclasses.replace(solution, stats=stats, y_end=ends if keep else ends.y, events=log, interpolant=dense)
    traced = any(isinstance(x, Tracer) for x in jax.tree.leaves(lower))
    return refusing(NOT_PATHWISE, lambda solution: solution, lower) if refuses and traced else lower


BAD_RATE = (
    "the rate of a jump exceeds its bound there, or one of both is negative, infinite or not a number. Give a `bound` "
    "that holds until the next proposal. The solution up to there is in this error's `solution`; `throw=False` returns "
    "it with its result code."
)


def or_failure(run: Callable[[], Solution], lower: Callable[[Solution], Solution]) -> Solution:
    """lower(run()); an error that it raises is one of the state alone too."""
    try:
        return lower(run())
    except errors.SolveError as error:
        found = error
    failed = found.solution
    message = str(found).replace("y0.y", "y0")
    message = re.sub(r"y0\.hazard\[(\d+)\]", r"∫rate dt of jump \1", message)
    if np.any(np.isnan(failed.y_end.level)):
        message = f"the solve stopped with nonfinite at t = {float(failed.t_end):.9g}: {BAD_RATE}"
    raise type(found)(message, lower(failed))


class _Clocks:
    """The jumps of a problem, each a clock; or one clock for all, if times are proposed."""

    def __init__(self, problem: JumpProblem, scored: bool):
        self.base, self.scored = problem.base, scored
        noise_errors.key_data(problem.key)
        self.words, self.noise_key = words_of(problem.key), problem.key
        base = problem.base
        self.y0, *self.tspan = begun(base.y0, base.tspan, base.args)
        forwards(*self.tspan)
        errors.state(self.y0)
        self.jumps = [part for jump in problem.jumps for part in _single(jump, self.y0)]
        self.thins = all(isinstance(jump, ConstantRateJump) or jump.bound is not None for jump in self.jumps)
        if not self.thins and isinstance(base, SDEProblem):
            raise ValueError(
                "Over an SDEProblem, a VariableRateJump needs a `bound`, for its hazard is no smooth function there."
            )
        if scored and not self.thins:
            errors.unsupported(estimators.refusal(ScoreFunction, estimators.UNBOUNDED))
        dtypes = [real_dtype(inexact_dtype(x)) for x in jax.tree.leaves(self.y0)]
        self.dtype = at_least_float32(functools.reduce(jnp.promote_types, dtypes))
        self.count = 1 if self.thins else len(self.jumps)

    # ---- the equation

    def start(self, y0: PyTree) -> Whole:
        zero = jnp.zeros(self.count, self.dtype)
        if self.thins:
            hazard, level = zero[:0], errors.out_of_user_code(self.first_bounds, y0)
        else:
            hazard, level = zero, jnp.stack([self.exponential(self.words, zero[j], j) for j in range(self.count)])
        if not errors.all_concrete(self.tspan):
            level = jnp.where(self.tspan[0] <= self.tspan[1], level, jnp.nan)  # jumps go forwards in time
        return Whole(y0, zero, hazard, level, jnp.zeros((), self.dtype), jnp.zeros((), self.dtype))

    def slope(self, dy: PyTree, t: Any, whole: Whole, given: Parameters) -> Whole:
        zero, hazard = jnp.zeros_like, jnp.zeros_like(whole.hazard)
        if not self.thins:
            hazard = jnp.stack([jnp.maximum(self.rate(jump, t, whole.y, given.args), 0) for jump in self.jumps])
        return Whole(dy, zero(whole.rings), hazard, zero(whole.level), zero(whole.jumps), zero(whole.score))

    def problem(self) -> Any:
        base = self.base
        given = Parameters(base.args, jax.tree.map(lambda x: x, self.jumps), self.words)
        start = self.start(self.y0)
        tspan = tuple(self.tspan)
        if isinstance(base, ODEProblem):
            if base.mass_matrix is not None:
                raise ValueError("A JumpProblem does not serve a `mass_matrix`: solve for dy/dt.")
            f = lambda t, whole, given: self.slope(errors.call(base.f, t, whole.y, given.args), t, whole, given)
            return ODEProblem(f, start, tspan, given)
        if isinstance(base, DDEProblem):
            return self._delayed(base, start, tspan, given)
        return self._noisy(base, start, tspan, given)

    def _delayed(self, base: DDEProblem, start: Whole, tspan: Any, given: Parameters) -> DDEProblem:
        def f(t, whole, h, given):
            past = lambda s, derivative=False: h(s, derivative).y
            return self.slope(errors.call(base.f, t, whole.y, past, given.args), t, whole, given)

        def history(s, given):
            before = errors.call(base.history, s, given.args) if is_function(base.history) else base.history
            return start._replace(y=before)

        lags = base.lags(base.args) if callable(base.lags) else base.lags
        varying = [lambda t, whole, given, lag=lag: lag(t, whole.y, given.args) for lag in base.dependent_lags]
        return DDEProblem(
            f, start, tspan, given, history=history, lags=lags, dependent_lags=varying, neutral=base.neutral
        )

    def _noisy(self, base: SDEProblem, start: Whole, tspan: Any, given: Parameters) -> SDEProblem:
        """Noise moves the state alone. Shapes: of a diffusion like y each leaf; of a matrix, [n, m] of the leaf y."""

        def drift(t, whole, given):
            return self.slope(errors.call(base.drift, t, whole.y, given.args), t, whole, given)

        def diffusion(t, whole, given):
            g = errors.call(base.diffusion, t, whole.y, given.args)
            like = jax.tree.map(jnp.shape, g) == jax.tree.map(jnp.shape, whole.y)
            rest = jax.tree.map(jnp.zeros_like, whole)
            if like:
                return rest._replace(y=g)
            m = jax.tree.leaves(g)[0].shape[-1]
            zeros = jax.tree.map(lambda x: jnp.zeros((*x.shape, m), x.dtype), rest)
            return zeros._replace(y=g)

        key = jax.random.fold_in(self.noise_key, 1)
        changes = {"drift": drift, "diffusion": diffusion, "y0": start, "tspan": tspan, "args": given, "key": key}
        return base.replace(**changes, jac_structure=None)

    # ---- what happens

    def rate(self, jump: Any, t: Any, y: PyTree, args: PyTree) -> jax.Array:
        return one_rate(errors.call(jump.rate, t, y, args)).astype(self.dtype)

    def bound(self, jump: Any, t: Any, y: PyTree, args: PyTree) -> jax.Array:
        if isinstance(jump, ConstantRateJump):
            return self.rate(jump, t, y, args)
        value = errors.call(jump.bound, t, y, args) if callable(jump.bound) else jump.bound
        return one_rate(value, "`bound`").astype(self.dtype)

    def exponential(self, words: jax.Array, count: jax.Array, j: int) -> jax.Array:
        return self.draw(words, count, j).exponential(TIMES, self.dtype)

    def draw(self, words: jax.Array, count: jax.Array, j: int) -> Draw:
        n = jax.lax.stop_gradient(count).astype(jnp.uint32)
        return SeldomDraw(words, n).aside(np.uint32(1024 + j))

    def events(self) -> tuple:
        if self.thins:
            return (Proposal(self.next_time, self.proposed),)
        return tuple(
            Hazard(
                functools.partial(self.ahead, j),
                functools.partial(self.happens, j),
                direction=-1,
                name=f"jump {j}",
            )
            for j in range(len(self.jumps))
        )

    def ahead(self, j: int, t: Any, y: Whole, args: Parameters) -> jax.Array:
        return y.level[j] - y.hazard[j]

    def happens(self, j: int, t: Any, y: Whole, args: Parameters) -> Whole:
        new = self.affected(self.jumps[j], t, y.y, args, self.draw(args.words, y.rings[j], j))
        rings = y.rings.at[j].add(1)
        level = self.exponential(args.words, rings[j], j)
        return y._replace(
            y=new, rings=rings, hazard=y.hazard.at[j].set(0), level=y.level.at[j].set(level), jumps=y.jumps + 1
        )

    def affected(self, jump: Any, t: Any, y: PyTree, given: Parameters, draw: Draw) -> PyTree:
        if isinstance(jump.affect, Added):
            added = np.asarray(jump.affect.numbers)
            like_state(added, y, "be what is added to y, like y0")
            return y + jnp.asarray(added, y.dtype)
        if not callable(jump.affect):
            like_state(jump.affect, y, "be what is added to y, like y0")
            return jax.tree.map(lambda x, more: x + more, y, jump.affect)
        more = (draw.key(),) if takes_key(jump.affect) else ()
        new = jax.tree.map(jnp.asarray, errors.call(jump.affect, t, y, given.args, *more))
        like_state(new, y, "return a state like y0")
        return jax.tree.map(lambda a, b: a.astype(jnp.asarray(b).dtype), new, y)

    # ---- thinning

    def first_bounds(self, y0: PyTree) -> jax.Array:
        t0, args = self.tspan[0], self.base.args
        for jump in self.jumps:
            if isinstance(jump, ConstantRateJump):
                constant_in_time(lambda t, y, jump=jump: self.rate(jump, t, y, args), jnp.asarray(t0, float), y0)
        bounds = jnp.stack([self.bound(jump, t0, y0, args) for jump in self.jumps])
        first_rates(bounds, t0)
        return self.bounds(t0, y0, args)

    def bounds(self, t: Any, y: PyTree, args: PyTree) -> jax.Array:
        """What the rates do not exceed until the next proposal; NaN where that is no bound. Shapes: [jumps]."""
        bounds = jnp.stack([self.bound(jump, t, y, args) for jump in self.jumps])
        return jnp.where((bounds >= 0) & (bounds < jnp.inf), bounds, jnp.nan)

    def proposals(self, y: Whole) -> jax.Array:
        """The rates of proposals, twice the bounds where decisions are scored: what is never refused says nothing of
        its probability. Shapes: [jumps]."""
        return 2 * jax.lax.stop_gradient(y.level) if self.scored else y.level

    def next_time(self, t: Any, y: Whole, args: Parameters) -> jax.Array:
        total = self.proposals(y).sum()
        wait = self.exponential(args.words, y.rings[0], 0)
        some = total > 0
        return jnp.where(some, t + (wait / jnp.where(some, total, 1)).astype(t.dtype), jnp.inf)

    def proposed(self, t: Any, y: Whole, args: Parameters, own: jax.Array) -> Whole:
        """After a proposal, or, where its `own` time has not come, with another one to come."""
        draw = self.draw(args.words, y.rings[0], 0)
        u, v = draw.pair(CHOICE, self.dtype)
        bounds = self.proposals(y)
        sums = jnp.cumsum(jax.lax.stop_gradient(bounds))
        level = u * sums[-1]
        taken, new, left, good = jnp.zeros((), bool), y.y, y.score, jnp.ones((), bool)
        for j, jump in enumerate(self.jumps):
            mine = own & (level < sums[j]) & (level >= (sums[j - 1] if j else 0))
            rate = y.level[j] if isinstance(jump, ConstantRateJump) else self.rate(jump, t, y.y, args.args)
            good &= ~own | (rate <= y.level[j] * (1 + ROUNDING))
            chance = rate / jnp.where(bounds[j] > 0, bounds[j], 1)
            yes = mine & (v * jax.lax.stop_gradient(bounds[j]) <= jax.lax.stop_gradient(rate))
            after = self.affected(jump, t, y.y, args, draw.aside(np.uint32(j)))
            new = jax.tree.map(lambda a, b, yes=yes: jnp.where(yes, a, b), after, new)
            safe = jnp.where(yes, chance, jnp.where(mine & ~yes, 1 - chance, 1))
            left = left + jnp.log(jnp.where(safe > 0, safe, 1))
            taken |= yes
        one = taken.astype(self.dtype)
        bounds = jnp.where(good, self.bounds(t, new, args.args), jnp.nan)
        return y._replace(y=new, rings=y.rings + 1, level=bounds, jumps=y.jumps + one, score=left)

    # ---- the user's events

    def of_user(self, event: Any) -> Any:
        kinds = user.Event, user.DiscreteEvent, user.PresetTimes, user.Periodic, user.NextTime
        if type(event) not in kinds:
            raise TypeError(
                f"{type(event).__name__} does not serve a JumpProblem; {', '.join(k.__name__ for k in kinds)} do."
            )
        changes = {n: _seen(getattr(event, n)) for n in ("condition", "choose") if getattr(event, n, None) is not None}
        if event.affect is not None:
            changes["affect"] = _putting(event.affect, lambda whole, given, y: whole._replace(y=y))
        if event.affect_args is not None:
            changes["affect_args"] = _putting(event.affect_args, lambda whole, given, new: given._replace(args=new))
        return dataclasses.replace(event, **changes)


def _putting(f: Callable, put: Callable) -> Callable:
    """A function of the state, of which `put(whole, given, its value)` is returned."""
    seen = _seen(f)

    @functools.wraps(f)
    def of_whole(t: Any, whole: Whole, given: Parameters, *more: Any) -> Any:
        return put(whole, given, seen(t, whole, given, *more))

    return of_whole


def _single(jump: Any, y0: PyTree) -> list:
    """Mass action over an equation: one jump for each reaction, whose rate varies with the state."""
    if not isinstance(jump, MassActionJumps):
        return [jump]
    species = np.size(y0)
    change = jump.change.dense(species)
    found = []
    for r, row in enumerate(jump.reactants.rows):
        found.append(VariableRateJump(functools.partial(_by_mass_action, jump, r, row), change[r]))
    return found


def _by_mass_action(jump: MassActionJumps, r: int, row: tuple, t: Any, y: jax.Array, args: PyTree) -> jax.Array:
    value = jnp.asarray(jump.rates(args) if callable(jump.rates) else jump.rates)[r].astype(y.dtype)
    for s, m in row:
        for i in range(m):
            value = value * (y[s] - i) / (i + 1)
    return value
