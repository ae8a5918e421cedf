"""Diagonally implicit Runge–Kutta methods, for stiff problems and DAEs: one stage after the other by Newton's method.

IMEX methods treat the parts of a split problem each in its way, and solve other problems by their implicit method.
"""

from jaxdiffeq.algebra.newton import Newton
from jaxdiffeq.steppers.dirk import DIRK
from jaxdiffeq.tableaux import dirk

__all__ = [  # noqa: RUF022  by order, as below
    "ImplicitEuler",
    "ImplicitMidpoint",
    "Trapezoid",
    "TRBDF2",
    "SDIRK2",
    "SDIRK22",
    "SDIRK33",
    "Kvaerno3",
    "ESDIRK324L2SA",
    "ESDIRK325L2SA",
    "ESDIRK32I5L2SA",
    "Kvaerno4",
    "Kvaerno4_34",
    "Cash4",
    "Hairer4",
    "Hairer42",
    "ESDIRK436L2SA",
    "ESDIRK43I6L2SA",
    "QESDIRK436L2SA",
    "ESDIRK437L2SA",
    "ESDIRK436L2SA2",
    "Kvaerno5",
    "ESDIRK547L2SA",
    "ESDIRK547L2SA2",
    "ESDIRK54I8L2SA",
    "ESDIRK659L2SA",
    "ARS222",
    "ARS232",
    "IMEXSSP222",
    "IMEXSSP2322",
    "IMEXSSP3332",
    "ARK2",
    "Sil3",
    "ARS343",
    "ARS443",
    "IMEXSSP3433",
    "BHR553",
    "KenCarp3",
    "KenCarp4",
    "KenCarp47",
    "KenCarp5",
    "KenCarp58",
]


def ImplicitEuler(newton: Newton = Newton()) -> DIRK:
    """Order 1, 1 stage. L-stable; the most robust, crude, own error estimate. Hairer & Wanner 1996."""
    return DIRK(dirk.IMPLICITEULER, newton)


def ImplicitMidpoint(newton: Newton = Newton()) -> DIRK:
    """Order 2, 1 stage. A-stable, symplectic; own error estimate. Hairer & Wanner 1996."""
    return DIRK(dirk.IMPLICITMIDPOINT, newton)


def Trapezoid(newton: Newton = Newton()) -> DIRK:
    """Order 2, 2 stages FSAL. A-stable, no damping of stiff components; own error estimate. Hairer & Wanner 1996."""
    return DIRK(dirk.TRAPEZOID, newton)


def TRBDF2(newton: Newton = Newton()) -> DIRK:
    """Order 2(3), 3 stages FSAL. L-stable; rtol 1e-2 and looser, circuits. Hosea & Shampine 1996."""
    return DIRK(dirk.TRBDF2, newton)


def SDIRK2(newton: Newton = Newton()) -> DIRK:
    """Order 2(1), 2 stages. A-stable; for comparison. SUNDIALS 2005."""
    return DIRK(dirk.SDIRK2, newton)


def SDIRK22(newton: Newton = Newton()) -> DIRK:
    """Order 2, 2 stages. L-stable; crude, own error estimate. Alexander 1977."""
    return DIRK(dirk.SDIRK22, newton)


def SDIRK33(newton: Newton = Newton()) -> DIRK:
    """Order 3(2), 3 stages. L-stable; for comparison. Alexander 1977."""
    return DIRK(dirk.SDIRK33, newton)


def Kvaerno3(newton: Newton = Newton()) -> DIRK:
    """Order 3(2), 4 stages FSAL. L-stable; stiff problems and DAEs, rtol 1e-2 to 1e-4. Kværnø 2004."""
    return DIRK(dirk.KVAERNO3, newton)


def ESDIRK324L2SA(newton: Newton = Newton()) -> DIRK:
    """Order 3(2), 4 stages FSAL. L-stable; stiff problems, crude tolerances. Kennedy & Carpenter 2016."""
    return DIRK(dirk.ESDIRK324L2SA, newton)


def ESDIRK325L2SA(newton: Newton = Newton()) -> DIRK:
    """Order 3(2), 5 stages FSAL. L-stable; stiff problems, crude tolerances. Kennedy & Carpenter 2016."""
    return DIRK(dirk.ESDIRK325L2SA, newton)


def ESDIRK32I5L2SA(newton: Newton = Newton()) -> DIRK:
    """Order 3(2), 5 stages FSAL. L-stable; stiff problems, crude to moderate tolerances. Kennedy & Carpenter 2016."""
    return DIRK(dirk.ESDIRK32I5L2SA, newton)


