"""The plain path, public JAX alone, as the reference of the fast one."""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

VARIABLE = "JAXDIFFEQ_PLAIN"


@contextlib.contextmanager
def plain(on: bool = True) -> Iterator[None]:
    """Solves in here are built on public JAX alone; with `on=False`, on whatever is fast."""
    before = os.environ.pop(VARIABLE, None)
    if on:
        os.environ[VARIABLE] = "1"
    try:
        yield
    finally:
        os.environ.pop(VARIABLE, None)
        if before is not None:
            os.environ[VARIABLE] = before


def fresh(fun: Callable) -> Callable:
    """The same function, which JAX has never seen: what it remembers of one path must not serve the other."""
    return lambda *args: fun(*args)


def answer(fun: Callable, *args: Any, on: bool = False) -> Any:
    """`fun(*args)` on the fast path, or on the plain one, as arrays of the host."""
    with plain(on):
        return jax.device_get(fresh(fun)(*args))


def assert_close(found: Any, wanted: Any, rtol: float = 1e-9, atol: float = 1e-12) -> None:
    """Equal trees with equal dtypes and, to rounding, equal numbers; NaN stands where NaN stands."""
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        if a.dtype.kind == "V":  # float0, the derivative of whole numbers
            continue
        np.testing.assert_allclose(a.astype(complex), b.astype(complex), rtol=rtol, atol=atol)


def assert_as_plain(fun: Callable, *args: Any, rtol: float = 1e-9, atol: float = 1e-12) -> Any:
    """The answer of `fun(*args)`, which is finite and that of the plain path."""
    found = answer(fun, *args)
    for x in jax.tree.leaves(found):
        assert np.asarray(x).dtype.kind in "bV" or np.all(np.isfinite(x)), f"not finite: {found}"
    assert_close(found, answer(fun, *args, on=True), rtol, atol)
    return found
