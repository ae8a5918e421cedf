"""Weak orders without sampling: the mean of one step over all values of its random numbers, against the generator's."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from given_noise import Problem, ends, fine_path
from noisy_problems import COUPLED, PROBLEMS

from jaxdiffeq.methods import stochastic as methods
from jaxdiffeq.noise.kinds import Kind
from jaxdiffeq.steppers import weak
from jaxdiffeq.steppers.stabilized import SROCK2Stepper
from jaxdiffeq.types import Context, State

METHODS = {
    name: method
    for name in methods.__all__
    if (method := getattr(methods, name)()).strong_order is None and method.weak_order is not None
}
CASES = {**PROBLEMS, "coupled": COUPLED}
# one path through the code for all tableaux: of each family one method sees every kind of noise
EVERY = ("scalar", "additive", "coupled", "general")
OWN = ("scalar", "additive", "diagonal", "general")  # of each component's noise the size depends on itself alone
KINDS = {"DRI1": EVERY, "RS2": EVERY, "PL1WMA": ("additive",), "SROCK2": OWN}
PAIRS = [(name, kind) for name in METHODS for kind in KINDS.get(name, ("additive", "general"))]
TIME, WIDTHS = 0.2, (2.0**-6, 2.0**-7)
PATHS = 400


def moments(t, y):
    a, b = y
    return jnp.stack([a, b, a * a, a * b, b * b, a**3, a * a * b, a * b * b, b**4, a * a * b * b])


def generator(g, problem):
    """L g of dy = a dt + b dW: ∂g/∂t + ∇g·a + ½ Σₖ ∇²g[bᵏ, bᵏ]."""

    def made(t, y):
        a, b = problem.ito(t, y, None), problem.kind.matrix(problem.diffusion(t, y, None))
        value = jax.jvp(g, (t, y), (jnp.ones_like(t), a))[1]
        along = lambda y, v: jax.jvp(lambda y: g(t, y), (y,), (v,))[1]
        bends = jax.vmap(lambda v: jax.jvp(lambda y: along(y, v), (y,), (v,))[1], -1)(b)
        return value + 0.5 * jnp.sum(bends, 0)

    return made


@functools.cache
def expansion(kind):
    """Of the mean of `moments` over a short time: g, L g and ½ L²g."""
    problem = CASES[kind]
    once = generator(moments, problem)
    twice = generator(once, problem)
    t, y = jnp.array(TIME), jnp.array(problem.y0)
    return np.array(jax.jit(lambda: jnp.stack([moments(t, y), once(t, y), 0.5 * twice(t, y)]))())


@functools.cache
def keys(draw, m):
    """One for each value of what is drawn from it."""
    many = jax.random.split(jax.random.key(1), 1000)
    drawn = np.asarray(jax.vmap(lambda key: draw(key, m))(many))
    return jnp.stack(list({value.tobytes(): key for value, key in zip(drawn, many, strict=True)}.values()))


def two_point(key, m):
    return jax.random.rademacher(key, (m,), float)


def pairwise(key, m):
    return weak.signs(key, m, jnp.float64)


def pairwise_and_more(key, m):
    return jnp.append(pairwise(key, m), two_point(jax.random.fold_in(key, 1), m))


DRAWS = {weak.WeakIto: pairwise, weak.WeakStratonovich: two_point, SROCK2Stepper: pairwise_and_more}


def mean(method, kind, width):
    """Of `moments` after one step, over all values of the random numbers."""
    problem = CASES[kind]
    m = int(np.prod(problem.shape, dtype=int))
    values = np.array(list(itertools.product([1.0, 0.0, -1.0], repeat=m)))
    odds = np.prod(np.where(values == 0, 2 / 3, 1 / 6), 1)
    field = problem.field(method.interpretations[0]).at(None, Context(0))
    t, y = jnp.array(TIME), jnp.array(problem.y0)

    def after(value, key):
        w = (2 * np.sqrt(width) * value).reshape(1, *problem.shape)  # beyond the threshold, or zero
        args = {"noise": (w, jnp.zeros_like(w), key[None])}
        return moments(t + width, method.step(field, State(t, y, ()), t + width, args).after.y)

    drawn = keys(DRAWS.get(type(method), pairwise), m)
    each = jax.vmap(jax.vmap(after, (None, 0)), (0, None))(jnp.array(values), drawn)
    return odds @ np.mean(each, 1)


def order(method, kind):
    g, slope, bend = expansion(kind)
    errors = [np.linalg.norm(mean(method, kind, h) - g - h * slope - h * h * bend) for h in WIDTHS]
    return np.log2(errors[0] / errors[1]) - 1


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_weak_order(name, kind):
    method = METHODS[name]
    assert order(method, kind) == pytest.approx(method.weak_order, abs=0.15)


def test_three_noises_need_a_sign_for_each_pair(monkeypatch):
    """With m − 1 of them the order is one: the products of two with an index in common have a mean."""

    def fewer(key, m, dtype):
        upper = jnp.triu(jnp.broadcast_to(jax.random.rademacher(key, (m, 1), dtype), (m, m)), 1)
        return upper - upper.T

    monkeypatch.setattr(weak, "signs", fewer)
    keys.cache_clear()
    assert order(METHODS["DRI1"], "general") == pytest.approx(1, abs=0.15)
    keys.cache_clear()


def test_many_stages_are_stable():
    """Heat on a rod that noise warms as a whole, with steps three hundred times those of an explicit method."""
    n, method = 40, methods.SROCK2(40)
    rate = 0.42 * method.tableau.stages**2 * 10  # dt is 1/10
    heat = lambda t, y, args: 0.25 * rate * (jnp.roll(y, 1) - 2 * y + jnp.roll(y, -1))
    problem = Problem(Kind("scalar"), heat, lambda t, y, args: 0.2 * y, tuple(np.sin(np.arange(n)) + 1))
    path = fine_path((), 10, PATHS)
    y = ends(method, problem, path, "ito")
    assert np.max(np.abs(y - y.mean(1, keepdims=True))) < 1e-6
    middle = y.mean(
        1
    )  # with the drift of Stratonovich's calculus: E = y₀·exp(0.02), and its logarithm has variance 0.04
    deviation = np.exp(0.04) * np.sqrt(np.expm1(0.04)) / np.sqrt(PATHS)
    assert abs(middle.mean() / np.mean(problem.y0) - np.exp(0.02)) < 4 * deviation
