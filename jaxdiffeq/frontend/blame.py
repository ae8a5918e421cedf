"""What of a problem is to blame for a solve that failed: which of its functions, where and when, by name."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiffeq import errors
from jaxdiffeq.algebra.detect import detect
from jaxdiffeq.algebra.structure import Sparse
from jaxdiffeq.algebra.vectors import real_vector
from jaxdiffeq.frontend.plan import Arrays, Plan, build
from jaxdiffeq.implicit.consistent import onto
from jaxdiffeq.implicit.system import make_consistent
from jaxdiffeq.methods.choice import LARGE
from jaxdiffeq.solution import Solution
from jaxdiffeq.steppers.explicit import ExplicitRK
from jaxdiffeq.types import PyTree, Result, Sizing

FEW = 512  # unknowns up to which each is looked at by itself
ROUNDS = 30  # of the power iteration
HELD_UP = 0.5  # dt·|λ| of an explicit method, above which stability and not the error sizes its steps
AT_LIMIT = 2.0  # the same, of one that has not given up yet
PATIENCE = 1000  # attempts after which a large system that nobody chose a method for is looked at, if far from its end
NO_DERIVATIVE = (
    "A power, a root, a norm or the other side of a `where` has no derivative there: write it without, such as x*x for "
    "x**2.0, start off that point, or give `jac`."
)


# ---- what is not finite


class Slopes(NamedTuple):
    """f, ∂f/∂y times a vector without zeros, and ∂f/∂t at one place. Shapes: [n]."""

    f: jax.Array
    along: jax.Array
    by_time: jax.Array


@functools.partial(jax.jit, static_argnums=0)
def _slopes(plan: Plan, arrays: Arrays, t: Any, y: jax.Array) -> Slopes:
    parts = build(plan, arrays, 1)
    field, args = parts.integration.field, parts.inputs.args
    f, along = jax.jvp(lambda y: field(t, y, args), (y,), (jnp.ones_like(y),))
    _, by_time = jax.jvp(lambda t: field(t, y, args), (t,), (jnp.ones_like(t),))
    if field.jacobian is not None:
        along = field.jacobian(t, y, args) @ jnp.ones(y.size, y.dtype)
    return Slopes(*(x.reshape(-1) for x in (f, along, by_time)))


@functools.partial(jax.jit, static_argnums=0)
def _rows_without(plan: Plan, arrays: Arrays, t: Any, y: jax.Array, row: Any) -> jax.Array:
    """Whether that row of ∂f/∂y is finite where all but one entry of y have moved a little. Shapes: [n], of that one.

    A tangent of zero tells nothing of a derivative that is NaN: zero times NaN is NaN.
    """
    parts = build(plan, arrays, 1)
    field, args, n = parts.integration.field, parts.inputs.args, y.size
    if field.jacobian is not None:
        return jnp.isfinite(field.jacobian(t, y, args)[row])
    little = jnp.sqrt(jnp.finfo(y.dtype).eps) * (1 + jnp.abs(y)).reshape(-1)

    def finite(i):
        moved = y + jnp.where(jnp.arange(n) == i, 0, little).reshape(y.shape).astype(y.dtype)
        _, along = jax.jvp(lambda y: field(t, y, args), (moved,), (jnp.ones_like(y),))
        return jnp.isfinite(along.reshape(-1)[row])

    return jax.lax.map(finite, jnp.arange(n))


@functools.partial(jax.jit, static_argnums=0)
def _diffusion(plan: Plan, arrays: Arrays, t: Any, y: jax.Array) -> jax.Array:
    """One number of each row of the diffusion, the worst. Shapes: [n]."""
    parts = build(plan, arrays, 1)
    field = parts.integration.field
    b = field.diffusion(t, y, parts.inputs.args)
    return jnp.sum(b.reshape(y.size, -1), axis=1)


def diffusion_not_finite(plan: Plan, arrays: Arrays, solution: Any) -> tuple[str, str]:
    """Where the diffusion is not finite at the last state, and what to do; empty if it is, or there is none."""
    if plan.noise is None:
        return "", ""
    t, y = np.asarray(solution.t_end), plan.ravel.pack(solution.y_end)
    b = _diffusion(plan, arrays, t, y)
    row = _first(b)
    if row is None:
        return "", ""
    name, state = plan.ravel.name(row), np.asarray(y).reshape(-1)[row]
    return (
        f"the diffusion is {_kind(np.asarray(b)[row])} at t = {float(t):.9g}, in row {name} = {state:.6g}",
        "A step may carry y out of the domain of a root or a logarithm, however right the model is: write "
        "jnp.sqrt(jnp.maximum(y, 0)), take shorter steps, or solve for another variable, such as log y.",
    )


def not_finite(plan: Plan, arrays: Arrays, solution: Any, dt: Any) -> tuple[str, str]:
    """Which of f and its derivatives is not finite, where and when, and what to do; empty if all of them are."""
    t = np.asarray(solution.t_end)
    y, pack = plan.ravel.pack(solution.y_end), functools.partial(_slopes, plan, arrays)
    here, implicit = pack(t, y), int(solution.stats.jac_evals) > 0
    after = (t + np.sign(arrays.t1 - t) * dt).astype(t.dtype)
    for text, advice in _seen(plan, arrays, (t, y), here, implicit):
        return text, advice
    moved = y + ((after - t).astype(y.dtype) * here.f).reshape(y.shape)
    for place in ((after, y), (after, moved)):
        for text, advice in _seen(plan, arrays, place, pack(*place), implicit):
            return text, advice
    return "", ""


def _seen(plan: Plan, arrays: Arrays, place: tuple, at: Slopes, implicit: bool) -> Iterator[tuple[str, str]]:
    (t, y), name = place, plan.ravel.name
    when = f"at t = {float(t):.9g}"
    row = _first(at.f)
    if row is not None:
        value, state = np.asarray(at.f)[row], np.asarray(y).reshape(-1)[row]
        yield (
            f"f is {_kind(value)} {when}, in row {name(row)}, the derivative of {name(row)} = {state:.6g}",
            "Call f there, at `solution.y_end`; look for a division by zero, a root or a logarithm of a negative "
            "number, or a solution that goes to infinity in finite time.",
        )
    row = _first(at.along) if implicit else None
    if row is not None:
        columns = _columns(plan, arrays, place, row)
        kind = _kind(np.asarray(at.along)[row])
        yield f"f is finite, but its Jacobian ∂f/∂y is {kind} {when}, in row {name(row)}{columns}", NO_DERIVATIVE
    row = _first(at.by_time) if implicit else None
    if row is not None:
        kind = _kind(np.asarray(at.by_time)[row])
        yield f"f is finite, but its derivative ∂f/∂t is {kind} {when}, in row {name(row)}", NO_DERIVATIVE


def _columns(plan: Plan, arrays: Arrays, place: tuple, row: int) -> str:
    t, y = place
    if y.size > FEW:
        return ""
    lost = np.flatnonzero(~np.asarray(_rows_without(plan, arrays, t, y, row)))
    if lost.size in (0, y.size) and y.size > 1:
        return ""
    values = np.asarray(y).reshape(-1)
    named = ", ".join(f"{plan.ravel.name(i)} = {values[i]:.6g}" for i in lost[:3].tolist())
    return f", column{'s' * (lost.size > 1)} {named}{', ...' * (lost.size > 3)}"


def _first(x: jax.Array) -> int | None:
    bad = np.flatnonzero(~np.isfinite(np.asarray(x)))
    return int(bad[0]) if bad.size else None


def _kind(x: Any) -> str:
    return "NaN" if np.isnan(x) else "infinite"


# ---- initial values


class _Left(NamedTuple):
    defect: jax.Array
    matrix: jax.Array
    """of Newton's method, by the values that are free and by dy/dt"""
    free: jax.Array


