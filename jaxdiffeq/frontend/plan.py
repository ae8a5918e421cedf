"""From a problem and its options to an integration: a hashable plan, and the arrays that go with it."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdiffeq import clock, errors
from jaxdiffeq.engine.control import Tolerance
from jaxdiffeq.engine.driven import Driven, on_path
from jaxdiffeq.engine.events import SaveEvents
from jaxdiffeq.engine.integration import START, Integration
from jaxdiffeq.engine.recorders import Beyond, RecorderDefaults, SaveAtEvents, SaveSteps, SaveTimes
from jaxdiffeq.engine.regularisers import MEANINGS, RegulariserSums
from jaxdiffeq.engine.stops import next_stop
from jaxdiffeq.events import suited
from jaxdiffeq.frontend import delays as of_delays
from jaxdiffeq.frontend import noise as of_noise
from jaxdiffeq.frontend.options import Options
from jaxdiffeq.frontend.saveat import Keep, all_times, normalise, one_array, sorted_times
from jaxdiffeq.frontend.user_events import bound
from jaxdiffeq.gradients import support
from jaxdiffeq.gradients.quadrature import Integrals
from jaxdiffeq.implicit.system import like, make_consistent
from jaxdiffeq.inputs.base import prepare_all, with_breakpoints
from jaxdiffeq.primitives.jax_internals import plain_path
from jaxdiffeq.primitives.varying_axes import match_varying_axes, vary_like
from jaxdiffeq.problems import delay_errors, noise_errors
from jaxdiffeq.problems.definitions import Terms
from jaxdiffeq.problems.past import Earlier
from jaxdiffeq.problems.ravel import (
    Ravel,
    Split,
    as_array,
    at_least_float32,
    close,
    hashable,
    real_dtype,
    split,
    time_dtype,
)
from jaxdiffeq.problems.reached import reached
from jaxdiffeq.problems.user_functions import Arguments, Given, OnArrays, field_of, packed_mass
from jaxdiffeq.problems.vector_field import VectorField
from jaxdiffeq.types import Context, Inputs, PyTree, Result, Settings, State

ROW_BYTES = 2**24  # the room for saved steps in one chunk of an eager solve


@dataclass(frozen=True)
class Plan:
    """All that a compiled solve depends on, besides arrays; two solves with equal plans share a program."""

    parts: Split
    """what the user gave, and args"""
    ravel: Ravel
    stepper: Any
    keeps: tuple[Keep, ...]
    """what the solution keeps, then what is saved besides"""
    dense: bool
    regularisers: tuple[str, ...]
    gradient: Any
    max_steps: int
    has_first_step: bool
    plain: bool
    """nothing but JAX's public API runs"""
    watch: Any = None
    structure: Any = None
    span_known: bool = True
    """and so was found to be more than rounding of its own times"""
    equal_steps: int | None = None
    """how many, if the solve is a scan of these"""
    reached: Any = ()
    """what the functions find outside of their arguments"""
    max_events: int = 0
    memory: of_delays.Memory | None = None
    """of the past, which f asks for"""
    noise: of_noise.Source | None = None

    @property
    def keep(self) -> Keep:
        return self.keeps[0]

    @property
    def every_step(self) -> bool:
        """Whether the number of rows is known only when the solve ends."""
        return any(keep.steps for keep in self.keeps) or self.dense

    @property
    def room(self) -> int:
        """The most rows that saving steps may take."""
        n = self.equal_steps
        return self.max_steps if n is None else n if self.dense else n // max(self.keep.steps, 1)


class Arrays(NamedTuple):
    """What a new value of does not need a new program."""

    parts: list
    y0: list
    t0: Any
    t1: Any
    ts: Any
    stops: Any
    settings: Settings
    mass: Any = None
    dy0: list | None = None
    lags: Any = None
    noise: Any = ()
    """a key's data"""


class Built(NamedTuple):
    integration: Integration
    inputs: Inputs
    settings: Settings
    observes: tuple
    """(t, y, inputs.args) ↦ what is saved, for each of `Plan.keeps`"""
    backs: tuple
    """how to put the times of each, which are in the order of travel, in the order given, or None"""
    earlier: Any
    """what dense output knows of the time before t₀"""


