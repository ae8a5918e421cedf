"""Motion with friction and noise: dx = v dt, dv = (−γ·v + u·force(t, x, args)) dt + √(2γu) dW."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, Self

import jax
import jax.numpy as jnp

from jaxdiffeq.noise.kinds import Kind
from jaxdiffeq.problems.driven_field import DrivenField
from jaxdiffeq.problems.vector_field import Slope, moved
from jaxdiffeq.types import PyTree


@dataclass(frozen=True)
class LangevinField(DrivenField):
    """The equation as those for it take it, and as additive noise on y = [x, v]. Shapes: y [2, *x], force [*x].

    With force −∇U the density of x in the long run is exp(−U(x)), that of v normal with variance u.
    """

    _: KW_ONLY
    force: Slope
    friction: Callable[[PyTree], jax.Array]
    """args ↦ γ, [] or [*x]"""
    inverse_mass: Callable[[PyTree], jax.Array]
    """args ↦ u, likewise"""

    def asked_at(self, clock: Callable[[jax.Array], jax.Array]) -> Self:
        return replace(super().asked_at(clock), force=moved(self.force, clock))


def langevin(force: Slope, friction: Callable, inverse_mass: Callable, path: Any, of_path: Callable) -> LangevinField:
    """Of these functions of args."""

    def drift(t, y, args):
        x, v = y
        gamma, u = (g(args).astype(y.dtype) for g in (friction, inverse_mass))
        return jnp.stack([v, u * force(t, x, args) - gamma * v])

    def diffusion(t, y, args):
        gamma, u = (g(args).astype(y.dtype) for g in (friction, inverse_mass))
        return jnp.stack([jnp.zeros_like(y[0]), jnp.broadcast_to(jnp.sqrt(2 * gamma * u), y[0].shape)])

    own = {"force": force, "friction": friction, "inverse_mass": inverse_mass}
    return LangevinField(drift, diffusion=diffusion, kind=Kind("additive"), path=path, of_path=of_path, **own)
