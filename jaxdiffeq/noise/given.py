"""Brownian motions of the user's: a function of time, increments on a grid, a tree over a span of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from jaxdiffeq import errors
from jaxdiffeq.algebra.norm import safe_sqrt
from jaxdiffeq.noise import path_errors, tree
from jaxdiffeq.noise.normals import pair, seed_of, threefry
from jaxdiffeq.noise.paths import Tree
from jaxdiffeq.problems.ravel import close
from jaxdiffeq.types import Context, Increment

REFINED = 5  # what numbers are for

Key = tuple[str, jax.Array] | None
"""the name of its generator, and its data"""


def own_path(brownian: Any) -> Any:
    """What was given for a Brownian motion: None, a word, or a path; a function and an array are made one."""
    if brownian is None or isinstance(brownian, str) or hasattr(brownian, "follows"):
        return brownian
    if callable(brownian):
        errors.callable_with(brownian, "brownian", ("t",), silence="write `lambda *given: fn(*given)`")
        return BrownianPath(brownian)
    if isinstance(brownian, list | tuple) or hasattr(brownian, "shape"):
        return BrownianIncrements(jnp.asarray(brownian))
    path_errors.no_path(brownian)


class BrownianPath(eqx.Module):
    """W(t) by a function of your own, t ↦ [*noise]: data, another solve's path, one that is shared.

    `integral` is t ↦ ∫W dt from anywhere to t, for methods that take the space-time Lévy area.
    """

    function: Callable[[Any], Any]
    integral: Callable[[Any], Any] | None = None

    def follows(self, steps: int | None) -> None:
        """Raise unless it goes with that many equal steps, None for other ones."""

    def bound(self, shape: tuple[int, ...], dtype: Any, span: tuple[Any, Any], key: Key = None) -> tuple[Any, Any]:
        """The path, and what of it is not static. `key`: of the problem, for what methods draw besides."""

        def program(f, name):
            found, consts = close(lambda t: jnp.asarray(f(t)).astype(dtype), span[0])
            path_errors.shape(f"what `{name}` returns", jax.eval_shape(found, consts, span[0]).shape, shape)
            return found, consts

        value, consts = program(self.function, "function")
        integral, more = (None, []) if self.integral is None else program(self.integral, "integral")
        impl, words = (None, None) if key is None else key
        return Function(impl, value, integral), {"value": consts, "integral": more, "words": words}


class BrownianIncrements(eqx.Module):
    """W by its increments over n equal parts of the span, `w` [n, *noise], and their space-time Lévy `area`, likewise.

    Equal steps of which n is a multiple follow it; what is saved between the ends of its parts is NaN, as nothing is
    known there. With a `key` it is refined between: any steps follow it then, and areas that are not given are drawn.
    """

    w: jax.Array
    area: jax.Array | None = None
    key: Any = None
    """its data"""
    impl: str | None = eqx.field(default=None, static=True)

    def __init__(self, w: Any, area: Any = None, *, key: Any = None):
        self.w, self.area = jnp.asarray(w), None if area is None else jnp.asarray(area)
        path_errors.rows(self.w, self.area)
        self.impl, self.key = (None, None) if key is None else data_of(key)

    def follows(self, steps: int | None) -> None:
        """Raise unless it goes with that many equal steps, None for other ones."""
        path_errors.grid(len(self.w), steps, self.key is not None)

    def bound(self, shape: tuple[int, ...], dtype: Any, span: tuple[Any, Any], key: Key = None) -> tuple[Any, Any]:
        path_errors.shape("a row of `w`", self.w.shape[1:], shape)
        w, area, n = self.w.astype(dtype), self.area, len(self.w)
        if area is None and self.key is not None:
            z, _ = pair(seed_of(self.key, REFINED), 0, self.w.shape, dtype)
            area = jnp.sqrt(jnp.abs(span[1] - span[0]) / (12 * n)).astype(dtype) * z
        before = jnp.cumsum(w, 0) - w
        known: dict[str, Any] = {"w": w, "before": jnp.concatenate([before, before[-1:] + w[-1:]])}
        if area is not None:
            mean = before + w / 2 + area.astype(dtype)
            known |= {"area": area.astype(dtype), "sums": jnp.concatenate([jnp.zeros_like(w[:1]), jnp.cumsum(mean, 0)])}
        impl, known["words"] = (self.impl, self.key) if self.key is not None else (None, None) if key is None else key
        depth = None if self.key is None else 24 if span[0].dtype == jnp.float64 else 10
        return Grid(impl, n, dtype, depth), known


class BrownianTree(eqx.Module):
    """The path of a key over a span that may be longer than that of a solve: solves over parts of it share one path."""

    key: Any
    """its data"""
    t0: Any
    t1: Any
    impl: str = eqx.field(static=True)

    def __init__(self, key: Any, t0: Any, t1: Any):
        (self.impl, self.key), self.t0, self.t1 = data_of(key), t0, t1

    def follows(self, steps: int | None) -> None:
        """Raise unless it goes with that many equal steps, None for other ones."""

    def bound(self, shape: tuple[int, ...], dtype: Any, span: tuple[Any, Any], key: Key = None) -> tuple[Any, Any]:
        own = tuple(jnp.asarray(t).astype(span[0].dtype) for t in (self.t0, self.t1))
        return Tree(shape, dtype, self.impl, own_span=True), (self.key, own)


def data_of(key: Any) -> tuple[str, jax.Array]:
    """The name of a key's generator, and its data."""
    key = key if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else jax.random.wrap_key_data(key)
    return str(jax.random.key_impl(key)), jax.random.key_data(key)


