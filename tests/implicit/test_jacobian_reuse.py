"""Jacobians and factors that are used again: for how long, with what right, and that nothing else changes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiffeq as jde
from jaxdiffeq.algebra import newton
from jaxdiffeq.implicit import jacobian_reuse as chord

END = jde.SaveAt(t1=True)
RATES = jnp.array([0.04, 3e7, 1e4])
AT_40 = np.array([0.7158270688, 9.185534764e-6, 0.2841637457])  # Robertson's equations, of the IVP test set
ADAPTIVE = pytest.mark.parametrize("method", [jde.KenCarp4(), jde.RadauIIA5(), jde.BDF()], ids=str)
EQUAL = pytest.mark.parametrize("method", [jde.KenCarp4(), jde.RadauIIA5(), jde.Gauss4(), jde.SBDF2()], ids=str)
STEPS = 40


def twice(t, y, k):
    """Robertson's equations for two, so that there are more than four unknowns."""

    def robertson(y):
        first, second = -k[0] * y[0] + k[2] * y[1] * y[2], k[1] * y[1] ** 2
        return jnp.stack([first, -first - second, second])

    return jax.vmap(robertson)(y.reshape(2, 3)).reshape(-1)


def pair(f=twice):
    return jde.ODEProblem(f, jnp.array([1.0, 0.0, 0.0] * 2), (0.0, 40.0), RATES)


@functools.cache
def end(method, gradient=jde.ReverseAD()):
    def run(rates):
        return jde.solve(pair(), method, args=rates, saveat=END, rtol=1e-6, atol=1e-10, gradient=gradient)

    return jax.jit(lambda rates: (lambda sol: (sol.ys[0], sol.stats, sol.result))(run(rates)))


# ---- when it is made anew


@pytest.mark.parametrize(
    ("width", "c", "left", "expected"),
    [
        (1.0, 1.0, 5, (False, False)),
        (1.0, 1.0, 0, (True, True)),  # its time is over, or the iteration was slow
        (0.4, 1.0, 5, (True, True)),  # a step refused
        (9.0, 1.0, 5, (True, True)),  # a leap
        (1.0, 1.1, 5, (False, True)),  # another step size
        (1.0, jnp.nan, 5, (False, True)),
    ],
)
@pytest.mark.parametrize("of_step", [False, True])
def test_what_invalidates_it(width, c, left, expected, of_step):
    number = lambda x: jnp.asarray(x, jnp.float64)
    kept = chord.Chord(number(2), number(3), number(1), jnp.asarray(left, jnp.int32), number(0.9))
    matrix = chord.Matrix(lambda: number(20), lambda jacobian: jacobian + 1)
    renewed, work = chord.renewed(kept, matrix, number(c), number(width), of_step=of_step)
    made, factored = expected[1] if of_step else expected[0], expected[1]
    assert (int(work.jac_evals), int(work.factorizations)) == (made, factored)
    assert renewed.jacobian == (20 if made else 2)
    assert renewed.factors == (renewed.jacobian + 1 if factored else 3)
    assert renewed.left == (chord.LASTS if made else left - 1)
    after = chord.handed_on(renewed, kept, jnp.array(True), number(1))
    assert isinstance(after, chord.Chord)
    assert after.left == 0


def test_a_small_system_makes_its_own():
    system = jde.ODEProblem(lambda t, y, args: -y, jnp.ones(chord.RENEWED), (0.0, 1.0))
    for method in (jde.KenCarp4(), jde.RadauIIA5(), jde.BDF()):
        stats = jde.solve(system, method, saveat=END).stats
        assert stats.jac_evals == stats.steps


@ADAPTIVE
def test_it_is_used_again_and_the_answer_is_right(method):
    y, stats, result = end(method)(RATES)
    stats = jax.tree.map(int, stats)
    assert result == jde.Result.success
    assert stats.jac_evals < 0.7 * stats.steps
    np.testing.assert_allclose(y.reshape(2, 3), np.stack([AT_40, AT_40]), rtol=1e-4)
    if method.name == "RadauIIA5":  # three stages, two calls for the first step size, one or two for each estimate
        least = 3 * stats.newton_iterations + 2 + stats.steps
        assert least <= stats.f_evals <= least + stats.steps
    else:  # the slope at the start, too
        assert stats.f_evals == stats.newton_iterations + 3 + stats.jac_evals


@ADAPTIVE
def test_faults_are_refused_and_survived(method, monkeypatch):
    """Of an iteration that fails at random, with a Jacobian of before or with a new one."""
    iterate = newton._iterate

    def bad(*args):
        found = iterate(*args)
        good = jnp.sin(1e12 * found.z[0]) < 0.8
        return found._replace(z=jnp.where(good, found.z, jnp.nan), ok=found.ok & good)

    monkeypatch.setattr(newton, "_iterate", bad)
    solution = jde.solve(pair(lambda t, y, k: twice(t, y, k)), method, saveat=END, rtol=1e-5, atol=1e-11)
    assert solution.status == "success"
    assert solution.stats.rejected_solver > 5
    np.testing.assert_allclose(solution.ys[0].reshape(2, 3), np.stack([AT_40, AT_40]), rtol=1e-3)