def prepare(terms: Terms, options: Options) -> tuple[Plan, Arrays]:
    """Check everything that can be checked before tracing, and separate arrays from the rest."""
    stepper = options.method
    args, y0, t0, t1, mass, on_whole = terms.args, terms.y0, terms.t0, terms.t1, terms.mass, terms.on_whole
    errors.state(y0)
    errors.serves_equation(stepper, mass, terms.residual)
    noise_errors.serves(stepper, terms.noise)
    if terms.noise is not None:
        stepper = stepper.in_calculus(terms.noise.interpretation)
    ravel = Ravel.of(y0)
    errors.precision(stepper, ravel.dtype, mass is not None or terms.is_residual)
    errors.unknowns(ravel.size, mass is not None or terms.is_residual)
    dtype = time_dtype(ravel.dtype, (t0, t1))
    (t0, t1), stops = _span(options, (t0, t1), dtype)
    lags, memory, stops = _delayed(terms, options, ravel, (t0, t1), stops)
    source, key = _noise(terms.noise, options, (t0, t1))
    saveat = normalise(options.saveat)
    if on_whole is not None:
        saveat = replace(saveat, fn=on_whole(saveat.fn))
    events, besides = _events(options, saveat, on_whole, (t0, t1))
    keeps, ts = all_times((saveat, *besides), t0, t1, dtype)
    driven = prepare_all((_given(terms), args, events), t0, t1)
    given, args, events = driven.taken
    stops = _landed(terms, driven, stops, ts, (t0, t1, dtype))
    parts, arrays = split((given, args, events), at_least_float32(ravel.dtype))
    if not hashable(parts.static):
        errors.static(args, "args")
        errors.static(given, "problem")
    leaves = [as_array(x, d) for x, d in zip(jax.tree.leaves(y0), ravel.dtypes, strict=True)]
    leaves = _or_nan(leaves, source, t0, t1)
    settings = _settings(options, ravel, y0, dtype)
    if driven.complete is not True:
        settings = settings._replace(begins=jnp.where(driven.complete, Result.running, Result.event_limit_reached))
    names = errors.regularisers(options.regularisers, stepper, tuple(MEANINGS))
    if "stiffness" in names:
        stepper = replace(stepper, measures=True)
    asked = options.dense, names, options.gradient, options.max_steps
    sized = settings.first_step is not None or options.controller.equal
    probes = not (sized or terms.is_residual or mass is not None)
    equal, found = _equal(options, stops, memory, source), reached((*parts.static, saveat.fn))
    room = options.max_events if any(event.saved is None for event in events) else 0
    source = of_noise.saved_at_ends(source, equal, ts, (t0, t1))
    known = terms.structure, errors.all_concrete((t0, t1)), equal, found, room, memory, source
    plan = Plan(parts, ravel, stepper, keeps, *asked, not probes, plain_path(), options.watch, *known)
    matrix = None if mass is None or callable(mass) else packed_mass(mass, y0, ravel)
    return plan, Arrays(arrays, leaves, t0, t1, ts, stops, settings, matrix, _guess(terms, ravel), lags, key)


def _landed(terms: Terms, driven: Any, stops: Any, ts: Any, span: tuple) -> Any:
    """The stops with the breakpoints of inputs; and with times to save at where the past is no path between steps."""
    if driven.jumps or driven.kinks:
        stops = sorted_stops(with_breakpoints(stops, driven, span[2]), *span)
    if terms.noise is not None and terms.delays is not None:
        xp = np if errors.all_concrete((stops, ts)) else jnp
        stops = sorted_stops(xp.concatenate([stops, ts]), *span)
    return stops


def _given(terms: Terms) -> Given:
    """The user's functions."""
    mass, delays, noise = terms.mass, terms.delays, terms.noise
    past = (None, ()) if delays is None else (delays.history, delays.dependent_lags)
    varying = mass if callable(mass) else None
    driven = () if noise is None else (noise.diffusion, of_noise.given(noise), noise.langevin)
    return Given(terms.f, terms.explicit, terms.jac, terms.residual, varying, *past, *driven)


