"""The options of `solve` as one object, in which what was left out is chosen."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from jaxdiffeq import errors, methods
from jaxdiffeq.engine.control import Revisiting
from jaxdiffeq.gradients import support
from jaxdiffeq.gradients.reverse import ReverseAD
from jaxdiffeq.methods import stochastic
from jaxdiffeq.methods.choice import Recommendation, Traits, choose
from jaxdiffeq.methods.explicit import BS3
from jaxdiffeq.methods.stochastic import StochasticHeun
from jaxdiffeq.problems.definitions import Terms, terms_of

DISCRETE = ReverseAD()
NOISY = stochastic.__all__
METHODS = tuple(name for name in dir(methods) if name[0].isupper() and name not in NOISY)


@dataclass(frozen=True)
class Options:
    """What was asked of `solve`, which says what each of them means; `watch` is what `progress` stands for."""

    method: Any
    saveat: Any
    dense: bool
    rtol: Any
    atol: Any
    first_step: Any
    controller: Any
    max_steps: Any
    stops: Any
    regularisers: Sequence[str] = ()
    gradient: Any = DISCRETE
    watch: Any = None
    throw: bool = True
    events: tuple[Any, ...] = ()
    max_events: int = 100
    history_steps: int | None = None

    def settled(self, terms: Terms) -> Options:
        """With a method and a controller, given or chosen, that serve these terms and each other."""
        errors.controller(self.controller)
        equal = errors.equal_steps(self.controller)
        traits = traits_of(terms, equal)
        stepper = choose(self.rtol, traits).method if self.method is None else self.method
        errors.method(stepper, METHODS if terms.noise is None else NOISY)
        gradient = self.gradient
        if traits.size == 0 and not (terms.is_residual or traits.mass):
            stepper = BS3() if terms.noise is None else stepper  # nothing to solve for, which an implicit one cannot
            gradient = DISCRETE if hasattr(gradient, "bind") else gradient
        controller = stepper.controller if self.controller is None else self.controller
        errors.controlled(stepper, controller, self.first_step)
        if terms.noise is not None and terms.noise.name == "general" and not equal:
            controller = Revisiting(controller)
        has_delays, has_noise = terms.delays is not None, terms.noise is not None
        support.check(gradient, self.dense, self.regularisers, terms.is_residual, has_delays, self.events, has_noise)
        if has_noise:
            gradient = support.along_path(gradient, stepper, StochasticHeun())
        stepper = stepper.on_equal_steps if equal else stepper
        return replace(self, method=stepper, controller=controller, gradient=gradient)


def recommend(problem: Any, rtol: Any = 1e-3, **replacements: Any) -> Recommendation:
    """What `solve(problem, rtol=rtol)` would use, and why: `.method`, `.why`."""
    return recommended(problem.replace(**replacements) if replacements else problem, rtol)


@functools.singledispatch
def recommended(problem: Any, rtol: Any) -> Recommendation:
    """One rule for problems that have a method for every step; others register theirs."""
    return choose(rtol, traits_of(terms_of(problem), False))


def traits_of(terms: Terms, equal_steps: bool) -> Traits:
    size = sum(np.size(x) for x in jax.tree.leaves(terms.y0))
    known = terms.structure is not None
    has_mass, is_split, noise = terms.mass is not None, terms.explicit is not None, terms.noise
    traits = Traits(size, has_mass, known, is_split, equal_steps, terms.is_residual)
    if noise is None:
        return traits
    return traits._replace(noise=noise.name, interpretation=noise.interpretation, langevin=noise.langevin is not None)
