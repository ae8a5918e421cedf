"""Multistep methods, which choose their order as they go."""

from typing import Any

from jaxdiffeq.steppers.multistep import MultistepBDF
from jaxdiffeq.tableaux import multistep

__all__ = ["BDF"]


def BDF(ndf: bool = True, kappa: Any = None, max_order: int = 5, **options: Any) -> MultistepBDF:
    """Order 5, from 1 upwards, dense 5. Large stiff problems, DAEs with a mass matrix. Shampine, Reichelt 1997."""
    kappa = kappa if kappa is not None else multistep.NDF_KAPPA if ndf else (0.0,) * multistep.BDF_ORDERS
    return MultistepBDF(tuple(kappa)[:max_order], **options)