def test_a_complex_state():
    rates = jnp.array([1.0, 1e2, 1e4], complex)

    def field(t, y, args):
        turning = jax.lax.complex(jnp.cos(t), jnp.sin(t))
        return -rates * (y - turning) + 1j * turning

    problem = jde.ODEProblem(field, jnp.ones(3, complex), (0.0, 3.0))
    for method in (jde.KenCarp4(), jde.RadauIIA5()):
        solution = jde.solve(problem, method, saveat=END, rtol=1e-7, atol=1e-9)
        assert solution.stats.jac_evals < solution.stats.steps
        np.testing.assert_allclose(solution.ys[0], np.full(3, np.exp(3j)), rtol=1e-6)


# ---- gradients, lanes


@pytest.mark.parametrize("method", [jde.KenCarp4(), jde.RadauIIA5()], ids=str)
def test_gradients_with_and_without_a_thinned_log(method):
    def third(gradient):
        return lambda rates: end(method, gradient)(rates)[0][2]

    whole, thinned = (jax.grad(third(jde.ReverseAD(memory)))(RATES) for memory in (None, 8))
    np.testing.assert_allclose(thinned, whole, rtol=1e-9)
    forward = jax.jvp(third(jde.ForwardAD()), (RATES,), (RATES,))[1]
    np.testing.assert_allclose(whole @ RATES, forward, rtol=1e-9)
    h = 1e-2
    difference = (third(jde.ReverseAD())(RATES * (1 + h)) - third(jde.ReverseAD())(RATES * (1 - h))) / (2 * h)
    np.testing.assert_allclose(forward, difference, rtol=2e-3)


def test_a_lane_is_the_single_solve():
    many = jnp.stack([RATES, 1.3 * RATES])
    lanes = jax.vmap(end(jde.KenCarp4()))(many)[0]
    np.testing.assert_allclose(lanes, jnp.stack([end(jde.KenCarp4())(rates)[0] for rates in many]), rtol=1e-10)


# ---- equal steps


def equally(method, f, n=6, span=(0.0, 0.1)):
    def run(a):
        problem = jde.ODEProblem(lambda t, y, a: f(t, y, a), jnp.linspace(1.0, 2.0, n), span, a)
        sol = jde.solve(problem, method, saveat=END, controller=jde.FixedSteps(STEPS), rtol=1e-6)
        return sol.ys[0], sol.stats, sol.result

    return jax.jit(run)


def diffusion(t, y, a):
    padded = jnp.pad(y, 1)
    return a * (padded[2:] - 2 * y + padded[:-2])


def both(method, f, monkeypatch, **options):
    """As it is, and with a new Jacobian in every step."""
    again = equally(method, f, **options)(50.0)
    with monkeypatch.context() as patch:
        patch.setattr(chord, "RENEWED", 10**9)
        return again, equally(method, lambda t, y, a: f(t, y, a), **options)(50.0)


@EQUAL
def test_of_a_linear_equation_it_lasts(method, monkeypatch):
    (y, stats, _), (y_anew, stats_anew, _) = both(method, diffusion, monkeypatch)
    np.testing.assert_allclose(y, y_anew, rtol=1e-11)
    assert stats.newton_iterations == stats_anew.newton_iterations
    assert stats_anew.jac_evals == STEPS
    assert stats.jac_evals <= STEPS // chord.LASTS + 1 + (method.name == "SBDF2")  # whose first step is another


@EQUAL
def test_one_that_changes_is_noticed_before_newton_slows_down(method, monkeypatch):
    """Nothing can be refused, so it must be as good as a new one. Here it grows by a tenth in every step."""

    def field(t, y, a):
        return a * jnp.exp(40 * t) * (jnp.cos(t) - y)

    (y, stats, result), (y_anew, stats_anew, _) = both(method, field, monkeypatch)
    assert result == jde.Result.success
    assert stats.jac_evals == STEPS
    assert stats.newton_iterations == stats_anew.newton_iterations
    np.testing.assert_allclose(y, y_anew, rtol=1e-11)
    monkeypatch.setattr(chord, "CONTRACTION", jnp.inf)
    _, stats_unseen, result = equally(method, lambda t, y, a: field(t, y, a))(50.0)
    assert result == jde.Result.success  # with a matrix of its own for each iteration, where the old one is too bad
    assert stats_unseen.newton_iterations > stats.newton_iterations + 10 or stats_unseen.jac_evals > STEPS + 10


@pytest.mark.parametrize("method", [jde.KenCarp4(), jde.SBDF2()], ids=str)
def test_gradients_of_equal_steps(method):
    def total(a):
        return jnp.sum(equally(method, lambda t, y, a: diffusion(t, y, a) - y**3)(a)[0])

    a, h = 50.0, 1e-3
    value = jax.jit(total)
    slope = jax.jit(jax.grad(total))(a)
    np.testing.assert_allclose(slope, jax.jit(lambda a: jax.jvp(total, (a,), (1.0,))[1])(a), rtol=1e-10)
    np.testing.assert_allclose(slope, (value(a + h) - value(a - h)) / (2 * h), rtol=1e-5)


def test_states_that_would_fill_the_memory_are_kept_in_two_levels():
    state_bytes = 8 * (2**10 + 2**7 * 2**7)  # of y and of a Jacobian
    assert jde.ReverseAD().on_equal_steps(100, state_bytes).blocks == 100
    assert jde.ReverseAD().on_equal_steps(100_000, state_bytes).blocks == 316
