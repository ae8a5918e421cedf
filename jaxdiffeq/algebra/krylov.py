"""Linear systems with c·M − J where J is never formed: products J·v are directional derivatives of f.

A Jacobian is the point (t, y, args) at which it is taken, and a system w the number c, the mass and that point.

Source: Saad, Schultz, SIAM J. Sci. Stat. Comput. 7 (1986) 856 (GMRES); Saad, Iterative Methods for Sparse Linear
Systems, 2nd ed., 9.3.2 (preconditioning from the right, which leaves the residual what it is).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiffeq import errors
from jaxdiffeq.algebra.structure import AlgebraDefaults, Mass, Structure, radius, times_mass
from jaxdiffeq.algebra.vectors import like, real_vector
from jaxdiffeq.types import PyTree

Vector = jax.Array  # [n]
Linear = Callable[[Vector], Vector]


@dataclass(frozen=True)
class MatrixFree(Structure):
    """(c·M − J)·x = b by GMRES, with products J·v only: for many unknowns with no structure to exploit.

    `preconditioner(t, y, args, c, v)` is about (c·M − J)⁻¹·v, linear in v, for v a pytree like y: what it needs to know
    stands in args. GMRES starts anew every `restart` iterations and ends with a residual of `rtol` times b, or with
    that of rounding; a system on which it does not get there in `iterations` refuses the step.

    Rosenbrock methods need the systems solved well. With Newton's method in DIRK and BDF an `rtol` of 1e-4 will do, for
    the solution; that of derivatives is as good as `rtol`. Collocation methods do not take it, and `jac` is not used.
    """

    preconditioner: Callable | None = None
    rtol: float = 1e-10
    restart: int = 40
    iterations: int = 400

    def __post_init__(self) -> None:
        if self.preconditioner is not None:
            errors.callable_with(self.preconditioner, "preconditioner", ("t", "y", "args", "c", "v"))
        errors.positive(self.rtol, "MatrixFree(rtol)")
        errors.positive_integer(self.restart, "MatrixFree(restart)")
        errors.positive_integer(self.iterations, "MatrixFree(iterations)")

    def algebra(self, f: Callable, y: jax.Array) -> Krylov:
        given = self.preconditioner

        def precondition(t, v, args, c, x):
            assert given is not None
            return real_vector(given(t, like(v, y), args, c.astype(y.dtype), like(x, y)))

        return Krylov(self, f, None if given is None else precondition)

    def bind(self, n: int) -> MatrixFree:
        """It needs the slope, not just the size: see `algebra`."""
        return self

    def on_arrays(self, ravel: Any, arguments: Callable[[PyTree], PyTree]) -> MatrixFree:
        """With the preconditioner as a function of one array, and of args of which `arguments` are the user's."""
        given = self.preconditioner
        if given is None:
            return self

        def on_one_array(t, y, args, c, v):
            trees = ravel.unpack(y), arguments(args)
            return ravel.pack(errors.call(given, t, *trees, c, ravel.unpack(v)))

        return replace(self, preconditioner=on_one_array)


@functools.partial(jax.tree_util.register_dataclass, data_fields=("v", "t", "leaves"), meta_fields=("tree", "keys"))
@dataclass(frozen=True)
class Point:
    """J = ∂f/∂v at (t, v, args), where f is known. Shapes: v [n]."""

    v: Vector
    t: jax.Array
    leaves: list
    """of args, in numbers: keys of random numbers as their data"""
    tree: Any
    keys: tuple
    """for each leaf the kind of random numbers, if it is a key"""

    @staticmethod
    def of(t: jax.Array, v: Vector, args: PyTree) -> Point:
        leaves, tree = jax.tree.flatten(args)
        keys = tuple(jax.random.key_impl(x) if _is_key(x) else None for x in leaves)
        return Point(v, t, [jax.random.key_data(x) if _is_key(x) else jnp.asarray(x) for x in leaves], tree, keys)

    @property
    def args(self) -> PyTree:
        pairs = zip(self.leaves, self.keys, strict=True)
        return self.tree.unflatten([x if k is None else jax.random.wrap_key_data(x, impl=k) for x, k in pairs])


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(x), jax.dtypes.prng_key)


