"""Many small arrays as one: a compiled function pays for every array it returns, more than for a small solve."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiffeq.primitives.jax_internals import Tracer
from jaxdiffeq.types import PyTree


@jax.tree_util.register_pytree_node_class
class Packed:
    """A pytree whose leaves of up to `limit` elements lie in one vector for each dtype.

    `open()` gives the pytree back: with numpy values in these places outside of a trace, with slices inside.
    """

    def __init__(self, vectors: list, others: list, spec: Any):
        self.vectors, self.others, self.spec = vectors, others, spec

    @staticmethod
    def of(tree: PyTree, limit: int = 1) -> Packed:
        leaves, structure = jax.tree.flatten(tree)
        leaves = [jnp.asarray(x) for x in leaves]
        groups: dict[str, list] = {}
        others, places = [], []
        for x in leaves:
            if (limit == 1 and x.ndim) or not isinstance(x.size, int) or x.size > limit:
                places.append(None)
                others.append(x)
                continue
            group = groups.setdefault(str(x.dtype), [])
            start = sum(y.size for y in group)
            places.append((list(groups).index(str(x.dtype)), start, start + x.size, x.shape))
            group.append(x.reshape(-1))
        return Packed([jnp.concatenate(g) for g in groups.values()], others, (structure, tuple(places)))

    def open(self) -> PyTree:
        structure, places = self.spec
        traced = any(isinstance(v, Tracer) for v in self.vectors)
        vectors = self.vectors if traced else [np.asarray(v) for v in self.vectors]
        others = iter(self.others)

        def leaf(place):
            if place is None:
                return next(others)
            which, start, end, shape = place
            return vectors[which][start:end].reshape(shape)[()]

        return structure.unflatten([leaf(place) for place in places])

    def tree_flatten(self) -> tuple[tuple[list, list], Any]:
        return (self.vectors, self.others), self.spec

    @classmethod
    def tree_unflatten(cls, spec: Any, children: tuple[list, list]) -> Packed:
        vectors, others = children
        return cls(vectors, others, spec)
