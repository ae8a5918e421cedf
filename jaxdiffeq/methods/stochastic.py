"""Methods for equations with noise.

A docstring gives the calculus, the kinds of noise that a method serves, its strong order and its weak one, whether it
has an error estimate, what it is good for, and its source.
"""

from jaxdiffeq.algebra.newton import NEWTON, Newton
from jaxdiffeq.problems import noise_errors
from jaxdiffeq.steppers.langevin import ALIGNStepper, BAOABStepper, QUICSORTStepper, ShOULDStepper, UBUStepper
from jaxdiffeq.steppers.reversible import ReversibleHeunStepper
from jaxdiffeq.steppers.stabilized import SROCK2Stepper
from jaxdiffeq.steppers.stochastic import (
    EulerHeunStepper,
    EulerMaruyamaStepper,
    MilsteinStepper,
    RKMilStepper,
    StochasticHeunStepper,
    StochasticMidpointStepper,
)
from jaxdiffeq.steppers.stochastic_implicit import (
    ImplicitEMStepper,
    ImplicitEulerHeunStepper,
    ImplicitRKMilStepper,
    ImplicitSRA,
    SplitStepBEStepper,
)
from jaxdiffeq.steppers.stochastic_rk import SRA, SRI, AdditiveSRK, FosterSRK
from jaxdiffeq.steppers.weak import PL1WMAStepper, WeakIto, WeakStratonovich
from jaxdiffeq.tableaux import stabilized, stochastic

__all__ = [  # noqa: RUF022  by family, as below
    "EulerMaruyama",
    "EulerHeun",
    "StochasticHeun",
    "StochasticMidpoint",
    "Milstein",
    "RKMil",
    "SRIW1",
    "SRIW2",
    "SOSRI",
    "SOSRI2",
    "SRA1",
    "SRA2",
    "SRA3",
    "SOSRA",
    "SOSRA2",
    "SEA",
    "ShARK",
    "GeneralShARK",
    "SPaRK",
    "SlowRK",
    "DRI1",
    "RI1",
    "RI3",
    "RI5",
    "RI6",
    "RDI1WM",
    "RDI2WM",
    "RDI3WM",
    "RDI4WM",
    "PL1WM",
    "PL1WMA",
    "RS1",
    "RS2",
    "ImplicitEM",
    "ImplicitEulerHeun",
    "ImplicitRKMil",
    "SplitStepBE",
    "SKenCarp",
    "ReversibleHeun",
    "SROCK2",
    "BAOAB",
    "UBU",
    "ALIGN",
    "ShOULD",
    "QUICSORT",
]


def EulerMaruyama() -> EulerMaruyamaStepper:
    """Itô; any noise; strong 1/2 (1 if additive), weak 1. Simple and cheap, on equal steps. Maruyama 1955."""
    return EulerMaruyamaStepper()


def EulerHeun() -> EulerHeunStepper:
    """Stratonovich; any noise; strong 1/2 (1 if it commutes), weak 1. Cheap, on equal steps. Roberts 2012."""
    return EulerHeunStepper()


def StochasticHeun() -> StochasticHeunStepper:
    """Stratonovich; any noise; strong 1/2 (1 if it commutes), weak 1; adaptive. Order 2 in the drift. Rümelin 1982."""
    return StochasticHeunStepper()


def StochasticMidpoint() -> StochasticMidpointStepper:
    """Stratonovich; any noise; strong 1/2 (1 if it commutes), weak 1; adaptive. Order 2 in the drift. Rümelin 1982."""
    return StochasticMidpointStepper()


def Milstein(*, terms: int = 8) -> MilsteinStepper:
    """Both calculi; any noise; strong 1, weak 1; adaptive. By derivatives of the diffusion; Lévy areas by `terms` terms
    of a series, where the noise does not commute. Milstein 1974.
    """
    return MilsteinStepper(terms=noise_errors.terms(terms))


def RKMil() -> RKMilStepper:
    """Both calculi; diagonal or scalar noise; strong 1, weak 1; adaptive. Milstein's without derivatives. Platen."""
    return RKMilStepper()


def SRIW1() -> SRI:
    """Itô; diagonal or scalar noise; strong 3/2, weak 2; adaptive. Order 2 in the drift. Rößler 2010."""
    return SRI(stochastic.SRIW1)


