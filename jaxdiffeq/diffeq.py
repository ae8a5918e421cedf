"""`solve` with its gradient in the name: one character changes the method."""

from __future__ import annotations

from typing import Any

from jaxdiffeq.gradients.adjoint import InterpolatingAdjoint
from jaxdiffeq.gradients.forward import ForwardAD
from jaxdiffeq.gradients.reverse import ReverseAD
from jaxdiffeq.solution import Solution
from jaxdiffeq.solve import solve


def diffeq_rd(problem: Any, *args: Any, **options: Any) -> Solution:
    """`solve` with `gradient=ReverseAD()`: reverse mode over the steps taken."""
    return solve(problem, *args, gradient=ReverseAD(), **options)


def diffeq_fd(problem: Any, *args: Any, **options: Any) -> Solution:
    """`solve` with `gradient=ForwardAD()`: forward mode over the steps taken."""
    return solve(problem, *args, gradient=ForwardAD(), **options)


def diffeq_adjoint(problem: Any, *args: Any, **options: Any) -> Solution:
    """`solve` with `gradient=InterpolatingAdjoint()`: the continuous adjoint."""
    return solve(problem, *args, gradient=InterpolatingAdjoint(), **options)
