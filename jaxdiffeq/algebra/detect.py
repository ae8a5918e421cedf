"""The pattern of ∂f/∂y, read off the program of f.

The derivative of f along v is a linear program in v. Walking through it with, for every element of every array, the set
of components of v that it may depend on ends with the pattern of ∂f/∂y, for all values of t, y and args; constants are
known, and zeros among them break a dependence. It takes numpy, no evaluation of f, and memory as large as the sets.
Whatever is not understood depends on all that goes into it: the pattern is never too small.

Source: Giering, Kaminski, ACM Trans. Math. Softw. 24 (1998) 437; Griewank, Walther, Evaluating Derivatives, 7.1.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdiffeq.algebra.structure import Dense, Sparse
from jaxdiffeq.primitives.jax_internals import Literal, Tracer, aval_of, jaxpr_as_fun, scan_counts

MOST = 2**23
"""members of the sets of one array, above which f counts as dense"""
UNROLLED = 64
"""trips of a loop with a memory that are told apart"""


@dataclass(frozen=True)
class Detected:
    """Where ∂f/∂y may differ from zero is found from the program of f, when that is traced.

    The pattern holds for every t, y and args. Dense where that is no worse, and for a mass matrix that is no diagonal.
    """

    def bind(self, n: int) -> Dense:
        """What is right without having looked."""
        return Dense()


def detect(f: Callable, y: jax.Array, rest: Any) -> Sparse | Dense:
    """The structure of ∂f(y, rest)/∂y, of components in the order of `y.reshape(-1)`, whatever y and `rest` are.

    What f closes over is known where it is not traced.
    """
    try:
        sets = pattern(f, y, rest)
    except TooMany:
        return Dense()
    length = np.diff(sets.starts)
    if 4 * length.max(initial=0) >= y.size:  # as many derivatives, then, as a quarter of the columns
        return Dense()
    return Sparse(tuple(np.repeat(np.arange(y.size), length).tolist()), tuple(sets.members.tolist()))


def each_by_itself(f: Callable, y: jax.Array, rest: Any) -> bool:
    """Whether it is known that every number of f(y, rest), which is like y, depends on its own number of y alone."""
    try:
        sets = pattern(f, y, rest)
    except TooMany:
        return False
    rows = np.repeat(np.arange(y.size), np.diff(sets.starts))
    return bool(np.array_equal(rows, sets.members))


def pattern(f: Callable, y: jax.Array, rest: Any) -> Sets:
    """The columns of each row of ∂f(y, rest)/∂y that may differ from zero."""

    def along(v, y, rest):
        return jax.jvp(lambda y: f(y, rest), (y,), (v,))[1]

    closed = jax.make_jaxpr(along)(y, y, rest)
    n = y.size
    start = Facts(y.shape, Sets(np.arange(n + 1), np.arange(n)))
    others = [Facts(aval_of(x).shape) for x in closed.jaxpr.invars[1:]]
    (end,) = _Walk(n).run(closed.jaxpr, [_constant(x) for x in closed.consts], [start, *others])
    return Sets(np.zeros(n + 1, int), np.zeros(0, int)) if end.sets is None else end.sets


# ---- sets


class TooMany(Exception):
    """The sets are too large to be worth it."""


class Sets(NamedTuple):
    """For element e of an array the components members[starts[e] : starts[e + 1]], in increasing order."""

    starts: np.ndarray
    members: np.ndarray


class Facts(NamedTuple):
    """What is known of an array in the program: no sets, it depends on none; no value, it is not constant."""

    shape: tuple[int, ...]
    sets: Sets | None = None
    value: Callable[[], Any] | None = None

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def numbers(self) -> np.ndarray:
        """Of its elements, in its shape."""
        return np.arange(self.size).reshape(self.shape)


class Link(NamedTuple):
    """Facts to[k] of the result depends on element of[k] of an operand."""

    to: np.ndarray
    of: np.ndarray
    sets: Sets


def _bounded(count: Any) -> int:
    if count > MOST:
        raise TooMany
    return int(count)


def _union(size: int, width: int, links: Sequence[Link]) -> Sets:
    """The sets of the `size` elements of a result."""
    keys = []
    for to, of, (starts, members) in links:
        first, length = starts[of], starts[of + 1] - starts[of]
        total = _bounded(length.sum())
        begin = np.cumsum(length) - length
        keys.append(np.repeat(to * width, length) + members[np.arange(total) + np.repeat(first - begin, length)])
    _bounded(sum(len(k) for k in keys))
    key = np.concatenate(keys) if keys else np.zeros(0, np.int64)
    if not np.all(np.diff(key) > 0):
        key = np.unique(key)
    return Sets(np.searchsorted(key, np.arange(size + 1) * width), key % width)


def _constant(x: Any) -> Facts:
    return Facts(np.shape(x), None, None if isinstance(x, Tracer) else lambda: x)


def _known(x: Facts) -> np.ndarray | None:
    return None if x.value is None else np.asarray(x.value())


# ---- the walk


class _Walk:
    def __init__(self, width: int):
        self.width = width

    def run(self, jaxpr: Any, consts: Sequence[Facts], ins: Sequence[Facts]) -> list[Facts]:
        known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *ins], strict=True))

        def of(atom: Any) -> Facts:
            return _constant(atom.val) if isinstance(atom, Literal) else known[atom]

        for eqn in jaxpr.eqns:
            known.update(zip(eqn.outvars, self.equation(eqn, [of(x) for x in eqn.invars]), strict=True))
        return [of(x) for x in jaxpr.outvars]

    def closed(self, closed: Any, ins: Sequence[Facts]) -> list[Facts]:
        """A program with its constants, or one that has none."""
        consts = [_constant(x) for x in getattr(closed, "consts", ())]
        return self.run(getattr(closed, "jaxpr", closed), consts, ins)

    def equation(self, eqn: Any, ins: list[Facts]) -> list[Facts]:
        shapes, name = [aval_of(x).shape for x in eqn.outvars], eqn.primitive.name
        if name in NESTED:
            (inner,) = [eqn.params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in eqn.params][:1]
            return self.closed(inner, ins)
        if not any(x.sets for x in ins):
            known = all(x.value is not None for x in ins) and not eqn.effects
            values = _later(eqn, ins) if known else None
            return [Facts(s, None, _nth(values, k) if values else None) for k, s in enumerate(shapes)]
        if name in CONTROL:
            return CONTROL[name](self, eqn.params, ins)
        links = LINKS[name](eqn, ins) if name in LINKS else None
        if links is None:
            links = self.everything(shapes, ins)
        return [Facts(s, self.union(s, each)) for s, each in zip(shapes, links, strict=True)]

    def union(self, shape: tuple, links: Sequence[Link]) -> Sets | None:
        sets = _union(Facts(shape).size, self.width, links)
        return sets if len(sets.members) else None

    def either(self, xs: Sequence[Facts]) -> Facts:
        """One of several arrays of the same shape."""
        return Facts(xs[0].shape, self.union(xs[0].shape, _each(xs[0].shape, xs)))

    def everything(self, shapes: Sequence[tuple], ins: Sequence[Facts]) -> list[list[Link]]:
        """Every output depends on every input."""
        members = np.unique(np.concatenate([x.sets.members for x in ins if x.sets]))
        whole = Sets(np.array([0, len(members)]), members)
        return [[Link(np.arange(size), np.zeros(size, int), whole)] for size in (Facts(s).size for s in shapes)]


def _later(eqn: Any, ins: list[Facts]) -> Callable[[], Any]:
    """The outputs of an equation between constants, once somebody asks."""

    @functools.cache
    def values():
        with jax.ensure_compile_time_eval():
            out = eqn.primitive.bind(*[jnp.asarray(x.value()) for x in ins if x.value], **eqn.params)
            return out if eqn.primitive.multiple_results else [out]

    return values


def _nth(values: Callable[[], Any], k: int) -> Callable[[], Any]:
    return lambda: values()[k]


# ---- programs within the program


NESTED = (
    *("jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint"),
    *("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"),
)


def _cond(walk: _Walk, params: dict, ins: list[Facts]) -> list[Facts]:
    outs = [walk.closed(branch, ins[1:]) for branch in params["branches"]]
    return [walk.either(each) for each in zip(*outs, strict=True)]


def _while(walk: _Walk, params: dict, ins: list[Facts]) -> list[Facts]:
    a, b = params["cond_nconsts"], params["body_nconsts"]
    consts, carry = ins[a : a + b], ins[a + b :]
    return _settled(walk, carry, lambda carry: walk.closed(params["body_jaxpr"], [*consts, *carry]))


def _settled(walk: _Walk, carry: Sequence[Facts], body: Callable) -> list[Facts]:
    """The sets of a loop's memory after any number of trips."""
    before = [Facts(x.shape, x.sets) for x in carry]
    while True:
        after = [walk.either(pair) for pair in zip(before, body(before), strict=True)]
        sizes = [[0 if x.sets is None else len(x.sets.members) for x in xs] for xs in (before, after)]
        if sizes[0] == sizes[1]:
            return before
        before = after


