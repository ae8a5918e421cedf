"""Radau, Gauss and Lobatto methods: orders, stiff problems, DAEs, and derivatives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm

import jaxdiffeq as jde
from jaxdiffeq.algebra.newton import Newton
from jaxdiffeq.algebra.structure import Banded, BlockDiagonal, Dense, Entries, Sparse
from jaxdiffeq.methods import collocation
from jaxdiffeq.steppers.collocation import _Coupled, _form, _Stacked

FAMILIES = ["Gauss4", "LobattoIIIA4", "LobattoIIIB4", "LobattoIIIC4", "RadauIA5", "RadauIIA5", "RadauIIA13"]
END = jde.SaveAt(t1=True)


def method(name, **options):
    return getattr(collocation, name)(Newton(**options))


# -------------------- one step ----------------------------------------------------------------------------------------


def swing(t, y, a):
    """Nonlinear, and depends on t."""
    return jnp.stack([-2 * y[0] * y[1] + jnp.cos(t), y[0] - a * y[1] ** 2])


SWING = jde.ODEProblem(swing, jnp.array([1.0, 0.5]), (0.0, 2.0), 1.3)


@pytest.mark.parametrize("name", FAMILIES)
def test_one_step_is_the_stability_function(name):
    """dy/dt = a·y: y₁ = R(a·dt)·y₀, R(z) = 1 + z·bᵀ(1 − z·A)⁻¹·1, up to z = −1e8."""
    tableau = method(name).tableau
    z = jnp.array([-1.0, -30.0, -1e4, -1e8])
    problem = jde.ODEProblem(lambda t, y, a: a * y, 1.0, (0.0, 1.0))
    options = {"controller": jde.FixedSteps(1), "saveat": END, "rtol": 1e-10, "atol": 1e-10}
    found = jax.jit(jax.vmap(lambda a: jde.solve(problem, method(name), args=a, **options).ys[-1]))(z)
    a, b, one = np.array(tableau.a), np.array(tableau.b), np.ones(tableau.stages)
    exact = [1 + x * (b @ np.linalg.solve(np.eye(len(b)) - x * a, one)) for x in np.asarray(z)]
    np.testing.assert_allclose(found, exact, rtol=1e-6, atol=1e-8)


# -------------------- stiff problems ----------------------------------------------------------------------------------


def robertson(t, y, k):
    a, b, c = k[0] * y[0], k[1] * y[1] * y[2], k[2] * y[1] ** 2
    return jnp.stack([b - a, a - b - c, c])


def hires(t, y, _):
    a, b, c, d, e, f, g, h = y
    bind = 280 * f * h
    return jnp.stack(
        [
            -1.71 * a + 0.43 * b + 8.32 * c + 0.0007,
            1.71 * a - 8.75 * b,
            -10.03 * c + 0.43 * d + 0.035 * e,
            8.32 * b + 1.71 * c - 1.12 * d,
            -1.745 * e + 0.43 * f + 0.43 * g,
            -bind + 0.69 * d + 1.71 * e - 0.43 * f + 0.69 * g,
            bind - 1.81 * g,
            1.81 * g - bind,
        ]
    )


def van_der_pol(t, y, mu):
    return jnp.stack([y[1], mu * ((1 - y[0] ** 2) * y[1] - y[0])])


RATES = jnp.array([0.04, 1e4, 3e7])
ROBERTSON = jde.ODEProblem(robertson, jnp.array([1.0, 0.0, 0.0]), (0.0, 1e5), RATES)
HIRES = jde.ODEProblem(hires, jnp.array([1.0, 0, 0, 0, 0, 0, 0, 0.0057]), (0.0, 321.8122))
VAN_DER_POL = jde.ODEProblem(van_der_pol, jnp.array([2.0, 0.0]), (0.0, 2.0), 1e6)
STIFF = {  # the end values of the IVP test set; Robertson's by SciPy's Radau at rtol 1e-12
    "robertson": (ROBERTSON, [1.786592112e-02, 7.274751468e-08, 9.821340061e-01]),
    "hires": (
        HIRES,
        [
            *(7.371312573e-4, 1.442485726e-4, 5.888729741e-5, 1.175651343e-3),
            *(2.386356199e-3, 6.238968253e-3, 2.849998395e-3, 2.850001605e-3),
        ],
    ),
    "van der pol": (VAN_DER_POL, [1.70616773217, -0.89280970102]),
}


CASES = [(problem, "RadauIIA5") for problem in STIFF]
CASES += [
    (problem, name) for problem in ("robertson", "van der pol") for name in ("RadauIIA3", "RadauIIA9", "RadauIIA13")
]


@pytest.mark.parametrize(("problem", "name"), CASES)
def test_stiff_problems(problem, name):
    """The error at the end is some times the tolerance, at loose ones too; atol is small enough for y₂ of Robertson."""
    given, exact = STIFF[problem]
    run = jax.jit(lambda rtol: jde.solve(given, method(name), saveat=END, rtol=rtol, atol=1e-4 * rtol))
    for rtol in (1e-3, 1e-5, 1e-7):
        found = run(rtol)
        assert found.status == "success"
        np.testing.assert_allclose(found.ys[-1], exact, rtol=max(20 * rtol, 1e-8))


def test_a_step_back_of_the_stiff_limit():
    """y = cos t with λ = 1e8 from a state that is off it: the fast part dies in one step, the rest is as smooth."""
    problem = jde.ODEProblem(lambda t, y, a: -a * (y - jnp.cos(t)) - jnp.sin(t), 2.0, (0.0, 10.0), 1e8)
    found = jde.solve(problem, jde.RadauIIA5(), rtol=1e-6, atol=1e-6, saveat=END)
    np.testing.assert_allclose(found.ys[-1], np.cos(10.0), atol=1e-6)
    assert found.stats.steps < 150


# -------------------- mass matrices -----------------------------------------------------------------------------------


def test_a_dae_by_a_singular_mass_matrix():
    """Robertson's third equation in favour of Σy = 1."""

    def f(t, y, k):
        return robertson(t, y, k).at[2].set(jnp.sum(y) - 1)

    problem = jde.ODEProblem(f, ROBERTSON.y0, (0.0, 1e5), RATES, mass_matrix=jnp.array([1.0, 1.0, 0.0]))
    found = jde.solve(problem, jde.RadauIIA5(), rtol=1e-7, atol=1e-11, saveat=jnp.array([1.0, 1e3, 1e5]))
    np.testing.assert_allclose(found.ys[-1], STIFF["robertson"][1], rtol=1e-5)
    np.testing.assert_allclose(jnp.sum(found.ys, axis=1), 1, atol=1e-8)


