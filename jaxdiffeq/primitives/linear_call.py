"""A linear map with a transpose of our choosing, which survives `jvp`, `grad`, `vmap` and `jit`.

`jax.custom_vjp` forbids forward mode and `jax.custom_derivatives.linear_call` has no batching rule. A `custom_jvp`
whose tangent is this call is differentiable in both directions: `jvp` runs `fun`, `grad` runs `transpose`.

In public JAX it is a linear system that is its own transpose. With B = [1 0; −T 1], which has the inverse [1 0; T 1],
the matrix [0 Bᵀ; B 0] is symmetric, and where it takes (x, y) to (0, (u, 0)), x is (u, T·u).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiffeq.primitives.dataflow import lanes_first, put, widen
from jaxdiffeq.primitives.jax_internals import (
    ClosedJaxpr,
    Zero,
    consts_first,
    crosses_axis,
    define,
    has_name,
    is_live,
    jaxpr_as_fun,
    over_lanes,
    plain_path,
    symbolic_zero,
    without_lanes,
)
from jaxdiffeq.primitives.varying_axes import axes_of, vary, zeros_of
from jaxdiffeq.types import PyTree

REVERSE_OVER_REVERSE = (
    "this derivative asks for reverse mode through the derivative of a solve, which is not defined. Put forward mode "
    "on the outside, jax.hessian(f) or jax.jacfwd(jax.grad(f)), or take both derivatives in forward mode, "
    "jax.jacfwd(jax.jacfwd(f))."
)


ACROSS_LANES = (
    "reverse mode through an adaptive solve whose f talks across the lanes of a vmap, by a collective over its "
    "axis_name, is not defined: each lane takes steps of its own. Take forward mode, jax.jacfwd, or FixedSteps(n)."
)


class Lazy:
    """A program that is traced only if it is used: either mode runs the map or its transpose, never both."""

    def __init__(self, fun: Callable, out_avals: Sequence[Any]):
        self.fun, self.out_avals = fun, out_avals


Side = ClosedJaxpr | Lazy | str
"""a map; a string is the message of the error that using it raises"""


def _call(program: Side, xs: Sequence[Any]) -> list:
    assert not isinstance(program, str)
    return program.fun(*xs) if isinstance(program, Lazy) else jaxpr_as_fun(program)(*xs)


def linear_call(
    fun: Callable, transpose: Callable | str, residuals: PyTree, tangents: PyTree, like: PyTree = None
) -> PyTree:
    """`fun(residuals, tangents)`, linear in `tangents`; its transpose is `transpose(residuals, cotangents)`.

    `like` has the shapes of the result, if they are known; then neither function may close over tracers.

    A string in place of `transpose` is the message of the error that reverse mode then raises. What either function
    closes over becomes a residual. Second derivatives, those with respect to residuals, are forward mode only.
    """
    res, res_tree = jax.tree.flatten(residuals)
    lin, lin_tree = jax.tree.flatten(tangents)
    res, lin = [jnp.asarray(x) for x in res], [jnp.asarray(x) for x in lin]
    n, out_tree = len(res), None

    def forward(*xs):
        nonlocal out_tree
        out, out_tree = jax.tree.flatten(fun(res_tree.unflatten(xs[:n]), lin_tree.unflatten(xs[n:])))
        return out

    if like is None:
        closed = jax.make_jaxpr(forward)(*res, *lin)
        there, consts = consts_first(closed), closed.consts
    else:
        shapes, out_tree = jax.tree.flatten(like)
        there, consts = Lazy(forward, [jax.typeof(x) for x in shapes]), []
    assert out_tree is not None
    tree: Any = out_tree
    if isinstance(transpose, str):
        back, more = transpose, []
    else:

        def backward(*xs):
            return jax.tree.leaves(transpose(res_tree.unflatten(xs[:n]), tree.unflatten(xs[n:])))

        if like is None:
            closed = jax.make_jaxpr(backward)(*res, *there.out_avals)
            back, more = consts_first(closed), closed.consts
        else:
            back, more = Lazy(backward, [jax.typeof(x) for x in lin]), []
    operands = [*consts, *more, *res, *lin]
    how = {"there": there, "back": back, "counts": (len(consts), len(more), len(operands) - len(lin))}
    return tree.unflatten((_plain if plain_path() else linear_call_p.bind)(*operands, **how))


def _run(*operands, there, back, counts):
    """The map. Operands: constants of either side, shared residuals, input; `counts`: of sides, of all but input."""
    mine, other, _ = counts
    return _call(there, [*operands[:mine], *operands[mine + other :]])


def _plain(*operands, there: Side, back: Side, counts: tuple[int, int, int]) -> list:
    mine, other, known = counts
    of_there, of_back, shared = operands[:mine], operands[mine : mine + other], operands[mine + other : known]
    lin = list(operands[known:])
    if isinstance(back, str):
        return _call(there, [*of_there, *shared, *lin])
    assert not isinstance(there, str)

    def push(u):
        return _call(there, [*of_there, *shared, *u])

    def pull(bar) -> list:
        return _call(back, [*of_back, *shared, *bar])

    def lower(sign, u, v) -> tuple:  # B, and its inverse
        return u, [a + sign * b for a, b in zip(v, push(u), strict=True)]

    def upper(sign, u, v) -> tuple:  # their transposes
        return [a + sign * b for a, b in zip(u, pull(v), strict=True)], v

    def matrix(xy):
        x, y = xy
        return upper(-1, *y), lower(-1, *x)

    def solve(_, b):
        r, s = b
        return lower(1, *s), upper(1, *r)

    full = next((x for x in lin if x.size), None)
    if full is None:
        return [zeros_of(x) for x in there.out_avals]
    nothing = [_nothing_of(full, x) for x in there.out_avals]
    zeros = [_nothing_of(full, jax.typeof(x)) for x in lin]
    right = _all_or_none(((zeros, nothing), (lin, nothing)))
    try:
        found: Any = lax.custom_linear_solve(matrix, right, solve, symmetric=True)
    except Exception:  # no transpose can be made, of a loop in f, say: then forward mode is all there is
        return push(lin)
    (u, out), others = found
    for x in jax.tree.leaves((u, others)):
        out = [y + _nothing_of(x, y) if x.size else y for y in out]
    return out


@jax.custom_jvp
def _all_or_none(tree: PyTree) -> PyTree:
    """The tree, in which all leaves have a tangent if one of them does."""
    return tree


@_all_or_none.defjvp
def _(primals: tuple, tangents: tuple) -> tuple[PyTree, PyTree]:
    return _all_or_none(*primals), tangents[0]


def _nothing_of(x: jax.Array, like: Any) -> jax.Array:
    """Zeros that are a linear function of `x`: JAX wants a linear system to vary in all its parts, if in one."""
    number = jnp.where(jnp.array(False), jnp.real(x.reshape(-1)[0]), 0).astype(like.dtype)
    return vary(jnp.broadcast_to(number, like.shape), axes_of(like))


def in_all_lanes(outs: PyTree, operands: PyTree) -> PyTree:
    """`outs`, in each of the lanes that any of the `operands` is in.

    JAX asks a `custom_jvp` under `vmap` which results have lanes before it looks at the rule, and takes the answer for
    that of the rule, whose derivatives have more: a result that is the same in all lanes must have them too.
    """
    if plain_path():
        return outs
    flat, tree = jax.tree.flatten(outs)
    return tree.unflatten(in_all_lanes_p.bind(*flat, *jax.tree.leaves(operands), count=len(flat)))


def _first(*xs: Any, count: int) -> list:
    return list(xs[:count])


def _lanes_of_all(lanes: Any, xs: Sequence[Any], dims: Sequence[Any], *, count: int) -> tuple[list, list]:
    wide = [widen(x, lanes.size) if d is None else x for x, d in zip(lanes_first(xs, dims), dims, strict=True)]
    return in_all_lanes_p.bind(*wide[:count], *xs[count:], count=count), [0] * count


def _swap(residuals: Sequence[Any], counts: tuple[int, int, int]) -> list:
    """The residuals in the order that the transposed call wants them."""
    a, b, _ = counts
    return [*residuals[a : a + b], *residuals[:a], *residuals[a + b :]]


def _jvp(primals, tangents, **how):
    count = how["counts"][2]
    out = linear_call_p.bind(*primals, **how)
    res, lin = list(primals[:count]), list(primals[count:])
    d_res, d_lin = tangents[:count], tangents[count:]
    terms = []
    if any(type(d) is not Zero for d in d_lin):  # linear in these: the same map again
        d_lin = [zeros_like(x) if type(d) is Zero else d for d, x in zip(d_lin, lin, strict=True)]
        terms.append(linear_call_p.bind(*res, *d_lin, **how))
    live = [i for i, d in enumerate(d_res) if is_live(d, res[i])]
    if live:  # second order: differentiate the map itself, forward

        def second(at, d_live):
            of_live = lambda xs: _run(*put(at[:count], live, xs), *at[count:], **how)
            return jax.jvp(of_live, ([at[i] for i in live],), (d_live,))[1]

        terms.append(linear_call(second, REVERSE_OVER_REVERSE, [*res, *lin], [d_res[i] for i in live]))
    if not terms:
        return out, [symbolic_zero(x) for x in out]
    return out, [functools.reduce(jnp.add, term) for term in zip(*terms, strict=True)]


def zeros_like(x: Any) -> jax.Array:
    return jnp.zeros(jnp.shape(x), jnp.result_type(x))


def _transpose(cotangents, *operands, there, back, counts):
    if isinstance(back, str):
        raise NotImplementedError(back)
    mine, other, known = counts
    given = zip(cotangents, there.out_avals, strict=True)
    cotangents = [zeros_of(a) if type(c) is Zero else c for c, a in given]
    how = {"there": back, "back": there, "counts": (other, mine, known)}
    return [None] * known + list(linear_call_p.bind(*_swap(operands[:known], counts), *cotangents, **how))


def _batch(lanes, operands, dims, *, there, back, counts):
    mine, other, known = counts
    front = lanes_first(operands, dims)
    axes = [None if d is None else 0 for d in dims[:known]]
    shared = axes[mine + other :]
    lin = [widen(x, lanes.size) if d is None else x for x, d in zip(front[known:], dims[known:], strict=True)]

    def every(program, own):
        def run(*xs):
            given = [*own, *shared, *[0] * (len(xs) - len(own) - len(shared))]
            return over_lanes(lambda *xs: _call(program, xs), given, 0, lanes)(*xs)

        return run

    res = front[:known]
    ours, theirs = [*res[:mine], *res[mine + other :], *lin], [*res[mine : mine + other], *res[mine + other :]]
    if _crosses(back, operands, dims, counts, lanes, there.out_avals):
        back = ACROSS_LANES
    there = _over(there, every(there, axes[:mine]), lanes, ours)
    if not isinstance(back, str):
        back = _over(back, every(back, axes[mine : mine + other]), lanes, [*theirs, *there.out_avals])
    out = linear_call_p.bind(*res, *lin, there=there, back=back, counts=counts)
    return out, [0] * len(out)


def _over(program: ClosedJaxpr | Lazy, run: Callable, lanes: Any, operands: Sequence[Any]) -> ClosedJaxpr | Lazy:
    """The program `run` in all lanes."""
    if isinstance(program, Lazy):
        return Lazy(run, [x.update(shape=(lanes.size, *x.shape)) for x in program.out_avals])
    return jax.make_jaxpr(run)(*operands)


def _crosses(back: Side, operands: Sequence, dims: Sequence, counts: tuple, lanes: Any, bars: Sequence) -> bool:
    """Whether the transpose talks across these lanes."""
    mine, other, known = counts
    if isinstance(back, str) or not has_name(lanes):
        return False
    if isinstance(back, Lazy):
        avals = [without_lanes(x, d) for x, d in zip(operands[:known], dims[:known], strict=True)]
        back = jax.make_jaxpr(lambda *xs: _call(back, xs))(*avals[mine : mine + other], *avals[mine + other :], *bars)
    return crosses_axis(lanes.name, back)


linear_call_p = define(
    "linear_call",
    _plain,
    abstract=lambda *_, there, **__: there.out_avals,
    jvp=_jvp,
    batch=_batch,
    transpose=_transpose,
    run=_run,
    programs=("there", "back"),
    any_lanes=True,
)
in_all_lanes_p = define(
    "in_all_lanes",
    _first,
    abstract=lambda *xs, count: list(xs[:count]),
    jvp=lambda xs, ds, *, count: (in_all_lanes_p.bind(*xs, count=count), list(ds[:count])),
    batch=_lanes_of_all,
    transpose=lambda bars, *xs, count: [*bars, *[None] * (len(xs) - count)],
)
