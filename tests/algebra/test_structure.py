"""Every structure does what dense algebra does, with fewer derivatives and less memory."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiffeq.algebra.order import bandwidth, colours, groups, reverse_cuthill_mckee
from jaxdiffeq.algebra.structure import (
    Banded,
    BlockDiagonal,
    Dense,
    Diagonal,
    Layout,
    Sparse,
    of_complex,
    radius,
    solve,
    times_mass,
)
from jaxdiffeq.primitives.jax_internals import aval_of


def band(n, lower, upper):
    i, j = np.indices((n, n))
    return (i - j <= lower) & (j - i <= upper)


def shuffled(pattern, seed):
    order = np.random.default_rng(seed).permutation(len(pattern))
    return pattern[order][:, order]


def uneven():
    pattern = np.eye(11, dtype=bool)
    pattern[:3, :3] = pattern[3:5, 3:5] = True
    return pattern


CASES = {
    "dense 3": (Dense(), np.ones((3, 3), bool), None),
    "dense 30": (Dense(), np.ones((30, 30), bool), None),
    "diagonal": (Diagonal(), np.eye(9, dtype=bool), 1),
    "blocks": (BlockDiagonal(3), np.kron(np.eye(3), np.ones((3, 3))) > 0, 3),
    "tridiagonal": (Banded(1, 1), band(11, 1, 1), 1),
    "wide below": (Banded(2, 1), band(14, 2, 1), 2),
    "above only": (Banded(0, 3), band(17, 0, 3), 3),
    "no band": (Banded(0, 0), np.eye(9, dtype=bool), 1),
    "a band as wide as the matrix": (Banded(8, 8), np.ones((9, 9), bool), None),
    "shuffled band": (Sparse.of(shuffled(band(16, 2, 2), 1)), shuffled(band(16, 2, 2), 1), 2),
    "shuffled blocks": (
        Sparse.of(shuffled(np.kron(np.eye(3), np.ones((3, 3))) > 0, 2)),
        shuffled(np.kron(np.eye(3), np.ones((3, 3))) > 0, 2),
        3,
    ),
    "uneven blocks": (Sparse.of(uneven()), uneven(), 3),
}
each = pytest.mark.parametrize("name", CASES)


def case(name):
    structure, pattern, _ = CASES[name]
    n = len(pattern)
    a = jnp.asarray(np.random.default_rng(n).normal(size=(n, n)) * pattern)

    def g(y):
        return a @ y + 0.5 * jnp.sin(y)

    return structure.bind(n), g, jnp.linspace(-1.0, 1.0, n), pattern


@each
def test_blocks_are_as_small_as_the_pattern_allows(name):
    algebra, *_ = case(name)
    width = CASES[name][2]
    assert (algebra.k if isinstance(algebra, Layout) else None) == width


@each
def test_shifted_systems(name):
    """With a singular diagonal as mass, and with a matrix."""
    algebra, g, y, pattern = case(name)
    n, c = y.size, jnp.asarray(7.0)
    numbers = np.random.default_rng(1).normal(size=(n, n))
    diagonal = np.append(0.0, numbers[0, 1:])
    masses = jnp.asarray(diagonal), jnp.asarray(numbers * pattern)
    b = jnp.asarray(numbers[1])

    @jax.jit
    def everything(b):
        value, jacobian = algebra.jacobian(g, y)
        dense = jax.jacfwd(g)(y)

        def use(w):
            factors = algebra.factor(w)
            return algebra.times(w, b), *(algebra.solve(factors, b, transpose) for transpose in (False, True))

        ws = jax.tree.map(lambda *ws: jnp.stack(ws), *(algebra.shifted(c, m, jacobian) for m in masses))
        massive = [times_mass(m, b) for m in masses]
        return value, dense, (jacobian, algebra.given(dense)), massive, jax.lax.map(use, ws)  # each compiled once

    value, dense, (jacobian, given), massive, results = everything(b)
    np.testing.assert_allclose(value, g(y), rtol=1e-13)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-13, atol=1e-13), jacobian, given)
    for k, full in enumerate([np.diag(diagonal), numbers * pattern]):
        w = 7.0 * full - np.asarray(dense)
        x, turned = np.linalg.solve(w, b), np.linalg.solve(w.T, b)
        slack = 1e-13 * np.linalg.cond(w) * max(abs(x).max(), abs(turned).max())
        product, plain, transposed = (result[k] for result in results)
        np.testing.assert_allclose(massive[k], full @ b, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(product, w @ b, rtol=1e-11, atol=1e-11)
        np.testing.assert_allclose(plain, x, atol=slack)
        np.testing.assert_allclose(transposed, turned, atol=slack)


@pytest.mark.parametrize("name", ["dense 3", "blocks", "tridiagonal", "shuffled band"])
def test_derivatives_of_a_solution_are_those_of_the_equation(name):
    algebra, g, y, _ = case(name)
    b = jnp.cos(y)

    def through(solver):
        return lambda y, b: jnp.sum(jnp.sin(solver(y, b)))

    def structured(y, b):
        _, jacobian = algebra.jacobian(g, y)
        w = algebra.shifted(jnp.asarray(9.0), None, jacobian)
        return solve(algebra, w, algebra.factor(w), b)

    def plain(y, b):
        return jnp.linalg.solve(9.0 * jnp.eye(y.size) - jax.jacfwd(g)(y), b)

    @jax.jit
    def everything(y, b):
        return [
            (jax.grad(through(s), argnums=(0, 1))(y, b), jax.jvp(through(s), (y, b), (jnp.ones_like(y), y)))
            for s in (structured, plain)
        ]

    for ours, theirs in zip(*map(jax.tree.leaves, everything(y, b)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def test_a_derivative_for_each_colour_not_for_each_unknown():
    def count(structure, n):
        made = []

        def g(y):
            made.append(y)
            return y * jnp.roll(y, 1)

        program = jax.make_jaxpr(lambda y: structure.bind(n).jacobian(g, y))(jnp.ones(n))
        shapes = [aval_of(v).shape for eqn in program.eqns for v in eqn.outvars]
        return max(shape[0] for shape in shapes if shape[1:] == (n,))

    assert count(Banded(1, 1), 100) == 3
    assert count(BlockDiagonal(4), 100) == 4
    assert count(Diagonal(), 100) == 1


@pytest.mark.parametrize(("structure", "entries"), [(Banded(1, 1), 3), (BlockDiagonal(3), 3)])
def test_memory_is_that_of_the_entries(structure, entries):
    """Ten thousand unknowns: a dense matrix would take 800 MB."""
    n = 9_999
    algebra = structure.bind(n)

    def step(y):
        _, jacobian = algebra.jacobian(lambda y: y**3 - y, y)
        w = algebra.shifted(jnp.asarray(2.0), None, jacobian)
        return algebra.solve(algebra.factor(w), y)

    memory = jax.jit(step).lower(jnp.ones(n)).compile().memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < 20 * entries * n * 8


@pytest.mark.parametrize("scale", [1.0, 1e-200])
def test_radius(scale):
    a = jnp.diag(jnp.array([-100.0, 3.0, 1.0])) + jnp.triu(jnp.ones((3, 3)), 1)
    assert abs(radius(Dense(), scale * a, 3) / scale - 100) < 1
    turning = jnp.array([[0.0, 50.0], [-50.0, 0.0]])
    assert abs(radius(Dense(), turning, 2) - 50) < 1e-9
    assert radius(Dense(), jnp.zeros((2, 2)), 2) == 0


def test_orders():
    pattern = shuffled(band(60, 1, 1), 3)
    i, j = np.nonzero(pattern)
    order = reverse_cuthill_mckee(60, i, j)
    assert sorted(order) == list(range(60))
    assert bandwidth(order, i, j) == 1
    colour = colours(60, i, j, order)
    assert colour.max() == 2
    for row in pattern:
        assert len(set(colour[row])) == row.sum()
    assert sorted(map(len, groups(11, *np.nonzero(uneven())))) == [1] * 6 + [2, 3]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Banded(-1, 0), "`Banded\\(lower\\)` must be an integer, zero or more, but is -1"),
        (lambda: BlockDiagonal(0), "`BlockDiagonal\\(size\\)` must be a positive integer"),
        (lambda: BlockDiagonal(3).bind(10), "does not fit a state of 10 numbers: 3 must divide it"),
        (lambda: Sparse((0, 5), (0, 1)).bind(4), "names entry 5, but the state has 4 numbers: 0 to 3"),
        (lambda: Sparse((0,), (0, 1)).bind(4), "as many rows as columns, but has 1 and 2"),
    ],
)
def test_bad_structures(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "structure",
    [Diagonal(), BlockDiagonal(2), Banded(1, 2), Sparse.of(np.eye(6) + np.eye(6, k=5))],
    ids=lambda s: type(s).__name__,
)
def test_complex_states_have_the_structure_too(structure):
    """The pattern of the real vector holds every entry of the Jacobian of a function that is not holomorphic."""
    n, rng = 6, np.random.default_rng(1)
    i, j = structure.pairs(n)
    a, b = (
        jnp.zeros((2, n, n), complex).at[:, i, j].set(rng.normal(size=(2, len(i))) + 1j * rng.normal(size=(2, len(i))))
    )

    def real(v):
        z = jax.lax.complex(v[:n], v[n:])
        w = a @ z + b @ jnp.conj(z)
        return jnp.concatenate([w.real, w.imag])

    algebra: Any = of_complex(structure, n).bind(2 * n)  # whose Jacobian has a form of its own
    v = jnp.asarray(rng.normal(size=2 * n))
    _, jacobian = algebra.jacobian(real, v)
    np.testing.assert_allclose(algebra.times(jacobian, v), jax.jacfwd(real)(v) @ v, rtol=1e-12)
