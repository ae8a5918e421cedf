"""What to solve."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import equinox as eqx

from jaxdiffeq import _checks
from jaxdiffeq.types import PyTree


class ODEProblem(eqx.Module):
    """dy/dt = f(t, y, args), y(t₀) = y0, for t from tspan[0] to tspan[1], forwards or backwards.

    y0 is any pytree of real or complex numbers, and f returns one like it; args is any pytree, an `equinox` module
    included. `y0` may be a function (args, t0) ↦ y0 and `tspan` a function args ↦ (t0, t1): then the whole problem is a
    function of its parameters. Every array in a problem is a leaf that gradients flow to.
    Errors: `TypeError` for an f that is not callable or takes other arguments; the rest is checked by `solve`.
    """

    f: Callable[[Any, PyTree, PyTree], PyTree]
    y0: PyTree
    tspan: Any
    args: PyTree = None

    def __post_init__(self) -> None:
        _checks.callable_with(self.f, "f", ("t", "y", "args"))

    def replace(self, **changes: Any) -> Self:
        """The same problem with other fields: `problem.replace(args=p, tspan=(0, 20))`."""
        return replaced(self, changes)


def replaced(problem: Any, changes: dict[str, Any]) -> Any:
    names = getattr(type(problem), "__dataclass_fields__", None)
    if names is None:
        _checks.problem(problem)
        raise AssertionError
    _checks.known_fields(changes, list(names), type(problem).__name__)
    return type(problem)(**{**{name: getattr(problem, name) for name in names}, **changes})


class Terms(NamedTuple):
    """A problem as the solver takes it: dy/dt = f(t, y, args) from y0 at t0 to t1."""

    f: Callable[[Any, PyTree, PyTree], PyTree]
    args: PyTree
    y0: PyTree
    t0: Any
    t1: Any


@functools.singledispatch
def lower_problem(problem: Any) -> Terms:
    """The problem in terms of a field and an initial state; one rule for each kind of problem."""
    _checks.problem(problem)
    raise AssertionError


@lower_problem.register
def _(problem: ODEProblem) -> Terms:
    # not by attribute: on an equinox module each one costs tens of microseconds
    fields = object.__getattribute__(problem, "__dict__")
    f, y0, tspan, args = (fields[name] for name in ("f", "y0", "tspan", "args"))
    t0, t1 = _checks.time_span(tspan(args) if callable(tspan) else tspan)
    return Terms(f, args, y0(args, t0) if callable(y0) else y0, t0, t1)