class Absent:
    """In place of what a path does not know; whatever is done with it raises."""

    def __init__(self, refuse: Callable[[], NoReturn]):
        self._refuse = refuse

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__jax_array__":
            raise AttributeError(name)
        self._refuse()

    def _raise(self, *_: Any) -> Any:
        self._refuse()

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __neg__ = __getitem__ = _raise


@dataclass(frozen=True)
class Valued:
    """A path that tells its value at any time, and the integral of that or None."""

    impl: str | None
    """of the key, whose data is known as "words"; None: there is none"""

    def values(self, where: Context, t: jax.Array, known: Any) -> tuple[jax.Array, jax.Array | None]:
        raise NotImplementedError

    def over(self, where: Context, t0: jax.Array, t1: jax.Array, known: Any) -> Increment:
        """W₁ − W₀ and (∫W)/(t₁ − t₀) − (W₀ + W₁)/2."""
        (w0, i0), (w1, i1) = (self.values(where, t, known) for t in (t0, t1))
        area: Any = Absent(path_errors.no_area)
        if i0 is not None and i1 is not None:
            h = (t1 - t0).astype(i0.dtype)
            mean = (i1 - i0) / jnp.where(h == 0, jnp.ones_like(h), h)
            area = jnp.where(h == 0, jnp.zeros_like(i0), mean - (w0 + w1) / 2)
        return Increment(w1 - w0, area, self._key(known, t0, t1))

    def _key(self, known: Any, *ts: jax.Array) -> Any:
        if self.impl is None:
            return Absent(path_errors.no_key)
        key = jax.random.wrap_key_data(known["words"], impl=self.impl)
        for word in lax.bitcast_convert_type(jnp.stack(ts), jnp.uint32).reshape(-1):
            key = jax.random.fold_in(key, word)
        return key

    def within(self, where: Context, ends: tuple[jax.Array, jax.Array], t: jax.Array, known: Any) -> Increment:
        return self.over(where, ends[0], t, known)

    def at(self, span: tuple[jax.Array, jax.Array], size: Any, t: jax.Array, known: Any) -> jax.Array:
        """W(t) − W(t₀)."""
        where = Context(0, span)
        return self.values(where, t, known)[0] - self.values(where, span[0], known)[0]


