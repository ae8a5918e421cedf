"""Motion with friction and noise, as users write it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxdiffeq import errors
from jaxdiffeq.noise.given import own_path
from jaxdiffeq.problems.definitions import Noise, Problem, Terms, begun, terms_of
from jaxdiffeq.types import PyTree


class LangevinProblem(Problem):
    """dx = v dt, dv = (−γ·v + u·force(t, x, args)) dt + √(2γu) dW, from x0 and v0: underdamped Langevin motion.

    `friction` is γ and `inverse_mass` u, temperature over mass: numbers, arrays like x0, or functions args ↦ such. With
    force = −∇U the density of x in the long run is exp(−U(x)), that of v normal with variance u. `BAOAB()`, `UBU()`,
    `ALIGN()`, `ShOULD()` and `QUICSORT()` are made for it; methods for additive noise take it as well.
    `key` and `brownian` are as in `SDEProblem`, args and tspan as in `ODEProblem`.
    Shapes: x0 and v0 one array each, alike; a solution has ys [saved, 2, *x], positions and velocities.
    """

    force: Callable[[Any, Any, PyTree], Any]
    x0: Any
    v0: Any
    tspan: Any
    args: PyTree = None
    _: dataclasses.KW_ONLY
    friction: Any = 1.0
    inverse_mass: Any = 1.0
    key: Any = None
    brownian: Any = None
    check_names: bool = eqx.field(default=True, static=True)

    def __post_init__(self) -> None:
        errors.callable_with(self.force, "force", ("t", "x", "args"), self.check_names)
        for name, x in (("x0", self.x0), ("v0", self.v0)):
            if not jax.tree_util.all_leaves([x]):
                raise TypeError(f"`{name}` of a LangevinProblem must be an array, but is {x!r}.")
        shapes = [np.shape(x) for x in (self.x0, self.v0)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"x0 and v0 must be two arrays of one shape, but have {shapes[0]} and {shapes[1]}.")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Friction:
    """γ and u of args."""

    friction: Any
    inverse_mass: Any

    def __call__(self, args: PyTree) -> tuple[Any, Any]:
        return tuple(errors.call(x, args) if callable(x) else x for x in (self.friction, self.inverse_mass))


@terms_of.register
def _(problem: LangevinProblem) -> Terms:
    y0, t0, t1 = begun(jnp.stack([problem.x0, problem.v0]), problem.tspan, problem.args)
    noise = Noise(None, "additive", "ito", problem.key, own_path(problem.brownian), False)
    noise = noise._replace(langevin=Friction(problem.friction, problem.inverse_mass))
    return Terms(problem.force, problem.args, y0, t0, t1, noise=noise)
