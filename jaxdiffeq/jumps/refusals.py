"""What has no derivative says so when one is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from jaxdiffeq.primitives.jax_internals import zero_tangent
from jaxdiffeq.types import PyTree


def refusing(message: str, fun: Callable, *operands: Any) -> PyTree:
    """`fun(*operands)`, pytrees of arrays, which raises `NotImplementedError` when a derivative is asked for."""
    leaves, tree = jax.tree.flatten(operands)
    run = jax.custom_jvp(lambda *xs: fun(*tree.unflatten(xs)))

    def rule(primals: Any, tangents: Any) -> Any:
        if any(type(d) is not jax.custom_derivatives.SymbolicZero for d in tangents):
            raise NotImplementedError(message)
        out = run(*primals)
        return out, jax.tree.map(zero_tangent, out)

    run.defjvp(rule, symbolic_zeros=True)
    return run(*leaves)
