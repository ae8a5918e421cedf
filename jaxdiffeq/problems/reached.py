"""What a function finds outside of its arguments, by value, so that a change of it is seen.

A program is made once for a function and serves until something else comes. What the function closes over, the object
that it is a method of, the arguments that a `partial` holds, its defaults and the globals that it names are no
arguments: they are looked at in every eager call, and where one has changed the function is traced again.
"""

from __future__ import annotations

import dis
import functools
import sys
import types
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from jaxdiffeq.primitives.jax_internals import Tracer

CONTENTS = 2**16  # bytes up to which a numpy array is compared by its contents; a larger one by identity
OBJECTS = 256  # that are looked at for one problem; what lies beyond is not seen
LIBRARIES = frozenset(["jax", "jaxlib", "numpy", "equinox", "jaxdiffeq", *sys.stdlib_module_names]) - {"__main__"}
STORES = frozenset(["STORE_GLOBAL", "STORE_DEREF", "STORE_ATTR"])
SCALARS = (type(None), bool, int, float, complex, str, bytes)


class _Same:
    """An object by identity."""

    __slots__ = ("x",)

    def __init__(self, x: Any):
        self.x = x

    def __eq__(self, other: object) -> bool:
        return type(other) is _Same and other.x is self.x

    def __hash__(self) -> int:
        return id(self.x)


def reached(leaves: Iterable[Any]) -> Hashable:
    """What is compared to see that something has changed which these functions, or plain objects, lead to."""
    walk = _Walk()
    return tuple(walk.of(x) for x in leaves if not isinstance(x, SCALARS))


class _Walk:
    """One look at everything."""

    def __init__(self) -> None:
        self.met: dict[int, Any] = {}
        self.written: set[str] = set()
        """names that a function met stores to: it counts, or keeps something, and these are results"""

    def of(self, x: Any) -> Hashable:
        if isinstance(x, SCALARS):
            return repr(x)  # NaN equals NaN, and 1 is not 1.0
        if isinstance(x, types.CodeType):
            return x
        if isinstance(x, type | types.ModuleType):
            return None
        if id(x) in self.met or len(self.met) >= OBJECTS:
            return None
        self.met[id(x)] = x
        if isinstance(x, types.FunctionType):
            return tuple(map(self.of, self._of_function(x)))
        if isinstance(x, np.ndarray | np.generic):
            small = x.nbytes <= CONTENTS and x.dtype.kind != "O"
            return (x.shape, x.dtype.str, x.tobytes()) if small else _Same(x)
        if isinstance(x, jax.Array):
            return _Same(x)
        return (type(x), *map(self.of, self._parts(x)))

    def _parts(self, x: Any) -> Iterable[Any]:
        """What an object leads to, in an order that does not change."""
        if isinstance(x, Mapping):
            x = list(x.values())
        if isinstance(x, list | tuple):
            return filter(_is_no_record, x)
        if isinstance(x, types.MethodType):
            return [x.__func__, x.__self__]
        if isinstance(x, functools.partial):
            return [x.func, x.args, x.keywords]
        return [] if _root(type(x)) in LIBRARIES else self._attributes(x)

    def _of_function(self, f: types.FunctionType) -> list:
        if _root(f) in LIBRARIES:
            return [f.__code__]
        read, written = _names(f.__code__)
        self.written |= written
        cells = zip(f.__code__.co_freevars, f.__closure__ or (), strict=True)
        closed = [cell.cell_contents for name, cell in cells if name not in written and _is_full(cell)]
        named = [f.__globals__[name] for name in read if name not in written and name in f.__globals__]
        defaults = [*(f.__defaults__ or ()), *(f.__kwdefaults__ or {}).values()]
        return [f.__code__, *filter(_is_known, closed), *named, *defaults]

    def _attributes(self, x: Any) -> list:
        call = type(x).__dict__.get("__call__")
        of_call = self.of(call) if isinstance(call, types.FunctionType) else None
        slots = [name for kind in type(x).__mro__ for name in kind.__dict__.get("__slots__", ()) if hasattr(x, name)]
        found = {**getattr(x, "__dict__", {}), **{name: getattr(x, name) for name in slots}}
        known = (value for name, value in found.items() if name not in self.written and _is_known(value))
        return [of_call, *known]


@functools.lru_cache(maxsize=1024)
def _names(code: types.CodeType) -> tuple[tuple[str, ...], frozenset[str]]:
    """The names that a function, and those inside of it, look up and those that they store to."""
    read, written = list(code.co_names), {i.argval for i in dis.get_instructions(code) if i.opname in STORES}
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            more, stored = _names(inner)
            read += more
            written |= stored
    return tuple(dict.fromkeys(read)), frozenset(written)


def _is_no_record(x: Any) -> bool:
    """Functions also count and collect in lists, what they are traced with included: such numbers are no parameters."""
    return not isinstance(x, int | Tracer)


def _is_known(x: Any) -> bool:
    return not isinstance(x, Tracer)


def _is_full(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False


def _root(x: Any) -> str:
    """The package that a function or a class is from."""
    return str(x.__module__).partition(".")[0]