def _scan(walk: _Walk, params: dict, ins: list[Facts]) -> list[Facts]:
    a, count = scan_counts(params)
    b = a + count
    consts, carry, xs = ins[:a], ins[a:b], ins[b:]
    body, length = params["jaxpr"], params["length"]
    if any(x.sets for x in carry) and length <= UNROLLED:
        return _trips(walk, params, consts, carry, xs)
    whole = [_any_row(walk, x) for x in xs]
    carry = _settled(walk, carry, lambda carry: walk.closed(body, [*consts, *carry, *whole])[: len(carry)])
    if any(x.sets for x in carry):
        if length <= UNROLLED:
            return _trips(walk, params, consts, ins[a:b], xs)
        ys = walk.closed(body, [*consts, *carry, *whole])[len(carry) :]
        return [*carry, *(_rows_alike(walk, y, length) for y in ys)]
    # without a memory every trip is on its own: all of them at once, in one program
    axes = [None] * b + [0] * len(xs)
    flat = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in body.in_avals[:b]]
    flat += [jax.ShapeDtypeStruct((length, *v.shape), v.dtype) for v in body.in_avals[b:]]
    many = jax.make_jaxpr(jax.vmap(jaxpr_as_fun(body), axes, axis_size=length))(*flat)
    return [*carry, *walk.closed(many, [*consts, *carry, *xs])[len(carry) :]]


