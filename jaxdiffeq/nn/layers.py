"""A solve as a layer: of a network's own equation, or of a given equation whose parameters are the input."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxdiffeq import errors
from jaxdiffeq.frontend.saveat import SaveAt
from jaxdiffeq.gradients.reverse import ReverseAD
from jaxdiffeq.methods.explicit import Tsit5
from jaxdiffeq.problems.definitions import ODEProblem
from jaxdiffeq.solve import solve
from jaxdiffeq.types import PyTree

OPTIONS = "method", "saveat", "rtol", "atol", "gradient", "max_steps"


class NeuralODE(eqx.Module):
    """y0 ↦ y(t₁), or with `saveat` the trajectory y(saveat), of dy/dt = func(y), func(t, y) or func(t, y, args).

    `args` is None. `func` is any callable, as a rule an equinox module: its arrays are the layer's parameters. `saveat`
    is a spacing or times, here or in the call; `rtol`, `atol` and the rest are those of `solve`.
    Shapes: y0 [size] ↦ [size], or [times, size]; y0 and the state may be any pytree that func maps to its like.
    Source: Chen et al., Neural ordinary differential equations, 2018.
    """

    func: Callable
    tspan: tuple[float, float] = eqx.field(static=True)
    method: Any = eqx.field(static=True)
    saveat: Any = eqx.field(static=True)
    options: tuple[tuple[str, Any], ...] = eqx.field(static=True)
    takes: int = eqx.field(static=True)
    """how many arguments `func` takes"""

    def __init__(
        self,
        func: Callable,
        tspan: tuple[float, float] = (0.0, 1.0),
        method: Any = None,
        *,
        saveat: Any = None,
        rtol: float = 1e-3,
        atol: float = 1e-6,
        gradient: Any = ReverseAD(),
        max_steps: int = 4096,
        **others: Any,
    ):
        errors.no_other_options(others, type(self).__name__, OPTIONS)
        self.func = func
        self.tspan = float(tspan[0]), float(tspan[1])
        self.method = Tsit5() if method is None else method
        self.saveat = _frozen(saveat)
        self.options = (("rtol", rtol), ("atol", atol), ("gradient", gradient), ("max_steps", max_steps))
        self.takes = _positional(func)

    def __call__(self, y0: PyTree, *, saveat: Any = None, key: Any = None) -> PyTree:
        """`saveat` replaces the layer's own and may be traced; `key` is there for `Sequential` and is not used."""
        saveat = self.saveat if saveat is None else saveat
        problem = ODEProblem((_autonomous, _timed, _general)[self.takes - 1], y0, self.tspan, self.func)
        at = SaveAt(t1=True) if saveat is None else _thawed(saveat)
        ys = solve(problem, self.method, saveat=at, **dict(self.options)).ys
        return jax.tree.map(lambda x: x[-1], ys) if saveat is None else ys


class AugmentedNeuralODE(NeuralODE):
    """A `NeuralODE` of [y0, 0]: with `extra` more dimensions trajectories can go around each other.

    func maps [size + extra] to itself; all of it is returned.
    Shapes: y0 [size] ↦ [size + extra], or [times, size + extra].
    Source: Dupont, Doucet, Teh, Augmented neural ODEs, 2019.
    """

    extra: int = eqx.field(static=True)

    def __init__(self, func: Callable, extra: int, *args: Any, **options: Any):
        super().__init__(func, *args, **options)
        self.extra = extra

    def __call__(self, y0: jax.Array, *, saveat: Any = None, key: Any = None) -> jax.Array:
        return super().__call__(jnp.concatenate([y0, jnp.zeros(self.extra, y0.dtype)]), saveat=saveat)


class SolveLayer(eqx.Module):
    """x ↦ select(ys), where ys solve `problem` with args = x: a solve whose parameters come from the layer before.

    Everything in `problem`, its y0 and what its f closes over, is a parameter of the layer. `select` makes the output
    from the saved states, `lambda ys: ys[:, 0]` for instance; without it they are the output.
    Shapes: x any pytree that the problem's f takes as args ↦ [times, *state], or what `select` makes of it.
    """

    problem: ODEProblem
    method: Any = eqx.field(static=True)
    saveat: Any = eqx.field(static=True)
    select: Callable | None = eqx.field(static=True)
    options: tuple[tuple[str, Any], ...] = eqx.field(static=True)

    def __init__(
        self,
        problem: ODEProblem,
        method: Any = None,
        *,
        saveat: Any,
        select: Callable | None = None,
        rtol: float = 1e-3,
        atol: float = 1e-6,
        gradient: Any = ReverseAD(),
        max_steps: int = 4096,
        **others: Any,
    ):
        errors.no_other_options(others, type(self).__name__, (*OPTIONS, "select"))
        self.problem = problem
        self.method = Tsit5() if method is None else method
        self.saveat = _frozen(saveat)
        self.select = select
        self.options = (("rtol", rtol), ("atol", atol), ("gradient", gradient), ("max_steps", max_steps))

    def __call__(self, x: PyTree, *, key: Any = None) -> PyTree:
        sol = solve(self.problem, self.method, args=x, saveat=_thawed(self.saveat), **dict(self.options))
        return sol.ys if self.select is None else self.select(sol.ys)


def _timed(t: jax.Array, y: PyTree, func: Callable) -> PyTree:
    return func(t, y)


def _autonomous(t: jax.Array, y: PyTree, func: Callable) -> PyTree:
    return func(y)


def _general(t: jax.Array, y: PyTree, func: Callable) -> PyTree:
    return func(t, y, None)


def _positional(func: Callable) -> int:
    """How many positional arguments func needs; 1 where it does not say."""
    try:
        parameters = inspect.signature(func).parameters.values()
    except (TypeError, ValueError):
        return 1
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    count = sum(p.kind in kinds and p.default is p.empty for p in parameters)
    if count not in (1, 2, 3):
        raise TypeError(
            f"`func` must be a function func(y), func(t, y) or func(t, y, args), but needs {count} arguments."
        )
    if count > 1:
        errors.callable_with(func, "func", ("t", "y", "args")[:count], silence="write `lambda *given: func(*given)`")
    return count


def _frozen(saveat: Any) -> Any:
    """Times as a tuple, which a static field of a module must be."""
    if saveat is None or np.ndim(saveat) == 0:
        return saveat if saveat is None else float(saveat)
    return tuple(float(t) for t in np.asarray(saveat))


def _thawed(saveat: Any) -> Any:
    return np.asarray(saveat) if isinstance(saveat, tuple) else saveat
