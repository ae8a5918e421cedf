"""∫ λᵀ ∂f/∂θ dt over every step of a backward solve, from the step's own polynomial."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiffeq.engine.interpolant import evaluate
from jaxdiffeq.engine.recorders import RecorderDefaults
from jaxdiffeq.primitives.while_loop import frozen_while
from jaxdiffeq.types import Inputs, PyTree, Shapes, State, StepCotangents, StepView

# Nodes in [0, 1) by symmetry, the outermost first, and their weights in Kronrod's rule of 15 points and Gauss's of 7.
# Source: Piessens et al., QUADPACK, 1983, routine QK15.
KRONROD_NODES = (
    *(0.9914553711208126, 0.9491079123427585, 0.8648644233597691, 0.7415311855993945),
    *(0.5860872354676911, 0.4058451513773972, 0.2077849550078985, 0.0),
)
KRONROD_WEIGHTS = (
    *(0.0229353220105292, 0.0630920926299786, 0.1047900103222502, 0.1406532597155259),
    *(0.1690047266392679, 0.1903505780647854, 0.2044329400752989, 0.2094821410847278),
)
GAUSS_WEIGHTS = (0.0, 0.1294849661688697, 0.0, 0.2797053914892767, 0.0, 0.3818300505051189, 0.0, 0.4179591836734694)


def mirrored(nodes: tuple[float, ...], *weights: tuple[float, ...]) -> tuple[np.ndarray, ...]:
    """The whole rule on [0, 1] from the half of it on [0, 1) of [−1, 1], zero last."""
    x = np.asarray(nodes)
    whole = [np.concatenate([w, w[-2::-1]]) / 2 for w in map(np.asarray, weights)]
    return (1 + np.concatenate([-x, x[-2::-1]])) / 2, *whole


@dataclass(frozen=True)
class Quadrature(RecorderDefaults):
    """A recorder that adds up the integral of `integrand(t, z, args)`, a list of arrays, over every accepted step.

    Gauss's rule with the fewest points that keep the order of the stepper; if `adaptive`, the pair of Gauss and
    Kronrod with 15 points, on ever more panels, up to 64 a step, until they agree to the tolerance.
    Shapes: moving, the integrals; fixed, nothing.
    """

    integrand: Callable[[jax.Array, jax.Array, PyTree], list]
    zeros: tuple
    order: int
    adaptive: tuple[Any, Any] | None = None
    reads_interpolant = True

    def init(self, inputs: Inputs, start: State, shapes: Shapes) -> tuple[PyTree, PyTree]:
        return [jnp.zeros(shape, dtype) for shape, dtype in self.zeros], ()

    def record(self, moving: PyTree, fixed: PyTree, step: StepView, inputs: Inputs) -> tuple[PyTree, PyTree]:
        added = self._gauss(step, inputs) if self.adaptive is None else self._kronrod(step, inputs, *self.adaptive)
        return [jnp.where(step.taken, m + a, m) for m, a in zip(moving, added, strict=True)], fixed

    def _at(self, step: StepView, inputs: Inputs, nodes: Any) -> list[jax.Array]:
        """The integrand times the width of the step, at nodes in [0, 1]. Shapes: [nodes, ...]."""
        width, coefficients = step.after.t - step.before.t, step.coefficients
        assert coefficients is not None

        def at(theta):
            t = step.before.t + theta.astype(width.dtype) * width
            z = evaluate(coefficients, theta.astype(step.after.y.dtype))
            return [x * width.astype(x.dtype) for x in self.integrand(t, z, inputs.args)]

        return jax.vmap(at)(nodes)

    def _gauss(self, step: StepView, inputs: Inputs) -> list[jax.Array]:
        nodes, weights = np.polynomial.legendre.leggauss(self.order // 2 + 1)
        return [_sum(weights / 2, x) for x in self._at(step, inputs, jnp.asarray((1 + nodes) / 2))]

    def _kronrod(self, step: StepView, inputs: Inputs, rtol: Any, atol: Any) -> list[jax.Array]:
        nodes, kronrod, gauss = mirrored(KRONROD_NODES, KRONROD_WEIGHTS, GAUSS_WEIGHTS)
        clock = step.after.t.dtype
        nodes, rtol, atol = (jnp.asarray(x).astype(clock) for x in (nodes, rtol, atol))

        def more(found, fixed):
            good, panels, panel, _ = fixed
            return step.taken & ~(good & (panel == panels)) & ((panels < 64) | (panel < panels))

        def add(found, fixed):
            """One panel more; after the last one, twice as many unless the two rules agree."""
            good, panels, panel, error = fixed
            live = more(found, fixed)
            again = panel == panels
            panels, panel = jnp.where(again, 2 * panels, panels), jnp.where(again, 0, panel)
            share = 1 / panels.astype(clock)
            at = self._at(step, inputs, (panel.astype(clock) + nodes) * share)
            new = [jnp.where(again, 0, old) + _sum(kronrod, x) * share.astype(x.dtype)
                   for old, x in zip(found, at, strict=True)]  # fmt: skip
            off = sum(jnp.sum(jnp.abs(_sum(kronrod - gauss, x))).astype(clock) for x in at)
            error = jnp.where(again, 0, error) + off * share
            size = sum(jnp.sum(jnp.abs(x)).astype(clock) for x in new)
            good = error <= atol + rtol * size
            state = new, (good, panels, panel + 1, error)
            return jax.tree.map(lambda a, b: jnp.where(live, a, b), state, (found, fixed))

        zeros = [jnp.zeros(shape, dtype) for shape, dtype in self.zeros]
        one = jnp.ones((), jnp.int32)
        start = jnp.array(False), one, jnp.zeros((), jnp.int32), jnp.zeros((), clock)
        return frozen_while(more, add, zeros, start)[0]


@dataclass(frozen=True)
class Integrals(Quadrature):
    """The same along the solution itself, for users: differentiable.

    Shapes: moving, [1, ...]; fixed, a number that nobody reads.
    """

    tree: Any = None
    """of the list"""

    def init(self, inputs: Inputs, start: State, shapes: Shapes) -> tuple[PyTree, PyTree]:
        return self.at_start(inputs, start), jnp.zeros((), jnp.int32)

    def at_start(self, inputs: Inputs, start: State) -> PyTree:
        return [jnp.zeros((1, *shape), dtype) for shape, dtype in self.zeros]

    def record(self, moving: PyTree, fixed: PyTree, step: StepView, inputs: Inputs) -> tuple[PyTree, PyTree]:
        added = self._gauss(step, inputs)
        return [jnp.where(step.taken, m + a[None], m) for m, a in zip(moving, added, strict=True)], fixed

    def rows(self, moving: PyTree) -> PyTree:
        return jax.tree.unflatten(self.tree, [x[0] for x in moving])

    def vjp(
        self, bars: StepCotangents, cursor: jax.Array, step: StepView, active: Any, out: PyTree
    ) -> tuple[StepCotangents, jax.Array]:
        """Add the cotangents of what this step has added."""

        def gain(t0, t1, coefficients, leaves):
            ends = step._replace(before=step.before._replace(t=t0), after=step.after._replace(t=t1))
            return self._gauss(ends._replace(coefficients=coefficients), active.fill(leaves))

        _, pull = jax.vjp(gain, step.before.t, step.after.t, step.coefficients, active.leaves())
        t0, t1, coefficients, leaves = pull([jnp.where(step.taken, x[0], 0) for x in out])
        after = jax.tree.map(jnp.zeros_like, bars.after)._replace(t=t1)
        return bars.add(t0, after, coefficients, leaves), cursor


def _sum(weights: np.ndarray, values: jax.Array) -> jax.Array:
    # a product and a sum, not a dot: with it the loop could not be one kernel
    w = jnp.asarray(weights).astype(values.dtype).reshape(-1, *[1] * (values.ndim - 1))
    return jnp.sum(w * values, axis=0)