def SRIW2() -> SRI:
    """Itô; diagonal or scalar noise; strong 3/2, weak 2; adaptive. Order 3 in the drift. Rößler 2010."""
    return SRI(stochastic.SRIW2)


def SOSRI() -> SRI:
    """Itô; diagonal or scalar noise; strong 3/2, weak 2; adaptive. The first choice; stable. Rackauckas & Nie 2020."""
    return SRI(stochastic.SOSRI)


def SOSRI2() -> SRI:
    """Itô; diagonal or scalar noise; strong 3/2, weak 2; adaptive. Stable in another way. Rackauckas & Nie 2020."""
    return SRI(stochastic.SOSRI2)


def SRA1() -> SRA:
    """Additive noise; strong 3/2, weak 2; adaptive. Two stages. Rößler 2010."""
    return SRA(stochastic.SRA1)


def SRA2() -> SRA:
    """Additive noise; strong 3/2, weak 2; adaptive. Two stages. Rößler 2010."""
    return SRA(stochastic.SRA2)


def SRA3() -> SRA:
    """Additive noise; strong 3/2, weak 2; adaptive. Order 3 in the drift: for tight tolerances. Rößler 2010."""
    return SRA(stochastic.SRA3)


def SOSRA() -> SRA:
    """Additive noise; strong 3/2, weak 2; adaptive. The first choice; stable. Rackauckas & Nie 2020."""
    return SRA(stochastic.SOSRA)


def SOSRA2() -> SRA:
    """Additive noise; strong 3/2, weak 2; adaptive. Stable in another way. Rackauckas & Nie 2020."""
    return SRA(stochastic.SOSRA2)


def SEA() -> AdditiveSRK:
    """Additive noise; strong 1, weak 1. One stage with a small error, on equal steps. Foster et al. 2024."""
    return AdditiveSRK(stochastic.SEA)


def ShARK() -> AdditiveSRK:
    """Additive noise; strong 3/2, weak 2; adaptive. Two stages. Foster et al. 2024."""
    return AdditiveSRK(stochastic.SHARK)


def GeneralShARK() -> FosterSRK:
    """Stratonovich; any noise; strong 1/2 (1 if it commutes, 3/2 if additive). Small errors. Foster et al. 2024."""
    return FosterSRK(stochastic.GENERALSHARK)


def SPaRK() -> FosterSRK:
    """Stratonovich; any noise; strong 1/2 (1 if it commutes, 3/2 if additive); adaptive. Foster 2023."""
    return FosterSRK(stochastic.SPARK)


def SlowRK() -> FosterSRK:
    """Stratonovich; any noise; strong 1/2 (3/2 if it commutes), weak 1. Seven stages. Foster et al. 2024."""
    return FosterSRK(stochastic.SLOWRK)


def DRI1() -> WeakIto:
    """Itô; any noise; weak 2, in the drift 3. Small errors: the first choice for laws. Debrabant & Rößler 2009."""
    return WeakIto(stochastic.DRI1)


def RI1() -> WeakIto:
    """Itô; any noise; weak 2, in the drift 3. Rößler 2009."""
    return WeakIto(stochastic.RI1)


def RI3() -> WeakIto:
    """Itô; any noise; weak 2, in the drift 3. Rößler 2009."""
    return WeakIto(stochastic.RI3)


def RI5() -> WeakIto:
    """Itô; any noise; weak 2, in the drift 3. Rößler 2009."""
    return WeakIto(stochastic.RI5)


def RI6() -> WeakIto:
    """Itô; any noise; weak 2, in the drift 2. Rößler 2009."""
    return WeakIto(stochastic.RI6)


def RDI1WM() -> WeakIto:
    """Itô; any noise; weak 1. Two stages of the drift, of order 2. Debrabant & Rößler 2009."""
    return WeakIto(stochastic.RDI1WM)


def RDI2WM() -> WeakIto:
    """Itô; any noise; weak 2, in the drift 2. Debrabant & Rößler 2009."""
    return WeakIto(stochastic.RDI2WM)


def RDI3WM() -> WeakIto:
    """Itô; any noise; weak 2, in the drift 3. Debrabant & Rößler 2009."""
    return WeakIto(stochastic.RDI3WM)


def RDI4WM() -> WeakIto:
    """Itô; any noise; weak 2, in the drift 3. Debrabant & Rößler 2009."""
    return WeakIto(stochastic.RDI4WM)