def _trips(walk: _Walk, params: dict, consts: list, carry: list, xs: list) -> list[Facts]:
    """One trip after the other."""
    rows, length = [], params["length"]
    for k in reversed(range(length)) if params["reverse"] else range(length):
        now = [_rows(walk, x, slice(k, k + 1), x.shape[1:]) for x in xs]
        out = walk.closed(params["jaxpr"], [*consts, *carry, *now])
        carry, kept = out[: len(carry)], out[len(carry) :]
        rows.insert(0 if params["reverse"] else k, kept)
    ys = []
    for each in zip(*rows, strict=True):
        size, shape = each[0].size, (length, *each[0].shape)
        links = [Link(k * size + np.arange(size), np.arange(size), y.sets) for k, y in enumerate(each) if y.sets]
        ys.append(Facts(shape, walk.union(shape, links)))
    return [*carry, *ys]


def _rows(walk: _Walk, x: Facts, rows: slice, shape: tuple) -> Facts:
    if x.sets is None:
        return Facts(shape)
    of = x.numbers[rows].reshape(-1)
    return Facts(shape, walk.union(shape, [Link(np.arange(len(of)), of, x.sets)]))


def _any_row(walk: _Walk, x: Facts) -> Facts:
    shape = x.shape[1:]
    return Facts(shape, walk.union(shape, _summed(x, (0,)))) if x.sets else Facts(shape)


def _rows_alike(walk: _Walk, y: Facts, length: int) -> Facts:
    shape = (length, *y.shape)
    if y.sets is None:
        return Facts(shape)
    link = Link(np.arange(length * y.size), np.tile(y.numbers.reshape(-1), length), y.sets)
    return Facts(shape, walk.union(shape, [link]))


def _barrier(walk: _Walk, params: dict, ins: list[Facts]) -> list[Facts]:
    return [Facts(x.shape, x.sets) for x in ins]


