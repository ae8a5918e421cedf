"""Expectations over the paths of a jump process, with derivatives of them: what a number of paths is trained with."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdiffeq import errors
from jaxdiffeq.events import listed
from jaxdiffeq.frontend.options import Options
from jaxdiffeq.gradients import estimators
from jaxdiffeq.gradients.estimators import CoupledFiniteDifferences, ScoreFunction, SmoothedPerturbation
from jaxdiffeq.habits import OURS
from jaxdiffeq.jumps.blocks import at, search
from jaxdiffeq.jumps.channels import Channels, channels_of
from jaxdiffeq.jumps.counters import Draw, words_of
from jaxdiffeq.jumps.definitions import JumpProblem, with_fields
from jaxdiffeq.jumps.exact import SSA, NextReaction
from jaxdiffeq.jumps.hybrid import lifted
from jaxdiffeq.jumps.pairs import Pair
from jaxdiffeq.jumps.refusals import refusing
from jaxdiffeq.jumps.solve import JumpArrays, JumpPlan, assembled, in_lanes, prepare, walker_of
from jaxdiffeq.jumps.walk import Walk, Walker
from jaxdiffeq.primitives.dataflow import dependencies, put
from jaxdiffeq.problems.definitions import terms_of
from jaxdiffeq.problems.ravel import close, common_dtype
from jaxdiffeq.solution import Solution
from jaxdiffeq.solve import MAX_STEPS, solve_terms
from jaxdiffeq.types import PyTree, Result

AT_ONCE = 32  # stream of the time and the reaction that a smoothed perturbation adds
DEFAULTS = {
    "method": None,
    "saveat": None,
    "dense": False,
    "rtol": 1e-3,
    "atol": 1e-6,
    "first_step": None,
    "controller": None,
    "max_steps": None,
    "stops": (),
    "throw": False,
    "max_events": 100,
    "events": (),
}


def expectation(
    loss: Callable[[Solution], PyTree],
    problem: Any,
    method: Any = None,
    *,
    paths: int = 1000,
    gradient: Any = ScoreFunction(),
    **given: Any,
) -> PyTree:
    """The mean of `loss(solution)` over so many paths, with the derivative of its expectation.

    That is no derivative of paths, which jump: `gradient` says how it is estimated, and what is not unbiased says so in
    its description. `loss` is a function of one path ↦ numbers, so that (x, x²) gives the standard error.
    `given`: options of `solve`, and fields of the problem: `expectation(loss, problem, args=p, saveat=ts)`. The key of
    the problem is split into those of the paths: the same key gives the same paths, whatever is differentiated.
    Errors: `TypeError` for a strategy that does not serve; see the table in `docs/jumps.md`.
    """
    errors.positive_integer(paths, "paths")
    estimators.check(gradient)
    if not isinstance(problem, JumpProblem):
        raise TypeError(
            f"`expectation(loss, problem)` takes a JumpProblem, but got {type(problem).__name__}. Paths of an equation "
            "have derivatives themselves: write jnp.mean(jax.vmap(lambda key: loss(solve(problem, key=key)))(keys))."
        )
    options = {name: value for name, value in given.items() if name in OURS}
    fields = {name: value for name, value in given.items() if name not in OURS}
    problem = with_fields(problem, fields, OURS) if fields else problem
    asked = _options(method, problem.is_discrete, options)
    if not problem.is_discrete:
        estimators.refuse(gradient, *estimators.OVER)
        return _once(gradient, _over_an_equation(loss, problem, asked, paths, gradient))
    estimators.refuse(gradient, estimators.RATES)
    of = {ScoreFunction: _by_score, CoupledFiniteDifferences: _by_differences, SmoothedPerturbation: _by_hazard}
    return _once(gradient, of[type(gradient)](loss, problem, asked, paths, gradient))


def _once(gradient: Any, values: PyTree) -> PyTree:
    """The values, of which a first derivative can be taken; a second one raises, if the estimator has none."""
    if estimators.cell(type(gradient), estimators.SECOND) != "no":
        return values

    @jax.custom_jvp
    def once(x: jax.Array) -> jax.Array:
        return x

    @once.defjvp
    def _(primals: Any, tangents: Any) -> tuple:
        (x,), (d,) = primals, tangents
        return x, d * refusing(estimators.refusal(type(gradient), estimators.SECOND), jnp.ones_like, x)

    return jax.tree.map(lambda x: once(x) if jnp.issubdtype(x.dtype, jnp.inexact) else x, values)


def _options(method: Any, discrete: bool, given: dict[str, Any]) -> Options:
    unknown = set(given) - set(DEFAULTS)
    if unknown:
        raise TypeError(f"`expectation` has no option {sorted(unknown)[0]!r}.")
    options = DEFAULTS | given
    options["method"] = method if method is not None else options["method"]
    options["max_steps"] = MAX_STEPS if options["max_steps"] is None and not discrete else options["max_steps"]
    options["events"] = listed(options["events"])
    return Options(**options)


def _mean(values: PyTree) -> PyTree:
    return jax.tree.map(lambda x: jnp.mean(x, 0), values)


def _scored_mean(values: PyTree, log_p: jax.Array, baseline: Any) -> PyTree:
    """Of L, with the derivative of L + (L − b)·log p. Shapes: values [paths, …], log_p [paths]."""
    zero = log_p - lax.stop_gradient(log_p)

    def of(x: jax.Array) -> jax.Array:
        x = jnp.asarray(x)
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            return jnp.mean(x, 0)
        known, n = lax.stop_gradient(x), len(x)
        if isinstance(baseline, str):
            others = (known.sum(0)[None] - known) / max(n - 1, 1)
            known = known - others if n > 1 else known
        elif baseline is not None:
            known = known - baseline
        return jnp.mean(x + known * zero.reshape(-1, *[1] * (x.ndim - 1)).astype(x.dtype), 0)

    return jax.tree.map(of, values)


# ---- over an equation


def _over_an_equation(loss: Callable, problem: JumpProblem, asked: Options, paths: int, gradient: Any) -> PyTree:
    keys = jax.random.split(problem.key, paths)
    scored = isinstance(gradient, ScoreFunction)
    strategy = gradient.strategy if scored else gradient

    def one(key: Any) -> tuple:
        with_key = problem.replace(key=key)
        base, options, lower = lifted(with_key, _with(asked, gradient=strategy), scored)
        solution = lower(solve_terms(terms_of(base), asked.method, asked.controller, options))
        score = solution.y_end.score if scored else jnp.zeros(())
        if scored:
            solution = _with(solution, y_end=solution.y_end.y)
        return loss(solution), score

    values, log_p = jax.vmap(one)(keys)
    return _scored_mean(values, log_p, gradient.baseline) if scored else _mean(values)


def _with(x: Any, **changes: Any) -> Any:
    return type(x)(**{**{name: getattr(x, name) for name in x.__dataclass_fields__}, **changes})


# ---- over what stands still


def _prepared(
    problem: JumpProblem, asked: Options, paths: int, gradient: Any
) -> tuple[JumpPlan, JumpArrays, jax.Array]:
    plan, arrays = prepare(problem, asked)
    if not plan.method.exact:
        estimators.refuse(gradient, estimators.LEAPS)
    words = jax.vmap(words_of)(jax.random.split(problem.key, paths))
    return plan, arrays, words


def _numbers(arrays: JumpArrays) -> list[int]:
    """Which of the parts may be differentiated."""
    return [i for i, x in enumerate(arrays.parts) if jnp.issubdtype(jnp.result_type(x), jnp.inexact)]


def _flat(numbers: list) -> jax.Array:
    """All of them, one after the other."""
    dtype = common_dtype(tuple(x.dtype for x in numbers))
    return jnp.concatenate([x.reshape(-1).astype(dtype) for x in numbers])


def _parts(flat: jax.Array, like: list) -> list:
    """The way back."""
    ends = np.cumsum([x.size for x in like])
    pieces = jnp.split(flat, ends[:-1])
    return [piece.reshape(x.shape).astype(x.dtype) for piece, x in zip(pieces, like, strict=True)]


def _channels(plan: JumpPlan, parts: list, x: jax.Array) -> Channels:
    jumps, args = plan.parts.join(parts)
    return channels_of(jumps, plan.ravel.unpack, plan.ravel.pack, args, x)


def _in_affects(plan: JumpPlan, arrays: JumpArrays) -> set[int]:
    """The parts on which the state after a jump depends, for which it is not enough to know how likely jumps are."""
    x = plan.ravel.pack(jax.tree.unflatten(plan.ravel.tree, arrays.x0))

    def after(parts: list, x: jax.Array, r: jax.Array) -> jax.Array:
        draw = Draw(jnp.zeros(2, jnp.uint32), jnp.zeros((), jnp.uint32))
        return _channels(plan, parts, x).fire(r, jnp.asarray(arrays.t0), x, draw, jnp.ones((), bool))

    parts = [jnp.asarray(p) for p in arrays.parts]
    program, consts = close(after, parts, x, jnp.zeros((), jnp.int32))
    touched = dependencies(program.jaxpr)[0]
    return {i - len(consts) for i in touched if len(consts) <= i < len(consts) + len(parts)}


def _still(plan: JumpPlan, arrays: JumpArrays) -> JumpArrays:
    """Without derivatives of rates; what else is differentiated raises."""
    moves = _in_affects(plan, arrays)
    still = [x if i in moves else lax.stop_gradient(x) for i, x in enumerate(arrays.parts)]
    return arrays._replace(parts=still)


def _score(plan: JumpPlan, arrays: JumpArrays) -> tuple[Callable, list]:
    """The gradient of log aᵣ − dt·∑a with respect to the parts, and zeros like it."""
    active = _numbers(arrays)
    at_first = [jnp.asarray(arrays.parts[i]) for i in active]

    def log_p(numbers: list, t: Any, x: Any, dt: Any, r: Any, go: Any) -> jax.Array:
        a = _channels(plan, put(arrays.parts, active, numbers), x).all(t, x)
        mine = jnp.where(go, at(a, jnp.minimum(r, np.int32(len(a) - 1))), 1)
        return jnp.where(go, jnp.log(mine), 0) - dt.astype(a.dtype) * a.sum()

    def score(t: Any, x: Any, dt: Any, r: Any, go: Any) -> list:
        return jax.grad(log_p)(at_first, t, x, dt, r, go)

    return score, [jnp.zeros_like(x) for x in at_first]


def _by_score(loss: Callable, problem: JumpProblem, asked: Options, paths: int, gradient: ScoreFunction) -> PyTree:
    plan, arrays, words = _prepared(problem, asked, paths, gradient)
    still, moved = _still(plan, arrays), estimators.refusal(ScoreFunction, estimators.AFFECTS)
    _bounded(plan)

    def lane(alone: bool, arrays: JumpArrays) -> Walk:
        walker, t0, x0 = walker_of(plan, arrays, plan.room)
        score, zeros = _score(plan, arrays)
        walker = walker._replace(alone=alone, scored=score)
        return walker.run(walker.begin(t0, x0, zeros), jnp.asarray(arrays.t1))

    def one(words: jax.Array) -> tuple:
        walk = in_lanes(lane, still._replace(words=words), message=moved)
        solution = assembled(plan, arrays, walk._replace(score=()))
        numbers = [jnp.asarray(arrays.parts[i]) for i in _numbers(arrays)]
        log_p = sum((jnp.sum(s * x) for s, x in zip(walk.score, numbers, strict=True)), jnp.zeros((), walk.x.dtype))
        return loss(solution), log_p

    values, log_p = jax.vmap(one)(words)
    return _scored_mean(values, log_p, gradient.baseline)


def _bounded(plan: JumpPlan) -> None:
    if plan.every:
        raise ValueError(
            "`expectation` keeps a known number of rows for each path. Give times in `saveat`, or SaveAt(t1=True)."
        )


def _by_differences(
    loss: Callable, problem: JumpProblem, asked: Options, paths: int, gradient: CoupledFiniteDifferences
) -> PyTree:
    together = gradient.coupling == "split"
    if not together and asked.method is None:
        asked = _with(asked, method=NextReaction())
    if not together and not isinstance(asked.method, NextReaction):
        errors.unsupported('coupling="common path" is that of NextReaction(), which has a clock for each reaction.')

    def derivative(plan: JumpPlan, arrays: JumpArrays, words: jax.Array, of_loss: Callable) -> PyTree:
        active = _numbers(arrays)
        numbers = [jnp.asarray(arrays.parts[i]) for i in active]
        flat = _flat(numbers)
        size = jnp.where(flat == 0, 1, jnp.abs(flat)) * gradient.step

        def along(j: jax.Array) -> PyTree:
            h = jnp.where(jnp.arange(len(flat), dtype=jnp.int32) == j, size, 0)
            ends = [
                arrays._replace(parts=put(arrays.parts, active, _parts(flat + way * h, numbers))) for way in (1, -1)
            ]

            difference = functools.partial(_difference, plan, ends, together, of_loss)
            found = _mean(jax.vmap(difference)(words))
            return jax.tree.map(lambda d: d / (2 * at(size, j)).astype(d.dtype), found)

        columns = lax.map(along, jnp.arange(len(flat), dtype=jnp.int32))
        return columns

    return _corrected(loss, problem, asked, paths, gradient, derivative)


def _difference(plan: JumpPlan, ends: list, together: bool, of_loss: Callable, words: jax.Array) -> PyTree:
    """Of the losses of two paths."""
    pair = _paired(plan, ends[0], ends[1], words) if together else [_single(plan, end, words) for end in ends]
    high, low = (of_loss(plan, end, walk) for end, walk in zip(ends, pair, strict=True))
    return jax.tree.map(jnp.subtract, high, low)


def _single(plan: JumpPlan, arrays: JumpArrays, words: jax.Array) -> Walk:
    def lane(alone: bool, arrays: JumpArrays) -> Walk:
        walker, t0, x0 = walker_of(plan, arrays, plan.room)
        walker = walker._replace(alone=alone)
        return walker.run(walker.begin(t0, x0), jnp.asarray(arrays.t1))

    return in_lanes(lane, arrays._replace(words=words))


def _two(walk: Walk) -> tuple[Walk, Walk]:
    """The paths of a pair."""
    first, second = (walk._replace(x=walk.x[i], rows=walk.rows[:, i]) for i in range(2))
    return first, second


def _pair_walker(plan: JumpPlan, arrays: JumpArrays, other: JumpArrays) -> tuple[Walker, jax.Array, jax.Array]:
    walker, t0, x0 = walker_of(plan, arrays, plan.room)
    second, _, _ = walker_of(plan, other, plan.room)
    walker = walker._replace(channels=Pair(walker.channels, second.channels), method=SSA())
    return walker, t0, jnp.stack([x0, x0])


def _paired(plan: JumpPlan, arrays: JumpArrays, other: JumpArrays, words: jax.Array) -> tuple[Walk, Walk]:
    def lane(alone: bool, arrays: JumpArrays, other: JumpArrays) -> Walk:
        walker, t0, both = _pair_walker(plan, arrays, other)
        walker = walker._replace(alone=alone)
        return walker.run(walker.begin(t0, both), jnp.asarray(arrays.t1))

    return _two(in_lanes(lane, arrays._replace(words=words), other._replace(words=words)))


def _by_hazard(loss: Callable, problem: JumpProblem, asked: Options, paths: int, gradient: Any) -> PyTree:
    def derivative(plan: JumpPlan, arrays: JumpArrays, words: jax.Array, of_loss: Callable) -> PyTree:
        active = _numbers(arrays)

        def one(words: jax.Array) -> PyTree:
            walk, weight = _perturbed(plan, arrays, words, active)
            without, with_it = (of_loss(plan, arrays, w) for w in _two(walk))
            flat = _flat(weight)

            def column(a: jax.Array, b: jax.Array) -> jax.Array:
                return flat.reshape(-1, *[1] * a.ndim).astype(a.dtype) * (a - b)[None]

            return jax.tree.map(column, with_it, without)

        return _mean(jax.vmap(one)(words))

    return _corrected(loss, problem, asked, paths, gradient, derivative)


def _perturbed(plan: JumpPlan, arrays: JumpArrays, words: jax.Array, active: list[int]) -> tuple[Walk, list]:
    """Two paths, of which the second has one jump more at a random time, and ∂aᵣ/∂θ over its probability."""

    def lane(alone: bool, arrays: JumpArrays) -> tuple[Walk, list]:
        walker, t0, both = _pair_walker(plan, arrays, arrays)
        walker, t1 = walker._replace(alone=alone), jnp.asarray(arrays.t1)
        numbers = [jnp.asarray(arrays.parts[i]) for i in active]
        draw = Draw(arrays.words, jnp.zeros((), jnp.uint32)).aside(np.uint32(AT_ONCE))
        u, v = draw.pair(0, both.dtype)
        then = t0 + u.astype(t0.dtype) * (t1 - t0)
        first = walker.run(walker.begin(t0, both), then)
        x = first.x[0]
        propensities = lambda numbers: _channels(plan, put(arrays.parts, active, numbers), x).all(then, x)
        a = propensities(numbers)
        slopes = jax.jacrev(propensities)(numbers)
        moves = sum((jnp.abs(s).reshape(len(a), -1).sum(1) for s in slopes), jnp.zeros_like(a)) > 0
        mine, some = jnp.where(moves, a, 0), jnp.where(moves, jnp.ones_like(a), 0)
        even = some / jnp.maximum(some.sum(), 1)
        chance = jnp.where(mine.sum() > 0, (mine / jnp.where(mine.sum() > 0, mine.sum(), 1) + even) / 2, even)
        r, _ = search(chance, v * chance.sum())
        jumps = jnp.any(moves) & (first.result == Result.success)
        channels = _channels(plan, arrays.parts, x)
        more = channels.fire(r, then, x, draw, jumps)
        second = first._replace(x=jnp.stack([x, more]), result=jnp.where(jumps, Result.running, first.result))
        second = second._replace(result=jnp.where(first.result == Result.success, Result.running, second.result))
        walk = walker.run(second._replace(result=second.result.astype(jnp.int32)), t1)
        factor = jnp.where(jumps, (t1 - t0).astype(a.dtype) / jnp.where(jumps, at(chance, r), 1), 0)
        return walk, [at(s, r) * factor for s in slopes]

    return in_lanes(lane, arrays._replace(words=words))


def _corrected(
    loss: Callable, problem: JumpProblem, asked: Options, paths: int, gradient: Any, derivative: Callable
) -> PyTree:
    """The mean, with what `derivative` finds, which is asked only if there is one to take.

    `derivative` gives columns like the loss, one for each number. Shapes: [numbers, …].
    """
    plan, arrays, words = _prepared(problem, asked, paths, gradient)
    _bounded(plan)
    still, active = _still(plan, arrays), _numbers(arrays)
    moved, twice = (estimators.refusal(type(gradient), what) for what in (estimators.AFFECTS, estimators.SECOND))

    def lane(alone: bool, arrays: JumpArrays) -> Walk:
        walker, t0, x0 = walker_of(plan, arrays, plan.room)
        walker = walker._replace(alone=alone)
        return walker.run(walker.begin(t0, x0), jnp.asarray(arrays.t1))

    def of_walk(arrays: JumpArrays, walk: Walk) -> PyTree:
        return jax.tree.map(jnp.asarray, loss(assembled(plan, arrays, walk)))

    walks = jax.vmap(lambda words: in_lanes(lane, still._replace(words=words), message=moved))(words)
    value = _mean(jax.vmap(functools.partial(of_walk, arrays))(walks))
    one_walk = jax.tree.map(lambda x: x[0], walks)
    program, consts = close(of_walk, lax.stop_gradient(arrays), one_walk)

    @jax.custom_jvp
    def nothing(numbers: list, rest: JumpArrays, words: jax.Array, consts: list) -> PyTree:
        return jax.tree.map(jnp.zeros_like, value_like)

    value_like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), value)

    @nothing.defjvp
    def _(primals: Any, tangents: Any) -> tuple:
        numbers, rest, words, consts = primals
        numbers = refusing(twice, lambda numbers: numbers, numbers)
        whole = rest._replace(parts=put(rest.parts, active, numbers))
        of_loss = lambda plan, arrays, walk: program(consts, arrays, walk)
        columns = derivative(plan, whole, words, of_loss)
        along = _flat(tangents[0])
        dot = lambda c: jnp.tensordot(along.astype(c.dtype), c, 1)
        return nothing(*primals), jax.tree.map(dot, columns)

    numbers = [jnp.asarray(arrays.parts[i]) for i in active]
    more = nothing(numbers, lax.stop_gradient(still), words, lax.stop_gradient(consts))
    return jax.tree.map(jnp.add, value, more)
