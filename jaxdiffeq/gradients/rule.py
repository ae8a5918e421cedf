"""A solve with a derivative rule attached: what every strategy shares."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from jaxdiffeq.primitives.cpu_kernel import is_small
from jaxdiffeq.primitives.fused_region import fused_region
from jaxdiffeq.primitives.jax_internals import as_now, on_plain_path, zero_tangent
from jaxdiffeq.primitives.linear_call import REVERSE_OVER_REVERSE, in_all_lanes, linear_call
from jaxdiffeq.primitives.varying_axes import vary_like
from jaxdiffeq.types import Inputs, PyTree, Result, Settings


class Outputs(NamedTuple):
    """What a gradient may come from: the time and the state at the end, and what the recorders kept."""

    t: jax.Array
    y: jax.Array
    records: dict[str, Any]
    changed: Any = ()
    """parameters that events have changed, as they are at the end: those that are real numbers"""


@dataclass(frozen=True)
class Active:
    """Which leaves of the inputs are being differentiated."""

    inputs: Inputs
    where: tuple[int, ...]

    @property
    def given(self) -> Inputs:
        """The inputs as `where` numbers their leaves."""
        return self.inputs

    def leaves(self) -> list[jax.Array]:
        flat = jax.tree.leaves(self.inputs)
        return [flat[i] for i in self.where]

    def fill(self, values: Sequence[Any]) -> Inputs:
        """The inputs with these values in the active places."""
        flat, tree = jax.tree.flatten(self.inputs)
        for i, value in zip(self.where, values, strict=True):
            flat[i] = value
        return tree.unflatten(flat)

    def within(self, inputs: Inputs, changed: Sequence[int]) -> Active:
        """With inputs whose leaves numbered `changed` are others, which are differentiated too, after the rest."""
        flat = jax.tree.leaves(inputs)
        kept = (i for i in self.where if i not in changed)
        return Active(inputs, (*kept, *(i for i in changed if is_real(flat[i]))))

    def changed_by(self, events: Any) -> list[int]:
        """The numbers of the leaves that events change."""
        flat, tree = jax.tree.flatten(self.given)
        return events.changing(tree.unflatten(range(len(flat))).args)

    def names(self) -> set[str]:
        """The fields of `Inputs` that have an active leaf."""
        numbered = jax.tree.unflatten(jax.tree.structure(self.inputs), range(len(jax.tree.leaves(self.inputs))))
        found = {name: set(jax.tree.leaves(part)) for name, part in zip(Inputs._fields, numbered, strict=True)}
        return {name for name, places in found.items() if places & set(self.where)}

    @property
    def time(self) -> bool:
        """Whether the clock moves with the inputs."""
        return bool(self.names() & {"t0", "t1", "stops"})


def differentiable(strategy: Any, integration: Any, inputs: Inputs, settings: Settings) -> tuple[Outputs, PyTree]:
    """Run the integration. Gradients flow through the first result by `strategy`; the second is constant.

    A strategy has two methods. `run(integration, inputs, settings)` returns outputs, constants and residuals;
    `pull(integration, active, settings, constants, residuals, cotangents)` the cotangents of the active inputs.
    Forward mode is the same for all of them: the derivative of the loop itself.
    """
    if integration.differentiates_itself:
        with on_plain_path():
            outputs, constants = parts_of(integration.run(inputs, settings))
        return outputs, lax.stop_gradient(constants)
    flat, tree = jax.tree.flatten(inputs)
    real = tuple(i for i, x in enumerate(flat) if jnp.issubdtype(x.dtype, jnp.inexact))
    of = _Solve(strategy, integration, tree, real)

    @jax.custom_jvp
    def solve(some, rest, settings):
        return in_all_lanes(of.run(some, rest, settings), (some, rest, settings))

    @as_now
    def rule(primals, tangents):
        live = tuple(k for k, d in enumerate(tangents[0]) if not isinstance(d, SymbolicZero))
        if not live:
            out = of.run(*primals)
            return out, jax.tree.map(zero_tangent, out)
        outputs, constants, kept = forward_only(of.recorded, *primals)
        there, back = (as_now(functools.partial(f, live)) for f in (of.tangent, of.cotangent))
        moves = [tangents[0][k] for k in live]
        d_outputs = linear_call(there, back, (*primals, constants, kept), moves, like=outputs)
        return (outputs, constants), (d_outputs, jax.tree.map(zero_tangent, constants))

    solve.defjvp(rule, symbolic_zeros=True)
    rest = [jnp.zeros(()) if i in real else x for i, x in enumerate(flat)]
    return solve([flat[i] for i in real], rest, lax.stop_gradient(settings))


@dataclass(frozen=True)
class _Solve:
    """A solve as a function of `some` leaves of its inputs, which are real numbers, of the `rest` and of settings.

    Of the former those numbered `live` are differentiated. Residuals are all three, constants, and what the strategy
    keeps.
    """

    strategy: Any
    integration: Any
    tree: Any
    real: tuple[int, ...]

    def inputs(self, some: list, rest: list) -> Inputs:
        full = list(rest)
        for i, x in zip(self.real, some, strict=True):
            full[i] = x
        return self.tree.unflatten(full)

    def active(self, live: tuple, some: list, rest: list) -> Active:
        return Active(self.inputs(some, rest), tuple(self.real[k] for k in live))

    def run(self, some: list, rest: list, settings: Settings) -> tuple[Outputs, Constants]:
        return plain(self.integration, self.inputs(some, rest), settings)

    def recorded(self, some: list, rest: list, settings: Settings) -> tuple[Outputs, Constants, PyTree]:
        return self.strategy.run(self.integration, self.inputs(some, rest), settings)

    def tangent(self, live: tuple, res: tuple, moves: list) -> Outputs:
        some, rest, settings, *_ = res
        d_some = [jnp.zeros_like(x) for x in some]
        for k, d in zip(live, moves, strict=True):
            d_some[k] = d
        (_, constants), (moved, _) = jax.jvp(lambda some: self.run(some, rest, settings), (some,), (d_some,))
        active = self.active(live, some, rest)
        moved = push_instant(self.integration, active, moves, moved)
        return with_rows(moved, lost_rows(self.integration, moved, constants, active.inputs), jnp.nan)

    def cotangent(self, live: tuple, res: tuple, bars: Outputs) -> list:
        some, rest, _, constants, _ = res
        lost = lost_rows(self.integration, bars, constants, self.inputs(some, rest))
        pulled = lambda *of: (self.pulled(live, *of), ())
        if is_small(jax.tree.leaves(bars)):  # then a kernel can look through them too
            return fused_region(lambda res, bars: pulled(res, bars, lost, felt(bars, lost)), res, bars)[0]
        return fused_region(pulled, res, bars, lost, felt(bars, lost))[0]

    def pulled(self, live: tuple, res: tuple, bars: Outputs, lost: dict, felt: tuple) -> list:
        some, rest, settings, constants, kept = res
        active, bars = self.active(live, some, rest), with_rows(bars, lost, 0)
        found = self.strategy.pull(self.integration, active, settings, constants, kept, bars)
        anything, what_is_lost = felt
        return [jnp.where(what_is_lost, jnp.nan, jnp.where(anything, x, 0)) for x in found]


class Constants(NamedTuple):
    """What no gradient comes from: where the solve ended and how, and the recorders' marks."""

    t: jax.Array
    dt: jax.Array
    counts: Any
    result: jax.Array
    marks: dict[str, Any]
    changed: Any = ()
    """parameters that events have changed: those that are not"""