class Along(NamedTuple):
    """J of a function that is not f, as its products with vectors: a pytree of arrays, but of one trace only."""

    product: Any


class Shifted(NamedTuple):
    """c·M − J."""

    c: jax.Array
    mass: Mass
    point: Point | Along


@dataclass(frozen=True, eq=False)
class Krylov(AlgebraDefaults):
    """The algebra of `MatrixFree` for one f(t, v, args), as the structures have it for theirs."""

    stored = False
    options: MatrixFree
    slope: Callable[[jax.Array, Vector, PyTree], Vector]
    precondition: Callable | None
    """(t, v, args, c, x) ↦ about (c·M − J)⁻¹·x, on vectors"""

    def at(self, f: Callable, given: Callable | None, place: tuple) -> tuple[Vector, Point]:
        """No Jacobian is `given` to it."""
        return f(*place), Point.of(*place)

    def jacobian(self, g: Callable[[Vector], Vector], y: Vector) -> tuple[Vector, Along]:
        """g(y), [n], and its Jacobian, for systems that are solved where they are made, without the preconditioner."""
        value, product = jax.linearize(g, y)
        return value, Along(product)

    def repeated(self, m: int) -> Krylov:
        return _no_collocation()

    def shifted(self, c: jax.Array, mass: Mass, jacobian: Point | Along) -> Shifted:
        """c·M − J."""
        return _no_collocation() if jnp.iscomplexobj(c) else Shifted(c, mass, jacobian)

    def worth_keeping(self, n: int) -> bool:
        """It has no factors."""
        return False

    def magnitude(self, jacobian: Point) -> jax.Array:
        return radius(self, jacobian, jacobian.v.size)

    def _product(self, w: Shifted | Point | Along) -> Linear:
        """x ↦ w·x, with what does not depend on x computed once."""
        if isinstance(w, Shifted):
            along = self._product(w.point)
            return lambda x: w.c * times_mass(w.mass, x) - along(x)
        if isinstance(w, Along):
            return w.product
        return jax.linearize(lambda v: self.slope(w.t, v, w.args), w.v)[1]

    def times(self, w: Shifted | Point | Along, x: Vector) -> Vector:
        return self._product(w)(x)

    def factor(self, w: Shifted) -> Shifted:
        return w

    def solve(self, factors: Shifted, b: Vector, transpose: bool = False) -> Vector:
        """x with w·x = b or wᵀ·x = b; NaN where GMRES does not find it."""
        at, given = factors.point, self.precondition
        product, prepare = self._product(factors), lambda x: x
        if given is not None and isinstance(at, Point):
            prepare = lambda x: given(at.t, at.v, at.args, factors.c, x)
        if transpose:
            product, prepare = (_transposed(f, b) for f in (product, prepare))
        return gmres(product, prepare, b, self.options)


def _no_collocation() -> Any:
    errors.unsupported(
        "MatrixFree() does not serve methods whose stages are coupled, such as RadauIIA5(). Take KenCarp4(), BDF() or "
        "Rodas5P(), or another `jac_structure`."
    )


def _transposed(f: Linear, like: Vector) -> Linear:
    turned = jax.linear_transpose(f, like)
    return lambda x: turned(x)[0]


# ---- GMRES

LEAST = 1e-3
"""of b: a larger residual is no solution, even where rounding explains it"""


class _At(NamedTuple):
    """Since the last start product∘prepare took basis[: j] to basis[: j + 1]·h, and q·h = r is triangular."""

    x: Vector
    """at the last start"""
    size: jax.Array
    """of b − w·x there"""
    limit: jax.Array
    """at which that is small enough"""
    largest: jax.Array
    """about the norm of product∘prepare"""
    length: jax.Array
    """of x, before it is prepared"""
    tried: jax.Array
    j: jax.Array
    basis: jax.Array
    r: jax.Array
    q: jax.Array


def _norm(x: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.sum(x * x))


def _over(a: jax.Array, b: jax.Array) -> jax.Array:
    return a / jnp.where(b == 0, 1, b)