CONTROL: dict[str, Callable] = {"cond": _cond, "while": _while, "scan": _scan, "optimization_barrier": _barrier}


# ---- linear operations: for each output, which elements it takes from where; None: not understood


def _each(shape: tuple, ins: Sequence[Facts]) -> list[Link]:
    """Element by element; along an axis of length one, the one goes to all."""
    to = np.arange(Facts(shape).size)
    return [Link(to, np.broadcast_to(x.numbers, shape).reshape(-1), x.sets) for x in ins if x.sets]


def _elementwise(eqn: Any, ins: list[Facts]) -> list[list[Link]]:
    return [_each(aval_of(eqn.outvars[0]).shape, ins)]


def _product(eqn: Any, ins: list[Facts]) -> list[list[Link]]:
    """Nothing comes through a constant zero."""
    ((link,),) = _elementwise(eqn, ins)
    factor = _known(ins[1] if ins[0].sets else ins[0])
    if factor is None:
        return [[link]]
    kept = np.broadcast_to(factor != 0, aval_of(eqn.outvars[0]).shape).reshape(-1)
    return [[Link(link.to[kept], link.of[kept], link.sets)]]


def _select(eqn: Any, ins: list[Facts]) -> list[list[Link]]:
    shape = aval_of(eqn.outvars[0]).shape
    which, cases = _known(ins[0]), ins[1:]
    if which is None:
        return [_each(shape, cases)]
    which = np.broadcast_to(which, shape).reshape(-1)
    places = [(np.flatnonzero(which == k), x) for k, x in enumerate(cases)]
    return [[Link(at, at, x.sets) for at, x in places if x.sets]]


def _moves(move: Callable) -> Callable:
    """An operation that moves elements, told by what it does to their numbers; −1 is no element."""

    def links(eqn: Any, ins: list[Facts]) -> list[list[Link]] | None:
        found: list[list[Link]] = [[] for _ in eqn.outvars]
        for k, x in enumerate(ins):
            if x.sets is None:
                continue
            numbers = [x.numbers if i == k else np.full(y.shape, -1) for i, y in enumerate(ins)]
            moved = move(eqn, numbers, ins)
            if moved is None:
                return None
            for out, m in zip(found, moved, strict=True):
                flat = np.asarray(m).reshape(-1)
                to = np.flatnonzero(flat >= 0)
                out.append(Link(to, flat[to], x.sets))
        return found

    return links


def _reshaped(eqn: Any, xs: list, ins: list[Facts]) -> list:
    return [xs[0].reshape(aval_of(eqn.outvars[0]).shape)]


def _spread(eqn: Any, xs: list, ins: list[Facts]) -> list:
    shape = aval_of(eqn.outvars[0]).shape
    sizes = [1] * len(shape)
    for axis, size in zip(eqn.params["broadcast_dimensions"], xs[0].shape, strict=True):
        sizes[axis] = size
    _bounded(Facts(shape).size)
    return [np.broadcast_to(xs[0].reshape(sizes), shape)]


def _sliced(eqn: Any, xs: list, ins: list[Facts]) -> list:
    first, last = eqn.params["start_indices"], eqn.params["limit_indices"]
    steps = eqn.params["strides"] or (1,) * len(first)
    return [xs[0][tuple(map(slice, first, last, steps))]]


def _parts(eqn: Any, xs: list, ins: list[Facts]) -> list:
    ends = np.cumsum(eqn.params["sizes"])
    return np.split(xs[0], ends[:-1], eqn.params["axis"])


def _here(run: Callable[[], Any]) -> np.ndarray:
    """What JAX makes of constants, now, on the host."""
    with jax.ensure_compile_time_eval(), jax.default_device(jax.local_devices(backend="cpu")[0]):
        return np.asarray(run())


def _int32(x: np.ndarray) -> jax.Array:
    return jnp.asarray(x.astype(np.int32))


def _padded(eqn: Any, xs: list, ins: list[Facts]) -> list:
    return [_here(lambda: lax.pad(_int32(xs[0]), _int32(xs[1]), eqn.params["padding_config"]))]


