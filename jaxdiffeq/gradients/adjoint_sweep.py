"""The backward solve of a continuous adjoint, from one saved time, stop or segment boundary to the next."""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdiffeq.gradients import segments
from jaxdiffeq.gradients.adjoint_equation import OfMass, OfResidual, OfSlope
from jaxdiffeq.gradients.quadrature import Quadrature
from jaxdiffeq.gradients.rule import Active, Constants, Outputs
from jaxdiffeq.implicit.system import make_consistent
from jaxdiffeq.primitives.row_buffer import read
from jaxdiffeq.primitives.while_loop import frozen_while
from jaxdiffeq.problems.vector_field import VectorField
from jaxdiffeq.types import Inputs, PyTree, Result, Settings


class Parts(NamedTuple):
    """What goes backwards: y where it is solved again, λ, and the cotangents of the active args."""

    y: Any
    lam: jax.Array
    theta: list


class Times(NamedTuple):
    """Cotangents of the four kinds of times, each of which may be absent (None)."""

    t0: Any
    t1: Any
    ts: Any
    stops: Any


class Moving(NamedTuple):
    t: jax.Array
    parts: Parts
    times: Times
    segment: Any


class Cursors(NamedTuple):
    """Where the sweep stands: rows not yet pulled of every recorder, stops, segments, and the backward solver."""

    records: dict[str, jax.Array]
    stop: jax.Array
    segment: jax.Array
    steps: jax.Array
    """steps in the segment at hand"""
    start: jax.Array
    """where it starts"""
    dt: jax.Array
    result: jax.Array