def _noise(noise: Any, options: Options, span: tuple[Any, Any]) -> tuple:
    """How the path is made, and its key's data."""
    if noise is None:
        return None, ()
    looks = any(event.trigger.crosses or event.trigger.stays for event in options.events)
    source, data = of_noise.source(noise, options.method, options.controller, looks)
    if source.forwards:
        noise_errors.forwards(options.method, *span)
    return source, data


def _delayed(terms: Terms, options: Options, ravel: Ravel, span: tuple[Any, Any], stops: Any) -> tuple:
    """The lags, what is known of them when the solve is compiled, and the stops with those that they make."""
    delays, (t0, t1), stepper = terms.delays, span, options.method
    if delays is None:
        return None, None, stops
    delay_errors.forwards(t0, t1)
    lags = of_delays.numbers(delays.lags, t0.dtype)
    row_bytes = (stepper.degree + 1) * ravel.size * jnp.dtype(ravel.dtype).itemsize
    memory = of_delays.memory_of(terms, lags, options, row_bytes)
    points = of_delays.breaking_points(delays, lags, span, math.ceil(stepper.order))
    xp = np if errors.all_concrete((points, stops)) else jnp
    return lags, memory, of_delays.apart(xp.concatenate([stops, points]), t0, t1)


def _events(options: Options, saveat: Any, on_whole: Any, span: tuple[Any, Any]) -> tuple[tuple, list]:
    """The events, on the numbers of a state, and when each of those saves that does."""
    events = options.events if on_whole is None else tuple(e.on_whole(on_whole) for e in options.events)
    suited(events, *span, options.controller.equal)
    errors.positive_integer(options.max_events, "max_events")
    others = [event for event in events if event.saved is None]
    besides = [normalise(event.when, "when") for event in events if event.saved is not None]
    for kept in (saveat, *besides):
        errors.saved_events(kept, others)
    return tuple(event if event.saved is None else event.timeless for event in events), besides


def _span(options: Options, given: tuple[Any, Any], dtype: Any) -> tuple[tuple[Any, Any], Any]:
    """Both ends, and the stops between them, in the dtype of t: they, and steps of a given size, differ in it."""
    clock.resolved(*given, dtype)
    t0, t1 = (as_array(t, dtype) for t in given)
    clock.steps_resolved(options.first_step, options.controller, t0, t1)
    stops = sorted_stops(options.stops, t0, t1, dtype)
    clock.apart(options.stops, dtype, "stops", given)
    return (t0, t1), stops


def _equal(options: Options, stops: Any, memory: Any, noise: Any) -> int | None:
    """How many equal steps a solve takes that lands nowhere between them, if the gradient can do with a scan."""
    controller, gradient = options.controller, options.gradient
    listed = np.size(stops) or options.events or memory is not None
    n, equal = controller.n if controller.equal and not listed else None, None
    if n is not None and n <= options.max_steps:
        scans = gradient.differentiates_scans if noise is None else hasattr(gradient, "on_equal_steps")
        equal = n if scans else None
    support.check_path(gradient, noise is not None, equal is not None)
    return equal


def _or_nan(leaves: list, source: Any, t0: Any, t1: Any) -> list:
    """NaN where noise that must go forwards in time turns out not to."""
    if source is None or not source.forwards or errors.all_concrete((t0, t1)):
        return leaves
    return [jnp.where(jnp.asarray(t0 <= t1), x, jnp.nan) for x in leaves]


def _guess(terms: Terms, ravel: Ravel) -> list | None:
    y0, dy0 = terms.y0, terms.dy0
    if not terms.is_residual:
        return None
    if dy0 is None:
        return [np.zeros(shape, dtype) for shape, dtype in zip(ravel.shapes, ravel.dtypes, strict=True)]
    errors.slope_guess(dy0, y0)
    return [as_array(x, d) for x, d in zip(jax.tree.leaves(dy0), ravel.dtypes, strict=True)]