@pytest.mark.parametrize("name", ["RadauIIA5", "LobattoIIIA4", "LobattoIIIC4"])
def test_a_mass_matrix(name):
    mass, a = np.array([[2.0, 1.0], [0.5, 3.0]]), np.array([[-1.0, 2.0], [0.0, -4.0]])
    problem = jde.ODEProblem(lambda t, y, a: a @ y, jnp.ones(2), (0.0, 1.0), jnp.array(a), mass_matrix=jnp.array(mass))
    exact = np.stack([expm(t * np.linalg.solve(mass, a)) @ np.ones(2) for t in (0.37, 1.0)])
    options = {"controller": jde.FixedSteps(20), "rtol": 1e-10, "atol": 1e-10, "saveat": jnp.array([0.37, 1.0])}
    found = jde.solve(problem, method(name), **options)
    np.testing.assert_allclose(found.ys, exact, rtol=2e-6)


def test_methods_that_take_none_say_so():
    problem = jde.ODEProblem(lambda t, y, a: -y, jnp.ones(2), (0.0, 1.0), mass_matrix=jnp.array([1.0, 0.0]))
    with pytest.raises(ValueError, match="mass matrix"):
        jde.solve(problem, jde.Gauss4(), controller=jde.FixedSteps(4))


# -------------------- derivatives and lanes ---------------------------------------------------------------------------


def loss(p, gradient, name="RadauIIA5", **options):
    """Of y0, args, both ends, and a time between steps."""
    problem = jde.ODEProblem(swing, jnp.stack([p[0], 0.5 * p[0]]), (p[2], p[3]), p[1])
    saveat = jde.SaveAt(ts=jnp.array([0.7]), t1=True)
    options = {"rtol": 1e-9, "atol": 1e-9, "saveat": saveat, "gradient": gradient, **options}
    ys = jde.solve(problem, method(name, iterations=30), **options).ys
    return ys[0, 0] + 2 * ys[1, 1]


POINT = jnp.array([1.0, 1.3, 0.1, 1.5])


