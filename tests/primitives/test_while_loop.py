"""The loop primitive: batching, forward mode, what is constant, uninitialised buffers, and the one-kernel lowering."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxdiffeq.primitives.dataflow import dependencies
from jaxdiffeq.primitives.jax_internals import consts_first
from jaxdiffeq.primitives.while_loop import frozen_while


def repeat(x, n, rate):
    """x ← x + rate·sin(x), n times."""

    def running(_, k):
        return k < n

    def body(x, k):
        live = k < n
        return jnp.where(live, x + rate * jnp.sin(x), x), k + live.astype(k.dtype)

    return frozen_while(running, body, x, jnp.zeros((), jnp.int32))


def by_hand(x, n, rate):
    """The same in NumPy, with dx/dx₀ and dx/drate."""
    d_x, d_rate = 1.0, 0.0
    for _ in range(int(n)):
        grow = 1 + rate * np.cos(x)
        d_x, d_rate = d_x * grow, d_rate * grow + np.sin(x)
        x = x + rate * np.sin(x)
    return x, d_x, d_rate


def test_values():
    x, k = jax.jit(repeat)(0.3, 7, 0.1)
    assert k == 7
    np.testing.assert_allclose(x, by_hand(0.3, 7, 0.1)[0], rtol=1e-15)
    x, k = repeat(0.3, 0, 0.1)  # no trip, outside of jit
    assert (x, k) == (0.3, 0)


def test_forward_mode():
    x, d_x, d_rate = by_hand(0.3, 7, 0.1)
    for argument, wanted in ((0, d_x), (2, d_rate)):
        tangents = [0.0, np.zeros((), jax.dtypes.float0), 0.0]
        tangents[argument] = 1.0
        (value, k), (d, d_k) = jax.jvp(repeat, (0.3, 7, 0.1), tuple(tangents))
        np.testing.assert_allclose((value, d), (x, wanted), rtol=1e-14)
        assert k == 7
        assert d_k.dtype == jax.dtypes.float0


def test_fixed_is_constant_to_differentiation():
    def f(x):
        def running(_, fixed):
            return fixed[0] < 3

        def body(y, fixed):
            k, sum_of_y = fixed
            return y * x, (k + 1, sum_of_y + y)

        return frozen_while(running, body, x, (0, jnp.zeros(())))

    (y, (_, total)), (d_y, (_, d_total)) = jax.jvp(f, (2.0,), (1.0,))
    assert (y, total) == (16.0, 14.0)
    assert d_y == 4 * 2.0**3
    assert d_total == 0


def test_a_loop_without_live_inputs_has_zero_derivative():
    _, d = jax.jvp(lambda x: (repeat(0.3, 3, 0.1)[0], x), (1.0,), (1.0,))
    assert d == (0.0, 1.0)


@pytest.mark.parametrize("batched", [(0, None, None), (None, 0, None), (None, None, 0), (0, 0, 0), (0, None, 0)])
def test_vmap(batched):
    xs, ns, rates = np.array([0.1, 0.5, 2.0]), np.array([3, 0, 9], np.int32), np.array([0.1, -0.3, 0.7])
    arguments = [v if b == 0 else v[2] for v, b in zip((xs, ns, rates), batched, strict=True)]
    x, k = jax.jit(jax.vmap(repeat, batched))(*arguments)
    for i in range(3):
        lane = [v[i] if b == 0 else v for v, b in zip(arguments, batched, strict=True)]
        np.testing.assert_allclose(x[i], by_hand(*lane)[0], rtol=1e-14)
        assert k[i] == lane[1]


def test_nested_vmap_and_other_axes():
    xs, ns = np.array([[0.1, 0.5, 2.0], [0.2, 0.4, 0.6]]), np.array([4, 1], np.int32)
    x, k = jax.vmap(jax.vmap(repeat, (0, None, None)), (1, None, None), out_axes=1)(xs, 4, 0.1)
    np.testing.assert_allclose(x, by_hand(xs, 4, 0.1)[0], rtol=1e-14)
    x, k = jax.vmap(jax.vmap(repeat, (0, None, None)), (0, 0, None))(xs, ns, 0.1)
    for i in range(2):
        np.testing.assert_allclose(x[i], by_hand(xs[i], ns[i], 0.1)[0], rtol=1e-14)
    np.testing.assert_array_equal(k, np.repeat(ns[:, None], 3, 1))


def test_jvp_of_vmap_and_vmap_of_jvp():
    xs, ns = np.array([0.1, 0.5, 2.0]), np.array([3, 0, 9], np.int32)
    wanted = np.array([by_hand(x, n, 0.1) for x, n in zip(xs, ns, strict=True)]).T
    _, d = jax.jvp(lambda x: jax.vmap(repeat, (0, 0, None))(x, ns, 0.1)[0], (xs,), (np.ones(3),))
    np.testing.assert_allclose(d, wanted[1], rtol=1e-13)
    d = jax.vmap(lambda x, n: jax.jvp(lambda r: repeat(x, n, r)[0], (0.1,), (1.0,))[1])(xs, ns)
    np.testing.assert_allclose(d, wanted[2], rtol=1e-13, atol=1e-15)


def test_forward_over_forward():
    second = jax.jit(jax.jacfwd(jax.jacfwd(lambda x: repeat(x, 5, 0.1)[0])))(0.3)
    step = 1e-5
    near = [by_hand(0.3 + s, 5, 0.1)[1] for s in (-step, step)]
    np.testing.assert_allclose(second, (near[1] - near[0]) / (2 * step), rtol=1e-8)


def test_only_what_may_differ_is_batched():
    def f(x, n):
        def running(c, k):
            return k < n

        def body(c, k):
            return (c[0] + x, c[1] * 2), k + 1

        return frozen_while(running, body, (jnp.zeros(()), jnp.ones(())), 0)

    text = str(jax.make_jaxpr(jax.vmap(f, (0, None)))(np.arange(3.0), 4))
    assert "moving" in text
    (a, b), k = jax.vmap(f, (0, None), out_axes=((0, None), None))(np.arange(3.0), 4)  # None: refused if batched
    np.testing.assert_array_equal(a, 4 * np.arange(3.0))
    assert (b, k) == (16.0, 4)


def fill(x, n):
    """Writes x·k in row k of an uninitialised buffer, and returns it."""

    def running(_, k):
        return k < n

    def body(buffer, k):
        row = jnp.where(k < n, k, 4)  # the spare row
        return lax.dynamic_update_index_in_dim(buffer, x * k.astype(x.dtype), row, 0), jnp.where(k < n, k + 1, k)

    return frozen_while(running, body, jax.ShapeDtypeStruct((5,), np.float64), jnp.zeros((), jnp.int32))[0]


def test_uninitialised_buffers():
    np.testing.assert_array_equal(jax.jit(fill)(2.0, 4)[:4], [0, 2, 4, 6])
    rows = jax.vmap(fill)(np.array([1.0, 3.0]), np.array([2, 4], np.int32))
    np.testing.assert_array_equal(rows[0, :2], [0, 1])
    np.testing.assert_array_equal(rows[1, :4], [0, 3, 6, 9])
    _, d = jax.jvp(lambda x: fill(x, 4)[:4], (2.0,), (1.0,))
    np.testing.assert_array_equal(d, [0, 1, 2, 3])
    d = jax.vmap(lambda x: jax.jvp(lambda x: fill(x, 4)[:4], (x,), (1.0,))[1])(np.array([2.0, 5.0]))
    np.testing.assert_array_equal(d, [[0, 1, 2, 3]] * 2)


def test_reverse_mode_says_what_to_do():
    def tangent(d):
        return jax.jvp(lambda x: repeat(x, 3, 0.1)[0], (0.3,), (d,))[1]

    with pytest.raises(NotImplementedError, match=r"jax\.hessian"):
        jax.linear_transpose(tangent, 0.3)(1.0)
    with pytest.raises(ValueError, match="reverse-mode"):  # JAX's own, before it comes to a transpose
        jax.grad(lambda x: repeat(x, 3, 0.1)[0])(0.3)


def test_a_carry_that_changes_type_is_refused():
    with pytest.raises(AssertionError, match="changes type"):
        frozen_while(lambda c, k: k < 3, lambda c, k: (c.astype(jnp.float32), k + 1), jnp.zeros(()), 0)


def test_dependencies():
    def found(f, *args):
        return [set(d) for d in dependencies(consts_first(jax.make_jaxpr(f)(*args)).jaxpr)]

    x = jnp.ones(())
    assert found(lambda a, b, c: (a + b, 1.0, c), x, x, x) == [{0, 1}, set(), {2}]
    assert found(lambda a, b, c: jax.jit(lambda p, q: (q, p))(a, b), x, x, x) == [{1}, {0}]
    assert found(lambda p, a, b: lax.cond(p > 0, lambda: (a, b), lambda: (-a, a)), x, x, x) == [{0, 1}, {0, 1, 2}]
    assert found(lambda a, b: lax.scan(lambda c, _: (c + a, None), b, None, 3)[0], x, x) == [{0, 1}]

    def loop(a, b, n):
        def body(c, k):
            _, q = c
            return (q, q), k + 1

        return *frozen_while(lambda c, k: k < n, body, (a, b), 0)[0], a

    n = jnp.array(3)
    assert found(loop, x, x, n) == [{0, 1, 2}, {1, 2}, {0}]


# ---- one kernel on the CPU


OURS = 'inlineable="false"'  # beside `xla_cpu_small_call`, which XLA sets by itself for the smallest loops


def compiled(body, carry, *, n=3):
    def run(carry):
        return frozen_while(lambda c, k: k < n, lambda c, k: (body(c), k + 1), carry, 0)[0]

    text = jax.jit(run).lower(carry).compile().as_text()
    assert text is not None
    return text


needs_cpu = pytest.mark.skipif(jax.default_backend() != "cpu", reason="a lowering for the CPU")


@needs_cpu
@pytest.mark.parametrize(
    "body",
    [lambda x: x + 0.1 * jnp.sin(x), lambda x: jnp.where(jnp.sum(x) > 0, x * x, -x), lambda x: x.at[0].get() * x],
)
def test_small_bodies_become_one_kernel(body):
    text = compiled(body, jnp.ones(300))
    assert 'xla_cpu_small_call="true"' in text
    assert OURS in text


@needs_cpu
@pytest.mark.parametrize(
    "body", [lambda x: jnp.ones((3, 3)) @ x, lambda x: x.at[jnp.argmax(x)].add(1.0), lambda x: x[jnp.argsort(x)]]
)
def test_bodies_that_a_kernel_cannot_hold_do_not(body):
    assert OURS not in compiled(body, jnp.ones(3))


@needs_cpu
def test_big_bodies_do_not_become_one_kernel():
    assert OURS not in compiled(lambda x: x + 0.1 * jnp.sin(x), jnp.ones(100_000))


@needs_cpu
@pytest.mark.parametrize(
    "batch",
    [
        *("shapes", "structure", "operations", "transformations", "nesting", "fuzz"),
        *("structure whole", "transformations whole", "nesting whole"),
        *("shapes rows", "structure rows", "nesting rows", "fuzz rows"),
    ],
)
def test_no_body_aborts_the_process(batch):
    """XLA aborts where its emitter cannot go on, so each batch runs in a process of its own and is compared there."""
    script = Path(__file__).with_name("one_kernel.py")
    command = [sys.executable, str(script), *batch.split()]
    env = {**os.environ, "PYTHONPATH": str(script.parent.parent)}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
