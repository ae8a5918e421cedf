"""The strategy for steady states."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SteadyStateAdjoint:
    """dy = −(∂f/∂y)⁻¹ ∂f/∂args·dargs, by the implicit function theorem, in forward and in reverse mode."""
