"""Which results of a program depend on which of its inputs."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxdiffeq.primitives.jax_internals import ClosedJaxpr, Jaxpr, Literal

RULES: dict[str, Callable] = {}
"""of operations that hold programs, by name: parameters ↦ the inputs of each result; None: every result has all"""


def dependencies(jaxpr: Jaxpr) -> list[frozenset[int]]:
    """For each output of `jaxpr`, the inputs that its value may depend on."""
    if any(eqn.effects for eqn in jaxpr.eqns):  # what is written to a reference here may be read anywhere
        return [frozenset(range(len(jaxpr.invars)))] * len(jaxpr.outvars)
    known: dict[Any, frozenset[int]] = {v: frozenset([i]) for i, v in enumerate(jaxpr.invars)}

    def of(atom):
        return frozenset() if isinstance(atom, Literal) else known.get(atom, frozenset())

    for eqn in jaxpr.eqns:
        ins = [of(v) for v in eqn.invars]
        inner = RULES.get(eqn.primitive.name, _of_call)(eqn)
        for k, v in enumerate(eqn.outvars):
            known[v] = frozenset().union(*(ins if inner is None else [ins[i] for i in inner[k]]))
    return [of(v) for v in jaxpr.outvars]


def _of_call(eqn: Any) -> list[frozenset[int]] | None:
    """Of an operation that runs its program once, if it is one."""
    inner = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
    inner = getattr(inner, "jaxpr", inner)
    if inner is None or not hasattr(inner, "invars"):
        return None
    if len(inner.invars) != len(eqn.invars) or len(inner.outvars) != len(eqn.outvars):
        return None
    return dependencies(inner)


def _of_branches(eqn: Any) -> list[frozenset[int]]:
    branches = [dependencies(b.jaxpr) for b in eqn.params["branches"]]
    return [frozenset({0}).union(*({i + 1 for i in d} for d in outs)) for outs in zip(*branches, strict=True)]


RULES |= {"cond": _of_branches, "scan": lambda eqn: None, "while": lambda eqn: None}


def reached(body: ClosedJaxpr, counts: tuple[int, int], flags: list[bool]) -> tuple[list[bool], list[bool]]:
    """The inputs and the outputs of a trip that depend on the operands that are flagged, after any number of trips.

    Of the inputs, counts[0] are constants and the next counts[1] the carry, with which the outputs begin.
    """
    a, b = counts
    touched = dependencies(body.jaxpr)
    while True:
        hit = hits(touched, flags)
        wider = [*flags[:a], *map(operator.or_, flags[a : a + b], hit), *flags[a + b :]]
        if wider == flags:
            return flags, [*flags[a : a + b], *hit[b:]]
        flags = wider


def hits(touched: Sequence[frozenset[int]], flags: Sequence[bool]) -> list[bool]:
    return [any(flags[i] for i in inputs) for inputs in touched]


# ---- lists of operands


def put(xs: Sequence[Any], where: Sequence[int], values: Sequence[Any]) -> list:
    out = list(xs)
    for i, value in zip(where, values, strict=True):
        out[i] = value
    return out


def lanes_first(operands: Sequence[Any], dims: Sequence[Any]) -> list:
    """The operands with the axis of lanes, where they have one, in front."""
    return [x if d is None else jnp.moveaxis(x, d, 0) for x, d in zip(operands, dims, strict=True)]


def widen(x: Any, size: int) -> Any:
    """`x` in every lane."""
    if isinstance(x, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct((size, *x.shape), x.dtype)
    return jnp.broadcast_to(x, (size, *jnp.shape(x)))


def axes(flags: Sequence[bool]) -> list[int | None]:
    """Of lanes, for `vmap`."""
    return [0 if flag else None for flag in flags]
