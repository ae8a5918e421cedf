"""Rows of buffers, one in each lane: against NumPy, in every mode, inside a kernel and outside."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiffeq.primitives.row_buffer import put_row
from jaxdiffeq.primitives.while_loop import frozen_while

RNG = np.random.default_rng(5)
ROWS, LANES = 4, 3
BUFFER, VALUE = RNG.normal(size=(LANES, ROWS, 2)), RNG.normal(size=(LANES, 2))
ROW = np.array([2, 0, 3], np.int32)


def by_hand(buffer, row, value):
    out = np.array(buffer)
    out[row] = value
    return out


def in_a_loop(buffer, row, value):
    """The same after two trips of a loop, which is a kernel if it may be."""

    def trip(moving, i):
        return put_row(moving, row, i.astype(float) * value), i + 1

    return frozen_while(lambda _, i: i < 2, trip, buffer, jnp.zeros((), jnp.int32))[0]


LANED = {
    "all": ((0, 0, 0), lambda i: (BUFFER[i], ROW[i], VALUE[i])),
    "rows": ((None, 0, None), lambda i: (BUFFER[0], ROW[i], VALUE[0])),
    "values": ((None, None, 0), lambda i: (BUFFER[0], ROW[0], VALUE[i])),
    "buffers": ((0, None, None), lambda i: (BUFFER[i], ROW[0], VALUE[0])),
}


@pytest.mark.parametrize("put", [put_row, in_a_loop], ids=["alone", "in a kernel"])
@pytest.mark.parametrize("which", LANED)
def test_every_lane_writes_its_own_row(which, put):
    axes, operands = LANED[which]
    given = [x[0] if a is None else x for x, a in zip((BUFFER, ROW, VALUE), axes, strict=True)]
    found = jax.jit(jax.vmap(put, axes))(*map(jnp.asarray, given))
    np.testing.assert_array_equal(found, [by_hand(*operands(i)) for i in range(LANES)])


def test_lanes_of_lanes():
    rows = np.stack([ROW, ROW[::-1]])
    found = jax.vmap(jax.vmap(put_row), (None, 0, None))(jnp.asarray(BUFFER), jnp.asarray(rows), jnp.asarray(VALUE))
    wanted = [[by_hand(BUFFER[i], rows[j, i], VALUE[i]) for i in range(LANES)] for j in range(2)]
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("lanes", [False, True])
def test_derivatives_are_those_of_an_update(lanes):
    operands = (BUFFER, VALUE) if lanes else (BUFFER[0], VALUE[0])
    row = jnp.asarray(ROW) if lanes else jnp.asarray(ROW[0])
    ours = lambda b, v: put_row(b, row, v)
    plain = lambda b, v: b.at[row].set(v)
    if lanes:
        ours, plain = (jax.vmap(lambda b, r, v, f=f: f(b, r, v)) for f in (put_row, lambda b, r, v: b.at[r].set(v)))
        ours, plain = (lambda b, v, f=f: f(b, row, v) for f in (ours, plain))
    square = lambda f: lambda b, v: jnp.sum(f(b, v) ** 3)
    operands = tuple(map(jnp.asarray, operands))
    for mode in (jax.grad, jax.jacfwd, jax.hessian):
        found, wanted = (mode(square(f), argnums=(0, 1))(*operands) for f in (ours, plain))
        jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_only_the_value_has_a_derivative():
    """And only the buffer: what the other operand is constant to has no cotangent."""
    buffer, row, value = jnp.asarray(BUFFER[0]), jnp.asarray(ROW[0]), jnp.asarray(VALUE[0])
    (of_value,) = jax.vjp(lambda v: put_row(buffer, row, v), value)[1](buffer)
    np.testing.assert_array_equal(of_value, buffer[row])
    (of_buffer,) = jax.vjp(lambda b: put_row(b, row, value), buffer)[1](buffer)
    np.testing.assert_array_equal(of_buffer, by_hand(buffer, row, 0))


def test_a_kernel_holds_lanes_that_write_rows():
    text = jax.jit(jax.vmap(in_a_loop)).lower(BUFFER, ROW, VALUE).compile().as_text()
    assert text is not None and "xla_cpu_small_call" in text and "scatter(" not in text
