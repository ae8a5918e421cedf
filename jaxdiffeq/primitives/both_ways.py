"""Forward mode for what has reverse mode alone.

A function with a `custom_vjp`, as many a library's fused layer is, gives x̄ = Jᵀȳ for any ȳ. That is linear in ȳ, so JAX
can transpose it once more: dy = J·dx, which implicit methods, forward sensitivities and Hessians ask for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from jaxdiffeq.primitives.dataflow import put
from jaxdiffeq.primitives.jax_internals import Jaxpr, programs_in, zero_tangent
from jaxdiffeq.primitives.linear_call import linear_call


def is_reverse_only(jaxpr: Jaxpr) -> bool:
    """Whether JAX refuses to differentiate the program in forward mode."""
    return any(
        eqn.primitive.name.startswith("custom_vjp_call") or any(map(is_reverse_only, programs_in(eqn.params)))
        for eqn in jaxpr.eqns
    )


def both_ways(fun: Callable, operands: Sequence[jax.Array]) -> list[jax.Array]:
    """`fun(*operands)`, a list, with derivatives in both modes from reverse mode alone."""

    @jax.custom_jvp
    def run(operands):
        return fun(*operands)

    def rule(primals, tangents):
        (xs,), (ds,) = primals, tangents
        out = run(xs)
        live = [i for i, d in enumerate(ds) if not isinstance(d, jax.custom_derivatives.SymbolicZero)]
        real = [k for k, y in enumerate(out) if jnp.issubdtype(y.dtype, jnp.inexact)]
        zeros = [zero_tangent(y) for y in out]
        if not live or not real:
            return out, zeros
        shapes = [jax.ShapeDtypeStruct(out[k].shape, out[k].dtype) for k in real]

        def pull(xs, bars):
            def of_live(some):
                found = fun(*put(xs, live, some))
                return [found[k] for k in real]

            return jax.vjp(of_live, [xs[i] for i in live])[1](bars)[0]

        def push(xs, ds):
            return jax.linear_transpose(lambda bars: pull(xs, bars), shapes)(ds)[0]

        moves = [ds[i] for i in live]
        try:
            moved = push(xs, moves)
        except (
            Exception
        ):  # what gives Jᵀȳ has no transpose, a call of a library, say: then reverse mode is all there is
            moved = linear_call(push, pull, xs, moves, like=[out[k] for k in real])
        return out, put(zeros, real, moved)

    run.defjvp(rule, symbolic_zeros=True)
    return run(list(operands))