@functools.partial(jax.jit, static_argnums=0)
def _left(plan: Plan, arrays: Arrays) -> _Left:
    """What is left of the equations where the search for consistent values ended, and its matrix at the start."""
    parts = build(plan, arrays, 1)
    field, (y, args, t) = parts.integration.field, parts.inputs[:3]
    _, found = make_consistent(field, t, y, args, parts.settings.tolerance)
    system, v = field.on_vectors(y), real_vector(y)
    dv = system.guess(v, args)
    q = system.null_projector(t, v, dv, args)
    matrix = jax.jacfwd(lambda z: system.defect(t, v + onto(q, z), dv + z - onto(q, z), args))(jnp.zeros_like(v))
    return _Left(system.defect(t, found.v, found.slope, args), matrix, found.free)


def inconsistent(plan: Plan, arrays: Arrays) -> str:
    """Which equation and which component keep initial values from being consistent; empty where that is not seen."""
    n = plan.ravel.size
    if n > FEW:
        return ""
    left, name = jax.tree.map(np.asarray, _left(plan, arrays)), lambda i: plan.ravel.name(int(i) % n)
    if not np.all(np.isfinite(left.matrix)):
        return ""
    rows, sizes, columns = np.linalg.svd(left.matrix.astype(float))
    if sizes[-1] <= 100 * n * np.finfo(left.matrix.dtype).eps * sizes[0]:
        row, column = np.argmax(np.abs(rows[:, -1])), np.argmax(np.abs(columns[-1]) * (left.free > 0.5))
        return f"at y0 they do not determine {name(column)}; row {name(row)} cannot be solved for it"
    row = int(np.argmax(np.nan_to_num(np.abs(left.defect), nan=np.inf)))
    column = int(np.argmax(np.abs(left.matrix[row]) * (left.free > 0.5)))
    amount = f"{float(left.defect[row]):.3g}"
    return f"row {name(row)} is left at {amount}, whatever {name(column)} is"