@dataclass(frozen=True)
class Sweep:
    integration: Any
    active: Active
    settings: Settings
    constants: Constants
    options: Any
    tape: Any

    # ---- the parameters

    @functools.cached_property
    def inputs(self) -> Inputs:
        return self.active.inputs

    @functools.cached_property
    def direction(self) -> jax.Array:
        return jnp.sign(self.inputs.t1 - self.inputs.t0)

    @functools.cached_property
    def where(self) -> tuple[int, ...]:
        """The places of the active leaves in the flat args."""
        first = len(jax.tree.leaves(self.inputs.y0))
        count = len(jax.tree.leaves(self.inputs.args))
        return tuple(i - first for i in self.active.where if first <= i < first + count)

    def theta(self) -> list:
        leaves = jax.tree.leaves(self.inputs.args)
        return [leaves[i] for i in self.where]

    def args(self, theta: list) -> PyTree:
        leaves, tree = jax.tree.flatten(self.inputs.args)
        for i, x in zip(self.where, theta, strict=True):
            leaves[i] = x
        return tree.unflatten(leaves)

    def moves(self, *names: str) -> bool:
        return bool(self.active.names() & set(names))

    # ---- the equation

    @functools.cached_property
    def equation(self) -> OfSlope:
        field, theta = self.integration.field, self.theta()
        if field.residual is not None:
            return OfResidual(field, self.args, theta)
        if field.mass is None:
            return OfSlope(field, self.args, theta)
        mass = field.mass(self.inputs.args)
        return OfMass(field, self.args, theta, mass, any(x is mass for x in theta))

    @property
    def implicit(self) -> bool:
        return isinstance(self.equation, OfResidual)

    def velocity(self, t: jax.Array, y: jax.Array, passed: Any) -> jax.Array:
        """dy/dt."""
        return self.equation.velocity(self.one_sided(t, passed), y)

    def inertia(self, t: jax.Array, y: jax.Array, lam: jax.Array, passed: Any) -> jax.Array:
        """Eᵀλ."""
        if self.equation.plain:
            return lam
        return self.equation.inertia(self.one_sided(t, passed), y, self.velocity(t, y, passed), lam)

    def taken(self, t: jax.Array, y: jax.Array, bar: jax.Array, theta: list, passed: Any) -> tuple[jax.Array, list]:
        """What a cotangent of y(t) adds to λ, and the cotangents of the parameters with what it adds to these."""
        if self.equation.plain:
            return bar, theta
        dy, t = self.velocity(t, y, passed), self.one_sided(t, passed)
        a, b = self.equation.adjoint(t, y, dy).split(y, bar)
        if not self.where:
            return a, theta
        return a, jax.tree.map(jnp.add, theta, self.equation.pulled(t, y, dy, b, True)[2])

    def completed(self, t: jax.Array, parts: Parts, segment: Any, cursors: Cursors) -> Parts:
        """With the part of λ that the adjoint equation determines."""
        if self.equation.plain:
            return parts
        y, dy = self.along(t, parts, segment, cursors.steps)
        pull = None
        if self.implicit:
            still = Parts(None, jnp.zeros_like(parts.lam), [])
            args = segment, cursors.steps, cursors.stop
            pull = lambda lam: self.balance(t, parts._replace(lam=lam), still, args).lam
        adjoint = self.equation.adjoint(self.one_sided(t, cursors.stop), y, dy, pull)
        return parts._replace(lam=adjoint.completed(y, parts.lam))

    # ---- the two fields

    def one_sided(self, t: jax.Array, passed: Any) -> jax.Array:
        """t, kept strictly between the stops numbered `passed` and `passed` + 1: f may jump at a stop."""
        stops, towards = lax.stop_gradient((self.inputs.stops, self.direction))
        if stops.size == 0:
            return t
        far = towards * jnp.inf
        low = jnp.where(passed >= 0, jnp.nextafter(stops[jnp.maximum(passed, 0)], far), -far)
        after = stops[jnp.minimum(passed + 1, stops.size - 1)]
        real = (passed + 1 < stops.size) & (towards * after < towards * self.inputs.t1)
        high = jnp.where(real, jnp.nextafter(after, -far), far)
        low, high = jnp.minimum(low, high), jnp.maximum(low, high)
        return t + lax.stop_gradient(jnp.clip(t, low, high) - t)

    def solution(self, t: jax.Array, parts: Parts, segment: Any, count: jax.Array) -> jax.Array:
        if "y" in self.options.parts:
            return parts.y
        return segment.value(t, count, self.direction, self.inputs.y0)

    def along(self, t: jax.Array, parts: Parts, segment: Any, count: jax.Array) -> tuple[jax.Array, Any]:
        """y(t), and the derivative of that function, which only F = 0 needs."""
        if not self.implicit:
            return self.solution(t, parts, segment, count), None
        return jax.jvp(lambda t: self.solution(t, parts, segment, count), (t,), (jnp.ones_like(t),))

    def pulled(self, t: jax.Array, parts: Parts, args: PyTree, theta: bool) -> tuple:
        """f, Jᵀλ, and Gᵀλ if wanted, on the solution at t."""
        segment, count, passed = args
        y, dy = self.along(t, parts, segment, count)
        return self.equation.pulled(self.one_sided(t, passed), y, dy, parts.lam, theta)

    def field(self, t: jax.Array, z: jax.Array, args: PyTree) -> jax.Array:
        parts = self.packing.unpack(z)
        f, d_y, d_theta = self.pulled(t, parts, args, "theta" in self.options.parts)
        return self.packing.pack(Parts(f if "y" in self.options.parts else None, -d_y, [-x for x in d_theta]))

    def balance(self, t: jax.Array, parts: Parts, rates: Parts, args: PyTree) -> Parts:
        """Zero along the adjoint of F = 0: d(Eᵀλ)/dt + Jᵀλ, and dθ̄/dt + Gᵀλ."""
        segment, count, passed = args

        def momentum(t, lam):
            y, dy = self.along(t, parts, segment, count)
            return self.equation.inertia(self.one_sided(t, passed), y, dy, lam)

        _, change = jax.jvp(momentum, (t, parts.lam), (jnp.ones_like(t), rates.lam))
        _, d_y, d_theta = self.pulled(t, parts, args, bool(rates.theta))
        return Parts(None, change + d_y, [a + b for a, b in zip(rates.theta, d_theta, strict=True)])

    def residual(self, t: jax.Array, z: jax.Array, dz: jax.Array, args: PyTree) -> jax.Array:
        unpack, pack = self.packing.unpack, self.packing.pack
        return pack(self.balance(t, unpack(z), unpack(dz), args))

    def integrand(self, t: jax.Array, z: jax.Array, args: PyTree) -> list:
        """−λᵀ∂f/∂θ: the backward solve runs against the integral."""
        return [-x for x in self.pulled(t, self.packing.unpack(z), args, True)[2]]

    # ---- the backward solver

    @functools.cached_property
    def packing(self) -> Packing:
        y, theta = self.inputs.y0, self.theta() if "theta" in self.options.parts else []
        return Packing.of(Parts(y if "y" in self.options.parts else None, y, theta))

    @functools.cached_property
    def solver(self) -> tuple[Any, Settings]:
        """The integration of the adjoint equation, and its settings."""
        settings, packing = self.settings, self.packing
        stepper = self.options.method or self.integration.stepper
        if hasattr(stepper, "sized"):
            stepper = stepper.sized(sum(map(math.prod, packing.shapes)))
        rtol, atol = settings.tolerance.rtol, settings.tolerance.atol
        if self.options.rtol is not None:
            rtol = jnp.asarray(self.options.rtol, rtol.dtype)
        if self.options.atol is not None:
            atol = jnp.asarray(self.options.atol, atol.dtype)
        tolerance = type(settings.tolerance)(packing.spread(rtol), packing.spread(atol))
        controller = settings.controller
        if hasattr(controller, "norm"):
            controller = dataclasses.replace(controller, norm=packing.norm(controller.norm))
        recorders = {}
        if self.options.rule and self.where:
            zeros = tuple((x.shape, x.dtype) for x in self.theta())
            careful = (jnp.min(rtol), jnp.min(atol)) if self.options.rule == "kronrod" else None
            recorders = {"quadrature": Quadrature(self.integrand, zeros, stepper.order, careful)}
        field = self.adjoint_field(packing)
        integration = dataclasses.replace(self.integration, field=field, stepper=stepper, recorders=recorders)
        return integration, settings._replace(controller=controller, tolerance=tolerance, consistent=None)

    def adjoint_field(self, packing: Packing) -> VectorField:
        if self.implicit:
            return VectorField(lambda t, z, args: -self.residual(t, z, jnp.zeros_like(z), args), residual=self.residual)
        if not isinstance(self.equation, OfMass):
            return VectorField(self.field)
        mass = packing.mass(self.equation.mass)
        return VectorField(self.field, mass=lambda _: mass)

    def leg(self, t: jax.Array, target: jax.Array, parts: Parts, segment: Any, cursors: Cursors) -> tuple:
        """The parts carried from t back to `target`, the next step size and the result code."""
        integration, settings = self.solver
        nothing = jnp.zeros(0, t.dtype)
        parts = self.completed(t, parts, segment, cursors)
        z = self.packing.pack(parts if "theta" in self.options.parts else parts._replace(theta=[]))
        args = segment, cursors.steps, cursors.stop
        carry = integration.run(Inputs(z, args, t, target, nothing, nothing), settings._replace(first_step=cursors.dt))
        z = carry.state.y
        if self.moves("t0", "t1", "ts", "stops") and self.equation.plain:
            # A leg of no length takes no step, but where its ends move apart the solution moves with them.
            apart = (target - carry.state.t).astype(z.dtype)
            z = z + jnp.where(carry.state.t == target, apart, 0) * self.field(target, z, args)
        new = self.packing.unpack(z)
        if carry.records:
            new = new._replace(theta=jax.tree.map(jnp.add, parts.theta, carry.records["quadrature"]))
        elif "theta" not in self.options.parts:
            new = new._replace(theta=parts.theta)
        return new, carry.control.dt, carry.control.result

    # ---- the sweep

    def back(self, bars: Outputs) -> list[jax.Array]:
        """The cotangents of the active inputs. Linear: the size of `bars` is divided out, and put back at the end."""
        scale = _scale(bars)
        bars = jax.tree.map(lambda x: x / scale.astype(x.dtype), bars)
        _ = self.direction, self.solver  # made here, once: what a loop's body makes cannot be used outside of it
        moving, cursors = self.start(bars)

        def running(moving, cursors):
            left = (moving.t != self.inputs.t0) | (cursors.stop >= 0)
            for k in cursors.records.values():
                left |= k >= 0
            return left & (cursors.result == Result.success)

        def trip(moving, cursors):
            live = running(moving, cursors)
            new = self.trip(moving, cursors, bars, live)
            # the segment is a buffer: where nothing is live, nothing was written to it
            held = new[0].segment
            kept = jax.tree.map(
                lambda a, b: jnp.where(live, a, b),
                (new[0]._replace(segment=None), new[1]), (moving._replace(segment=None), cursors),
            )  # fmt: skip
            return kept[0]._replace(segment=held), kept[1]

        moving, cursors = frozen_while(running, trip, moving, cursors)
        return self.collect(moving, cursors, scale)

    def start(self, bars: Outputs) -> tuple[Moving, Cursors]:
        inputs, (y1, _, _) = self.inputs, self.tape
        zero = jnp.zeros((), jnp.int32)
        theta = [jnp.zeros_like(x) for x in self.theta()]
        times = Times(*(jnp.zeros_like(getattr(inputs, name)) if self.moves(name) else None for name in Times._fields))
        last = jnp.sum(self.direction * inputs.stops < self.direction * inputs.t1, dtype=jnp.int32) - 1
        if times.t1 is not None:
            times = times._replace(t1=_real_sum(bars.y * self.velocity(inputs.t1, y1, last)).astype(inputs.t1.dtype))
        lam, theta = self.taken(inputs.t1, y1, bars.y, theta, last)
        parts = Parts(y1 if "y" in self.options.parts else None, lam, theta)
        held, steps = None, zero
        if self.options.parts[:1] != ("y",):
            held = segments.empty(self.integration, inputs)
            steps = (self.constants.counts.steps + segments.SEGMENT - 1) // segments.SEGMENT
        # without an error estimate to correct it, the step is the one that was given
        first = self.settings.first_step if not self.settings.controller.needs_error else self.constants.dt
        assert first is not None
        times = self.timed(times, self.constants.t, jnp.zeros((), jnp.int32), bars.t, False)
        good = (self.constants.result == Result.success) | (self.constants.result == Result.terminated)
        cursors = Cursors(
            records={name: self.last_row(name, mark) for name, mark in self.constants.marks.items()},
            stop=last,
            segment=steps,
            steps=zero,
            start=lax.stop_gradient(inputs.t1),
            dt=lax.stop_gradient(jnp.where(jnp.isfinite(first) & (first > 0), first, jnp.abs(inputs.t1 - inputs.t0))),
            result=jnp.where(good, Result.success, self.constants.result).astype(jnp.int32),
        )
        return Moving(inputs.t1, parts, times, held), cursors

    def last_row(self, name: str, mark: jax.Array) -> jax.Array:
        """No step counts the values that are saved at an instant."""
        if self.integration.recorders[name].at_given_times:
            mark = jnp.where(self.inputs.t0 == self.inputs.t1, self.inputs.ts.size, mark).astype(mark.dtype)
        return mark - 1

    def trip(self, moving: Moving, cursors: Cursors, bars: Outputs, live: jax.Array) -> tuple[Moving, Cursors]:
        moving, cursors = self.loaded(moving, cursors, live)
        target = jnp.where(live, self.target(moving, cursors), moving.t)
        parts, dt, result = self.leg(moving.t, target, moving.parts, moving.segment, cursors)
        cursors = cursors._replace(dt=dt, result=result)
        moving = Moving(target, parts, moving.times, moving.segment)
        moving, cursors = self.at_stop(moving, cursors)
        records = {}
        for name in self.integration.recorders:
            moving, records[name] = self.at_row(moving, cursors, name, bars.records[name])
        return moving, cursors._replace(records=records)

    def loaded(self, moving: Moving, cursors: Cursors, live: jax.Array) -> tuple[Moving, Cursors]:
        """Fetch the segment before this one when its start is reached."""
        if moving.segment is None:
            return moving, cursors
        enters = live & (cursors.segment > 0) & (moving.t == cursors.start)
        number = jnp.maximum(cursors.segment - 1, 0)
        first = number * segments.SEGMENT
        end = jnp.minimum(first + segments.SEGMENT, self.constants.counts.steps)
        span = first, jnp.where(enters, end, 0)
        segment = segments.load(self.integration, self.inputs, self.settings, self.tape[2], moving.segment, span)
        new = cursors._replace(segment=number, steps=end - first, start=lax.stop_gradient(segment.t0[0]))
        cursors = jax.tree.map(lambda a, b: jnp.where(enters, a, b), new, cursors)
        return moving._replace(segment=segment), cursors

    def target(self, moving: Moving, cursors: Cursors) -> jax.Array:
        """The next time to land on, going back. Chosen: a maximum of equals would mix their derivatives."""
        best = self.inputs.t0

        def later(t, wanted):
            within = wanted & (self.direction * t > self.direction * best)
            return jnp.where(within & (self.direction * t <= self.direction * moving.t), t, best)

        for name, k in cursors.records.items():
            best = later(self.tape[1][name][jnp.maximum(k, 0)], k >= 0)
        if self.inputs.stops.size:
            best = later(self.inputs.stops[jnp.maximum(cursors.stop, 0)], cursors.stop >= 0)
        if moving.segment is not None:
            best = later(moving.segment.t0[0], (cursors.segment > 0) & (cursors.steps > 0))
        return best

    def at_stop(self, moving: Moving, cursors: Cursors) -> tuple[Moving, Cursors]:
        """Cross a stop T: dL/dT = λ·(f(T⁻) − f(T⁺)), all of it to the first of several that are equal."""
        stops = self.inputs.stops
        if stops.size == 0:
            return moving, cursors
        k = cursors.stop
        due = (k >= 0) & (stops[jnp.maximum(k, 0)] == moving.t)
        first = jnp.sum(self.direction * stops < self.direction * moving.t, dtype=jnp.int32)
        y = self.solution(moving.t, moving.parts, moving.segment, cursors.steps)
        before = self.restarted(moving.t, y, first - 1) if "y" in self.options.parts else y  # it is y after the stop
        if moving.times.stops is not None:
            after = self.restarted(moving.t, y, k)
            jump = self.velocity(moving.t, before, first - 1) - self.velocity(moving.t, after, k)
            change = _real_sum(self.inertia(moving.t, after, moving.parts.lam, k) * jump).astype(moving.t.dtype)
            bar = moving.times.stops.at[first].add(jnp.where(due, change, 0))
            moving = moving._replace(times=moving.times._replace(stops=bar))
        if "y" in self.options.parts:
            moving = moving._replace(parts=moving.parts._replace(y=jnp.where(due, before, y)))
        return moving, cursors._replace(stop=jnp.where(due, first - 1, k))

    def restarted(self, t: jax.Array, y: jax.Array, passed: Any) -> jax.Array:
        """y on one side of a stop, at which algebraic components may jump."""
        if self.equation.plain:
            return y
        t = self.one_sided(t, passed)
        return make_consistent(self.integration.field, t, y, self.inputs.args, self.settings.tolerance)[0]

    def at_row(self, moving: Moving, cursors: Cursors, name: str, bars: PyTree) -> tuple[Moving, jax.Array]:
        """Add the cotangents of a saved value at its time."""
        k, recorder = cursors.records[name], self.integration.recorders[name]
        at = self.tape[1][name][jnp.maximum(k, 0)]
        back = self.direction
        due = (k >= 0) & ((back * at >= back * moving.t) | (moving.t == self.inputs.t0))
        bar = jax.tree.map(lambda x: jnp.where(due, x, 0), read(bars, jnp.maximum(k, 0)))
        bar, bar_t = recorder.parted(bar)
        y = self.solution(moving.t, moving.parts, moving.segment, cursors.steps)

        def value(t, y, theta):
            return recorder.observe(t, y, self.args(theta))

        _, pull = jax.vjp(value, moving.t, y, self.theta())
        d_t, d_y, d_theta = pull(bar)
        lam, theta = self.taken(moving.t, y, d_y, jax.tree.map(jnp.add, moving.parts.theta, d_theta), cursors.stop)
        parts = moving.parts._replace(lam=moving.parts.lam + lam, theta=theta)
        times = moving.times
        if self.moves("ts") if recorder.at_given_times else self.active.time:
            f = self.velocity(moving.t, y, cursors.stop)
            change = d_t + bar_t + _real_sum(d_y * f).astype(d_t.dtype)
            times = self.timed(times, moving.t, jnp.maximum(k, 0), change, recorder.at_given_times)
        return moving._replace(parts=parts, times=times), k - due.astype(k.dtype)

    def timed(self, times: Times, t: jax.Array, k: jax.Array, change: jax.Array, is_time: bool) -> Times:
        """The time of a saved value belongs to `ts`; that of a step, to the last time that was landed on."""
        if is_time:
            return times._replace(ts=times.ts.at[k].add(change))
        stops, inputs, back = self.inputs.stops, self.inputs, self.direction
        passed = jnp.sum((back * stops <= back * t) & (back * stops < back * inputs.t1), dtype=jnp.int32)
        last = t == inputs.t1
        if times.t1 is not None:
            times = times._replace(t1=times.t1 + jnp.where(last, change, 0))
        if times.t0 is not None:
            times = times._replace(t0=times.t0 + jnp.where(last | (passed > 0), 0, change))
        if times.stops is not None:
            share = jnp.where(last | (passed == 0), 0, change)
            first = jnp.sum(back * stops < back * stops[jnp.maximum(passed - 1, 0)], dtype=jnp.int32)
            times = times._replace(stops=times.stops.at[first].add(share))
        return times

    def collect(self, moving: Moving, cursors: Cursors, scale: jax.Array) -> list[jax.Array]:
        """In the order of the active leaves; NaN if the backward solve failed."""
        inputs, times = self.inputs, moving.times
        lam = self.inertia(inputs.t0, inputs.y0, moving.parts.lam, -1)
        if times.t0 is not None:
            change = _real_sum(lam * self.velocity(inputs.t0, inputs.y0, -1))
            times = times._replace(t0=times.t0 - change.astype(inputs.t0.dtype))
        args = jax.tree.map(jnp.zeros_like, inputs.args)
        args = self_filled(args, self.where, moving.parts.theta)
        clocks: list[Any] = [x if x is not None else 0.0 for x in times]
        whole = Inputs(lam, args, *clocks)
        flat = jax.tree.leaves(whole)
        factor = jnp.where(cursors.result == Result.success, scale, jnp.nan)
        return [flat[i] * factor.astype(flat[i].dtype) for i in self.active.where]


