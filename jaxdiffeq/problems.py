"""What to solve."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

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
        _checks.known_fields(changes, [field for field in self.__dataclass_fields__], type(self).__name__)
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return type(self)(**{**fields, **changes})

    def initial(self) -> tuple[PyTree, Any, Any]:
        """y0, t0, t1 for these args."""
        tspan = self.tspan(self.args) if callable(self.tspan) else self.tspan
        t0, t1 = _checks.time_span(tspan)
        y0 = self.y0(self.args, t0) if callable(self.y0) else self.y0
        return y0, t0, t1
