"""What raises for jumps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiffeq import errors
from jaxdiffeq.primitives.dataflow import dependencies
from jaxdiffeq.types import PyTree


def one_rate(value: Any, what: str = "`rate`") -> jax.Array:
    """A rate as an array, if it is one number."""
    if value is None or isinstance(value, str) or not jax.tree_util.all_leaves([value]):
        raise TypeError(f"{what} must return one number, but returned {value!r}. Does it end with a `return`?")
    value = jnp.asarray(value)
    if value.shape != ():
        raise ValueError(
            f"{what} must return one number, but returned the shape {value.shape}. Give a list of jumps, one for each "
            "of several rates."
        )
    return value


def like_state(new: PyTree, like: PyTree, wanted: str) -> None:
    """What an affect has made, against the state."""
    shapes = [[np.shape(x) for x in jax.tree.leaves(tree)] for tree in (new, like)]
    if jax.tree.structure(new) == jax.tree.structure(like) and shapes[0] == shapes[1]:
        return
    cure = errors.one_for_the_other(new, like, "affect", "x0")
    raise ValueError(
        f"`affect` must {wanted}, {jax.tree.structure(like)} with shapes {shapes[1]}, but made "
        f"{jax.tree.structure(new)} with shapes {shapes[0]}.{cure}"
    )


def constant_in_time(rate: Callable, t: Any, x: Any) -> None:
    """The rate (t, x) ↦ number of a `ConstantRateJump` does not ask for the time."""
    closed = jax.make_jaxpr(rate)(t, x)
    if 0 in dependencies(closed.jaxpr)[0]:
        raise ValueError(
            "the rate of a ConstantRateJump does not change between jumps, but this one computes with t. Give "
            "VariableRateJump(rate, affect), and, for speed, a `bound` that the rate does not exceed."
        )


def forwards(t0: Any, t1: Any) -> None:
    if errors.all_concrete((t0, t1)) and t1 < t0:
        raise ValueError(f"Jumps go forwards in time, but the span is from {t0} to {t1}.")


def first_rates(values: Any, t0: Any) -> None:
    """Rates, or their bounds, as a solve begins."""
    if errors.all_concrete(values) and not np.all(np.isfinite(values) & (np.asarray(values) >= 0)):
        raise ValueError(
            f"rates of jumps, and their bounds, must be finite and not negative, but are {np.asarray(values)} at t0 = "
            f"{t0}."
        )


def worst_rate(rates: Any, lines: Sequence[str]) -> str:
    """Which of the rates is none, for the message of a solve that failed."""
    values = np.asarray(rates)
    wrong = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
    if not wrong.size:
        return "A rate is negative, infinite or not a number there."
    r = int(wrong[0])
    return f"The rate of {lines[r]} is {values[r]:.6g} there: rates must be finite and not negative."


# -------------------- networks ----------------------------------------------------------------------------------------


def pairs_of(given: Any) -> list[tuple[str, Any]]:
    """Pairs of a line and a rate."""
    pairs = list(given.items()) if isinstance(given, dict) else given
    if isinstance(pairs, str) or not isinstance(pairs, Sequence):
        pairs = [pairs]
    for pair in pairs:
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2 or not isinstance(pair[0], str):
            raise TypeError(
                f"`reactions` must be a list of pairs of a line and a rate, such as [('A -> B', 0.5)], but {pair!r} "
                "is among them."
            )
    return list(pairs)


def one_constant(rate: Any, line: str) -> None:
    """The rate of a reaction."""
    if callable(rate):
        return
    if rate is None or isinstance(rate, str) or np.shape(rate) != ():
        cure = f" Write `lambda args: args[{rate!r}]`, and args={{{rate!r}: 1.0}}." if isinstance(rate, str) else ""
        raise TypeError(f"the rate of {line!r} must be a number, or a function args ↦ number, but is {rate!r}.{cure}")


def numbers_of(x0: Any, species: Sequence[str]) -> None:
    if np.shape(x0) != (len(species),):
        raise ValueError(
            f"the state of this network must be a vector of {len(species)} numbers, of {', '.join(species)}, or a "
            f"mapping from their names, but has the shape {np.shape(x0)}."
        )
