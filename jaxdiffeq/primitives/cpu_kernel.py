"""A small loop as one kernel on the CPU.

XLA's CPU backend runs a program operation by operation, and pays some fifty nanoseconds for each; for small states
that is more than the arithmetic. It can also emit a call as one function. It does so by itself for a loop that touches
less than a kilobyte a trip, which no adaptive step does; here the loops that can bear it ask for it. A solve of the
Lotka-Volterra equations is three times as fast for it, with saved times six times.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax import lax

from jaxdiffeq.primitives.jax_internals import ClosedJaxpr, Jaxpr, aval_of, lower, lower_as_call, programs_in, rewritten

# What the backend can emit inside one kernel, and this library and its users write; primitives of ours add themselves.
# A dot may call a threaded library from there; a scatter, a sort or a custom call cannot be emitted at all.
OPERATIONS = {
    *("abs", "add", "add_any", "and", "atan2", "broadcast_in_dim", "cbrt", "ceil", "clamp", "complex"),
    *("concatenate", "conj", "convert_element_type", "copy", "copy_p", "cos", "cosh", "device_put", "div"),
    *("dynamic_slice", "dynamic_update_slice", "eq", "erf", "exp", "exp2", "expm1", "floor", "gather", "ge", "gt"),
    *("imag", "integer_pow", "iota", "is_finite", "le", "log", "log1p", "logistic", "lt", "max", "min", "mul"),
    *("ne", "neg", "nextafter", "not", "one_minus_square", "optimization_barrier", "or", "pad", "pow", "real"),
    *("reduce_and", "reduce_max", "reduce_min", "reduce_or", "reduce_prod", "reduce_sum", "rem", "reshape", "rev"),
    *("round", "rsqrt", "select_n", "sign"),
    *(
        "bitcast_convert_type",
        "clz",
        "erf_inv",
        "reduce_precision",
        "shift_left",
        "shift_right_arithmetic",
        "shift_right_logical",
    ),
    *("random_bits", "random_fold_in", "random_unwrap", "random_wrap", "threefry2x32"),
    *("sin", "sinh", "slice", "split", "sqrt", "square", "squeeze", "stack", "stop_gradient", "sub", "tan", "tanh"),
    *("transpose", "unstack", "xor"),
}
CONTAINERS = {
    *("cond", "custom_jvp_call", "custom_linear_solve", "custom_vjp_call", "custom_vmap_call", "empty", "empty2"),
    *("jit", "pjit", "while"),
}
LOOPED = {"scan", *CONTAINERS} - {"custom_linear_solve"}  # where there may be a loop inside
# of buffers that may be large, or with which these begin
IN_PLACE = {"broadcast_in_dim", "dynamic_slice", "dynamic_update_slice", "stop_gradient"}
ELEMENTS = 4095  # XLA leaves larger reductions to a library, which cannot be called from inside a kernel
COPIED = 2**14  # bytes: what a loop inside another may have copied on every trip of that one
ATTRIBUTES = {"inlineable": "false", "xla_cpu_small_call": "true"}


def holds_loops(name: str) -> None:
    """A primitive of ours may stand in a kernel, with the programs that it has, and these may have loops."""
    CONTAINERS.add(name)
    LOOPED.add(name)


def fits(jaxpr: Jaxpr) -> bool:
    """Whether every operation can be emitted in one kernel and is small enough to be better off there."""
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        if name not in OPERATIONS | CONTAINERS or any(where is not None for where in eqn.params.get("devices", ())):
            return False
        seen = [*eqn.outvars, *(eqn.invars if name.startswith("reduce_") else ())]
        sizes = [getattr(aval_of(v), "size", 0) for v in seen]
        if not all(isinstance(n, int) for n in sizes):  # a symbol
            return False
        if name not in IN_PLACE | CONTAINERS and max(sizes, default=0) > ELEMENTS:
            return False
        if not all(fits(inner) for inner in programs_in(eqn.params)):
            return False
    return True


def is_small(arrays: Any) -> bool:
    """Whether a kernel can sum over all of them."""
    return all(isinstance(x.size, int) for x in arrays) and sum(x.size for x in arrays) <= ELEMENTS


def kept_apart(x: jax.Array) -> jax.Array:
    """A number, by an operation that no kernel takes: what it stands in stays a program of many operations."""
    return lax.sort(x.reshape(1))[0]


def pays(inside: str | None, operands: Any) -> bool:
    """Whether a loop inside nothing, a "loop" or a "kernel" should become a kernel of its own.

    A call copies what it changes. Inside a kernel another one gains nothing, and inside a loop the copies come trip
    after trip: with a log of large states they cost ten times the solve.
    """
    if inside == "kernel" or not all(isinstance(x.size, int) for x in operands):
        return False
    return inside is None or sum(x.size * x.dtype.itemsize for x in operands) <= COPIED


def becomes_one(ctx: Any, inside: str | None, *programs: ClosedJaxpr) -> bool:
    """Whether what runs these programs is lowered as a kernel."""
    return pays(inside, ctx.avals_in) and all(fits(p.jaxpr) for p in programs)


def nest(program: Any, inside: str) -> Any:
    """The program with whatever asks told what it is inside of."""

    def told(eqn):
        if "inside" in eqn.params:
            return eqn.replace(params={**eqn.params, "inside": inside})
        if eqn.primitive.name not in LOOPED:
            return eqn
        return eqn.replace(params={k: nest(v, inside) for k, v in eqn.params.items()})

    return rewritten(program, told)


def lowered(ctx: Any, run: Callable, operands: Any, one: bool) -> Any:
    """`run(*operands)` as a kernel, or as its parts."""
    return lower_as_call(ctx, run, operands, ATTRIBUTES) if one else lower(ctx, run, operands)
