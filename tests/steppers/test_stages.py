"""Stages as a loop: the same steps as those written out, and one program for all stages where that pays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.made import MADE

import jaxdiffeq as jde
from jaxdiffeq.engine.control import Tolerance
from jaxdiffeq.problems.vector_field import VectorField
from jaxdiffeq.steppers import stages
from jaxdiffeq.steppers.dirk import DIRK
from jaxdiffeq.steppers.explicit import ExplicitRK
from jaxdiffeq.steppers.rosenbrock import Rosenbrock
from jaxdiffeq.types import State

METHODS = {m.name: m for m in MADE.values() if isinstance(m, ExplicitRK | DIRK | Rosenbrock)}
EPS = np.finfo(float).eps
END = jde.SaveAt(t1=True)


def triangles(method):
    """All that a stage takes from the stages before it, row i with its first i entries."""
    tableau = method.tableau
    extra = [getattr(tableau, "g", None), getattr(tableau, "predictor", None)]
    pair = getattr(tableau, "explicit", None)
    for rows in (tableau.a, *extra, pair and pair.a):
        if rows is not None:
            yield [row[:i] for i, row in enumerate(rows)]


@pytest.mark.parametrize("name", METHODS)
def test_a_table_has_every_weight_in_its_place(name):
    n = METHODS[name].tableau.stages
    slopes = np.random.default_rng(0).normal(size=(n, 2))
    for rows in triangles(METHODS[name]):
        columns = stages.table(rows, n, float)
        seen = stages.nothing_yet(n, jnp.zeros(2))
        for i, row in enumerate(rows):
            found = stages.combined([column[i] for column in columns], seen)
            np.testing.assert_allclose(found, sum((w * k for w, k in zip(row, slopes, strict=False)), np.zeros(2)))
            seen = stages.put_first(seen, jnp.asarray(slopes[i]))
        np.testing.assert_array_equal(stages.in_order(seen), slopes)


def swing(t, y, args):
    return jnp.stack([y[1], -args * jnp.sin(y[0]) + jnp.cos(3 * t)])


TOLERANCE = Tolerance(jnp.array(1e-6), jnp.array(1e-6))


def rounding(rows):
    """Four units of it, times the largest weight by which the rounding of a slope is multiplied."""
    return 4 * EPS * max((1.0, *(abs(w) for row in rows for w in row)))


def rounding_of(method):
    """Of the stages, and of the interpolant."""
    if method.name in ONE_FORM:
        return 0.0, 0.0
    interpolant = method.tableau.interpolant
    dense = [] if interpolant is None else [*interpolant.b, *getattr(interpolant, "a", ())]
    return rounding([row for triangle in triangles(method) for row in triangle]), rounding([(1.0,), *dense])


TWO_FORMS = ["Tsit5", "DP8", "Euler", "Vern9", "ROS3P", "Rosenbrock23", "Rodas5P"]  # ROS3P asks f twice at one place
ONE_FORM = ["Adams", "BDF", "KenCarp4", "RadauIIA5", "SBDF4"]


@pytest.mark.parametrize("name", [*TWO_FORMS, *ONE_FORM])
@pytest.mark.parametrize("dtype", [float, complex])
def test_compact_steps_are_the_same_to_four_roundings(name, dtype):
    method, y, t1 = MADE[name], jnp.array([0.4, -0.3], dtype), jnp.array(0.3)
    field, args, t = VectorField(swing), jnp.array(1.3, dtype), jnp.array(0.1)

    def step(method):
        taken = method.step(field, State(t, y, method.init(field, t, y, args)), t1, args, TOLERANCE)
        return (taken.after, taken.error), method.polynomial(field, taken.dense, args)

    def both():
        return step(method), step(method.compact)

    if dtype is complex:
        field = VectorField(lambda t, y, args: args * y * (1 + 0j * y) + jnp.conj(y))
    of_stages, of_interpolant = rounding_of(method)
    (written, dense), (looped, other) = jax.jit(both)()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=of_stages), written, looped)
    values = np.vander(np.linspace(0, 1, 9), len(dense), increasing=True)
    np.testing.assert_allclose(
        values @ np.asarray(dense), values @ np.asarray(other), rtol=0, atol=of_stages + of_interpolant
    )
    assert (name in ONE_FORM) == (method.compact == method)


def test_both_methods_of_a_pair_become_compact():
    pair = jde.AutoTsit5(jde.Rosenbrock23())
    assert pair.compact.nonstiff.looped and pair.compact.stiff.looped and not pair.nonstiff.looped


def sines(n, name):
    """How often sin stands in the compiled program of a solve with n numbers, whose f has one."""
    problem = jde.ODEProblem(lambda t, y, a: a * jnp.sin(y), jnp.ones(n), (0.0, 1.0), jac_structure=jde.Diagonal())
    run = jax.jit(lambda a: jde.solve(problem, METHODS[name], args=a, saveat=END).ys)
    return str(run.lower(1.0).compile().as_text()).count(" sine(")


def test_one_program_serves_all_stages_in_a_kernel_and_only_there():
    assert sines(2, "Kvaerno5") == sines(2, "Kvaerno3")
    assert sines(5000, "Kvaerno5") == sines(5000, "Kvaerno3") + 3  # stages