def gmres(product: Linear, prepare: Linear, b: Vector, options: MatrixFree) -> Vector:
    """x with product(x) = b, or NaN. `prepare` is about the inverse of `product`.

    Every trip of the one loop applies both once: to the next vector of the basis, or to what the basis amounts to.
    """
    m, most = min(options.restart, b.size), options.iterations
    unit = jnp.max(jnp.abs(b))
    b = _over(b, unit)
    size, zero, none = _norm(b), jnp.zeros((), b.dtype), jnp.zeros((), jnp.int32)
    limit = size * max(options.rtol, 10 * float(jnp.finfo(b.dtype).eps))

    def trip(at: _At) -> _At:
        more = (at.j < m) & (at.tried < most) & (at.size * jnp.abs(at.q[at.j, 0]) > at.limit)
        weights = lax.cond(more, lambda: jnp.zeros(m, b.dtype), lambda: _back(at))
        z = prepare(jnp.where(more, at.basis[at.j], weights @ at.basis[:m]))
        x = jnp.where(more, at.x, at.x + z)
        new = product(jnp.where(more, z, x))
        return lax.cond(more, lambda: _longer(at, new), lambda: _anew(at, x, b - new, weights, LEAST * size))

    start = _At(jnp.zeros_like(b), size, limit, zero, zero, none, *_first(b, size, m))
    end = lax.while_loop(lambda at: (at.size > at.limit) & ((at.tried < most) | (at.j > 0)), trip, start)
    return jnp.where(end.size <= end.limit, end.x * unit, jnp.nan)


def _first(rest: Vector, size: jax.Array, m: int) -> tuple:
    basis = jnp.zeros((m + 1, rest.size), rest.dtype).at[0].set(_over(rest, size))
    return jnp.zeros((), jnp.int32), basis, jnp.eye(m, dtype=rest.dtype), jnp.eye(m + 1, dtype=rest.dtype)


def _longer(at: _At, new: Vector) -> _At:
    """With one vector more in the basis."""
    j, h, numbers = at.j, jnp.zeros(len(at.q), new.dtype), jnp.arange(len(at.q), dtype=jnp.int32)
    for _ in range(2):  # the second time takes away what rounding left
        along = at.basis @ new
        new, h = new - along @ at.basis, h + along
    size = _norm(new)
    h = at.q @ jnp.where(numbers == j + 1, size, h)
    height = jnp.sqrt(h[j] * h[j] + h[j + 1] * h[j + 1])
    cos, sin = _over(h[j], height), _over(h[j + 1], height)
    first, second = at.q[j], at.q[j + 1]
    column = jnp.where(numbers < j, h, jnp.where(numbers == j, height, 0))[:-1]
    return at._replace(
        tried=at.tried + 1,
        j=j + 1,
        basis=at.basis.at[j + 1].set(_over(new, size)),
        r=at.r.at[:, j].set(column),
        q=at.q.at[j].set(cos * first + sin * second).at[j + 1].set(cos * second - sin * first),
    )


def _anew(at: _At, x: Vector, rest: Vector, weights: jax.Array, most: jax.Array) -> _At:
    """From x, which leaves `rest`: small enough also where rounding, of so long an x, makes as much, up to `most`."""
    made = jnp.arange(len(at.r), dtype=jnp.int32) < at.j
    largest = jnp.maximum(at.largest, _norm(jnp.where(made[None], at.r, 0)))
    length, size = at.length + _norm(weights), _norm(rest)
    limit = jnp.maximum(at.limit, jnp.minimum(10 * jnp.finfo(x.dtype).eps * largest * length, most))
    return _At(x, size, limit, largest, length, at.tried, *_first(rest, size, len(at.r)))


def _back(at: _At) -> jax.Array:
    """The combination of basis vectors that leaves the smallest residual."""
    m = len(at.r)
    g = jnp.where(jnp.arange(m, dtype=jnp.int32) < at.j, at.size * at.q[:m, 0], 0)

    def row(k, x):
        i = m - 1 - k
        return x.at[i].set(_over(g[i] - jnp.sum(at.r[i] * x), at.r[i, i]))

    return lax.fori_loop(0, m, row, jnp.zeros_like(g))
