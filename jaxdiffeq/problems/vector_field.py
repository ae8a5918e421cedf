"""The kinds of equations: one class each, with all that methods and gradients ask about them.

Every kind is posed on arrays [*state]; `on_vectors` gives the same equation on real vectors, with the linear algebra
that goes with its Jacobian. Nobody else asks which kind it is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiffeq.algebra import structure
from jaxdiffeq.algebra.structure import Entries, Mass, times_mass
from jaxdiffeq.algebra.vectors import like, real_size, real_vector
from jaxdiffeq.implicit.consistent import Consistent, consistent, limit, moving, null_space
from jaxdiffeq.types import Context, PyTree

Slope = Callable[[jax.Array, jax.Array, PyTree], jax.Array]  # (t, y, args) ↦ dy/dt, all on one array
Clock = Callable[[jax.Array], jax.Array]
Residual = Callable[[jax.Array, jax.Array, jax.Array, PyTree], jax.Array]  # (t, y, dy/dt, args) ↦ zero


@dataclass(frozen=True)
class VectorField:
    """dy/dt = f(t, y, args). Shapes: y [*state] with n numbers; `jacobian` ∂f/∂y, [n, n].

    Whatever is differentiable goes in through `args` alone.
    """

    f: Slope
    structure: Any = None
    """which entries of ∂f/∂y may differ from zero; None: all"""
    autonomous: bool = False
    """f is known not to depend on t"""
    jacobian: Slope | None = None
    _: KW_ONLY
    in_context: Callable[[Context], VectorField] | None = None
    """the field during a step, where it depends on that step's number or on the past"""
    crosses_lanes: bool = False
    """f talks across named lanes, as by `lax.psum`"""
    algebra: Any = None
    """on vectors: the linear algebra of their Jacobians"""
    size: int = 0
    """on vectors: how many numbers they have"""

    algebraic: ClassVar[bool] = False
    """components of y may have no derivative of their own: they have to be consistent, and dy/dt is not f"""
    noisy: ClassVar[bool] = False
    """there is a Brownian motion in it"""
    at_slope: ClassVar[bool] = False
    """derivatives depend on dy/dt where they are taken, hence those of a step on its size"""

    @functools.cached_property
    def programs(self) -> dict[Any, Callable]:
        """What was traced with this field, by whoever wants to find it again."""
        return {}

    def __call__(self, t: jax.Array, y: jax.Array, args: PyTree) -> jax.Array:
        return self.f(t, y, args)

    @property
    def whole(self) -> VectorField:
        """For a method that takes a sum of terms as it is."""
        return self

    @property
    def terms(self) -> tuple[VectorField, Slope | None]:
        """The implicit term, and the explicit one if there are two."""
        return self, None

    def at(self, clock: Callable[[jax.Array], jax.Array] | None, context: Context) -> VectorField:
        """The equation during a step, asked at `clock(t)`, if there is a clock, for what is wanted at t."""
        if self.in_context is not None:
            return self.in_context(context).at(clock, context)
        return self if clock is None else self.asked_at(clock)

    def asked_at(self, clock: Callable[[jax.Array], jax.Array]) -> Self:
        """The same equation, asked at `clock(t)` for what is wanted at t."""
        return replace(self, f=moved(self.f, clock), jacobian=self.jacobian and moved(self.jacobian, clock))

    def velocity(self, t: jax.Array, y: jax.Array, args: PyTree, f: jax.Array | None = None) -> jax.Array:
        """dy/dt, [*state]; `f` is that at this place, where it is known."""
        return self.f(t, y, args) if f is None else f

    def first_step(self, estimate: Callable[[], jax.Array], t0: jax.Array, t1: jax.Array) -> jax.Array:
        """The first step size, by an `estimate` that takes f for dy/dt, or small."""
        return estimate()

    def remembered(self, args: PyTree, slope: jax.Array) -> PyTree:
        """`args`, in which a consistent dy/dt at the start is the guess at later ones."""
        return args

    # ---- on vectors

    def on_vectors(self, y: jax.Array) -> Self:
        """The same equation on the real vectors of states like `y`, of which shape and dtype matter."""
        given, chosen = self.jacobian, structure.Dense() if self.structure is None else self.structure
        f = lambda t, v, args: real_vector(self.f(t, like(v, y), args))
        jacobian = None
        if given is not None and not jnp.iscomplexobj(y):
            jacobian = lambda t, v, args: given(t, like(v, y), args)
        return replace(self, f=f, jacobian=jacobian, algebra=chosen.algebra(f, y), size=real_size(y))

    def linearised(self, t: jax.Array, v: jax.Array, args: PyTree) -> tuple[jax.Array, Any]:
        """f(t, v) and ∂f/∂v."""
        return self.algebra.at(self.f, self.jacobian, (t, v, args))

    def mass(self, args: PyTree) -> Mass:
        """M of M·dv/dt = f."""
        return None

    def defect(self, t: jax.Array, v: jax.Array, dv: jax.Array, args: PyTree) -> jax.Array:
        """f(t, v) − M·dv, or −F(t, v, dv): zero along the solution."""
        return self.f(t, v, args) - times_mass(self.mass(args), dv)

    def inertia(self, t: jax.Array, v: jax.Array, args: PyTree, x: jax.Array) -> jax.Array:
        """M·x, or ∂F/∂dv·x at rest."""
        return times_mass(self.mass(args), x)

    def tangent(self, t: jax.Array, v: jax.Array, dv: jax.Array, c: jax.Array, args: PyTree) -> Any:
        """What makes `matrix`: ∂f/∂v, whatever `c` and `dv`; or −(∂F/∂v + c·∂F/∂dv)."""
        return self.linearised(t, v, args)[1]

    def matrix(self, c: jax.Array, args: PyTree, tangent: Any) -> Any:
        """c·M − ∂f/∂v, or ∂F/∂v + c·∂F/∂dv: of Newton's method where dv = c·v + constant."""
        return self.algebra.shifted(c, self.mass(args), tangent)

    def tangents(self, t: jax.Array, v: jax.Array, dv: jax.Array, cs: list[jax.Array], args: PyTree) -> Any:
        """What makes `matrices`, one for all or one for each of `cs`."""
        return self.linearised(t, v, args)[1]

    def matrices(self, cs: list[jax.Array], args: PyTree, tangents: Any) -> list:
        """`matrix` for each of `cs`."""
        return [self.matrix(c, args, tangents) for c in cs]

    def pencil(self, t: jax.Array, v: jax.Array, dv: jax.Array, args: PyTree) -> Any:
        """What makes `pair`: ∂f/∂v, whatever `dv`; or −∂F/∂v and ∂F/∂dv."""
        return self.linearised(t, v, args)[1]

    def pair(self, pencil: Any, args: PyTree) -> tuple[Any, Mass | Entries]:
        """∂f/∂v and M, or −∂F/∂v and ∂F/∂dv."""
        return pencil, self.mass(args)

    def derivative(self, t: jax.Array, v: jax.Array, args: PyTree) -> jax.Array:
        """dv/dt."""
        return self.f(t, v, args)

    def guess(self, v: jax.Array, args: PyTree) -> jax.Array:
        """What is known of dv/dt."""
        return jnp.zeros_like(v)

    def null_projector(self, t: jax.Array, v: jax.Array, dv: jax.Array, args: PyTree) -> jax.Array:
        """On the null space of M, or of ∂F/∂dv: a diagonal [n] of zeros and ones, or [n, n]."""
        return jnp.zeros_like(v)

    def consistent(self, t: jax.Array, v: jax.Array, args: PyTree, scale: jax.Array) -> Consistent:
        """v with its algebraic part changed such that it satisfies the equation with some dv/dt."""
        return consistent(self, t, v, self.guess(v, args), args, scale)

    # ---- E·dδy/dt = J·δy + G·δθ along the solution, and its adjoint d(Eᵀλ)/dt = −Jᵀλ

    def momentum(self, t: jax.Array, y: jax.Array, dy: Any, args: PyTree, lam: jax.Array) -> jax.Array:
        """Eᵀλ. Shapes: [*state]."""
        return lam

    def diagonal(self, args: PyTree) -> bool:
        """E is known to be diagonal."""
        return True

    def slope_felt(self, t: jax.Array, y: jax.Array, dy: Any, args: PyTree, theta: list) -> Any:
        """The dy/dt of `balance`, if derivatives by `theta`, leaves of args, depend on it; `dy` is that of y(t)."""
        return dy

    def balance(self, t: jax.Array, y: jax.Array, dy: Any, args: PyTree, fixed: PyTree) -> jax.Array:
        """What has the derivatives J and G at `args` = `fixed`. Shapes: [*state]."""
        return self.f(t, y, args)

    def adjoint(self, f: Slope, residual: Residual, mass: Callable[[jax.Array], jax.Array], args: PyTree) -> Any:
        """The adjoint equation, of the same kind: its slope, its residual, and what makes its mass matrix of M."""
        return VectorField(f)