def Kvaerno4(newton: Newton = Newton()) -> DIRK:
    """Order 4(3), 5 stages FSAL. L-stable; stiff problems and DAEs, rtol 1e-3 to 1e-6. Kværnø 2004."""
    return DIRK(dirk.KVAERNO4, newton)


def Kvaerno4_34(newton: Newton = Newton()) -> DIRK:
    """Order 4(3), 5 stages FSAL. A-stable; the table that other codes call Kvaerno4. Kværnø 2004."""
    return DIRK(dirk.KVAERNO4_34, newton)


def Cash4(newton: Newton = Newton()) -> DIRK:
    """Order 4(3), 5 stages. L-stable; for comparison. Cash 1979."""
    return DIRK(dirk.CASH4, newton)


def Hairer4(newton: Newton = Newton()) -> DIRK:
    """Order 4(3), 5 stages, dense 3. L-stable; stiff problems and DAEs, the code SDIRK4. Hairer & Wanner 1996."""
    return DIRK(dirk.HAIRER4, newton)


def Hairer42(newton: Newton = Newton()) -> DIRK:
    """Order 4(3), 5 stages, dense 3. L-stable; other coefficients for Hairer4. Hairer & Wanner 1996."""
    return DIRK(dirk.HAIRER42, newton)


def ESDIRK436L2SA(newton: Newton = Newton()) -> DIRK:
    """Order 4(3), 6 stages FSAL. L-stable; stiff problems, rtol 1e-3 to 1e-6. Kennedy & Carpenter 2016."""
    return DIRK(dirk.ESDIRK436L2SA, newton)


def ESDIRK43I6L2SA(newton: Newton = Newton()) -> DIRK:
    """Order 4(3), 6 stages FSAL. L-stable; stiff problems, crude to moderate tolerances. Kennedy & Carpenter 2016."""
    return DIRK(dirk.ESDIRK43I6L2SA, newton)


def QESDIRK436L2SA(newton: Newton = Newton()) -> DIRK:
    """Order 4(3), 6 stages FSAL. L-stable; two factorisations a step, for comparison. Kennedy & Carpenter 2016."""
    return DIRK(dirk.QESDIRK436L2SA, newton)


def ESDIRK437L2SA(newton: Newton = Newton()) -> DIRK:
    """Order 4(3), 7 stages FSAL. L-stable; stiff problems, small error constants. Kennedy & Carpenter 2019."""
    return DIRK(dirk.ESDIRK437L2SA, newton)


def ESDIRK436L2SA2(newton: Newton = Newton()) -> DIRK:
    """Order 4(3), 6 stages FSAL. L-stable; stiff problems, rtol 1e-3 to 1e-6. Kennedy & Carpenter 2019."""
    return DIRK(dirk.ESDIRK436L2SA2, newton)


def Kvaerno5(newton: Newton = Newton()) -> DIRK:
    """Order 5(4), 7 stages FSAL, dense 4. L-stable; stiff problems and DAEs, rtol 1e-4 and tighter. Kværnø 2004."""
    return DIRK(dirk.KVAERNO5, newton)


def ESDIRK547L2SA(newton: Newton = Newton()) -> DIRK:
    """Order 5(4), 7 stages FSAL, dense 4. L-stable; stiff problems, rtol 1e-4 and tighter. Kennedy & Carpenter 2016."""
    return DIRK(dirk.ESDIRK547L2SA, newton)


def ESDIRK547L2SA2(newton: Newton = Newton()) -> DIRK:
    """Order 5(4), 7 stages FSAL, dense 4. L-stable; stiff problems, rtol 1e-4 and tighter. Kennedy & Carpenter 2019."""
    return DIRK(dirk.ESDIRK547L2SA2, newton)


def ESDIRK54I8L2SA(newton: Newton = Newton()) -> DIRK:
    """Order 5(4), 8 stages FSAL, dense 4. L-stable; stiff problems, rtol 1e-4 and tighter. Kennedy & Carpenter 2016."""
    return DIRK(dirk.ESDIRK54I8L2SA, newton)


def ESDIRK659L2SA(newton: Newton = Newton()) -> DIRK:
    """Order 6(5), 9 stages FSAL, dense 5. L-stable; stiff problems, tight tolerances. Kennedy & Carpenter 2019."""
    return DIRK(dirk.ESDIRK659L2SA, newton)