# ---- steps held up by stability


@functools.partial(jax.jit, static_argnums=0)
def _radius(plan: Plan, arrays: Arrays, t: Any, y: PyTree) -> jax.Array:
    """About the largest |λ| of ∂f/∂y, by power iteration."""
    parts = build(plan, arrays, 1)
    field, args, y = parts.integration.field, parts.inputs.args, plan.ravel.pack(y)
    unit = lambda x: x / jnp.maximum(jnp.linalg.norm(x.reshape(-1)), jnp.finfo(x.dtype).tiny).astype(x.dtype)

    def again(_, x):
        return jax.jvp(lambda y: field(t, y, args), (y,), (unit(x),))[1]

    start = jnp.cos(jnp.arange(y.size)).reshape(y.shape).astype(y.dtype)
    return jnp.linalg.norm(jax.lax.fori_loop(0, ROUNDS, again, start).reshape(-1))


def _held(plan: Plan, arrays: Arrays, solution: Any) -> float:
    """dt·|λ| of the next step."""
    return float(solution.next_step) * float(_radius(plan, arrays, solution.t_end, solution.y_end))


def with_patience(plan: Plan, arrays: Arrays, attempts: Any = PATIENCE) -> Arrays:
    """Ends early where `held_up` might say so, which can be asked outside of `jit` alone; else as it was."""
    size, stepper = plan.ravel.size, plan.stepper
    explicit = isinstance(stepper, ExplicitRK) and not stepper.equal and plan.structure is None
    if not explicit or not isinstance(size, int) or size <= LARGE or not errors.all_concrete(arrays):
        return arrays
    patience = np.asarray(attempts, arrays.settings.max_steps.dtype)
    return arrays._replace(settings=arrays.settings._replace(patience=patience))


