"""A while loop that stays cheap under `vmap` and knows what is constant to differentiation.

`lax.while_loop` under `vmap` selects, lane by lane and on every trip, between the old and the new value of the whole
carry, buffers included, and its derivative carries a tangent for whatever might have one. The loops of this library
leave a finished lane alone by themselves, and step sizes are constants to differentiation, so both costs can go.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import ShapedArray
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir

from jaxdiffeq.primitives.cpu_kernel import becomes_one, lower, nest
from jaxdiffeq.types import PyTree

frozen_while_p = Primitive("frozen_while")
frozen_while_p.multiple_results = True


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
    assert len(step.out_avals) == len(flat), f"the carry changes type: {tree} became {len(step.out_avals)} arrays"
    flat = [
        x if isinstance(x, jax.ShapeDtypeStruct) else vary(x, axes_of(a))
        for x, a in zip(flat, step.in_avals, strict=True)
    ]
    test = jax.make_jaxpr(lambda *xs: cond(*tree.unflatten(xs)))(*step.in_avals)
    out = frozen_while_p.bind(
        *test.consts,
        *step.consts,
        *(x for x in flat if not isinstance(x, jax.ShapeDtypeStruct)),
        cond=consts_first(test),
        body=consts_first(step),
        consts=(len(test.consts), len(step.consts)),
        empty=tuple((i, x.shape, x.dtype) for i, x in enumerate(flat) if isinstance(x, jax.ShapeDtypeStruct)),
        moving=len(jax.tree.leaves(carry)),
        inside=None,
    )
    return tree.unflatten(out)


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


def axes_of(x: Any) -> frozenset:
    """The mesh axes over which `x` varies inside `shard_map`; JAX has renamed the attribute."""
    if isinstance(x, jax.ShapeDtypeStruct):
        return frozenset()
    aval = x if isinstance(x, ShapedArray) else jax.typeof(x)
    return getattr(getattr(aval, "mat", None), "varying", getattr(aval, "vma", frozenset()))


def vary(x: Any, axes: frozenset) -> Any:
    """`x` marked as varying over these axes: the carry of a loop must say before the first trip what it does after."""
    missing = tuple(axes - axes_of(x))
    if isinstance(x, jax.ShapeDtypeStruct) and missing:
        x = lax.empty(x.shape, x.dtype)
    if not missing:
        return x
    if hasattr(lax, "pcast"):
        return lax.pcast(x, missing, to="varying")
    return lax.pvary(x, missing)  # pyright: ignore[reportAttributeAccessIssue]  before JAX 0.8.2


def match_varying_axes(tree: PyTree) -> PyTree:
    """The tree with every leaf varying over the axes over which any of them does; no change outside of `shard_map`.

    A derivative is then summed over these axes outside of what is done with the tree, whose loops differ in length.
    """
    axes = frozenset().union(*map(axes_of, jax.tree.leaves(tree)))
    return jax.tree.map(lambda x: vary(x, axes), tree)


def vary_like(tree: PyTree, y: jax.Array) -> PyTree:
    """The tree with every leaf varying where `y` does: what begins as zeros, and is to be like y later on."""
    return jax.tree.map(lambda x: vary(x, axes_of(y)), tree)


def zeros_of(aval: Any) -> jax.Array:
    return vary(jnp.zeros(aval.shape, aval.dtype), axes_of(aval))


def _check_carry(outs: Sequence[Any], flat: Sequence[Any], tree: Any) -> None:
    before = [(x.shape, x.dtype) for x in flat]
    after = [(x.shape, x.dtype) for x in outs]
    assert before == after, f"the carry changes type: {tree.unflatten(before)} became {after}"


def consts_first(closed: ClosedJaxpr) -> ClosedJaxpr:
    """The same function with its constants as leading arguments, so that tracers may be among them."""
    jaxpr = closed.jaxpr
    names = jaxpr.debug_info.arg_names
    info = jaxpr.debug_info._replace(arg_names=("",) * len(jaxpr.constvars) + tuple(names or ()))
    return ClosedJaxpr(
        jaxpr.replace(constvars=[], invars=[*jaxpr.constvars, *jaxpr.invars], debug_info=info),
        [],
    )


def _split(operands: Sequence[Any], consts: tuple[int, int], empty: Any = (), fill: Any = None) -> tuple:
    """The constants of the two programs, and the carry, with `fill` in the places of its empty buffers."""
    a, b = consts
    carry = list(operands[a + b :])
    for i, shape, dtype in empty:
        carry.insert(i, jax.ShapeDtypeStruct(shape, dtype) if fill is None else fill(shape, dtype))
    return list(operands[:a]), list(operands[a : a + b]), carry


def _run(*operands, cond, body, consts, empty, moving, inside):
    of_cond, of_body, carry = _split(operands, consts, empty, lax.empty)
    carry = [vary(x, axes_of(like)) for x, like in zip(carry, body.out_avals, strict=True)]
    counts = {"cond_nconsts": len(of_cond), "body_nconsts": len(of_body)}
    # not lax.while_loop, which would trace both programs again
    return lax.while_p.bind(*of_cond, *of_body, *carry, **counts, cond_jaxpr=cond, body_jaxpr=body)


def _jvp(primals, tangents, *, cond, body, **params):
    consts, empty, moving = params["consts"], params["empty"], params["moving"]
    of_cond, of_body, carry = _split(primals, consts, empty)
    _, d_of_body, d_carry = _split(tangents, consts, empty)
    live = [i for i, d in enumerate(d_of_body) if is_live(d, of_body[i])]
    real = [i for i in range(moving) if jnp.issubdtype(carry[i].dtype, jnp.inexact)]
    if not live and all(isinstance(d_carry[i], ad.Zero | jax.ShapeDtypeStruct) for i in real):
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
    full = lambda d: d if isinstance(d, jax.ShapeDtypeStruct) else ad.instantiate_zeros(d)
    start = carry[:moving], [vary(full(d_carry[i]), axes_of(body.out_avals[i])) for i in real]
    (out, d_out), fixed = frozen_while(test, derivative, start, carry[moving:])
    everything = [*out, *fixed]
    zeros = [symbolic_zero(x) for x in everything]
    return everything, put(zeros, real, d_out)


def symbolic_zero(x: Any) -> ad.Zero:
    """The tangent of what does not vary, in the space of the tangents of `x`."""
    return ad.Zero(jax.typeof(x).to_tangent_aval())


def zero_tangent(x: Any) -> SymbolicZero:
    """The same for the rule of a `custom_jvp`."""
    return SymbolicZero(jax.typeof(x).to_tangent_aval())


def is_live(tangent: Any, primal: Any) -> bool:
    return type(tangent) is not ad.Zero and jnp.issubdtype(jnp.result_type(primal), jnp.inexact)


def put(xs: Sequence[Any], where: Sequence[int], values: Sequence[Any]) -> list:
    out = list(xs)
    for i, value in zip(where, values, strict=True):
        out[i] = value
    return out


def _batch(operands, dims, *, cond, body, consts, empty, moving, inside):
    size, front = lanes_first(operands, dims)
    of_cond, of_body, carry = _split(front, consts, empty)
    m_cond, m_body, given = _split([d is not None for d in dims], consts, empty, lambda *_: False)

    _, m_carry = reached(body, (len(m_body), len(given)), [*m_body, *given])
    carry = [x if had == has else widen(x, size) for x, had, has in zip(carry, given, m_carry, strict=True)]

    def axes(flags):
        return [0 if m else None for m in flags]

    step = jax.vmap(jaxpr_as_fun(body), in_axes=axes([*m_body, *m_carry]), out_axes=axes(m_carry), axis_size=size)
    (together,) = _hits(dependencies(cond.jaxpr), [*m_cond, *m_carry])
    test = jax.vmap(jaxpr_as_fun(cond), in_axes=axes([*m_cond, *m_carry]), axis_size=size) if together else None

    def any_lane(c, f):
        if test is None:
            return jaxpr_as_fun(cond)(*of_cond, *c, *f)[0]
        return jnp.any(test(*of_cond, *c, *f)[0])

    def every_lane(c, f):
        out = step(*of_body, *c, *f)
        return out[:moving], out[moving:]

    moved, fixed = frozen_while(any_lane, every_lane, carry[:moving], carry[moving:])
    return [*moved, *fixed], [0 if m else None for m in m_carry]


def lanes_first(operands: Sequence[Any], dims: Sequence[Any]) -> tuple[int, list]:
    """How many lanes there are, and the operands with the axis of lanes, where they have one, in front."""
    size = next(x.shape[d] for x, d in zip(operands, dims, strict=True) if d is not None)
    return size, [x if d is None else jnp.moveaxis(x, d, 0) for x, d in zip(operands, dims, strict=True)]


def widen(x: Any, size: int) -> Any:
    if isinstance(x, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct((size, *x.shape), x.dtype)
    return jnp.broadcast_to(x, (size, *jnp.shape(x)))


def _hits(touched: Sequence[frozenset[int]], flags: Sequence[bool]) -> list[bool]:
    return [any(flags[i] for i in inputs) for inputs in touched]


def reached(body: ClosedJaxpr, counts: tuple[int, int], flags: list[bool]) -> tuple[list[bool], list[bool]]:
    """The inputs and the outputs of a trip that depend on the operands that are flagged, after any number of trips.

    Of the inputs, counts[0] are constants and the next counts[1] the carry, with which the outputs begin.
    """
    a, b = counts
    touched = dependencies(body.jaxpr)
    while True:
        hits = _hits(touched, flags)
        wider = [*flags[:a], *map(operator.or_, flags[a : a + b], hits), *flags[a + b :]]
        if wider == flags:
            return flags, [*flags[a : a + b], *hits[b:]]
        flags = wider


def dependencies(jaxpr: Jaxpr) -> list[frozenset[int]]:
    """For each output of `jaxpr`, the inputs that its value may depend on."""
    known: dict[Any, frozenset[int]] = {v: frozenset([i]) for i, v in enumerate(jaxpr.invars)}

    def of(atom):
        return frozenset() if isinstance(atom, Literal) else known.get(atom, frozenset())

    for eqn in jaxpr.eqns:
        ins = [of(v) for v in eqn.invars]
        inner = _inner_dependencies(eqn)
        for k, v in enumerate(eqn.outvars):
            known[v] = frozenset().union(*(ins if inner is None else [ins[i] for i in inner[k]]))
    return [of(v) for v in jaxpr.outvars]


def _inner_dependencies(eqn: Any) -> list[frozenset[int]] | None:
    """The same for one equation that holds a program of its own; None: every output depends on every input."""
    if eqn.primitive is frozen_while_p:
        return _loop_dependencies(**eqn.params)
    if eqn.primitive.name == "cond":
        branches = [dependencies(b.jaxpr) for b in eqn.params["branches"]]
        return [frozenset({0}).union(*({i + 1 for i in d} for d in outs)) for outs in zip(*branches, strict=True)]
    inner = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
    inner = getattr(inner, "jaxpr", inner)
    if eqn.primitive.name in ("scan", "while") or inner is None or not hasattr(inner, "invars"):
        return None
    if len(inner.invars) != len(eqn.invars) or len(inner.outvars) != len(eqn.outvars):
        return None
    return dependencies(inner)


def _loop_dependencies(cond, body, consts, empty, moving, inside) -> list[frozenset[int]]:
    a, b = consts
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
    return lower(ctx, run, len(body.out_avals), operands, one)


def _no_reverse(*_, **__):
    raise NotImplementedError(
        "reverse-mode differentiation reached the inside of a solve. Take second derivatives with forward mode on the "
        "outside: jax.hessian, or jax.jacfwd(jax.grad(...))."
    )


def register(primitive: Primitive, run: Callable, lower_on_cpu: Callable, jvp: Callable, batch: Callable) -> None:
    """The rules of a primitive that is `run` wherever it is no kernel, and has forward mode only."""
    primitive.def_impl(lambda *xs, **params: jax.jit(functools.partial(run, **params))(*xs))
    mlir.register_lowering(primitive, mlir.lower_fun(run, multiple_results=True))
    mlir.register_lowering(primitive, lower_on_cpu, platform="cpu")
    ad.primitive_jvps[primitive] = jvp
    ad.primitive_transposes[primitive] = _no_reverse
    batching.primitive_batchers[primitive] = batch


frozen_while_p.def_abstract_eval(lambda *_, body, **__: body.out_avals)
register(frozen_while_p, _run, _lower_on_cpu, _jvp, _batch)
