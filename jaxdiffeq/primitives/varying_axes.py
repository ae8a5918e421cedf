"""Over which mesh axes a value varies inside `shard_map`: the carry of a loop must say so before its first trip."""

from __future__ import annotations

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


def zeros_of(aval: Any) -> jax.Array:
    return vary(jnp.zeros(aval.shape, aval.dtype), axes_of(aval))
