"""What the tableaux of several families share."""

import math
from dataclasses import dataclass
from fractions import Fraction

EPS = 2.0**-52


def check_sum(row, total: float, source: str, ulps: float = 1.0) -> None:
    """Σ row = total. Each number was rounded by half an ulp, so eps·Σ|row| bounds what is left, however big it is.

    `ulps` is larger where the source prints fewer digits than float64 holds.
    """
    row = tuple(row)
    slack = ulps * EPS * math.fsum(map(abs, (*row, total)))
    assert abs(math.fsum(row) - total) <= slack, source


@dataclass(frozen=True, eq=False)
class InterpolantWeights:
    """y(t + θ·dt) = y + dt·Σᵢ bᵢ(θ) kᵢ over the main stages followed by the extra ones."""

    order: int  # uniform in θ: the error is O(dt^(order + 1))
    b: tuple[tuple[float | Fraction, ...], ...]  # row i: coefficients of θ¹, θ², …
    c: tuple[float, ...] = ()  # abscissae of the extra stages
    a: tuple[tuple[float, ...], ...] = ()  # row i of the extra stages, over all earlier stages

    def __post_init__(self):
        main = len(self.b) - len(self.c)
        assert len({len(row) for row in self.b}) == 1
        assert [len(row) for row in self.a] == list(range(main, len(self.b)))
        for row, c in zip(self.a, self.c, strict=True):
            check_sum(row, c, "row of an extra stage")

    def check_end(self, ends: tuple[float, ...], source: str, ulps: float = 1.0) -> None:
        """b(1) = ends."""
        for row, end in zip(self.b, ends, strict=True):
            check_sum(row, end, source, ulps)


class Tableau:
    """What a method says of itself unless its family knows better."""

    name: str
    dense: InterpolantWeights | None = None
    """as published, or of the stages alone"""
    e3: tuple[float, ...] | None = None
    """weights of a second error estimate"""
    ssp: float | None = None
    """SSP coefficient"""

    @property
    def fsal(self) -> bool:
        """The last stage is the next first one."""
        return False

    @property
    def interpolant(self) -> InterpolantWeights | None:
        """What there is between steps. None: the cubic through the ends and their slopes."""
        return self.dense

    def __repr__(self) -> str:  # not hundreds of digits in every error message
        return f"{type(self).__name__}({self.name!r})"
