"""Pairs of methods that take turns, for problems of which nobody knows whether they are stiff."""

from typing import Any

from jaxdiffeq.methods.explicit import Tsit5, Vern7, Vern9
from jaxdiffeq.methods.rosenbrock import Rodas5P, Rosenbrock23
from jaxdiffeq.steppers.auto import Auto

__all__ = ["Auto", "AutoTsit5", "AutoVern7", "AutoVern9"]


def AutoTsit5(stiff: Any = None) -> Auto:
    """`Tsit5()`, and `stiff` while the problem is stiff; Rosenbrock23 when left out: below rtol 1e-2 give Rodas5P."""
    return Auto(Tsit5(), Rosenbrock23() if stiff is None else stiff)


def AutoVern7(stiff: Any = None) -> Auto:
    """`Vern7()`, and `stiff` while the problem is stiff; Rodas5P when left out. For rtol 1e-6 to 1e-9."""
    return Auto(Vern7(), Rodas5P() if stiff is None else stiff)


def AutoVern9(stiff: Any = None) -> Auto:
    """`Vern9()`, and `stiff` while the problem is stiff; Rodas5P when left out. For rtol below 1e-9."""
    return Auto(Vern9(), Rodas5P() if stiff is None else stiff)
