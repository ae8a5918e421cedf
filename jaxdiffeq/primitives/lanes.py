"""Lanes of a `vmap` that run one after the other on a CPU, each for as long as it needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax import lax

from jaxdiffeq.types import PyTree


def one_by_one(fun: Callable, *operands: Any) -> PyTree:
    """`fun(alone, *operands)`, pytrees of arrays; under `vmap` a loop over the lanes on a CPU, elsewhere all at once.

    A loop whose number of trips differs from lane to lane costs as much as the sum of them then, not as the longest one
    in every lane; and one lane in a kernel, number by number, is as fast as C. `alone` says that no other lane goes
    along, so that a loop need not leave a finished one as it is.
    """
    run = jax.custom_batching.custom_vmap(lambda *xs: fun(True, *xs))

    @run.def_vmap
    def _(size: int, batched: Any, *given: Any) -> tuple[PyTree, PyTree]:
        leaves, tree = jax.tree.flatten(given)
        own = jax.tree.leaves(batched)
        mine = [x for x, b in zip(leaves, own, strict=True) if b]
        shared = [x for x, b in zip(leaves, own, strict=True) if not b]

        def lane(mine, shared):
            a, b = iter(mine), iter(shared)
            return one_by_one(fun, *tree.unflatten([next(a) if is_own else next(b) for is_own in own]))

        def in_turn(mine, shared):
            return lax.map(lambda mine: lane(mine, shared), mine)

        def at_once(mine, shared):
            return jax.vmap(lambda mine: _plain(fun, tree, own, mine, shared))(mine)

        out = lax.platform_dependent(mine, shared, cpu=in_turn, default=at_once)
        return out, jax.tree.map(lambda _: True, out)

    return run(*operands)


def _plain(fun: Callable, tree: Any, own: list, mine: list, shared: list) -> PyTree:
    a, b = iter(mine), iter(shared)
    return fun(False, *tree.unflatten([next(a) if is_own else next(b) for is_own in own]))
