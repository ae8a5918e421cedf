"""One equation for each kind of noise: not linear, not autonomous, with a drift that couples its two components."""

import jax.numpy as jnp
from given_noise import Problem

from jaxdiffeq.noise.kinds import Kind


def drift(t, y, args):
    a, b = y
    return jnp.stack([jnp.sin(2 * b) - 0.5 * a + 0.3 * jnp.cos(t), jnp.cos(a) - 0.5 * a * b])


def diagonal(t, y, args):
    a, b = y
    return jnp.stack([0.5 + 0.35 * jnp.cos(a) + 0.2 * jnp.sin(3 * t), 0.4 + 0.3 * jnp.sin(b)])


def scalar(t, y, args):
    a, b = y
    return jnp.stack([0.5 + 0.35 * jnp.cos(b) + 0.2 * jnp.sin(3 * t), 0.4 * jnp.sin(a)])


def additive(t, y, args):
    return jnp.array([[0.5, 0.2, -0.3], [0.1, -0.4, 0.2]], y.dtype) * jnp.cos(2 * t).astype(y.dtype)


def commutative(t, y, args):
    """A dilation and a rotation."""
    return jnp.stack([0.5 * y, 0.6 * turned(y)], -1)


def general(t, y, args):
    """Three columns of which no two commute."""
    bent = jnp.stack([y[1], jnp.sin(y[0])])
    return jnp.stack([0.6 * turned(y), 0.5 * bent, 0.4 * y[::-1] * jnp.cos(t).astype(y.dtype)], -1)


def coupled(t, y, args):
    """Of each component's own noise the size depends on the other one: it does not commute."""
    a, b = y
    return jnp.stack([0.5 + 0.35 * jnp.cos(a) * b + 0.2 * jnp.sin(3 * t), 0.4 + 0.3 * jnp.sin(b) + 0.2 * a])


def turned(y):
    return jnp.stack([-y[1], y[0]])


Y0 = (0.7, -0.4)
PROBLEMS = {
    "diagonal": Problem(Kind("diagonal"), drift, diagonal, Y0),
    "scalar": Problem(Kind("scalar"), drift, scalar, Y0),
    "additive": Problem(Kind("additive", 3), drift, additive, Y0),
    "commutative": Problem(Kind("commutative", 2), drift, commutative, Y0),
    "general": Problem(Kind("general", 3), drift, general, Y0),
}
COUPLED = Problem(Kind("diagonal"), drift, coupled, Y0)
