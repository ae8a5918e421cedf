"""Integration with a memory: each step adds its polynomial to the past, which f may ask for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdiffeq.algebra.norm import rms
from jaxdiffeq.engine import breaks
from jaxdiffeq.engine.integration import START, Carry, Integration, LoopControl
from jaxdiffeq.engine.log import Held
from jaxdiffeq.engine.recorders import RecorderDefaults
from jaxdiffeq.primitives.constant_matmul import constant_matmul
from jaxdiffeq.primitives.row_buffer import read, rows, write
from jaxdiffeq.primitives.varying_axes import vary_like
from jaxdiffeq.primitives.while_loop import frozen_while
from jaxdiffeq.problems.past import (
    PAST,
    Felt,
    Past,
    Piece,
    at_start,
    constant,
    felt_nothing,
    near_to,
    rows_of,
    windows_at,
)
from jaxdiffeq.types import (
    Inputs,
    PyTree,
    Result,
    Settings,
    Shapes,
    Sizing,
    State,
    Step,
    StepCotangents,
    StepView,
    Work,
)


@dataclass(frozen=True)
class Pieces(RecorderDefaults):
    """The polynomial of each of the last `size` steps. Shapes: moving, `Piece` of [size + 1, …]; fixed, their number.

    Step n is in row n mod size.
    """

    size: int
    level: Any = None
    """of the step at hand, where lags vary"""

    reads_interpolant = inner = True

    def init(self, inputs: Inputs, start: State, shapes: Shapes) -> tuple[Piece, jax.Array]:
        t = jax.ShapeDtypeStruct((), start.t.dtype)
        level = None if self.level is None else t
        return rows(Piece(t, t, shapes.coefficients, level), self.size), jnp.zeros((), jnp.int32)

    def record(self, moving: Piece, fixed: jax.Array, step: StepView, inputs: Inputs) -> tuple[Piece, jax.Array]:
        piece = Piece(step.before.t, step.after.t, step.coefficients, self.level)
        due = step.taken & (step.after.t > step.before.t)  # once a restart has read: else the ring would be copied
        return write(moving, step.number % self.size, piece, due), fixed + step.taken.astype(fixed.dtype)

    def vjp(
        self, bars: StepCotangents, cursor: jax.Array, step: StepView, active: Any, out: Piece
    ) -> tuple[StepCotangents, jax.Array]:
        """Add what later steps have felt of this one's polynomial."""
        piece = jax.tree.map(lambda x: jnp.where(step.taken, x, 0), read(out, step.number % self.size))
        after = jax.tree.map(jnp.zeros_like, bars.after)._replace(t=piece.end)
        leaves = [jnp.zeros_like(x) for x in bars.inputs]
        return bars.add(piece.start, after, piece.coefficients, leaves), cursor


NO_WORK = Work(*[np.int32(0)] * len(Work._fields))
KAPPA, TRIPS = 1e-3, 20
"""of the tolerance, to which a step that asks for itself is solved; and in how many rounds at most"""
FAR = 2
"""times as long a step as the last one begins from no more than the last slope"""
AHEAD = 0.1
"""of a step: lags are taken to reach into it from there on, for they may vary within it"""


class Dense(NamedTuple):
    """What a step's interpolant is made of, where it begins, and the interpolant itself, if it was asked for."""

    t: jax.Array
    y: jax.Array
    of_step: PyTree
    coefficients: jax.Array | None = None
    level: Any = None
    """see `Piece`; of where it ends"""


class _Call(NamedTuple):
    """All that a step depends on."""

    inputs: Inputs
    settings: Settings
    start: State
    made: Sizing
    number: Any


class _Round(NamedTuple):
    """Of the iteration for the step's own piece: its coefficients, how much they changed, how it goes on."""

    own: jax.Array
    size: jax.Array
    rate: jax.Array
    tries: jax.Array
    going: jax.Array
    ok: jax.Array
    work: Work
    """of all rounds so far"""
    meets: Any = None
    """where the step ends early, if it does"""


