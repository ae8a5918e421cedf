"""The method for those who name none."""

import numpy as np
from jax.core import Tracer

from jaxdiffeq.methods.explicit import BS3, Tsit5, Vern7, Vern9
from jaxdiffeq.steppers.explicit import ExplicitRK


def default_method(rtol) -> ExplicitRK:
    """The explicit method for a non-stiff problem at this tolerance; Tsit5 where the tolerance is traced or zero.

    Shapes:  rtol is one number or an array, then the tightest one decides.
    """
    if isinstance(rtol, Tracer):
        return Tsit5()
    tightest = 1.0001 * float(np.min(rtol))  # so that a 1e-6 in float32 is no less than 1e-6
    # Evaluations of f, geometric mean over Lotka–Volterra, Brusselator, rigid body, Van der Pol, pendulum, Lorenz and
    # Arenstorf orbit, saving the end only:
    #     rtol      1e-1   1e-2   1e-3   1e-4   1e-6   1e-8  1e-10
    #     BS3        111    190    372    781   3556  16478      –
    #     Tsit5      186    225    297    411    925   2166   5401
    #     Vern7      301    343    437    540    913   1593   2980
    #     Vern9      408    505    549    633    918   1394   2128
    # At 1e-2 BS3 and Tsit5 cost the same for the same error, at 1e-6 Tsit5 and Vern7 for the same tolerance. Vern9
    # waits until it saves a fifth: it is the longest to compile, and its dense output takes ten more stages (Vern7: 6).
    if tightest >= 1e-2:
        return BS3()
    if tightest >= 1e-6 or tightest == 0.0:  # 0: the absolute tolerance alone decides, and has the unit of y
        return Tsit5()
    if tightest >= 1e-9:
        return Vern7()
    return Vern9()
