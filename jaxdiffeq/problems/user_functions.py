"""The user's functions as a field: traced once, on one array, with what they close over as an argument."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiffeq import errors
from jaxdiffeq.algebra.detect import Detected, detect, each_by_itself
from jaxdiffeq.algebra.krylov import MatrixFree
from jaxdiffeq.algebra.structure import times_mass
from jaxdiffeq.noise.kinds import Kind
from jaxdiffeq.primitives.dataflow import dependencies
from jaxdiffeq.primitives.jax_internals import axes_crossed
from jaxdiffeq.problems import delay_errors, noise_errors
from jaxdiffeq.problems.driven_field import DrivenField
from jaxdiffeq.problems.langevin_field import langevin
from jaxdiffeq.problems.past import Past, blank, look_up
from jaxdiffeq.problems.ravel import Program, Ravel, Split, as_array, close, inexact, real_dtype
from jaxdiffeq.problems.vector_field import MassField, ResidualField, SplitField, VectorField
from jaxdiffeq.types import PyTree


class Given(NamedTuple):
    """What the user wrote. `mass` is a function (t, y, args) ↦ M here, or None."""

    f: Callable | None
    explicit: Callable | None
    jac: Callable | None
    residual: Callable | None
    mass: Callable | None
    history: Any = None
    """of a delay equation: a function (s, args) ↦ y, or numbers"""
    dependent_lags: tuple = ()
    diffusion: Callable | None = None
    brownian: Any = None
    """a path of the user's"""
    langevin: Callable | None = None
    """args ↦ friction and inverse mass: then f is a force"""


class Arguments(NamedTuple):
    """`Inputs.args`: what the programs close over, the leaves of the user's args, the mass matrix, a guess of dy/dt,
    and what the programs of events close over."""

    of_f: list
    of_explicit: list
    of_jac: list
    of_fn: list
    leaves: list
    mass: Any
    dy0: Any = None
    of_events: Any = ()
    lags: Any = None
    """the constant ones, [lags]"""
    of_lags: Any = None
    past: Past | None = None
    of_diffusion: Any = ()
    of_path: Any = ()
    """a key's data, or what a path of the user's closes over"""


class Recall:
    """h of a delay equation: `h(s)` is the state at time s, or an array of times, `h(s, derivative=True)` its slope."""

    def __init__(self, ravel: Ravel, past: Past, history: Callable, t: jax.Array):
        self._given = ravel, past, history, t

    def __call__(self, s: Any, derivative: bool = False) -> PyTree:
        ravel, past, history, t = self._given
        delay_errors.time_of_the_past(s, derivative)
        s = jnp.asarray(s).astype(t.dtype)
        seen = functools.partial(slope_along, history) if derivative else history
        at = lambda s: ravel.unpack(look_up(past, seen, t, s, derivative))
        if s.ndim == 0:
            return at(s)
        return jax.tree.map(lambda x: x.reshape(*s.shape, *x.shape[1:]), jax.vmap(at)(s.reshape(-1)))


def slope_along(f: Callable, s: jax.Array) -> jax.Array:
    return jax.jvp(f, (s,), (jnp.ones_like(s),))[1]