def sorted_stops(stops: Any, t0: Any, t1: Any, dtype: Any) -> Any:
    """The stops within the span in the order of travel; those outside become t1, where the solve lands anyway."""
    if isinstance(stops, list | tuple) and not stops:
        return np.zeros(0, dtype)
    stops = one_array(stops)
    errors.stops(stops)
    xp = np if errors.all_concrete((stops, t0, t1)) else jnp
    stops = xp.asarray(stops).astype(dtype).reshape(-1)
    direction = xp.sign(t1 - t0)
    inside = (direction * stops > direction * t0) & (direction * stops < direction * t1)
    return direction * xp.sort(direction * xp.where(inside, stops, t1))


def _settings(options: Options, ravel: Ravel, y0: PyTree, dtype: Any) -> Settings:
    given = options.rtol, options.atol, options.first_step, options.controller, options.max_steps
    real = real_dtype(ravel.dtype)
    errors.tolerance_floor(given[0], real)
    if all(isinstance(x, float | int | None) for x in (*given[:3], *jax.tree.leaves(given[3]))):
        return _plain_settings(*given, real, dtype)
    return _any_settings(given, ravel, y0, dtype)


@functools.lru_cache
def _plain_settings(rtol, atol, first_step, controller, max_steps, real, dtype) -> Settings:
    """Numbers that were seen before: to check and convert them again would cost more than a small solve."""
    ravel = Ravel.of(np.zeros((), real))
    return _any_settings((rtol, atol, first_step, controller, max_steps), ravel, np.zeros(()), dtype)


def _any_settings(given: tuple, ravel: Ravel, y0: PyTree, dtype: Any) -> Settings:
    rtol, atol, first, controller, max_steps = given
    errors.tolerances(rtol, atol)
    rtol, atol = (_like_state(tol, y0) for tol in (rtol, atol))
    errors.positive(first, "first_step")
    errors.positive_integer(max_steps, "max_steps")
    for name, tol in (("rtol", rtol), ("atol", atol)):
        if not (jax.tree_util.all_leaves([tol]) and np.ndim(tol) == 0):
            errors.tolerance_shape(tol, y0, name)
    return Settings(
        controller=jax.tree.map(lambda x: as_array(x, dtype), controller),
        tolerance=Tolerance(ravel.pack_tolerance(rtol), ravel.pack_tolerance(atol)),
        first_step=None if first is None else as_array(first, dtype),
        max_steps=as_array(max_steps, np.int32),
    )


def _like_state(tol: PyTree, y0: PyTree) -> PyTree:
    """A list of numbers as an array, for a state that is one."""
    listed = isinstance(tol, list | tuple) and jax.tree_util.all_leaves(tol) and jax.tree_util.all_leaves([y0])
    return one_array(tol) if not listed or not errors.all_concrete(tol) else np.asarray(tol)


