"""Doses that have always been given: the state at t₀ that comes again one interval later."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdiffeq import errors
from jaxdiffeq.algebra.newton import attached
from jaxdiffeq.algebra.norm import rms
from jaxdiffeq.algebra.structure import Dense
from jaxdiffeq.algebra.vectors import like, real_vector, spread
from jaxdiffeq.frontend.execute import whole
from jaxdiffeq.frontend.options import Options
from jaxdiffeq.frontend.plan import Arrays, Plan, prepare
from jaxdiffeq.frontend.saveat import SaveAt
from jaxdiffeq.gradients.forward import ForwardAD
from jaxdiffeq.primitives.varying_axes import left_to_xla
from jaxdiffeq.primitives.while_loop import frozen_while
from jaxdiffeq.problems.definitions import Terms
from jaxdiffeq.types import PyTree, Result

TRIES = 50
ENOUGH = 0.01  # the last correction, in units of the tolerance; one, where steps of another number have left their mark
ROUGH = 10  # tries after which that one is enough


def prepared(terms: Terms, options: Options) -> tuple[Plan, Arrays]:
    """The plan of a solve, that starts where doses that have always been given have led to, if there are such."""
    always = [event for event in options.events if event.regimen is not None]
    if not always:
        return prepare(terms, options)
    y0, found = _repeating(terms, options, always)
    plan, arrays = prepare(terms._replace(y0=y0), options)
    begins = jnp.where(found, Result.running, Result.initialisation_failed).astype(jnp.int32)
    return plan, arrays._replace(settings=arrays.settings._replace(begins=begins))


def _repeating(terms: Terms, options: Options, always: list[Any]) -> tuple[PyTree, jax.Array]:
    """y(t₀) = y(t₀ + τ), and whether it was found. Of all events these doses alone take part."""
    if terms.delays is not None:
        errors.unsupported(
            "Doses(steady_state=True) does not serve a DDEProblem, of which not a state but the past would have to "
            "come again. Begin it many intervals earlier."
        )
    every = always[0].regimen.every
    if errors.all_concrete((terms.t0, [event.regimen for event in always])):
        every = float(np.asarray(every))
        _are_in_step([event.regimen for event in always], every, float(terms.t0))
    span = terms._replace(t1=terms.t0 + every)
    events = tuple(event.interval(terms.t0) for event in always)
    asked = replace(options, events=events, saveat=SaveAt(t1=True), dense=False, regularisers=(), watch=None)
    plan, arrays = prepare(span, asked)
    return errors.out_of_user_code(left_to_xla, functools.partial(_search, plan), arrays)


def _are_in_step(regimens: list[Any], every: float, t0: float) -> None:
    intervals = [float(np.asarray(regimen.every)) for regimen in regimens]
    if any(interval != every for interval in intervals):
        raise ValueError(f"Doses with steady_state=True must have one and the same `every`, but came {intervals}.")
    late = max(float(np.max(np.asarray(regimen.starts))) for regimen in regimens)
    if late >= t0 + every:
        raise ValueError(
            f"Doses(steady_state=True) have always been given, every {every:.9g}, so the first of `times` must come "
            f"less than that after t0 = {t0:.9g}, but one is at {late:.9g}."
        )


class _At(NamedTuple):
    """Where the search stands."""

    v: jax.Array
    later: jax.Array
    """one interval after the last v that was good, where the doses lead by themselves"""
    rest: jax.Array
    """how far apart these two were"""
    tried: jax.Array
    found: jax.Array


@functools.partial(jax.jit, static_argnums=0)
def _search(plan: Plan, arrays: Arrays) -> tuple[PyTree, jax.Array]:
    """Newton's method for P(v) = v, where P takes a state one interval on; where it leads away, P itself.

    The derivative is that of the implicit function, (1 − ∂P/∂v)⁻¹∂P.
    """
    unpack = plan.ravel.unpack
    start = plan.ravel.pack(jax.tree.unflatten(plan.ravel.tree, arrays.y0))
    searching = replace(plan, gradient=ForwardAD())

    def after(plan, v, arrays):
        y = jax.tree.leaves(unpack(like(v, start)))
        end = whole(plan, arrays._replace(y0=y)).ys
        return real_vector(plan.ravel.pack(jax.tree.map(lambda x: x[0], end)))

    def linearised(v, arrays):
        return Dense().jacobian(lambda v: after(searching, v, arrays), v)

    def matrix(v, arrays):
        return Dense().shifted(jnp.ones((), v.dtype), None, linearised(v, arrays)[1])

    fixed, tolerance = lax.stop_gradient(arrays), arrays.settings.tolerance
    still = lax.stop_gradient(start)

    def size(dv, v):
        y = like(v, still)
        scale = spread(tolerance.scale(y, y), y)
        return rms(dv / jnp.where(scale > 0, scale, jnp.finfo(v.dtype).tiny))

    last = _iterated(functools.partial(linearised, arrays=fixed), size, real_vector(still))
    v = jnp.where(last.found, last.v, real_vector(still))
    v = attached(v, lambda v, arrays: after(plan, v, arrays) - v, Dense(), matrix, arrays)
    return unpack(like(v, still)), last.found


def _iterated(linearised: Any, size: Any, v: jax.Array) -> _At:
    def running(_, at):
        return ~at.found & (at.tried < TRIES)

    def trip(_, at):
        later, jacobian = linearised(at.v)
        rest = size(later - at.v, at.v)
        w = Dense().shifted(jnp.ones((), v.dtype), None, jacobian)
        dv = Dense().solve(Dense().factor(w), later - at.v)
        good = jnp.all(jnp.isfinite(at.v + dv)) & (rest <= at.rest)
        moved, tried = size(dv, at.v), at.tried + 1
        done = good & (moved <= jnp.where(tried > ROUGH, 1, ENOUGH))
        stays = jnp.full_like(at.rest, jnp.inf)
        on = _At(at.v + dv, later, rest, tried, done)
        back = _At(at.later, at.later, stays, tried, jnp.array(False))
        new = jax.tree.map(lambda a, b: jnp.where(good, a, b), on, back)
        return (), jax.tree.map(lambda a, b: jnp.where(running((), at), a, b), new, at)

    zero = jnp.zeros((), jnp.int32)
    return frozen_while(running, trip, (), _At(v, v, jnp.full((), jnp.inf, v.dtype), zero, jnp.array(False)))[1]
