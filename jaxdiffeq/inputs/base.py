"""What an input is, and how a solve finds those that it is given."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdiffeq import errors
from jaxdiffeq.problems.ravel import common_dtype
from jaxdiffeq.types import PyTree


class Prepared(NamedTuple):
    """An input as a solve from t0 to t1 takes it, and times to land on: [n], in any order, in or out of the span."""

    taken: Any
    """what f is given: what does not change along the way has been computed"""
    jumps: Any = None
    """where the value jumps: these move with what they depend on"""
    kinks: Any = None
    """where only a slope does: the value there is the same on either side, and so is what a landing makes of it"""
    complete: Any = True
    """whether these are all"""


class Driven(NamedTuple):
    """A pytree with all inputs in it prepared, and where that has to land."""

    taken: PyTree
    jumps: Sequence[Any] = ()
    kinks: Sequence[Any] = ()
    complete: Any = True


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

    def moved(self, jumps: Any) -> Input:
        """The input, prepared, that jumps there."""
        raise NotImplementedError


def is_input(x: Any) -> bool:
    return isinstance(x, Input)


def prepare_all(tree: PyTree, t0: Any, t1: Any) -> Driven:
    """`tree` with all inputs in it prepared."""
    if not _has_inputs(jax.tree.structure(tree)):
        return Driven(tree)
    leaves, structure = jax.tree.flatten(tree, is_leaf=is_input)
    found = [x.prepared(t0, t1) if is_input(x) else Prepared(x) for x in leaves]
    where = [i for i, one in enumerate(found) if one.jumps is not None]
    jumps = _apart([found[i].jumps for i in where], t0, t1)
    if len(where) > 1:
        for i, times in zip(where, jumps, strict=True):
            found[i] = found[i]._replace(taken=found[i].taken.moved(times))
    complete = functools.reduce(lambda a, b: b if a is True else a if b is True else a & b, [x.complete for x in found])
    kinks = [lax.stop_gradient(one.kinks) for one in found if one.kinks is not None]
    return Driven(structure.unflatten([one.taken for one in found]), jumps, kinks, complete)


def _apart(jumps: list, t0: Any, t1: Any) -> list:
    """Jumps of several inputs, no two of them at one time, but by rounding: each is a landing of its own, whose
    derivative is that of its own jump."""
    if len(jumps) < 2:
        return jumps
    xp, last = (np, np.maximum.accumulate) if errors.all_concrete((jumps, t0, t1)) else (jnp, lax.cummax)
    dtype = common_dtype((t0.dtype, *(x.dtype for x in jumps)))
    times = xp.concatenate([xp.asarray(x).astype(dtype) for x in jumps])
    fixed = lax.stop_gradient(times)
    unit = 2 * jnp.finfo(t0.dtype).eps * xp.maximum(abs(t0), abs(t1)).astype(dtype)
    order = xp.argsort(fixed, stable=True)
    least = unit * xp.arange(times.size).astype(dtype)
    lifted = last(fixed[order] - least) + least
    lifted = xp.where(lifted > fixed[order] + unit / 4, lifted, fixed[order])
    times = times + lax.stop_gradient(lifted[xp.argsort(order)] - fixed)
    ends = np.cumsum([x.size for x in jumps])[:-1]
    return [xp.asarray(x) for x in xp.split(times, ends)]


@functools.lru_cache
def _has_inputs(structure: Any) -> bool:
    """Whether there is an input in a pytree: to look at every node in each call would cost more than a small solve."""
    return any(map(is_input, jax.tree.leaves(structure.unflatten(range(structure.num_leaves)), is_leaf=is_input)))


def with_breakpoints(stops: Any, driven: Driven, dtype: Any) -> Any:
    """Stops that were given, and those of inputs, in the dtype of t. Shapes: [all of them].

    Of several that are equal, the first is the one that the landing moves with: a jump, if there is one.
    """
    parts = [*driven.jumps, stops, *driven.kinks]
    xp = np if errors.all_concrete(parts) else jnp
    return xp.concatenate([xp.asarray(x).astype(dtype).reshape(-1) for x in parts])
