"""Multistep methods: those that choose their order as they go, and IMEX methods of one order, on equal steps.

IMEX methods treat the parts of a split problem each in its way, and take other problems as implicit altogether.
"""

from typing import Any

from jaxdiffeq import errors
from jaxdiffeq.algebra.newton import Newton
from jaxdiffeq.steppers.adams import AdamsPECE
from jaxdiffeq.steppers.imex import IMEXMultistep
from jaxdiffeq.steppers.multistep import MultistepBDF
from jaxdiffeq.tableaux import multistep

__all__ = ["BDF", "CNAB2", "SBDF2", "SBDF3", "SBDF4", "Adams", "IMEXEuler"]


def BDF(ndf: bool = True, kappa: Any = None, max_order: int = 5, **options: Any) -> MultistepBDF:
    """Order 5, from 1 upwards, dense 5. Large stiff problems, DAEs with a mass matrix. Shampine, Reichelt 1997."""
    errors.highest_order(max_order, multistep.BDF_ORDERS)
    kappa = kappa if kappa is not None else multistep.NDF_KAPPA if ndf else (0.0,) * multistep.BDF_ORDERS
    return MultistepBDF(tuple(kappa)[:max_order], **options)


def Adams(max_order: int = multistep.ADAMS_ORDERS) -> AdamsPECE:
    """Order 12, from 1 upwards, dense 12. Not stiff, f expensive, tight tolerance. Shampine, Gordon 1975."""
    errors.highest_order(max_order, multistep.ADAMS_ORDERS)
    return AdamsPECE(max_order)


def IMEXEuler(newton: Newton = Newton()) -> IMEXMultistep:
    """Order 1, 1 stage. IMEX, one solve a step; crude, fixed steps. Ascher et al. 1995."""
    return IMEXMultistep(multistep.IMEXEULER, newton)


def CNAB2(newton: Newton = Newton()) -> IMEXMultistep:
    """Order 2, 1 stage. IMEX, Crank–Nicolson and two slopes back; diffusion, fixed steps. Ascher et al. 1995."""
    return IMEXMultistep(multistep.CNAB2, newton)


def SBDF2(newton: Newton = Newton()) -> IMEXMultistep:
    """Order 2, 1 stage. IMEX, two steps back; spectral methods, fixed steps. Ascher et al. 1995."""
    return IMEXMultistep(multistep.SBDF2, newton)


def SBDF3(newton: Newton = Newton()) -> IMEXMultistep:
    """Order 3, 1 stage. IMEX, three steps back; spectral methods, fixed steps. Ascher et al. 1995."""
    return IMEXMultistep(multistep.SBDF3, newton)


def SBDF4(newton: Newton = Newton()) -> IMEXMultistep:
    """Order 4, 1 stage. IMEX, four steps back; spectral methods, smooth solutions, fixed steps. Ascher et al. 1995."""
    return IMEXMultistep(multistep.SBDF4, newton)
