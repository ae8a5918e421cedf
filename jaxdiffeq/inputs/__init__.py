"""Known functions of time that drive an equation, and carry the times at which they or their slopes jump."""

from jaxdiffeq.inputs.base import Input as Input
from jaxdiffeq.inputs.tables import CubicSpline as CubicSpline
from jaxdiffeq.inputs.tables import PiecewiseConstant as PiecewiseConstant
from jaxdiffeq.inputs.tables import PiecewiseLinear as PiecewiseLinear
from jaxdiffeq.inputs.tables import Sampled as Sampled
from jaxdiffeq.inputs.waves import SquareWave as SquareWave
