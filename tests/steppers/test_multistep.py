"""Multistep methods: formulas of every order from exact histories, then the choice of order and step in solves."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from scipy.integrate import solve_ivp

import jaxdiffeq as jde
from jaxdiffeq.algebra.structure import Banded
from jaxdiffeq.engine.control import Tolerance
from jaxdiffeq.problems.vector_field import VectorField
from jaxdiffeq.types import State

END = jde.SaveAt(t1=True)
TOLERANCE = Tolerance(jnp.array(1e-12), jnp.array(1e-12))
METHODS = {"BDF": jde.BDF(), "BDF without κ": jde.BDF(ndf=False), "Adams": jde.Adams()}
each = pytest.mark.parametrize("method", [jde.BDF(), jde.Adams()], ids=str)
RATES = jnp.array([0.04, 3e7, 1e4])


# ---- one formula


def history(method, g, t, y, h, order):
    """A memory of equal steps before t: differences of y for BDF, of the slopes for Adams, from their values g(t)."""
    rows = method.order + (3 if method.name == "BDF" else 1)
    values = np.array([g(t - j * h) for j in range(rows)])
    nabla = [sum((-1) ** i * math.comb(j, i) * values[i] for i in range(j + 1)) for j in range(rows)]
    memory = method.init(VectorField(lambda t, y, args: y), t, y, None)
    memory = memory._replace(order=jnp.array(order, jnp.int32))
    if method.name == "BDF":
        return memory._replace(differences=jnp.stack(nabla[1:]), width=jnp.asarray(h))
    known = jnp.array(method.order + 1, jnp.int32)
    return memory._replace(differences=jnp.stack(nabla), widths=jnp.full(method.order, h), known=known)


def exact(t):
    return np.array([np.cos(t), np.exp(-t)])


def slope(t):
    return np.array([-np.sin(t), -np.exp(-t)])


def field(t, y, args):
    """Its solution through exact(0) is `exact`."""
    x, z = y
    return jnp.stack([-jnp.sin(t) + x * z - jnp.cos(t) * jnp.exp(-t), -z * z * jnp.exp(t)])


@functools.cache
def marching(name):
    """End of n steps of one order. The order and the number are arguments: one program serves all of them."""
    method = METHODS[name]

    @jax.jit
    def march(memory, h, n):
        def step(i, carry):
            y, memory = carry
            t = i * h
            after = method.step(VectorField(field), State(t, y, memory), t + h, None, TOLERANCE).after
            return after.y, after.memory._replace(order=memory.order)

        return lax.fori_loop(0, n, step, (jnp.asarray(exact(0.0)), memory))[0]

    return march


ORDERS = [(name, k) for name in ("BDF", "BDF without κ") for k in range(1, 6)]
ORDERS += [("Adams", k) for k in (1, 2, 3, 5, 8)]


@pytest.mark.parametrize(("name", "k"), ORDERS)
def test_order_of_every_formula(name, k):
    method, errors = METHODS[name], []
    numbers = np.array([5, 6, 7, 8, 10, 12, 14] if k > 5 else [10, 14, 20, 28, 40, 56, 80]) * (8 if k < 3 else 1)
    for n in numbers:
        h = 1.0 / n
        g = slope if name == "Adams" else exact
        memory = history(method, g, jnp.array(0.0), jnp.asarray(exact(0.0)), h, k)
        errors.append(np.abs(marching(name)(memory, h, n) - exact(1.0)).max())
    clear = np.array(errors) > 1e-12  # of rounding
    assert clear.sum() >= 4
    found = -np.polyfit(np.log(numbers[clear]), np.log(np.array(errors)[clear]), 1)[0]
    order = k + (name == "Adams")  # the corrector's, one above the order that counts for the step size
    assert found > order - 0.25
    if k <= 3:
        assert found < order + 0.25


@functools.cache
def one_step(name):
    """A step of y′ = k·tᵏ⁻¹ − 1 and y′ = 1: its end, its error estimate, and the middle of its dense output."""
    method = METHODS[name]

    def f(t, y, k):
        return jnp.stack([k * t ** (k - 1) - 1.0, jnp.ones_like(t)])

    @jax.jit
    def step(start, t1, k):
        step = method.step(VectorField(f), start, t1, k, TOLERANCE)
        powers = 0.5 ** np.arange(method.degree + 1)
        return step.after.y, step.error, powers @ method.polynomial(VectorField(f), step.dense, k)

    return step


@pytest.mark.parametrize("ratio", [0.3, 1.0, 1.9])
@pytest.mark.parametrize("k", range(1, 6))
@pytest.mark.parametrize("name", ["BDF", "BDF without κ"])
def test_bdf_is_exact_on_polynomials_whatever_the_step(name, k, ratio):
    h = 0.25

    def g(t):
        return np.array([t**k - t, 1.0 + t])

    y0 = jnp.asarray(g(1.0))
    start = State(jnp.array(1.0), y0, history(METHODS[name], g, jnp.array(1.0), y0, h, k))
    y1, error, middle = one_step(name)(start, 1.0 + ratio * h, float(k))
    np.testing.assert_allclose(y1, g(1.0 + ratio * h), rtol=1e-13)
    np.testing.assert_allclose(error, 0.0, atol=1e-12)
    np.testing.assert_allclose(middle, g(1.0 + 0.5 * ratio * h), rtol=1e-13)


def test_adams_is_exact_on_polynomials_whatever_the_steps():
    """From its start on: after k steps of different sizes it integrates polynomials of degree k exactly."""
    method, t, widths = jde.Adams(), 0.0, 0.1 * np.array([1.0, 1.7, 0.6, 1.2, 0.5, 1.9, 1.0])
    degrees = np.arange(1.0, 9.0)

    def f(t, y, args):
        return degrees * (1.0 + t) ** (degrees - 1)

    y = jnp.ones(8)
    memory = method.init(VectorField(f), jnp.array(t), y, None)

    @jax.jit
    def advance(start, t1):
        step = method.step(VectorField(f), start, t1, None, TOLERANCE)
        return step.after, 0.5 ** np.arange(method.degree + 1) @ method.polynomial(VectorField(f), step.dense, None)

    for n, width in enumerate(widths):
        memory = memory._replace(order=jnp.array(n + 1, jnp.int32))
        after, middle = advance(State(jnp.array(t), (1.0 + t) ** degrees, memory), t + width)
        assert int(after.memory.known) == n + 2
        wanted = (1.0 + t + width) ** degrees
        right = degrees <= n + 2  # order n + 1 corrects to degree n + 2
        np.testing.assert_allclose(after.y[right], wanted[right], rtol=1e-13)
        assert np.abs(after.y - wanted)[~right].min(initial=1.0) > 1e-11
        np.testing.assert_allclose(middle[right], ((1.0 + t + 0.5 * width) ** degrees)[right], rtol=1e-13)
        memory, t = after.memory, t + width


# ---- solves of problems that are not stiff


def lotka_volterra(t, y, args):
    x, w = y
    return jnp.stack([1.5 * x - x * w, x * w - 3 * w])


def end(f, y0, t1, method, args=None, **options):
    """A compiled solve: (rtol, atol) ↦ the end, its result, and statistics."""

    @jax.jit
    def run(rtol, atol):
        problem = jde.ODEProblem(f, jnp.asarray(y0), (0.0, t1), args)
        sol = jde.solve(problem, method, saveat=END, rtol=rtol, atol=atol, **options)
        return sol.ys[-1], sol.result, sol.stats

    return run


@pytest.mark.parametrize(("method", "least"), [(jde.BDF(), 4.0), (jde.Adams(), 7.5)], ids=["BDF", "Adams"])
def test_high_orders_are_reached(method, least):
    """Error against number of steps: the slope is the order that the solve has come to."""
    run = end(lotka_volterra, [1.0, 1.0], 10.0, method)
    reference = solve_ivp(
        lambda t, y: np.array([1.5 * y[0] - y[0] * y[1], y[0] * y[1] - 3 * y[1]]),
        (0, 10),
        [1, 1],
        method="DOP853",
        rtol=1e-13,
        atol=1e-13,
    ).y[:, -1]
    steps, errors = [], []
    for tol in (1e-6, 1e-8, 1e-10):
        y, result, stats = run(tol, tol)
        assert result == jde.Result.success
        steps.append(int(stats.accepted))
        errors.append(np.abs(y - reference).max())
    assert -np.polyfit(np.log(steps), np.log(errors), 1)[0] > least


@each
def test_dense_output_backward_time_and_a_state_of_any_shape(method):
    """y′ = −y·sin t on [2, 3] states, from 6 down to 0."""
    y0 = jnp.arange(1.0, 7.0).reshape(2, 3)
    problem = jde.ODEProblem(lambda t, y, args: -y * jnp.sin(t), y0, (6.0, 0.0))
    ts = jnp.linspace(6.0, 0.0, 41)
    sol = jde.solve(problem, method, saveat=ts, dense=True, rtol=1e-9, atol=1e-9)
    wanted = np.asarray(y0) * np.exp(np.cos(ts) - np.cos(6.0))[:, None, None]
    np.testing.assert_allclose(sol.ys, wanted, rtol=2e-7)
    np.testing.assert_allclose(sol(1.2345), y0 * jnp.exp(jnp.cos(1.2345) - jnp.cos(6.0)), rtol=2e-7)
    np.testing.assert_allclose(sol.derivative(1.2345), -jnp.sin(1.2345) * sol(1.2345), rtol=1e-5)


@each
def test_complex_states(method):
    problem = jde.ODEProblem(lambda t, y, w: w * y * jnp.conj(y) * y, jnp.array([1.0 + 0j, 0.5j]), (0.0, 3.0), 2j)
    sol = jde.solve(problem, method, saveat=END, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(sol.ys[-1], [np.exp(6j), 0.5j * np.exp(1.5j)], atol=1e-6)


@each
def test_single_precision(method):
    problem = jde.ODEProblem(lotka_volterra, jnp.ones(2, jnp.float32), (0.0, 10.0))
    sol = jde.solve(problem, method, saveat=END, rtol=1e-5, atol=1e-5)
    assert sol.ys.dtype == jnp.float32
    np.testing.assert_allclose(sol.ys[-1], [1.0263447675750, 0.9096910781371], atol=5e-3)


@each
def test_a_jump_at_a_stop(method):
    """y′ = ±y: at a stop the method starts again, and the past before it has no part in what follows."""
    problem = jde.ODEProblem(lambda t, y, at: jnp.where(t < at, y, -y), jnp.ones(1), (0.0, 2.0), 1.25)

    def last(at):
        return jde.solve(problem, method, args=at, saveat=END, rtol=1e-8, atol=1e-8, stops=at[None]).ys[-1, 0]

    y, slope = jax.jit(jax.value_and_grad(last))(jnp.array(1.25))
    np.testing.assert_allclose(y, np.exp(0.5), rtol=1e-6)
    np.testing.assert_allclose(slope, 2 * np.exp(0.5), rtol=1e-6)


@each
@pytest.mark.parametrize("c", [1e-12, 1e12])
def test_time_has_no_scale(method, c):
    run = jax.jit(
        lambda c: jde.solve(
            jde.ODEProblem(lambda t, y, c: lotka_volterra(t, y, None) / c, jnp.ones(2), (0.0, 5 * c), c),
            method,
            saveat=END,
        )
    )
    one, other = run(jnp.array(1.0)), run(jnp.array(c))
    assert one.stats.steps == other.stats.steps
    np.testing.assert_allclose(other.ys, one.ys, rtol=1e-9)


def test_adams_asks_less_often_than_runge_kutta():
    adams, vern = (end(lotka_volterra, [1.0, 1.0], 10.0, m)(1e-9, 1e-9)[2] for m in (jde.Adams(), jde.Vern7()))
    assert int(adams.f_evals) < 0.65 * int(vern.f_evals)


# ---- stiff problems


def robertson(t, y, k):
    r1, r2, r3 = k[0] * y[0], k[1] * y[1] * y[1], k[2] * y[1] * y[2]
    return jnp.stack([-r1 + r3, r1 - r2 - r3, r2])


def robertson_dae(t, y, k):
    """The mass that is conserved, k₃, enters only through the algebraic equation."""
    return jnp.append(robertson(t, y, k)[:2], jnp.sum(y) - k[3])


def hires(t, y, args):
    """Schäfer 1975; Hairer, Wanner, Solving ODEs II, IV.10."""
    a, b, c, d, e, p, q, r = y
    return jnp.stack([
        -1.71 * a + 0.43 * b + 8.32 * c + 0.0007,
        1.71 * a - 8.75 * b,
        -10.03 * c + 0.43 * d + 0.035 * e,
        8.32 * b + 1.71 * c - 1.12 * d,
        -1.745 * e + 0.43 * p + 0.43 * q,
        -280 * p * r + 0.69 * d + 1.71 * e - 0.43 * p + 0.69 * q,
        280 * p * r - 1.81 * q,
        -280 * p * r + 1.81 * q,
    ])  # fmt: skip


def van_der_pol(t, y, mu):
    return jnp.stack([y[1], mu * ((1 - y[0] ** 2) * y[1]) - y[0]])


ROBERTSON = [1.0, 0.0, 0.0]
HIRES = [1.0, 0, 0, 0, 0, 0, 0, 0.0057]
# SciPy's Radau at rtol 1e-11; the digits of HIRES are those of the test set of Hairer and Wanner
PROBLEMS = {
    "Robertson 1e5": (robertson, ROBERTSON, 1e5, RATES, [0.0178659211, 7.27475e-8, 0.982134006]),
    "Robertson 1e11": (robertson, ROBERTSON, 1e11, RATES, [2.08334e-8, 8.33336e-14, 0.99999998]),
    "HIRES": (hires, HIRES, 321.8122, None, [7.371312573e-4, 1.442485726e-4, 5.888729741e-5, 1.175651343e-3,
                                              2.386356199e-3, 6.238968253e-3, 2.849998395e-3, 2.850001605e-3]),
    "Van der Pol": (van_der_pol, [2.0, 0.0], 2000.0, 1000.0, [1.70616773217, -0.89280970102e-3]),
}  # fmt: skip


@functools.cache
def stiff(name):
    f, y0, t1, args, reference = PROBLEMS[name]
    return end(f, y0, t1, jde.BDF(), args), np.array(reference)


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("rtol", [1e-3, 1e-5, 1e-7])
def test_stiff_problems(name, rtol):
    run, reference = stiff(name)
    y, result, stats = run(rtol, 1e-4 * rtol)
    assert result == jde.Result.success
    assert np.abs((y - reference) / (1e-4 * rtol + rtol * np.abs(reference))).max() < 50
    assert int(stats.accepted) > 0.9 * int(stats.steps)
    if name.startswith("Robertson"):
        np.testing.assert_allclose(jnp.sum(y), 1.0, rtol=1e-13)


@pytest.mark.parametrize("name", PROBLEMS)
def test_calls_of_f_compared_with_scipy(name):
    """SciPy's BDF is the same formula. Its calls are without those for the Jacobians, which are included here."""
    f, y0, t1, args, _ = PROBLEMS[name]
    stats = stiff(name)[0](1e-6, 1e-10)[2]
    slope = jax.jit(lambda t, y: f(t, y, args))
    peer = solve_ivp(slope, (0, t1), y0, "BDF", rtol=1e-6, atol=1e-10, jac=jax.jit(jax.jacfwd(slope, 1)))
    assert int(stats.f_evals) < 0.9 * peer.nfev
    assert int(stats.f_evals) == 1 + 2 + int(stats.newton_iterations) + int(stats.jac_evals)
    if name == "HIRES":  # more than four unknowns: Jacobians and factors are kept
        assert int(stats.jac_evals) < 0.15 * int(stats.steps)
        assert int(stats.factorizations) < 0.4 * int(stats.steps)


