"""Motion with friction and noise, on paths of which W, H and K are given."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from given_noise import GivenPath
from jax import lax

from jaxdiffeq.methods import stochastic as methods
from jaxdiffeq.problems.langevin_field import langevin
from jaxdiffeq.steppers.langevin import OfOrderThree, free
from jaxdiffeq.types import Context, Increment, State

METHODS = {name: getattr(methods, name)() for name in methods.LANGEVIN}
FINE, PATHS, LEVELS = 256, 100, (4, 8, 16, 32)
Y0 = jnp.array([[0.7, -0.4], [0.2, 0.5]])


def force(t, x, args):
    return -x - jnp.sin(2 * x[::-1]) + 0.5 * jnp.cos(t)


FIELD = langevin(
    force,
    lambda args: args["gamma"],
    lambda args: args["u"],
    GivenPath(),
    lambda args: args["noise"],
)


@functools.cache
def fine():
    """w, ∫w ds and ∫s·w ds of each step of a fine path. Shapes: [steps, paths, 2, 2]."""
    h = 1 / FINE
    w, area, k = np.random.default_rng(0).standard_normal((3, FINE, PATHS, 2, 2)) * np.sqrt(h)
    first = h * (area / np.sqrt(12) + w / 2)
    return w, first, h * first / 2 - h * h * k / np.sqrt(720) + h * h * w / 12


def in_steps(n):
    """W, H, K of n steps, and W, H of the first half of each."""

    def joined(n):
        times, h, part = FINE // n, 1 / n, 1 / FINE
        w, first, second = (x.reshape(n, times, *x.shape[1:]) for x in fine())
        before, since = np.cumsum(w, 1) - w, part * np.arange(times).reshape(-1, 1, 1, 1)
        a = np.sum(first + part * before, 1)
        b = np.sum(since * (first + part * before) + second + before * part**2 / 2, 1)
        w = w.sum(1)
        return w, a / h - w / 2, (h * a / 2 - b + h * h * w / 12) / h**2

    w, area, k = joined(n)
    halves = joined(2 * n)
    return w, area, k, halves[0][::2], halves[1][::2]


@functools.partial(jax.jit, static_argnums=0)
def _ends(method, n, noise, keys):
    def one(noise, key):
        *given, k, half_w, half_area = noise
        last = k if isinstance(method, OfOrderThree) else jax.random.split(key, len(k))
        args = {"gamma": jnp.array(1.5), "u": jnp.array(0.8), "noise": (*given, last, half_w, half_area)}
        trip = lambda i, at: method.step(FIELD.at(None, Context(i)), at, (i + 1) / n, args).after
        t = jnp.array(0.0)
        return lax.fori_loop(0, n, trip, State(t, Y0, method.init(FIELD, t, Y0, args))).y

    return jax.vmap(one, (1, 0))(noise, keys)


def ends(method, n, room):
    noise = tuple(jnp.asarray(np.concatenate([x, np.zeros((room - n, *x.shape[1:]))])) for x in in_steps(n))
    return np.asarray(_ends(method, jnp.asarray(n), noise, jax.random.split(jax.random.key(0), PATHS)))


def k_of_path(inc, h):
    return inc.key, jnp.zeros_like(inc.w)


def known(method):
    """With the K of the path; what else is drawn, too small to be seen, is not."""
    return replace(method, drawn=k_of_path) if isinstance(method, OfOrderThree) else method


@functools.cache
def reference():
    return ends(known(METHODS["QUICSORT"]), FINE // 2, FINE // 2)


@pytest.mark.parametrize("name", METHODS)
def test_strong_order(name):
    method = known(METHODS[name])
    errors = [np.sqrt(np.mean((ends(method, n, LEVELS[-1]) - reference()) ** 2)) for n in LEVELS]
    slope = -np.polyfit(np.log(LEVELS), np.log(errors), 1)[0]
    assert METHODS[name].strong_order == pytest.approx(slope, abs=0.2)
    assert errors[0] < 0.1


@pytest.mark.parametrize("of", [2, 3])
def test_the_free_motion_has_its_law(of):
    """The covariance of x₁ and v₁, for u = 1, from steps far shorter than 1/γ to far longer ones."""
    h = 0.7
    for z in (1e-2, 0.1, 1.0, 2.999, 3.001, 10.0, 1e3):
        g, one = z / h, free(jnp.array(z / h), jnp.array(h), of)
        parts = np.array(
            [[one.b, one.mean], [one.tilt, -g * one.tilt], [one.bend, -g * one.bend], [-one.rest, g * one.rest]]
        )
        found = 2 * g * (parts.T * [h, h / 12, h / 720, 1.0]) @ parts
        lost = -np.expm1(-z)
        way = 2 / g * (h - 2 * lost / g - np.expm1(-2 * z) / (2 * g))
        # the closed form of the variance of x₁ loses a share of 1/z³ of its digits
        np.testing.assert_allclose(found[0, 0], way, rtol=1e-14 + 1e-15 / z**3)
        np.testing.assert_allclose(found[0, 1], lost**2 / g, rtol=1e-13)
        np.testing.assert_allclose(found[1, 1], -np.expm1(-2 * z), rtol=1e-13)


@pytest.mark.parametrize("name", METHODS)
def test_long_run(name):
    """In a quadratic valley x and v are normal with variances 1 and u: over 2000 paths, within four standard errors."""
    paths, n, h = 2000, 60, 0.25
    method = METHODS[name]
    field = langevin(lambda t, x, args: -x, FIELD.friction, FIELD.inverse_mass, Drawn(), lambda args: args["key"])

    @jax.jit
    @jax.vmap
    def end(key):
        args = {"gamma": jnp.array(2.0), "u": jnp.array(1.5), "key": key}
        y, t = jnp.zeros((2, 1)), jnp.array(0.0)
        trip = lambda i, at: method.step(field.at(None, Context(i)), at, (i + 1) * h, args).after
        return lax.fori_loop(0, n, trip, State(t, y, method.init(field, t, y, args))).y[:, 0]

    x, v = np.asarray(end(jax.random.split(jax.random.key(7), paths))).T
    bias = 0.03 if METHODS[name].strong_order < 3 else 0.003  # of a step of this size
    for variance, exact in ((np.var(x), 1.0), (np.var(v), 1.5)):
        assert abs(variance / exact - 1) < 4 * np.sqrt(2 / paths) + bias


class Drawn:
    """Independent increments by the number of a step, and those of its first half that go with them."""

    def over(self, where, t0, t1, key):
        one, two = self.halves(where, t0, t1, key)
        w = one.w + two.w
        area = (one.area + two.area) / 2 + (one.w - two.w) / 4
        return Increment(w, area, jax.random.fold_in(key, where.number))

    def within(self, where, ends, t, key):
        return self.halves(where, ends[0], ends[1], key)[0]

    def halves(self, where, t0, t1, key):
        half = jnp.sqrt(0.5 * (t1 - t0))
        normal = half * jax.random.normal(jax.random.fold_in(jax.random.fold_in(key, where.number), 9), (2, 2, 2, 1))
        return [Increment(both[0], both[1] / 12**0.5, key) for both in normal]
