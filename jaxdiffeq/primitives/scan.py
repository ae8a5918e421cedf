"""A scan whose derivatives keep the rules of what it runs, and which a kernel rolls up.

`lax.scan`, when linearised for reverse mode, forgets every `custom_jvp` inside it: the first derivative is right, but
the second one goes through Newton's iterations, or whatever else the rule was to replace. Here a derivative is a second
scan, linear in the tangents, beside one that leaves for it what it needs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdiffeq.primitives.cpu_kernel import becomes_one, holds_loops, lowered, nest
from jaxdiffeq.primitives.dataflow import RULES, axes, dependencies, put, reached, widen
from jaxdiffeq.primitives.jax_internals import (
    ClosedJaxpr,
    aval_of,
    consts_first,
    define,
    has_effects,
    instantiate_zeros,
    is_common,
    is_live,
    is_undefined_primal,
    jaxpr_as_fun,
    only,
    over_lanes,
    plain_path,
    symbolic_zero,
)
from jaxdiffeq.primitives.row_buffer import read
from jaxdiffeq.primitives.varying_axes import axes_of, vary, zeros_of
from jaxdiffeq.primitives.while_loop import no_reverse, trace_trip
from jaxdiffeq.types import PyTree

APART = 100  # numbers in a row that are read in a branch, out of reach of XLA's fusion: see `gradients.reverse`


def scan(
    body: Callable,
    carry: PyTree,
    xs: PyTree,
    *,
    reverse: bool = False,
    written_out: bool = False,
    forward_only: bool = False,
) -> tuple[PyTree, PyTree]:
    """As `lax.scan`: repeat `carry, y = body(carry, x)` over the rows of `xs`, and stack the `y`.

    `reverse`: from the last row to the first, with the `y` in the order of the rows.
    `forward_only`: it has no transpose, and its derivative is one scan with it, as of a body with loops in it.
    `written_out`: one program a trip, as if there were no loop, except inside a kernel, where a loop costs nothing.
    """
    flat, tree = jax.tree.flatten(carry)
    rows, of_rows = jax.tree.flatten(xs)
    out_tree = None

    def trip(carry, row):
        nonlocal out_tree
        carry, y = body(tree.unflatten(carry), of_rows.unflatten(row))
        ys, out_tree = jax.tree.flatten(y)
        return tree.flatten_up_to(carry), ys

    how = {"length": rows[0].shape[0], "reverse": reverse, "written_out": written_out}
    how |= {"forward_only": forward_only, "inside": None}
    carry, ys = _scan(trip, [jnp.asarray(x) for x in flat], rows, how)
    assert out_tree is not None
    return tree.unflatten(carry), out_tree.unflatten(ys)


def counted(trip: Callable, carry: PyTree, first: jax.Array, way: int, n: int) -> PyTree:
    """`n` times carry = trip(carry, i), without a transpose, for i = `first`, then one more or, if `way` is −1, less.

    As a scan over these numbers, which would be all that takes memory for each trip.
    """

    def next_one(carry, _):
        moved, i = carry
        return (trip(moved, i), i + way), None

    return scan(next_one, (carry, first), jnp.zeros((n, 0), bool), forward_only=True)[0][0]


def _scan(trip: Callable, carry: list, xs: list, how: dict) -> tuple[list, list]:
    """The same of flat lists."""
    carry, closed = _trace(trip, carry, xs)
    return _bind(consts_first(closed), closed.consts, carry, xs, how)


def _trace(trip: Callable, carry: list, xs: list) -> tuple[list, ClosedJaxpr]:
    """The program of one trip, and the carry varying over the mesh axes over which it comes out."""
    n = len(carry)
    rows = [jax.typeof(x).update(shape=jnp.shape(x)[1:]) for x in xs]

    def flat(*operands):
        carry, ys = trip(list(operands[:n]), list(operands[n:]))
        return [*carry, *ys]

    closed = trace_trip(flat, carry, jax.tree.structure(carry), rows)
    return [vary(x, axes_of(a)) for x, a in zip(carry, closed.in_avals[:n], strict=True)], closed


def _bind(body: ClosedJaxpr, consts: Sequence, carry: list, xs: list, how: dict) -> tuple[list, list]:
    n = len(carry)
    ours = not plain_path() and is_common(*body.in_avals) and not has_effects(body)
    out = (scan_p.bind if ours else _plain)(*consts, *carry, *xs, body=body, counts=(len(consts), n), **how)
    return out[:n], out[n:]


def _split(operands: Sequence, counts: tuple[int, int]) -> tuple[list, list, list]:
    a, b = counts
    return list(operands[:a]), list(operands[a : a + b]), list(operands[a + b :])


def _plain(*operands, body, counts, length, reverse, written_out, forward_only, inside):
    """The same by `lax.scan`, which older versions of JAX linearise without the rules of what is inside."""
    consts, carry, xs = _split(operands, counts)

    def trip(carry, row):
        out = jaxpr_as_fun(body)(*consts, *carry, *row)
        return out[: len(carry)], out[len(carry) :]

    carry, ys = lax.scan(trip, carry, xs, length=length, reverse=reverse)
    return [*carry, *ys]


def _run(*operands, body, counts, length, reverse, written_out, forward_only, inside):
    consts, carry, xs = _split(operands, counts)
    n = len(carry)
    run = functools.partial(jaxpr_as_fun(body), *consts)
    if length == 0:
        return [*carry, *(jnp.zeros((0, *a.shape), a.dtype) for a in body.out_avals[n:])]
    if inside == "kernel" or not written_out:
        return _rolled(run, carry, xs, body.out_avals[n:], (length, reverse, inside == "kernel"))
    rows: list[list] = []
    for i in reversed(range(length)) if reverse else range(length):
        out = run(*carry, *(lax.index_in_dim(x, i, keepdims=False) for x in xs))
        carry, row = out[:n], out[n:]
        rows.append(row)
    return [*carry, *(jnp.stack(column[::-1] if reverse else column) for column in zip(*rows, strict=True))]


def _rolled(run: Callable, carry: list, xs: list, rows: Sequence, how: tuple[int, bool, bool]) -> list:
    """A loop like that of `lax.scan`, but for the index of a reverse one: XLA, which folds constants after it has moved
    them out of loops, needs a round of its passes for each loop around `length - i - 1`."""
    (length, reverse, in_kernel), n = how, len(carry)
    apart = not in_kernel and sum(x.size for x in xs) >= APART * length
    ys = [vary(lax.empty((length, *a.shape), a.dtype), axes_of(a)) for a in rows]

    def trip(state):
        k, carry, ys = state
        i = np.int32(length - 1) - k if reverse else k
        given = lax.cond(i >= 0, lambda: read(xs, i), lambda: read(xs, jnp.zeros_like(i))) if apart else read(xs, i)
        out = run(*carry, *given)
        ys = [
            lax.dynamic_update_index_in_dim(y, row, i, 0, allow_negative_indices=False)
            for y, row in zip(ys, out[n:], strict=True)
        ]
        return k + 1, out[:n], ys

    _, carry, ys = lax.while_loop(lambda state: state[0] < length, trip, (jnp.zeros((), jnp.int32), carry, ys))
    return [*carry, *ys]


def _lower_on_cpu(ctx, *operands, body, written_out, inside, **params):
    loop = params["length"] > 0 and not written_out
    one = loop and becomes_one(ctx, inside, body)
    within = "kernel" if one else inside
    inner = "loop" if loop and within != "kernel" else within
    body = body if inner is None else nest(body, inner)
    run = functools.partial(_run, body=body, written_out=written_out, inside=within, **params)
    return lowered(ctx, run, operands, one)


# ---- derivatives


def _jvp(primals, tangents, *, body, counts, **how):
    primals = [jnp.asarray(x, a.dtype) for x, a in zip(primals, body.in_avals, strict=True)]
    flags = reached(body, counts, [is_live(d, x) for d, x in zip(tangents, primals, strict=True)])
    live, outs = (
        [i for i, (hit, x) in enumerate(zip(hits, avals, strict=True)) if hit and jnp.issubdtype(x.dtype, jnp.inexact)]
        for hits, avals in zip(flags, (body.in_avals, body.out_avals), strict=True)
    )
    if not outs:
        out = scan_p.bind(*primals, body=body, counts=counts, **how)
        return out, [symbolic_zero(x) for x in out]
    parts = _split(list(enumerate(tangents)), counts)
    full = lambda i, d: vary(instantiate_zeros(d), axes_of(primals[i]))
    d_consts, d_carry, d_xs = ([full(i, d) for i, d in part if i in live] for part in parts)

    def trip(operands):
        """One trip as a function of what varies, which hands out everything as well."""

        def of_live(*values):
            out = jaxpr_as_fun(body)(*put(operands, live, values))
            return [out[i] for i in outs], out

        return of_live, [operands[i] for i in live]

    of = trip, len(body.out_avals)
    try:
        kept = None if how["forward_only"] else _kept(*of, *_split(primals, counts), how)
    except Exception:  # what is in there has forward mode alone, like a loop
        kept = None
    if kept is None:
        out, d_out = _together(*of, [d_consts, d_carry, d_xs], _split(primals, counts), {**how, "forward_only": True})
        return out, put([symbolic_zero(x) for x in out], outs, d_out)
    out, rows, linear = kept

    def derivative(d_carry, both):
        kept, d_row = both[: len(rows)], both[len(rows) :]
        d_out = linear(kept, [*d_consts, *d_carry, *d_row])
        return d_out[: len(d_carry)], d_out[len(d_carry) :]

    moved, d_ys = _scan(derivative, d_carry, [*rows, *d_xs], how)
    return out, put([symbolic_zero(x) for x in out], outs, [*moved, *d_ys])


def _together(trip: Callable, outs: int, tangents: list[list], primals: tuple, how: dict) -> tuple[list, list]:
    """The scan and its derivative as one."""
    (d_consts, d_carry, d_xs), (consts, carry, xs) = tangents, primals
    m, n = len(carry), len(d_carry)

    def forward(carry, row):
        of_live, at = trip([*consts, *carry[:m], *row[: len(xs)]])
        _, d_out, out = jax.jvp(of_live, at, [*d_consts, *carry[m:], *row[len(xs) :]], has_aux=True)
        return [*out[:m], *d_out[:n]], [*out[m:], *d_out[n:]]

    both, ys = _scan(forward, [*carry, *d_carry], [*xs, *d_xs], how)
    return [*both[:m], *ys[: outs - m]], [*both[m:], *ys[outs - m :]]


def _kept(trip: Callable, outs: int, consts: list, carry: list, xs: list, how: dict) -> tuple[list, list, Callable]:
    """The scan, what it leaves for its derivative, row by row, and the derivative of one trip.

    What the derivative needs is the same in all trips, or handed in, or kept.
    """
    program: Any = None
    m = len(carry)

    def forward(carry, row):
        nonlocal program
        of_live, at = trip([*consts, *carry, *row])
        _, linear, out = jax.linearize(of_live, *at, has_aux=True)
        closed = jax.make_jaxpr(linear)(*at)  # its constants are all that it needs; older JAX keeps some out of sight
        program = consts_first(closed)
        return out[:m], [*out[m:], *closed.consts]

    carry, closed = _trace(forward, carry, xs)
    body, given = consts_first(closed), len(closed.consts)
    rows = body.jaxpr.invars[given + m :]
    needed, touched = range(outs, len(body.out_avals)), dependencies(body.jaxpr)
    once = [k for k in needed if all(i < given for i in touched[k])]
    handed = {k: rows.index(v) for k in needed if (v := body.jaxpr.outvars[k]) in rows}
    stacked = [k for k in needed if k not in once and k not in handed]
    unused = [zeros_of(aval_of(v)) for v in rows]
    steady = jaxpr_as_fun(only(body, once))(*closed.consts, *carry, *unused)
    carry, ys = _bind(only(body, [*range(outs), *stacked]), closed.consts, carry, xs, how)

    def linear(row, tangents):
        values = dict(zip([*once, *stacked], [*steady, *row[len(xs) :]], strict=True))
        values |= {k: row[i] for k, i in handed.items()}
        return jaxpr_as_fun(program)(*[values[k] for k in needed], *tangents)

    return [*carry, *ys[: outs - m]], [*xs, *ys[outs - m :]], linear


def _transpose(cotangents, *operands, body, counts, **how):
    """Of a scan that is linear in its carry and in whatever else is unknown: back over the rows."""
    if how["forward_only"]:
        no_reverse()
    a, b = counts
    unknown = [is_undefined_primal(x) for x in operands]
    places = [i for i, u in enumerate(unknown) if u or a <= i < a + b]
    known = [i for i in range(len(operands)) if i not in places]
    of_consts, of_xs = [i for i in places if i < a], [i for i in places if i >= a + b]
    bars = [instantiate_zeros(c) for c in cotangents]
    sums = [zeros_of(aval_of(operands[i])) for i in of_consts]
    kept = [i for i in known if i >= a + b]

    def trip(carry, rows):
        bars, sums = carry[:b], carry[b:]
        given = put(put(operands, kept, rows[: len(kept)]), places, [None] * len(places))

        def of_unknown(*values):
            return jaxpr_as_fun(body)(*put(given, places, values))

        at = [zeros_of(body.in_avals[i]) for i in places]
        found = jax.linear_transpose(of_unknown, *at)([*bars, *rows[len(kept) :]])
        more, bars, d_row = _split(found, (len(of_consts), b))
        return [*bars, *(s + m for s, m in zip(sums, more, strict=True))], d_row

    backwards = {**how, "reverse": not how["reverse"]}
    carry, d_xs = _scan(trip, [*bars[:b], *sums], [*(operands[i] for i in kept), *bars[b:]], backwards)
    found = put([None] * len(operands), [*range(a, a + b), *of_consts, *of_xs], [*carry, *d_xs])
    return [x if u else None for x, u in zip(found, unknown, strict=True)]


def _batch(lanes, operands, dims, *, body, counts, **how):
    a, b = counts
    front = [
        x if d is None else jnp.moveaxis(x, d, int(i >= a + b))
        for i, (x, d) in enumerate(zip(operands, dims, strict=True))
    ]
    consts, carry, xs = _split(front, counts)
    given, found = reached(body, counts, [d is not None for d in dims])
    carry = [
        widen(x, lanes.size) if own and d is None else x
        for x, own, d in zip(carry, found[:b], dims[a : a + b], strict=True)
    ]
    step = over_lanes(jaxpr_as_fun(body), axes(given), axes(found), lanes)

    def trip(carry, row):
        out = step(*consts, *carry, *row)
        return out[:b], out[b:]

    carry, ys = _scan(trip, carry, xs, how)
    return [*carry, *ys], [*axes(found[:b]), *(1 if own else None for own in found[b:])]


def _abstract(*_, body, counts, length, **how):
    n = counts[1]
    stacked = [x.update(shape=(length, *x.shape)) for x in body.out_avals[n:]]
    return [*body.out_avals[:n], *stacked]


scan_p = define(
    "faithful_scan",
    _plain,
    abstract=_abstract,
    jvp=_jvp,
    batch=_batch,
    transpose=_transpose,
    run=_run,
    on_cpu=_lower_on_cpu,
    programs=("body",),
)
holds_loops("faithful_scan")
RULES["faithful_scan"] = RULES["scan"]
