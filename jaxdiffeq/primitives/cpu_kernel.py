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
from jax.extend.core import ClosedJaxpr, Jaxpr
from jax.extend.mlir import ir
from jax.interpreters import mlir

# What the backend can emit inside one kernel, and this library and its users write. A dot may call a threaded library
# from there; a scatter, a sort or a custom call cannot be emitted at all.
OPERATIONS = frozenset(
    {
        *("abs", "add", "add_any", "and", "atan2", "broadcast_in_dim", "cbrt", "ceil", "clamp", "complex"),
        *("concatenate", "conj", "convert_element_type", "copy", "copy_p", "cos", "cosh", "device_put", "div"),
        *("dynamic_slice", "dynamic_update_slice", "eq", "erf", "exp", "exp2", "expm1", "floor", "gather", "ge", "gt"),
        *("imag", "integer_pow", "iota", "is_finite", "le", "log", "log1p", "logistic", "lt", "max", "min", "mul"),
        *("ne", "neg", "nextafter", "not", "or", "pad", "pow", "real", "reduce_and", "reduce_max", "reduce_min"),
        *("reduce_or", "reduce_prod", "reduce_sum", "rem", "reshape", "rev", "round", "rsqrt", "select_n", "sign"),
        *("sin", "sinh", "slice", "split", "sqrt", "square", "squeeze", "stack", "stop_gradient", "sub", "tan", "tanh"),
        *("transpose", "unstack", "xor"),
        *("constant_matmul", "put_row"),  # this library's own
    }
)
CONTAINERS = frozenset(
    {
        "fused_region",
        "cond",
        "custom_jvp_call",
        "custom_linear_solve",
        "custom_vjp_call",
        "custom_vmap_call",
        "empty",
        "empty2",
        "faithful_scan",
        "frozen_while",
        "jit",
        "pjit",
        "while",
    }
)
LOOPED = CONTAINERS - {"custom_linear_solve"} | {"scan"}  # where there may be a loop inside
IN_PLACE = frozenset({"dynamic_slice", "dynamic_update_slice", "put_row"})  # of buffers that may be large
ELEMENTS = 4095  # XLA leaves larger reductions to a library, which cannot be called from inside a kernel
COPIED = 2**14  # bytes: what a loop inside another may have copied on every trip of that one
ATTRIBUTES = {"inlineable": "false", "xla_cpu_small_call": "true"}


def fits(jaxpr: Jaxpr) -> bool:
    """Whether every operation can be emitted in one kernel and is small enough to be better off there."""
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        if name not in OPERATIONS | CONTAINERS or any(where is not None for where in eqn.params.get("devices", ())):
            return False
        seen = [*eqn.outvars, *(eqn.invars if name.startswith("reduce_") else ())]
        sizes = [getattr(v.aval, "size", 0) for v in seen]
        if name not in IN_PLACE | CONTAINERS and max(sizes, default=0) > ELEMENTS:
            return False
        if not all(fits(inner) for inner in _programs(eqn.params)):
            return False
    return True


def _programs(params: Any) -> list[Jaxpr]:
    values = [v for p in params.values() for v in (p if isinstance(p, tuple | list) else [p])]
    values = [getattr(v, "jaxpr", v) for v in values]
    return [v for v in values if isinstance(v, Jaxpr)]


def pays(inside: str | None, operands: Any) -> bool:
    """Whether a loop inside nothing, a "loop" or a "kernel" should become a kernel of its own.

    A call copies what it changes. Inside a kernel another one gains nothing, and inside a loop the copies come trip
    after trip: with a log of large states they cost ten times the solve.
    """
    if inside == "kernel":
        return False
    return inside is None or sum(x.size * x.dtype.itemsize for x in operands) <= COPIED


def partitioned(ctx: Any) -> bool:
    """Whether XLA will divide the program among devices, so that its loops may call others, which no kernel can.

    Inside a `shard_map` over all axes every device has a program of its own.
    """
    context = ctx.module_context.axis_context
    if hasattr(context, "mesh"):
        return any(context.mesh.shape[axis] > 1 for axis in {*context.mesh.axis_names} - context.manual_axes)
    return getattr(context, "num_devices", 1) > 1


def becomes_one(ctx: Any, inside: str | None, *programs: ClosedJaxpr) -> bool:
    """Whether what runs these programs is lowered as a kernel."""
    return pays(inside, ctx.avals_in) and all(fits(p.jaxpr) for p in programs) and not partitioned(ctx)


def nest(program: Any, inside: str) -> Any:
    """The program with whatever asks told what it is inside of."""
    if isinstance(program, tuple):
        return tuple(nest(x, inside) for x in program)
    if not isinstance(program, Jaxpr):  # newer versions of JAX have made one class of the two
        closed = isinstance(program, ClosedJaxpr)
        return program.replace(jaxpr=nest(program.jaxpr, inside)) if closed else program

    def told(eqn):
        if "inside" in eqn.params:
            return eqn.replace(params={**eqn.params, "inside": inside})
        if eqn.primitive.name not in LOOPED:
            return eqn
        return eqn.replace(params={k: nest(v, inside) for k, v in eqn.params.items()})

    return program.replace(eqns=[told(eqn) for eqn in program.eqns])


def lower(ctx: Any, run: Callable, results: int, operands: Any, one: bool) -> Any:
    """Lower `run(*operands)` as a kernel, or as its parts."""
    if one:
        return lower_as_one(ctx, run, results, operands)
    return mlir.lower_fun(run, multiple_results=True)(ctx, *operands)


def lower_as_one(ctx: Any, run: Callable, results: int, operands: Any) -> Any:
    """Lower `run(*operands)` as one call that XLA neither inlines nor cuts up; a version that cannot ignores the wish.

    The emitter looks for the buffer of every parameter among the operands of the operations inside, and aborts when
    optimisation left one without a use: so each is read once, into a result that nobody looks at.
    """

    @jax.jit
    def kernel(*xs):
        return [*run(*xs), *(lax.slice(x, (0,) * x.ndim, (min(1, x.size),) * x.ndim) for x in xs)]

    def fenced(*xs):
        # both fences are needed: XLA carries a constant into a call, which leaves its parameter without a use, and
        # drops a result that has none
        return lax.optimization_barrier(kernel(*lax.optimization_barrier(xs)))

    lowered = mlir.lower_fun(fenced, multiple_results=True)(ctx, *operands)
    attributes: dict[str, ir.Attribute] = {name: ir.StringAttr.get(value) for name, value in ATTRIBUTES.items()}
    call = lowered[0].owner.operands[0].owner
    call.attributes["mhlo.frontend_attributes"] = ir.DictAttr.get(attributes)
    return lowered[:results]