@dataclass(frozen=True)
class Remembering(Integration):
    """An integration whose f asks for the past, `args` with which it finds there.

    The pieces live once, beside the loop's state: with the recorder of that name, or whole, with `recalling`.
    """

    put: Callable[[PyTree, Past | None], PyTree] = field(kw_only=True)
    """args and a past ↦ args with that past"""
    got: Callable[[PyTree], Past | None] = field(kw_only=True)
    """the past in args"""
    lags: Callable[[PyTree], jax.Array] = field(kw_only=True)
    """args ↦ the constant lags, [lags]"""
    varying: Callable[[jax.Array, jax.Array, PyTree], jax.Array] | None = field(default=None, kw_only=True)
    """(t, y, args) ↦ those that vary, [lags]"""
    asks_itself: bool = field(default=False, kw_only=True)
    """some lag may be shorter than a step"""
    windows: int = field(kw_only=True)
    """how many of them the gradient has"""
    neutral: bool = field(default=False, kw_only=True)
    """f asks for slopes too"""
    carries: bool = field(default=False, kw_only=True)
    """breaking points come up while the solve runs that constant lags carry on"""
    whole: bool = field(default=False, kw_only=True)
    """no piece may be let go: a gradient needs all of them"""

    remembers: ClassVar[bool] = True

    @property
    def tracks(self) -> bool:
        """Whether each piece says how smooth the solution is at its end."""
        return self.carries or self.varying is not None

    # ---- what f finds

    def shape(self, inputs: Inputs) -> Piece:
        """Of the ring, that a recorder or args have."""
        recorder, past = self.recorders.get(PAST), self.got(inputs.args)
        if past is not None:
            return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), past.ring)
        assert recorder is not None
        time = jax.ShapeDtypeStruct((recorder.size + 1,), inputs.t0.dtype)
        room = self.room(inputs)
        level = time if self.tracks else None
        return Piece(time, time, jax.ShapeDtypeStruct((recorder.size + 1, *room.shape), room.dtype), level)

    def recalling(self, inputs: Inputs, ring: Piece, felt: Felt | None = None) -> Inputs:
        """Inputs with these pieces, of which each step sees those before it."""
        past = at_start(ring, self.windows, inputs.t0, inputs.y0)._replace(felt=felt)
        return inputs._replace(args=self.put(inputs.args, past))

    def recollecting(self, inputs: Inputs, records: Mapping[str, Any]) -> Inputs:
        return self.recalling(inputs, records[PAST]) if PAST in records else inputs

    def recalled(self, inputs: Inputs, records: Mapping[str, Any], start: State) -> Inputs:
        """Of rows that later steps have written over, there is NaN."""
        ring = records[PAST]
        later = ring.start >= start.t
        return self.recalling(inputs, jax.tree.map(lambda x: jnp.where(_like(later, x), jnp.nan, x), ring))

    def at_ends(self, inputs: Inputs, start: State, step: Step, number: Any) -> tuple[Inputs, Inputs]:
        own = constant(start.t, start.y, self.stepper.degree)
        if step.dense.coefficients is not None:
            own = Piece(start.t, step.after.t, step.dense.coefficients)
        right = jnp.full_like(start.t, jnp.inf)
        return self._seen(inputs, number, own, right), self._seen(inputs, number, own, -right)

    def _past(self, inputs: Inputs) -> Past:
        past = self.got(inputs.args)
        assert past is not None, "a step is taken without a past"
        return past

    def _seen(self, inputs: Inputs, number: Any, own: Piece, middle: jax.Array) -> Inputs:
        known, t0 = jnp.asarray(number, jnp.int32), lax.stop_gradient(inputs.t0)
        past = self._past(inputs)._replace(known=known, own=own, middle=lax.stop_gradient(middle), t0=t0)
        return inputs._replace(args=self.put(inputs.args, past))

    def _before_any(self, inputs: Inputs) -> Inputs:
        """At the start, where f may be asked for a little beyond, as if y stayed there."""
        if self.got(inputs.args) is None:
            ring = jax.tree.map(lambda x: vary_like(lax.empty(x.shape, x.dtype), inputs.y0), self.shape(inputs))
            inputs = self.recalling(inputs, ring)
        own = constant(inputs.t0, inputs.y0, self.stepper.degree)
        return self._seen(inputs, START, own, jnp.full_like(inputs.t0, jnp.inf))

    def _during(self, inputs: Inputs, start: State, t1: jax.Array, number: Any) -> Inputs:
        """In a step whose own piece nobody asks for."""
        own = constant(start.t, jnp.full_like(start.y, jnp.nan), self.stepper.degree)
        inputs = self._seen(inputs, number, lax.stop_gradient(own), (start.t + t1) / 2)
        return inputs if self.carries else self._hinted(inputs, start)

    def _hinted(self, inputs: Inputs, start: State) -> Inputs:
        """With hints where f will probably look."""
        past = self._past(inputs)
        near = near_to(past, self._reached(inputs, start)) if past.felt is None else past.felt.near
        return inputs._replace(args=self.put(inputs.args, past._replace(near=near)))

    def _aimed(self, inputs: Inputs, start: State, number: Any, dt: jax.Array) -> Inputs:
        """With where a step of that size has to end at the latest, if that comes up while the solve runs."""
        past = self._past(inputs)
        if not self.carries or past.cut is not None:
            return inputs
        inputs = self._hinted(self._seen(inputs, number, past.own, past.middle), start)
        cut = breaks.carried(self, inputs, self._past(inputs), start.t, dt)
        return inputs._replace(args=self.put(inputs.args, self._past(inputs)._replace(cut=cut)))

    def _reached(self, inputs: Inputs, start: State) -> jax.Array:
        """The times that the lags lead to from there, or the time itself, constants. Shapes: [windows]."""
        lags = self.lags(inputs.args)
        if self.varying is not None:
            lags = jnp.append(lags, self.varying(start.t, start.y, inputs.args))
        return lax.stop_gradient(start.t - (lags if lags.size else jnp.zeros(1, start.t.dtype)))

    # ---- for a gradient

    @property
    def keeping_all(self) -> Remembering:
        return replace(self, whole=True)

    def felt_nothing(self, ring: Piece) -> Felt:
        return felt_nothing(ring, self.windows)

    def felt_at(self, inputs: Inputs, start: State, n: jax.Array, turn: jax.Array) -> Felt:
        """The windows by which step n is taken back at its n-th turn."""
        past = self._past(inputs)._replace(known=n)
        near = near_to(past, self._reached(inputs, start))
        return windows_at(self.felt_nothing(past.ring), near, n, turn, rows_of(past.ring))

    # ---- one step

    def limited(self, target: jax.Array, start: State, dt: jax.Array, inputs: Inputs) -> jax.Array:
        """No longer than the shortest lag; several steps to the target are then alike."""
        lags = self.lags(inputs.args)
        if lags.size == 0:
            return dt
        left, least = lax.stop_gradient((jnp.abs(target - start.t), jnp.min(lags)))
        count = jnp.ceil(left / least * (1 - 4 * jnp.finfo(dt.dtype).eps))
        return jnp.where(1.01 * dt < least, dt, jnp.minimum(dt, left / jnp.maximum(count, 1)))

    def advance(self, inputs: Inputs, settings: Settings, start: State, made: Sizing, number: Any) -> Step:
        if self.got(inputs.args) is None:  # a step by itself, as to find what is wrong there
            inputs = self._before_any(inputs)
        inputs = self._aimed(inputs, start, number, made.dt)
        target, _ = self.ahead(inputs, start, number, made.watch)
        t1, _ = self.end(inputs, target, start, made.dt)
        call = _Call(self._during(inputs, start, t1, number), settings, start, made, number)
        if self.asks_itself:
            step = self._of_itself(call, t1)
        else:
            step = super().advance(*call)
            cut = self._past(inputs).cut
            level = None if cut is None else breaks.level_of(self, inputs, step.after.t, cut)
            step = step._replace(dense=Dense(start.t, start.y, step.dense, self._if_neutral(call, step), level))
        if not self.whole:
            return step
        went_on = Result.running if step.result is None else step.result
        full = number >= rows_of(self._past(inputs).ring)
        return step._replace(result=jnp.where(full, Result.history_too_short, went_on))

    def _if_neutral(self, call: _Call, step: Step) -> jax.Array | None:
        """The interpolant, of which a restart may ask for the slope."""
        if not self.neutral:
            return None
        _, f = self.ahead(call.inputs, call.start, call.number)
        return self.stepper.polynomial(f, step.dense, call.inputs.args)

    # ---- a step that asks for itself

    def _of_itself(self, call: _Call, t1: jax.Array) -> Step:
        """The step whose f finds the step's own interpolant, by iteration, with the derivative of the fixed point."""
        fixed, end = lax.stop_gradient((call, t1))
        guess = self._extrapolated(fixed, end)
        reaches, zero = self._reaches(fixed, end, guess), jnp.zeros((), end.dtype)
        never, none = jnp.full((), jnp.inf, end.dtype), jnp.zeros((), jnp.int32)
        meets, going = None, reaches
        if self.varying is not None:
            meets = breaks.nothing_met(end)
            going = reaches | breaks.may_meet(self.varying, self._past(fixed.inputs), fixed, end, guess)
        begin = _Round(guess, zero, never, none, going, ~going, NO_WORK, meets)

        def one(_, at):
            step, new = self._with_own(at.own, fixed, at.meets)
            after = self._judged(at, step, new, fixed, reaches)._replace(work=self._worked(at.work, step))
            if self.varying is not None:
                after = breaks.met(self, fixed, at, after, step, new)
            return (), jax.tree.map(lambda a, b: jnp.where(at.going, a, b), after, at)

        _, found = frozen_while(lambda _, at: at.going, one, (), begin)
        own, end = attached(self._onwards, found.own, breaks.end_of(self, call, found.meets), (call, found.meets))
        call, meets = breaks.ended(call, found.meets, end)
        step, coefficients = self._with_own(own, call, meets)
        cut = breaks.sooner(meets, self._past(call.inputs).cut)
        level = None if cut is None else breaks.level_of(self, call.inputs, step.after.t, cut)
        dense = Dense(call.start.t, call.start.y, step.dense, coefficients, level)
        work = jax.tree.map(jnp.add, found.work, step.work or NO_WORK)
        return step._replace(dense=dense, ok=step.ok & found.ok, work=work)

    @property
    def work(self) -> Any:
        return NO_WORK if self.asks_itself else super().work

    def _worked(self, work: Work, step: Step) -> Work:
        """With that of a round."""
        _, once, polynomial = self.stepper.evaluations
        parts = work, self.stepper.costs, step.work or NO_WORK
        total = Work(*(jnp.asarray(sum(numbers), jnp.int32) for numbers in zip(*parts, strict=True)))
        return total._replace(f_evals=total.f_evals + once + polynomial)

    def _onwards(self, own: jax.Array, end: Any, given: tuple) -> tuple[jax.Array, jax.Array]:
        """The interpolant of the step that finds this one and ends there, and what is left of what is zero there."""
        call, meets = breaks.ended(given[0], given[1], end)
        step, new = self._with_own(own, call, meets)
        return new, jnp.zeros(()) if end is None else breaks.missed(self, call, meets, end, step, new)

    def _with_own(self, own: jax.Array, call: _Call, meets: Any) -> tuple[Step, jax.Array]:
        """The step whose f finds this of itself, and its interpolant."""
        inputs, _, start, made, number = call
        past = self._past(inputs)
        past = past._replace(cut=breaks.sooner(meets, past.cut))
        inputs = inputs._replace(args=self.put(inputs.args, past))
        target, f = self.ahead(inputs, start, number, made.watch)
        t1, _ = self.end(inputs, target, start, made.dt)
        past = past._replace(own=Piece(start.t, t1, own), middle=lax.stop_gradient((start.t + t1) / 2))
        inputs = inputs._replace(args=self.put(inputs.args, past))
        step = super().advance(inputs, *call[1:])
        return step, self.stepper.polynomial(f, step.dense, inputs.args)

    def ahead(self, inputs: Inputs, at: State, number: Any, watch: Any = ()) -> tuple[jax.Array, Any]:
        target, f = super().ahead(inputs, at, number, watch)
        past = self.got(inputs.args)
        if past is None or past.cut is None:
            return target, f
        return jnp.where(past.cut.at < target - breaks.rounding(inputs), past.cut.at, target), f

    def _as_root(
        self, t1: jax.Array, inputs: Inputs, settings: Settings, start: State, made: Sizing, number: Any
    ) -> jax.Array:
        """A step that asks for itself knows the derivative of its root already: see `breaks.at_root`."""
        return t1 if self.asks_itself else super()._as_root(t1, inputs, settings, start, made, number)

    def restarts(self, inputs: Inputs) -> bool:
        return super().restarts(inputs) or self.varying is not None

    def _extrapolated(self, call: _Call, t1: jax.Array) -> jax.Array:
        """The last piece as a polynomial in the θ of this step; y at the start."""
        y, ring, n = call.start.y, self._past(call.inputs).ring, call.number
        last = read(ring, jnp.maximum(n - 1, 0) % rows_of(ring))
        longer = jnp.where(n > 0, (t1 - call.start.t) / (last.end - last.start), 0)
        moved = shifted(jnp.where(n > 0, last.coefficients, 0), longer)
        far = (longer > FAR) & (jnp.arange(len(moved)) > 1).reshape(-1, *[1] * y.ndim)
        return jnp.concatenate([y[None], jnp.where(far, 0, moved)[1:]])

    def _reaches(self, call: _Call, t1: jax.Array, guess: jax.Array) -> jax.Array:
        """Whether f will ask for the step itself."""
        if self.varying is None:
            return jnp.array(True)
        (t, y, *_), args = call.start, call.inputs.args
        asked = [t - self.varying(t, y, args), t1 - self.varying(t1, jnp.sum(guess, axis=0), args)]
        latest = jnp.max(jnp.stack(asked))
        return ~(latest < t - AHEAD * (t1 - t))  # true where it is NaN

    def _judged(self, at: _Round, step: Step, new: jax.Array, call: _Call, reaches: jax.Array) -> _Round:
        scale = call.settings.tolerance.scale(call.start.y, step.after.y)
        size = rms(jnp.sum(jnp.abs(new - at.own), axis=0) / scale).astype(at.size.dtype)
        theta = size / jnp.where(at.size > 0, at.size, 1)
        seen = at.tries > 0
        rate = jnp.where(seen, jnp.where(theta < 1, theta / jnp.where(theta < 1, 1 - theta, 1), jnp.inf), at.rate)
        enough = jnp.maximum(KAPPA, 10 * jnp.finfo(scale.dtype).eps / jnp.max(call.settings.tolerance.rtol))
        done = (rate * size <= enough) | (size <= enough) | ~reaches
        lost = ~jnp.isfinite(size) | (at.tries >= TRIPS - 1) | (seen & (theta >= 2))
        going, ok = ~(done | lost), done & jnp.isfinite(size)
        return _Round(new, size, rate, at.tries + 1, going, ok, at.work, at.meets)

    # ---- after a step

    def restarted(self, inputs: Inputs, settings: Settings, step: Step, view: StepView) -> tuple[State, Any]:
        """The step just made is not in the ring yet; of it, f can ask for where it begins."""
        if step.restart is None:
            return super().restarted(inputs, settings, step, view)
        dense = step.dense
        own = constant(dense.t, dense.y, self.stepper.degree)
        if dense.coefficients is not None:
            own = Piece(dense.t, step.after.t, dense.coefficients)
        beyond = self._seen(inputs, view.number, own, jnp.full_like(inputs.t0, jnp.inf))
        return super().restarted(beyond, settings, step, view)

    def polynomial(self, inputs: Inputs, step: StepView, dense: Dense, wanted: jax.Array) -> jax.Array:
        if dense.coefficients is not None:
            return dense.coefficients
        if self.stepper.evaluations[2]:
            inputs = self._during(inputs, step.before, step.after.t, step.number)
        return super().polynomial(inputs, step, dense.of_step, wanted)

    # ---- the loop

    def recorded(self, inputs: Inputs, held: Held, step: StepView, dense: Dense) -> tuple[Held, jax.Array]:
        if PAST not in self.recorders or dense.level is None:
            return super().recorded(inputs, held, step, dense)
        level = dense.level
        if self.events is not None:
            level = jnp.where(self.events.jumps(step.made.fired), 1, level)
        recorders = {**self.recorders, PAST: replace(self.recorders[PAST], level=level)}
        return Integration.recorded(self.with_recorders(**recorders), inputs, held, step, dense._replace(level=None))

    def begin(self, inputs: Inputs) -> State:
        return super().begin(self._before_any(inputs))

    def start(self, inputs: Inputs, settings: Settings) -> Carry:
        return super().start(self._before_any(inputs), settings)

    def trip(self, inputs: Inputs, settings: Settings, carry: Carry, live: jax.Array) -> tuple[Any, LoopControl]:
        inputs = self.recollecting(inputs, carry.records)
        inputs = self._aimed(inputs, carry.state, carry.control.counts.steps, carry.control.dt)
        moving, control = super().trip(inputs, settings, carry, live)
        if self.varying is not None:  # a step cut short says nothing about the size that the solution allows
            moved = moving[0].t - carry.state.t
            short = (moved > 0) & (moved < breaks.SHORT * carry.control.dt)
            control = control._replace(dt=jnp.where(short, jnp.minimum(control.dt, carry.control.dt), control.dt))
        forgot = control.counts.steps > rows_of(self._past(inputs).ring)
        lost = (control.result == Result.nonfinite) & forgot  # what is no longer in the ring is NaN
        return moving, control._replace(result=jnp.where(lost, Result.history_too_short, control.result))


