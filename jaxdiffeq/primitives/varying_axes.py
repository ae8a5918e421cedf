"""Where values lie: over which mesh axes one varies inside `shard_map`, and what to do about an explicit mesh.

The carry of a loop must have the type before its first trip that it has after it, which includes both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiffeq.primitives.jax_internals import varying
from jaxdiffeq.types import PyTree


def axes_of(x: Any) -> frozenset:
    return frozenset() if isinstance(x, jax.ShapeDtypeStruct) else varying(x)


def vary(x: Any, axes: frozenset) -> Any:
    """`x` marked as varying over these axes."""
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


def vary_each(tree: PyTree, like: PyTree) -> PyTree:
    """The tree with every leaf varying where the same leaf of another one does."""
    return jax.tree.map(lambda x, y: vary(x, axes_of(y)), tree, like)


def cond(flag: Any, true: Callable, false: Callable) -> Any:
    """`lax.cond(flag, true, false)`, which inside `shard_map` may be under a `vmap` too.

    There JAX makes all that the branches close over vary as the flag does, and then trips over what they make vary by
    themselves. Where they close over such, both are taken, as a `vmap` would have it, and one is chosen.
    """
    axes = axes_of(flag)
    if axes:
        closed = [x for branch in (true, false) for x in jax.make_jaxpr(branch)().consts]
        if not all(axes <= axes_of(x) for x in closed):
            return jax.tree.map(lambda a, b: jnp.where(flag, a, b), true(), false())
    return lax.cond(flag, true, false)


def zeros_of(aval: Any) -> jax.Array:
    return vary(jnp.zeros(aval.shape, aval.dtype), axes_of(aval))


def left_to_xla(fun: Callable, operands: PyTree) -> PyTree:
    """`fun(operands)`, which need not say where its values lie, as on an explicit mesh it would have to."""
    meshes = [jax.typeof(x).sharding.mesh for x in jax.tree.leaves(operands) if isinstance(x, jax.Array)]
    found = [m for m in meshes if not m.empty and m.explicit_axes]
    if not found:
        return fun(operands)
    anywhere = jax.sharding.NamedSharding(found[0], jax.sharding.PartitionSpec())
    return jax.sharding.auto_axes(fun, axes=found[0].explicit_axes, out_sharding=anywhere)(operands)