def build(plan: Plan, arrays: Arrays, capacity: int, traced: bool = True) -> Built:
    """The integration, with room for `capacity` rows of saved steps. f is traced here, once, if at all."""
    arrays = match_varying_axes(arrays)
    given, args, events = plan.parts.join(arrays.parts)
    rest, leaves = split(args)
    ravel = plan.ravel
    pack = lambda leaves: ravel.pack(jax.tree.unflatten(ravel.tree, leaves))
    y0, dy0 = pack(arrays.y0), None if arrays.dy0 is None else pack(arrays.dy0)
    t0, t1 = jnp.asarray(arrays.t0), jnp.asarray(arrays.t1)
    added = [vary_like(jnp.zeros_like(y0), y0) for event in events if event.adds is not None]
    leaves = [*leaves, *added]
    at, on = (t0, y0, leaves), OnArrays(ravel, rest, traced, len(added))
    mass = None if arrays.mass is None else jnp.asarray(arrays.mass)
    pasts = () if plan.memory is None else of_delays.pasts(plan.memory, plan.stepper.degree, (t0, y0))
    noise = plan.noise and of_noise.driving(plan.noise, y0, given.brownian, (t0, t1), arrays.noise)
    field, (of_f, of_explicit, of_jac, *of_noisy) = field_of(given, on, plan.structure, mass, at, pasts, noise)
    observes, of_fn = _observed(on, (plan.keep.fn, *(e.saved for e in events if e.saved is not None)), at)
    happens, of_events = bound(events, on, at, plan.max_events) if plan.max_events else (None, ())
    slope = None if field.algebraic or field.in_context else field
    recorders = _recorders(plan, observes, capacity, happens, (field, slope))
    if happens is not None:
        happens = replace(happens, rough=field.noisy)
        support.check_info(plan.gradient, happens.asks, happens.integrands is not None)
        recorders["events"] = SaveEvents(happens)
    if tells := tuple(event.tells for event in events if event.tells is not None):
        recorders["calls"] = Calls(tells, on)
    made = field, plan.stepper, recorders, plan.watch
    integration, of_lags = Integration(*made, events=happens), None
    if plan.noise is not None:
        integration = Driven(*made, events=happens, snaps=plan.noise.snaps)
    if plan.memory is not None:
        integration, of_lags = of_delays.remembering(plan.memory, on, given.dependent_lags, at, *made, happens)
    ts, backs = sorted_times(plan.keeps, jnp.asarray(arrays.ts), jnp.sign(t1 - t0))
    lags = None if arrays.lags is None else jnp.asarray(arrays.lags)
    noisy = {"of_diffusion": of_noisy[0], "of_path": of_noisy[1]} if of_noisy else {}
    arguments = Arguments(of_f, of_explicit, of_jac, of_fn, leaves, mass, dy0, of_events, lags, of_lags, **noisy)
    inputs = Inputs(y0, arguments, t0, t1, ts, jnp.asarray(arrays.stops))
    inputs = inputs if happens is None else happens.begun(inputs, slope)
    if happens is not None and happens.integrands is not None:
        integrals = _integrals(happens.integrands, inputs, plan.stepper.order)
        integration = integration.with_recorders(**integration.recorders, integrals=integrals)
    inputs, settings = _consistent(field, inputs, _bounded(arrays.settings, inputs, plan.span_known))
    earlier = None
    if plan.dense and plan.memory is not None:
        earlier = Earlier.of(lambda s: on.earlier(given.history, s, rest.join(leaves), ravel.unpack(y0)), t0)
    return Built(integration, inputs, settings, observes, backs, earlier)


def _consistent(field: VectorField, inputs: Inputs, settings: Settings) -> tuple[Inputs, Settings]:
    """Inputs that satisfy the algebraic equations, and whether there are such."""
    if not field.algebraic:
        return inputs, settings
    if inputs.stops.size and not field.in_context:  # f may jump at t0: what counts is the side of the solve
        _, field = next_stop(inputs, field, State(inputs.t0, inputs.y0, ()), Context(START))
    tolerance = settings.tolerance
    begins = Result.running if settings.begins is None else settings.begins
    defined = jnp.all(jnp.isfinite(field(inputs.t0, inputs.y0, inputs.args)))
    y0, found = make_consistent(field, inputs.t0, inputs.y0, inputs.args, tolerance)
    lost = jnp.where(defined, Result.initialisation_failed, Result.nonfinite)
    begins = lax.stop_gradient(jnp.where(found.ok, begins, lost))
    args = field.remembered(inputs.args, like(found.slope, y0))
    if not settings.controller.algebraic:
        free = lax.stop_gradient(like(found.free, y0))  # complex: free in both parts
        tolerance = tolerance._replace(counts=~(jnp.real(free) > 0.5))
    inputs = inputs._replace(y0=y0, args=args)
    return inputs, settings._replace(tolerance=tolerance, begins=begins)


def _bounded(settings: Settings, inputs: Inputs, span_known: bool) -> Settings:
    """No tolerance below ten units of rounding, and none of zero; the size of equal steps; no span that rounding has
    made of another."""
    tolerance, least = settings.tolerance, jnp.finfo(inputs.y0.dtype)
    tolerance = Tolerance(jnp.maximum(tolerance.rtol, 10 * least.eps), jnp.maximum(tolerance.atol, least.tiny))
    settings = settings._replace(tolerance=tolerance, begins=_begins(settings, inputs, span_known))
    size = settings.controller.fixed_size(jnp.abs(inputs.t1 - inputs.t0))
    return settings if size is None else settings._replace(first_step=lax.stop_gradient(size))


