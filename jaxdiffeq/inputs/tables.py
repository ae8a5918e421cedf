"""Functions of time that are given by a table."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxdiffeq import errors
from jaxdiffeq.inputs import checks
from jaxdiffeq.inputs.base import Input, Prepared
from jaxdiffeq.inputs.splines import KINDS, hermite, slopes_of, weight
from jaxdiffeq.primitives.row_buffer import read
from jaxdiffeq.primitives.search import count_until
from jaxdiffeq.problems.ravel import common_dtype, inexact
from jaxdiffeq.types import PyTree

OUTSIDE = ("hold", "extend", "nan")
LANDED_ON = 256  # times at which only a slope jumps, in one input: more are left to the error control


def _array(x: Any) -> jax.Array:
    """A list of numbers, tracers among them, is an array; integers become floats."""
    return inexact(jnp.stack([jnp.asarray(v) for v in x]) if isinstance(x, list | tuple) and len(x) else x, float)


def _columns(values: PyTree) -> PyTree:
    return jax.tree.map(_array, values, is_leaf=lambda x: isinstance(x, list | tuple))


def _length(values: PyTree) -> int:
    return jax.tree.leaves(values)[0].shape[0]


def _wide(t: jax.Array, x: jax.Array) -> jax.Array:
    """t in a dtype that holds x as well."""
    return t.astype(common_dtype((t.dtype, x.dtype)))


def _piece(ts: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The number of the piece that t lies in, what share of it has passed, and how long it is."""
    t = _wide(t, ts)
    i = jnp.clip(count_until(ts, t) - 1, 0, ts.shape[0] - 2)
    start, end = read(ts, i).astype(t.dtype), read(ts, i + 1).astype(t.dtype)
    return i, (t - start) / (end - start), end - start


def _held(share: jax.Array, outside: str) -> jax.Array:
    """Of the outermost pieces, the share up to their ends, if the values there are held."""
    return jnp.where(share < 0, 0, jnp.where(share > 1, 1, share)) if outside == "hold" else share


def _outside(value: jax.Array, share: jax.Array, outside: str) -> jax.Array:
    return jnp.where((share >= 0) & (share <= 1), value, jnp.nan) if outside == "nan" else value


def _line(values: PyTree, i: jax.Array, share: jax.Array, outside: str) -> PyTree:
    """From row i of every leaf to row i + 1."""
    held = _held(share, outside)

    def of(rows):
        left, right = read(rows, i), read(rows, i + 1)
        return _outside(left + weight(held, left) * (right - left), share, outside)

    return jax.tree.map(of, values)


class PiecewiseConstant(Input):
    """u(t) = values[i] for ts[i] ≤ t < ts[i + 1], and values[-1] from ts[-1] on.

    A solve lands on every time, since u jumps there, and sees the side on which each step lies; `land=False` leaves the
    jumps to the error control, which sees no derivative in `ts`. Before ts[0] it is values[0], or NaN with
    `outside="nan"`.
    Shapes: ts [n], values [n, *shape], or a pytree of such; u(t) is [*shape].
    Errors: `ValueError` for times that do not increase, and for another number of values.
    """

    ts: jax.Array
    values: PyTree
    outside: str = eqx.field(static=True)
    land: bool = eqx.field(static=True)

    def __init__(self, ts: Any, values: PyTree, *, outside: str = "hold", land: bool = True):
        self.ts, self.values, self.outside, self.land = _array(ts), _columns(values), outside, land
        checks.table(self.ts, self.values, type(self).__name__, 1)
        errors.one_of(outside, "outside", ("hold", "nan"))

    def at(self, t: jax.Array) -> PyTree:
        passed = count_until(self.ts, _wide(t, self.ts))
        found = read(self.values, jnp.maximum(passed - 1, 0))
        if self.outside == "hold":
            return found
        return jax.tree.map(lambda x: jnp.where(passed > 0, x, jnp.nan), found)

    def prepared(self, t0: Any, t1: Any) -> Prepared:
        return Prepared(self, jumps=self.ts if self.land else None)

    def moved(self, jumps: Any) -> PiecewiseConstant:
        return eqx.tree_at(lambda u: u.ts, self, jumps)


