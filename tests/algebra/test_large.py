"""Ten thousand unknowns from one end to the other: right, and in memory as for the entries, not for a matrix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiffeq as jde

CELLS = 3_333
POINTS = 10_000
RATES = np.array([0.04, 3e7, 1e4]) * np.random.default_rng(0).uniform(0.5, 2.0, size=(CELLS, 3))
MODE = np.sin(np.pi * np.arange(1, POINTS + 1) / (POINTS + 1))


def robertson(t, y, rates):
    a, b, c = y
    slow, fast, back = rates[0] * a, rates[1] * b * b, rates[2] * b * c
    return jnp.stack([-slow + back, slow - back - fast, fast])


def ensemble(t, y, rates):
    cells = jax.vmap(robertson, (None, 0, 0))(t, y.reshape(-1, 3), rates)
    return cells.reshape(-1)


def diffusion(t, y, a):
    z = jnp.pad(y, 1)
    return a * (y.size + 1) ** 2 * (z[2:] - 2.0 * y + z[:-2])


def cells(n):
    start = np.tile([1.0, 0.0, 0.0], n)
    return jde.ODEProblem(ensemble, start, (0.0, 40.0), RATES[:n], jac_structure=jde.BlockDiagonal(3))


def rod(n):
    start = MODE[:n] * 1.0
    return jde.ODEProblem(diffusion, start, (0.0, 0.1), 0.5, jac_structure=jde.Banded(1, 1))


def end(problem, method, rtol):
    options = {"saveat": jde.SaveAt(t1=True), "rtol": rtol, "atol": 1e-4 * rtol}
    return jax.jit(lambda y0: jde.solve(problem, method, y0=y0, **options).ys[-1])


@pytest.mark.parametrize("method", [jde.Rodas3(), jde.BDF()], ids=repr)
def test_an_ensemble_as_one_system(method):
    """3333 Robertson problems as one: each cell is what it is alone."""
    problem = cells(CELLS)
    compiled = end(problem, method, 1e-5).lower(problem.y0).compile()
    memory = compiled.memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < 20 * 3 * 3 * CELLS * 8  # dense: 800 MB a matrix
    found = compiled(problem.y0).reshape(CELLS, 3)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, rtol=1e-10)

    def alone(rates):
        single = jde.ODEProblem(robertson, problem.y0[:3], (0.0, 40.0), rates)
        return jde.solve(single, jde.Rodas4(), saveat=jde.SaveAt(t1=True), rtol=1e-8, atol=1e-12).ys[-1]

    some = [0, 1, 1000, CELLS - 1]
    expected = jax.jit(jax.vmap(alone))(RATES[np.array(some)])
    np.testing.assert_allclose(found[np.array(some)], expected, rtol=1e-3)


def test_a_rod_of_ten_thousand_points():
    """The first mode of the differences decays by itself."""
    problem = rod(POINTS)
    compiled = end(problem, jde.Rodas3(), 1e-6).lower(problem.y0).compile()
    memory = compiled.memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < 20 * 3 * POINTS * 8
    rate = 0.5 * (2 * (POINTS + 1) * np.sin(np.pi / 2 / (POINTS + 1))) ** 2
    np.testing.assert_allclose(compiled(problem.y0), np.exp(-0.1 * rate) * MODE, atol=1e-5)


@pytest.mark.parametrize("make", [cells, rod], ids=["blocks", "band"])
def test_gradients_take_no_matrix_either(make):
    """The log of the steps and all: a tenth of one dense matrix, at most."""
    problem = make(3 * CELLS if make is rod else CELLS)
    solution = end(problem, jde.Rosenbrock23(), 1e-4)
    memory = jax.jit(jax.grad(lambda y0: jnp.sum(solution(y0)))).lower(problem.y0).compile().memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < 0.1 * 8 * problem.y0.size**2