@pytest.mark.parametrize("rtol", 10.0 ** np.arange(-8, -1.5, 0.5))
@pytest.mark.parametrize("fraction", [1e-1, 1e-2, 1e-3])
def test_no_success_without_the_solution(rtol, fraction):
    """Robertson's equations run away from small negative values: a solve may fail there, but must not call it success.

    Within loose tolerances the concentrations of 2e-8 and 1e-13 are free to be negative.
    """
    y, result, _ = stiff("Robertson 1e11")[0](rtol, rtol * fraction)
    reference = np.array(PROBLEMS["Robertson 1e11"][-1])
    if result == jde.Result.success:
        np.testing.assert_allclose(y, reference, atol=rtol)
    else:
        assert np.isnan(y).all()


@pytest.mark.parametrize("method", [jde.Adams(), jde.Vern7()], ids=["Adams", "Vern7"])
def test_methods_that_are_not_stiff_give_up_on_stiff_problems(method):
    y, result, stats = end(robertson, ROBERTSON, 1e11, method, RATES, max_steps=5000)(1e-6, 1e-10)
    assert result == jde.Result.max_steps_reached
    assert stats.steps == 5000
    assert np.isnan(y).all()


DAE = jde.ODEProblem(
    robertson_dae,
    jnp.array(ROBERTSON),
    (0.0, 40.0),
    jnp.append(RATES, 1.0),
    mass_matrix=jnp.diag(jnp.array([1.0, 1.0, 0.0])),
)
AT_40 = np.array([0.715827069, 9.18553476e-6, 0.284163746])


