"""Continuous adjoints of equations with algebraic parts, against closed forms, beyond the cells of the table.

With respect to two parameters and a stop, the initial values, both ends and a time of saving. Solves are at rtol 1e-9;
where the slope enters nonlinearly, that of the interpolant is known to some 1e-6 only.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiffeq as jde

TIGHT: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-10, "max_steps": 4096}
ARGS, SPAN, SAVED = jnp.array([0.9, 1.1, 0.4]), jnp.array([0.1, 1.0]), jnp.array(0.6)


class Root:
    """A mass that depends on the state: a·y·y′ = t."""

    start = jnp.array([1.2])

    @staticmethod
    def residual(t, y, dy, args):
        return args[0] * y * dy - t

    @staticmethod
    def solution(t, y0, t0, args):
        return jnp.sqrt(y0**2 + (t**2 - t0**2) / args[0])


class Turning:
    """w₁′ = −a·w₁, w₂ = c·w₁² in coordinates that turn, and the null space of ∂F/∂y′ with them."""

    start = jnp.array([1.0, 0.3])

    @staticmethod
    def axes(t):
        return jnp.stack([jnp.stack([jnp.cos(t), -jnp.sin(t)]), jnp.stack([jnp.sin(t), jnp.cos(t)])])

    @classmethod
    def residual(cls, t, y, dy, args):
        q, dq = cls.axes(t), jax.jacfwd(cls.axes)(t)
        w, dw = y @ q, dy @ q + y @ dq
        return jnp.stack([dw[0] + args[0] * w[0], w[1] - args[1] * w[0] ** 2])

    @classmethod
    def solution(cls, t, y0, t0, args):
        first = (y0 @ cls.axes(t0))[0] * jnp.exp(-args[0] * (t - t0))
        return cls.axes(t) @ jnp.stack([first, args[1] * first**2])


class Cubic:
    """The slope enters nonlinearly: y′³ + y′ + c·y = 0."""

    start = jnp.array([0.8])

    @staticmethod
    def residual(t, y, dy, args):
        return dy**3 + dy + args[1] * y

    @staticmethod
    def solution(t, y0, t0, args):
        """With y′ = −p: c·(t − t₀) = 3(p₀² − p²)/2 + log(p₀/p)."""
        p0 = 2 / jnp.sqrt(3.0) * jnp.sinh(jnp.arcsinh(1.5 * jnp.sqrt(3.0) * args[1] * y0) / 3)

        def newton(_, u):
            p2 = jnp.exp(2 * u)
            return u + (1.5 * (p0**2 - p2) + jnp.log(p0) - u - args[1] * (t - t0)) / (3 * p2 + 1)

        p = jnp.exp(jax.lax.fori_loop(0, 20, newton, jnp.log(p0)))
        return (p**3 + p) / args[1]


class Jump:
    """y′ = z, and z = c before the stop, 3c·y after it."""

    start = jnp.array([0.7, 0.0])

    @staticmethod
    def residual(t, y, dy, args):
        return jnp.stack([dy[0] - y[1], y[1] - jnp.where(t < args[2], args[1], 3 * args[1] * y[0])])

    @staticmethod
    def solution(t, y0, t0, args):
        c, stop = args[1], args[2]
        y = (y0[0] + c * (jnp.minimum(t, stop) - t0)) * jnp.exp(3 * c * jnp.maximum(t - stop, 0))
        return jnp.stack([y, jnp.where(t > stop, 3 * c * y, c)])


def as_residual(case, args, start, span):
    return jde.DAEProblem(case.residual, start, None, (span[0], span[1]), args)


def as_mass(case, args, start, span):
    """The same where F = (1, 0)·y′ − f."""
    f = lambda t, y, args: -case.residual(t, y, jnp.zeros_like(y), args)
    return jde.ODEProblem(f, start, (span[0], span[1]), args, mass_matrix=jnp.array([1.0, 0.0]))


def loss(at_saved, at_end):
    return jnp.sum(jnp.sin(at_saved)) + at_end[0] ** 2 - 0.4 * at_end[-1]


@pytest.mark.parametrize(
    "case, form, gradient",
    [
        (Root, as_residual, jde.InterpolatingAdjoint()),
        (Turning, as_residual, jde.GaussAdjoint()),
        (Cubic, as_residual, jde.GaussAdjoint(rtol=1e-7, atol=1e-7)),
        (Jump, as_residual, jde.QuadratureAdjoint()),
        (Jump, as_mass, jde.GaussAdjoint()),
        (Jump, as_mass, jde.BacksolveAdjoint()),
    ],
    ids=lambda x: getattr(x, "__name__", type(x).__name__),
)
def test_all_derivatives(case, form, gradient):
    def computed(args, start, span, saved):
        stops = args[2] if case is Jump else ()
        ts = jnp.stack([saved, span[1]])
        ys = jde.solve(form(case, args, start, span), jde.BDF(), stops=stops, saveat=ts, gradient=gradient, **TIGHT).ys
        return loss(*ys)

    def exact(args, start, span, saved):
        return loss(*(case.solution(t, start, span[0], args) for t in (saved, span[1])))

    at = ARGS, case.start, SPAN, SAVED
    found, wanted = (jax.jit(jax.value_and_grad(f, range(4)))(*at) for f in (computed, exact))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=3e-6)
