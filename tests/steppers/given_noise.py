"""Equations with noise on paths that are given: a fine path, and the coarse steps that it makes."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdiffeq.noise.kinds import Kind
from jaxdiffeq.problems.driven_field import DrivenField
from jaxdiffeq.types import Context, Increment, State


class GivenPath:
    """Increments by the number of the step; what is known are those of w and area, and a key for each step."""

    def over(self, where: Context, t0: jax.Array, t1: jax.Array, known: Any) -> Increment:
        w, area, key = (x[where.number] for x in known[:3])
        return Increment(w, area, key)

    def within(self, where: Context, ends: Any, t: jax.Array, known: Any) -> Increment:
        """Over the first half of a step, where that is known too."""
        w, area = (x[where.number] for x in known[3:])
        return Increment(w, area, known[2][where.number])


class Problem(NamedTuple):
    """dy = a dt + b dW; the drift is that of Stratonovich's calculus. Shapes: y0 [*state]."""

    kind: Kind
    drift: Any
    diffusion: Any
    y0: Any

    def field(self, calculus: str = "stratonovich") -> DrivenField:
        drift = self.drift if calculus == "stratonovich" else self.ito
        return DrivenField(
            drift, diffusion=self.diffusion, kind=self.kind, path=GivenPath(), of_path=lambda args: args["noise"]
        )

    def ito(self, t: jax.Array, y: jax.Array, args: Any) -> jax.Array:
        """a + ½ Σₖ Dbᵏ·bᵏ."""
        columns = lambda y: self.kind.matrix(self.diffusion(t, y, args))
        b = columns(y)
        slopes = jax.vmap(lambda v, k: jax.jvp(columns, (y,), (v,))[1][..., k], (-1, 0))(b, jnp.arange(b.shape[-1]))
        return self.drift(t, y, args) + 0.5 * jnp.sum(slopes, 0)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.kind.shape(np.shape(self.y0))


def fine_path(shape: tuple[int, ...], steps: int, paths: int, seed: int = 0, span: float = 1.0):
    """w and area of each step. Shapes: [steps, paths, *shape]."""
    normal = np.random.default_rng(seed).standard_normal((2, steps, paths, *shape)) * np.sqrt(span / steps)
    return normal[0], normal[1] / np.sqrt(12)


def coarser(path: Any, times: int):
    """The same path in steps `times` as long: the mean of W over a part is W before it, and W/2 + H of its own."""
    w, area = (x.reshape(-1, times, *x.shape[1:]) for x in path)
    before = np.cumsum(w, 1) - w
    total = w.sum(1)
    return total, np.mean(before + 0.5 * w + area, 1) - 0.5 * total


def padded(x: np.ndarray, steps: int) -> np.ndarray:
    return np.concatenate([x, np.zeros((steps - len(x), *x.shape[1:]), x.dtype)])


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _ends(stepper: Any, problem: Problem, calculus: str, n: jax.Array, noise: Any, h: jax.Array) -> jax.Array:
    field, y0 = problem.field(calculus), jnp.asarray(problem.y0)

    def one(noise):
        args = {"noise": noise}

        def trip(i, state):
            here = field.at(None, Context(i))
            t1 = (i + 1).astype(h.dtype) * h
            return stepper.step(here, state, t1, args, None).after

        start = jnp.zeros((), h.dtype)
        state = State(start, y0, stepper.init(field, start, y0, args))
        return lax.fori_loop(0, n, trip, state).y

    return jax.vmap(one, 1)(noise)


def ends(stepper: Any, problem: Problem, path: Any, calculus: str, *, room: int | None = None, span: float = 1.0):
    """y at the end of the span on every path. Shapes: [paths, *state]."""
    n = len(path[0])
    noise = tuple(jnp.asarray(padded(x, room or n)) for x in path)
    keys = path[2] if len(path) > 2 else jnp.zeros((room or n, noise[0].shape[1]))
    return np.asarray(_ends(stepper, problem, calculus, jnp.asarray(n), (*noise[:2], keys), span / n))
