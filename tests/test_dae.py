"""Equations to be solved for dy/dt: F(t, y, dy/dt) = 0, mass matrices, and initial values that satisfy them.

Robertson's problem with a conservation law in place of the third equation: its solution at t = 40 is that of the IVP
test set, 0.7158270688, 9.185534764e-6, 0.2841637457.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiffeq as jde

RATES = jnp.array([0.04, 3e7, 1e4])
AT_40 = np.array([0.7158270688, 9.185534764e-6, 0.2841637457])
TIGHT: dict[str, Any] = {"rtol": 1e-8, "atol": 1e-11}


def reactions(t, y, k):
    first, second = -k[0] * y[0] + k[2] * y[1] * y[2], k[1] * y[1] ** 2
    return jnp.stack([first, -first - second, y[0] + y[1] + y[2] - 1])


def robertson(t, y, dy, k):
    return jnp.array([1.0, 1.0, 0.0]) * dy - reactions(t, y, k)


WRONG = jnp.array([1.0, 0.0, 0.3])  # the third violates the law
FORMS = {
    "F": jde.DAEProblem(robertson, WRONG, None, (0.0, 40.0), RATES),
    "diagonal M": jde.ODEProblem(reactions, WRONG, (0.0, 40.0), RATES, mass_matrix=jnp.array([1.0, 1.0, 0.0])),
    "M": jde.ODEProblem(reactions, WRONG, (0.0, 40.0), RATES, mass_matrix=jnp.diag(jnp.array([1.0, 1.0, 0.0]))),
    "M(t, y)": jde.ODEProblem(
        reactions, WRONG, (0.0, 40.0), RATES, mass_matrix=lambda t, y, k: jnp.diag(jnp.array([1.0, 1.0, 0.0]))
    ),
}


@functools.cache
def end_and_gradient(form, strategy):
    def end(k):
        solution = jde.solve(FORMS[form], jde.BDF(), args=k, gradient=strategy, saveat=[0.0, 40.0], **TIGHT)
        return solution.ys[-1, 2], solution

    return jax.jit(jax.value_and_grad(end, has_aux=True))(RATES)


@functools.cache
def differences():
    """Of y₃(40) in the rates, by central differences of an ODE solve that knows nothing of this."""

    def free(t, y, k):
        return reactions(t, y, k).at[2].set(k[1] * y[1] ** 2)

    @jax.jit
    def end(k):
        problem = jde.ODEProblem(free, jnp.array([1.0, 0.0, 0.0]), (0.0, 40.0), k)
        return jde.solve(problem, jde.RadauIIA5(), rtol=1e-11, atol=1e-14, saveat=[40.0]).ys[0, 2]

    h = 1e-4
    return np.array([(end(RATES * (1 + h * e)) - end(RATES * (1 - h * e))) / (2 * h) for e in jnp.eye(3)]) / RATES


@pytest.mark.parametrize("form", FORMS)
def test_every_form_solves_robertson_from_inconsistent_values(form):
    (_, solution), gradient = end_and_gradient(form, jde.ReverseAD())
    assert solution.status == "success"
    np.testing.assert_allclose(solution.ys[0], [1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(solution.ys[-1], AT_40, rtol=1e-5)
    np.testing.assert_allclose(np.sum(solution.ys[-1]), 1, atol=1e-9)
    np.testing.assert_allclose(gradient, differences(), rtol=1e-5)


@pytest.mark.parametrize("method", [jde.KenCarp4(), jde.RadauIIA5()], ids=str)
def test_runge_kutta_methods_solve_for_the_slope_too(method):
    """F = 0 is solved as M·y′ = f is: to rounding, the same steps."""
    ends = []
    for form in ("F", "M(t, y)", "diagonal M"):
        solution = jde.solve(FORMS[form], method, saveat=[40.0], rtol=1e-6, atol=1e-10)
        np.testing.assert_allclose(solution.ys[0], AT_40, rtol=1e-5)
        ends.append(solution.ys[0])
    np.testing.assert_allclose(ends[1:], ends[:1] * 2, rtol=1e-7)

    def end(k):
        return jde.solve(FORMS["F"], method, args=k, saveat=[40.0], **TIGHT).ys[0, 2]

    np.testing.assert_allclose(jax.jit(jax.grad(end))(RATES), differences(), rtol=1e-5)


def test_forward_and_reverse_give_the_same_gradient():
    (_, _), forward = end_and_gradient("F", jde.ForwardAD())
    (_, _), reverse = end_and_gradient("F", jde.ReverseAD())
    np.testing.assert_allclose(forward, reverse, rtol=1e-9)


# -------------------- dy/dt that has to be found ----------------------------------------------------------------------


@pytest.mark.parametrize("method", [jde.Rodas3(), jde.ROS34PW2(), jde.TRBDF2()], ids=str)
def test_between_the_steps_algebraic_equations_hold_too(method):
    """2y′ = −2y and z = y², of methods whose interpolant is cubic, between slopes that f alone does not give."""
    f = lambda t, y, args: jnp.stack([-2 * y[0], y[1] - y[0] ** 2])
    problem = jde.ODEProblem(f, jnp.array([1.0, 1.0]), (0.0, 2.0), mass_matrix=jnp.array([2.0, 0.0]))
    times = np.linspace(0, 2, 41)
    ys = jde.solve(problem, method, saveat=times, rtol=1e-6, atol=1e-8).ys
    np.testing.assert_allclose(ys[:, 0], np.exp(-times), rtol=1e-4)
    np.testing.assert_allclose(ys[:, 1], np.exp(-2 * times), rtol=1e-4)


@pytest.mark.parametrize("method", [None, jde.RadauIIA5()], ids=str)
def test_the_slope_may_enter_nonlinearly(method):
    """y′³ + y′ + y = 0, whose slope is −2·sinh(asinh(3√3/2·y)/3)/√3."""
    problem = jde.DAEProblem(lambda t, y, dy, args: dy**3 + dy + y, jnp.array(2.0), None, (0.0, 1.5))
    slope = lambda t, y, args: -2 / jnp.sqrt(3.0) * jnp.sinh(jnp.arcsinh(1.5 * jnp.sqrt(3.0) * y) / 3)
    wanted = jde.solve(jde.ODEProblem(slope, 2.0, (0.0, 1.5)), jde.Vern7(), rtol=1e-10, atol=1e-12, saveat=0.5).ys
    np.testing.assert_allclose(jde.solve(problem, method, rtol=1e-7, atol=1e-9, saveat=0.5).ys, wanted, rtol=1e-5)


@pytest.mark.parametrize(
    ("method", "controller"),
    [(None, None), (jde.RadauIIA5(), None), (jde.LobattoIIIA4(), jde.FixedSteps(dt=0.1))],
    ids=["default", "RadauIIA5", "LobattoIIIA4"],
)
def test_a_mass_that_depends_on_the_state(method, controller):
    """y·y′ = t from 1: √(1 + t²)."""
    problem = jde.ODEProblem(lambda t, y, a: t, 1.0, (0.0, 2.0), mass_matrix=lambda t, y, a: y)
    solution = jde.solve(problem, method, controller=controller, rtol=1e-7, atol=1e-9, saveat=0.5)
    np.testing.assert_allclose(solution.ys, np.sqrt(1 + np.asarray(solution.ts) ** 2), rtol=1e-5)
    assert ("BDF" if method is None else method.name) in solution.explain()


def test_stages_at_once_where_the_pattern_is_known():
    """(1 + sin²t)·x′ᵢ = −a·zᵢ and 0 = zᵢ − xᵢ²: blocks serve ∂F/∂y′ and ∂F/∂y. Without z it is an ODE."""
    start, a, equal = jnp.linspace(0.5, 1.5, 4), jnp.array(0.7), jde.FixedSteps(20)

    def residual(t, y, dy, a):
        x, z = y[::2], y[1::2]
        return jnp.stack([(1 + jnp.sin(t) ** 2) * dy[::2] + a * z, z - x**2], axis=1).reshape(-1)

    def end(a):
        blocks = jde.BlockDiagonal(2)
        problem = jde.DAEProblem(residual, jnp.repeat(start, 2), None, (0.0, 1.0), a, jac_structure=blocks)
        return jde.solve(problem, jde.RadauIIA5(), saveat=[1.0], rtol=1e-10, controller=equal).ys[0, ::2]

    def free(a):
        problem = jde.ODEProblem(lambda t, x, a: -a * x**2 / (1 + jnp.sin(t) ** 2), start, (0.0, 1.0), a)
        return jde.solve(problem, jde.Vern7(), saveat=[1.0], controller=equal).ys[0]

    along = lambda f: jax.jit(lambda a: jax.jvp(f, (a,), (jnp.ones_like(a),)))(a)
    np.testing.assert_allclose(along(end), along(free), atol=1e-8)


def pendulum(t, y, dy, g):
    """In index-1 form: the tension from the constraint's second derivative, positions kept by the velocities."""
    x, v = y["x"], y["v"]
    tension = jnp.sum(v * v) - g * x[1]
    return {
        "x": dy["x"] - v,
        "v": dy["v"] - jnp.array([0.0, -1.0]) * g + y["tension"] * x,
        "tension": y["tension"] * jnp.sum(x * x) - tension,
    }


