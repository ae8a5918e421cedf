"""The discrete adjoint of steps that can be run backwards: nothing is kept of them but the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdiffeq import errors
from jaxdiffeq.gradients.reverse import EqualPull, with_tape
from jaxdiffeq.gradients.rule import Active, Constants, Outputs, joined
from jaxdiffeq.primitives.scan import counted
from jaxdiffeq.types import Inputs, PyTree, Settings

ONLY_EQUAL = (
    "{name} does not serve SDEProblem on steps that are not equal, nor with stops or events: it goes back along the "
    "path step by step, without a log of them. Give controller=FixedSteps(n) with n ≤ max_steps, or "
    "gradient=ReverseAD()."
)


@dataclass(frozen=True)
class ReversibleAdjoint:
    """The exact gradient of the computed solution, whose steps are run backwards one by one: memory is constant.

    For `ReversibleHeun()` on equal steps, where a step is undone in closed form and its noise drawn again: the state
    that a step is reversed from is the one of the forward solve up to rounding, and so the gradient is that of
    `ReverseAD`. Rounding errors grow on the way back as small changes of the solution would: compare with `ReverseAD`
    where the equation contracts strongly over a long span. Of a solve that fails the steps are taken again.
    Memory: two states, whatever the number of steps, for one more call of drift and diffusion in each.
    Source: Kidger, Foster, Li, Lyons 2021, arXiv:2105.13493, Algorithm 2.
    """

    differentiates_scans: ClassVar[bool] = True

    def bind(self, max_steps: int, state_bytes: int) -> None:
        errors.unsupported(ONLY_EQUAL.format(name=type(self).__name__))

    def on_equal_steps(self, n: int, state_bytes: int) -> Reversal:
        """The strategy for `n` steps that are a scan."""
        return Reversal()


@dataclass(frozen=True)
class Reversal:
    """`ReversibleAdjoint` over a scan."""

    def run(self, integration: Any, inputs: Inputs, settings: Settings) -> tuple[Outputs, Constants, PyTree]:
        def run(inputs, settings):
            carry = integration.run(inputs, settings)
            return carry, (carry.state.y, carry.state.memory)

        return with_tape(run, inputs, settings)

    def pull(
        self, integration: Any, active: Active, settings: Settings, constants: Constants, tape: Any, bars: Outputs
    ) -> list[jax.Array]:
        return _Backward(integration, active, settings, constants, bars, *tape).sweep()


@dataclass(frozen=True)
class _Backward(EqualPull):
    """The sweep. Shapes: of y and the stepper's memory at the end, real numbers and the rest."""

    real: list[jax.Array]
    rest: list[jax.Array]

    def sweep(self) -> list[jax.Array]:
        integration, inputs = self.integration, self.active.inputs
        first = jax.eval_shape(integration.begin, inputs)
        end = joined((first.y, first.memory), self.real, self.rest)

        steps = self.retaken()

        def trip(carry, i):
            (bars, cursors), after = carry
            before = self.before(steps, i, integration.back(inputs, *after, i))
            return self.pull_step(bars, cursors, before, i), before

        carry, last = ((self.at_end(), self.last_rows), end), jnp.full_like(inputs.t0, integration.n - 1)
        (bars, _), _ = counted(trip, carry, last, -1, integration.n)
        return self._pull_start(bars)
