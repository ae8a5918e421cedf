"""All that this library takes from JAX beyond its public API, in one place; `docs/jax-internals.md` says what for.

A primitive is `defined` here once and has every rule that JAX's own have. Each of them has a *plain* form, written in
public JAX, with the same numbers; wherever a rule of ours knows too little (a name for the lanes that the program uses,
an explicit mesh, lanes of a size that is a symbol, none at all, effects), JAX's own rules for the plain form take over.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import numbers
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import ShapedArray as ShapedArray
from jax.core import Tracer as Tracer
from jax.core import eval_jaxpr as eval_jaxpr
from jax.extend.core import Jaxpr as Jaxpr
from jax.extend.core import Literal as Literal
from jax.extend.core import Primitive as Primitive
from jax.extend.core import jaxpr_as_fun as _as_fun
from jax.extend.mlir import ir
from jax.interpreters import ad, batching, mlir, partial_eval

if TYPE_CHECKING:
    from jax.extend.core import Jaxpr as ClosedJaxpr  # newer versions of JAX have made one class of the two
else:
    from jax.extend.core import ClosedJaxpr as ClosedJaxpr

TESTED = ((0, 7), (0, 8), (0, 9), (0, 10), (0, 11), (0, 12))
"""the minor versions of JAX that this library has been tested with; on any other one the plain path is taken"""

is_undefined_primal, instantiate_zeros = ad.is_undefined_primal, ad.instantiate_zeros
Zero = ad.Zero


# ---- the plain path

_failed: contextvars.ContextVar[bool] = contextvars.ContextVar("failed", default=False)


def plain_path() -> bool:
    """Whether public JAX alone is to be used: asked for, on a version never tried, or since the fast path failed.

    JAXDIFFEQ_PLAIN=1 asks for it, JAXDIFFEQ_PLAIN=0 for the fast path whatever the version.
    """
    setting = os.environ.get("JAXDIFFEQ_PLAIN", "")
    if setting not in ("", "0"):
        return True
    return _failed.get() or (setting == "" and not is_tested())


@functools.cache
def is_tested() -> bool:
    version = tuple(int(part) for part in jax.__version__.split(".")[:2])
    if version not in TESTED:
        warnings.warn(
            f"jaxdiffeq has not been tested with JAX {jax.__version__} and takes the plain path, which is slower.",
            stacklevel=2,
        )
    return version in TESTED


@contextlib.contextmanager
def on_plain_path(plain: bool = True) -> Iterator[None]:
    """What is traced in here is `plain`, or as it is anyway."""
    token = _failed.set(plain or _failed.get())
    try:
        yield
    finally:
        _failed.reset(token)


def as_now(fun: Callable) -> Callable:
    """`fun`, which JAX calls later, on the path that is taken now."""
    plain = _failed.get()

    @functools.wraps(fun)
    def later(*args):
        with on_plain_path(plain):
            return fun(*args)

    return later


def warn_of_failure(what: str, error: Exception) -> None:
    """Once for each kind of failure."""
    _warn(what, f"{type(error).__name__}: {error}".split("\n")[0])


@functools.cache
def _warn(what: str, error: str) -> None:
    warnings.warn(
        f"jaxdiffeq could not build {what} with JAX {jax.__version__} ({error}) and takes the plain path instead, "
        "which is slower. JAXDIFFEQ_PLAIN=1 takes it from the start.",
        stacklevel=4,
    )


def or_plain(what: str, ours: Callable, plain: Callable) -> Callable:
    """`ours`, and `plain` where that fails; an error that both make is that of `plain`."""

    @functools.wraps(ours)
    def rule(*args, **kwargs):
        try:
            return ours(*args, **kwargs)
        except NotImplementedError:
            raise  # what is not defined is not defined by public means either
        except Exception as error:
            out = plain(*args, **kwargs)
            warn_of_failure(what, error)
            return out

    return rule


# ---- what is known of arrays and programs


def aval_of(x: Any) -> Any:
    """The shape and dtype of a variable of a program, of a literal, or of an operand that is not known."""
    return x.aval


def varying(aval: Any) -> frozenset:
    """The mesh axes over which a value varies inside `shard_map`; JAX has renamed the attribute."""
    aval = aval if isinstance(aval, ShapedArray) else jax.typeof(aval)
    return getattr(getattr(aval, "mat", None), "varying", getattr(aval, "vma", frozenset()))


def is_common(*avals: Any) -> bool:
    """Whether all sizes are numbers, no mesh axis is explicit, and no element is more than a number."""
    for x in avals:
        sharding = getattr(x, "sharding", None)
        placed = sharding is not None and any(part is not None for part in getattr(sharding, "spec", ()) or ())
        sized = all(isinstance(n, int) for n in x.shape)
        if placed or not sized or jnp.issubdtype(x.dtype, jax.dtypes.extended):
            return False
    return True


def has_effects(*programs: ClosedJaxpr) -> bool:
    """Whether a program does more than compute its results: prints, asks the host, or writes to a reference."""
    return any(not _is_axis(effect) for p in programs for effect in p.jaxpr.effects)


def _is_axis(effect: Any) -> bool:
    return type(effect).__name__ == "NamedAxisEffect"


SILENT = frozenset(["axis_index", "pvary", "pcast", "shard_map"])
"""what has names of axes, but does not talk across them, or across its own only"""


def axes_crossed(*programs: Jaxpr) -> set[Any]:
    """The names of lanes, or of devices, that the programs talk across.

    Read off the operations: of their effects some collectives have none, and the number of a lane has one.
    """
    found: set[Any] = set()
    for eqn in (eqn for program in programs for eqn in program.eqns if eqn.primitive.name not in SILENT):
        names = [eqn.params.get("axis_name"), *(eqn.params.get("axes") or ())]
        names = [n for name in names for n in (name if isinstance(name, tuple | list) else [name])]
        found |= {n for n in names if n is not None and not isinstance(n, numbers.Integral)}
        found |= axes_crossed(*programs_in(eqn.params))
    return found


def uses_axis(name: Any, *programs: ClosedJaxpr) -> bool:
    """Whether a program reads the number of the lane of this name, or talks across such lanes."""
    effects: list[Any] = [e for p in programs for e in p.jaxpr.effects if _is_axis(e)]
    return any(e.name == name for e in effects) or crosses_axis(name, *programs)


def crosses_axis(name: Any, *programs: ClosedJaxpr) -> bool:
    """Whether a program talks across the lanes of this name."""
    return name in axes_crossed(*(p.jaxpr for p in programs))


def jaxpr_as_fun(closed: ClosedJaxpr) -> Callable:
    """The program as a function, also of values that vary over more mesh axes than those it was traced with."""

    def run(*xs):
        if all(varying(x) <= varying(a) for x, a in zip(xs, closed.in_avals, strict=True)):
            return _as_fun(closed)(*xs)
        return _wider(closed, xs)

    return run


def _wider(closed: ClosedJaxpr, xs: Sequence[Any]) -> list:
    """Operation by operation: one that marks a value as varying is an error to JAX where it does already."""
    jaxpr = closed.jaxpr
    known: dict[Any, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*closed.consts, *xs], strict=True))
    read = lambda atom: atom.val if isinstance(atom, Literal) else known[atom]
    for eqn in jaxpr.eqns:
        ins = [read(v) for v in eqn.invars]
        if eqn.primitive.name in ("pvary", "pcast") and set(eqn.params["axes"]) <= varying(ins[0]):
            outs = ins
        else:
            given = eqn.primitive.get_bind_params(eqn.params)
            parts, params = given if isinstance(given, tuple) else ((), given)
            found = eqn.primitive.bind(*parts, *ins, **params)
            outs = found if eqn.primitive.multiple_results else [found]
        known |= zip(eqn.outvars, outs, strict=True)
    return [read(v) for v in jaxpr.outvars]


def consts_first(closed: ClosedJaxpr) -> ClosedJaxpr:
    """The same function with its constants as leading arguments, so that tracers may be among them."""
    jaxpr = closed.jaxpr
    names = jaxpr.debug_info.arg_names
    info = jaxpr.debug_info._replace(arg_names=("",) * len(jaxpr.constvars) + tuple(names or ()))
    return ClosedJaxpr(jaxpr.replace(constvars=[], invars=[*jaxpr.constvars, *jaxpr.invars], debug_info=info), [])


def only(body: ClosedJaxpr, outs: Sequence[int]) -> ClosedJaxpr:
    """The program of these outputs alone."""
    jaxpr = body.jaxpr
    outvars = [jaxpr.outvars[i] for i in outs]
    wanted, eqns = {v for v in outvars if not isinstance(v, Literal)}, []
    for eqn in reversed(jaxpr.eqns):
        if wanted.intersection(eqn.outvars):
            eqns.append(eqn)
            wanted |= {v for v in eqn.invars if not isinstance(v, Literal)}
    info = jaxpr.debug_info._replace(result_paths=None)
    return ClosedJaxpr(jaxpr.replace(outvars=outvars, eqns=eqns[::-1], debug_info=info), [])


def programs_in(params: Any) -> list[Jaxpr]:
    """The programs among the parameters of an equation."""
    values = [v for p in params.values() for v in (p if isinstance(p, tuple | list) else [p])]
    values = [getattr(v, "jaxpr", v) for v in values]
    return [v for v in values if isinstance(v, Jaxpr)]


def scan_counts(params: dict) -> tuple[int, int]:
    """How many constants and how many values in the carry an equation of `lax.scan` has; JAX has changed its form."""
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    consts, carry, _ = params["ft_in"].unpack()
    return len(consts), len(carry)


def rewritten(program: Any, change: Callable) -> Any:
    """The program, or the programs in a tuple, with every equation replaced by `change(equation)`."""
    if isinstance(program, tuple):
        return tuple(rewritten(x, change) for x in program)
    if not isinstance(program, Jaxpr):
        closed = isinstance(program, ClosedJaxpr)
        return program.replace(jaxpr=rewritten(program.jaxpr, change)) if closed else program
    return program.replace(eqns=[change(eqn) for eqn in program.eqns])


def bind_while(cond: ClosedJaxpr, body: ClosedJaxpr, of_cond: list, of_body: list, carry: list) -> list:
    """`lax.while_loop` of programs that are there, which it would trace again."""
    counts = {"cond_nconsts": len(of_cond), "body_nconsts": len(of_body)}
    return lax.while_p.bind(*of_cond, *of_body, *carry, **counts, cond_jaxpr=cond, body_jaxpr=body)


# ---- tangents


def symbolic_zero(x: Any) -> ad.Zero:
    """The tangent of what does not vary, in the space of the tangents of `x`."""
    return ad.Zero(jax.typeof(x).to_tangent_aval())


def zero_tangent(x: Any) -> Any:
    """The same for the rule of a `custom_jvp`."""
    return jax.custom_derivatives.SymbolicZero(jax.typeof(x).to_tangent_aval())


def is_live(tangent: Any, primal: Any) -> bool:
    return type(tangent) is not ad.Zero and jnp.issubdtype(jnp.result_type(primal), jnp.inexact)


# ---- primitives


def define(
    name: str,
    plain: Callable,
    *,
    abstract: Callable,
    jvp: Callable,
    batch: Callable,
    transpose: Callable,
    run: Callable | None = None,
    on_cpu: Callable | None = None,
    programs: Sequence[str] = (),
    several: bool = True,
    any_lanes: bool = False,
) -> Primitive:
    """A primitive that is `plain(*operands, **params)` wherever it is nothing better.

    `batch(lanes, operands, dims, **params)` serves lanes without a name that the program uses; `lanes.size` is their
    number. `run` is `plain` where no derivative will be asked for, `on_cpu(ctx, *operands, **params)` lowers it for a
    CPU, in a program of one device. `programs` are the parameters that hold programs; `several`: results are a list;
    `any_lanes`: `batch` knows of lanes what JAX does.
    """
    primitive = Primitive(name)
    primitive.multiple_results = several
    run = run or plain
    primitive.def_impl(lambda *xs, **params: jax.jit(functools.partial(run, **params))(*xs))
    primitive.def_effectful_abstract_eval(lambda *xs, **params: (abstract(*xs, **params), _axes_in(params, programs)))
    lower_plain = mlir.lower_fun(run, multiple_results=several)
    mlir.register_lowering(primitive, lower_plain)
    if on_cpu is not None:
        ours = or_plain("a kernel", on_cpu, lower_plain)

        def lower_on_cpu(ctx, *operands, **params):
            return (ours if _is_whole(ctx) else lower_plain)(ctx, *operands, **params)

        mlir.register_lowering(primitive, lower_on_cpu, "cpu")
    ad.primitive_jvps[primitive] = jvp
    ad.primitive_transposes[primitive] = transpose

    def lanes(axis, operands, dims, **params):
        held = [params[p] for p in programs if isinstance(params[p], ClosedJaxpr)]
        if all(d is None for d in dims) and not uses_axis(axis.name, *held):
            out = primitive.bind(*operands, **params)
            return out, ([None] * len(out) if several else None)
        return (ours_lanes if any_lanes or _are_ours(axis, held) else by_jax)(axis, operands, dims, **params)

    def by_jax(axis, operands, dims, **params):
        out = over_lanes(functools.partial(plain, **params), dims, 0, axis)(*operands)
        return out, ([0] * len(out) if several else 0)

    ours_lanes = or_plain("lanes", batch, by_jax)
    batching.fancy_primitive_batchers[primitive] = lanes
    _register_hijax(primitive, plain, programs)
    return primitive


def _axes_in(params: dict, programs: Sequence[str]) -> Any:
    """The effects of a primitive: the named lanes that its programs talk across."""
    held = [params[p] for p in programs if isinstance(params[p], ClosedJaxpr)]
    return frozenset(e for p in held for e in p.jaxpr.effects if _is_axis(e)) if held else frozenset()


def over_lanes(fun: Callable, in_axes: Sequence[Any], out_axes: Any, lanes: Any) -> Callable:
    """`fun` in all of these lanes, under the name that they have."""
    how = {"axis_name": lanes.name, "axis_size": lanes.size, "spmd_axis_name": lanes.spmd_name}
    if any(axis is not None for axis in in_axes):
        return jax.vmap(fun, in_axes=tuple(in_axes), out_axes=out_axes, **how)
    many = jax.vmap(lambda _, *xs: fun(*xs), in_axes=(0, *in_axes), out_axes=out_axes, **how)
    return lambda *xs: many(jnp.zeros(lanes.size), *xs)


def has_name(lanes: Any) -> bool:
    """Whether the user has named these lanes; JAX gives others an object of its own."""
    kind = type(lanes.name)
    return kind is not object and not kind.__module__.startswith("jax")


def without_lanes(x: Any, axis: int | None) -> jax.ShapeDtypeStruct:
    """What one lane sees of `x`."""
    shape = [n for i, n in enumerate(jnp.shape(x)) if i != axis]
    return jax.ShapeDtypeStruct(shape, jnp.result_type(x))


def _are_ours(axis: Any, programs: Sequence[ClosedJaxpr]) -> bool:
    """Whether rules that know no more of lanes than their number are enough."""
    placed = axis.spmd_name is not None or axis.explicit_mesh_axis is not None
    return not placed and isinstance(axis.size, int) and axis.size > 0 and not uses_axis(axis.name, *programs)


def _register_hijax(primitive: Primitive, plain: Callable, programs: Sequence[str]) -> None:
    """Programs with values or operations that JAX lowers in a step of its own, before anything becomes MLIR."""

    def to_lojax(*operands, **params):
        if not hasattr(partial_eval, "lower_jaxpr2"):
            return plain(*operands, **params)
        held = {p: params[p] for p in programs if isinstance(params[p], ClosedJaxpr)}
        return primitive.bind(*operands, **params | {p: partial_eval.lower_jaxpr2(x) for p, x in held.items()})

    primitive.to_lojax = to_lojax


# ---- lowering


def _is_whole(ctx: Any) -> bool:
    """Whether the program is for one device, to be run where it is compiled: else its parts may be taken elsewhere."""
    return not ctx.module_context.lowering_parameters.for_export and not partitioned(ctx)


def partitioned(ctx: Any) -> bool:
    """Whether XLA will divide the program among devices, so that its loops may call others, which no kernel can.

    Inside a `shard_map` over all axes every device has a program of its own.
    """
    context = ctx.module_context.axis_context
    if hasattr(context, "mesh"):
        return any(context.mesh.shape[axis] > 1 for axis in {*context.mesh.axis_names} - context.manual_axes)
    return getattr(context, "num_devices", 1) > 1


def lower(ctx: Any, run: Callable, operands: Any) -> Any:
    """Lower `run(*operands)` as its parts."""
    return mlir.lower_fun(run, multiple_results=True)(ctx, *operands)


def lower_as_call(ctx: Any, run: Callable, operands: Any, attributes: dict[str, str]) -> Any:
    """Lower `run(*operands)` as one call that has these attributes, and that XLA neither inlines nor cuts up.

    The emitter of such a call looks for the buffer of every parameter among the operands of the operations inside, and
    aborts the process when one is without a use: so each is read once, into a result that nobody looks at, and what has
    no elements, which cannot be read, stays outside. Two fences keep it so: XLA carries a constant into a call, which
    leaves its parameter without a use, and drops a result that has none.
    """
    full = [x.size > 0 for x in ctx.avals_in]
    results = 0

    def fenced(*xs):
        nonlocal results

        @jax.jit
        def kernel(*some):
            nonlocal results
            rest = iter(some)
            out = run(*(next(rest) if keep else jnp.zeros(x.shape, x.dtype) for keep, x in zip(full, xs, strict=True)))
            results = len(out)
            return [*out, *(lax.slice(x, (0,) * x.ndim, (1,) * x.ndim) for x in some)]

        some = [x for keep, x in zip(full, xs, strict=True) if keep]
        return lax.optimization_barrier(kernel(*lax.optimization_barrier(some)))

    lowered = lower(ctx, fenced, operands)
    call = lowered[0].owner.operands[0].owner
    wanted: dict[str, ir.Attribute] = {name: ir.StringAttr.get(value) for name, value in attributes.items()}
    call.attributes["mhlo.frontend_attributes"] = ir.DictAttr.get(wanted)
    return lowered[:results]