@functools.cache
def differences():
    exact = jax.jit(lambda p: loss(p, jde.ReverseAD(), rtol=1e-13, atol=1e-13))
    h = 1e-4
    return [(exact(POINT + h * e) - exact(POINT - h * e)) / (2 * h) for e in jnp.eye(4)]


@pytest.mark.parametrize("strategy", [jde.ReverseAD(), jde.ForwardAD()], ids=["reverse", "forward"])
def test_gradients(strategy):
    gradient = jax.jit(jax.grad(lambda p: loss(p, strategy, rtol=1e-10, atol=1e-10)))(POINT)
    np.testing.assert_allclose(gradient, differences(), rtol=2e-7)


@pytest.mark.parametrize("name", ["LobattoIIIA4", "LobattoIIIB6"])
def test_gradients_of_equal_steps(name):
    """Methods with explicit stages; the differences are of the true solution, from which they are some 1e-5 away."""
    options = {"name": name, "controller": jde.FixedSteps(dt=0.05)}
    reverse = jax.jit(jax.grad(lambda p: loss(p, jde.ReverseAD(), **options)))(POINT)
    np.testing.assert_allclose(reverse, differences(), rtol=1e-4)


def test_lanes_are_single_solves():
    scales = jnp.array([0.5, 1.0, 2.0])
    end = lambda s: jde.solve(ROBERTSON, jde.RadauIIA5(), args=RATES * s, saveat=END, rtol=1e-6, atol=1e-10)
    many, one = jax.jit(jax.vmap(end))(scales), jax.jit(end)
    for i, s in enumerate(scales):
        np.testing.assert_allclose(many.ys[i], one(s).ys, rtol=1e-9)
        assert many.stats.steps[i] == one(s).stats.steps


def test_nan_outside_the_domain_reaches_nothing():
    """f is NaN for y < 0, where the first attempts lead; the solution stays above."""

    def f(t, y, a):
        return 1 - a * jnp.where(y < 0, jnp.nan, jnp.sqrt(jnp.maximum(y, 1e-300)))

    problem = jde.ODEProblem(f, jnp.array([1.0]), (0.0, 20.0), 10.0)

    def end(a):
        options = {"first_step": 5.0, "saveat": jde.SaveAt(ts=jnp.array([0.15]), t1=True), "rtol": 1e-9, "atol": 1e-12}
        return jde.solve(problem, jde.RadauIIA5(), args=a, **options)

    run = jax.jit(end)
    found, h = run(10.0), 1e-3
    assert found.status == "success"
    assert found.stats.rejected_solver > 0
    np.testing.assert_allclose(found.ys[-1], 0.01, rtol=1e-7)  # 1 = a·√y
    slope = (run(10.0 + h).ys[0] - run(10.0 - h).ys[0]) / (2 * h)
    for gradient in (jax.jacrev, jax.jacfwd):
        np.testing.assert_allclose(jax.jit(gradient(lambda a: end(a).ys[0]))(10.0), slope, rtol=1e-5)


# -------------------- other states ------------------------------------------------------------------------------------


def test_complex_states_whose_f_is_not_holomorphic():
    problem = jde.ODEProblem(lambda t, y, a: a * y - 0.3 * jnp.conj(y), jnp.array([1.0 + 0.5j]), (0.0, 2.0), 1.2j)
    found = jde.solve(problem, jde.RadauIIA9(), rtol=1e-10, atol=1e-10, saveat=jnp.array([0.9, 2.0]))
    exact = [expm(t * np.array([[-0.3, -1.2], [1.2, 0.3]])) @ [1.0, 0.5] for t in (0.9, 2.0)]
    np.testing.assert_allclose(found.ys[:, 0], [x + 1j * y for x, y in exact], rtol=1e-8)


@pytest.mark.parametrize(("name", "conserves"), [("Gauss4", True), ("Gauss6", True), ("RadauIIA5", False)])
def test_gauss_methods_conserve_quadratic_invariants(name, conserves):
    """Euler's equations of a rigid body: |y|² and the energy, but for what Newton's method leaves in 80 steps."""
    inertia = jnp.array([1.0, 2.0, 3.0])
    problem = jde.ODEProblem(lambda t, y, i: jnp.cross(y, y / i), jnp.array([0.4, 0.9, -0.3]), (0.0, 40.0), inertia)
    options = {"controller": jde.FixedSteps(80), "rtol": 1e-12, "atol": 1e-12, "saveat": END}
    y = jde.solve(problem, method(name, iterations=30), **options).ys[-1]
    drift = [abs(jnp.sum(w * (y**2 - problem.y0**2))) for w in (jnp.ones(3), 1 / inertia)]
    assert max(drift) < 80e-12 if conserves else max(drift) > 1e-8