SWING = jde.DAEProblem(
    pendulum,
    {"x": jnp.array([1.0, 0.0]), "v": jnp.zeros(2), "tension": jnp.zeros(())},
    None,
    (0.0, 1.0),
    jnp.array(9.81),
)


def angle(t, y, g):
    return jnp.stack([y[1], -g * jnp.sin(y[0])])


def test_a_pytree_backwards_dense_and_batched():
    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, None))
    def swing(g, end):
        problem = SWING.replace(args=g, tspan=(0.0, end))
        solution = jde.solve(problem, rtol=1e-8, atol=1e-8, dense=True, saveat=jde.SaveAt(t1=True), max_steps=600)
        return solution.ys, solution(0.5 * end), solution.result

    g = jnp.array([9.81, 1.62])
    for end in (1.0, -1.0):
        ys, half, result = swing(g, end)
        assert np.all(result == jde.Result.success)
        for i in range(2):
            circle = jde.ODEProblem(angle, jnp.array([np.pi / 2, 0.0]), (0.0, end), g[i])
            truth = jde.solve(circle, jde.Vern7(), rtol=1e-10, atol=1e-10, saveat=[0.5 * end, end]).ys
            for found, (phi, speed) in zip((half, jax.tree.map(lambda y: y[:, -1], ys)), truth, strict=True):
                np.testing.assert_allclose(found["x"][i], [np.sin(phi), -np.cos(phi)], atol=1e-5)
                np.testing.assert_allclose(found["tension"][i], speed**2 + g[i] * np.cos(phi), atol=1e-3)


