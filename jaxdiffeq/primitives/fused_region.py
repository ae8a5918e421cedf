"""A part of a program that becomes one kernel on the CPU, with the loops in it, where it is small enough.

What stands before and after a loop is a dozen operations. Each becomes a module of its own, ten milliseconds to
compile, which is together as long as the loop takes; in the kernel of the loop they are a few lines more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Primitive, jaxpr_as_fun

from jaxdiffeq.primitives.cpu_kernel import becomes_one, lower, nest
from jaxdiffeq.primitives.while_loop import (
    consts_first,
    dependencies,
    is_live,
    lanes_first,
    put,
    register,
    symbolic_zero,
)

fused_region_p = Primitive("fused_region")
fused_region_p.multiple_results = True


def fused_region(fun: Callable, *operands: Any, derivative: bool = True) -> tuple[Any, Any]:
    """`moving, fixed = fun(*operands)`, of which `fixed` is constant to differentiation.

    Its `derivative` is one kernel as well, in forward mode only; or it is that of the parts, in every mode.
    """
    flat, tree = jax.tree.flatten(operands)
    closed, out = jax.make_jaxpr(lambda *xs: fun(*tree.unflatten(xs)), return_shape=True)(*flat)
    moving = len(jax.tree.leaves(out[0]))
    how = {"moving": moving, "derivative": derivative, "inside": None}
    found = fused_region_p.bind(*closed.consts, *flat, jaxpr=consts_first(closed), **how)
    return jax.tree.structure(out).unflatten(found)


def _run(*operands, jaxpr: ClosedJaxpr, moving, derivative, inside):
    return jaxpr_as_fun(jaxpr)(*operands)


def _jvp(primals: Sequence[Any], tangents: Sequence[Any], *, jaxpr: ClosedJaxpr, moving, derivative, inside):
    live = [i for i, d in enumerate(tangents) if is_live(d, primals[i])]
    if not live:
        out = fused_region_p.bind(*primals, jaxpr=jaxpr, moving=moving, derivative=derivative, inside=inside)
        return out, [symbolic_zero(x) for x in out]
    real = [k for k in range(moving) if jnp.issubdtype(jaxpr.out_avals[k].dtype, jnp.inexact)]

    def of_parts(xs, d_live):
        of_live = lambda some: jaxpr_as_fun(jaxpr)(*put(xs, live, some))
        out, d_out = jax.jvp(of_live, ([xs[i] for i in live],), (d_live,))
        return (out[:moving], [d_out[k] for k in real]), out[moving:]

    at = list(primals), [tangents[i] for i in live]
    (out, d_out), fixed = fused_region(of_parts, *at) if derivative else of_parts(*at)
    everything = [*out, *fixed]
    return everything, put([symbolic_zero(x) for x in everything], real, d_out)


def _batch(operands, dims, *, jaxpr: ClosedJaxpr, moving, derivative, inside):
    size, front = lanes_first(operands, dims)
    lanes = [any(dims[i] is not None for i in inputs) for inputs in dependencies(jaxpr.jaxpr)]
    axes = lambda flags: [0 if flag else None for flag in flags]
    every_lane = jax.vmap(jaxpr_as_fun(jaxpr), axes([d is not None for d in dims]), axes(lanes), axis_size=size)

    def split(*xs):
        out = every_lane(*xs)
        return out[:moving], out[moving:]

    moved, fixed = fused_region(split, *front, derivative=derivative)
    return [*moved, *fixed], axes(lanes)


def _lower_on_cpu(ctx, *operands, jaxpr: ClosedJaxpr, moving, derivative, inside):
    one = becomes_one(ctx, inside, jaxpr)
    within = "kernel" if one else inside
    run = jaxpr_as_fun(jaxpr if within is None else nest(jaxpr, within))
    return lower(ctx, run, len(jaxpr.out_avals), operands, one)


fused_region_p.def_abstract_eval(lambda *_, jaxpr, **__: jaxpr.out_avals)
register(fused_region_p, _run, _lower_on_cpu, _jvp, _batch)
