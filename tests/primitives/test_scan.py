"""The scan primitive against the same trips written out by hand, in every mode of differentiation, twice over."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxdiffeq.primitives.scan import scan

Y, P, XS = jnp.array([0.3, 0.4]), jnp.array([0.2, 0.1]), jnp.array([0.2, 0.5, 1.0])
HOW = [{"reverse": a, "written_out": b} for a in (False, True) for b in (False, True)]


@jax.custom_jvp
def ruled(x):
    return jnp.sin(x)


ruled.defjvp(lambda x, dx: (ruled(*x), 3 * ruled(*x) * dx[0]))  # no derivative of the sine: forgetting it shows


def by_hand(body, carry, xs, reverse=False):
    rows = []
    for x in xs[::-1] if reverse else xs:
        carry, row = body(carry, x)
        rows.append(row)
    return carry, jax.tree.map(lambda *column: jnp.stack(column[::-1] if reverse else column), *rows)


def program(loop):
    """A function of a state, parameters and rows, through the carry and through what is stacked."""

    def run(y, p, xs):
        growth = jnp.exp(p[0])  # the same in every trip

        def body(carry, x):
            y, n, seen = carry
            after = ruled(y) * x * growth + p[1] * y
            return (after, n + 1, lax.stop_gradient(seen + jnp.sum(after))), (y * x * growth, n)

        (y, n, seen), (rows, numbers) = loop(body, (y, jnp.array(0), jnp.zeros(())), xs)
        return jnp.sum(y**2) * n.astype(float) + seen + jnp.sum(rows**2 * numbers[:, None].astype(float))

    return run


def lanes(f):
    """Of states, of parameters, and of rows: batched operands of each kind."""
    return lambda y, p, xs: (
        jax.vmap(f, (0, None, None))(jnp.stack([y, 2 * y]), p, xs),
        jax.vmap(f, (None, 0, None))(y, jnp.stack([p, 2 * p]), xs),
        jax.vmap(f, (None, None, 1))(y, p, jnp.stack([xs, 2 * xs], 1)),
    )


def reverse(f):
    return jax.grad(f, (0, 1, 2))


def forward(f):
    return jax.jacfwd(f, (0, 1, 2))


MODES = {
    "value": lambda f: f,
    "reverse": reverse,
    "forward": forward,
    "forward over reverse": lambda f: forward(reverse(f)),
    "reverse over reverse": lambda f: jax.jacrev(reverse(f), (0, 1, 2)),
    "reverse over forward": lambda f: jax.jacrev(forward(f), (0, 1, 2)),
    "third": lambda f: jax.jacfwd(jax.jacfwd(jax.grad(f, 1), 1), 0),
    "lanes": lanes,
    "lanes of gradients": lambda f: lanes(reverse(f)),
    "gradients of lanes": lambda f: reverse(lambda *at: sum(jnp.sum(x) for x in lanes(f)(*at))),
}


@functools.cache
def wanted(mode, backwards):
    return jax.jit(MODES[mode](program(functools.partial(by_hand, reverse=backwards))))(Y, P, XS)


# All modes as a loop; in the other ways, which share the rules, those that go through all of them.
EVERY = ["forward over reverse", "gradients of lanes", "third"]


@pytest.mark.parametrize(
    ("how", "mode"), [(how, mode) for i, how in enumerate(HOW) for mode in (MODES if i == 0 else EVERY)], ids=str
)
def test_as_if_written_out_by_hand(mode, how):
    ours = jax.jit(MODES[mode](program(lambda *of: scan(*of, **how))))(Y, P, XS)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-13), ours, wanted(mode, how["reverse"])
    )


def test_outside_of_jit_and_without_rows_to_hand_out():
    doubled = lambda y, x: (2 * y + x, None)
    y, nothing = scan(doubled, jnp.ones(2), jnp.arange(3.0))
    np.testing.assert_array_equal(y, np.full(2, 12.0))
    assert nothing is None


def test_integers_and_flags_have_no_tangents():
    def run(y):
        body = lambda carry, x: ((carry[0] * x, carry[1] + 1, ~carry[2]), carry[1])
        return scan(body, (y, 0, True), jnp.array([2.0, 3.0]))

    ((y, n, flag), numbers), ((d_y, d_n, d_flag), _) = jax.jvp(run, (1.0,), (1.0,))
    assert (y, n, flag, d_y) == (6, 2, True, 6)
    assert d_n.dtype == d_flag.dtype == jax.dtypes.float0
    np.testing.assert_array_equal(numbers, [0, 1])


def test_what_does_not_vary_has_no_derivative():
    def run(y):
        return scan(lambda c, x: (c + x, None), jnp.zeros(()), XS)[0] + y

    jaxpr = jax.make_jaxpr(lambda y: jax.jvp(run, (y,), (1.0,)))(1.0)
    assert str(jaxpr).count("faithful_scan[") == 1


@pytest.mark.parametrize("how", HOW, ids=str)
def test_no_trip(how):
    body = lambda y, x: (jnp.sin(y) * x, y)
    (y, rows), pull = jax.vjp(lambda y, xs: scan(body, y, xs, **how), Y, XS[:0])
    np.testing.assert_array_equal(y, Y)
    assert rows.shape == (0, 2)
    found = pull((Y, rows))
    np.testing.assert_array_equal(found[0], Y)
    assert found[1].shape == (0,)


def test_a_carry_that_changes_type():
    with pytest.raises(AssertionError, match="the carry changes type"):
        scan(lambda y, x: (jnp.stack([y, y]), None), jnp.zeros(()), XS)


@pytest.mark.parametrize("written_out", [False, True])
def test_written_out_has_no_loop(written_out):
    run = jax.jit(lambda y: scan(lambda y, x: (jnp.sin(y) * x, y), y, XS, written_out=written_out))
    assert ("while" in run.lower(Y).as_text()) is not written_out


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="a lowering for the CPU")
@pytest.mark.parametrize("matrix", [None, jnp.eye(2)], ids=["kernels", "a product is none"])
def test_a_scan_and_its_derivative_are_a_kernel_each(matrix):
    def end(y):
        trip = lambda y, x: (jnp.sin(y if matrix is None else matrix @ y) * x, None)
        return jnp.sum(scan(trip, y, XS)[0])

    def marks(f):
        text = jax.jit(f).lower(Y).compile().as_text()
        assert text is not None
        return text.count('inlineable="false"')

    assert bool(marks(end)) is (matrix is None)
    assert marks(jax.grad(end)) == 2 * marks(end)