@dataclass(frozen=True)
class SplitField(VectorField):
    """dy/dt = f(t, y, args), the sum of `implicit` and `explicit`. What is known of ∂f/∂y is known of the former."""

    _: KW_ONLY
    implicit: Slope
    explicit: Slope

    @property
    def whole(self) -> VectorField:
        return VectorField(self.f, autonomous=self.autonomous)

    @property
    def terms(self) -> tuple[VectorField, Slope | None]:
        return VectorField(self.implicit, self.structure, self.autonomous, self.jacobian), self.explicit

    def asked_at(self, clock: Callable[[jax.Array], jax.Array]) -> Self:
        implicit, explicit = moved(self.implicit, clock), moved(self.explicit, clock)
        return replace(super().asked_at(clock), implicit=implicit, explicit=explicit)


class _Algebraic(VectorField):
    """What equations share whose dy/dt has to be found."""

    algebraic = True

    def velocity(self, t: jax.Array, y: jax.Array, args: PyTree, f: jax.Array | None = None) -> jax.Array:
        return like(self.on_vectors(y).derivative(t, real_vector(y), args), y)

    def first_step(self, estimate: Callable[[], jax.Array], t0: jax.Array, t1: jax.Array) -> jax.Array:
        return 1e-6 * jnp.abs(t1 - t0)


