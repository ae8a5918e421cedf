"""Integration of equations with noise: steps that meet the path where it is cheap, and values saved on the path."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiffeq.engine.control import Tolerance
from jaxdiffeq.engine.integration import Integration
from jaxdiffeq.engine.interpolant import sample
from jaxdiffeq.engine.recorders import SaveTimes
from jaxdiffeq.engine.stops import direction_of
from jaxdiffeq.types import Context, Inputs, PyTree, Settings, Sizing, State, StepView


@dataclass(frozen=True)
class Driven(Integration):
    """An integration along a Brownian path."""

    snaps: bool = dataclasses.field(default=False, kw_only=True)
    """steps may be a little shorter or longer, to end where the path is cheap"""

    def limited(self, target: jax.Array, start: State, dt: jax.Array, inputs: Inputs) -> jax.Array:
        if not self.snaps:
            return dt
        where = Context(0, (inputs.t0, inputs.t1))
        return lax.stop_gradient(jnp.abs(self.field.path.snapped(where, start.t, direction_of(inputs) * dt)))

    def _as_root(
        self, t1: jax.Array, inputs: Inputs, settings: Settings, start: State, made: Sizing, number: Any
    ) -> jax.Array:
        """A constant: the time at which a path meets a surface has no derivative along the path."""
        return t1


@dataclass(frozen=True)
class SaveOnPath(SaveTimes):
    """`observe(t, y, args)` at `inputs.ts`: by a step from the one before, along the same path.

    A straight line between the steps would have too little variance, and no order above a half.
    """

    field: Any = dataclasses.field(kw_only=True)
    stepper: Any = dataclasses.field(kw_only=True)

    def value(self, step: StepView, coefficients: jax.Array, at: jax.Array, inputs: Inputs) -> PyTree:
        t, t1, y = step.before.t, step.after.t, coefficients[0]

        def part():
            where = Context(step.number, (inputs.t0, inputs.t1))
            f = self.field.at(None, where).within(t, t1)
            start = State(t, y, self.stepper.init(f, t, y, inputs.args))
            fine = jnp.sqrt(jnp.finfo(y.dtype).eps)
            return self.stepper.step(f, start, at, inputs.args, Tolerance(fine, fine)).after.y

        at_end = lambda: sample(coefficients, step.end, t, t1, at)
        y = lax.cond(at == t1, at_end, lambda: lax.cond(at == t, lambda: y, part))
        return self.seen(step, at, y, inputs.args)


def on_path(saves: SaveTimes, field: Any, stepper: Any) -> SaveOnPath:
    """The same times, on the path."""
    given = {f.name: getattr(saves, f.name) for f in dataclasses.fields(saves)}
    return SaveOnPath(**given, field=field, stepper=stepper)
