"""Arrays at the door: one array inside, trees outside, and what a user's function closes over as an argument."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiffeq import errors
from jaxdiffeq.primitives.both_ways import both_ways, is_reverse_only
from jaxdiffeq.primitives.jax_internals import eval_jaxpr
from jaxdiffeq.types import PyTree


def as_array(x: Any, dtype: Any) -> Any:
    """`x` with this dtype and no weak type; plain numbers stay on the host, where the conversion is cheap."""
    if isinstance(x, jax.Array):
        return x if x.dtype == dtype and not x.weak_type else jnp.asarray(x).astype(dtype)
    return np.asarray(x, dtype)


def inexact_dtype(x: Any) -> Any:
    """The dtype in which a state like `x` is solved: its own, and for integers and plain numbers the default one."""
    dtype = jnp.result_type(x)
    if isinstance(x, jax.Array | np.ndarray) and jnp.issubdtype(dtype, jnp.inexact):
        return jax.dtypes.canonicalize_dtype(dtype)
    return jnp.result_type(complex if jnp.issubdtype(dtype, jnp.complexfloating) else float)


def inexact(x: Any, dtype: Any) -> jax.Array:
    """`x` as an array that can hold NaN: integers and truth values in `dtype`."""
    x = jnp.asarray(x)
    return x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(dtype)


def real_dtype(dtype: Any) -> Any:
    return jnp.finfo(dtype).dtype


def time_dtype(dtype: Any, times: tuple) -> Any:
    """The dtype of time: of the state, at least float32; or that of the span, where it was given as arrays."""
    if all(isinstance(x, float | int) for x in times):
        return at_least_float32(dtype)
    given = [x.dtype for x in times if isinstance(x, jax.Array | np.ndarray) and jnp.issubdtype(x.dtype, jnp.floating)]
    given = [d for d in given if not (isinstance(d, np.dtype) and jax.dtypes.canonicalize_dtype(d) != d)]
    return common_dtype((np.dtype(np.float32), *(given or [real_dtype(dtype)])))


@functools.lru_cache
def at_least_float32(dtype: Any) -> Any:
    return common_dtype((np.dtype(np.float32), real_dtype(dtype)))


@functools.lru_cache
def common_dtype(dtypes: tuple) -> Any:
    """The one that holds them all, however strict a program is about mixing them in its own arithmetic."""
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(*dtypes)


@dataclass(frozen=True)
class Ravel:
    """A state as one array: a single leaf keeps its shape, several become one vector of their common dtype."""

    tree: Any
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[Any, ...]

    @staticmethod
    def of(y: PyTree) -> Ravel:
        leaves, tree = jax.tree.flatten(y)
        return Ravel(tree, tuple(np.shape(x) for x in leaves), tuple(inexact_dtype(x) for x in leaves))

    @property
    def dtype(self) -> Any:
        return common_dtype(self.dtypes)

    @property
    def size(self) -> int:
        return sum(int(np.prod(shape)) for shape in self.shapes)

    def name(self, i: int) -> str:
        """Of number i of a state, by its path in y0."""
        numbered = jax.tree.unflatten(self.tree, range(len(self.shapes)))
        for (path, _), shape in zip(jax.tree_util.tree_leaves_with_path(numbered), self.shapes, strict=True):
            size = int(np.prod(shape))
            if i < size:
                at = ", ".join(str(int(k)) for k in np.unravel_index(i, shape)) if shape else ""
                return errors.path_of(path) + (f"[{at}]" if shape else "")
            i -= size
        raise IndexError(i)

    def pack(self, y: PyTree) -> jax.Array:
        leaves = [jnp.asarray(x).astype(self.dtype) for x in jax.tree.leaves(y)]
        return leaves[0] if len(leaves) == 1 else jnp.concatenate([x.reshape(-1) for x in leaves])

    def unpack(self, y: jax.Array) -> PyTree:
        if len(self.shapes) == 1:
            return jax.tree.unflatten(self.tree, [y])
        return jax.tree.map(lambda x: x[0], self.unpack_rows(y[None]))

    def unpack_rows(self, y: Any) -> PyTree:
        """Shapes: [rows, *state] ↦ a pytree of [rows, ...]; numpy in, numpy out."""
        if len(self.shapes) == 1:
            return jax.tree.unflatten(self.tree, [y])
        leaves, start = [], 0
        for shape, dtype in zip(self.shapes, self.dtypes, strict=True):
            end = start + int(np.prod(shape))
            part = y[:, start:end].reshape(len(y), *shape)
            real = part.dtype.kind == "c" and not jnp.issubdtype(dtype, jnp.complexfloating)
            leaves.append((part.real if real else part).astype(dtype))
            start = end
        return jax.tree.unflatten(self.tree, leaves)

    def pack_tolerance(self, tol: PyTree) -> Any:
        """A number as it is; a pytree like the state as an array of the state's shape."""
        if len(jax.tree.leaves(tol)) == 1 and np.ndim(jax.tree.leaves(tol)[0]) == 0:
            return as_array(jax.tree.leaves(tol)[0], real_dtype(self.dtype))
        spread = [
            jnp.broadcast_to(jnp.asarray(x), shape) for x, shape in zip(jax.tree.leaves(tol), self.shapes, strict=True)
        ]
        parts = [x.astype(real_dtype(self.dtype)) for x in spread]
        return parts[0] if len(parts) == 1 else jnp.concatenate([x.reshape(-1) for x in parts])