def test_a_complex_state():
    """y′ = i·z, and z = y, hidden in an equation that is not linear."""
    residual = lambda t, y, dy, a: jnp.stack([dy[0] - 1j * y[1], y[0] - y[1] + a * (y[1] - y[0]) ** 3])
    problem = jde.DAEProblem(residual, jnp.array([1.0 + 0j, 0.4]), None, (0.0, 2.0), jnp.array(0.5 + 0j))
    solution = jde.solve(problem, rtol=1e-7, atol=1e-9, saveat=[0.0, 2.0])
    np.testing.assert_allclose(solution.ys[:, 0], np.exp([0j, 2j]), rtol=1e-5)
    np.testing.assert_allclose(solution.ys[:, 1], np.exp([0j, 2j]), rtol=1e-5)


def test_a_jump_of_the_constraint_at_a_stop():
    """z = 1 and then 3, y′ = z."""
    residual = lambda t, y, dy, at: jnp.stack([dy[0] - y[1], y[1] - jnp.where(t < at, 1.0, 3.0)])
    problem = jde.DAEProblem(residual, jnp.zeros(2), None, (0.0, 2.0), jnp.array(0.7))

    @functools.partial(jax.value_and_grad, has_aux=True)
    def end(at):
        y, z = jde.solve(problem, args=at, stops=at, saveat=[2.0], **TIGHT).ys[0]
        return y, z

    (y, z), slope = end(jnp.array(0.7))
    np.testing.assert_allclose([y, z], [0.7 + 3 * 1.3, 3.0], rtol=1e-8)
    np.testing.assert_allclose(slope, -2.0, rtol=1e-6)


# -------------------- consistent initial values -----------------------------------------------------------------------


def test_only_what_is_free_of_y0_changes_whatever_the_coordinates():
    """M with a null space that no component spans: what changes of y0 lies in it."""
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    f = lambda t, y, k: turn @ reactions(t, turn.T @ y, k)
    problem = FORMS["M"].replace(f=f, y0=turn @ WRONG, mass_matrix=turn @ np.diag([1.0, 1.0, 0.0]) @ turn.T)
    for method in (jde.BDF(), jde.Rodas5P()):
        solution = jde.solve(problem, method, saveat=[0.0, 40.0], **TIGHT)
        np.testing.assert_allclose(turn.T @ solution.ys[0], [1, 0, 0], atol=1e-12)
        np.testing.assert_allclose(turn.T @ solution.ys[1], AT_40, rtol=1e-5, atol=1e-9)


