"""Jump processes: reactions molecule by molecule, leaps over many of them, and equations whose state jumps."""

from jaxdiffeq.jumps.definitions import (
    ConstantRateJump,
    DiscreteProblem,
    JumpProblem,
    MassActionJumps,
    VariableRateJump,
)
from jaxdiffeq.jumps.exact import RSSA, SSA, NextReaction, SortingDirect

__all__ = [
    "RSSA",
    "SSA",
    "ConstantRateJump",
    "DiscreteProblem",
    "JumpProblem",
    "MassActionJumps",
    "NextReaction",
    "SortingDirect",
    "VariableRateJump",
]
