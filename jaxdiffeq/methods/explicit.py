"""Explicit Runge–Kutta methods, for problems that are not stiff."""

from jaxdiffeq.steppers.explicit import ExplicitRK
from jaxdiffeq.tableaux import explicit

__all__ = [  # noqa: RUF022  by order, as below
    "Euler",
    "Midpoint",
    "Heun",
    "Ralston",
    "Kutta3",
    "BS3",
    "OwrenZen3",
    "PSRK3p5q4",
    "RK4",
    "RK4_38",
    "Ralston4",
    "OwrenZen4",
    "SofroniouSpaletta43",
    "SSPRK22",
    "SSPRK33",
    "SSPRK43",
    "SSPRK104",
    "Tsit5",
    "DP5",
    "BS5",
    "OwrenZen5",
    "CashKarp",
    "RKF45",
    "Stepanov5",
    "MSRK5",
    "Vern6",
    "MSRK6",
    "Vern7",
    "TanYam7",
    "RKV76IIa",
    "Vern8",
    "DP8",
    "TsitPap8",
    "DormandPrince87",
    "RKF78",
    "Vern9",
    "Feagin10",
    "Feagin12",
    "Feagin14",
]


def Euler() -> ExplicitRK:
    """Order 1, 1 stage, dense 1. For teaching and for tests. Euler 1768."""
    return ExplicitRK(explicit.EULER)


def Midpoint() -> ExplicitRK:
    """Order 2(1), 2 stages, dense 2. Cheap and crude. Runge 1895."""
    return ExplicitRK(explicit.MIDPOINT)


def Heun() -> ExplicitRK:
    """Order 2(1), 2 stages, dense 2. The explicit trapezoid; cheap and crude. Heun 1900."""
    return ExplicitRK(explicit.HEUN)


def Ralston() -> ExplicitRK:
    """Order 2(1), 2 stages, dense 2. The two-stage method with the smallest error bound. Ralston 1962."""
    return ExplicitRK(explicit.RALSTON)


def Kutta3() -> ExplicitRK:
    """Order 3, 3 stages. For comparison. Kutta 1901."""
    return ExplicitRK(explicit.KUTTA3)


def BS3() -> ExplicitRK:
    """Order 3(2), 4 stages FSAL, dense 3. For rtol 1e-2 and looser; `ode23`, `RK23`. Bogacki & Shampine 1989."""
    return ExplicitRK(explicit.BS3)


def OwrenZen3() -> ExplicitRK:
    """Order 3(2), 4 stages FSAL, dense 3. An alternative to BS3. Owren & Zennaro 1992."""
    return ExplicitRK(explicit.OWRENZEN3)


def PSRK3p5q4() -> ExplicitRK:
    """Order 3, 4 stages. Long runs that should nearly keep a quadratic invariant. Capuano et al. 2017."""
    return ExplicitRK(explicit.PSRK3P5Q4)


def RK4() -> ExplicitRK:
    """Order 4, 4 stages, dense 3. The classic, for fixed steps. Kutta 1901."""
    return ExplicitRK(explicit.RK4)


def RK4_38() -> ExplicitRK:
    """Order 4, 4 stages. The 3/8 rule: a smaller error than RK4. Kutta 1901."""
    return ExplicitRK(explicit.RK4_38)


def Ralston4() -> ExplicitRK:
    """Order 4, 4 stages. Chosen for a small error bound. Ralston 1962."""
    return ExplicitRK(explicit.RALSTON4)


def OwrenZen4() -> ExplicitRK:
    """Order 4(3), 6 stages FSAL, dense 4. For accurate output between the steps. Owren & Zennaro 1992."""
    return ExplicitRK(explicit.OWRENZEN4)


def SofroniouSpaletta43() -> ExplicitRK:
    """Order 4(3), 5 stages FSAL. For rtol 1e-1 to 1e-2. Sofroniou & Spaletta 2004."""
    return ExplicitRK(explicit.SOFRONIOUSPALETTA43)


def SSPRK22() -> ExplicitRK:
    """Order 2, 2 stages, SSP 1, dense 2. PDEs with shocks and limiters. Shu & Osher 1988."""
    return ExplicitRK(explicit.SSPRK22)


def SSPRK33() -> ExplicitRK:
    """Order 3, 3 stages, SSP 1, dense 2. PDEs with shocks and limiters, the usual choice. Shu & Osher 1988."""
    return ExplicitRK(explicit.SSPRK33)


def SSPRK43() -> ExplicitRK:
    """Order 3(2), 4 stages, SSP 2, dense 2. PDEs with shocks and limiters, adaptive. Kraaijevanger 1991."""
    return ExplicitRK(explicit.SSPRK43)


def SSPRK104() -> ExplicitRK:
    """Order 4, 10 stages, SSP 6. PDEs with shocks and limiters, the longest steps. Ketcheson 2008."""
    return ExplicitRK(explicit.SSPRK104)


