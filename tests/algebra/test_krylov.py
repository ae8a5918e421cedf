"""Systems without a matrix are solved as those with one, or not at all."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiffeq as jde
from jaxdiffeq.algebra.krylov import Krylov, MatrixFree, Point, gmres
from jaxdiffeq.algebra.structure import Dense, radius, solve

RANDOM = np.random.default_rng(0)
FULL = RANDOM.normal(size=(30, 30)) + 12.0 * np.eye(30)
B = RANDOM.normal(size=30)


@functools.partial(jax.jit, static_argnums=(2,))
def found_by(matrix, b, options, nearly=None):
    prepare = (lambda x: x) if nearly is None else (lambda x: nearly @ x)
    return gmres(lambda x: matrix @ x, prepare, b, options)


@pytest.mark.parametrize("restart", [30, 7])
@pytest.mark.parametrize("prepared", [False, True])
def test_gmres(restart, prepared):
    nearly = np.linalg.inv(FULL + 0.1) if prepared else None
    x = found_by(FULL, B, MatrixFree(rtol=1e-12, restart=restart), nearly)
    assert np.linalg.norm(FULL @ x - B) <= 1e-12 * np.linalg.norm(B)


def test_a_good_preconditioner_takes_few_iterations():
    """Its own inverse takes one, where no preconditioner takes as many as there are eigenvalues."""
    sizes = np.geomspace(1.0, 1e4, 30)
    few = MatrixFree(rtol=1e-8, iterations=2)
    assert np.all(np.isnan(found_by(np.diag(sizes), B, few, np.eye(30))))
    np.testing.assert_allclose(found_by(np.diag(sizes), B, few, np.diag(1 / sizes)), B / sizes, rtol=1e-8)


def test_a_search_that_fails_says_nan():
    """Too few iterations; no solution; not a number."""
    assert np.all(np.isnan(found_by(FULL, B, MatrixFree(iterations=3))))
    singular = np.diag(np.append(np.ones(29), 0.0))
    assert np.all(np.isnan(found_by(singular, B, MatrixFree())))
    assert np.all(np.isnan(found_by(FULL, np.append(B[:-1], np.nan), MatrixFree())))


@pytest.mark.parametrize("unit", [1.0, 1e-250, 1e250])
def test_any_unit(unit):
    x = found_by(FULL, unit * B, MatrixFree())
    np.testing.assert_allclose(x / unit, np.linalg.solve(FULL, B), rtol=1e-8)


def test_nothing_in_nothing_out_and_a_system_of_one():
    assert np.all(found_by(FULL, np.zeros(30), MatrixFree()) == 0)
    np.testing.assert_allclose(found_by(np.array([[4.0]]), np.array([2.0]), MatrixFree()), [0.5])


def test_as_good_as_rounding_allows_is_good_enough():
    """Where rounding leaves a larger residual than asked for: what an LU would leave, too."""
    w = np.diag(np.geomspace(1.0, 1e9, 30)) + 0.3 * np.triu(np.ones((30, 30)), 1)
    x = found_by(w, B, MatrixFree(rtol=1e-15))
    assert np.all(np.isfinite(x))
    assert np.linalg.norm(w @ x - B) < 1e-13 * np.linalg.norm(w) * np.linalg.norm(x)


def test_lanes_are_single_solves():
    many = RANDOM.normal(size=(5, 30))
    together = jax.vmap(lambda b: found_by(FULL, b, MatrixFree(restart=10)))(many)
    alone = [found_by(FULL, b, MatrixFree(restart=10)) for b in many]
    np.testing.assert_allclose(together, np.stack(alone), rtol=1e-8, atol=1e-12)


# ---- as an algebra


def slope(t, v, args):
    strength, shift, key = args
    noise = jax.random.normal(key, v.shape, v.dtype)
    return strength * jnp.sin(jnp.roll(v, shift[0])) - t * v**3 + v[::-1] * noise


ARGS = (jnp.asarray(0.7), jnp.array([1], jnp.int32), jax.random.key(3))
V = jnp.linspace(-1.0, 1.0, 9)
OURS = Krylov(MatrixFree(rtol=1e-13), slope, lambda t, v, args, c, x: x / (c + 3.0 * t * v**2))
MASSES = {"none": None, "diagonal": np.append(0.0, np.ones(8)), "matrix": np.eye(9) + 0.1 * np.tri(9)}


@pytest.mark.parametrize("mass", MASSES)
def test_shifted_systems(mass):
    m, t, c = MASSES[mass], jnp.asarray(0.4), jnp.asarray(11.0)
    m = None if m is None else jnp.asarray(m)

    @jax.jit
    def everything(b):
        value, point = OURS.at(slope, None, (t, V, ARGS))
        w = OURS.shifted(c, m, point)
        solved = [OURS.solve(OURS.factor(w), b, transpose) for transpose in (False, True)]
        return value, OURS.times(point, b), OURS.times(w, b), solved, OURS.magnitude(point)

    b = jnp.cos(V)
    dense = np.asarray(jax.jacfwd(lambda v: slope(t, v, ARGS))(V))
    value, along, product, (x, turned), size = everything(b)
    w = np.asarray(Dense().shifted(c, m, jnp.asarray(dense)))
    np.testing.assert_allclose(value, slope(t, V, ARGS), rtol=1e-14)
    np.testing.assert_allclose(along, dense @ b, rtol=1e-12)
    np.testing.assert_allclose(product, w @ b, rtol=1e-12)
    np.testing.assert_allclose(x, np.linalg.solve(w, b), rtol=1e-9)
    np.testing.assert_allclose(turned, np.linalg.solve(w.T, b), rtol=1e-9)
    np.testing.assert_allclose(size, radius(Dense(), jnp.asarray(dense), 9), rtol=1e-10)


def test_derivatives_of_a_solution_are_those_of_the_equation():
    def through(algebra, jacobian):
        def of(strength, b):
            args = (strength, *ARGS[1:])
            w = algebra.shifted(jnp.asarray(9.0), None, jacobian(args))
            return jnp.sum(jnp.sin(solve(algebra, w, algebra.factor(w), b)))

        return of

    t, b = jnp.asarray(0.4), jnp.cos(V)
    ours = through(OURS, lambda args: OURS.at(slope, None, (t, V, args))[1])
    dense = through(Dense(), lambda args: Dense().jacobian(lambda v: slope(t, v, args), V)[1])

    def everything(f):
        return jax.grad(f, argnums=(0, 1))(ARGS[0], b), jax.hessian(f)(ARGS[0], b)

    for a, e in zip(*[jax.tree.leaves(jax.jit(lambda f=f: everything(f))()) for f in (ours, dense)], strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-9)


def test_a_point_is_a_tree_of_numbers():
    """That loops and conditions can carry: keys of random numbers as their data, and the same shape in every trace."""
    point = Point.of(jnp.asarray(0.0), V, ARGS)
    assert all(jnp.issubdtype(x.dtype, jnp.number) for x in jax.tree.leaves(point))
    assert jax.tree.structure(point) == jax.tree.structure(Point.of(jnp.asarray(1.0), V, ARGS))
    again = jax.jit(lambda p: p)(point)
    assert jax.random.key_data(again.args[2]).tolist() == jax.random.key_data(ARGS[2]).tolist()


def test_ten_thousand_unknowns_in_the_memory_of_the_basis():
    """A dense matrix would take 800 MB."""
    n, restart = 10_000, 10

    def spread(t, v, args):
        return args * (jnp.roll(v, 1) - 2.0 * v + jnp.roll(v, -1))

    algebra = Krylov(MatrixFree(restart=restart), spread, None)

    def step(v, b):
        _, point = algebra.at(spread, None, (jnp.asarray(0.0), v, jnp.asarray(0.2)))
        return algebra.solve(algebra.shifted(jnp.asarray(1.0), None, point), b)

    compiled = jax.jit(step).lower(jnp.ones(n), jnp.ones(n)).compile()
    memory = compiled.memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < 4 * (restart + 5) * n * 8
    x = np.arange(n) * 2 * np.pi / n
    rate = 1 + 0.2 * 4 * np.sin(np.pi * 50 / n) ** 2
    np.testing.assert_allclose(compiled(jnp.ones(n), jnp.cos(50 * x)), np.cos(50 * x) / rate, atol=1e-9)


# ---- in solves

N = 12
START = np.sin(np.pi * np.arange(1, N + 1) / (N + 1))
P = jnp.array([60.0, 3.0])


def diffuse(t, y, p):
    z = jnp.pad(y, 1)
    return p[0] * (z[2:] - 2.0 * y + z[:-2]) - p[1] * y**3 + jnp.cos(t)


def by_diagonal(t, y, p, c, v):
    return v / (c + 2.0 * p[0] + 3.0 * p[1] * y**2)


METHODS = [jde.Rosenbrock23(), jde.Kvaerno3(), jde.BDF()]


def ends(method, structure):
    problem = jde.ODEProblem(diffuse, START, (0.0, 0.5), P, jac_structure=structure)
    options = {"saveat": jde.SaveAt(t1=True), "rtol": 1e-6, "atol": 1e-8}  # dense factors are used again, and err by it
    return lambda p: jde.solve(problem, method, args=p, **options).ys[-1]


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_solves_and_gradients_are_those_of_dense_algebra(method):
    def everything(structure):
        value, pull = jax.vjp(ends(method, structure), P)
        return value, pull(jnp.ones(N))[0]

    free, dense = (jax.jit(functools.partial(everything, s))() for s in (MatrixFree(by_diagonal, rtol=1e-11), None))
    for ours, theirs in zip(free, dense, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-8)


def test_forward_derivatives():
    def everything(structure):
        problem = jde.ODEProblem(diffuse, START, (0.0, 0.5), P, jac_structure=structure)
        options = {"saveat": jde.SaveAt(t1=True), "controller": jde.FixedSteps(20)}
        return jax.jvp(lambda p: jde.solve(problem, jde.ImplicitEuler(), args=p, **options).ys[-1], (P,), (P,))

    free, dense = (jax.jit(functools.partial(everything, s))() for s in (MatrixFree(rtol=1e-12), None))
    for ours, theirs in zip(free, dense, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4)  # as far as Newton's method goes


def test_a_system_that_is_not_solved_refuses_the_step():
    """With one iteration a step is either so short that it is solved, or not taken: never a wrong answer."""
    problem = jde.ODEProblem(diffuse, START, (0.0, 0.5), P, jac_structure=MatrixFree(iterations=1))
    sol = jde.solve(problem, jde.Rosenbrock23(), saveat=jde.SaveAt(t1=True), rtol=1e-3, throw=False, max_steps=50)
    assert not sol.ok
    assert sol.stats.rejected_solver > 0
    assert np.all(np.isnan(sol.ys[-1]))


def test_trees_complex_numbers_and_masses():
    """The preconditioner sees states as f does; M = diag(1, 0) keeps the second component at the first's square."""

    def f(t, y, args):
        return {"u": (args * y["u"]), "w": y["u"] ** 2 - y["w"]}

    def nearly(t, y, args, c, v):
        assert y["u"].shape == v["w"].shape == (2,)
        return {"u": v["u"] / (c - args), "w": v["w"]}

    y0, rate = {"u": np.array([1.0 + 0.0j, 0.5j]), "w": np.array([1.0 + 0.0j, -0.25 + 0.0j])}, -1.0 + 2.0j
    mass = {"u": np.ones(2), "w": np.zeros(2)}
    problem = jde.ODEProblem(f, y0, (0.0, 1.0), rate, mass_matrix=mass, jac_structure=MatrixFree(nearly))
    end = jde.solve(problem, jde.Rodas3P(), saveat=jde.SaveAt(t1=True), rtol=1e-6, atol=1e-8).ys
    exact = np.exp(rate) * y0["u"]
    np.testing.assert_allclose(end["u"][-1], exact, rtol=1e-5)
    np.testing.assert_allclose(end["w"][-1], exact**2, rtol=1e-5)


