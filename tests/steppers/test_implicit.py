"""Rosenbrock and diagonally implicit methods on stiff problems, DAEs and split problems."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import jaxdiffeq as jde
from jaxdiffeq.algebra.structure import Banded, Dense
from jaxdiffeq.steppers.auto import STIFF, Auto
from jaxdiffeq.steppers.dirk import DIRK
from jaxdiffeq.steppers.rosenbrock import Rosenbrock
from jaxdiffeq.tableaux import dirk, rosenbrock

END = jde.SaveAt(t1=True)
RATES = jnp.array([0.04, 3e7, 1e4])
METHODS = {
    "Rosenbrock23": Rosenbrock(rosenbrock.ROSENBROCK23),
    "Rodas4": Rosenbrock(rosenbrock.RODAS4),
    "Rodas5P": Rosenbrock(rosenbrock.RODAS5P),
    "ROS3P": Rosenbrock(rosenbrock.ROS3P),
    "TRBDF2": DIRK(dirk.TRBDF2),
    "Kvaerno5": DIRK(dirk.KVAERNO5),
    "KenCarp4": DIRK(dirk.KENCARP4),
    "Hairer4": DIRK(dirk.HAIRER4),
    "Auto": Auto(jde.Tsit5(), Rosenbrock(rosenbrock.RODAS5P)),
}
each = pytest.mark.parametrize("name", METHODS)
few = pytest.mark.parametrize("name", ["Rodas4", "KenCarp4", "Auto"])
# One of each family, of few stages: derivatives and structures see a stage, not how many there are.
SHORT = {
    "Rodas4": METHODS["Rodas4"],
    "TRBDF2": METHODS["TRBDF2"],
    "Auto": Auto(jde.Tsit5(), METHODS["Rosenbrock23"]),
}
short = pytest.mark.parametrize("name", SHORT)


def robertson(t, y, rates):
    """Robertson 1966: three rates nine orders of magnitude apart."""
    a, b, c = y
    slow, fast, back = rates[0] * a, rates[1] * b * b, rates[2] * b * c
    return jnp.stack([-slow + back, slow - back - fast, fast])


def robertson_dae(t, y, rates):
    """The same with the conservation of mass as an algebraic equation; `rates[3]` is what is conserved."""
    a, b, c = y
    slow, back = rates[0] * a, rates[2] * b * c
    return jnp.stack([-slow + back, slow - back - rates[1] * b * b, a + b + c - rates[3]])


ROBERTSON = jde.ODEProblem(robertson, jnp.array([1.0, 0.0, 0.0]), (0.0, 1e5), RATES)
DAE = jde.ODEProblem(
    robertson_dae,
    jnp.array([1.0, 0.0, 0.0]),
    (0.0, 1e3),
    jnp.append(RATES, 1.0),
    mass_matrix=jnp.array([1.0, 1.0, 0.0]),
)


@functools.cache
def reference(t1):
    """Robertson at t1, by SciPy's Radau."""
    sol = solve_ivp(lambda t, y: np.asarray(numbers(y)), (0, t1), [1.0, 0, 0], "Radau", rtol=1e-11, atol=1e-16)
    return sol.y[:, -1]


def numbers(y):
    k, (a, b, c) = np.asarray(RATES), y
    return [-k[0] * a + k[2] * b * c, k[0] * a - k[2] * b * c - k[1] * b * b, k[1] * b * b]


@functools.cache
def compiled(method):
    """Robertson's problem, one program a method for whatever rates, spans and tolerances (those of y are [3])."""

    @jax.jit
    def run(rates, t1, rtol=1e-6, atol=1e-10 * jnp.ones(3)):
        return jde.solve(ROBERTSON, method, args=rates, tspan=(0.0, t1), saveat=END, rtol=rtol, atol=atol)

    return run


@each
@pytest.mark.parametrize("t1", [40.0, 1e5])
def test_robertson(name, t1):
    sol = compiled(METHODS[name])(RATES, t1)
    assert sol.result == jde.Result.success
    np.testing.assert_allclose(sol.ys[-1], reference(t1), rtol=2e-4, atol=1e-12)
    assert abs(jnp.sum(sol.ys[-1]) - 1) < 1e-12  # linear invariants are kept by every step
    assert 10 * (sol.stats.rejected_error + sol.stats.rejected_solver) < sol.stats.steps


