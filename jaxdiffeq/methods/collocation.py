"""Fully implicit Runge–Kutta methods, for stiff problems at tight tolerances, DAEs and Hamiltonian systems.

Newton's method finds all stages at once, with complex linear algebra of the size of the state.
"""

from jaxdiffeq.algebra.newton import Newton
from jaxdiffeq.steppers.collocation import Collocation
from jaxdiffeq.tableaux import collocation

__all__ = [  # noqa: RUF022  by order, as below
    "RadauIIA1",
    "RadauIIA3",
    "RadauIIA5",
    "RadauIIA9",
    "RadauIIA13",
    "RadauIA3",
    "RadauIA5",
    "Gauss2",
    "Gauss4",
    "Gauss6",
    "Gauss8",
    "LobattoIIIA2",
    "LobattoIIIA4",
    "LobattoIIIA6",
    "LobattoIIIB4",
    "LobattoIIIB6",
    "LobattoIIIC2",
    "LobattoIIIC4",
    "LobattoIIIC6",
]


def RadauIIA1(newton: Newton = Newton()) -> Collocation:
    """Order 1(1), 1 stage, dense 1. L-stable; ImplicitEuler with an error estimate. Hairer & Wanner 1996."""
    return Collocation(collocation.RADAUIIA1, newton)


def RadauIIA3(newton: Newton = Newton()) -> Collocation:
    """Order 3(2), 2 stages, dense 2. L-stable; stiff problems, DAEs, rtol 1e-2 and looser. Hairer & Wanner 1996."""
    return Collocation(collocation.RADAUIIA3, newton)


def RadauIIA5(newton: Newton = Newton()) -> Collocation:
    """Order 5(3), 3 stages, dense 3. L-stable; stiff problems, DAEs, rtol ≤ 1e-4, `RADAU5`. Hairer & Wanner 1996."""
    return Collocation(collocation.RADAUIIA5, newton)


def RadauIIA9(newton: Newton = Newton()) -> Collocation:
    """Order 9(5), 5 stages, dense 5. L-stable; stiff problems, DAEs, rtol ≤ 1e-7. Hairer & Wanner 1999."""
    return Collocation(collocation.RADAUIIA9, newton)


def RadauIIA13(newton: Newton = Newton()) -> Collocation:
    """Order 13(7), 7 stages, dense 7. L-stable; stiff problems, DAEs, rtol ≤ 1e-10. Hairer & Wanner 1999."""
    return Collocation(collocation.RADAUIIA13, newton)


def RadauIA3(newton: Newton = Newton()) -> Collocation:
    """Order 3, 2 stages. L-stable; for comparison. Hairer & Wanner 1996."""
    return Collocation(collocation.RADAUIA3, newton)


def RadauIA5(newton: Newton = Newton()) -> Collocation:
    """Order 5, 3 stages. L-stable; for comparison. Hairer & Wanner 1996."""
    return Collocation(collocation.RADAUIA5, newton)


def Gauss2(newton: Newton = Newton()) -> Collocation:
    """Order 2, 1 stage, dense 1. A-stable, symplectic; long runs of Hamiltonian systems. Butcher 1964."""
    return Collocation(collocation.GAUSS2, newton)


def Gauss4(newton: Newton = Newton()) -> Collocation:
    """Order 4, 2 stages, dense 2. A-stable, symplectic; long runs of Hamiltonian systems. Butcher 1964."""
    return Collocation(collocation.GAUSS4, newton)


def Gauss6(newton: Newton = Newton()) -> Collocation:
    """Order 6, 3 stages, dense 3. A-stable, symplectic; long runs of Hamiltonian systems. Butcher 1964."""
    return Collocation(collocation.GAUSS6, newton)


def Gauss8(newton: Newton = Newton()) -> Collocation:
    """Order 8, 4 stages, dense 4. A-stable, symplectic; long accurate runs of Hamiltonian systems. Butcher 1964."""
    return Collocation(collocation.GAUSS8, newton)


def LobattoIIIA2(newton: Newton = Newton()) -> Collocation:
    """Order 2, 2 stages FSAL, dense 2. A-stable, symmetric; the trapezoidal rule. Hairer & Wanner 1996."""
    return Collocation(collocation.LOBATTOIIIA2, newton)


def LobattoIIIA4(newton: Newton = Newton()) -> Collocation:
    """Order 4, 3 stages FSAL, dense 3. A-stable, symmetric; reversible systems, fixed steps. Hairer & Wanner 1996."""
    return Collocation(collocation.LOBATTOIIIA4, newton)


def LobattoIIIA6(newton: Newton = Newton()) -> Collocation:
    """Order 6, 4 stages FSAL, dense 4. A-stable, symmetric; reversible systems, fixed steps. Hairer & Wanner 1996."""
    return Collocation(collocation.LOBATTOIIIA6, newton)


def LobattoIIIB4(newton: Newton = Newton()) -> Collocation:
    """Order 4, 3 stages. A-stable, symmetric; the partner of LobattoIIIA4 in symplectic pairs. Hairer & Wanner 1996."""
    return Collocation(collocation.LOBATTOIIIB4, newton)


def LobattoIIIB6(newton: Newton = Newton()) -> Collocation:
    """Order 6, 4 stages. A-stable, symmetric; the partner of LobattoIIIA6 in symplectic pairs. Hairer & Wanner 1996."""
    return Collocation(collocation.LOBATTOIIIB6, newton)


def LobattoIIIC2(newton: Newton = Newton()) -> Collocation:
    """Order 2, 2 stages. L-stable; stiff problems, fixed steps. Hairer & Wanner 1996."""
    return Collocation(collocation.LOBATTOIIIC2, newton)


def LobattoIIIC4(newton: Newton = Newton()) -> Collocation:
    """Order 4, 3 stages. L-stable; stiff problems, fixed steps. Hairer & Wanner 1996."""
    return Collocation(collocation.LOBATTOIIIC4, newton)


def LobattoIIIC6(newton: Newton = Newton()) -> Collocation:
    """Order 6, 4 stages. L-stable; stiff problems, fixed steps. Hairer & Wanner 1996."""
    return Collocation(collocation.LOBATTOIIIC6, newton)