def first(x, form):
    """z³ + p·z = y from z ≈ 0, saved at the start: y, z. Shapes: x is y, p, and an angle of the null space."""
    y, p, turn = x
    c, s = jnp.cos(turn), jnp.sin(turn)
    q = jnp.stack([jnp.stack([c, -s]), jnp.stack([s, c])])
    law = lambda y: jnp.stack([-y[0], y[1] ** 3 + p * y[1] - y[0]])
    start = q @ jnp.stack([y, 0.1 * y])
    mass = q @ jnp.diag(jnp.array([1.0, 0.0])) @ q.T
    f = lambda t, u, args: q @ law(q.T @ u)
    if form == "F":
        problem = jde.DAEProblem(lambda t, u, du, args: mass @ du - f(t, u, args), start, None, (0.0, 0.1))
    else:
        problem = jde.ODEProblem(f, start, (0.0, 0.1), mass_matrix=mass)
    return q.T @ jde.solve(problem, jde.BDF(), saveat=jde.SaveAt(t0=True, t1=True), **TIGHT).ys[0]


@pytest.mark.parametrize("form", ["F", "M"])
def test_derivatives_of_the_initial_values(form):
    """dz = (dy − z·dp)/(3z² + p), and none in the coordinates."""
    x = jnp.array([1.3, 0.7, 0.4])
    found = jax.jit(functools.partial(first, form=form))(x)
    z = found[1]
    np.testing.assert_allclose(z**3 + 0.7 * z, 1.3, rtol=1e-10)
    slope = 1 / (3 * z**2 + 0.7)
    wanted = np.array([[1, 0, 0], [slope, -z * slope, 0]])
    for mode in (jax.jacfwd, jax.jacrev):
        np.testing.assert_allclose(jax.jit(mode(functools.partial(first, form=form)))(x), wanted, atol=1e-7)


@pytest.mark.parametrize(
    "constraint", [lambda y: y[1] ** 2 + 1 + y[0], lambda y: y[0] - 1.0], ids=["no root", "index 2"]
)
def test_values_that_cannot_be_made_consistent_have_their_own_code(constraint):
    residual = lambda t, y, dy, args: jnp.stack([dy[0] - y[1], constraint(y)])
    problem = jde.DAEProblem(residual, jnp.array([1.0, 0.5]), None, (0.0, 1.0))
    solution = jde.solve(problem, throw=False, saveat=[0.5, 1.0])
    assert solution.status == "initialisation_failed"
    assert np.all(np.isnan(solution.ys))
    assert solution.stats.steps == 0
    with pytest.raises(jde.SolveError, match=r"initialisation_failed at t = 0.*index is 1"):
        jde.solve(problem)
    assert np.isnan(jax.grad(lambda y: jnp.sum(jde.solve(problem, y0=y, saveat=[1.0], throw=False).ys))(problem.y0)[0])


def test_a_parameter_of_the_constraint_alone_has_a_gradient():
    """0 = z − a, y′ = z."""
    residual = lambda t, y, dy, a: jnp.stack([dy[0] - y[1], y[1] - a])
    end = lambda a: jde.solve(jde.DAEProblem(residual, jnp.zeros(2), None, (0.0, 2.0)), args=a, saveat=[2.0]).ys[0, 0]
    np.testing.assert_allclose(jax.grad(end)(1.5), 2.0, rtol=1e-6)


# -------------------- control, choice, refusals -----------------------------------------------------------------------


def test_errors_of_algebraic_components_can_be_left_out():
    """z is a fast signal that nothing depends on: without its error the steps are those of y."""
    residual = lambda t, y, dy, a: jnp.stack([dy[0] + y[0], y[1] - jnp.sin(100 * t)])
    problem = jde.DAEProblem(residual, jnp.array([1.0, 0.0]), None, (0.0, 2.0))
    steps = {}
    for algebraic in (True, False):
        controller = jde.PIDController(algebraic=algebraic)
        solution = jde.solve(problem, controller=controller, rtol=1e-6, atol=1e-8, saveat=[2.0])
        np.testing.assert_allclose(solution.ys[0], [np.exp(-2), np.sin(200)], rtol=1e-4, atol=1e-6)
        steps[algebraic] = int(solution.stats.steps)
    assert steps[False] < 100 < 1000 < steps[True]