def _begins(settings: Settings, inputs: Inputs, span_known: bool) -> jax.Array | None:
    """The code that a solve over this span begins with, if there is one."""
    if span_known:
        return settings.begins
    t0, t1 = lax.stop_gradient((inputs.t0, inputs.t1))
    span, unit = jnp.abs(t1 - t0), jnp.finfo(t0.dtype).eps * jnp.maximum(jnp.abs(t0), jnp.abs(t1))
    short = (span > 0) & (span < clock.RESOLVED * unit)
    otherwise = Result.running if settings.begins is None else settings.begins
    return jnp.where(short, Result.step_size_too_small, otherwise)


def _observed(on: OnArrays, functions: tuple, at: tuple) -> tuple[tuple, list]:
    """(t, y, inputs.args) ↦ what is saved, for each, and what these functions close over."""
    closed = [close(on.saved(f), *at) for f in functions]

    def observe(i, program):
        return lambda t, y, args: program(args.of_fn[i], t, y, args.leaves)

    return tuple(observe(i, program) for i, (program, _) in enumerate(closed)), [consts for _, consts in closed]


def _recorders(plan: Plan, observes: tuple, capacity: int, events: Any, fields: tuple) -> dict[str, Any]:
    field, slope = fields
    between = plan.noise is not None and not plan.noise.ends
    recorders: dict[str, Any] = {}
    beyond = None if events is None else Beyond(events.changing, events.changed, slope)
    for keep, observe in zip(plan.keeps, observes, strict=True):
        if keep.count:
            own = () if len(plan.keeps) == 1 else (keep.first, keep.count)
            saves = SaveTimes(observe, beyond, *own)
            recorders[keep.name("times")] = on_path(saves, field, plan.stepper) if between else saves
        if keep.steps:
            recorders[keep.name("steps")] = SaveSteps(observe, capacity, keep.steps, beyond=beyond)
        if keep.events and keep.number and events is not None:
            room, logged = plan.max_events, events.any_logged
            recorders[keep.name("instants")] = SaveAtEvents(observe, room, beyond=beyond, logged=logged)
    if plan.regularisers:
        recorders["regularisers"] = RegulariserSums(plan.regularisers)
    if plan.dense:
        recorders["interpolant"] = SaveSteps(_nothing, capacity, reads_interpolant=True)
    return recorders


@dataclass(frozen=True)
class Calls(RecorderDefaults):
    """Functions called on the host after every accepted step; under `vmap`, for each lane."""

    functions: tuple
    on: OnArrays

    def init(self, inputs: Inputs, start: Any, shapes: Any) -> tuple[tuple, Any]:
        return (), jnp.zeros((), jnp.int32)

    def record(self, moving: tuple, fixed: Any, step: Any, inputs: Inputs) -> tuple[tuple, Any]:
        now = step.taken, step.after.t, self.on.ravel.unpack(step.after.y), inputs.args.leaves
        jax.debug.callback(self._tell, *lax.stop_gradient(now))
        return moving, fixed

    def vjp(self, bars: Any, cursor: Any, step: Any, active: Any, out: Any) -> tuple[Any, Any]:
        return bars, cursor

    def _tell(self, taken: Any, t: Any, y: PyTree, leaves: list) -> None:
        for function in self.functions if taken else ():
            function(np.asarray(t), jax.tree.map(np.asarray, y), self.on.rest.join(leaves))


def _integrals(integrands: Any, inputs: Inputs, order: int) -> Integrals:
    shapes, tree = jax.tree.flatten(jax.eval_shape(integrands, inputs.t0, inputs.y0, inputs.args))
    numbers = lambda t, y, args: jax.tree.leaves(integrands(t, y, args))
    return Integrals(numbers, tuple((x.shape, x.dtype) for x in shapes), order, tree=tree)


def _nothing(t: jax.Array, y: jax.Array, args: PyTree) -> tuple:
    return ()


def row_bytes(plan: Plan) -> int:
    """An upper bound for a row of saved steps, dense output included."""
    degree = plan.stepper.degree + 1 if plan.dense else 0
    return max(1, (1 + degree) * plan.ravel.size * jnp.dtype(plan.ravel.dtype).itemsize)


def chunk(plan: Plan) -> int:
    """Steps in one chunk of an eager solve."""
    return int(min(1024, plan.max_steps, max(16, ROW_BYTES // row_bytes(plan))))
