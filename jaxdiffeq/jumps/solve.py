"""Paths that stand still between jumps, from a problem and its options to a solution."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiffeq import clock, errors, habits
from jaxdiffeq.frontend.options import Options, recommended
from jaxdiffeq.frontend.saveat import Keep, normalise, sorted_times, times
from jaxdiffeq.gradients import estimators
from jaxdiffeq.gradients.reverse import ReverseAD
from jaxdiffeq.jumps.channels import channels_of
from jaxdiffeq.jumps.counters import words_of
from jaxdiffeq.jumps.definitions import JumpProblem, MassActionJumps
from jaxdiffeq.jumps.exact import RSSA, SSA, NextReaction
from jaxdiffeq.jumps.jump_errors import forwards, worst_rate
from jaxdiffeq.jumps.refusals import refusing
from jaxdiffeq.jumps.walk import Walk, Walker
from jaxdiffeq.methods.choice import Recommendation
from jaxdiffeq.primitives.jax_internals import plain_path
from jaxdiffeq.primitives.lanes import one_by_one
from jaxdiffeq.problems import noise_errors
from jaxdiffeq.problems.definitions import begun
from jaxdiffeq.problems.ravel import Ravel, Split, as_array, close, hashable, real_dtype, split, time_dtype
from jaxdiffeq.problems.reached import reached
from jaxdiffeq.solution import Interpolant, Solution, Stats
from jaxdiffeq.types import PyTree, Result

METHODS = (
    *("SSA", "SortingDirect", "NextReaction", "RSSA", "TauLeaping", "MidpointTauLeaping"),
    *("ThetaTrapezoidalTauLeaping", "ImplicitTauLeaping"),
)
MANY = 100  # reactions, of which more have clocks of their own
CHUNK = 2**14  # events that are kept at a time, outside of a trace
MAX_KEPT, MAX_EVENTS = 10**6, 2**31 - 2  # where no `max_steps` is given


@dataclass(frozen=True)
class JumpPlan:
    """All that a compiled path depends on, besides arrays."""

    parts: Split
    """the jumps, and args"""
    ravel: Ravel
    method: Any
    keep: Keep
    dense: bool
    room: int
    """rows for events, if any are kept"""
    reached: Any
    plain: bool

    @property
    def every(self) -> int:
        return 1 if self.dense else int(self.keep.steps)


class JumpArrays(NamedTuple):
    """What a new value of does not need a new program."""

    parts: list
    x0: list
    t0: Any
    t1: Any
    ts: Any
    words: Any
    max_steps: Any


def solve_jumps(problem: JumpProblem, options: Options) -> Solution:
    """One path. It has no derivative, as its law depends on the rates: asked for one, it raises, and names what has."""
    plan, arrays = prepare(problem, options)
    solution = errors.out_of_user_code(_solved, plan, arrays)
    if options.throw and errors.all_concrete(solution.result):
        _raise_if_failed(plan, arrays, solution)
    return solution


def prepare(problem: JumpProblem, options: Options) -> tuple[JumpPlan, JumpArrays]:
    _serves(options)
    base = problem.base
    x0, t0, t1 = begun(base.x0, base.tspan, base.args)
    errors.state(x0)
    ravel = Ravel.of(x0)
    if jnp.issubdtype(ravel.dtype, jnp.complexfloating):
        raise TypeError(f"x0 of a DiscreteProblem must be real, but is {ravel.dtype}.")
    dtype = time_dtype(ravel.dtype, (t0, t1))
    forwards(t0, t1)
    clock.resolved(t0, t1, dtype)
    t0, t1 = (as_array(t, dtype) for t in (t0, t1))
    saveat = normalise(options.saveat)
    if saveat.events:
        raise ValueError("SaveAt(events=True) is of the events of `solve`. Every jump is SaveAt(steps=True).")
    keep, ts = times(saveat, t0, t1, dtype)
    method = _method(options.method, problem)
    parts, leaves = split((problem.jumps, base.args), real_dtype(ravel.dtype))
    if not hashable(parts.static):
        errors.static((problem.jumps, base.args), "args")
    most = options.max_steps
    if most is None:  # a bound where there is a row for each
        most = MAX_KEPT if keep.steps or options.dense else MAX_EVENTS
    errors.positive_integer(most, "max_steps")
    state = [as_array(x, d) for x, d in zip(jax.tree.leaves(x0), ravel.dtypes, strict=True)]
    if not errors.all_concrete((t0, t1)):
        state = [jnp.where(jnp.asarray(t0 <= t1), x, jnp.nan) for x in state]  # jumps go forwards in time
    found = reached((*parts.static, keep.fn))
    plan = JumpPlan(parts, ravel, method, keep, options.dense, most, found, plain_path())
    noise_errors.key_data(problem.key)
    words = words_of(problem.key)
    return plan, JumpArrays(leaves, state, t0, t1, ts, words, as_array(most, np.int32))


def _serves(options: Options) -> None:
    for name in ("controller", "first_step", "regularisers", "events", "history_steps", "watch"):
        given = getattr(options, name)
        if given is not None and given != ():
            name = "progress" if name == "watch" else name
            raise TypeError(f"`{name}` does not serve a JumpProblem over a DiscreteProblem: there are no steps.")
    if np.size(options.stops):
        raise TypeError("`stops` does not serve a JumpProblem over a DiscreteProblem: there are no steps.")
    estimators.refuse(options.gradient, estimators.ONE_PATH, estimators.RATES)
    if type(options.gradient) is not ReverseAD:
        errors.unsupported(
            f"{options.gradient!r} does not serve a path of a DiscreteProblem. Gradients of expectations are those of "
            f"`expectation(loss, problem, gradient=…)`."
        )


def _method(given: Any, problem: JumpProblem) -> Any:
    mass = all(isinstance(jump, MassActionJumps) for jump in problem.jumps)
    if given is None:
        return chosen(problem)
    if isinstance(given, type) or not hasattr(given, "exact"):
        cure = habits.replacement(given, habits.METHODS, METHODS) or errors.call_it(given)
        raise TypeError(
            f"A JumpProblem over a DiscreteProblem is solved by {', '.join(f'{name}()' for name in METHODS)}, but "
            f"`method` is {given!r}.{cure}"
        )
    if isinstance(given, RSSA) and not mass:
        raise TypeError("RSSA() serves MassActionJumps, whose propensities it can bound. Take SSA() or NextReaction().")
    return given


def chosen(problem: JumpProblem) -> Any:
    """The exact method for those who name none: on 30 reactions the direct method is the faster one, on 300 the other.

    See `benchmarks/jumps.py`.
    """
    jumps = problem.jumps
    tabled = len(jumps) == 1 and isinstance(jumps[0], MassActionJumps)
    return NextReaction() if tabled and len(jumps[0].reactants.rows) > MANY else SSA()


@recommended.register
def _(problem: JumpProblem, rtol: Any) -> Recommendation:
    if not problem.is_discrete:
        return recommended(problem.base, rtol)
    many = "many reactions in a table: the times of those that an event changes are drawn again"
    method = chosen(problem)
    return Recommendation(
        method, many if isinstance(method, NextReaction) else "exact, and the fastest for few reactions"
    )


@functools.partial(jax.jit, static_argnums=0)
def _whole(plan: JumpPlan, arrays: JumpArrays) -> Solution:
    walk = walked(plan, arrays, plan.room)
    return assembled(plan, arrays, walk)


def _solved(plan: JumpPlan, arrays: JumpArrays) -> Solution:
    if not plan.every:
        return _whole(plan, arrays)
    if errors.all_concrete(arrays):
        return _in_chunks(plan, arrays)
    row = plan.ravel.size * jnp.dtype(plan.ravel.dtype).itemsize
    errors.buffer_size(plan.room, row, plan.room)
    return _whole(plan, arrays)


def walked(plan: JumpPlan, arrays: JumpArrays, room: int, walk: Walk | None = None) -> Walk:
    """A path to its end, or until the room for events is full."""

    def lane(alone: bool, arrays: JumpArrays, walk: Walk | None) -> Walk:
        walker, t0, x0 = walker_of(plan, arrays, room)
        walker = walker._replace(alone=alone)
        return walker.run(walker.begin(t0, x0) if walk is None else walk, jnp.asarray(arrays.t1))

    return in_lanes(lane, arrays, walk)


def in_lanes(fun: Callable, *operands: Any, message: str | None = None) -> PyTree:
    """`fun(alone, *operands)`, under `vmap` lane by lane, without a derivative; it may close over tracers."""
    alone, consts = close(functools.partial(fun, True), *operands)
    together, others = close(functools.partial(fun, False), *operands)

    def lane(is_alone: bool, consts: tuple, *operands: Any) -> PyTree:
        return alone(consts[0], *operands) if is_alone else together(consts[1], *operands)

    return refusing(message or NO_PATHWISE, functools.partial(one_by_one, lane), (consts, others), *operands)


def walker_of(plan: JumpPlan, arrays: JumpArrays, room: int) -> tuple[Walker, jax.Array, jax.Array]:
    """Its path begins at t₀, x₀."""
    jumps, args = plan.parts.join(arrays.parts)
    x0 = plan.ravel.pack(jax.tree.unflatten(plan.ravel.tree, arrays.x0))
    channels = channels_of(jumps, plan.ravel.unpack, plan.ravel.pack, args, x0)
    direction = jnp.ones((), arrays.t0.dtype)
    ts, _ = sorted_times((plan.keep,), jnp.asarray(arrays.ts), direction)
    walker = Walker(plan.method, channels, arrays.words, ts, jnp.asarray(arrays.max_steps), plan.every, room)
    return walker, jnp.asarray(arrays.t0), x0


NO_PATHWISE = (
    "the path of a jump process is a step function of what its law depends on: its derivative is zero or undefined, "
    "and no derivative of an expectation. Take jaxdiffeq.expectation(loss, problem, gradient=ScoreFunction()), or "
    "CoupledFiniteDifferences() or SmoothedPerturbation() in its place; or jax.lax.stop_gradient, if none is wanted."
)


# ---- solutions


def _in_chunks(plan: JumpPlan, arrays: JumpArrays) -> Solution:
    """As many rows as there are events, and a solve that can be interrupted."""
    walk, pieces = None, []
    while True:
        walk = _chunk(plan, min(CHUNK, plan.room), arrays, walk)
        count = int(walk.length)
        pieces.append([np.asarray(x)[:count] for x in walk.kept])
        if int(walk.result) != Result.running:
            break
        walk = walk._replace(length=jnp.zeros_like(walk.length))
    kept = [jnp.asarray(np.concatenate(xs)) for xs in zip(*pieces, strict=True)]
    total = jnp.asarray(len(kept[0]), jnp.int32)
    return assembled(plan, arrays, walk._replace(kept=tuple(kept), length=total), bare=True)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _chunk(plan: JumpPlan, room: int, arrays: JumpArrays, walk: Walk | None) -> Walk:
    return walked(plan, arrays, room, walk)


def assembled(plan: JumpPlan, arrays: JumpArrays, walk: Walk, bare: bool = False) -> Solution:
    """`bare`: the rows of `kept` are those that are real, without a spare one."""
    keep, good = plan.keep, walk.result == Result.success
    jumps, args = plan.parts.join(arrays.parts)
    t0, t1 = jnp.asarray(arrays.t0), jnp.asarray(arrays.t1)
    kept: Any = ()
    x0 = plan.ravel.pack(jax.tree.unflatten(plan.ravel.tree, arrays.x0))
    ts, (back,) = sorted_times((keep,), jnp.asarray(arrays.ts), jnp.ones((), t0.dtype))
    pieces: list[Any] = []
    if keep.t0 and not keep.steps:
        pieces.append((t0[None], x0[None], jnp.ones(1, bool)))
    if len(ts):
        real = jnp.arange(len(ts), dtype=jnp.int32) < walk.saved
        timed = ts, walk.rows[:-1], real
        pieces.append(timed if back is None else jax.tree.map(lambda x: x[back], timed))
    if plan.every:
        kept = walk.kept if bare else jax.tree.map(lambda x: x[:-1], walk.kept)
        if keep.steps:
            pieces.append(_padded(keep, kept, walk, (t0, x0), good))
    if keep.t1:
        pieces.append((t1[None], walk.x[None], good[None]))
    if not pieces:
        pieces.append((t0[None][:0], x0[None][:0], jnp.ones(0, bool)))
    ts, xs, real = pieces[0] if len(pieces) == 1 else map(jnp.concatenate, zip(*pieces, strict=True))
    nan = lambda x: jnp.where(real.reshape(-1, *[1] * (x.ndim - 1)) | good, x, jnp.nan)
    ys = plan.ravel.unpack_rows(nan(xs))
    if keep.fn is not None:
        fn = keep.fn
        one = lambda t, x: jax.tree.map(jnp.asarray, errors.call(fn, t, plan.ravel.unpack(x), args))
        ys = jax.vmap(one)(ts, nan(xs))
    zero = jnp.zeros((), jnp.int32)
    evals = walk.tried * np.int32(plan.method.evaluations(_count(jumps)))
    stats = Stats(walk.tried, walk.events, walk.refused, zero, evals, events=walk.events)
    return Solution(
        ts=ts,
        ys=ys,
        real=real.astype(np.int32),
        stats=stats,
        result=walk.result,
        t_end=walk.t,
        y_end=plan.ravel.unpack(walk.x),
        next_step=jnp.full_like(t0, jnp.nan),
        interpolant=_interpolant(plan, kept, walk, (t0, x0, t1)) if plan.dense else None,
    )


def _count(jumps: Any) -> int:
    """How many channels there are."""
    return sum(len(j.reactants.rows) if isinstance(j, MassActionJumps) else 1 for j in jumps)


def _padded(keep: Keep, kept: Any, walk: Walk, start: tuple, good: Any) -> tuple:
    """Rows of events; after the last one it is repeated, as the state does not change any more."""
    (ts, xs), count = kept, walk.length
    if keep.t0:
        ts, xs, count = jnp.concatenate([start[0][None], ts]), jnp.concatenate([start[1][None], xs]), count + 1
    numbers = jnp.arange(len(ts), dtype=jnp.int32)
    real = numbers < count
    if len(ts):
        row = jnp.clip(numbers, 0, jnp.maximum(count - 1, 0))
        ts, xs = ts[row], xs[row]
    return ts, xs, real


def _interpolant(plan: JumpPlan, kept: Any, walk: Walk, ends: tuple) -> Interpolant:
    """The path as polynomials of degree zero."""
    (ts, xs), (t0, x0, _) = kept, ends
    numbers = jnp.arange(len(ts), dtype=jnp.int32)
    real = numbers < walk.length
    times = jnp.concatenate([t0[None], jnp.where(real, ts, walk.t), walk.t[None]])
    states = jnp.concatenate([x0[None], xs])
    return Interpolant(times, states[:, None], walk.x, walk.length + 1, plan.ravel, jumps=True)


def _raise_if_failed(plan: JumpPlan, arrays: JumpArrays, solution: Solution) -> None:
    if np.ndim(solution.result) == 0 and int(solution.result) != Result.success:
        result = Result(int(solution.result))
        cure = "Give a larger `max_steps`, or leap: TauLeaping()."
        if result == Result.nonfinite:
            cure = worst_rate(_rates_at_end(plan, arrays, solution), _names(plan.parts.join(arrays.parts)[0]))
        raise errors.BY_RESULT[result](
            f"the path stopped with {result.name} at t = {float(solution.t_end):.6g}, after "
            f"{int(solution.stats.events)} jumps. {cure} `throw=False` returns what there is with the result code.",
            solution,
        )


def _rates_at_end(plan: JumpPlan, arrays: JumpArrays, solution: Solution) -> jax.Array:
    walker, _, _ = walker_of(plan, arrays, plan.room)
    return walker.channels.all(jnp.asarray(solution.t_end), plan.ravel.pack(solution.y_end))


def _names(jumps: Any) -> list[str]:
    """Of each channel, for a message."""
    found = []
    for number, jump in enumerate(jumps):
        of = f"jump {number}"
        rows = len(jump.reactants.rows) if isinstance(jump, MassActionJumps) else 0
        found += [f"reaction {r} of {of}" if len(jumps) > 1 else f"reaction {r}" for r in range(rows)] or [of]
    return found