def Tsit5() -> ExplicitRK:
    """Order 5(4), 7 stages FSAL, dense 4. The usual choice for rtol 1e-2 to 1e-6. Tsitouras 2011."""
    return ExplicitRK(explicit.TSIT5)


def DP5() -> ExplicitRK:
    """Order 5(4), 7 stages FSAL, dense 4. `ode45`, `RK45`, `dopri5`. Dormand & Prince 1980."""
    return ExplicitRK(explicit.DP5)


def BS5() -> ExplicitRK:
    """Order 5(4), 8 stages FSAL, dense 5 with 3 more. Often fewer evaluations than Tsit5. Bogacki & Shampine 1996."""
    return ExplicitRK(explicit.BS5)


def OwrenZen5() -> ExplicitRK:
    """Order 5(4), 8 stages FSAL, dense 5. For accurate output between the steps. Owren & Zennaro 1992."""
    return ExplicitRK(explicit.OWRENZEN5)


def CashKarp() -> ExplicitRK:
    """Order 5(4), 6 stages, dense 4 with 1 more. For rtol 1e-2 to 1e-5. Cash & Karp 1990."""
    return ExplicitRK(explicit.CASHKARP)


def RKF45() -> ExplicitRK:
    """Order 5(4), 6 stages, dense 4 with 1 more. For comparison with older codes. Fehlberg 1969."""
    return ExplicitRK(explicit.RKF45)


def Stepanov5() -> ExplicitRK:
    """Order 5(4), 7 stages FSAL, dense 4 with 1 more. An alternative to Tsit5. Stepanov 2022."""
    return ExplicitRK(explicit.STEPANOV5)


def MSRK5() -> ExplicitRK:
    """Order 5, 8 stages, dense 4. For fixed steps. Stepanov, arXiv:2202.08443."""
    return ExplicitRK(explicit.MSRK5)


def Vern6() -> ExplicitRK:
    """Order 6(5), 9 stages FSAL, dense 6 with 3 more. For rtol 1e-5 to 1e-8. Verner 2010."""
    return ExplicitRK(explicit.VERN6)


def MSRK6() -> ExplicitRK:
    """Order 6, 8 stages, dense 5 with 2 more. For fixed steps. Stepanov, arXiv:2202.08443."""
    return ExplicitRK(explicit.MSRK6)


def Vern7() -> ExplicitRK:
    """Order 7(6), 10 stages, dense 7 with 5 more. The usual choice for rtol 1e-6 to 1e-9. Verner 2010."""
    return ExplicitRK(explicit.VERN7)


def TanYam7() -> ExplicitRK:
    """Order 7(6), 10 stages, dense 6 with 5 more. An alternative to Vern7. Tanaka, Muramatsu & Yamashita 1992."""
    return ExplicitRK(explicit.TANYAM7)


def RKV76IIa() -> ExplicitRK:
    """Order 7(6), 10 stages, dense 6 with 5 more. An alternative to Vern7. Verner 2024."""
    return ExplicitRK(explicit.RKV76IIA)


def Vern8() -> ExplicitRK:
    """Order 8(7), 13 stages, dense 8 with 7 more. For rtol 1e-7 to 1e-11. Verner 2010."""
    return ExplicitRK(explicit.VERN8)


def DP8() -> ExplicitRK:
    """Order 8(5, 3), 12 stages, dense 7 with 3 more. `DOP853`, for rtol 1e-6 to 1e-11. Hairer et al. 1993."""
    return ExplicitRK(explicit.DP8)


def TsitPap8() -> ExplicitRK:
    """Order 8(7), 13 stages, dense 7 with 7 more. An alternative to Vern8. Tsitouras & Papakostas 1999."""
    return ExplicitRK(explicit.TSITPAP8)


def DormandPrince87() -> ExplicitRK:
    """Order 8(7), 13 stages, dense 7 with 8 more. diffrax's `Dopri8`. Prince & Dormand 1981."""
    return ExplicitRK(explicit.DORMANDPRINCE87)


def RKF78() -> ExplicitRK:
    """Order 8(7), 13 stages, dense 7 with 7 more. For comparison with older codes. Fehlberg 1968."""
    return ExplicitRK(explicit.RKF78)


def Vern9() -> ExplicitRK:
    """Order 9(8), 16 stages, dense 9 with 9 more. The usual choice for rtol below 1e-9. Verner 2010."""
    return ExplicitRK(explicit.VERN9)


def Feagin10() -> ExplicitRK:
    """Order 10(8), 17 stages, dense 9 with 15 more. Reference solutions, at 1e-8 or tighter. Feagin 2007."""
    return ExplicitRK(explicit.FEAGIN10)


def Feagin12() -> ExplicitRK:
    """Order 12(10), 25 stages, dense 11 with 26 more. Reference solutions; rounding soon takes over. Feagin 2012."""
    return ExplicitRK(explicit.FEAGIN12)


def Feagin14() -> ExplicitRK:
    """Order 14(12), 35 stages, dense 13 with 40 more. Reference solutions; rounding soon takes over. Feagin 2012."""
    return ExplicitRK(explicit.FEAGIN14)