@dataclass(frozen=True)
class Split:
    """A pytree without its arrays: what is left is hashable, and a new value of it means a new program."""

    tree: Any
    static: tuple[Hashable, ...]

    def join(self, arrays: list) -> PyTree:
        rest = iter(arrays)
        return jax.tree.unflatten(self.tree, [next(rest) if x is ARRAY else x for x in self.static])


ARRAY = "an array goes here"


def split(tree: PyTree, real: Any = None) -> tuple[Split, list]:
    """The arrays of `tree` and the rest.

    Plain floats are arrays, of dtype `real`, so that a new value is no new program, and so are weakly typed arrays,
    so that one in place of a float is none either. Ints are not, since they may be shapes.
    """
    leaves, structure = jax.tree.flatten(tree)
    arrays, static = [], []
    for x in leaves:
        plain = isinstance(x, float | complex) and not isinstance(x, np.generic)
        weak = isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jnp.inexact) and x.weak_type
        if plain or weak:
            wanted = inexact_dtype(x) if real is None else real
            x = as_array(
                x, common_dtype((jnp.dtype(wanted), jnp.dtype(jnp.complex64))) if jnp.iscomplexobj(x) else wanted
            )
        dynamic = isinstance(x, jax.Array | np.ndarray | np.generic)
        arrays.extend([x] if dynamic else [])
        static.append(ARRAY if dynamic else x)
    return Split(structure, tuple(static)), arrays


def hashable(static: tuple) -> bool:
    try:
        hash(static)
    except TypeError:
        return False
    return True


@dataclass(frozen=True, eq=False)
class Program:
    """A function traced once: `program(consts, *args)` evaluates it with what it closed over as an argument."""

    jaxpr: Any
    out_tree: Any
    reverse_only: bool

    def __call__(self, consts: list, *args: Any) -> PyTree:
        n, given = len(consts), [*consts, *jax.tree.leaves(args)]
        run = lambda *xs: eval_jaxpr(self.jaxpr, xs[:n], *xs[n:])
        return self.out_tree.unflatten(both_ways(run, given) if self.reverse_only else run(*given))


def close(f: Callable, *args: Any) -> tuple[Program, list]:
    """Trace f at `args` and return its program and the arrays, tracers among them, that it closes over."""
    closed, shape = jax.make_jaxpr(f, return_shape=True)(*args)
    program = Program(closed.jaxpr, jax.tree.structure(shape), is_reverse_only(closed.jaxpr))
    return program, [jnp.asarray(x) for x in closed.consts]
