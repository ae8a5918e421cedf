"""What raises for equations with delays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiffeq.errors import all_concrete, concrete, real_number
from jaxdiffeq.types import PyTree


def history(given: PyTree, y0: PyTree) -> None:
    """What came before, against a state."""
    if jax.tree.structure(given) != jax.tree.structure(y0):
        raise TypeError(
            f"`history(s, args)` must return the same pytree as `y0`, but returned {jax.tree.structure(given)} where "
            f"`y0` is {jax.tree.structure(y0)}."
        )
    for a, b in zip(jax.tree.leaves(given), jax.tree.leaves(y0), strict=True):
        if np.shape(a) != np.shape(b):
            raise ValueError(
                f"`history(s, args)` must return arrays with the shapes of `y0`, but {np.shape(a)} stands where `y0` "
                f"has {np.shape(b)}."
            )


def lag(given: Any) -> None:
    if not real_number(given):
        raise TypeError(f"`lags` must hold real numbers, but one is {given!r}. A lag that varies is a dependent one.")
    if concrete(given) and not np.all(np.asarray(given) > 0):
        raise ValueError(
            f"`lags` must be positive, but one is {given}. Leave out a lag of zero, which is y itself; one that may "
            f"vanish goes into `dependent_lags`, as a function (t, y, args)."
        )


def lags_found(given: Sequence[Any]) -> None:
    for x in given:
        if x.size != 1 or jnp.iscomplexobj(x):
            raise TypeError(
                f"a function in `dependent_lags` must return one number τ, but returned an array of shape {x.shape} "
                f"and dtype {x.dtype}. Give one function for each lag."
            )


def forwards(t0: Any, t1: Any) -> None:
    if all_concrete((t0, t1)) and t1 < t0:
        raise ValueError(
            f"A DDEProblem is solved forwards in time, but `tspan` goes from {t0} to {t1}. Put −t in place of t."
        )


def time_of_the_past(s: Any, derivative: Any) -> None:
    """Of `h(s, derivative=False)`."""
    if not isinstance(derivative, bool):
        raise TypeError(
            "`h` takes a time, h(s), or h(s, derivative=True), but its second argument is neither True nor False. "
            "Neither parameters nor the number of a component are given to it: write h(t - lag)[i]."
        )
    if not isinstance(s, int | float | np.ndarray | np.generic | jax.Array | list | tuple):
        raise TypeError(f"`h` takes a time, or an array of times, but got {type(s).__name__}. Write h(t - lag).")
