"""Which entries of a Jacobian may differ from zero, and the linear algebra that goes with each answer.

A structure, bound to a number of unknowns, makes the Jacobian of f in as few directional derivatives as its pattern
allows (columns that share no row share one), and factors and solves with c·M − J. A pattern is put in order first:
unknowns that form closed groups become diagonal blocks, the rest a narrow band.

Source: Curtis, Powell, Reid, J. Inst. Math. Appl. 13 (1974) 117, for the grouping of columns.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdiffeq import errors
from jaxdiffeq.algebra import lu
from jaxdiffeq.algebra.blocks import Blocks, factor, matrix_vector, substitute
from jaxdiffeq.algebra.order import bandwidth, colours, entries, groups, reverse_cuthill_mckee
from jaxdiffeq.primitives.scan import scan
from jaxdiffeq.primitives.varying_axes import vary_like

Vector = jax.Array  # [n]
Pairs = tuple[np.ndarray, np.ndarray]  # rows and columns
Mass = jax.Array | None  # the identity, [n] a diagonal, or [n, n]


class Entries(NamedTuple):
    """A mass that is stored as its structure stores a Jacobian."""

    of: Any


def times_mass(mass: Mass, x: Vector) -> Vector:
    """M·x."""
    if mass is None:
        return x
    return mass * x if mass.ndim == 1 else jnp.sum(mass * x[None], axis=1)


def times(algebra: Any, mass: Mass | Entries, x: Vector) -> Vector:
    """M·x, with a mass of any kind."""
    return algebra.times(mass.of, x) if isinstance(mass, Entries) else times_mass(mass, x)


def shifted(algebra: Any, c: jax.Array, mass: Mass | Entries, jacobian: Any) -> Any:
    """c·M − J, with a mass of any kind."""
    if not isinstance(mass, Entries):
        return algebra.shifted(c, mass, jacobian)
    return algebra.shifted(jnp.zeros_like(c), None, jax.tree.map(lambda m, j: j - c * m, mass.of, jacobian))


def solve(algebra: Any, w: Any, factors: Any, b: Vector) -> Vector:
    """The solution x of w·x = b, whose derivative is that of the equation: dx = w⁻¹(db − dw·x).

    `factors` are those of `w`, and constant to differentiation.
    """
    factors = lax.stop_gradient(factors)
    return lax.custom_linear_solve(
        lambda x: algebra.times(w, x),
        b,
        lambda _, b: algebra.solve(factors, b),
        lambda _, b: algebra.solve(factors, b, transpose=True),
    )


def radius(algebra: Any, jacobian: Any, n: int) -> jax.Array:
    """About the largest |eigenvalue| of a Jacobian, from below: the growth in the last two of six power iterations."""
    x = jnp.cos(jnp.arange(n, dtype=jax.tree.leaves(jacobian)[0].dtype))

    def iterate(carry, _):
        x, (_, before) = carry
        x = algebra.times(jacobian, x)
        largest = jnp.max(jnp.abs(x))
        x = x / jnp.where(largest > 0, largest, 1)  # first, lest the squares over- or underflow
        length = jnp.sqrt(jnp.sum(x * x))
        return (x / jnp.where(length > 0, length, 1), (before, largest * length)), None

    one = jnp.ones_like(x[0])
    (_, (before, last)), _ = scan(iterate, (x, (one, one)), np.zeros(6))
    return jnp.sqrt(last) * jnp.sqrt(before)


class Structure:
    """Which entries of the Jacobian of a state may differ from zero. `bind(n)` is the algebra for n unknowns."""

    def algebra(self, f: Callable, y: jax.Array) -> Any:
        """That for the real vectors of states like `y`, on which `f` is the slope f(t, v, args)."""
        chosen: Any = self
        return of_complex(chosen, y.size).bind(2 * y.size) if jnp.iscomplexobj(y) else chosen.bind(y.size)


class AlgebraDefaults:
    """Jacobians as the structure stores them, and systems with c·M − J."""

    full: ClassVar[bool] = False
    """a Jacobian is an array [n, n]"""
    stored: ClassVar[bool] = True
    """a Jacobian is made of its entries"""

    def at(self, f: Callable, given: Callable | None, place: tuple) -> tuple[Vector, Any]:
        """f and its Jacobian ∂f/∂v at `place`, (t, v, args); `given` is a function that computes the latter, [n, n]."""
        t, v, args = place
        if given is None:
            return self.jacobian(lambda v: f(t, v, args), v)
        return f(t, v, args), self.given(given(t, v, args))

    def jacobian(self, g: Callable[[Vector], Vector], y: Vector) -> tuple[Vector, Any]:
        """g(y), [n], and its Jacobian."""
        raise NotImplementedError

    def given(self, jacobian: jax.Array) -> Any:
        """A Jacobian that the user computed, [n, n], as `jacobian` would give it."""
        raise NotImplementedError

    def magnitude(self, jacobian: Any) -> jax.Array:
        """The largest |entry| of a Jacobian; where there are no entries, about its largest |eigenvalue|."""
        return jnp.max(jnp.stack([jnp.max(jnp.abs(x), initial=0) for x in jax.tree.leaves(jacobian)]))

    def worth_keeping(self, n: int) -> bool:
        """Whether a Runge–Kutta or IMEX method gains by using a Jacobian again. Measured by `benchmarks/chords.py`.

        Factors of a long band or of many blocks are made as fast as they are kept.
        """
        return n <= lu.ROLLED


@dataclass(frozen=True)
class Dense(Structure, AlgebraDefaults):
    """Every entry may differ from zero: n directional derivatives, and n³ operations to factor."""

    full = True

    def bind(self, n: int) -> Dense:
        return self

    def worth_keeping(self, n: int) -> bool:
        return True

    def repeated(self, m: int) -> Dense:
        """For `factor` and `solve` where every unknown is `m` of them, next to each other."""
        return self

    def jacobian(self, g: Callable[[Vector], Vector], y: Vector) -> tuple[Vector, jax.Array]:
        """g(y), [n], and its Jacobian, [n, n]."""
        basis = vary_like(jnp.eye(y.size, dtype=y.dtype), y)
        return jax.vmap(lambda v: jax.jvp(g, (y,), (v,)), out_axes=(None, -1))(basis)

    def given(self, jacobian: jax.Array) -> jax.Array:
        return jacobian

    def shifted(self, c: jax.Array, mass: Mass, jacobian: jax.Array) -> jax.Array:
        """c·M − J."""
        if mass is not None and mass.ndim == 2:
            return c * mass - jacobian
        ones = jnp.ones(jacobian.shape[0], jacobian.dtype)
        return jnp.diag(c * (ones if mass is None else mass)) - jacobian

    def times(self, w: jax.Array, x: Vector) -> Vector:
        return jnp.sum(w * x[None], axis=1) if w.shape[0] <= lu.ROLLED else w @ x

    def factor(self, w: jax.Array) -> Any:
        return lu.factor(w)

    def solve(self, factors: Any, b: Vector, transpose: bool = False) -> Vector:
        return lu.substitute(factors, b, transpose)


@dataclass(frozen=True)
class Diagonal(Structure):
    """∂fᵢ/∂yⱼ = 0 for i ≠ j: every component on its own."""

    def bind(self, n: int) -> Layout:
        return _blocks_of(n, 1)

    def pairs(self, n: int) -> Pairs:
        return np.arange(n), np.arange(n)


@dataclass(frozen=True)
class BlockDiagonal(Structure):
    """Groups of `size` neighbouring components that do not see each other."""

    size: int

    def __post_init__(self) -> None:
        errors.positive_integer(self.size, "BlockDiagonal(size)")

    def bind(self, n: int) -> Layout:
        errors.divides(self.size, n)
        return _blocks_of(n, self.size)

    def pairs(self, n: int) -> Pairs:
        errors.divides(self.size, n)
        rows = np.repeat(np.arange(n), self.size)
        return rows, rows // self.size * self.size + np.tile(np.arange(self.size), n)


@dataclass(frozen=True)
class Banded(Structure):
    """∂fᵢ/∂yⱼ = 0 for j < i − lower and for j > i + upper."""

    lower: int
    upper: int

    def __post_init__(self) -> None:
        errors.not_negative_integer(self.lower, "Banded(lower)")
        errors.not_negative_integer(self.upper, "Banded(upper)")

    def bind(self, n: int) -> Layout | Dense:
        if max(self.lower, self.upper) == 0:
            return _blocks_of(n, 1)
        return _band_of(n, min(self.lower, n - 1), min(self.upper, n - 1))

    def pairs(self, n: int) -> Pairs:
        return _band_pairs(n, self.lower, self.upper)


@dataclass(frozen=True)
class Sparse(Structure):
    """∂fᵢ/∂yⱼ may differ from zero at these pairs (i, j) and on the diagonal; `Sparse.of` takes a matrix."""

    rows: tuple[int, ...]
    columns: tuple[int, ...]

    @staticmethod
    def of(pattern: Any) -> Sparse:
        """The pattern of a matrix [n, n] of numbers or truth values, also of `scipy.sparse`: what is not zero."""
        if hasattr(pattern, "tocsr"):
            pattern = pattern.tocsr()
            pattern.sum_duplicates()
            rows, columns = pattern.nonzero()
        else:
            rows, columns = np.nonzero(np.asarray(pattern))
        return Sparse(tuple(rows.tolist()), tuple(columns.tolist()))

    def bind(self, n: int) -> Layout | Dense:
        errors.pattern(self.rows, self.columns, n)
        return _arranged(n, self.rows, self.columns)

    def pairs(self, n: int) -> Pairs:
        errors.pattern(self.rows, self.columns, n)
        return np.asarray(self.rows, np.intp), np.asarray(self.columns, np.intp)


@functools.lru_cache
def of_complex(chosen: Any, n: int) -> Dense | Sparse:
    """The structure of the real vector of n complex numbers, real parts first: four times that of the numbers."""
    if isinstance(chosen, Dense):
        return chosen
    i, j = chosen.pairs(n)
    rows, columns = np.concatenate([i, i, i + n, i + n]), np.concatenate([j, j + n, j, j + n])
    return Sparse(tuple(rows.tolist()), tuple(columns.tolist()))


@dataclass(frozen=True, eq=False)
class Layout(AlgebraDefaults):
    """The algebra of an [n, n] pattern whose entries lie in `Blocks`, with the columns that share a derivative."""

    n: int
    k: int
    order: np.ndarray | None
    """[blocks·k]: the unknown at each place, n where a place is empty; None: each at its own"""
    colour: np.ndarray
    """[n], of each column"""
    entries: tuple[np.ndarray | None, np.ndarray, np.ndarray | None]
    """for low, mid and up, [k, k, blocks]: where the entry is in [colours, n], flat; −1 for none"""

    def jacobian(self, g: Callable[[Vector], Vector], y: Vector) -> tuple[Vector, Blocks]:
        seeds = vary_like(self._seeds(y.dtype), y)
        value, columns = jax.vmap(lambda v: jax.jvp(g, (y,), (v,)), out_axes=(None, 0))(seeds)
        return value, self._fill(columns)

    def given(self, jacobian: jax.Array) -> Blocks:
        """A Jacobian that the user computed, [n, n], as `jacobian` would give it: columns of a colour are added up."""
        return self._fill(self._seeds(jacobian.dtype) @ jacobian.T)

    def _seeds(self, dtype: Any) -> jax.Array:
        """A one for every column of a colour, [colours, n]."""
        return jnp.asarray(self.colour == np.arange(self.colour.max() + 1)[:, None], dtype)

    def _fill(self, values: jax.Array) -> Blocks:
        flat = jnp.append(values.reshape(-1), jnp.zeros(1, values.dtype))
        low, mid, up = self.entries
        return Blocks(None if low is None else flat[low], flat[mid], None if up is None else flat[up])

    def repeated(self, m: int) -> Layout:
        """For `factor` and `solve` where every unknown is `m` of them, next to each other."""
        order = self.order
        if order is not None:
            order = np.where(order < self.n, order, self.n)[:, None] * m + np.arange(m) * (order < self.n)[:, None]
        return Layout(m * self.n, m * self.k, None if order is None else order.reshape(-1), self.colour, self.entries)

    def _split(self, x: Vector, spare: float) -> jax.Array:
        """[n] ↦ [k, blocks]"""
        if self.order is not None:
            x = jnp.append(x, jnp.full(1, spare, x.dtype))[self.order]
        return x.reshape(-1, self.k).T

    def _join(self, x: jax.Array) -> Vector:
        flat = x.T.reshape(-1)
        return flat if self.order is None else flat[self._place]

    @functools.cached_property
    def _place(self) -> np.ndarray:
        assert self.order is not None
        place = np.zeros(self.n + 1, np.intp)
        place[self.order] = np.arange(len(self.order))
        return place[:-1]

    def shifted(self, c: jax.Array, mass: Mass, jacobian: Blocks) -> Blocks:
        """c·M − J, with ones on the diagonal of empty places."""
        if mass is not None and mass.ndim == 2:
            full = self.given(mass)
            w = jax.tree.map(lambda m, j: c * m - j, full, jacobian)
            spare = self._split(jnp.zeros(self.n, w.mid.dtype), 1.0)
        else:
            w = jax.tree.map(jnp.negative, jacobian)
            ones = jnp.ones(self.n, w.mid.dtype)
            spare = self._split(c * (ones if mass is None else mass), 1.0)
        eye = jnp.eye(self.k, dtype=w.mid.dtype)[:, :, None]
        return w._replace(mid=w.mid + eye * spare[None])

    def times(self, w: Blocks, x: Vector) -> Vector:
        return self._join(matrix_vector(w, self._split(x, 0.0)))

    def factor(self, w: Blocks) -> Any:
        return factor(w)

    def solve(self, factors: Any, b: Vector, transpose: bool = False) -> Vector:
        return self._join(substitute(factors, self._split(b, 0.0), transpose))


@functools.lru_cache
def _blocks_of(n: int, k: int) -> Layout:
    i, j, block = np.meshgrid(np.arange(k), np.arange(k), np.arange(n // k), indexing="ij")
    return Layout(n, k, None, np.arange(n) % k, (None, j * n + block * k + i, None))


@functools.lru_cache
def _band_of(n: int, lower: int, upper: int) -> Layout | Dense:
    rows, columns = _band_pairs(n, lower, upper)
    return _tridiagonal(n, np.arange(n), rows, columns, np.arange(n) % (lower + upper + 1))


def _band_pairs(n: int, lower: int, upper: int) -> Pairs:
    offsets = np.arange(-lower, upper + 1)
    rows = np.repeat(np.arange(n), len(offsets))
    columns = rows + np.tile(offsets, n)
    inside = (columns >= 0) & (columns < n)
    return rows[inside], columns[inside]


@functools.lru_cache
def _arranged(n: int, rows: tuple[int, ...], columns: tuple[int, ...]) -> Layout | Dense:
    i, j = (np.append(np.asarray(x, np.intp), np.arange(n)) for x in (rows, columns))
    i, j = entries(n, i, j)
    close, members = _close(n, i, j), groups(n, i, j)
    colour = colours(n, i, j, close)
    largest = max(len(m) for m in members)
    if largest <= lu.ROLLED and largest < n:
        order = np.full((len(members), largest), n)
        for row, m in zip(order, members, strict=True):
            row[: len(m)] = m
        return _layout(n, largest, order.reshape(-1), (i, j), colour, neighbours=False)
    return _tridiagonal(n, close, i, j, colour)


def _close(n: int, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """An order in which neighbours are close: their own, if it is one."""
    own, other = np.arange(n), reverse_cuthill_mckee(n, i, j)
    return own if bandwidth(own, i, j) <= bandwidth(other, i, j) else other


def _tridiagonal(n: int, order: np.ndarray, i: np.ndarray, j: np.ndarray, colour: np.ndarray) -> Layout | Dense:
    """Blocks as wide as the band; dense where that would be most of the matrix."""
    k = max(1, bandwidth(order, i, j))
    if 4 * k >= n:
        return Dense()
    order = np.append(order, np.full(-n % k, n))
    return _layout(n, k, order, (i, j), colour, neighbours=True)


def _layout(n: int, k: int, order: np.ndarray, pairs: tuple, colour: np.ndarray, neighbours: bool) -> Layout:
    place = np.zeros(n + 1, np.intp)
    place[order] = np.arange(len(order))
    (i, j), blocks = pairs, len(order) // k
    row, column = place[i], place[j]
    entries = np.full((3, k, k, blocks), -1)
    side = column // k - row // k + 1
    entries[side, row % k, column % k, row // k] = colour[j] * n + i
    low, mid, up = entries
    kept = (low, mid, up) if neighbours else (None, mid, None)
    return Layout(n, k, None if np.array_equal(order, np.arange(n)) else order, colour, kept)