def plain(integration: Any, inputs: Inputs, settings: Settings) -> tuple[Outputs, Constants]:
    """Run with nothing attached."""
    outputs, constants = recorded(integration, inputs, settings)
    inner = [name for name, recorder in integration.recorders.items() if recorder.inner]
    return outputs._replace(records={k: v for k, v in outputs.records.items() if k not in inner}), constants


def recorded(integration: Any, inputs: Inputs, settings: Settings) -> tuple[Outputs, Constants]:
    """The same, with what only serves the steps."""
    return fused_region(lambda inputs, settings: parts_of(integration.run(inputs, settings)), inputs, settings)


def parts_of(carry: Any) -> tuple[Outputs, Constants]:
    """What the last carry of a run holds, for users and for gradients."""
    control = carry.control
    real, rest = parted(carry.state.events.changed if carry.state.events else ())
    constants = Constants(carry.state.t, control.dt, control.counts, control.result, control.marks, rest)
    return Outputs(carry.state.t, carry.state.y, carry.records, real), constants


def is_real(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jnp.inexact)


def parted(tree: PyTree) -> tuple[list, list]:
    """The leaves that are real numbers, and the others."""
    leaves = jax.tree.leaves(tree)
    return [x for x in leaves if is_real(x)], [x for x in leaves if not is_real(x)]


