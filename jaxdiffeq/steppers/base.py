"""What every method says about itself, and what follows from a tableau."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, ClassVar, Self

from jaxdiffeq.engine.control import PredictiveController
from jaxdiffeq.types import Work

NO_WORK = Work(0, 0, 0, 0, 0)


class StepperDefaults:
    """The members that a method may leave as they are."""

    takes_mass: ClassVar[bool] = False
    """it solves M·dy/dt = f for a constant M, perhaps singular"""
    takes_residual: ClassVar[bool] = False
    """it solves F(t, y, dy/dt) = 0"""
    takes_noise: ClassVar[bool] = False
    """it solves dy = a dt + b dW"""
    takes_langevin: ClassVar[bool] = False
    """it solves a `LangevinProblem`, and nothing else"""
    takes_half: ClassVar[Any] = True
    """it solves in half precision"""
    regularisers: ClassVar[Any] = ("energy",)
    """those whose derivative is exact; see `jaxdiffeq.engine.regularisers`"""
    controller: ClassVar[Any] = PredictiveController()
    """what sizes the steps unless the user says otherwise"""
    embedded_order: ClassVar[Any] = None
    """that of the solution beside the method's own that estimates its error; None: there is none"""
    costs: ClassVar[Any] = NO_WORK
    """what every attempted step takes besides its `evaluations` of f"""
    work: Any = ()
    """zeros, as many as a step counts of what varies"""

    @property
    def compact(self) -> Self:
        """The same method, up to rounding, as a smaller program."""
        return self

    @property
    def smallest(self) -> Self:
        """The same method, up to rounding, as the smallest program, for one that may never run."""
        return self.compact

    @property
    def on_equal_steps(self) -> Self:
        """The same method where every step has the same size, and none is refused."""
        return self

    def sized(self, n: int) -> Any:
        """The method for n unknowns."""
        return self


@dataclass(frozen=True)
class OfTableau(StepperDefaults):
    """A stepper made of numbers, and what follows from these alone."""

    tableau: Any
    _: KW_ONLY
    measures: bool = False
    """every step estimates the fastest rate in the system, for those who switch on it"""
    equal: bool = False
    """every step has the same size, and none is refused"""

    def __repr__(self) -> str:
        return f"{self.tableau.name}()"

    @property
    def name(self) -> str:
        return self.tableau.name

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
    def embedded_order(self) -> int | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.tableau.embedded_order

    @property
    def dense_order(self) -> int:
        interpolant = self.tableau.interpolant
        return min(3, self.order) if interpolant is None else interpolant.order

    @property
    def degree(self) -> int:
        """Of the dense output's polynomial."""
        interpolant = self.tableau.interpolant
        return 3 if interpolant is None else len(interpolant.b[0])


@dataclass(frozen=True, repr=False)
class InTurn(OfTableau):
    """Of stages that follow from those before them. This is the one place that says which form they have."""

    looped: bool = field(default=False, kw_only=True)
    """they are a loop in place of written out; see `stages`"""
    rolled: bool = field(default=False, kw_only=True)
    """and outside of kernels too"""

    @property
    def compact(self) -> Self:
        return replace(self, looped=True)

    @property
    def smallest(self) -> Self:
        return replace(self, looped=True, rolled=True)
