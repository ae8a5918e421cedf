"""What every method that is a tableau says about itself."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, ClassVar, Self

from jaxdiffeq.engine.control import PredictiveController
from jaxdiffeq.types import Work


@dataclass(frozen=True)
class OfTableau:
    """A stepper made of numbers, and what follows from these alone."""

    tableau: Any
    _: KW_ONLY
    measures: bool = False
    """every step estimates the fastest rate in the system, for those who switch on it"""
    looped: bool = False
    """its stages are a loop where they would be written out; see `stages`"""
    equal: bool = False
    """every step has the same size, and none is refused"""

    takes_mass: ClassVar[bool] = False
    """it solves M·dy/dt = f for a constant M, perhaps singular"""
    takes_residual: ClassVar[bool] = False
    """it solves F(t, y, dy/dt) = 0"""
    regularisers: ClassVar[Any] = ("energy",)
    """those whose derivative is exact; see `jaxdiffeq.engine.regularisers`"""
    controller: ClassVar[Any] = PredictiveController()
    """what sizes the steps unless the user says otherwise"""

    def __repr__(self) -> str:
        return f"{self.tableau.name}()"

    @property
    def work(self) -> Any:
        """Zeros, as many as a step counts of what varies."""
        return ()

    @property
    def name(self) -> str:
        return self.tableau.name

    @property
    def compact(self) -> Self:
        """The same method, up to rounding, as a smaller program."""
        return replace(self, looped=True)

    @property
    def on_equal_steps(self) -> Self:
        return replace(self, equal=True)

    @property
    def order(self) -> int:
        return self.tableau.order

    @property
    def error_order(self) -> int | None:
        """The power of dt in the error estimate of one step; None: no estimate, fixed steps only."""
        tableau = self.tableau
        return None if tableau.embedded_order is None else min(tableau.order, tableau.embedded_order) + 1

    @property
    def dense_order(self) -> int:
        dense = self.tableau.dense
        return min(3, self.order) if dense is None else dense.order

    @property
    def degree(self) -> int:
        """Of the dense output's polynomial."""
        dense = self.tableau.dense
        return 3 if dense is None else len(dense.b[0])

    @property
    def costs(self) -> Work:
        """What every attempted step takes besides its `evaluations` of f."""
        return Work(0, 0, 0, 0, 0)