def _like(flags: jax.Array, x: jax.Array) -> jax.Array:
    """Flags of rows, that can be put beside those of x."""
    return flags.reshape(-1, *[1] * (x.ndim - 1))


def shifted(coefficients: jax.Array, longer: jax.Array) -> jax.Array:
    """Of p(1 + longer·θ), from those of p(θ). Shapes: [degree + 1, *state]."""
    degree = coefficients.shape[0] - 1
    taylor = np.array([[math.comb(p, q) for p in range(degree + 1)] for q in range(degree + 1)], float)
    powers = jnp.stack([longer**p for p in range(degree + 1)]).astype(coefficients.dtype)
    return constant_matmul(taylor, coefficients) * powers.reshape(-1, *[1] * (coefficients.ndim - 1))


def attached(onwards: Callable, own: jax.Array, end: Any, given: Any) -> tuple[jax.Array, Any]:
    """own and the time `end.at`, with their derivatives along `given`, where own = P and r = 0 for P, r = onwards(own,
    end, given):

    d own = v + u·d at,  v = (1 − ∂P/∂own)⁻¹ d P,  u = (1 − ∂P/∂own)⁻¹ ∂P/∂at,  d at = −(d r + ∂r/∂own·v)/(∂r/∂at +
    ∂r/∂own·u), with d P and d r along `given` alone.

    P contracts, so that the inverse is a geometric series. It is linearized once: what is not linear, as the search for
    a piece of the past, is there once.
    """

    @jax.custom_jvp
    def point(given, own, end):
        return own, () if end is None else end.at

    def rule(primals, tangents):
        given, own, end = primals
        at = jnp.zeros(()) if end is None else end.at
        of = lambda own, at, given: onwards(own, end if end is None else end._replace(at=at), given)
        _, moved = jax.linearize(of, own, at, given)
        nothing = jnp.zeros_like(own), jnp.zeros_like(at), jax.tree.map(_no_move, given)
        by_own = lambda v: moved(v, *nothing[1:])
        solve = lambda d: lax.custom_linear_solve(lambda v: v - by_own(v)[0], d, series, series)
        d, left = moved(*nothing[:2], tangents[0])
        v = solve(d)
        if end is None:
            return point(*primals), (v, ())
        along, rate = moved(nothing[0], jnp.ones_like(at), nothing[2])
        u = solve(along)
        left, rate = left + by_own(v)[1], rate + by_own(u)[1]
        there = jnp.isfinite(at) & (rate != 0)
        d_at = jnp.where(there, -left / jnp.where(there, rate, 1), 0)
        return point(*primals), (v + u * d_at.astype(u.dtype), d_at)

    point.defjvp(rule)
    own, at = point(given, *lax.stop_gradient((own, end)))
    return own, end if end is None else end._replace(at=at)


def _no_move(x: Any) -> Any:
    real = jnp.issubdtype(jnp.result_type(x), jnp.inexact)
    return jnp.zeros_like(x) if real else np.zeros(jnp.shape(x), jax.dtypes.float0)


def series(less: Callable[[jax.Array], jax.Array], d: jax.Array) -> jax.Array:
    """Σ Aᵏ·d, to rounding, where `less` is 1 − A."""
    least = jnp.finfo(d.dtype).eps

    def goes_on(moving, count):
        total, term = moving
        return (count < 10 * TRIPS) & (jnp.max(jnp.abs(term)) > least * jnp.max(jnp.abs(total)))

    def add(moving, count):
        total, term = moving
        term, live = term - less(term), goes_on(moving, count)
        new = total + term, term
        return jax.tree.map(lambda a, b: jnp.where(live, a, b), new, moving), count + live.astype(count.dtype)

    return frozen_while(goes_on, add, (d, d), jnp.zeros((), jnp.int32))[0][0]