def _at_constants(first: int) -> Callable:
    """An operation whose operands from number `first` on say where."""

    def move(eqn: Any, xs: list, ins: list[Facts]) -> list | None:
        where = [_known(x) for x in ins[first:]]
        if any(w is None for w in where):
            return None
        params = {**eqn.params, "fill_value": -1} if "fill_value" in eqn.params else eqn.params
        return [_here(lambda: eqn.primitive.bind(*map(_int32, xs[:first]), *map(jnp.asarray, where), **params))]

    return move


def _replaced(eqn: Any, xs: list, ins: list[Facts]) -> list | None:
    where = _known(ins[1])
    if where is None:
        return None
    how = {key: eqn.params[key] for key in ("indices_are_sorted", "unique_indices", "mode")}

    def run():
        operand, updates = _int32(xs[0]), _int32(xs[2])
        return lax.scatter(operand, jnp.asarray(where), updates, eqn.params["dimension_numbers"], **how)

    return [_here(run)]


def _added(eqn: Any, ins: list[Facts]) -> list[list[Link]] | None:
    """Scattered addition: the operand, and what comes to some places besides."""
    operand, indices, updates = ins
    links = _each(operand.shape, [operand])
    if updates.sets is None:
        return [links]
    where, d = _known(indices), eqn.params["dimension_numbers"]
    if where is None:
        return None
    sizes, axes = [], iter(d.update_window_dims)
    for axis in range(len(operand.shape)):
        single = axis in (*d.inserted_window_dims, *d.operand_batching_dims)
        sizes.append(1 if single else updates.shape[next(axes)])
    gathers = lax.GatherDimensionNumbers(
        offset_dims=d.update_window_dims,
        collapsed_slice_dims=d.inserted_window_dims,
        start_index_map=d.scatter_dims_to_operand_dims,
        operand_batching_dims=d.operand_batching_dims,
        start_indices_batching_dims=d.scatter_indices_batching_dims,
    )
    how = {"mode": eqn.params["mode"], "fill_value": -1}
    to = _here(lambda: lax.gather(_int32(operand.numbers), jnp.asarray(where), gathers, tuple(sizes), **how))
    to = to.reshape(-1)
    of = np.flatnonzero(to >= 0)
    return [[*links, Link(to[of].astype(np.int64), of, updates.sets)]]


def _summed(x: Facts, axes: Sequence[int]) -> list[Link]:
    assert x.sets is not None
    shape = tuple(1 if k in axes else size for k, size in enumerate(x.shape))
    to = np.broadcast_to(np.arange(Facts(shape).size).reshape(shape), x.shape).reshape(-1)
    return [Link(to, np.arange(x.size), x.sets)]


def _sum(eqn: Any, ins: list[Facts]) -> list[list[Link]]:
    return [_summed(ins[0], eqn.params["axes"])]