@dataclass(frozen=True)
class OnArrays:
    """The user's functions on one array [*state], and on the leaves of args."""

    ravel: Ravel
    rest: Split
    """args without arrays"""
    traced: bool = True
    """else f is called for every value that is asked for, to look at these"""
    added: int = 0
    """how many of the leaves, the last, are slopes [*state] that events add"""

    def close(self, f: Callable, *at: Any) -> tuple[Any, list]:
        """A function (consts, *at) ↦ f(*at), and the consts."""
        if self.traced:
            return close(f, *at)
        return lambda consts, *at: f(*at), []

    def slope(self, f: Callable, history: Any = None) -> Callable:
        def on_one_array(t, y, *rest):
            tree, given = self._called(f, history, t, y, rest)
            return self._packed(given, tree)

        return on_one_array

    def diffusion(self, diffusion: Callable, name: str, history: Any = None) -> Callable:
        """[*state] or [*state, m]."""

        def on_one_array(t, y, *rest):
            tree, given = self._called(diffusion, history, t, y, rest)
            given = jax.tree.map(jnp.asarray, given)
            kind = noise_errors.diffusion(given, tree, name)
            if kind.columns is None:
                return self.ravel.pack(given)
            rows = [x.astype(self.ravel.dtype) for x in jax.tree.leaves(given)]
            return rows[0] if len(rows) == 1 else jnp.concatenate([x.reshape(-1, kind.columns) for x in rows])

        return on_one_array

    def _called(self, f: Callable, history: Any, t: Any, y: Any, rest: tuple) -> tuple[PyTree, PyTree]:
        """The state as a tree, and f there. `rest`: the leaves of args, after a past if f asks for it."""
        tree, args = self.ravel.unpack(y), self.rest.join(rest[-1])
        if history is None:
            return tree, errors.call(f, t, tree, args)
        h = Recall(self.ravel, rest[0], lambda s: self.earlier(history, s, args, tree), t)
        return tree, errors.call(f, t, tree, h, args)

    def lags(self, given: tuple) -> Callable:
        """Those that vary, [lags]."""

        def on_one_array(t, y, leaves):
            tree, args = self.ravel.unpack(y), self.rest.join(leaves)
            found = [jnp.asarray(errors.call(lag, t, tree, args)) for lag in given]
            delay_errors.lags_found(found)
            return jnp.stack([x.reshape(()).astype(t.dtype) for x in found])

        return on_one_array

    def earlier(self, history: Any, s: jax.Array, args: PyTree, like: PyTree) -> jax.Array:
        """What came before t₀."""
        given = errors.call(history, s, args) if callable(history) else history
        given = jax.tree.map(jnp.asarray, given)
        delay_errors.history(given, like)
        return self.ravel.pack(given)

    def residual(self, residual: Callable) -> Callable:
        def on_one_array(t, y, dy, leaves):
            tree = self.ravel.unpack(y)
            return self._packed(errors.call(residual, t, tree, self.ravel.unpack(dy), self.rest.join(leaves)), tree)

        return on_one_array

    def with_mass(self, f: Callable, mass: Callable) -> Callable:
        """M(t, y)·dy/dt − f."""
        slope = self.slope(f)

        def on_one_array(t, y, dy, leaves):
            tree = self.ravel.unpack(y)
            matrix = packed_mass(errors.call(mass, t, tree, self.rest.join(leaves)), tree, self.ravel)
            inertia = times_mass(matrix.astype(dy.dtype), dy.reshape(-1)).reshape(dy.shape)
            return inertia - slope(t, y, leaves)

        return on_one_array

    def jacobian(self, jac: Callable) -> Callable:
        def on_one_array(t, y, leaves):
            given = jnp.asarray(errors.call(jac, t, self.ravel.unpack(y), self.rest.join(leaves)))
            return errors.jacobian(given, self.ravel.size).astype(y.dtype)

        return on_one_array

    def driven(self, args: Arguments) -> Any:
        """What events add to dy/dt, [*state]."""
        return sum(args.leaves[len(args.leaves) - self.added :])

    def saved(self, fn: Callable | None) -> Callable:
        def on_one_array(t, y, leaves):
            if fn is None:
                return y
            values = errors.call(fn, t, self.ravel.unpack(y), self.rest.join(leaves))
            return jax.tree.map(lambda x: inexact(x, real_dtype(self.ravel.dtype)), values)

        return on_one_array

    def _packed(self, given: PyTree, like: PyTree) -> jax.Array:
        given = jax.tree.map(jnp.asarray, given)
        errors.derivative(given, like)
        return self.ravel.pack(given)


def packed_mass(mass: PyTree, y0: PyTree, ravel: Ravel) -> Any:
    """The mass matrix [n, n], or its diagonal [n]; lists of numbers, and matrices of `scipy.sparse`, are arrays."""
    shapes = [np.shape(x) for x in jax.tree.leaves(mass)]
    if jax.tree.structure(mass) == jax.tree.structure(y0) and shapes == [np.shape(x) for x in jax.tree.leaves(y0)]:
        return ravel.pack_tolerance(mass).reshape(-1)
    mass = mass.toarray() if hasattr(mass, "toarray") else mass
    if isinstance(mass, list | tuple):
        mass = _of_lists(mass)
        shapes = [np.shape(x) for x in jax.tree.leaves(mass)]
    leaves, n = jax.tree.leaves(mass), ravel.size
    if len(leaves) == 1 and np.shape(leaves[0]) == (n, n):
        return as_array(leaves[0], real_dtype(ravel.dtype))
    if len(leaves) == 1 and ravel.shapes == (np.shape(leaves[0]),):
        return as_array(leaves[0], real_dtype(ravel.dtype)).reshape(-1)
    errors.mass(mass, shapes, n)


def _of_lists(rows: Any) -> Any:
    """Lists in a list, or numbers in one, as an array, if they make one."""
    xp = np if errors.all_concrete(rows) else jnp
    try:
        return xp.asarray(rows, float)
    except (TypeError, ValueError):
        return rows


class Driving(NamedTuple):
    """How an equation is driven by noise: the name of its kind, what makes a path of a shape, and the sign of what
    corrects the drift; `ito`: after that it is one of Itô's calculus."""

    name: str
    path: Callable[[tuple[int, ...]], tuple[Any, Any]]
    """the path, and what of it is not static"""
    sign: int
    ito: bool = False


