"""What a backward solve carries, as the one vector that a method takes."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Parts(NamedTuple):
    """What goes backwards: y where it is solved again, λ, and the cotangents of the active args."""

    y: Any
    lam: jax.Array
    theta: list


@dataclass(frozen=True)
class Packing:
    """Several arrays as one vector of their common dtype."""

    tree: Any
    shapes: tuple
    dtypes: tuple

    @staticmethod
    def of(parts: Parts) -> Packing:
        leaves, tree = jax.tree.flatten(parts)
        return Packing(tree, tuple(x.shape for x in leaves), tuple(x.dtype for x in leaves))

    def pack(self, parts: Parts) -> jax.Array:
        dtype = np.result_type(*self.dtypes)
        return jnp.concatenate([x.astype(dtype).reshape(-1) for x in jax.tree.leaves(parts)])

    def unpack(self, z: jax.Array) -> Parts:
        return self.tree.unflatten(
            [
                (x.real if not jnp.issubdtype(dtype, jnp.complexfloating) else x).astype(dtype)
                for x, dtype in zip(self.pieces(z), self.dtypes, strict=True)
            ]
        )

    def pieces(self, z: jax.Array) -> list[jax.Array]:
        ends = np.cumsum([0, *(int(np.prod(shape)) for shape in self.shapes)])
        return [z[a:b].reshape(s) for a, b, s in zip(ends, ends[1:], self.shapes, strict=False)]

    def spread(self, tolerance: jax.Array) -> jax.Array:
        """A tolerance of the state as one of the vector: the smallest for the parameters."""
        if tolerance.ndim == 0:
            return tolerance
        numbers = self.tree.unflatten(range(len(self.shapes)))
        own = {numbers.y, numbers.lam}
        return jnp.concatenate(
            [
                jnp.broadcast_to(tolerance if i in own else jnp.min(tolerance), shape).reshape(-1)
                for i, shape in enumerate(self.shapes)
            ]
        )

    def mass(self, mass: jax.Array) -> jax.Array:
        """That of the equations for y, λ and the parameters: M, Mᵀ and ones."""
        count = sum(map(math.prod, self.shapes))
        numbers = self.tree.unflatten(range(len(self.shapes)))
        own = [mass] * (numbers.y is not None) + [mass if mass.ndim == 1 else mass.T]
        rest = count - sum(len(m) for m in own)
        if mass.ndim == 1:
            return jnp.concatenate([*own, jnp.ones(rest, mass.dtype)])
        return jax.scipy.linalg.block_diag(*own, jnp.eye(rest, dtype=mass.dtype))

    def norm(self, norm: Any) -> Any:
        """The largest norm of a part: many parameters must not hide the error of the state."""

        def largest(z):
            sizes = [norm(x) for x in self.pieces(z) if x.size]
            return functools.reduce(jnp.maximum, sizes)

        return largest
