"""Multistep methods by their formulas: tables of backward differences ∇ⁱ on equal steps, in exact integers.

IMEX methods are stored as they are published, for equal steps: what they do on others follows from that.

Source: Shampine, Reichelt 1997, doi:10.1137/S1064827594276424; Hairer, Nørsett, Wanner, Solving ODEs I, III.1 and III.5.
"""

import math
from dataclasses import dataclass

from jaxdiffeq.tableaux.common import Tableau, check_sum
from jaxdiffeq.tableaux.dirk import ARS222, ARS343, KENCARP4, DIRKTableau

NDF_KAPPA = (-0.185, -1 / 9, -0.0823, -0.0415, 0.0)
"""κ of orders 1 to 5: the larger error constant of a BDF traded for stability that is hardly less"""
BDF_ORDERS = 5
"""the sixth is stable in a narrow sector only"""
ADAMS_ORDERS = 12


def _times(a: list[int], root: int) -> list[int]:
    """The coefficients of a(x)·(x + root), lowest first."""
    return [root * x + y for x, y in zip([*a, 0], [0, *a], strict=True)]


def harmonic(k: int) -> float:
    """γₖ = Σⱼ 1/j, j = 1 … k."""
    whole = math.lcm(*range(1, k + 1))
    return sum(whole // j for j in range(1, k + 1)) / whole


def basis(i: int, shift: int) -> list[int]:
    """The coefficients of Πₘ (θ + shift + m), m = 0 … i − 1, lowest first: i! times the factor of ∇ⁱ in a polynomial."""
    product = [1]
    for m in range(i):
        product = _times(product, shift + m)
    return product


def through_differences(orders: int) -> list[list[float]]:
    """[power, i]: y(t₀ + θ·dt) = Σᵢ ∇ⁱy₁ Πₘ(θ − 1 + m)/i!, the polynomial through y₁, y₀ and the states before."""
    columns = [[x / math.factorial(i) for x in basis(i, -1)] + [0.0] * (orders - i) for i in range(orders + 1)]
    return [list(row) for row in zip(*columns, strict=True)]


def change_of_step(orders: int) -> list[list[list[float]]]:
    """[p, i, j]: ∇ʲ on steps ρ times as long is Σₚ Σᵢ ρᵖ·table[p, i, j]·∇ⁱ, all counted from 1.

    It is Σₘ (−1)ᵐ·(j over m)·y(t₁ − m·ρ·dt), m = 0 … j, of y(t₁ + θ·dt) = Σᵢ ∇ⁱ Πₗ (θ + l)/i!, l = 0 … i − 1.
    """
    numbers = range(1, orders + 1)

    def entry(p: int, i: int, j: int) -> float:
        if p > i:
            return 0.0
        coefficient = basis(i, 0)[p]
        total = sum((-1) ** m * math.comb(j, m) * coefficient * (-m) ** p for m in range(1, j + 1))
        return total / math.factorial(i)

    return [[[entry(p, i, j) for j in numbers] for i in numbers] for p in numbers]


assert sum(table[0][0] for table in change_of_step(2)) == 1.0  # ∇¹ is proportional to the step
assert [sum(row) for row in zip(*through_differences(3), strict=True)] == [1.0, 0.0, 0.0, 0.0]  # y₁ at θ = 1


# -------------------- IMEX methods ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)  # compared by identity: every method is one module constant
class IMEXTableau(Tableau):
    """Σⱼ αⱼ y₁₋ⱼ = dt·(Σⱼ βⱼ f(t₁₋ⱼ, y₁₋ⱼ) + Σⱼ ηⱼ g(t₋ⱼ, y₋ⱼ)),   f implicit, g explicit, j = 0, 1, …

    η extrapolates β to the past: Σⱼ ηⱼ p(t₋ⱼ) = Σⱼ βⱼ p(t₁₋ⱼ) for polynomials p of a degree below the order.
    """

    name: str
    order: int
    alpha: tuple[float, ...]
    beta: tuple[float, ...]
    eta: tuple[float, ...]
    source: str
    starter: DIRKTableau | None = None  # one-step method of the same order, while too little of the past is known
    dense = None  # cubic Hermite
    embedded_order = None  # fixed steps only
    stages = 1

    steps = property(lambda self: len(self.eta))

    def __post_init__(self):
        assert (self.starter is None) == (self.steps == 1), self.source
        assert self.starter is None or self.starter.order == self.order, self.source
        for p in range(self.order + 1):  # of y = ((t - t₁)/dt)ᵖ
            states = (a * float(-j) ** p for j, a in enumerate(self.alpha))
            check_sum(
                states, p * math.fsum(b * float(-j) ** (p - 1) for j, b in enumerate(self.beta) if p), self.source
            )
        for p in range(self.order):
            pushes = (e * float(-1 - j) ** p for j, e in enumerate(self.eta))
            check_sum(pushes, math.fsum(b * float(-j) ** p for j, b in enumerate(self.beta)), self.source)


ASCHER = "U. Ascher, S. Ruuth & B. Wetton, SIAM J. Numer. Anal. 32 (1995) 797-823"

IMEXEULER = IMEXTableau(name="IMEXEuler", order=1, alpha=(1.0, -1.0), beta=(1.0,), eta=(1.0,), source=ASCHER)

CNAB2 = IMEXTableau(
    name="CNAB2",
    order=2,
    alpha=(1.0, -1.0),
    beta=(1 / 2, 1 / 2),
    eta=(3 / 2, -1 / 2),
    source=ASCHER,
    starter=ARS222,
)

SBDF2 = IMEXTableau(
    name="SBDF2",
    order=2,
    alpha=(3 / 2, -2.0, 1 / 2),
    beta=(1.0,),
    eta=(2.0, -1.0),
    source=ASCHER,
    starter=ARS222,
)

SBDF3 = IMEXTableau(
    name="SBDF3",
    order=3,
    alpha=(11 / 6, -3.0, 3 / 2, -1 / 3),
    beta=(1.0,),
    eta=(3.0, -3.0, 1.0),
    source=ASCHER,
    starter=ARS343,
)

SBDF4 = IMEXTableau(
    name="SBDF4",
    order=4,
    alpha=(25 / 12, -4.0, 3.0, -4 / 3, 1 / 4),
    beta=(1.0,),
    eta=(4.0, -6.0, 4.0, -1.0),
    source=ASCHER,
    starter=KENCARP4,
)