def field_of(
    given: Given, on: OnArrays, structure: Any, mass: Any, at: tuple, pasts: tuple = (), noise: Driving | None = None
) -> tuple[VectorField, tuple]:
    """The field, as a function of `Arguments`, and what its programs close over. Shapes: `at` is t, y, leaves.

    `pasts` are two examples of a past, if there are delays, the second one of a reverse pass.
    """
    if given.residual is not None or given.mass is not None:
        return _of_residual(given, on, structure, at)
    assert given.f is not None
    if noise is not None and given.langevin is not None:
        return _of_langevin(given, on, at, noise)
    if noise is not None:
        return _of_noise(given, on, structure, at, pasts, noise)
    if given.history is not None:
        return _of_delays(given, on, structure, mass, at, pasts)
    program, of_f = on.close(on.slope(given.f), *at)
    second, of_explicit = (None, []) if given.explicit is None else on.close(on.slope(given.explicit), *at)
    derivative, of_jac = (None, []) if given.jac is None else on.close(on.jacobian(given.jac), *at)

    def implicit_part(t, y, args):
        slope = program(args.of_f, t, y, args.leaves)
        return slope if on.added == 0 else slope + _driving(on, mass, y, args)

    def explicit_part(t, y, args):
        assert second is not None
        return second(args.of_explicit, t, y, args.leaves)

    def total(t, y, args):
        return implicit_part(t, y, args) + explicit_part(t, y, args)

    def jacobian(t, y, args):
        assert derivative is not None
        return derivative(args.of_jac, t, y, args.leaves)

    if isinstance(structure, Detected) and np.ndim(mass) == 2:
        structure = None  # the pattern of M is not known
    known = (
        _bound(structure, on, lambda y, rest: program(of_f, rest[0], y, rest[1]), at),
        not any(_sees_time(p) for p in (program, second) if p),
        None if derivative is None else jacobian,
    )
    if second is not None:
        field = SplitField(total, *known, implicit=implicit_part, explicit=explicit_part)
    elif mass is not None:
        field = MassField(implicit_part, *known, matrix_of=lambda args: args.mass)
    else:
        field = VectorField(implicit_part, *known)
    return replace(field, crosses_lanes=_crosses_lanes(program, second)), (of_f, of_explicit, of_jac)


class _Closed(NamedTuple):
    """A function of the user, traced: `call(consts, t, y, args)`, what it closes over, its program, and the same
    without a past, (y, (t, leaves)) ↦ its value."""

    call: Callable
    consts: list
    program: Any
    without: Callable


def _closed(on: OnArrays, whole: Callable, at: tuple, pasts: tuple) -> _Closed:
    """`whole` at t, y, leaves; or at t, y, past, leaves, if there are examples of a past, the second one of a reverse
    pass."""
    t, y, leaves = at
    if not pasts:
        program, consts = on.close(whole, t, y, leaves)
        of_args = lambda consts, t, y, args: program(consts, t, y, args.leaves)
        return _Closed(of_args, consts, program, lambda y, rest: program(consts, rest[0], y, rest[1]))
    ways = [on.close(whole, t, y, past, leaves) for past in pasts]
    (program, consts), hints = ways[0], pasts[0].near.hint.size
    nothing = lambda t, y: blank(pasts[0].ring, hints, t, y)

    def call(consts, t, y, args):
        past = nothing(t, y) if args.past is None else args.past._replace(cut=None)
        first = len(ways[0][1])
        way, known = (ways[0][0], consts[:first]) if past.felt is None else (ways[1][0], consts[first:])
        return way(known, t, y, past, args.leaves)

    without = lambda y, rest: program(consts, rest[0], y, nothing(rest[0], y), rest[1])
    return _Closed(call, [*consts, *ways[1][1]], program, without)


def _of_delays(given: Given, on: OnArrays, structure: Any, mass: Any, at: tuple, pasts: tuple) -> tuple:
    """Of y′ = f(t, y, h, args)."""
    assert given.f is not None
    slope = _closed(on, on.slope(given.f, given.history), at, pasts)

    def f(t, y, args):
        found = slope.call(args.of_f, t, y, args)
        return found if on.added == 0 else found + _driving(on, mass, y, args)

    known = _bound(structure, on, slope.without, at), False
    field = VectorField(f, *known) if mass is None else MassField(f, *known, matrix_of=lambda args: args.mass)
    return replace(field, crosses_lanes=_crosses_lanes(slope.program)), (slope.consts, [], [])