def test_what_is_recommended_and_what_is_refused():
    assert jde.recommend(FORMS["F"]).method == jde.BDF()
    assert jde.recommend(FORMS["M(t, y)"]).method == jde.BDF()
    with pytest.raises(
        ValueError, match=r"Tsit5 cannot solve F\(t, y, dy/dt\) = 0. Take BDF\(\), KenCarp4\(\) or RadauIIA5\(\)"
    ):
        jde.solve(FORMS["F"], jde.Tsit5())
    with pytest.raises(ValueError, match=r"Rodas5P cannot solve M\(t, y\).*Take BDF\(\)"):
        jde.solve(FORMS["M(t, y)"], jde.Rodas5P())
    with pytest.raises(ValueError, match=r"`dy0` must be a pytree like `y0`"):
        jde.solve(FORMS["F"].replace(dy0=jnp.zeros(2)))
    with pytest.raises(TypeError, match="residual"):
        jde.DAEProblem(lambda t, y: y, WRONG, None, (0.0, 1.0))  # pyright: ignore[reportArgumentType]


def test_step_by_step():
    integrator = jde.Integrator(FORMS["F"], rtol=1e-6, atol=1e-10)
    state = integrator.run(integrator.init(), 10_000)
    assert state.result == jde.Result.success
    np.testing.assert_allclose(state.y, AT_40, rtol=1e-3)


# -------------------- a circuit of the IVP test set -------------------------------------------------------------------


def amplifier(t, y, r):
    """Two transistors; `r` are the resistances R₀ … R₉. Source: Mazzia, Magherini, Test Set for IVP Solvers, 2008."""
    supply, signal = 6.0, 0.1 * jnp.sin(200 * jnp.pi * t)
    first, second = (1e-6 * (jnp.exp((y[i] - y[i + 1]) / 0.026) - 1) for i in (1, 4))
    return jnp.stack(
        [
            (y[0] - signal) / r[0],
            y[1] / r[1] + (y[1] - supply) / r[2] + 0.01 * first,
            y[2] / r[3] - first,
            (y[3] - supply) / r[4] + 0.99 * first,
            y[4] / r[5] + (y[4] - supply) / r[6] + 0.01 * second,
            y[5] / r[7] - second,
            (y[6] - supply) / r[8] + 0.99 * second,
            y[7] / r[9],
        ]
    )


def capacities():
    """Of rank 5, without a zero column."""
    c, m = np.arange(1, 6) * 1e-6, np.zeros((8, 8))
    for i, k in ((0, 0), (3, 2), (6, 4)):
        m[i : i + 2, i : i + 2] = c[k] * np.array([[-1, 1], [1, -1]])
    m[2, 2], m[5, 5] = -c[1], -c[3]
    return m


CIRCUIT = jde.ODEProblem(
    amplifier,
    jnp.array([0.0, 3.0, 3.0, 6.0, 3.0, 3.0, 6.0, 0.0]),
    (0.0, 0.2),
    jnp.array([1000.0, *[9000.0] * 9]),
    mass_matrix=capacities(),
)
AMPLIFIED = np.array(  # from the same source
    [-0.5562145012262709e-2, 3.006522471903042, 2.849958788608128, 2.926422536206241, 2.704617865010554,
     2.761837778393145, 4.770927631616772, 1.236995868091548]
)  # fmt: skip


def test_the_transistor_amplifier_from_voltages_that_are_off():
    off = jnp.array([0.3, 0.3, 0.0, -0.2, -0.2, 0.0, 0.1, 0.1])  # which no capacity sees
    for method in (jde.Rodas5P(), jde.BDF()):
        solution = jde.solve(CIRCUIT, method, y0=CIRCUIT.y0 + off, saveat=[0.0, 0.2], rtol=1e-7, atol=1e-7)
        np.testing.assert_allclose(solution.ys[0], CIRCUIT.y0, atol=1e-7)
        np.testing.assert_allclose(solution.ys[1], AMPLIFIED, rtol=1e-4)


@pytest.mark.parametrize("method", [jde.BDF(), jde.TRBDF2(), jde.RadauIIA9(), jde.ROS34PW2()], ids=str)
def test_the_amplifier_at_any_tolerance(method):
    """What is left in algebraic components once made every step too large, however short, at 29 of these. A method
    without iterations is asked for those at which voltages may err by less than the diodes' 26 mV."""
    tolerances = jnp.geomspace(1e-2, 1e-6, 13)[3 * (method.name == "ROS34PW2") :]

    def end(tol):
        sol = jde.solve(CIRCUIT, method, saveat=[0.2], rtol=tol, atol=tol, max_steps=40_000, throw=False)
        return sol.ys[0], sol.result

    ends, results = jax.jit(lambda tolerances: jax.lax.map(end, tolerances))(tolerances)
    assert np.all(results == jde.Result.success)
    assert np.all(np.abs(ends - AMPLIFIED[None]) < 40 * tolerances[:, None])
