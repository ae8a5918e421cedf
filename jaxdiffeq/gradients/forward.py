"""Forward sensitivities: every column of the Jacobian, one run for all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiffeq.gradients.rule import Active, Constants, Outputs, plain, push_instant
from jaxdiffeq.primitives.varying_axes import vary_like
from jaxdiffeq.types import Inputs, PyTree, Settings


@dataclass(frozen=True)
class ForwardAD:
    """x̄ⱼ = Re Σ ȳ·∂y/∂xⱼ, with the columns ∂y/∂xⱼ computed forward, along with the solution.

    The derivative of the steps that were taken, equal to that of `ReverseAD` to rounding; step sizes are constants. It
    costs about one more evaluation of f a stage and a number differentiated, and nothing is recorded: good for few
    parameters. Memory: one solve's outputs, once for every number that is differentiated.
    Source: Hairer, Nørsett, Wanner, Solving ODEs I, I.14 and II.6 (variational equation, internal differentiation).
    """

    differentiates_scans: ClassVar[bool] = True

    def bind(self, max_steps: int, state_bytes: int) -> ForwardAD:
        return self

    on_equal_steps = bind

    def run(self, integration: Any, inputs: Inputs, settings: Settings) -> tuple[Outputs, Constants, PyTree]:
        return *plain(integration, inputs, settings), ()

    def pull(
        self, integration: Any, active: Active, settings: Settings, constants: Constants, tape: Any, bars: Outputs
    ) -> list[jax.Array]:
        def run(leaves):
            return plain(integration, active.fill(leaves), settings)[0]

        def component(direction):
            moved = push_instant(integration, active, direction, jax.jvp(run, (leaves,), (direction,))[1])
            return sum(jax.tree.leaves(jax.tree.map(_pair, bars, moved)), jnp.zeros((), real))

        leaves = active.leaves()
        real = jnp.finfo(bars.y.dtype).dtype
        return jax.tree.unflatten(jax.tree.structure(leaves), _by_columns(component, leaves))


def _pair(bar: jax.Array, moved: jax.Array) -> jax.Array:
    """Re Σ bar·moved. A cotangent of zero drops its row, which may be one that was never written."""
    product = bar * jnp.where(bar == 0, 0, moved)
    return jnp.sum(product.real).astype(jnp.finfo(product.dtype).dtype)


def _by_columns(component: Any, leaves: list[jax.Array]) -> list[jax.Array]:
    """The cotangents of `leaves` from `component`, a linear map of their tangents to a real number."""
    sizes = [x.size * (2 if jnp.iscomplexobj(x) else 1) for x in leaves]
    total, at, directions = sum(sizes), 0, []
    for x, size in zip(leaves, sizes, strict=True):
        columns = jnp.eye(total, dtype=jnp.finfo(x.dtype).dtype)[:, at : at + size]
        if jnp.iscomplexobj(x):
            columns = lax.complex(columns[:, : x.size], columns[:, x.size :])
        directions.append(vary_like(columns.astype(x.dtype).reshape(total, *x.shape), x))
        at += size
    found, at, cotangents = jax.vmap(component)(directions), 0, []
    for x, size in zip(leaves, sizes, strict=True):
        part = found[at : at + size]
        # dL = Re(x̄·dx): the tangent 1 gives Re x̄, the tangent i gives −Im x̄
        part = lax.complex(part[: x.size], -part[x.size :]) if jnp.iscomplexobj(x) else part
        cotangents.append(part.astype(x.dtype).reshape(x.shape))
        at += size
    return cotangents