def PL1WM() -> WeakIto:
    """Itô; any noise; weak 2, in the drift 2. Platen; Kloeden & Platen 1992."""
    return WeakIto(stochastic.PL1WM)


def PL1WMA() -> PL1WMAStepper:
    """Additive noise; weak 2. Two calls of the drift. Platen; Kloeden & Platen 1992."""
    return PL1WMAStepper()


def RS1() -> WeakStratonovich:
    """Stratonovich; any noise; weak 2, in the drift 2. Rößler 2007."""
    return WeakStratonovich(stochastic.RS1)


def RS2() -> WeakStratonovich:
    """Stratonovich; any noise; weak 2, in the drift 3. Rößler 2007."""
    return WeakStratonovich(stochastic.RS2)


def ImplicitEM(*, theta: float = 1.0, newton: Newton = NEWTON) -> ImplicitEMStepper:
    """Itô; any noise; strong 1/2 (1 if additive), weak 1. For stiff drifts, on equal steps. Kloeden, Platen 1992."""
    return ImplicitEMStepper(newton, theta=noise_errors.implicit_share(theta))


def ImplicitEulerHeun(*, theta: float = 1.0, newton: Newton = NEWTON) -> ImplicitEulerHeunStepper:
    """Stratonovich; any noise; strong 1/2 (1 if it commutes), weak 1. For stiff drifts, on equal steps."""
    return ImplicitEulerHeunStepper(newton, theta=noise_errors.implicit_share(theta))


def ImplicitRKMil(*, theta: float = 1.0, newton: Newton = NEWTON) -> ImplicitRKMilStepper:
    """Both calculi; diagonal or scalar noise; strong 1, weak 1. For stiff drifts, on equal steps."""
    return ImplicitRKMilStepper(newton, theta=noise_errors.implicit_share(theta))


def SplitStepBE(*, newton: Newton = NEWTON) -> SplitStepBEStepper:
    """Itô; any noise; strong 1/2 (1 if additive), weak 1. Drifts that grow fast, on equal steps. Higham et al. 2002."""
    return SplitStepBEStepper(newton)


def SKenCarp(*, newton: Newton = NEWTON) -> ImplicitSRA:
    """Additive noise; strong 3/2 for small steps, weak 2; adaptive. L-stable in the drift. Rackauckas & Nie 2020."""
    return ImplicitSRA(newton)


def ReversibleHeun() -> ReversibleHeunStepper:
    """Stratonovich; any noise; strong 1/2 (1 if it commutes), weak 1; adaptive. One call a step of drift and diffusion
    and steps that can be taken back, for gradients in constant memory. Not for stiff problems. Kidger et al. 2021.
    """
    return ReversibleHeunStepper()


def SROCK2(stages: int = 10) -> SROCK2Stepper:
    """Itô; any noise; weak 2. Explicit and stable while dt times the largest rate is below 0.43·stages²: for heat and
    what is like it, with noise that is smooth in space, on equal steps. Stages from 4 to 200, or the next number there
    is a table for. Abdulle, Vilmart & Zygalakis 2013.
    """
    return SROCK2Stepper(noise_errors.stabilized(stages, stabilized.ROCK2))


# -------------------- motion with friction and noise ------------------------------------------------------------------

LANGEVIN = ("BAOAB", "UBU", "ALIGN", "ShOULD", "QUICSORT")


def BAOAB() -> BAOABStepper:
    """Langevin motion; strong 1, weak 2, and the right density of positions to order 4 where friction is strong. One
    call of the force a step, on equal steps: the first choice for sampling. Leimkuhler & Matthews 2013.
    """
    return BAOABStepper()


def UBU() -> UBUStepper:
    """Langevin motion; strong 2, weak 2. One call of the force a step, on equal steps. Zapatero 2017."""
    return UBUStepper()


def ALIGN() -> ALIGNStepper:
    """Langevin motion; strong 2, weak 2; adaptive. One call of the force a step. Foster et al. 2021."""
    return ALIGNStepper()


def ShOULD() -> ShOULDStepper:
    """Langevin motion; strong 3, weak 3. Two calls of the force a step, on equal steps. Foster et al. 2021."""
    return ShOULDStepper()


def QUICSORT() -> QUICSORTStepper:
    """Langevin motion; strong 3, weak 3. Two calls of the force, contractive, on equal steps. Foster et al. 2021."""
    return QUICSORTStepper()
