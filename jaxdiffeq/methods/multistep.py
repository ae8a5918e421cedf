"""Multistep methods, which choose their order as they go."""

from typing import Any

from jaxdiffeq import _checks
from jaxdiffeq.steppers.adams import AdamsPECE
from jaxdiffeq.steppers.multistep import MultistepBDF
from jaxdiffeq.tableaux import multistep

__all__ = ["BDF", "Adams"]


def BDF(ndf: bool = True, kappa: Any = None, max_order: int = 5, **options: Any) -> MultistepBDF:
    """Order 5, from 1 upwards, dense 5. Large stiff problems, DAEs with a mass matrix. Shampine, Reichelt 1997."""
    _checks.highest_order(max_order, multistep.BDF_ORDERS)
    kappa = kappa if kappa is not None else multistep.NDF_KAPPA if ndf else (0.0,) * multistep.BDF_ORDERS
    return MultistepBDF(tuple(kappa)[:max_order], **options)


def Adams(max_order: int = multistep.ADAMS_ORDERS) -> AdamsPECE:
    """Order 12, from 1 upwards, dense 12. Not stiff, f expensive, tight tolerance. Shampine, Gordon 1975."""
    _checks.highest_order(max_order, multistep.ADAMS_ORDERS)
    return AdamsPECE(max_order)