@dataclass(frozen=True)
class Function(Valued):
    """By programs (consts, t) ↦ W and ∫W."""

    value: Callable
    integral: Callable | None = None

    def values(self, where: Context, t: jax.Array, known: Any) -> tuple[jax.Array, jax.Array | None]:
        value = self.value(known["value"], t)
        return value, None if self.integral is None else self.integral(known["integral"], t)


class Place(NamedTuple):
    """A cell, how far into it, and whether nothing is known of W there."""

    cell: jax.Array
    rest: jax.Array
    off: Any = False


@dataclass(frozen=True)
class Grid(Valued):
    """By what is known at the ends of equal cells of the span, and in them by a tree of which the cell is the root."""

    cells: int
    dtype: Any
    depth: int | None
    """of that tree; None: there is none"""

    def over(self, where: Context, t0: jax.Array, t1: jax.Array, known: Any) -> Increment:
        """Of one cell, what was given."""
        found = super().over(where, t0, t1, known)
        a, b = (self._place(where, t) for t in (t0, t1))
        whole = (a.rest == 0) & (b.rest == 0) & (b.cell == a.cell + 1) & ~jnp.asarray(a.off | b.off)
        rows = [known[name][jnp.minimum(a.cell, self.cells - 1)] for name in ("w", "area") if name in known]
        w, *area = (jnp.where(whole, row, x) for row, x in zip(rows, found, strict=False))
        return Increment(w, area[0] if area else found.area, found.key)

    def values(self, where: Context, t: jax.Array, known: Any) -> tuple[jax.Array, jax.Array | None]:
        at = self._place(where, t)
        w = jnp.where(at.off, jnp.nan, known["before"][at.cell])
        if "area" not in known:
            return w, None
        h = ((where.span[1] - where.span[0]) / self.cells).astype(self.dtype)
        total = h * known["sums"][at.cell]
        if self.depth is None:
            return w, total
        part = self._part(h, at, known)
        return w + part.w, total + part.length * h * (w + part.w / 2 + part.h)

    def _place(self, where: Context, t: jax.Array) -> Place:
        t0, t1 = where.span
        u = lax.stop_gradient(jnp.clip((t - t0) / (t1 - t0), 0, 1) * self.cells)
        if self.depth is None:
            cell = jnp.round(u)
            return Place(cell.astype(jnp.int32), jnp.int32(0), jnp.abs(u - cell) > 1e-3)
        size = 1 << self.depth
        cell = jnp.floor(u)
        cell, rest = cell.astype(jnp.int32), jnp.round((u - cell) * size).astype(jnp.int32)
        return Place(jnp.where(rest == size, cell + 1, cell), jnp.where(rest == size, 0, rest))

    def _part(self, h: jax.Array, at: Place, known: Any) -> tree.Piece:
        """From the start of a cell to a place s of it, in units of √t; s·w + 6s(1 − s)·H and s²·H are the mean."""
        assert self.depth is not None
        cell = jnp.minimum(at.cell, self.cells - 1)
        seed = threefry(seed_of(known["words"], REFINED), cell.astype(jnp.uint32), jnp.uint32(1))
        root, w, area = safe_sqrt(jnp.abs(h)), known["w"][cell], known["area"][cell]
        unit = lax.stop_gradient(jnp.where(root == 0, jnp.ones_like(root), root))
        whole = lax.stop_gradient(tree.Piece(w / unit, area / unit, jnp.ones((), self.dtype)))
        found = tree.start_of(seed, whole, at.rest, self.depth)
        s = at.rest.astype(self.dtype) / 2.0**self.depth
        follows = lambda x: x - lax.stop_gradient(x)
        moved, turned = follows(s * w + 6 * s * (1 - s) * area), follows(s * s * area)
        return tree.Piece(unit * found.w + moved, unit * found.h + turned, s)