def joined(like: PyTree, real: Sequence[Any], rest: Sequence[Any]) -> PyTree:
    """A tree from its `parted` leaves."""
    real_left, rest_left = iter(real), iter(rest)
    return jax.tree.map(lambda x: next(real_left if is_real(x) else rest_left), like)


# ---- a span of no length: no step is taken, through which the times could be felt


def _drift(integration: Any, active: Active, leaves: list, like: Outputs) -> Outputs:
    """y(t) − y₀ = (t − t₀)·f at the end and where it is saved, if t₀ = t₁: all zero, with first derivatives."""
    fixed, inputs = active.inputs, active.fill(leaves)
    still = fixed.t0 == fixed.t1
    slope = jnp.where(still, integration.field(fixed.t0, fixed.y0, fixed.args), 0)

    def at(t):
        return fixed.y0 + (t - inputs.t0).astype(slope.dtype) * slope

    def rows(recorder, record):
        zeros = jax.tree.map(jnp.zeros_like, record)
        if not recorder.at_given_times:
            return zeros
        times = jnp.where(still, recorder.times(record, inputs), fixed.t0)
        values = jax.vmap(lambda t: recorder.observe(t, at(t), fixed.args))(times)
        first = recorder.observe(inputs.t0, fixed.y0, fixed.args)  # which is what the loop has saved
        change = jax.tree.map(lambda x, x0: jnp.where(still, x - x0[None], 0), values, first)
        return jax.tree.map(lambda x, zero: zero.at[:-1].set(x), change, zeros)

    records = {name: rows(integration.recorders[name], record) for name, record in like.records.items()}
    still_changed = jax.tree.map(jnp.zeros_like, like.changed)
    return Outputs(jnp.where(still, inputs.t1 - inputs.t0, 0), at(inputs.t1) - fixed.y0, records, still_changed)


def _parts(integration: Any, active: Active) -> bool:
    """Whether times move apart, and f says what that does; with a mass matrix, perhaps a singular one, it does not."""
    moves = active.names() & {"t0", "t1", "ts"}
    return bool(moves) and integration.skips_an_instant and not integration.field.algebraic


def push_instant(integration: Any, active: Active, directions: list, moved: Outputs) -> Outputs:
    """The tangents `moved`, and what they gain as the times of an instant part."""
    if not _parts(integration, active):
        return moved
    drift = lambda leaves: _drift(integration, active, leaves, moved)
    return jax.tree.map(jnp.add, moved, jax.jvp(drift, (active.leaves(),), (directions,))[1])


def pull_instant(integration: Any, active: Active, bars: Outputs, found: list) -> list:
    """The cotangents `found`, and what they gain likewise."""
    if not _parts(integration, active):
        return found
    (more,) = jax.vjp(lambda leaves: _drift(integration, active, leaves, bars), active.leaves())[1](bars)
    return [a + b for a, b in zip(found, more, strict=True)]