class PiecewiseLinear(Input):
    """u(t) = values[i] + (t − ts[i]) / (ts[i + 1] − ts[i]) · (values[i + 1] − values[i]) for ts[i] ≤ t ≤ ts[i + 1].

    A solve lands on the times, where the slope of u jumps, if there are 256 or fewer; `land` says otherwise. `outside`
    of the table u is held at the nearest value, or with "extend" the outermost pieces go on, or with "nan" it is NaN.
    Shapes: ts [n], values [n, *shape], or a pytree of such, n ≥ 2; u(t) is [*shape].
    Errors: `ValueError` for times that do not increase, and for another number of values.
    """

    ts: jax.Array
    values: PyTree
    outside: str = eqx.field(static=True)
    land: bool | None = eqx.field(static=True)

    def __init__(self, ts: Any, values: PyTree, *, outside: str = "hold", land: bool | None = None):
        self.ts, self.values, self.outside, self.land = _array(ts), _columns(values), outside, land
        checks.table(self.ts, self.values, type(self).__name__, 2)
        errors.one_of(outside, "outside", OUTSIDE)

    def at(self, t: jax.Array) -> PyTree:
        i, share, _ = _piece(self.ts, t)
        return _line(self.values, i, share, self.outside)

    def prepared(self, t0: Any, t1: Any) -> Prepared:
        lands = self.ts.shape[0] <= LANDED_ON if self.land is None else self.land
        return Prepared(self, kinks=self.ts if lands else None)


class CubicSpline(Input):
    """A cubic between every two times, through all values, with a slope that does not jump.

    `kind="natural"`: u″ does not jump either, and is zero at both ends; "not-a-knot": the first two pieces are one
    cubic, and so are the last two, which serves smooth data best; "hermite": slopes are those of the parabola through
    a value and its neighbours, or `slopes` if they are given; "akima": slopes that keep a jump from ringing on.
    A solve finds the slopes once, in O(n); called elsewhere than in `args` of a solve, u finds them in every call,
    unless it is `u.with_slopes()`. It lands on the times if there are 256 or fewer; `land` says otherwise. `outside` is
    as in `PiecewiseLinear`.
    Shapes: ts [n], values [n, *shape], or a pytree of such, n ≥ 2; slopes like values; u(t) is [*shape].
    Errors: `ValueError` for times that do not increase, and for another number of values.
    Source: de Boor, A Practical Guide to Splines, IV; Akima, J. ACM 17 (1970), doi:10.1145/321607.321609.
    """

    ts: jax.Array
    values: PyTree
    slopes: PyTree
    kind: str = eqx.field(static=True)
    outside: str = eqx.field(static=True)
    land: bool | None = eqx.field(static=True)

    def __init__(
        self,
        ts: Any,
        values: PyTree,
        kind: str = "natural",
        *,
        slopes: PyTree = None,
        outside: str = "hold",
        land: bool | None = None,
    ):
        self.ts, self.values, self.kind, self.outside, self.land = _array(ts), _columns(values), kind, outside, land
        checks.table(self.ts, self.values, type(self).__name__, 2)
        errors.one_of(kind, "kind", tuple(KINDS))
        errors.one_of(outside, "outside", OUTSIDE)
        self.slopes = None if slopes is None else _columns(slopes)
        checks.slopes(self.slopes, self.values, kind)

    def with_slopes(self) -> CubicSpline:
        """The same function with its slopes at hand, as leaves of their own."""
        if self.slopes is not None:
            return self
        slopes = slopes_of(self.kind, self.ts, self.values)
        return eqx.tree_at(lambda u: u.slopes, self, slopes, is_leaf=lambda x: x is None)

    def at(self, t: jax.Array) -> PyTree:
        ready = self.with_slopes()
        i, share, length = _piece(ready.ts, t)
        held = _held(share, self.outside)

        def of(values, slopes):
            (v0, m0), (v1, m1) = ((read(values, k), read(slopes, k)) for k in (i, i + 1))
            value = hermite(v0, m0, v1, m1, weight(held, v0), weight(length, v0))
            return _outside(value, share, self.outside)

        return jax.tree.map(of, ready.values, ready.slopes)

    def prepared(self, t0: Any, t1: Any) -> Prepared:
        lands = self.ts.shape[0] <= LANDED_ON if self.land is None else self.land
        return Prepared(self.with_slopes(), kinks=self.ts if lands else None)


