"""`fused_region` is the function it is given, under every transformation that a solve goes through, and one kernel."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiffeq as jde
from jaxdiffeq.primitives.fused_region import fused_region
from jaxdiffeq.primitives.while_loop import frozen_while

needs_cpu = pytest.mark.skipif(jax.default_backend() != "cpu", reason="kernels are made on the CPU")
X = jnp.array([0.3, -0.7, 1.1])


def repeated(x, n):
    """Before, in and after a loop of n trips; the count is the fixed part."""

    def trip(y, k):
        live = k < n
        return jnp.where(live, jnp.sin(y) * 1.1, y), k + live.astype(k.dtype)

    y, k = frozen_while(lambda _, k: k < n, trip, x * x, 0)
    return {"y": jnp.cos(y), "n": k}, jnp.sum(y)


def whole(x, n=3):
    return fused_region(repeated, x, n)


def plain(x, n=3):
    return repeated(x, n)


def assert_same(transform, *args):
    ours, theirs = (jax.jit(transform(fun))(*args) for fun in (whole, plain))
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-14)


@pytest.mark.parametrize(
    "transform",
    [
        lambda fun: fun,
        lambda fun: lambda x: jax.jvp(lambda x: fun(x)[0]["y"], (x,), (jnp.ones(3),)),
        lambda fun: jax.jacfwd(jax.jacfwd(lambda x: fun(x)[0]["y"])),
        lambda fun: lambda x: jax.vmap(fun)(jnp.stack([x, 2 * x])),
        lambda fun: lambda x: jax.vmap(lambda n: fun(x, n))(jnp.arange(4)),
        lambda fun: lambda x: jax.vmap(jax.jacfwd(lambda x: fun(x)[0]["y"]))(jnp.stack([x, 2 * x])),
        lambda fun: jax.jacfwd(lambda x: jax.vmap(lambda a: fun(a * x)[0]["y"])(jnp.arange(1.0, 3.0))),
        lambda fun: lambda x: jax.lax.scan(lambda c, _: (fun(c)[0]["y"], c), x, length=3),
    ],
    ids=["jit", "jvp", "second", "vmap", "vmap of n", "vmap of jvp", "jvp of vmap", "scan"],
)
def test_transformations(transform):
    assert_same(transform, X)


def test_outside_of_jit():
    np.testing.assert_allclose(whole(X)[0]["y"], plain(X)[0]["y"], rtol=1e-14)


def test_the_second_part_is_constant_to_differentiation():
    _, (moved, constant) = jax.jvp(whole, (X,), (jnp.ones(3),))
    assert np.all(np.abs(moved["y"]) > 0)
    np.testing.assert_array_equal(constant, 0)


def test_what_no_lane_tells_apart_is_computed_once():
    out = jax.vmap(lambda a, b: fused_region(lambda a, b: ((a, b + 1), ()), a, b), (0, None), ((0, None), ()))
    (a, b), _ = out(jnp.arange(4.0), jnp.zeros(()))
    assert (a.shape, b.shape) == ((4,), ())


def test_reverse_mode_says_what_to_do():
    tangent = lambda d: jax.jvp(lambda x: whole(x)[0]["y"], (X,), (d,))[1]
    with pytest.raises(NotImplementedError, match=r"jax\.hessian"):
        jax.linear_transpose(tangent, X)(X)


def test_a_derivative_of_the_parts_has_every_mode():
    parts = lambda x: (jnp.sum(jnp.sin(x) * x[::-1]), jnp.sum(x))
    together = lambda x: fused_region(parts, x, derivative=False)
    lanes = lambda f: lambda x: jax.vmap(jax.grad(f))(jnp.stack([x, 2 * x]))
    for mode in (jax.grad, jax.jacfwd, jax.hessian, lanes, lambda f: jax.grad(jax.jit(f))):
        ours, theirs = (jax.jit(mode(lambda x, fun=fun: fun(x)[0]))(X) for fun in (together, parts))
        np.testing.assert_allclose(ours, theirs, rtol=1e-14)
    np.testing.assert_array_equal(jax.grad(lambda x: together(x)[1])(X), 0)


# -------------------- what XLA makes of it ----------------------------------------------------------------------------


def operations(fun, *args):
    """Of the program's entry: calls of kernels, and what is left beside them."""
    text = str(jax.jit(fun).lower(*args).compile().as_text())
    entry = re.search(r"^ENTRY .*?\{\n(.*?)^\}", text, re.M | re.S)
    assert entry is not None
    return len(re.findall(r" call\(", entry[1])), len(re.findall(r" (?:fusion|while)\(", entry[1]))


def solved(y0, rate):
    problem = jde.ODEProblem(lambda t, y, rate: -rate * y, y0, (0.0, 1.0), rate)
    return jde.solve(problem, jde.Tsit5(), saveat=np.linspace(0.0, 1.0, 5)).ys


@needs_cpu
def test_a_small_solve_is_one_kernel():
    kernels, others = operations(solved, X, 2.0)
    assert kernels == 1
    assert others <= 3  # for the rows that are handed out


@needs_cpu
def test_its_gradient_is_two():
    kernels, others = operations(jax.grad(lambda y0, rate: jnp.sum(solved(y0, rate))), X, 2.0)
    assert kernels == 2  # there and back
    assert others <= 6


@needs_cpu
def test_what_no_kernel_can_hold_is_left_as_it_was():
    def sorts(x):
        return fused_region(lambda x: (jnp.sort(repeated(x, 3)[0]["y"]), ()), x)[0]

    assert operations(sorts, X)[0] == 1  # the loop alone
    np.testing.assert_allclose(sorts(X), np.sort(plain(X)[0]["y"]), rtol=1e-14)