# -------------------- structure ---------------------------------------------------------------------------------------

PATTERN = np.eye(7, dtype=bool)
PATTERN[[0, 4, 1], [3, 6, 5]] = True  # groups of two, and one alone: an empty place


@pytest.mark.parametrize(
    ("given", "of_slope"),
    [(Dense(), False), *((s, True) for s in (Dense(), Banded(1, 1), BlockDiagonal(4), Sparse.of(PATTERN)))],
    ids=lambda x: type(x).__name__ if not isinstance(x, bool) else "∂F/∂y′" if x else "M",
)
def test_all_stages_as_one_system(given, of_slope):
    """Against NumPy on the whole matrix, a⁻¹ᵢⱼ·Mᵢ/dt − δᵢⱼ·Jᵢ, and the same with one M and J through complex pairs."""
    rng = np.random.default_rng(7)
    n = 7 if isinstance(given, Sparse) else 8
    one, form, shift = given.bind(n), _form(collocation.RadauIIA5().tableau), 2.5
    random = lambda: jax.tree.map(lambda x: jnp.where(x == 0, 0, rng.normal(size=(3, *x.shape))), _pattern(one, n))
    number = lambda i, tree: jax.tree.map(lambda x: x[i], tree)
    full = lambda tree: [np.stack([one.times(number(i, tree), e) for e in jnp.eye(n)], 1) for i in range(3)]
    jacobians, masses = random(), Entries(random()) if of_slope else jnp.asarray(rng.normal(size=(3, n)))
    j, m = full(jacobians), full(masses.of) if isinstance(masses, Entries) else [np.diag(x) for x in masses]
    whole, same = np.zeros((3, n, 3, n)), np.zeros((3, n, 3, n))
    for i in range(3):
        whole[i] = shift * np.einsum("j,kl->kjl", form.inverse[i], m[i])
        whole[i, :, i] -= j[i]
        same[i] = shift * np.einsum("j,kl->kjl", form.inverse[i], m[0])
        same[i, :, i] -= j[0]
    whole, same = whole.reshape(3 * n, -1), same.reshape(3 * n, -1)
    stacked, b = _Stacked(one, one.repeated(3), form, n), jnp.asarray(rng.normal(size=3 * n))

    @jax.jit
    def everything(w, b):
        factors = stacked.factor(w)
        first = stacked.simplified(w.shift, number(0, w.masses), number(0, w.jacobians))
        transposed = stacked.solve(factors, b, transpose=True)
        return stacked.times(w, b), stacked.solve(factors, b), transposed, stacked.solve(first, b)

    found = everything(_Coupled(jnp.array(shift), masses, jacobians), b)
    exact = whole @ b, np.linalg.solve(whole, b), np.linalg.solve(whole.T, b), np.linalg.solve(same, b)
    for x, y in zip(found, exact, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-10)


def _pattern(one, n):
    """Ones where the structure has room."""
    return one.given(jnp.ones((n, n))) if isinstance(one, Dense) else one._fill(jnp.ones((one.colour.max() + 1, n)))


def test_a_banded_solve_is_the_dense_one():
    def diffusion(t, y, a):
        left, right = jnp.append(jnp.zeros(1), y[:-1]), jnp.append(y[1:], jnp.zeros(1))
        return a * (left - 2 * y + right) - y**3

    problem = jde.ODEProblem(diffusion, jnp.sin(jnp.arange(1.0, 10.0)), (0.0, 1.0), 400.0)

    def end(a, structure):
        options = {"saveat": END, "rtol": 1e-8, "atol": 1e-8, "args": a}
        return jnp.sum(jde.solve(problem.replace(jac_structure=structure), jde.RadauIIA5(), **options).ys[-1])

    dense, banded = (jax.jit(jax.value_and_grad(lambda a, s=s: end(a, s)))(400.0) for s in (None, Banded(1, 1)))
    np.testing.assert_allclose(banded, dense, rtol=1e-7)
