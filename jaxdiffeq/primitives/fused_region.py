"""A part of a program that becomes one kernel on the CPU, with the loops in it, where it is small enough.

What stands before and after a loop is a dozen operations. Each becomes a module of its own, ten milliseconds to
compile, which is together as long as the loop takes; in the kernel of the loop they are a few lines more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiffeq.primitives.cpu_kernel import becomes_one, holds_loops, lowered, nest
from jaxdiffeq.primitives.dataflow import axes, dependencies, hits, lanes_first, put
from jaxdiffeq.primitives.jax_internals import (
    consts_first,
    define,
    has_effects,
    is_common,
    is_live,
    jaxpr_as_fun,
    over_lanes,
    plain_path,
    symbolic_zero,
)
from jaxdiffeq.primitives.while_loop import no_reverse


def fused_region(fun: Callable, *operands: Any, derivative: bool = True) -> tuple[Any, Any]:
    """`moving, fixed = fun(*operands)`, of which `fixed` is constant to differentiation.

    Its `derivative` is one kernel as well, in forward mode only; or it is that of the parts, in every mode.
    """
    if plain_path():
        moving, fixed = fun(*operands)
        return moving, lax.stop_gradient(fixed)
    flat, tree = jax.tree.flatten(operands)
    closed, out = jax.make_jaxpr(lambda *xs: fun(*tree.unflatten(xs)), return_shape=True)(*flat)
    how = {"moving": len(jax.tree.leaves(out[0])), "derivative": derivative, "inside": None}
    ours = is_common(*map(jax.typeof, closed.consts), *closed.in_avals) and not has_effects(closed)
    found = (fused_region_p.bind if ours else _plain)(*closed.consts, *flat, jaxpr=consts_first(closed), **how)
    return jax.tree.structure(out).unflatten(found)


def _plain(*operands, jaxpr: Any, moving, derivative, inside):
    out = jaxpr_as_fun(jaxpr)(*operands)
    return [*out[:moving], *lax.stop_gradient(out[moving:])]


def _jvp(primals: Sequence[Any], tangents: Sequence[Any], *, jaxpr: Any, moving, derivative, inside):
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


def _batch(lanes, operands, dims, *, jaxpr: Any, moving, derivative, inside):
    own = hits(dependencies(jaxpr.jaxpr), [d is not None for d in dims])
    every_lane = over_lanes(jaxpr_as_fun(jaxpr), axes([d is not None for d in dims]), axes(own), lanes)

    def split(*xs):
        out = every_lane(*xs)
        return out[:moving], out[moving:]

    moved, fixed = fused_region(split, *lanes_first(operands, dims), derivative=derivative)
    return [*moved, *fixed], axes(own)


def _lower_on_cpu(ctx, *operands, jaxpr: Any, moving, derivative, inside):
    one = becomes_one(ctx, inside, jaxpr)
    within = "kernel" if one else inside
    return lowered(ctx, jaxpr_as_fun(jaxpr if within is None else nest(jaxpr, within)), operands, one)


fused_region_p = define(
    "fused_region",
    _plain,
    abstract=lambda *_, jaxpr, **__: jaxpr.out_avals,
    jvp=_jvp,
    batch=_batch,
    transpose=no_reverse,
    on_cpu=_lower_on_cpu,
    programs=("jaxpr",),
)
holds_loops("fused_region")