def test_steady_states():
    def f(y, p):
        return diffuse(0.0, y, p)

    def state(structure):
        problem = jde.SteadyStateProblem(f, START, P, jac_structure=structure)
        return lambda p: jnp.sum(jde.solve(problem, args=p, rtol=1e-9, atol=1e-11).ys ** 2)

    free, dense = (jax.jit(jax.value_and_grad(state(s)))(P) for s in (MatrixFree(by_diagonal), None))
    for ours, theirs in zip(free, dense, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-7)


def test_what_it_does_not_serve():
    problem = jde.ODEProblem(diffuse, START, (0.0, 0.5), P, jac_structure=MatrixFree())
    with pytest.raises(NotImplementedError, match="does not serve methods whose stages are coupled"):
        jde.solve(problem, jde.RadauIIA5())
    implicit = jde.DAEProblem(lambda t, y, dy, p: dy + y, START, -START, (0.0, 1.0), jac_structure=MatrixFree())
    with pytest.raises(NotImplementedError, match="does not serve a DAEProblem"):
        jde.solve(implicit, jde.BDF())
    with pytest.raises(TypeError, match="`preconditioner` must take 5 arguments"):
        MatrixFree(lambda v: v)
    with pytest.raises(ValueError, match="MatrixFree\\(iterations\\)"):
        MatrixFree(iterations=0)
