"""What may happen at an instant of a solve, as users write it: `solve(problem, events=[...])`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiffeq import errors, habits


def unchecked_tree(kind: type) -> type:
    """Register a dataclass like `jax.tree_util.register_dataclass`, but what JAX makes of it is not checked again.

    Its leaves may be anything then, numbers in place of functions, say.
    """
    fields = dataclasses.fields(kind)
    data = tuple(f.name for f in fields if not f.metadata.get("static"))
    fixed = tuple(f.name for f in fields if f.metadata.get("static"))

    def flatten(event):
        keys = ((jax.tree_util.GetAttrKey(name), getattr(event, name)) for name in data)
        return tuple(keys), tuple(getattr(event, name) for name in fixed)

    def unflatten(static, leaves):
        event = object.__new__(kind)
        for name, value in (*zip(data, leaves, strict=True), *zip(fixed, static, strict=True)):
            object.__setattr__(event, name, value)
        return event

    jax.tree_util.register_pytree_with_keys(kind, flatten, unflatten)
    return kind


class Trigger(NamedTuple):
    """When an event acts, or what it asks of steps; one of these, or none.

    `crosses` (t, y, args) ↦ numbers: where one becomes zero. `holds` (t, y, args) ↦ a truth value: after a step where
    it is true. `times`: a `Times`. `stays` (t, y, args) ↦ numbers: a step that makes one of them negative is refused.
    `caps` (t, y, args) ↦ how long the next step may be.
    """

    crosses: Callable | None = None
    holds: Callable | None = None
    times: Any = None
    stays: Callable | None = None
    caps: Callable | None = None


class Times(NamedTuple):
    """Of a timer: t₀ if it acts there, when first, and when for the `ticks` + 1st time. `way` is the sign of t₁ − t₀.

    (t0, y, args, way) ↦ a time; (t0, y, args, way) ↦ a time; (ticks, t, y, args, t0, way) ↦ a time. A time that
    does not lie ahead means never.
    """

    now: Callable
    first: Callable
    next: Callable


class EventDefaults:
    """What an event is unless it has more to say."""

    affect: Callable | None = None
    affect_args: Callable | None = None
    adds: Callable | None = None
    """(t, y) ↦ what is added to dy/dt from t on, until it acts again"""
    terminate: bool = False
    direction: Any = 0
    counts: bool = True
    """it is logged in `sol.events`, and counted against `max_events`"""
    name: str | None = None
    integrand: Callable | None = None
    """(t, y, args) ↦ what is integrated along the solution"""
    saved: Callable | None = None
    """(t, y, args) ↦ what is saved besides"""
    tells: Callable | None = None
    """called on the host with (t, y, args) after every accepted step"""
    regimen: Any = None
    """doses that have always been given"""
    forwards: bool = False
    """time must go so"""
    sizes: bool = False
    """it has a say in the sizes of steps"""
    corrects: bool = False
    """what it changes is no more than the error of a step"""
    follows: bool = False
    """it acts after whatever jumps too, and is asked for its time again; its affect is told whether by itself"""

    @property
    def jumps(self) -> bool:
        """The state, or f, is another one once it has acted."""
        changes = self.affect is not None or self.affect_args is not None or self.adds is not None
        return changes and not self.corrects

    @property
    def label(self) -> str:
        """Its class, and its name if it has one."""
        return type(self).__name__ + (f" {self.name!r}" if self.name else "")

    def on_whole(self, on: Callable) -> Any:
        """With its functions, of the state as it was given, made functions of numbers alone by `on`."""
        functions = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}  # pyright: ignore[reportArgumentType]
        return dataclasses.replace(self, **{name: on(f) for name, f in functions.items() if callable(f)})  # pyright: ignore[reportArgumentType]


def static(default: Any) -> Any:
    return field(default=default, metadata={"static": True})


@unchecked_tree
@dataclass(frozen=True)
class Event(EventDefaults):
    """Acts where `condition(t, y, args)` crosses zero: where it rises along the way (`direction` 1), falls (−1), both.

    `affect(t, y, args)` returns the new state, `affect_args(t, y, args)` the new parameters, which hold from there on;
    both see the state before. Without either, the event is logged. `terminate` ends the solve there. A condition that
    is an array is one condition for each of its numbers; then a fourth parameter of an affect says which of them have
    crossed, truth values of its shape. A parameter named `info` of any of the three is given the slope `dy`, the size
    `dt` of the step, its beginning `t_before`, `y_before`, and the `count` of events so far.

    The root is looked for at four points in every accepted step and landed on, to rounding. Of several, the first acts;
    at one time all do, in the order given, each on what those before it have made of the state. A solve that starts on
    a root does not act on it, nor does one that has just left it.
    Derivatives: event times move with everything that the condition depends on, by the implicit function theorem.
    Shapes: `condition` any; y and what `affect` returns are pytrees like y0. Units: those of t and y.
    Errors: `TypeError` for functions that take other arguments; a value of another shape is said by `solve`.
    """

    condition: Callable
    affect: Callable | None = None
    _: KW_ONLY
    affect_args: Callable | None = None
    terminate: bool = static(False)
    direction: int = static(0)
    name: str | None = static(None)

    def __post_init__(self) -> None:
        _takes_what_it_is_given(self)
        errors.one_of(self.direction, "direction", (-1, 0, 1))

    @property
    def trigger(self) -> Trigger:
        return Trigger(crosses=self.condition)


@unchecked_tree
@dataclass(frozen=True)
class DiscreteEvent(EventDefaults):
    """Acts at the end of every accepted step where `condition(t, y, args)` is true; the rest is as in `Event`.

    With counts=False it is neither logged nor counted against `max_events`.
    """

    condition: Callable
    affect: Callable | None = None
    _: KW_ONLY
    affect_args: Callable | None = None
    terminate: bool = static(False)
    counts: bool = static(True)
    name: str | None = static(None)

    def __post_init__(self) -> None:
        _takes_what_it_is_given(self)

    @property
    def trigger(self) -> Trigger:
        return Trigger(holds=self.condition)


def _first_at(times: jax.Array, t: jax.Array) -> jax.Array:
    """The first of these that is t; NaN without any."""
    if times.size == 0:
        return jnp.full_like(t, jnp.nan)
    return jnp.where(jnp.any(times == t), times[jnp.argmax(times == t)], jnp.nan)


@unchecked_tree
@dataclass(frozen=True)
class PresetTimes(EventDefaults):
    """Acts at each of `times`, which the solve lands on; at t₀ too, before the first step and without a log.

    Equal times act once. The rest is as in `Event`. Shapes: times [any], in the unit of t, in any order.
    """

    times: Any
    affect: Callable | None = None
    _: KW_ONLY
    affect_args: Callable | None = None
    terminate: bool = static(False)
    name: str | None = static(None)

    def __post_init__(self) -> None:
        _takes_what_it_is_given(self)

    @property
    def trigger(self) -> Trigger:
        times = jnp.ravel(jnp.asarray(self.times))

        def ahead(t, way):
            at = times.astype(t.dtype)
            way = jax.lax.stop_gradient(way)
            lies = way * at > way * jax.lax.stop_gradient(t)
            return way * jnp.min(jnp.where(lies, way * at, jnp.inf), initial=jnp.inf)

        return Trigger(
            times=Times(
                now=lambda t0, y, args, way: _first_at(times.astype(t0.dtype), t0),
                first=lambda t0, y, args, way: ahead(t0, way),
                next=lambda ticks, t, y, args, t0, way: ahead(t, way),
            )
        )


@unchecked_tree
@dataclass(frozen=True)
class Periodic(EventDefaults):
    """Acts at start, start + every, start + 2·every …, in the direction of the solve; `start` is t₀ + every by default.

    The rest is as in `PresetTimes`.
    """

    every: Any
    affect: Callable | None = None
    start: Any = None
    _: KW_ONLY
    affect_args: Callable | None = None
    terminate: bool = static(False)
    name: str | None = static(None)

    def __post_init__(self) -> None:
        _takes_what_it_is_given(self)
        errors.positive(self.every, "every")

    @property
    def trigger(self) -> Trigger:
        def first(t0, way):
            every = jnp.asarray(self.every, t0.dtype)
            if self.start is None:
                return t0 + way * every
            start = jnp.asarray(self.start, t0.dtype)
            behind = jax.lax.stop_gradient(way * (t0 - start) / every)
            passed = jnp.where(behind < 0, 0, jnp.floor(behind) + 1).astype(t0.dtype)
            return start + way * passed * every

        def after(ticks, t0, way):
            return first(t0, way) + way * ticks.astype(t0.dtype) * jnp.asarray(self.every, t0.dtype)

        def now(t0, y, args, way):
            never = jnp.full_like(t0, jnp.nan)
            return never if self.start is None else first(t0, way) - way * jnp.asarray(self.every, t0.dtype)

        return Trigger(
            times=Times(
                now=now,
                first=lambda t0, y, args, way: first(t0, way),
                next=lambda ticks, t, y, args, t0, way: after(ticks, t0, way),
            )
        )


@unchecked_tree
@dataclass(frozen=True)
class NextTime(EventDefaults):
    """Acts at times that the state chooses: `choose(t, y, args)` is the next one, asked at t₀ and after each.

    A time that is not ahead, NaN or infinity, means never again. The rest is as in `Event`.
    """

    choose: Callable
    affect: Callable | None = None
    _: KW_ONLY
    affect_args: Callable | None = None
    terminate: bool = static(False)
    name: str | None = static(None)

    def __post_init__(self) -> None:
        _takes_what_it_is_given(self)

    @property
    def trigger(self) -> Trigger:
        choose = lambda t, y, args: errors.call(self.choose, t, y, args)
        return Trigger(
            times=Times(
                now=lambda t0, y, args, way: jnp.full_like(t0, jnp.nan),
                first=lambda t0, y, args, way: choose(t0, y, args),
                next=lambda ticks, t, y, args, t0, way: choose(t, y, args),
            )
        )


# ---- what is said of wrong ones


def _is_event(given: Any) -> None:
    if isinstance(given, type) or not isinstance(given, EventDefaults):
        cure = " Write Event(condition)." if callable(given) else ""
        cure = errors.call_it(given) if isinstance(given, type) else cure
        kinds = ", ".join(__all__)
        raise TypeError(f"`events` must be events ({kinds}) or a list of them, but {given!r} is among them.{cure}")


def _takes_what_it_is_given(given: Any) -> None:
    """The functions of an event take what they are given."""
    for name in ("condition", "choose", "affect", "affect_args"):
        f = getattr(given, name, None)
        if f is None and name in ("affect", "affect_args"):
            continue
        if name in ("condition", "choose") and not hasattr(given, name):
            continue
        wanted = ["t", "y", "args"]
        if callable(f):
            names = habits.names_of(f) or []
            more = [n for n in names[3:] if n not in wanted]
            allowed = 1 if name in ("condition", "choose") else 2
            wanted += more[:allowed] if "info" in more or name.startswith("affect") else []
        errors.callable_with(f, name, tuple(wanted), silence="write `lambda *given: fn(*given)`")


def suited(events: Sequence[Any], t0: Any, t1: Any, equal: bool) -> None:
    """The span and the steps of a solve are what its events need."""
    for event in events:
        kind = type(event).__name__
        if event.forwards and errors.all_concrete((t0, t1)) and t1 < t0:
            raise ValueError(f"{kind} go forwards in time, but the span is from {t0} to {t1}.")
        if event.sizes and equal:
            raise ValueError(f"{kind} does not serve equal steps, whose size is given. Take another `controller`.")


def _called(function: str, given: Any) -> str:
    return f"`{function}` of {given.label}"


def condition(value: Any, given: Any, truth: bool) -> jax.Array:
    """What a condition returned: real numbers, or truth values."""
    name = _called("condition", given)
    wanted = "a truth value, or an array of such" if truth else "a real number, or an array of such"
    try:
        value = jnp.asarray(value)
    except TypeError:
        raise TypeError(f"{name} must return {wanted}, but returned {value!r}.") from None
    boolean = value.dtype == bool
    if truth and not boolean:
        raise TypeError(f"{name} must return {wanted}, but returned {value.dtype} of shape {value.shape}. Compare it.")
    if not truth and (boolean or jnp.iscomplexobj(value)):
        cure = "For truth values take DiscreteEvent." if boolean else "Take its real part, or its modulus."
        raise TypeError(f"{name} must return {wanted}, but returned {value.dtype} of shape {value.shape}. {cure}")
    return value


def affected(state: Any, like: Any, given: Any) -> Any:
    """What an affect returned: a state."""
    name = _called("affect", given)
    if state is None:
        raise TypeError(f"{name} must return the new state, but returned None. States are not changed in place.")
    new, old = jax.tree.structure(state), jax.tree.structure(like)
    state = jax.tree.map(jnp.asarray, state)
    shapes = [[np.shape(x) for x in jax.tree.leaves(tree)] for tree in (state, like)]
    if new != old or shapes[0] != shapes[1]:
        raise ValueError(
            f"{name} must return a state like y0, {old} with shapes {shapes[1]}, but returned {new} with shapes "
            f"{shapes[0]}."
        )
    return state


def affected_args(new: Any, old: Any, leaves: list, like: list, given: Any) -> None:
    """What an affect_args returned: parameters with the same structure, shapes and static parts."""
    name = _called("affect_args", given)
    if new.tree != old.tree:
        raise ValueError(f"{name} must return parameters like args, {old.tree}, but returned {new.tree}.")
    changed = [(a, b) for a, b in zip(new.static, old.static, strict=True) if a != b]
    if changed:
        raise ValueError(
            f"{name} changes {changed[0][1]!r} to {changed[0][0]!r}, which is no array, so it is fixed when the solve "
            f"is compiled. Make it an array in args: jnp.asarray({changed[0][1]!r})."
        )
    shapes = [[np.shape(x) for x in xs] for xs in (leaves, like)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"{name} must keep the shapes of args, {shapes[1]}, but returned {shapes[0]}.")


def listed(events: Any) -> tuple[Any, ...]:
    """Events as a tuple; one is a list of one."""
    given = tuple(events) if isinstance(events, list | tuple) else (events,)
    for event in given:
        _is_event(event)
    return given


__all__ = ["DiscreteEvent", "Event", "NextTime", "Periodic", "PresetTimes"]