@pytest.mark.parametrize("name", ["Rodas4", "KenCarp4", "Hairer4", "Auto"])
def test_hires(name):
    """Final values of the test set for initial value problems (Mazzia, Magherini 2008)."""

    def hires(t, y, args):
        r = 280 * y[5] * y[7]
        exchange = 1.81 * y[6]
        return jnp.stack(
            [
                -1.71 * y[0] + 0.43 * y[1] + 8.32 * y[2] + 0.0007,
                1.71 * y[0] - 8.75 * y[1],
                -10.03 * y[2] + 0.43 * y[3] + 0.035 * y[4],
                8.32 * y[1] + 1.71 * y[2] - 1.12 * y[3],
                -1.745 * y[4] + 0.43 * (y[5] + y[6]),
                -r + 0.69 * y[3] + 1.71 * y[4] - 0.43 * y[5] + 0.69 * y[6],
                r - exchange,
                exchange - r,
            ]
        )

    truth = np.array([7.371312573e-4, 1.442485726e-4, 5.888729741e-5, 1.175651343e-3])
    truth = np.append(truth, [2.386356199e-3, 6.238968253e-3, 2.849998395e-3, 2.850001605e-3])
    start = jnp.array([1.0, 0, 0, 0, 0, 0, 0, 0.0057])
    sol = jde.solve(jde.ODEProblem(hires, start, (0.0, 321.8122)), METHODS[name], saveat=END, rtol=1e-5, atol=1e-10)
    np.testing.assert_allclose(sol.ys[-1], truth, rtol=2e-2)