def held_up(plan: Plan, arrays: Arrays, solution: Any) -> bool:
    """Whether an explicit method gave up on a large stiff system whose Jacobian was not known to be sparse, and is."""
    ended = solution.result, solution.t_end, solution.y_end, solution.next_step
    if (
        plan.noise is not None
        or plan.stepper.takes_mass
        or plan.structure is not None
        or not errors.all_concrete(ended)
    ):
        return False
    if np.ndim(solution.result) or solution.result != Result.max_steps_reached or int(solution.stats.jac_evals) > 0:
        return False
    least = AT_LIMIT if impatient(arrays, solution) else HELD_UP
    return _held(plan, arrays, solution) > least and bool(_structure(plan, arrays, solution))


def impatient(arrays: Arrays, solution: Any) -> bool:
    """Whether a solve ended early, or may have, which shows outside of `jit` alone."""
    if arrays.settings.patience is None:
        return False
    if not errors.concrete(solution.result):
        return True
    tried = solution.stats.steps < arrays.settings.max_steps
    return bool(solution.result == Result.max_steps_reached and tried)


def too_many_steps(plan: Plan, arrays: Arrays, solution: Any) -> str:
    """What to do about steps that are too small or too many, which depends on what was done."""
    if int(solution.stats.jac_evals) > 0:
        return (
            f"{plan.stepper.name} is implicit here, so that stability is no reason: give looser tolerances or a larger "
            "max_steps; name times where f jumps in `stops`, and look for fast oscillations."
        )
    held = _held(plan, arrays, solution)
    if not held > HELD_UP:
        return (
            f"The steps have the size that accuracy takes (dt·|λ| = {held:.2g}): give looser tolerances, a larger "
            "max_steps, or a method of higher order, such as Vern9()."
        )
    stiff = f"The problem is stiff: its steps are held up by stability (dt·|λ| = {held:.2g})."
    if plan.stepper.takes_mass or plan.stepper.takes_residual:
        return f"{stiff} Give a method with wider stability, such as BDF(), or a larger max_steps."
    if plan.noise is not None:
        return f"{stiff} Give an implicit method, ImplicitEM(), or SKenCarp() for additive noise."
    chosen = solution.account is not None and not solution.account.method_given
    why = f" `solve` took {plan.stepper.name}, as {plan.ravel.size} unknowns had no `jac_structure`." if chosen else ""
    structure = _structure(plan, arrays, solution)
    cure = "`solve(problem, Rodas5P())` or `solve(problem, BDF())`, which are implicit"
    if structure:
        cure = f"`solve(problem.replace(jac_structure={structure}), Rodas5P())`, as ∂f/∂y is sparse"
    return f"{stiff}{why} Write {cure}; or give a larger max_steps."


def _structure(plan: Plan, arrays: Arrays, solution: Any) -> str:
    """How to write where ∂f/∂y may differ from zero, in a large system; empty where that is nearly everywhere."""
    if plan.structure is not None or plan.ravel.size < 32:
        return ""
    parts = build(plan, arrays, 1)
    field, y = parts.integration.field, plan.ravel.pack(solution.y_end)
    found = detect(lambda y, rest: field(rest[0], y, rest[1]), y, (jnp.asarray(solution.t_end), parts.inputs.args))
    if not isinstance(found, Sparse):
        return ""
    below = np.asarray(found.rows) - np.asarray(found.columns)
    lower, upper = int(below.max(initial=0)), int(-below.min(initial=0))
    return f"Banded({lower}, {upper})" if 4 * (lower + upper + 1) <= y.size else "Detected()"


RESOLVED_GAP, CLEAR_GAP = 64, 1e5
"""units of rounding of t: events less apart than the first are at one instant; of the second, two have a clear ratio"""