@dataclass(frozen=True)
class MassField(_Algebraic):
    """M·dy/dt = f(t, y, args), M constant, perhaps singular: `matrix_of(args)`, [n, n], or its diagonal, [n]."""

    _: KW_ONLY
    matrix_of: Callable[[PyTree], jax.Array]

    def on_vectors(self, y: jax.Array) -> Self:
        new = super().on_vectors(y)
        return replace(new, matrix_of=lambda args: _twice(self.matrix_of(args))) if jnp.iscomplexobj(y) else new

    def mass(self, args: PyTree) -> jax.Array:
        return self.matrix_of(args)

    def derivative(self, t: jax.Array, v: jax.Array, args: PyTree) -> jax.Array:
        return limit(self, t, v, args)

    def null_projector(self, t: jax.Array, v: jax.Array, dv: jax.Array, args: PyTree) -> jax.Array:
        return null_space(self.mass(args).astype(v.dtype))

    def momentum(self, t: jax.Array, y: jax.Array, dy: Any, args: PyTree, lam: jax.Array) -> jax.Array:
        mass = self.matrix_of(args)
        return _times(mass if mass.ndim == 1 else mass.T, lam)

    def diagonal(self, args: PyTree) -> bool:
        return self.matrix_of(args).ndim == 1

    def slope_felt(self, t: jax.Array, y: jax.Array, dy: Any, args: PyTree, theta: list) -> Any:
        return self.velocity(t, y, args) if any(x is self.matrix_of(args) for x in theta) else None

    def balance(self, t: jax.Array, y: jax.Array, dy: Any, args: PyTree, fixed: PyTree) -> jax.Array:
        f, mass, known = self.f(t, y, args), self.matrix_of(args), self.matrix_of(fixed)
        if mass is known:
            return f
        return f - _times(mass - known, dy)  # zero, but not its derivative

    def adjoint(self, f: Slope, residual: Residual, mass: Callable[[jax.Array], jax.Array], args: PyTree) -> Any:
        made = mass(self.matrix_of(args))
        return MassField(f, matrix_of=lambda _: made)