@few
def test_van_der_pol(name):
    """ε = 1e-6 at t = 2, in the test set's scaling: two jumps of the relaxation oscillation lie behind."""

    def field(t, y, args):
        return jnp.stack([y[1], ((1 - y[0] ** 2) * y[1] - y[0]) / 1e-6])

    problem = jde.ODEProblem(field, jnp.array([2.0, 0.0]), (0.0, 2.0))
    sol = jde.solve(problem, METHODS[name], saveat=END, rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(sol.ys[-1], [1.70616773217, -0.89280970102], rtol=1e-4)


# ---- what is counted


def test_work_of_a_rosenbrock_method_is_the_same_in_every_step():
    stats = compiled(METHODS["Rodas4"])(RATES, 1e5).stats
    assert stats.jac_evals == stats.factorizations == stats.steps
    assert stats.linear_solves == 6 * stats.steps
    assert stats.f_evals == 6 * stats.steps + 2  # two for the first step size
    assert stats.newton_iterations == 0


def test_work_of_newton_is_counted():
    stats = compiled(METHODS["KenCarp4"])(RATES, 1e5).stats
    assert stats.jac_evals == stats.factorizations == stats.steps
    assert stats.newton_iterations == stats.linear_solves
    assert 5 * stats.steps < stats.newton_iterations < 15 * stats.steps  # five implicit stages, two or three for each
    assert stats.f_evals == stats.newton_iterations + stats.steps + 3


def test_f_is_called_as_often_as_is_counted():
    calls = []

    def field(t, y, args):
        jax.debug.callback(lambda: calls.append(1))
        return jnp.stack([y[1], 100 * (1 - y[0] ** 2) * y[1] - y[0]])

    problem = jde.ODEProblem(field, jnp.array([2.0, 0.0]), (0.0, 5.0))
    for name in ("Rodas5P", "TRBDF2"):
        calls.clear()
        sol = jde.solve(problem, METHODS[name], saveat=END)
        jax.effects_barrier()
        jacobian_columns = 2 * sol.stats.jac_evals  # a call each, in which f itself comes along
        once = sol.stats.jac_evals  # …where it is counted as one
        assert abs(len(calls) - (sol.stats.f_evals - once + jacobian_columns)) <= sol.stats.jac_evals + 3


# ---- differential–algebraic equations


@few
@pytest.mark.parametrize("form", ["diagonal", "matrix", "mixed"])
def test_singular_mass_matrix(name, form):
    if name == "Auto":
        with pytest.raises(ValueError, match=r"cannot solve M·dy/dt = f with a mass matrix.*Rodas5P"):
            jde.solve(DAE, METHODS[name], saveat=END)
        return
    mix = np.array([[1.0, 2.0, 0.0], [0.0, 1.0, 0.0], [3.0, 0.0, 1.0]])
    mass = {"diagonal": DAE.mass_matrix, "matrix": jnp.diag(DAE.mass_matrix)}.get(form, mix @ np.diag(DAE.mass_matrix))
    f = (lambda t, y, a: jnp.asarray(mix) @ robertson_dae(t, y, a)) if form == "mixed" else robertson_dae
    problem = DAE.replace(f=f, mass_matrix=mass)
    sol = jde.solve(problem, METHODS[name], saveat=jnp.array([0.0, 40.0, 1e3]), rtol=1e-7, atol=1e-11)
    np.testing.assert_allclose(sol.ys[1], reference(40.0), rtol=1e-5)
    np.testing.assert_allclose(sol.ys[2], reference(1e3), rtol=1e-5)


def end_of_dae(args, method, gradient, rtol):
    y0 = jnp.stack([args[3], jnp.zeros(()), jnp.zeros(())])
    options = {"saveat": END, "rtol": rtol, "atol": 1e-4 * rtol, "gradient": gradient}
    return jde.solve(DAE, method, y0=y0, args=args, **options).ys[-1, 2]


@functools.cache
def differences_of_the_dae():
    """Of solves whose errors are far below the step of the difference."""
    c = jax.jit(lambda args: end_of_dae(args, METHODS["Rodas5P"], jde.ReverseAD(), 1e-11))
    args = jnp.append(RATES, 1.0)
    steps = [1e-4 * args[k] * jnp.eye(4)[k] for k in range(4)]
    return [(c(args + step) - c(args - step)) / (2 * step[k]) for k, step in enumerate(steps)]


@pytest.mark.parametrize("name", ["Rodas4", "TRBDF2"])
@pytest.mark.parametrize("gradient", [jde.ReverseAD(), jde.ForwardAD()], ids=repr)
def test_a_parameter_of_the_constraint_alone_has_a_gradient(name, gradient):
    found = jax.jit(jax.grad(lambda args: end_of_dae(args, SHORT[name], gradient, 1e-7)))(jnp.append(RATES, 1.0))
    np.testing.assert_allclose(found, differences_of_the_dae(), rtol=2e-4)


def test_the_algebraic_equation_holds_in_between():
    times = jnp.linspace(0.0, 1e3, 50)
    for name in ("Rodas5P", "KenCarp4"):
        sol = jde.solve(DAE, METHODS[name], saveat=times, rtol=1e-6, atol=1e-10)
        assert jnp.max(jnp.abs(jnp.sum(sol.ys, axis=1) - 1)) < 1e-5


# ---- split problems


def advection_diffusion(n=32):
    dx = 1.0 / n

    def diffusion(t, y, args):
        return 0.1 * (jnp.roll(y, 1) - 2 * y + jnp.roll(y, -1)) / dx**2

    def advection(t, y, args):
        return -(jnp.roll(y, -1) - jnp.roll(y, 1)) / (2 * dx) * (1 + 0.5 * jnp.sin(t))

    x = np.arange(n) * dx
    return jde.SplitODEProblem(diffusion, advection, jnp.asarray(np.exp(-50 * (x - 0.5) ** 2)), (0.0, 0.3))


@functools.cache
def end_of_split():
    split = advection_diffusion()
    whole = jde.ODEProblem(lambda t, y, a: split.f_implicit(t, y, a) + split.f_explicit(t, y, a), split.y0, split.tspan)
    return jde.solve(whole, jde.Vern9(), saveat=END, rtol=1e-11, atol=1e-11).ys[-1]


# two pairs of tableaus, and one of each family that solves the sum: that is one function from there on
BOTH = [METHODS["KenCarp4"], DIRK(dirk.KENCARP58), *SHORT.values()]


@pytest.mark.parametrize("method", BOTH, ids=lambda m: m.name)
def test_a_split_problem_has_the_solution_of_the_sum(method):
    sol = jde.solve(advection_diffusion(), method, saveat=END, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(sol.ys[-1], end_of_split(), atol=2e-5)


@pytest.mark.parametrize(
    "tableau", [t for t in vars(dirk).values() if isinstance(t, dirk.DIRKTableau) and t.explicit], ids=lambda t: t.name
)
def test_order_of_additive_pairs(tableau):
    """y′ = −y³ + (y³ − y cos t), the first part implicit: y = exp(−sin t)."""
    problem = jde.SplitODEProblem(
        lambda t, y, a: -(y**3), lambda t, y, a: y**3 - y * jnp.cos(t), jnp.array([1.0]), (0.0, 2.0)
    )

    @jax.jit
    def error(dt):
        control = jde.FixedSteps(dt=dt)
        sol = jde.solve(problem, DIRK(tableau), saveat=END, controller=control, rtol=1e-13, atol=1e-13)
        return jnp.abs(sol.ys[-1, 0] - jnp.exp(-jnp.sin(2.0)))

    counts = np.array([64, 96, 128, 192, 256])
    errors = np.array([float(error(2.0 / n)) for n in counts])
    slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert slope > tableau.order - 0.3


# ---- gradients


GRADIENTS = [("Rodas4", g) for g in (jde.ReverseAD(memory=8), jde.ForwardAD(), jde.GaussAdjoint())]
GRADIENTS += [("TRBDF2", g) for g in (jde.ReverseAD(memory=8), jde.QuadratureAdjoint(), jde.BacksolveAdjoint())]
GRADIENTS += [("Auto", jde.ReverseAD(memory=8)), ("Auto", jde.InterpolatingAdjoint())]


@pytest.mark.parametrize(("name", "gradient"), GRADIENTS, ids=lambda x: x if isinstance(x, str) else type(x).__name__)
def test_gradients(name, gradient):
    """A mildly stiff problem, so that solving it backwards makes sense too, with a closed form."""

    def field(t, y, args):
        rate, amplitude = args
        return -rate * (y - amplitude * jnp.cos(t)) - amplitude * jnp.sin(t)

    def end(args, y0):
        problem = jde.ODEProblem(field, y0, (0.0, 0.5), args)
        sol = jde.solve(problem, SHORT[name], saveat=jnp.array([0.25, 0.5]), gradient=gradient, rtol=1e-10, atol=1e-10)
        return jnp.sum(sol.ys**2)

    def closed(args, y0):
        t = jnp.array([0.25, 0.5])[:, None]
        y = args[1] * jnp.cos(t) + (y0[None] - args[1]) * jnp.exp(-args[0] * t)
        return jnp.sum(y**2)

    at = jnp.array([20.0, 1.5]), jnp.array([1.0, 3.0])
    found = jax.jit(jax.grad(end, argnums=(0, 1)))(*at)
    for ours, truth in zip(found, jax.grad(closed, argnums=(0, 1))(*at), strict=True):
        # solved backwards the fast decay becomes growth, by e^10 here, of every error
        np.testing.assert_allclose(ours, truth, rtol=1e-3 if isinstance(gradient, jde.BacksolveAdjoint) else 2e-5)


@short
def test_gradients_of_a_stiff_solve_under_every_mode(name):
    run = compiled(SHORT[name])

    def end(log_rates):
        return jnp.log(run(jnp.exp(log_rates), 40.0, 1e-8, 1e-12 * jnp.ones(3)).ys[-1])

    def difference(k, h=1e-3):
        step = h * jnp.eye(3)[k]
        return (end(at + step) - end(at - step)) / (2 * h)

    at = jnp.log(RATES)
    truth = np.stack([difference(k) for k in range(3)], axis=1)
    for found in jax.jit(lambda at: (jax.jacrev(end)(at), jax.jacfwd(end)(at)))(at):
        np.testing.assert_allclose(found, truth, atol=2e-5)


def test_hessian():
    def end(rate):
        problem = jde.ODEProblem(lambda t, y, a: -a * y**2, jnp.array([1.0]), (0.0, 1.0), rate)
        return jde.solve(problem, METHODS["TRBDF2"], saveat=END, rtol=1e-9, atol=1e-9).ys[-1, 0]

    np.testing.assert_allclose(jax.jit(jax.hessian(end))(3.0), 2 / 4.0**3, rtol=1e-6)  # 1/(1 + rate)


# ---- nothing that was thrown away reaches a result


@pytest.mark.parametrize("method", [*SHORT.values(), DIRK(dirk.SDIRK2)], ids=lambda m: m.name)
def test_nan_outside_the_domain_reaches_neither_value_nor_gradient(method):
    """√y has no value below zero, where too long a step from y′ = −√y ends."""

    def field(t, y, rate):
        return -rate * jnp.sqrt(y)

    def end(rate):
        problem = jde.ODEProblem(field, jnp.array([1.0]), (0.0, 1.9), rate)
        sol = jde.solve(problem, method, saveat=END, rtol=1e-6, atol=1e-9, first_step=5.0)
        return sol.ys[-1, 0], sol

    (value, sol), gradient = jax.jit(jax.value_and_grad(end, has_aux=True))(1.0)
    assert sol.result == jde.Result.success
    np.testing.assert_allclose(value, (1 - 0.95) ** 2, rtol=1e-3)
    np.testing.assert_allclose(gradient, -2 * (1 - 0.95) * 0.95, rtol=1e-3)


@pytest.mark.parametrize("name", ["Rodas5P", "TRBDF2", "Kvaerno5", "KenCarp4", "Auto"])
def test_a_slope_that_fails_now_and_then_is_survived_or_reported(name):
    """f is NaN in a comb of states one in twelve wide: every step that asks there must be refused."""

    def field(t, y, args):
        tooth = jnp.floor(jnp.sum(jnp.abs(y)) * 1e7) % 12 == 0
        return jnp.where(tooth, jnp.nan, 1.0) * jnp.stack([-50 * (y[0] - jnp.cos(t)), -y[1]])

    problem = jde.ODEProblem(field, jnp.array([0.50000013, 1.0]), (0.0, 1.0))
    sol = jde.solve(problem, METHODS[name], saveat=END, rtol=1e-5, atol=1e-8, throw=False)
    if sol.result == jde.Result.success:
        assert abs(sol.ys[-1, 1] - np.exp(-1.0)) < 1e-3
    else:
        assert np.isnan(sol.ys[-1]).all()
        assert sol.result in (jde.Result.nonlinear_solve_failed, jde.Result.nonfinite, jde.Result.max_steps_reached)


def test_an_explicit_method_says_that_the_problem_is_stiff():
    """Bounded work, and never the wrong answer as success."""
    sol = jde.solve(ROBERTSON, jde.Tsit5(), tspan=(0.0, 1e11), saveat=END, max_steps=5000, throw=False)
    assert sol.result == jde.Result.max_steps_reached
    assert np.isnan(sol.ys[-1]).all()


@pytest.mark.parametrize("name", ["Rodas4", "Rodas5P", "Kvaerno5", "KenCarp4"])
def test_robertson_to_1e11(name):
    atol = jnp.array([1e-10, 1e-14, 1e-10])
    sol = compiled(METHODS[name])(RATES, 1e11, 1e-6, atol)
    np.testing.assert_allclose(sol.ys[-1], [2.0833401e-8, 8.3333607e-14, 0.9999999791665], rtol=2e-3)
    assert abs(jnp.sum(sol.ys[-1]) - 1) < 1e-12


# ---- all the rest works as in explicit methods


@few
def test_a_lane_of_a_vmap_is_the_single_solve(name):
    run = compiled(METHODS[name])
    rates = jnp.asarray(np.asarray(RATES) * 10 ** np.random.default_rng(0).uniform(-1, 1, (1000, 3)))
    lanes = jax.jit(jax.vmap(run, in_axes=(0, None)))(rates, 1e3)
    for k in (0, 17, 999):
        single = run(rates[k], 1e3)
        np.testing.assert_allclose(lanes.ys[k], single.ys, rtol=1e-9)
        assert lanes.stats.steps[k] == single.stats.steps


@few
def test_complex_states(name):
    """Not holomorphic: conj(z) turns up. |z|² obeys r′ = 2r(1 − r)·5, and the phase turns."""

    def field(t, z, args):
        return 5 * z * (1 - z * jnp.conj(z)) + 1j * z

    problem = jde.ODEProblem(field, jnp.array([0.1 + 0.0j]), (0.0, 2.0))
    sol = jde.solve(problem, METHODS[name], saveat=END, rtol=1e-8, atol=1e-8)
    r = 1 / (1 + (1 / 0.01 - 1) * np.exp(-10 * 2.0))
    np.testing.assert_allclose(sol.ys[-1], np.sqrt(r) * np.exp(2j), rtol=1e-6)


@short
def test_structure_and_jacobian_change_the_work_not_the_answer(name):
    n, stiffness = 12, 3000.0 if name == "Auto" else 30.0  # so that the pair takes turns

    def field(t, y, args):
        padded = jnp.pad(y, 1)
        return stiffness * (padded[2:] - 2 * y + padded[:-2]) - y**3 + 0.1 * stiffness

    def jacobian(t, y, args):
        return stiffness * (jnp.eye(n, k=1) - 2 * jnp.eye(n) + jnp.eye(n, k=-1)) - jnp.diag(3 * y**2)

    problem = jde.ODEProblem(field, jnp.sin(jnp.arange(1.0, n + 1)), (0.0, 1.0))
    options = [{}, {"jac_structure": Banded(1, 1)}, {"jac": jacobian}, {"jac": jacobian, "jac_structure": Banded(1, 1)}]
    solutions = [jde.solve(problem, SHORT[name], saveat=END, rtol=1e-7, atol=1e-9, **o) for o in options]
    if name == "Auto":  # which steps are refused on the edge of stability is a matter of rounding
        assert all(sol.stats.factorizations > 10 for sol in solutions)
    for sol in solutions[1:]:
        np.testing.assert_allclose(sol.ys, solutions[0].ys, rtol=1e-6 if name == "Auto" else 1e-8)
        assert abs(sol.stats.steps - solutions[0].stats.steps) <= (5 if name == "Auto" else 0)


@few
def test_stops_and_direction(name):
    def field(t, y, args):
        return jnp.where(t < 1.0, 2.0, -3.0) * jnp.ones_like(y)

    for span, start, end in [((0.0, 2.0), 1.0, 0.0), ((2.0, 0.0), 0.0, 1.0)]:  # one program for both
        sol = jde.solve(jde.ODEProblem(field, jnp.array([start]), span), METHODS[name], saveat=END, stops=[1.0])
        np.testing.assert_allclose(sol.ys[-1], [end], atol=1e-12)
        assert sol.stats.rejected_error == 0


@few
def test_float32(name):
    y0, rates = jnp.array([1.0, 0.0, 0.0], jnp.float32), RATES.astype(jnp.float32)
    sol = jde.solve(ROBERTSON, METHODS[name], y0=y0, args=rates, tspan=(0.0, 40.0), saveat=END, rtol=1e-4, atol=1e-8)
    assert sol.ys.dtype == jnp.float32
    np.testing.assert_allclose(sol.ys[-1], reference(40.0), rtol=1e-2)


# ---- Auto


@pytest.mark.parametrize("method", [METHODS["Auto"], Auto(jde.Tsit5(), jde.BDF())], ids=repr)
def test_auto_goes_there_and_back(method):
    """Fast decay in the middle third of the span only."""

    def field(t, y, args):
        rate = jnp.where((t > 10) & (t < 20), 1e4, 1.0)
        return -rate * (y - jnp.sin(t)) + jnp.cos(t)

    problem = jde.ODEProblem(field, jnp.array([0.0]), (0.0, 30.0))
    integrator = jde.Integrator(problem, method, stops=[10.0, 20.0], rtol=1e-5, atol=1e-7)
    state, seen = integrator.init(), []
    while state.t < 30:
        state = integrator.step(state)
        seen.append((float(state.t), int(state.carry.state.memory.mode)))
    assert all(mode != STIFF for t, mode in seen if t <= 10)
    assert any(mode == STIFF for t, mode in seen if 10 < t < 20)
    assert seen[-1][1] != STIFF
    assert len(seen) < 200  # a hundred thousand steps at the stability limit would be needed without
    np.testing.assert_allclose(state.y, np.sin(30.0), atol=1e-4)


def test_auto_with_a_method_of_variable_order():
    """Van der Pol's oscillator at μ = 100: its value and gradient, with turns where the methods change."""

    def field(t, y, mu):
        return jnp.stack([y[1], mu * (1 - y[0] ** 2) * y[1] - y[0]])

    def reference(mu):
        slope = jax.jit(field)
        return solve_ivp(slope, (0, 200), [2.0, 0.0], "Radau", args=(mu,), rtol=1e-11, atol=1e-11).y[0, -1]

    problem = jde.ODEProblem(field, jnp.array([2.0, 0.0]), (0.0, 200.0))

    @functools.partial(jax.jit, static_argnums=1)
    def end(mu, gradient=jde.ReverseAD()):
        options = {"saveat": END, "rtol": 1e-8, "atol": 1e-8, "gradient": gradient}
        sol = jde.solve(problem, Auto(jde.Tsit5(), jde.BDF()), args=mu, **options)
        return sol.ys[0, 0], sol.stats

    (value, stats), slope = jax.value_and_grad(end, has_aux=True)(100.0)
    np.testing.assert_allclose(value, reference(100.0), rtol=1e-5)
    assert 0.1 * int(stats.steps) < int(stats.jac_evals) < 0.9 * int(stats.steps)
    forward = jax.jvp(lambda mu: end(mu, jde.ForwardAD())[0], (100.0,), (1.0,))[1]
    np.testing.assert_allclose(slope, forward, rtol=1e-8)
    np.testing.assert_allclose(slope, (reference(100.1) - reference(99.9)) / 0.2, rtol=1e-3)


def test_auto_costs_nothing_where_nothing_is_stiff():
    def field(t, y, args):
        return jnp.stack([1.5 * y[0] - y[0] * y[1], y[0] * y[1] - 3 * y[1]])

    problem = jde.ODEProblem(field, jnp.ones(2), (0.0, 10.0))
    options = {"saveat": END, "rtol": 1e-6, "controller": jde.PIDController()}
    auto, alone = (jde.solve(problem, m, **options) for m in (METHODS["Auto"], jde.Tsit5()))
    assert auto.stats.f_evals == alone.stats.f_evals
    assert auto.stats.factorizations == 0


def test_auto_needs_methods_that_can_tell():
    with pytest.raises(ValueError, match="no two stages at the same time"):
        Auto(jde.BS3(), METHODS["Rodas4"])
    with pytest.raises(ValueError, match="no two stages at the same time"):
        Auto(jde.BDF(), METHODS["Rodas4"])
    with pytest.raises(TypeError, match=r"`Auto\(stiff=...\)` must be a Runge–Kutta or Rosenbrock method"):
        Auto(jde.Tsit5(), "Rodas4")


# ---- bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mass_matrix": jnp.ones((2, 2))}, r"`mass_matrix` must be a matrix of shape \(3, 3\), or a diagonal"),
        ({"jac_structure": "banded"}, r"`jac_structure` must be Dense\(\), Diagonal\(\), Banded"),
        ({"jac": lambda t, y, a: jnp.ones((2, 3))}, r"`jac` must return an array of shape \(3, 3\), but returned"),
        ({"jac": 3}, "jac"),
    ],
)
def test_bad_input(change, message):
    with pytest.raises((ValueError, TypeError), match=message):
        jde.solve(ROBERTSON, METHODS["Rodas4"], saveat=END, **change)


def test_dense_structure_is_the_default():
    a, b = (
        jde.solve(ROBERTSON, METHODS["Rodas4"], saveat=END, tspan=(0.0, 1.0), jac_structure=s) for s in (None, Dense())
    )
    np.testing.assert_array_equal(a.ys, b.ys)