def ARS222(newton: Newton = Newton()) -> DIRK:
    """Order 2, 3 stages FSAL. IMEX, L-stable; advection and diffusion, fixed steps. Ascher, Ruuth & Spiteri 1997."""
    return DIRK(dirk.ARS222, newton)


def ARS232(newton: Newton = Newton()) -> DIRK:
    """Order 2, 3 stages FSAL. IMEX, L-stable; advection and diffusion, fixed steps. Ascher, Ruuth & Spiteri 1997."""
    return DIRK(dirk.ARS232, newton)


def IMEXSSP222(newton: Newton = Newton()) -> DIRK:
    """Order 2, 2 stages. IMEX, L-stable, explicit part SSP; hyperbolic relaxation. Pareschi & Russo 2005."""
    return DIRK(dirk.IMEXSSP222, newton)


def IMEXSSP2322(newton: Newton = Newton()) -> DIRK:
    """Order 2, 3 stages. IMEX, L-stable, explicit part SSP; hyperbolic relaxation. Pareschi & Russo 2005."""
    return DIRK(dirk.IMEXSSP2322, newton)


def IMEXSSP3332(newton: Newton = Newton()) -> DIRK:
    """Order 2, 3 stages. IMEX, L-stable, explicit part SSP; hyperbolic relaxation. Pareschi & Russo 2005."""
    return DIRK(dirk.IMEXSSP3332, newton)


def ARK2(newton: Newton = Newton()) -> DIRK:
    """Order 2(1), 3 stages FSAL. IMEX, L-stable; atmospheric dynamics. Giraldo, Kelly & Constantinescu 2013."""
    return DIRK(dirk.ARK2, newton)


def Sil3(newton: Newton = Newton()) -> DIRK:
    """Order 2, 4 stages FSAL. IMEX, L-stable; semi-implicit weather models, fixed steps. Whitaker & Kar 2013."""
    return DIRK(dirk.SIL3, newton)


def ARS343(newton: Newton = Newton()) -> DIRK:
    """Order 3, 4 stages FSAL. IMEX, L-stable; advection and diffusion, fixed steps. Ascher, Ruuth & Spiteri 1997."""
    return DIRK(dirk.ARS343, newton)


def ARS443(newton: Newton = Newton()) -> DIRK:
    """Order 3, 5 stages FSAL. IMEX, L-stable; advection and diffusion, fixed steps. Ascher, Ruuth & Spiteri 1997."""
    return DIRK(dirk.ARS443, newton)


def IMEXSSP3433(newton: Newton = Newton()) -> DIRK:
    """Order 3, 4 stages. IMEX, L-stable, explicit part SSP; hyperbolic relaxation. Pareschi & Russo 2005."""
    return DIRK(dirk.IMEXSSP3433, newton)


def BHR553(newton: Newton = Newton()) -> DIRK:
    """Order 3, 5 stages FSAL. IMEX, L-stable; relaxation, the order holds for any stiffness. Boscarino & Russo 2009."""
    return DIRK(dirk.BHR553, newton)


def KenCarp3(newton: Newton = Newton()) -> DIRK:
    """Order 3(2), 4 stages FSAL, dense 2. IMEX, L-stable; rtol 1e-2 to 1e-4. Kennedy & Carpenter 2003."""
    return DIRK(dirk.KENCARP3, newton)


def KenCarp4(newton: Newton = Newton()) -> DIRK:
    """Order 4(3), 6 stages FSAL, dense 3. IMEX, L-stable; rtol 1e-3 to 1e-6. Kennedy & Carpenter 2003."""
    return DIRK(dirk.KENCARP4, newton)


def KenCarp47(newton: Newton = Newton()) -> DIRK:
    """Order 4(3), 7 stages FSAL. IMEX, L-stable; rtol 1e-3 to 1e-6. Kennedy & Carpenter 2019."""
    return DIRK(dirk.KENCARP47, newton)


def KenCarp5(newton: Newton = Newton()) -> DIRK:
    """Order 5(4), 8 stages FSAL, dense 4. IMEX, L-stable; rtol 1e-5 and tighter. Kennedy & Carpenter 2003."""
    return DIRK(dirk.KENCARP5, newton)


def KenCarp58(newton: Newton = Newton()) -> DIRK:
    """Order 5(4), 8 stages FSAL, dense 4. IMEX, L-stable; rtol 1e-5 and tighter. Kennedy & Carpenter 2019."""
    return DIRK(dirk.KENCARP58, newton)
