"""A while loop that stays cheap under `vmap` and knows what is constant to differentiation.

`lax.while_loop` under `vmap` selects, lane by lane and on every trip, between the old and the new value of the whole
carry, buffers included, and its derivative carries a tangent for whatever might have one. The loops of this library
leave a finished lane alone by themselves, and step sizes are constants to differentiation, so both costs can go.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiffeq.primitives.cpu_kernel import becomes_one, holds_loops, lowered, nest
from jaxdiffeq.primitives.dataflow import RULES, axes, dependencies, hits, lanes_first, put, reached, widen
from jaxdiffeq.primitives.jax_internals import (
    ClosedJaxpr,
    Zero,
    bind_while,
    consts_first,
    define,
    has_effects,
    instantiate_zeros,
    is_common,
    is_live,
    jaxpr_as_fun,
    over_lanes,
    plain_path,
    symbolic_zero,
)
from jaxdiffeq.primitives.varying_axes import axes_of, vary


def frozen_while(cond: Callable, body: Callable, carry: Any, fixed: Any) -> tuple[Any, Any]:
    """Repeat `carry, fixed = body(carry, fixed)` while `cond(carry, fixed)`.

    Where `cond` is false `body` must change nothing: under `vmap` it goes on for as long as any lane wants to.
    `fixed` is constant to differentiation, whatever `body` computes for it. Forward mode only.
    A `jax.ShapeDtypeStruct` in place of an array is a buffer that starts uninitialised, in every lane: filling one
    of `max_steps` rows would cost more than many a solve.
    """
    flat, tree = jax.tree.flatten((carry, fixed))
    flat = [x if isinstance(x, jax.ShapeDtypeStruct) else jnp.asarray(x) for x in flat]
    step = trace_trip(lambda *xs: jax.tree.leaves(body(*tree.unflatten(xs))), flat, tree)
    flat = [
        x if isinstance(x, jax.ShapeDtypeStruct) else vary(x, axes_of(a))
        for x, a in zip(flat, step.in_avals, strict=True)
    ]
    test = jax.make_jaxpr(lambda *xs: cond(*tree.unflatten(xs)))(*step.in_avals)
    operands = *test.consts, *step.consts, *(x for x in flat if not isinstance(x, jax.ShapeDtypeStruct))
    how = {
        "cond": consts_first(test),
        "body": consts_first(step),
        "consts": (len(test.consts), len(step.consts)),
        "empty": tuple((i, x.shape, x.dtype) for i, x in enumerate(flat) if isinstance(x, jax.ShapeDtypeStruct)),
        "moving": len(jax.tree.leaves(carry)),
        "inside": None,
    }
    ours = not plain_path() and is_common(*step.in_avals) and not has_effects(test, step)
    return tree.unflatten((frozen_while_p.bind if ours else _plain)(*operands, **how))


def trace_trip(trip: Callable, flat: Sequence[Any], tree: Any, rows: Sequence[Any] = ()) -> ClosedJaxpr:
    """The program of one trip, whose carry goes in varying over the mesh axes over which it comes out.

    `trip(*carry, *rows)` hands out the carry first; `tree` is what a message shows of it.
    """
    while True:
        step = jax.make_jaxpr(trip)(*flat, *rows)
        after = step.out_avals[: len(flat)]
        _check_carry(after, flat, tree)
        if all(axes_of(out) <= axes_of(x) for x, out in zip(flat, after, strict=True)):
            return step
        flat = [vary(x, axes_of(out)) for x, out in zip(flat, after, strict=True)]


def _check_carry(outs: Sequence[Any], flat: Sequence[Any], tree: Any) -> None:
    before = [(x.shape, x.dtype) for x in flat]
    after = [(x.shape, x.dtype) for x in outs]
    assert before == after, f"the carry changes type: {tree.unflatten(before)} became {after}"


def _split(operands: Sequence[Any], consts: tuple[int, int], empty: Any = (), fill: Any = None) -> tuple:
    """The constants of the two programs, and the carry, with `fill` in the places of its empty buffers."""
    a, b = consts
    carry = list(operands[a + b :])
    for i, shape, dtype in empty:
        carry.insert(i, jax.ShapeDtypeStruct(shape, dtype) if fill is None else fill(shape, dtype))
    return list(operands[:a]), list(operands[a : a + b]), carry


def _started(operands: Sequence[Any], body: ClosedJaxpr, consts: tuple[int, int], empty: Any) -> tuple:
    of_cond, of_body, carry = _split(operands, consts, empty, lax.empty)
    return of_cond, of_body, [vary(x, axes_of(like)) for x, like in zip(carry, body.out_avals, strict=True)]


def _run(*operands, cond, body, consts, empty, moving, inside):
    return bind_while(cond, body, *_started(operands, body, consts, empty))


def _plain(*operands, cond, body, consts, empty, moving, inside):
    """The same by `lax.while_loop`."""
    of_cond, of_body, carry = _started(operands, body, consts, empty)
    carry = [*carry[:moving], *lax.stop_gradient(carry[moving:])]

    def test(carry):
        return jaxpr_as_fun(cond)(*of_cond, *carry)[0]

    def trip(carry):
        out = jaxpr_as_fun(body)(*of_body, *carry)
        return [*out[:moving], *lax.stop_gradient(out[moving:])]

    return lax.while_loop(test, trip, carry)


def _jvp(primals, tangents, *, cond, body, **params):
    consts, empty, moving = params["consts"], params["empty"], params["moving"]
    of_cond, of_body, carry = _split(primals, consts, empty)
    _, d_of_body, d_carry = _split(tangents, consts, empty)
    live = [i for i, d in enumerate(d_of_body) if is_live(d, of_body[i])]
    real = [i for i in range(moving) if jnp.issubdtype(carry[i].dtype, jnp.inexact)]
    if not live and all(isinstance(d_carry[i], Zero | jax.ShapeDtypeStruct) for i in real):
        out = frozen_while_p.bind(*primals, cond=cond, body=body, **params)
        return out, [symbolic_zero(x) for x in out]

    def derivative(c, f):
        (xs, dxs), fixed = c, f

        def of_live(some_consts, some_carry):
            full = put(of_body, live, some_consts)
            return jaxpr_as_fun(body)(*full, *put(xs, real, some_carry), *fixed)

        at = [of_body[i] for i in live], [xs[i] for i in real]
        out, d_out = jax.jvp(of_live, at, ([d_of_body[i] for i in live], dxs))
        return (out[:moving], [d_out[i] for i in real]), out[moving:]

    def test(c, f):
        return jaxpr_as_fun(cond)(*of_cond, *c[0], *f)[0]

    carry = [vary(x, axes_of(a)) for x, a in zip(carry, body.out_avals, strict=True)]
    full = lambda d: d if isinstance(d, jax.ShapeDtypeStruct) else instantiate_zeros(d)
    start = carry[:moving], [vary(full(d_carry[i]), axes_of(body.out_avals[i])) for i in real]
    (out, d_out), fixed = frozen_while(test, derivative, start, carry[moving:])
    everything = [*out, *fixed]
    zeros = [symbolic_zero(x) for x in everything]
    return everything, put(zeros, real, d_out)


def _batch(lanes, operands, dims, *, cond, body, consts, empty, moving, inside):
    of_cond, of_body, carry = _split(lanes_first(operands, dims), consts, empty)
    m_cond, m_body, given = _split([d is not None for d in dims], consts, empty, lambda *_: False)

    _, m_carry = reached(body, (len(m_body), len(given)), [*m_body, *given])
    carry = [x if had == has else widen(x, lanes.size) for x, had, has in zip(carry, given, m_carry, strict=True)]

    step = over_lanes(jaxpr_as_fun(body), axes([*m_body, *m_carry]), axes(m_carry), lanes)
    (together,) = hits(dependencies(cond.jaxpr), [*m_cond, *m_carry])
    test = over_lanes(jaxpr_as_fun(cond), axes([*m_cond, *m_carry]), 0, lanes) if together else None

    def any_lane(c, f):
        if test is None:
            return jaxpr_as_fun(cond)(*of_cond, *c, *f)[0]
        return jnp.any(test(*of_cond, *c, *f)[0])

    def every_lane(c, f):
        out = step(*of_body, *c, *f)
        return out[:moving], out[moving:]

    moved, fixed = frozen_while(any_lane, every_lane, carry[:moving], carry[moving:])
    return [*moved, *fixed], axes(m_carry)


def _dependencies(eqn: Any) -> list[frozenset[int]]:
    cond, body, (a, b), empty = (eqn.params[name] for name in ("cond", "body", "consts", "empty"))
    steer = dependencies(cond.jaxpr)[0]
    touched = [frozenset(i + a for i in d) for d in dependencies(body.jaxpr)]
    places = iter(range(a + b, a + b + len(touched) - len(empty)))
    hollow = {i for i, _, _ in empty}
    reach = [frozenset() if k in hollow else frozenset([next(places)]) for k in range(len(touched))]

    def through(inputs, reach):
        return frozenset().union(*(reach[i - a - b] if i >= a + b else {i} for i in inputs))

    before = None
    while reach != before:
        before = reach
        tests = through(frozenset(i if i < a else i + b for i in steer), before)
        reach = [r | through(d, before) | tests for r, d in zip(before, touched, strict=True)]
    return reach


def _lower_on_cpu(ctx, *operands, body, cond, inside, **params):
    one = becomes_one(ctx, inside, body, cond)
    inner = nest(body, "kernel" if one or inside == "kernel" else "loop")
    run = functools.partial(_run, body=inner, cond=cond, inside=inside, **params)
    return lowered(ctx, run, operands, one)


def no_reverse(*_, **__):
    raise NotImplementedError(
        "reverse-mode differentiation reached the inside of a solve. Take second derivatives with forward mode on the "
        "outside: jax.hessian, or jax.jacfwd(jax.grad(...))."
    )


frozen_while_p = define(
    "frozen_while",
    _plain,
    abstract=lambda *_, body, **__: body.out_avals,
    jvp=_jvp,
    batch=_batch,
    transpose=no_reverse,
    run=_run,
    on_cpu=_lower_on_cpu,
    programs=("cond", "body"),
)
RULES["frozen_while"] = _dependencies
holds_loops("frozen_while")