def forward_only(fun: Callable, some: list, *rest: Any) -> Any:
    """`fun(some, *rest)`, with a derivative in `some` that has no transpose, and an error that says what to do."""

    @jax.custom_jvp
    def guarded(some, rest):
        return in_all_lanes(fun(some, *rest), (some, rest))

    def rule(primals, tangents):
        some, rest = primals
        out = in_all_lanes(fun(some, *rest), primals)
        flat, tree = jax.tree.flatten(out)
        real = [i for i, x in enumerate(flat) if jnp.issubdtype(x.dtype, jnp.inexact)]
        live = [k for k, d in enumerate(tangents[0]) if not isinstance(d, SymbolicZero)]
        d_flat = [zero_tangent(x) for x in flat]
        if not live:
            return out, tree.unflatten(d_flat)

        def derivative(res, lin):
            some, rest = res
            d_some = [jnp.zeros_like(x) for x in some]
            for k, d in zip(live, lin, strict=True):
                d_some[k] = d
            moved = jax.jvp(lambda xs: fun(xs, *rest), (some,), (d_some,))
            out, d_out = map(jax.tree.leaves, moved)
            return [vary_like(d_out[i], out[i]) for i in real]

        found = linear_call(derivative, REVERSE_OVER_REVERSE, primals, [tangents[0][k] for k in live])
        for i, d in zip(real, found, strict=True):
            d_flat[i] = d
        return out, tree.unflatten(d_flat)

    guarded.defjvp(rule, symbolic_zeros=True)
    return guarded(some, rest)


def lost_rows(integration: Any, outputs: Outputs, constants: Constants, inputs: Inputs) -> dict[str, jax.Array]:
    """Of every record, the rows that a solve that failed did not come to; shaped like `outputs`, theirs or tangents."""
    failed = (constants.result != Result.success) & (constants.result != Result.terminated)

    def of(name, recorder):
        count = jax.tree.leaves(outputs.records[name])[0].shape[0] if jax.tree.leaves(outputs.records[name]) else 0
        return failed & ~recorder.reached(constants.marks[name], count, inputs)

    return {name: of(name, integration.recorders[name]) for name in outputs.records}


def with_rows(outputs: Outputs, lost: dict[str, jax.Array], value: Any) -> Outputs:
    """`outputs`, with `value` in the rows that are lost."""

    def in_rows(x, flags):
        return jnp.where(flags.reshape(*flags.shape, *[1] * (x.ndim - flags.ndim)), value, x)

    records = {
        name: jax.tree.map(lambda x, n=name: in_rows(x, lost[n]), rows) for name, rows in outputs.records.items()
    }
    return outputs._replace(records=records)


def felt(bars: Outputs, lost: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
    """Whether any cotangent is not zero, and whether one of a lost row is: zero in, zero out."""
    anything = [jnp.any(x != 0) for x in jax.tree.leaves(bars)]
    marked = with_rows(jax.tree.map(lambda x: jnp.where(x != 0, 1, 0), bars), {k: ~v for k, v in lost.items()}, 0)
    of_lost = [jnp.any(x != 0) for x in jax.tree.leaves(marked.records)]
    of_lost += [jnp.any(jnp.isnan(x)) for x in (bars.t, bars.y)]  # of the end that was not reached, see `poisoned`
    either = lambda flags: functools.reduce(jnp.logical_or, flags, jnp.array(False))
    return either(anything), either(of_lost)


@jax.custom_jvp
def poisoned(y: jax.Array, good: jax.Array, instead: Any = jnp.nan) -> jax.Array:
    """`y`, or a number instead where the solve failed; there the derivative is NaN, which a plain `where` makes zero.

    A cotangent that is exactly zero stays zero: nobody asked.
    """
    return jnp.where(good, y, instead)


@poisoned.defjvp
def _poisoned_jvp(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    (_, good, _), d = primals, tangents[0]
    there = lambda good, d: jnp.where(good, d, jnp.nan)
    back = lambda good, bar: jnp.where(good | (bar == 0), bar, jnp.nan)
    out = poisoned(*primals)
    return out, linear_call(there, back, good, d, like=out)