def test_an_algebraic_equation():
    sol = jde.solve(DAE, jde.BDF(), saveat=jnp.geomspace(1e-3, 40.0, 20), rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(sol.ys[-1], AT_40, rtol=1e-6)
    np.testing.assert_allclose(np.sum(sol.ys, axis=1), 1.0, rtol=1e-8)


def diffusion(t, y, rate):
    """A reacting chain whose ends are free; the reaction changes its sign at 0.3."""
    spread = jnp.append(y[1:], y[-1:]) - 2 * y + jnp.append(y[:1], y[:-1])
    return 500.0 * rate * spread + y * (1 - y) + jnp.where(t < 0.3, 1.0, -1.0)


CHAIN = jde.ODEProblem(diffusion, jnp.linspace(0.1, 1.0, 6), (0.0, 1.0), 1.0)


def test_a_structure_changes_the_work_alone():
    options = {"saveat": END, "rtol": 1e-7, "atol": 1e-7, "stops": [0.3]}
    dense, banded = (jde.solve(CHAIN.replace(jac_structure=s), jde.BDF(), **options) for s in (None, Banded(1, 1)))
    np.testing.assert_allclose(banded.ys, dense.ys, rtol=1e-9)
    assert banded.stats.jac_evals < 0.2 * banded.stats.steps


def test_a_kept_jacobian_in_every_transformation():
    """With a stop, where everything starts anew: lanes, and derivatives in both modes."""

    @jax.jit
    def run(rate, rtol):
        return jde.solve(CHAIN, jde.BDF(), args=rate, saveat=END, rtol=rtol, atol=rtol, stops=[0.3]).ys[-1, :3]

    rates = jnp.array([1.0, 0.01])
    lanes = jax.jit(jax.vmap(run, (0, None)))(rates, 1e-7)
    np.testing.assert_allclose(lanes, np.stack([run(rate, 1e-7) for rate in rates]), rtol=1e-9)
    _, forward = jax.jit(lambda rate: jax.jvp(lambda rate: run(rate, 1e-7), (rate,), (1.0,)))(1.0)
    np.testing.assert_allclose(forward, (run(1.001, 1e-11) - run(0.999, 1e-11)) / 0.002, rtol=1e-3, atol=1e-6)
    reverse = jax.jit(jax.grad(lambda rate: jnp.sum(run(rate, 1e-7))))(1.0)
    np.testing.assert_allclose(reverse, jnp.sum(forward), rtol=1e-8)


def test_kappa_and_the_highest_order_are_options():
    errors = [
        np.abs(end(robertson, ROBERTSON, 40.0, m, RATES)(1e-6, 1e-10)[0] / AT_40 - 1).max()
        for m in (jde.BDF(ndf=False), jde.BDF(max_order=2))
    ]
    assert max(errors) < 1e-4
    with pytest.raises(ValueError, match="max_order"):
        jde.BDF(max_order=6)
    with pytest.raises(ValueError, match="max_order"):
        jde.Adams(max_order=13)


# ---- transformations


@each
def test_a_lane_is_the_single_solve(method):
    run = jax.jit(lambda scale: jde.solve(PROBLEM, method, args=scale, saveat=END, rtol=1e-6, atol=1e-8))
    scales = jnp.array([1.0, 30.0, 0.1])
    lanes = jax.vmap(run)(scales)
    for i, scale in enumerate(scales):
        one = run(scale)
        assert one.stats.steps == lanes.stats.steps[i]
        np.testing.assert_allclose(lanes.ys[i], one.ys, rtol=1e-10)


def relaxation(t, y, scale):
    """A stiff linear part that depends on the parameter, and a slow nonlinear one."""
    return jnp.stack([-scale * (y[0] - jnp.cos(t)), y[0] * y[1] - y[1] ** 2])


PROBLEM = jde.ODEProblem(relaxation, jnp.array([0.3, 0.7]), (0.0, 2.0), 10.0)


def loss(x, method, gradient, rtol=1e-6):
    scale, y0, t1 = x
    ts = jnp.linspace(0.5, 1.0, 3) * t1
    options = {"saveat": ts, "rtol": rtol, "atol": rtol, "gradient": gradient}
    sol = jde.solve(PROBLEM, method, args=scale, y0=y0, tspan=(0.0, t1), **options)
    return jnp.sum(sol.ys**2 * jnp.array([[1.0, 2.0], [0.5, 1.0], [3.0, -1.0]]))


X = (jnp.array(10.0), jnp.array([0.3, 0.7]), jnp.array(2.0))


@functools.cache
def differences():
    """Central differences of solves whose error is far below the step of the difference."""
    value = jax.jit(lambda *x: loss(x, jde.Vern7(), jde.ReverseAD(), 1e-12))

    def along(i):
        sides = []
        for sign in (1, -1):
            flat = np.array([10.0, 0.3, 0.7, 2.0])
            flat[i] += sign * 1e-4
            sides.append(value(jnp.asarray(flat[0]), jnp.asarray(flat[1:3]), jnp.asarray(flat[3])))
        return (sides[0] - sides[1]) / 2e-4

    return np.array([along(i) for i in range(4)])


# Thinned, so that the memory of past steps is restored from the log. What adjoints are integrated by is the same for
# all of them: one a method.
STRATEGIES = {"thinned": jde.ReverseAD(memory=4), "forward": jde.ForwardAD(), "gauss": jde.GaussAdjoint(),
              "interpolating": jde.InterpolatingAdjoint()}  # fmt: skip


@functools.cache
def gradient(name, strategy):
    scale, y0, t1 = jax.jit(jax.grad(lambda x: loss(x, METHODS[name], STRATEGIES[strategy])))(X)
    return np.array([scale, *y0, t1])


@pytest.mark.parametrize(
    ("name", "strategy"),
    [(name, s) for name in ("BDF", "Adams") for s in ("thinned", "forward")]
    + [("BDF", "gauss"), ("Adams", "interpolating")],
)
def test_gradients(name, strategy):
    """With respect to args, y0 and t1, which moves the saved times."""
    found = gradient(name, strategy)
    # the derivative of the computed solution differs from that of the true one by the solution's own error
    np.testing.assert_allclose(found, differences(), rtol=2e-4, atol=2e-5)
    if strategy == "thinned":
        np.testing.assert_allclose(found, gradient(name, "forward"), rtol=1e-9)  # the same steps, differentiated


def test_gradient_of_an_algebraic_equation():
    """With respect to the rates and to what enters the algebraic equation alone, against the reduced equations."""
    args = jnp.append(RATES, 1.0)

    def of_dae(scale, rtol):
        return jde.solve(DAE, jde.BDF(), args=args * scale, saveat=END, rtol=rtol, atol=1e-4 * rtol).ys[-1, 0]

    def reduced(t, y, k):
        return robertson(t, jnp.append(y, k[3] - jnp.sum(y)), k)[:2]

    problem = jde.ODEProblem(reduced, jnp.array(ROBERTSON[:2]), (0.0, 40.0))

    @jax.jit
    def of_reduced(scale):
        return jde.solve(problem, jde.Rodas5P(), args=args * scale, saveat=END, rtol=1e-11, atol=1e-15).ys[-1, 0]

    found = jax.jit(jax.grad(of_dae))(jnp.ones(4), 1e-8)
    wanted = [(of_reduced(1 + 1e-4 * e) - of_reduced(1 - 1e-4 * e)) / 2e-4 for e in jnp.eye(4)]
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


@each
def test_a_field_that_ends_is_reported(method):
    """f is NaN from t = 1 on: the steps shrink and the solve says where it stopped, with nothing invented beyond."""
    problem = jde.ODEProblem(lambda t, y, args: -y * jnp.where(t < 1, 1.0, jnp.nan), jnp.ones(2), (0.0, 2.0))
    sol = jde.solve(problem, method, saveat=END, throw=False)
    assert sol.result in (jde.Result.nonfinite, jde.Result.nonlinear_solve_failed)
    assert np.isnan(sol.ys).all()
    np.testing.assert_allclose(sol.t_end, 1.0, rtol=1e-10)
    np.testing.assert_allclose(sol.y_end, np.exp(-1), rtol=1e-2)


@each
def test_a_field_that_fails_here_and_there(method):
    """f is NaN in a fiftieth of all places, at random: steps are refused, and neither value nor gradient notices."""

    def scattered(t, y, rate):
        chance = jnp.sin(1e10 * (t + y[0])) ** 2
        return -rate * (y - jnp.cos(t)) + jnp.where(chance < 0.001, jnp.nan, 0.0)

    def last(rate):
        problem = jde.ODEProblem(scattered, jnp.array([0.5]), (0.0, 3.0), rate)
        sol = jde.solve(problem, method, saveat=END, rtol=1e-6, atol=1e-6)
        return sol.ys[-1, 0], sol.stats

    def solution(rate):
        c = 0.5 - rate**2 / (1 + rate**2)
        return (rate**2 * jnp.cos(3.0) + rate * jnp.sin(3.0)) / (1 + rate**2) + c * jnp.exp(-3.0 * rate)

    (y, stats), slope = jax.jit(jax.value_and_grad(last, has_aux=True))(2.0)
    assert int(stats.rejected_solver) + int(stats.rejected_error) >= 3
    np.testing.assert_allclose(y, solution(2.0), atol=1e-4)
    np.testing.assert_allclose(slope, jax.grad(solution)(2.0), atol=1e-4)
