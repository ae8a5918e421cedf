"""Jump processes: reactions molecule by molecule, leaps over many of them, and equations whose state jumps."""

from jaxdiffeq.gradients.estimators import Pathwise
from jaxdiffeq.jumps.definitions import (
    ConstantRateJump,
    DiscreteProblem,
    JumpProblem,
    MassActionJumps,
    VariableRateJump,
)
from jaxdiffeq.jumps.exact import RSSA, SSA, NextReaction, SortingDirect
from jaxdiffeq.jumps.leaping import (
    ImplicitTauLeaping,
    MidpointTauLeaping,
    TauLeaping,
    ThetaTrapezoidalTauLeaping,
)
from jaxdiffeq.jumps.network import ReactionNetwork

__all__ = [
    "RSSA",
    "SSA",
    "ConstantRateJump",
    "DiscreteProblem",
    "ImplicitTauLeaping",
    "JumpProblem",
    "MassActionJumps",
    "MidpointTauLeaping",
    "NextReaction",
    "Pathwise",
    "ReactionNetwork",
    "SortingDirect",
    "TauLeaping",
    "ThetaTrapezoidalTauLeaping",
    "VariableRateJump",
]
