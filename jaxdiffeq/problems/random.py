"""Equations with a random input: for every path of a process an ordinary differential equation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx

from jaxdiffeq import errors
from jaxdiffeq.noise.processes import Process, Realisation
from jaxdiffeq.problems import noise_errors
from jaxdiffeq.problems.definitions import ODEProblem, Problem, Terms, terms_of
from jaxdiffeq.types import PyTree


class RODEProblem(Problem):
    """dy/dt = f(t, y, w, args), y(t₀) = y0, where w is the value at t of a random process, made from `key`.

    `noise` is the process: `BrownianMotion`, `GeometricBrownianMotion`, `OrnsteinUhlenbeck`, `BrownianBridge`,
    `CompoundPoisson`, `Spectral`, one of them `Correlated`. One key is one path, at any time and in any order, so that
    any method for ordinary equations takes it at any steps: `jax.vmap(lambda key: solve(problem, key=key))(keys)` is an
    ensemble. A solve lands on the jumps of a path. Where w is as rough as a Brownian motion, errors are of order one
    whatever the order of the method: a simple one such as `Heun` does, and tight tolerances take many steps.

    y0, args and tspan are as in `ODEProblem`; gradients flow to the parameters of the process, too. What else takes
    args, in events and `SaveAt`, is given `(args, w)`, where w is a function of time, the one that
    `problem.path(t0, t1)` returns.
    """

    f: Callable[[Any, PyTree, Any, PyTree], PyTree]
    y0: PyTree
    tspan: Any
    args: PyTree = None
    _: dataclasses.KW_ONLY
    noise: Process
    key: Any = None
    check_names: bool = eqx.field(default=True, static=True)

    def __post_init__(self) -> None:
        errors.callable_with(self.f, "f", ("t", "y", "w", "args"), self.check_names)
        if not isinstance(self.noise, Process):
            raise TypeError(f"`noise` must be a process, such as OrnsteinUhlenbeck(1.0), but is {self.noise!r}.")

    def path(self, t0: Any, t1: Any) -> Realisation:
        """w as a function of time, over the span of a solve."""
        noise_errors.key_data(self.key)
        return self.noise.realised(self.key, t0, t1)


class WithPath(NamedTuple):
    """The args of a random equation as an ordinary one."""

    args: PyTree
    w: Realisation


class AlongPath(eqx.Module):
    """f of a random equation as that of an ordinary one."""

    f: Callable[[Any, PyTree, Any, PyTree], PyTree]

    def __call__(self, t: Any, y: PyTree, args: WithPath) -> PyTree:
        return self.f(t, y, args.w(t), args.args)


@terms_of.register
def _(problem: RODEProblem) -> Terms:
    noise_errors.key_data(problem.key)
    inner = ODEProblem(AlongPath(problem.f), problem.y0, problem.tspan, problem.args)
    return terms_of(inner)._replace(args=WithPath(problem.args, problem.noise.realised(problem.key)))