def out_of_domain(plan: Plan, arrays: Arrays, solution: Solution, dt: Any) -> str:
    """The event whose domain the next step leaves, or which lets it have no size; empty if there is none."""
    events = plan.parts.join(arrays.parts)[2]
    if not events:
        return ""
    y, t = plan.ravel.pack(solution.y_end), jnp.asarray(solution.t_end)
    lowest, caps = map(np.asarray, _limits(plan, arrays, t, y, dt))
    sets = [event.trigger for event in events]
    names = [event.label for event in events]
    kept = [name for name, of in zip(names, sets, strict=True) if of.stays is not None]
    for name, low in zip(kept, lowest, strict=True):
        if not low >= 0:
            return f"{name}: the next step, however short, leaves the domain, by {-float(low):.3g}"
    sized = [name for name, of in zip(names, sets, strict=True) if of.caps is not None]
    for name, cap in zip(sized, caps, strict=True):
        if not t + cap > t:
            return f"{name}: the next step may not be longer than {float(cap):.3g}"
    return ""


@functools.partial(jax.jit, static_argnums=0)
def _limits(plan: Plan, arrays: Arrays, t: Any, y: jax.Array, dt: Any) -> tuple[list, list]:
    """The least number that each domain is judged by after one more step, and of the caps before it."""
    parts = build(plan, arrays, 1)
    integration, inputs = parts.integration, parts.inputs._replace(t0=t, y0=y)
    start = integration.begin(inputs)
    after = integration.advance(inputs, parts.settings, start, Sizing(dt), 0).after
    _, args, events = plan.parts.join(arrays.parts)
    unpack = plan.ravel.unpack
    least = lambda f, t, y: jnp.min(jnp.asarray(f(t, unpack(y), args)))
    stays = [e.trigger.stays for e in events if e.trigger.stays is not None]
    caps = [e.trigger.caps for e in events if e.trigger.caps is not None]
    return [least(f, after.t, after.y) for f in stays], [least(f, t, y) for f in caps]


def event_not_finite(plan: Plan, arrays: Arrays, solution: Solution) -> str:
    """The event whose affect has made the state NaN or infinite; empty if none has."""
    if solution.events is None or int(solution.events.count) == 0:
        return ""
    last = int(solution.events.count) - 1
    after = [np.asarray(x)[last] for x in jax.tree.leaves(solution.events.after)]
    if all(np.all(np.isfinite(x)) for x in after):
        return ""
    event = plan.parts.join(arrays.parts)[2][int(solution.events.which[last])]
    return f"the affect of {event.label} returned NaN or infinity"


def too_many_events(solution: Solution) -> tuple[str, str]:
    """Whether events came faster and faster, towards an instant, or again and again at one; and what to do."""
    log = solution.events
    assert log is not None
    count = int(log.count)
    ts, which = np.asarray(log.ts)[:count], sorted({int(i) for i in np.asarray(log.which)[:count]})
    unit = np.finfo(ts.dtype).eps * np.abs(ts).max(initial=0)
    gaps = np.abs(np.diff(ts))
    resolved = gaps[: int(np.sum(np.cumsum(gaps < CLEAR_GAP * unit) == 0))]
    ratios = resolved[1:] / resolved[:-1]
    they = f"events {which} of the list" if len(which) > 1 else f"event {which[0]} of the list"
    if len(ratios) >= 4 and np.ptp(ratios[-4:]) < 0.02 * ratios[-1] and ratios[-1] < 1 - 1e-6:
        r, at = float(ratios[-1]), ts[len(resolved)]
        end = at + (ts[1] - ts[0]) / gaps[0] * resolved[-1] * r / (1 - r)
        why = (
            f"{they} came faster and faster, each interval {r:.6g} of the one before: infinitely many of them "
            f"accumulate at t = {end:.9g} (Zeno's paradox)"
        )
        return why, "End the solve before (an Event with terminate=True), or let what rests there rest."
    if count > 2 and np.all(gaps[-2:] <= RESOLVED_GAP * unit):
        why = (
            f"{they} acted again and again within rounding of t = {ts[-1]:.9g}: the solution chatters, since on both "
            "sides of the surface f points back to it, along which it should be sliding"
        )
        return why, (
            "Let the affects switch to an f that stays on the surface (Filippov's), give the switch some hysteresis, "
            "or terminate there."
        )
    return f"{count} events happened, and then another one: `max_events` are exceeded", "Raise `max_events`."
