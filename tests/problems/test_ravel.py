"""States of every shape and dtype at the door, without a solve where one is not needed."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiffeq.problems.ravel import Ravel, as_array, close, common_dtype, inexact, inexact_dtype, split, time_dtype

DTYPES = {
    "int": (3, jnp.float64),
    "float": (3.0, jnp.float64),
    "bool": (True, jnp.float64),
    "complex": (1j, jnp.complex128),
    "int array": (np.arange(3, dtype=np.int8), jnp.float64),
    "float32": (np.float32(1), jnp.float64),  # a number without an axis is a plain number
    "float32 array": (np.ones(2, np.float32), jnp.float32),
    "float16 array": (np.ones(2, np.float16), jnp.float16),
    "bfloat16": (jnp.ones(2, jnp.bfloat16), jnp.bfloat16),
    "complex64": (jnp.ones(2, jnp.complex64), jnp.complex64),
    "jax scalar": (jnp.float32(1), jnp.float32),
}


@pytest.mark.parametrize("name", DTYPES)
def test_the_dtype_of_a_state_is_its_own_or_the_default_one(name):
    x, dtype = DTYPES[name]
    assert inexact_dtype(x) == dtype


def test_time_is_at_least_float32_and_that_of_the_span_where_it_has_one():
    f16, f32, f64, c64 = (np.dtype(d) for d in ("float16", "float32", "float64", "complex64"))
    assert time_dtype(f16, (0, 1)) == f32
    assert time_dtype(f32, (0.0, 1.0)) == f32
    assert time_dtype(c64, (0.0, 1.0)) == f32
    assert time_dtype(f64, (0, 1)) == f64
    assert time_dtype(f32, (jnp.zeros((), f64), jnp.ones((), f64))) == f64
    assert time_dtype(f64, (jnp.zeros((), f32), 1.0)) == f32
    assert time_dtype(f32, (np.arange(2)[0], 1)) == f32


def test_a_common_dtype_is_found_under_strict_promotion():
    with pytest.raises(Exception, match="promotion path"):
        jnp.result_type(jnp.float32, jnp.complex128)
    assert common_dtype((np.dtype("float32"), np.dtype("complex64"), np.dtype("float64"))) == jnp.complex128


def test_numbers_lose_their_weak_type():
    weak = jnp.asarray(1.0)
    assert weak.weak_type and not as_array(weak, jnp.dtype("float64")).weak_type
    assert isinstance(as_array(2, np.float32), np.ndarray)
    x = jnp.ones(2)
    assert as_array(x, x.dtype) is x


def test_what_is_saved_can_hold_nan():
    assert inexact(True, np.float32).dtype == np.float32
    assert inexact(jnp.arange(2), np.float64).dtype == np.float64
    assert inexact(1j, np.float64).dtype == np.complex128


TREES = [
    3,
    [1, 2.0],
    np.arange(6, dtype=np.int32).reshape(1, 2, 3),
    {"b": np.ones((2, 2), np.float32), "a": [np.zeros((0, 3)), (np.float64(4), np.ones((), np.float32))]},
    (np.ones(2, np.complex64), np.arange(3.0)),
]


@pytest.mark.parametrize("tree", TREES)
def test_pack_and_unpack_are_inverse(tree):
    ravel = Ravel.of(tree)
    packed = ravel.pack(tree)
    again = ravel.unpack(packed)
    assert jax.tree.structure(again) == jax.tree.structure(tree)
    for x, y in zip(jax.tree.leaves(tree), jax.tree.leaves(again), strict=True):
        assert y.shape == np.shape(x) and y.dtype == inexact_dtype(x)
        np.testing.assert_array_equal(y, x)
    assert packed.size == ravel.size
    rows = ravel.unpack_rows(np.stack([packed, 2 * packed]))
    for x, y in zip(jax.tree.leaves(tree), jax.tree.leaves(rows), strict=True):
        np.testing.assert_array_equal(y[1], 2 * np.asarray(x))


def test_one_array_keeps_its_shape():
    y = jnp.arange(12.0).reshape(3, 1, 4)
    assert Ravel.of({"only": y}).pack({"only": y}).shape == (3, 1, 4)


def test_real_leaves_beside_complex_ones_stay_real():
    tree = {"a": jnp.ones(2, jnp.float32), "b": jnp.ones((), jnp.complex128)}
    ravel = Ravel.of(tree)
    again = ravel.unpack(1j * ravel.pack(tree))
    assert again["a"].dtype == jnp.float32 and again["b"] == 1j
    np.testing.assert_array_equal(again["a"], np.zeros(2))


def test_tolerances_for_leaves_and_entries():
    ravel = Ravel.of({"a": jnp.ones((2, 2)), "b": 1.0})
    assert ravel.pack_tolerance(1e-3).shape == ()
    np.testing.assert_array_equal(ravel.pack_tolerance({"a": np.array([1.0, 2.0]), "b": 3}), [1, 2, 1, 2, 3])


def test_floats_are_arrays_and_everything_else_is_part_of_the_program():
    class Model(eqx.Module):
        weight: jax.Array
        size: int = eqx.field(static=True)

    tree = (Model(jnp.ones(2), 7), 1.5, 3, "name", None, 2j, np.float32(4), jnp.tanh)
    rest, arrays = split(tree)
    assert [str(jnp.result_type(x)) for x in arrays] == ["float64", "float64", "complex128", "float32"]
    assert rest == split((Model(jnp.zeros(2), 7), 2.5, 3, "name", None, 0j, np.float32(0), jnp.tanh))[0]
    assert rest != split((Model(jnp.ones(2), 7), 1.5, 4, "name", None, 2j, np.float32(4), jnp.tanh))[0]
    again = rest.join(arrays)
    assert jax.tree.structure(again) == jax.tree.structure(tree)
    assert again[2:5] == (3, "name", None) and again[0].size == 7


def test_closed_over_arrays_become_arguments():
    def loss(p):
        program, consts = close(lambda x: {"y": p * x}, 1.0)
        assert len(consts) == 1
        return program([10 * consts[0]], 3.0)["y"]

    assert jax.jit(loss)(2.0) == 60.0
    assert jax.grad(loss)(2.0) == 30.0