def _of_noise(given: Given, on: OnArrays, structure: Any, at: tuple, pasts: tuple, noise: Driving) -> tuple:
    """Of dy = a dt + b dW, where both may ask for the past."""
    assert given.f is not None and given.diffusion is not None
    slope = _closed(on, on.slope(given.f, given.history), at, pasts)
    second = _closed(on, on.diffusion(given.diffusion, noise.name, given.history), at, pasts)
    t, y, leaves = at
    shape = jax.eval_shape(second.without, y, (t, leaves)).shape
    kind = Kind(noise.name, None if shape == y.shape else shape[-1])
    program = second.program
    if kind.additive and isinstance(program, Program) and any(1 in touched for touched in dependencies(program.jaxpr)):
        noise_errors.depends_on_state(noise.name)

    def diffusion(t, y, args):
        return second.call(args.of_diffusion, t, y, args)

    def drift(t, y, args):
        return slope.call(args.of_f, t, y, args) + (on.driven(args) if on.added else 0)

    @functools.cache
    def alone():
        return kind.name == "diagonal" and each_by_itself(second.without, y, (t, leaves))

    path, known = noise.path(kind.shape(y.shape))
    field = DrivenField(
        drift,
        _bound(structure, on, slope.without, at),
        diffusion=diffusion,
        kind=kind,
        path=path,
        of_path=lambda args: args.of_path,
        ito=noise.ito,
        alone=alone,
        crosses_lanes=_crosses_lanes(slope.program, program),
    )
    consts = slope.consts, [], [], second.consts, known
    if noise.sign == 0 or kind.additive:
        return field, consts
    corrected = lambda t, y, args: drift(t, y, args) + noise.sign * field.between_calculi(t, y, args)
    return replace(field, f=corrected), consts


def _of_langevin(given: Given, on: OnArrays, at: tuple, noise: Driving) -> tuple:
    """Of dx = v dt, dv = (−γ·v + u·F) dt + √(2γu) dW on y = [x, v]."""
    (t, y, leaves), (force, numbers) = at, (given.f, given.langevin)
    assert force is not None and numbers is not None

    def on_positions(t, x, leaves):
        found = jnp.asarray(errors.call(force, t, x, on.rest.join(leaves)))
        if found.shape != x.shape:
            raise ValueError(f"force must return an array like x0, {x.shape}, but returned one of {found.shape}.")
        return found.astype(x.dtype)

    program, of_f = on.close(on_positions, t, y[0], leaves)
    both, consts = on.close(lambda leaves: tuple(map(jnp.asarray, numbers(on.rest.join(leaves)))), leaves)
    path, known = noise.path(y.shape)
    field = langevin(
        lambda t, x, args: program(args.of_f, t, x, args.leaves),
        lambda args: both(args.of_diffusion, args.leaves)[0],
        lambda args: both(args.of_diffusion, args.leaves)[1],
        path,
        lambda args: args.of_path,
    )
    return replace(field, crosses_lanes=_crosses_lanes(program)), (of_f, [], [], consts, known)


def _driving(on: OnArrays, mass: Any, y: jax.Array, args: Arguments) -> jax.Array:
    """What events add to M·dy/dt."""
    more = on.driven(args)
    return more if mass is None else times_mass(args.mass.astype(y.dtype), more.reshape(-1)).reshape(y.shape)


def _of_residual(given: Given, on: OnArrays, structure: Any, at: tuple) -> tuple[VectorField, tuple]:
    t, y, leaves = at
    if isinstance(structure, MatrixFree):
        errors.unsupported(
            "MatrixFree() does not serve a DAEProblem, nor a mass matrix that varies. Take Detected(), say."
        )
    if given.mass is None:
        assert given.residual is not None
        whole = on.residual(given.residual)
    else:
        assert given.f is not None
        whole = on.with_mass(given.f, given.mass)
    program, of_f = on.close(whole, t, y, y, leaves)

    def residual(t, y, dy, args):
        dy = dy if on.added == 0 else dy - on.driven(args)
        return program(args.of_f, t, y, dy, args.leaves)

    field = ResidualField(
        lambda t, y, args: -residual(t, y, jnp.zeros_like(y), args),
        _bound(structure, on, lambda y, rest: program(of_f, rest[0], y, y, rest[1]), at),
        autonomous=not _sees_time(program),
        residual=residual,
        guessed=lambda args: args.dy0,
        remember=lambda args, slope: args._replace(dy0=slope),
    )
    return replace(field, crosses_lanes=_crosses_lanes(program)), (of_f, [], [])


def _sees_time(program: Any) -> bool:
    return not isinstance(program, Program) or any(0 in touched for touched in dependencies(program.jaxpr))


def _crosses_lanes(*programs: Any) -> bool:
    return bool(axes_crossed(*(p.jaxpr for p in programs if isinstance(p, Program))))


def _bound(structure: Any, on: OnArrays, f: Callable, at: tuple) -> Any:
    """The structure in terms of one array. Shapes: f(y, (t, leaves))."""
    t, y, leaves = at
    if isinstance(structure, Detected):
        return detect(f, y, (t, leaves))
    if isinstance(structure, MatrixFree):
        return structure.on_arrays(on.ravel, lambda args: on.rest.join(args.leaves))
    return structure