class Sampled(Input):
    """A table on equal steps: values[i] is u(t0 + i·dt), found in a time that does not depend on how many there are.

    `kind` is what lies between: "linear"; "constant", values[i] up to the next time; "cubic", with the slopes of the
    parabola through a value and its neighbours. A solve does not land on the times unless asked to by `land`. `outside`
    is as in `PiecewiseLinear`, with "constant" as in `PiecewiseConstant`.
    Shapes: t0 and dt [], values [n, *shape], or a pytree of such, n ≥ 2; u(t) is [*shape].
    Errors: `ValueError` for a dt that is not positive.
    """

    t0: jax.Array
    dt: jax.Array
    values: PyTree
    kind: str = eqx.field(static=True)
    outside: str = eqx.field(static=True)
    land: bool = eqx.field(static=True)
    times: jax.Array | None
    """where a solve lands, which then decides on which side of them t lies"""

    def __init__(
        self, t0: Any, dt: Any, values: PyTree, kind: str = "linear", *, outside: str = "hold", land: bool = False
    ):
        errors.positive(dt, "dt")
        self.t0, self.dt, self.values = inexact(t0, float), inexact(dt, float), _columns(values)
        self.kind, self.outside, self.land, self.times = kind, outside, land, None
        checks.rows(self.values, type(self).__name__, 2)
        errors.one_of(kind, "kind", ("linear", "constant", "cubic"))
        errors.one_of(outside, "outside", OUTSIDE)

    @property
    def ts(self) -> jax.Array:
        return self.t0 + self.dt * jnp.arange(_length(self.values)).astype(self.dt.dtype)

    def at(self, t: jax.Array) -> PyTree:
        n = _length(self.values)
        t = _wide(_wide(t, self.t0), self.dt)
        passed = (t - self.t0.astype(t.dtype)) / self.dt.astype(t.dtype)
        number = jnp.floor(passed) if self.times is None else count_until(self.times, t) - 1
        i = jnp.clip(number, 0, n - 2).astype(jnp.int32)
        if self.kind == "constant":
            row = jnp.clip(number, 0, n - 1).astype(jnp.int32)
            within = jnp.minimum(number, 0)  # the last value is held
            return jax.tree.map(lambda rows: _outside(read(rows, row), within, self.outside), self.values)
        share = passed - i.astype(t.dtype)
        if self.kind == "linear" or n == 2:
            return _line(self.values, i, share, self.outside)
        held = _held(share, self.outside)

        def of(rows):
            before, left, right, after = (read(rows, jnp.clip(i + k, 0, n - 1)) for k in (-1, 0, 1, 2))
            # beyond the ends, the parabola through the outermost three
            before = jnp.where(i == 0, 3 * left - 3 * right + after, before)
            after = jnp.where(i == n - 2, 3 * right - 3 * left + before, after)
            value = hermite(left, (right - before) / 2, right, (after - left) / 2, weight(held, left), 1)
            return _outside(value, share, self.outside)

        return jax.tree.map(of, self.values)

    def prepared(self, t0: Any, t1: Any) -> Prepared:
        if not self.land:
            return Prepared(self)
        times = self.ts
        return Prepared(self.moved(times), **{"jumps" if self.kind == "constant" else "kinks": times})

    def moved(self, jumps: Any) -> Sampled:
        return eqx.tree_at(lambda u: u.times, self, jumps, is_leaf=lambda x: x is None)