@dataclass(frozen=True)
class ResidualField(_Algebraic):
    """F(t, y, dy/dt, args) = 0, of index 1; f is −F at rest."""

    _: KW_ONLY
    residual: Residual
    guessed: Callable[[PyTree], jax.Array] | None = None
    """args ↦ what is known of dy/dt at the start"""
    remember: Callable[[PyTree, jax.Array], PyTree] | None = None
    """args and dy/dt ↦ args of which that is what is known"""

    at_slope = True

    def asked_at(self, clock: Callable[[jax.Array], jax.Array]) -> Self:
        return replace(super().asked_at(clock), residual=moved(self.residual, clock))

    def remembered(self, args: PyTree, slope: jax.Array) -> PyTree:
        return args if self.remember is None else self.remember(args, slope)

    def on_vectors(self, y: jax.Array) -> Self:
        guessed = self.guessed
        residual = lambda t, v, dv, args: real_vector(self.residual(t, like(v, y), like(dv, y), args))
        known = None if guessed is None else lambda args: real_vector(guessed(args))
        return replace(super().on_vectors(y), residual=residual, guessed=known)

    def defect(self, t: jax.Array, v: jax.Array, dv: jax.Array, args: PyTree) -> jax.Array:
        return -self.residual(t, v, dv, args)

    def inertia(self, t: jax.Array, v: jax.Array, args: PyTree, x: jax.Array) -> jax.Array:
        return -jax.jvp(lambda dv: self.defect(t, v, dv, args), (jnp.zeros_like(v),), (x,))[1]

    def tangent(self, t: jax.Array, v: jax.Array, dv: jax.Array, c: jax.Array, args: PyTree) -> Any:
        return self.algebra.jacobian(lambda z: self.defect(t, v + z, dv + c * z, args), jnp.zeros_like(v))[1]

    def matrix(self, c: jax.Array, args: PyTree, tangent: Any) -> Any:
        return self.algebra.shifted(jnp.zeros_like(c), None, tangent)

    def tangents(self, t: jax.Array, v: jax.Array, dv: jax.Array, cs: list[jax.Array], args: PyTree) -> Any:
        return tuple(self.tangent(t, v, dv, c, args) for c in cs)

    def matrices(self, cs: list[jax.Array], args: PyTree, tangents: Any) -> list:
        return [self.matrix(c, args, tangent) for c, tangent in zip(cs, tangents, strict=True)]

    def pencil(self, t: jax.Array, v: jax.Array, dv: jax.Array, args: PyTree) -> Any:
        of_state = self.algebra.jacobian(lambda v: self.defect(t, v, dv, args), v)[1]
        of_slope = self.algebra.jacobian(lambda dv: -self.defect(t, v, dv, args), dv)[1]
        return of_state, Entries(of_slope)

    def pair(self, pencil: Any, args: PyTree) -> tuple[Any, Mass | Entries]:
        return pencil

    def derivative(self, t: jax.Array, v: jax.Array, args: PyTree) -> jax.Array:
        return moving(self, t, v, self.consistent(t, v, args, jnp.full_like(v, jnp.inf)).slope, args)

    def guess(self, v: jax.Array, args: PyTree) -> jax.Array:
        return super().guess(v, args) if self.guessed is None else self.guessed(args)

    def null_projector(self, t: jax.Array, v: jax.Array, dv: jax.Array, args: PyTree) -> jax.Array:
        """In a large system, whose structure is known, the space is taken to be spanned by components not in F."""
        of_slope = lambda dv: self.defect(t, v, dv, args)
        if self.algebra.full:
            return null_space(jax.jacfwd(of_slope)(dv).astype(v.dtype))
        (seen,) = jax.vjp(of_slope, dv)[1](jnp.cos(jnp.arange(v.size, dtype=v.dtype)))
        return lax.stop_gradient((seen == 0).astype(v.dtype))

    def momentum(self, t: jax.Array, y: jax.Array, dy: Any, args: PyTree, lam: jax.Array) -> jax.Array:
        return jax.vjp(lambda dy: self.residual(t, y, dy, args), dy)[1](lam)[0]

    def diagonal(self, args: PyTree) -> bool:
        return False

    def balance(self, t: jax.Array, y: jax.Array, dy: Any, args: PyTree, fixed: PyTree) -> jax.Array:
        return -self.residual(t, y, dy, args)

    def adjoint(self, f: Slope, residual: Residual, mass: Callable[[jax.Array], jax.Array], args: PyTree) -> Any:
        return ResidualField(lambda t, y, args: -residual(t, y, jnp.zeros_like(y), args), residual=residual)


def moved(f: Callable, clock: Clock) -> Callable:
    """f, asked at `clock(t)`."""
    return lambda t, *rest: f(clock(t), *rest)


def _twice(mass: jax.Array) -> jax.Array:
    """M of the real vector of complex numbers."""
    return jnp.concatenate([mass, mass]) if mass.ndim == 1 else jnp.kron(jnp.eye(2, dtype=mass.dtype), mass)


def _times(mass: jax.Array, y: jax.Array) -> jax.Array:
    """M·y. Shapes: [*state]."""
    return times_mass(mass.astype(y.dtype), y.reshape(-1)).reshape(y.shape)