def _running_sum(eqn: Any, ins: list[Facts]) -> list[list[Link]]:
    (x,), axis = ins, eqn.params["axis"]
    assert x.sets is not None
    length = x.shape[axis]
    _bounded(x.size * (length + 1) // 2)
    numbers = np.moveaxis(x.numbers, axis, -1).reshape(-1, length)
    later, earlier = np.tril_indices(length)
    to, of = numbers[:, later].reshape(-1), numbers[:, earlier].reshape(-1)
    return [[Link(of, to, x.sets) if eqn.params["reverse"] else Link(to, of, x.sets)]]


def _matrix_product(eqn: Any, ins: list[Facts]) -> list[list[Link]] | None:
    """The entries of a constant factor that are not zero; all of a factor that is not known."""
    if ins[0].sets and ins[1].sets:
        return None
    left = ins[0].sets is not None
    contracted, batch = eqn.params["dimension_numbers"]
    mine, theirs = (0, 1) if left else (1, 0)
    x, other = ins[mine], ins[theirs]
    free = [[k for k in range(len(ins[m].shape)) if k not in (*batch[m], *contracted[m])] for m in (mine, theirs)]

    def ordered(numbers, m, rest):
        """[batch, rest, contracted]"""
        sizes = [[ins[m].shape[k] for k in axes] for axes in (batch[m], rest, contracted[m])]
        moved = np.transpose(numbers, (*batch[m], *rest, *contracted[m]))
        return moved.reshape([int(np.prod(s, dtype=np.int64)) for s in sizes])

    numbers = ordered(x.numbers, mine, free[0])
    value = _known(other)
    pattern = ordered(np.ones(other.shape, bool) if value is None else value != 0, theirs, free[1])
    groups, rows, many = numbers.shape[0], pattern.shape[1], numbers.shape[1]
    _bounded(np.count_nonzero(pattern) * many)
    at, row, inner = np.nonzero(pattern)
    out = np.arange(groups * rows * many)
    out = out.reshape(groups, many, rows).swapaxes(1, 2) if left else out.reshape(groups, rows, many)
    assert x.sets is not None
    return [[Link(out[at, row].reshape(-1), numbers[at, :, inner].reshape(-1), x.sets)]]


def _convolution(eqn: Any, ins: list[Facts]) -> list[list[Link]] | None:
    """Each entry of the kernel by itself moves elements: all at once for the outputs, one by one for the inputs."""
    x, kernel = ins
    if kernel.sets is not None:
        return None
    assert x.sets is not None
    value = _known(kernel)
    pattern = np.ones(kernel.shape, bool) if value is None else value != 0
    outputs = eqn.params["dimension_numbers"].rhs_spec[0]
    params = {**eqn.params, "precision": lax.Precision.HIGHEST, "preferred_element_type": None}
    entries = [1 if k == outputs else size for k, size in enumerate(kernel.shape)]
    if np.prod(entries) > UNROLLED:
        return None
    numbers = (1 + x.numbers).astype(np.float32)  # exact up to 2²⁴
    _bounded(x.size)
    links = []
    for entry in np.ndindex(*entries):
        only = np.zeros(kernel.shape, np.float32)
        at = tuple(slice(None) if k == outputs else i for k, i in enumerate(entry))
        only[at] = pattern[at]
        if only.any():
            moved = _here(lambda only=only: eqn.primitive.bind(*map(jnp.asarray, (numbers, only)), **params))
            moved = moved.reshape(-1)
            to = np.flatnonzero(moved)
            links.append(Link(to, moved[to].astype(np.int64) - 1, x.sets))
    return [links]


LINKS: dict[str, Callable] = {
    **dict.fromkeys(
        ("add", "add_any", "sub", "neg", "copy", "copy_p", "real", "imag", "complex", "conj"), _elementwise
    ),
    **dict.fromkeys(("convert_element_type", "reduce_precision", "pvary", "pcast", "div"), _elementwise),
    **dict.fromkeys(("reshape", "squeeze", "expand_dims"), _moves(_reshaped)),
    "mul": _product,
    "select_n": _select,
    "broadcast_in_dim": _moves(_spread),
    "transpose": _moves(lambda eqn, xs, ins: [xs[0].transpose(eqn.params["permutation"])]),
    "rev": _moves(lambda eqn, xs, ins: [np.flip(xs[0], eqn.params["dimensions"])]),
    "slice": _moves(_sliced),
    "concatenate": _moves(lambda eqn, xs, ins: [np.concatenate(xs, eqn.params["dimension"])]),
    "stack": _moves(lambda eqn, xs, ins: [np.stack(xs, eqn.params["axis"])]),
    "unstack": _moves(lambda eqn, xs, ins: list(np.moveaxis(xs[0], eqn.params["axis"], 0))),
    "tile": _moves(lambda eqn, xs, ins: [np.tile(xs[0], eqn.params["reps"])]),
    "split": _moves(_parts),
    "pad": _moves(_padded),
    "gather": _moves(_at_constants(1)),
    "dynamic_slice": _moves(_at_constants(1)),
    "dynamic_update_slice": _moves(_at_constants(2)),
    "scatter": _moves(_replaced),
    **dict.fromkeys(("scatter-add", "scatter_add", "scatter-mul", "scatter_mul"), _added),
    "reduce_sum": _sum,
    "cumsum": _running_sum,
    "dot_general": _matrix_product,
    "conv_general_dilated": _convolution,
}
