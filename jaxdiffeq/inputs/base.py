"""What an input is, and how a solve finds those that it is given."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxdiffeq import errors
from jaxdiffeq.types import PyTree


class Prepared(NamedTuple):
    """An input, or a pytree with inputs in it, as a solve from t0 to t1 takes it."""

    taken: Any
    """what f is given: what does not change along the way has been computed"""
    breakpoints: Sequence[Any] = ()
    """times to land on, arrays of any shape, in any order, some of them outside of the span"""
    complete: Any = True
    """whether these are all"""


class Input(eqx.Module):
    """A known function of time. It stands anywhere in `args`, and f calls it: `u(t)`.

    A kind of your own has `at`, and `prepared` if it wants to be landed on.
    Shapes: t [*times] ↦ [*times, *shape], of every leaf.
    """

    def __call__(self, t: Any) -> PyTree:
        t = jnp.asarray(t)
        t = t if jnp.issubdtype(t.dtype, jnp.floating) else t.astype(float)
        if t.ndim == 0:
            return self.at(t)
        flat = jax.vmap(self.at)(t.reshape(-1))
        return jax.tree.map(lambda x: x.reshape(*t.shape, *x.shape[1:]), flat)

    def at(self, t: jax.Array) -> PyTree:
        """The value at one time."""
        raise NotImplementedError

    def prepared(self, t0: Any, t1: Any) -> Prepared:
        """The input as a solve from t0 to t1 takes it, and where that has to land."""
        return Prepared(self)


def is_input(x: Any) -> bool:
    return isinstance(x, Input)


def prepare_all(tree: PyTree, t0: Any, t1: Any) -> Prepared:
    """`tree` with all inputs in it prepared."""
    if not _has_inputs(jax.tree.structure(tree)):
        return Prepared(tree)
    leaves, structure = jax.tree.flatten(tree, is_leaf=is_input)
    found = [x.prepared(t0, t1) if is_input(x) else Prepared(x) for x in leaves]
    complete = True
    for one in found:
        complete = one.complete if complete is True else complete & one.complete
    breakpoints = [np.ravel(x) if errors.concrete(x) else x.reshape(-1) for one in found for x in one.breakpoints]
    return Prepared(structure.unflatten([one.taken for one in found]), breakpoints, complete)


@functools.lru_cache
def _has_inputs(structure: Any) -> bool:
    """Whether there is an input in a pytree: to look at every node in each call would cost more than a small solve."""
    return any(map(is_input, jax.tree.leaves(structure.unflatten(range(structure.num_leaves)), is_leaf=is_input)))


def with_breakpoints(stops: Any, breakpoints: Sequence[Any], dtype: Any) -> Any:
    """Stops that were given, and those of inputs, in the dtype of t. Shapes: [all of them]."""
    parts = [stops, *breakpoints]
    xp = np if errors.all_concrete(parts) else jnp
    return xp.concatenate([xp.asarray(x).astype(dtype).reshape(-1) for x in parts])
