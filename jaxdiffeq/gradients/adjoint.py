"""Continuous adjoints: λ′ = −(∂f/∂y)ᵀλ solved backwards in time, θ̄ = ∫ λᵀ ∂f/∂θ dt.

They approximate the gradient of the true solution; `ReverseAD` gives that of the computed one. Both agree to about the
tolerance, of the backward solve too, which is that of the forward solve unless another one is given. λ gains the
cotangent of every saved value at its time, and time itself has derivatives: dL/dt₁ = ȳ₁·f(t₁, y₁), dL/dt₀ =
−λ(t₀)·f(t₀, y₀), dL/dtsₖ = ȳₖ·f(tsₖ, yₖ), and λ·(f(T⁻) − f(T⁺)) for a stop T where f jumps. After saved steps, each
row counts as a saved time. At events λ jumps, see `adjoint_events`. A backward solve that fails gives NaN. Where
M·dy/dt = f or F(t, y, dy/dt) = 0, so is the adjoint equation: d(Eᵀλ)/dt = −Jᵀλ with E = M or ∂F/∂(dy/dt), J = ∂f/∂y or
−∂F/∂y. If dy/dt enters F nonlinearly, E has small jumps between the steps, and the backward solve wants an `rtol` some
hundred times larger than the forward one.
Source: Pontryagin et al., The Mathematical Theory of Optimal Processes, 1962; Cao, Li, Petzold, Serban 2003,
doi:10.1137/S1064827501380630.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax

from jaxdiffeq import errors
from jaxdiffeq.engine.events import SaveEvents
from jaxdiffeq.gradients.adjoint_noise import Backwards
from jaxdiffeq.gradients.adjoint_sweep import Sweep, Tape
from jaxdiffeq.gradients.reverse import power_of_two
from jaxdiffeq.gradients.rule import Active, Constants, Outputs, plain
from jaxdiffeq.gradients.segments import SEGMENT, Checkpoints
from jaxdiffeq.types import Inputs, PyTree, Settings


@dataclass(frozen=True, kw_only=True)
class ContinuousAdjoint:
    """What the continuous strategies share: options of the backward solve, bound to the size of the forward one."""

    rtol: float | None = None
    atol: float | None = None
    method: Any = None

    differentiates_scans: ClassVar[bool] = False
    solves_state: ClassVar[bool] = False
    """the backward solve carries y besides λ"""
    solves_parameters: ClassVar[bool] = False
    """it carries the parameters' integral too"""
    rule: ClassVar[str | None] = None
    """how that is computed otherwise: "gauss", "kronrod" """

    def __post_init__(self) -> None:
        errors.positive(self.rtol, "rtol")
        errors.positive(self.atol, "atol")

    def bind(self, max_steps: int, state_bytes: int) -> Bound:
        """The strategy for solves of at most `max_steps` steps with a state of this size."""
        return Bound(self, self.log(power_of_two(max_steps), state_bytes))

    def log(self, capacity: int, state_bytes: int) -> Checkpoints | None:
        slots = power_of_two(self.slots(state_bytes))
        return Checkpoints(min(slots, max(2, capacity // SEGMENT)), capacity)

    def slots(self, state_bytes: int) -> int:
        """How many states are kept at most."""
        return min(256, max(16, 2**24 // max(state_bytes, 1)))


@dataclass(frozen=True, kw_only=True)
class BacksolveAdjoint(ContinuousAdjoint):
    """(y, λ, θ̄) solved backwards together; nothing of the forward solution is kept but its end.

    *Invalid wherever the reversed equation is unstable*: dissipative, chaotic and stiff problems contract forwards, so
    errors of y grow backwards like e^{ct}, and the gradient is then wrong, often without any sign of it. Lorenz's
    equations are lost after three units of time. Compare with `check_gradients` before you trust it.
    Memory: three states and the parameters, whatever the number of steps.
    Source: Chen, Rubanova, Bettencourt, Duvenaud 2018, arXiv:1806.07366; its failure: Kim et al. 2021,
    arXiv:2103.15341, and Rackauckas et al. 2020, arXiv:2001.04385.
    """

    solves_state = solves_parameters = True

    def log(self, capacity: int, state_bytes: int) -> None:
        """Nothing."""

    def on_equal_steps(self, n: int, state_bytes: int) -> Backwards:
        """The strategy for equations with noise."""
        return Backwards(self.method)


@dataclass(frozen=True, kw_only=True)
class InterpolatingAdjoint(ContinuousAdjoint):
    """(λ, θ̄) solved backwards, y from the forward solution's own interpolant, recomputed piece by piece.

    States are kept every 32 steps, in at most `checkpoints` places (256, fewer for large states); when these are full
    every other one is dropped. The polynomials of 32 steps are recomputed from there at a time, exactly as they were.
    Invalid where λ itself is stiff and the method is not made for it: give a `method` for the backward solve.
    Memory: the checkpoints, and 32 steps of dense output.
    Source: Rackauckas et al. 2020, arXiv:2001.04385; Serban, Hindmarsh 2005 (CVODES), doi:10.1115/DETC2005-85597.
    """

    checkpoints: int | None = None
    solves_parameters = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.checkpoints is not None:
            errors.positive_integer(self.checkpoints, "checkpoints")

    def slots(self, state_bytes: int) -> int:
        return super().slots(state_bytes) if self.checkpoints is None else self.checkpoints


@dataclass(frozen=True, kw_only=True)
class QuadratureAdjoint(ContinuousAdjoint):
    """λ alone solved backwards; the parameters' integral by adaptive Gauss–Kronrod quadrature over each of its steps.

    The backward system has the size of the state, whatever the number of parameters, and the integral is accurate to
    the tolerance by itself: the dearest of the four in evaluations of f, and the most careful.
    Invalid as `InterpolatingAdjoint` is. Memory: as there; λ is not kept, each step is integrated as it is made.
    Source: Rackauckas et al. 2020, arXiv:2001.04385; Kim et al. 2021, arXiv:2103.15341; QUADPACK's QK15.
    """

    rule = "kronrod"


@dataclass(frozen=True, kw_only=True)
class GaussAdjoint(ContinuousAdjoint):
    """λ alone solved backwards; the parameters' integral by Gauss–Legendre quadrature on each of its accepted steps.

    As many points as keep the order of the method, three for Tsit5: the cheapest of the four with many parameters.
    Invalid as `InterpolatingAdjoint` is. Memory: as there.
    Source: Norcliffe, Deisenroth 2023, arXiv:2308.10644; Rackauckas et al. 2020, arXiv:2001.04385.
    """

    rule = "gauss"


CONTINUOUS = (BacksolveAdjoint, InterpolatingAdjoint, QuadratureAdjoint, GaussAdjoint)


@dataclass(frozen=True)
class Bound:
    """A continuous strategy with its checkpoints sized."""

    options: ContinuousAdjoint
    log: Checkpoints | None

    def run(self, integration: Any, inputs: Inputs, settings: Settings) -> tuple[Outputs, Constants, PyTree]:
        assert not integration.room_for_stops, "the times that steps ask for are known to the steps alone"
        kept = integration.recorders
        logged = integration if self.log is None else integration.with_recorders(**kept, log=self.log)
        outputs, constants = plain(logged, inputs, settings)
        log = None if self.log is None else (outputs.records.pop("log"), constants.marks.pop("log"))
        rows = {name: r for name, r in kept.items() if not isinstance(r, SaveEvents)}
        times = {name: r.times(outputs.records[name], inputs) for name, r in rows.items()}
        t1 = None if integration.events is None else outputs.t
        return outputs, constants, Tape(t1, outputs.y, times, log, outputs.changed)

    def pull(
        self, integration: Any, active: Active, settings: Settings, constants: Constants, tape: Any, bars: Outputs
    ) -> list[jax.Array]:
        return Sweep(integration, active, settings, constants, self.options, tape).back(bars)