def self_filled(tree: PyTree, where: tuple[int, ...], values: list) -> PyTree:
    leaves, structure = jax.tree.flatten(tree)
    for i, x in zip(where, values, strict=True):
        leaves[i] = x
    return structure.unflatten(leaves)


def _real_sum(x: jax.Array) -> jax.Array:
    return jnp.sum(x.real)


def _scale(bars: Outputs) -> jax.Array:
    """The largest cotangent, one if all are zero."""
    sizes = [jnp.max(jnp.abs(x), initial=0) for x in jax.tree.leaves(bars)]
    largest = functools.reduce(jnp.maximum, [x.astype(np.result_type(*(s.dtype for s in sizes))) for x in sizes])
    return lax.stop_gradient(jnp.where(largest == 0, 1, largest))


@dataclass(frozen=True)
class Packing:
    """Several arrays as one vector of their common dtype."""

    tree: Any
    shapes: tuple
    dtypes: tuple

    @staticmethod
    def of(parts: Parts) -> Packing:
        leaves, tree = jax.tree.flatten(parts)
        return Packing(tree, tuple(x.shape for x in leaves), tuple(x.dtype for x in leaves))

    def pack(self, parts: Parts) -> jax.Array:
        dtype = np.result_type(*self.dtypes)
        return jnp.concatenate([x.astype(dtype).reshape(-1) for x in jax.tree.leaves(parts)])

    def unpack(self, z: jax.Array) -> Parts:
        return self.tree.unflatten(
            [
                (x.real if not jnp.issubdtype(dtype, jnp.complexfloating) else x).astype(dtype)
                for x, dtype in zip(self.pieces(z), self.dtypes, strict=True)
            ]
        )

    def pieces(self, z: jax.Array) -> list[jax.Array]:
        ends = np.cumsum([0, *(int(np.prod(shape)) for shape in self.shapes)])
        return [z[a:b].reshape(s) for a, b, s in zip(ends, ends[1:], self.shapes, strict=False)]

    def spread(self, tolerance: jax.Array) -> jax.Array:
        """A tolerance of the state as one of the vector: the smallest for the parameters."""
        if tolerance.ndim == 0:
            return tolerance
        numbers = self.tree.unflatten(range(len(self.shapes)))
        own = {numbers.y, numbers.lam}
        return jnp.concatenate(
            [
                jnp.broadcast_to(tolerance if i in own else jnp.min(tolerance), shape).reshape(-1)
                for i, shape in enumerate(self.shapes)
            ]
        )

    def mass(self, mass: jax.Array) -> jax.Array:
        """That of the equations for y, λ and the parameters: M, Mᵀ and ones."""
        count = sum(map(math.prod, self.shapes))
        numbers = self.tree.unflatten(range(len(self.shapes)))
        own = [mass] * (numbers.y is not None) + [mass if mass.ndim == 1 else mass.T]
        rest = count - sum(len(m) for m in own)
        if mass.ndim == 1:
            return jnp.concatenate([*own, jnp.ones(rest, mass.dtype)])
        return jax.scipy.linalg.block_diag(*own, jnp.eye(rest, dtype=mass.dtype))

    def norm(self, norm: Any) -> Any:
        """The largest norm of a part: many parameters must not hide the error of the state."""

        def largest(z):
            sizes = [norm(x) for x in self.pieces(z) if x.size]
            return functools.reduce(jnp.maximum, sizes)

        return largest
