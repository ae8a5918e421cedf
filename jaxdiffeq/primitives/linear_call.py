"""A linear map with a transpose of our choosing, which survives `jvp`, `grad`, `vmap` and `jit`.

`jax.custom_vjp` forbids forward mode, `jax.custom_derivatives.linear_call` has no batching rule, and
`lax.custom_linear_solve` transposes its matrix-vector product eagerly. A `custom_jvp` whose tangent is this call is
differentiable in both directions: `jvp` runs `fun`, `grad` runs `transpose`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir

from jaxdiffeq.primitives.while_loop import consts_first, is_live, put, symbolic_zero, zeros_of
from jaxdiffeq.types import PyTree

linear_call_p = Primitive("linear_call")
linear_call_p.multiple_results = True

REVERSE_OVER_REVERSE = (
    "this derivative asks for reverse mode through the derivative of a solve, which is not defined. Put forward mode "
    "on the outside, jax.hessian(f) or jax.jacfwd(jax.grad(f)), or take both derivatives in forward mode, "
    "jax.jacfwd(jax.jacfwd(f))."
)


class Lazy:
    """A program that is traced only if it is used: reverse mode never runs the map, only its transpose."""

    def __init__(self, fun: Callable, out_avals: Sequence[Any]):
        self.fun, self.out_avals = fun, out_avals


def _call(program: Any, xs: Sequence[Any]) -> list:
    return program.fun(*xs) if isinstance(program, Lazy) else jaxpr_as_fun(program)(*xs)


def linear_call(
    fun: Callable, transpose: Callable | str, residuals: PyTree, tangents: PyTree, like: PyTree = None
) -> PyTree:
    """`fun(residuals, tangents)`, linear in `tangents`; its transpose is `transpose(residuals, cotangents)`.

    `like` has the shapes of the result, if they are known; then `fun` may not close over tracers.

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

        closed = jax.make_jaxpr(backward)(*res, *there.out_avals)
        back, more = consts_first(closed), closed.consts
    operands = [*consts, *more, *res, *lin]
    sides = (there, len(consts)), (back, len(more))
    return tree.unflatten(linear_call_p.bind(*operands, sides=sides, count=len(operands) - len(lin)))


def _run(*operands, sides, count):
    """The map of the first side; the second is its transpose. Operands: constants of each, shared residuals, input."""
    (program, mine), (_, other) = sides
    return _call(program, [*operands[:mine], *operands[mine + other :]])


def _swap(residuals: Sequence[Any], sides: Any) -> list:
    """The residuals in the order that the transposed call wants them."""
    (_, a), (_, b) = sides
    return [*residuals[a : a + b], *residuals[:a], *residuals[a + b :]]


def _jvp(primals, tangents, *, sides, count):
    out = linear_call_p.bind(*primals, sides=sides, count=count)
    res, lin = list(primals[:count]), list(primals[count:])
    d_res, d_lin = tangents[:count], tangents[count:]
    terms = []
    if any(type(d) is not ad.Zero for d in d_lin):  # linear in these: the same map again
        d_lin = [zeros_like(x) if type(d) is ad.Zero else d for d, x in zip(d_lin, lin, strict=True)]
        terms.append(linear_call_p.bind(*res, *d_lin, sides=sides, count=count))
    live = [i for i, d in enumerate(d_res) if is_live(d, res[i])]
    if live:  # second order: differentiate the map itself, forward

        def second(at, d_live):
            def of_live(xs):
                return _run(*put(at[:count], live, xs), *at[count:], sides=sides, count=count)

            return jax.jvp(of_live, ([at[i] for i in live],), (d_live,))[1]

        terms.append(linear_call(second, REVERSE_OVER_REVERSE, [*res, *lin], [d_res[i] for i in live]))
    if not terms:
        return out, [symbolic_zero(x) for x in out]
    return out, [functools.reduce(jnp.add, term) for term in zip(*terms, strict=True)]


def zeros_like(x: Any) -> jax.Array:
    return jnp.zeros(jnp.shape(x), jnp.result_type(x))


def _transpose(cotangents, *operands, sides, count):
    (program, _), (back, _) = sides
    if isinstance(back, str):
        raise NotImplementedError(back)
    given = zip(cotangents, program.out_avals, strict=True)
    cotangents = [zeros_of(a) if type(c) is ad.Zero else c for c, a in given]
    flipped = _swap(operands[:count], sides)
    return [None] * count + list(linear_call_p.bind(*flipped, *cotangents, sides=sides[::-1], count=count))


def _batch(operands, dims, *, sides, count):
    size = next(x.shape[d] for x, d in zip(operands, dims, strict=True) if d is not None)
    front = [x if d is None else jnp.moveaxis(x, d, 0) for x, d in zip(operands, dims, strict=True)]
    lin = [
        jnp.broadcast_to(x, (size, *x.shape)) if d is None else x
        for x, d in zip(front[count:], dims[count:], strict=True)
    ]
    (fun, a), (back, b) = sides
    axes = [None if d is None else 0 for d in dims[:count]]
    shared = axes[a + b :]

    def over_lanes(program, mine):
        return lambda xs: jax.vmap(
            lambda *xs: _call(program, xs),
            in_axes=(*mine, *shared, *[0] * (len(xs) - len(mine) - len(shared))),
            axis_size=size,
        )(*xs)

    res = front[:count]
    mine, theirs = [*res[:a], *res[a + b :], *lin], [*res[a : a + b], *res[a + b :]]
    if isinstance(fun, Lazy):
        lanes = [x.update(shape=(size, *x.shape)) for x in fun.out_avals]
        there = Lazy(lambda *xs: over_lanes(fun, axes[:a])(xs), lanes)
    else:
        there = jax.make_jaxpr(over_lanes(fun, axes[:a]))(mine)
    if not isinstance(back, str):
        back = jax.make_jaxpr(over_lanes(back, axes[a : a + b]))([*theirs, *there.out_avals])
    out = linear_call_p.bind(*res, *lin, sides=((there, a), (back, b)), count=count)
    return out, [0] * len(out)


linear_call_p.def_impl(lambda *xs, **params: jax.jit(functools.partial(_run, **params))(*xs))
linear_call_p.def_abstract_eval(lambda *_, sides, count: sides[0][0].out_avals)
mlir.register_lowering(linear_call_p, mlir.lower_fun(_run, multiple_results=True))
ad.primitive_jvps[linear_call_p] = _jvp
ad.primitive_transposes[linear_call_p] = _transpose
batching.primitive_batchers[linear_call_p] = _batch
