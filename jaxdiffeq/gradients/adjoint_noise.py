"""The continuous adjoint of dy = a dt + b∘dW, solved backwards with y along the same path, in equal steps.

On one path Stratonovich's calculus has the rules of smooth ones, so that dλ = −(∂a/∂y)ᵀλ dt − Σ (∂bʲ/∂y)ᵀλ∘dWʲ, and
dθ̄ = −(∂a/∂θ)ᵀλ dt − Σ (∂bʲ/∂θ)ᵀλ∘dWʲ. An Itô drift is corrected first, by −½ Σ (∂bʲ/∂y)·bʲ. In a step of size h, over
which W moves by w with the space-time area H, time runs from 1 to 0: the drift is h·a, and noise comes from b·w and b·H
as from two Brownian motions, of which the first moves by −1 and the second has the area 1. So a step costs one vector–
Jacobian product for each, whatever the number of Brownian motions; and ends of the span, through h, w and H, are
parameters as all others. A value saved within a step is a function of the state before it, by a step of the method.
Of a solve that fails the states are those of its steps, which are taken again.
Source: Li, Wong, Chen, Duvenaud 2020, arXiv:2001.01328; Foster, dos Reis, Strange 2024, arXiv:2210.17543 (for H).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxdiffeq.gradients.packing import Packing, Parts
from jaxdiffeq.gradients.reverse import EqualPull
from jaxdiffeq.gradients.rule import Active, Constants, Outputs, plain
from jaxdiffeq.noise.kinds import Kind
from jaxdiffeq.primitives.scan import counted
from jaxdiffeq.problems.driven_field import DrivenField
from jaxdiffeq.types import Increment, Inputs, PyTree, Settings, Sizing, State, StepCotangents, StepView

Columns = Callable[[jax.Array, jax.Array, tuple], list[jax.Array]]  # (time in a step, y, θ) ↦ some like y


@dataclass(frozen=True)
class Backwards:
    """`BacksolveAdjoint` over a scan."""

    method: Any

    def run(self, integration: Any, inputs: Inputs, settings: Settings) -> tuple[Outputs, Constants, PyTree]:
        outputs, constants = plain(integration, inputs, settings)
        return outputs, constants, outputs.y

    def pull(
        self, integration: Any, active: Active, settings: Settings, constants: Constants, tape: Any, bars: Outputs
    ) -> list[jax.Array]:
        stepper = self.method or integration.loop.stepper
        return _Backward(integration, active, settings, constants, bars, stepper, tape).sweep()


@dataclass(frozen=True)
class Undone:
    """The path of a step that is solved backwards, in the directions b·w and b·H."""

    count: int

    def over(self, where: Any, t0: jax.Array, t1: jax.Array, known: Any) -> Increment:
        w, area = (-1.0, 0.0) if self.count == 1 else ([-1.0, 0.0], [0.0, 1.0])
        return Increment(jnp.asarray(w, t0.dtype), jnp.asarray(area, t0.dtype), None)  # pyright: ignore[reportArgumentType]

    within = over


@dataclass(frozen=True)
class _Backward(EqualPull):
    """The sweep, from `y1` at the end."""

    stepper: Any
    y1: jax.Array

    @functools.cached_property
    def theta(self) -> Active:
        """The parameters of drift and diffusion."""
        of_args = jax.tree.leaves(self._numbers.args)
        return Active(self.active.inputs, tuple(i for i in self.active.where if i in of_args))

    @property
    def _numbers(self) -> Inputs:
        """Of the leaves of the inputs, in their places."""
        inputs = self.active.inputs
        return jax.tree.unflatten(jax.tree.structure(inputs), range(len(jax.tree.leaves(inputs))))

    @property
    def moves(self) -> bool:
        """Whether steps, and what W does in them, are differentiated."""
        of_path = jax.tree.leaves(self.integration.field.of_path(self._numbers.args))
        return self.active.time or any(i in of_path for i in self.active.where)

    def sweep(self) -> list[jax.Array]:
        n, inputs, steps = self.integration.n, self.active.inputs, self.retaken()
        memory = jax.tree.map(lambda rows: jnp.zeros_like(rows[0]), steps.rows[1])

        def trip(carry, i):
            bars, cursors, y1 = carry
            again, _ = self.before(steps, i, (y1, memory))
            *new, cursors = self._back(bars, cursors, (again, y1), i)
            bars, y1 = jax.tree.map(lambda a, b: jnp.where(self.live(i), a, b), tuple(new), (bars, y1))
            return bars, cursors, y1

        carry, last = (self.at_end(), self.last_rows, self.y1), jnp.full_like(inputs.t0, n - 1)
        bars, *_ = counted(trip, carry, last, -1, n)
        return self._pull_start(bars)

    def _back(self, bars: Any, cursors: dict, ends: tuple[jax.Array, jax.Array], i: jax.Array) -> tuple:
        """The cotangents and y before step `i`, and cursors. `ends`: y before it, if the solve failed, and after it."""
        (again, y1), failed = ends, self.failed
        leaves, pull = self.active.leaves(), None
        if self.moves:
            path, pull = jax.vjp(lambda leaves: self._path(leaves, i), leaves)
        else:
            path = self._path(leaves, i)
        theta = self.theta.leaves(), path
        before = jnp.zeros_like(y1)
        if self.integration.recorders:
            y = self._solved(y1, lambda of: lambda s, y: of(s, y, theta), i)
            bars, before, cursors = self._recorded(bars, dict(cursors), (jnp.where(failed, again, y), y1), i)
        places = [self.active.where.index(k) for k in self.theta.where]
        of_args = [bars.inputs[k] for k in places]
        parts = Parts(y1, bars.state.y, [of_args, jax.tree.map(jnp.zeros_like, path) if self.moves else []])
        packing = Packing.of(parts)
        z, adjoint = packing.pack(parts), functools.partial(self._adjoint, packing, theta)
        silent = failed & jnp.all(bars.state.y == 0)  # nothing is felt yet where a solution leaves the numbers
        new = packing.unpack(jnp.where(silent, z, self._solved(z, adjoint, i)))
        found = dict(zip(places, new.theta[0], strict=True))
        inputs = [found.get(k, x) for k, x in enumerate(bars.inputs)]
        if pull is not None:
            inputs = [a + b for a, b in zip(inputs, *pull(new.theta[1]), strict=True)]
        bars = bars._replace(state=bars.state._replace(y=new.lam + before), inputs=inputs)
        return bars, jnp.where(failed, again, new.y), cursors

    # ---- the equation

    def _path(self, leaves: list, i: jax.Array) -> list[jax.Array]:
        """Of step `i`: where it begins, its size, w and, if the method asks for it, H."""
        inputs = self.active.fill(leaves)
        t, t1 = self.integration.ends(inputs, i)
        increment = self.integration.asked(inputs, t, inputs.y0, i).over(t, t1, inputs.args)
        return [t, t1 - t, increment.w, increment.area][: 2 + self.stepper.directions]

    def _columns(self, i: jax.Array, drift: bool) -> Columns:
        """h·a alone, or b·w and, if the method asks for it, b·H."""

        def of(s, y, theta):
            leaves, (t, h, *path) = theta
            inputs = self.theta.fill(leaves)
            f: DrivenField = self.integration.asked(inputs, t, y, i)
            if drift:
                return [h.astype(y.dtype) * f.smooth(t + s * h, y, inputs.args)]
            b = f.diffusion(t + s * h, y, inputs.args)
            return [f.times(b, x) for x in path]

        return of

    def _adjoint(self, packing: Packing, theta: tuple, of: Columns) -> Callable:
        """The same of (y, λ, θ̄)."""

        def columns(s, z):
            parts = packing.unpack(z)
            felt = lambda y, leaves, path: of(s, y, (leaves, path if self.moves else theta[1]))
            found, pull = jax.vjp(felt, parts.y, theta[0], theta[1] if self.moves else [])

            def column(k):
                lam = [parts.lam if k == j else jnp.zeros_like(parts.lam) for j in range(len(found))]
                d_y, *d_theta = pull(lam)
                return packing.pack(Parts(found[k], -d_y, [[-x for x in part] for part in d_theta]))

            return [column(k) for k in range(len(found))]

        return columns

    def _solved(self, z: jax.Array, along: Callable, i: jax.Array) -> jax.Array:
        """z before step `i`, from that after it, by the equation that `along` makes of the columns."""
        drift, noise = (along(self._columns(i, drift)) for drift in (True, False))
        count = self.stepper.directions

        def diffusion(s, z, _):
            columns = noise(s, z)
            return columns[0] if count == 1 else jnp.stack(columns, -1)

        field = DrivenField(
            lambda s, z, _: drift(s, z)[0],
            diffusion=diffusion,
            kind=Kind("scalar") if count == 1 else Kind("general", count),
            path=Undone(count),
            of_path=lambda _: None,
        )
        one = jnp.ones_like(self.active.inputs.t0)
        start = State(one, z, self.stepper.init(field, one, z, None))
        return self.stepper.step(field, start, jnp.zeros_like(one), None, self.settings.tolerance).after.y

    # ---- what was saved

    def _recorded(self, bars: Any, cursors: dict, ends: tuple[jax.Array, jax.Array], i: jax.Array) -> tuple:
        """The cotangents after step `i` with those of rows saved in it, what they add to y before it, and cursors."""
        y, y1 = ends
        inputs, none = self.active.inputs, jnp.zeros_like(bars.state.t)
        t, t1 = self.integration.ends(inputs, i)
        line = jnp.stack([y, y1 - y])
        size, number = Sizing(jnp.abs(t1 - t)), i.astype(jnp.int32)
        view = StepView(State(t, y, ()), State(t1, y1, ()), y1, line, size, self.live(i), number)
        around = StepCotangents(none, bars.state, jnp.zeros_like(line), bars.inputs)
        for name, recorder in self.integration.recorders.items():
            around, cursors[name] = recorder.vjp(around, cursors[name], view, self.active, self.bars.records[name])
        _, pull = jax.vjp(lambda leaves: self.integration.ends(self.active.fill(leaves), i), self.active.leaves())
        (clock,) = pull((around.before_t, around.after.t))
        assert around.coefficients is not None
        of_y, of_rise = around.coefficients
        state = around.after._replace(t=none, y=around.after.y + of_rise)
        leaves = [a + b for a, b in zip(around.inputs, clock, strict=True)]
        return bars._replace(state=state, inputs=leaves), of_y - of_rise, cursors
