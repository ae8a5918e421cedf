"""A failure says which function was to blame, where and when; what it advises is what works."""

import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiffeq as jde

END = jde.SaveAt(t1=True)
ORDER, CHANGE = np.array([[1.0, 1, 0], [0, 0, 1]]), np.array([[-1.0, -1, 1], [1, 1, -1]])
IMPLICIT = [jde.Rodas5P(), jde.KenCarp4(), jde.BDF(), jde.RadauIIA5()]


def failure(problem, method=None, **options):
    """The message and the solution."""
    with pytest.raises(jde.SolveError) as caught:
        jde.solve(problem, method, **{"saveat": END, **options})
    return str(caught.value), caught.value.solution


def same_in_lanes(result, problem, method):
    """The code is the same under `jit` and `vmap`."""
    two = jax.tree.map(lambda x: jnp.stack([jnp.asarray(x)] * 2), problem.y0)
    lanes = jax.vmap(lambda y0: jde.solve(problem, method, y0=y0, saveat=END))
    return lanes(two).result.tolist() == [int(result)] * 2


def kinetics(t, y, k):
    """A + B ⇌ C by powers of concentrations: ∂(y⁰)/∂y is NaN at y = 0."""
    return (k * jnp.prod(y["c"][None] ** ORDER, axis=1)) @ CHANGE


REACTION = jde.ODEProblem(
    lambda t, y, k: {"c": kinetics(t, y, k)}, {"c": jnp.array([1.0, 0.5, 0.0])}, (0.0, 1.0), jnp.array([1.0, 0.1])
)


@pytest.mark.parametrize("method", IMPLICIT[:2], ids=repr)
def test_a_jacobian_that_is_nan(method):
    message, sol = failure(REACTION, method)
    assert sol.status == "nonfinite"
    assert "f is finite, but its Jacobian ∂f/∂y is NaN at t = 0, in row y0['c'][0], column y0['c'][2] = 0" in message
    assert "give `jac`" in message


def test_a_given_jacobian_that_is_infinite_in_one_place():
    jac = lambda t, y, args: -jnp.eye(3).at[1, 2].set(jnp.where(t > 0.5, jnp.inf, 0.0))
    problem = jde.ODEProblem(lambda t, y, args: -y, jnp.ones(3), (0.0, 1.0), jac=jac)
    message, _ = failure(problem, jde.Rodas5P(), rtol=1e-6)
    assert re.search(r"Jacobian ∂f/∂y is infinite at t = 0.[5-9]\d*, in row y0\[1\], column y0\[2\] = 0\.\d", message)


def test_a_derivative_by_time():
    message, _ = failure(jde.ODEProblem(lambda t, y, args: jnp.sqrt(t) - y, 1.0, (0.0, 1.0)), jde.Rodas5P())
    assert "f is finite, but its derivative ∂f/∂t is infinite at t = 0, in row y0" in message


@pytest.mark.parametrize("method", [*IMPLICIT, jde.Tsit5(), None], ids=repr)
def test_f_that_turns_nan(method):
    late = lambda t, y, args: {"a": -y["a"], "b": -y["b"].at[1].set(jnp.where(t > 0.5, jnp.nan, y["b"][1]))}
    problem = jde.ODEProblem(late, {"a": 1.0, "b": jnp.ones(2)}, (0.0, 1.0))
    message, sol = failure(problem, method)
    assert sol.status == "nonfinite"
    assert same_in_lanes(sol.result, problem, method)
    assert re.search(r"f is NaN at t = 0.5\d*, in row y0\['b'\]\[1\], the derivative of y0\['b'\]\[1\] = 0.60", message)


@pytest.mark.parametrize("method", [*IMPLICIT, jde.Tsit5(), None], ids=repr)
def test_f_that_is_undefined_at_the_start(method):
    problem = jde.ODEProblem(lambda t, y, args: jnp.log(y) - y, jnp.array([1.0, 0.0]), (0.0, 1.0))
    message, sol = failure(problem, method)
    assert sol.status == "nonfinite" and sol.stats.steps == 1 and sol.stats.accepted == 0
    assert "nan." not in message
    assert "f is infinite at t = 0, in row y0[1], the derivative of y0[1] = 0" in message


def test_equal_steps_say_so_too():
    message, sol = failure(REACTION, jde.ImplicitEuler(), controller=jde.FixedSteps(10), args=jnp.array([jnp.nan, 0.1]))
    assert sol.status == "nonfinite" and "f is NaN at t = 0, in row y0['c'][0]" in message
    message, sol = failure(REACTION, jde.Rodas5P(), controller=jde.FixedSteps(10))
    assert sol.status == "nonfinite" and "Jacobian ∂f/∂y is NaN at t = 0" in message


def test_a_root_of_what_turns_negative():
    message, _ = failure(jde.ODEProblem(lambda t, y, args: -1 - jnp.sqrt(y), 0.1, (0.0, 1.0)), jde.Tsit5())
    assert re.search(r"f is NaN at t = 0.08\d*, in row y0, the derivative of y0 = ", message)
    assert "An explicit method may run away" in message


# ---- initial values


def circle(t, y, args):
    return {"x": -y["x"], "z": jnp.stack([y["z"][0] ** 2 + args, y["z"][1] - 1.0])}


MASS = {"x": jnp.ones(()), "z": jnp.zeros(2)}


def test_initial_values_name_the_component():
    problem = jde.ODEProblem(circle, {"x": 1.0, "z": jnp.ones(2)}, (0.0, 1.0), 1.0, mass_matrix=MASS)
    message, sol = failure(problem)
    assert sol.status == "initialisation_failed"
    assert same_in_lanes(sol.result, problem, None)
    assert re.search(r"row y0\['z'\]\[0\] is left at [\d.e+]+, whatever y0\['z'\]\[0\] is", message)
    flat = jde.ODEProblem(
        lambda t, y, args: jnp.stack([y[1], y[0] - 1.0]), jnp.ones(2), (0.0, 1.0), mass_matrix=np.diag([1.0, 0.0])
    )
    message, _ = failure(flat)
    assert "at y0 they do not determine y0[1]; row y0[1] cannot be solved for it" in message
    message, _ = failure(
        jde.DAEProblem(lambda t, y, dy, args: jnp.stack([dy[0] - y[1], y[1] ** 2 + 1]), jnp.ones(2), None, (0.0, 1.0))
    )
    assert re.search(r"row y0\[1\] is left at .*, whatever y0\[1\] is", message)


def test_initial_values_at_which_f_is_undefined():
    problem = jde.ODEProblem(circle, {"x": 1.0, "z": jnp.ones(2)}, (0.0, 1.0), jnp.nan, mass_matrix=MASS)
    message, sol = failure(problem)
    assert sol.status == "nonfinite" and "f is NaN at t = 0, in row y0['z'][0]" in message


# ---- steps that do not suffice


def heat(n):
    dx = 1 / (n + 1)
    f = lambda t, u, _: (jnp.pad(u, 1)[2:] - 2 * u + jnp.pad(u, 1)[:-2]) / dx**2
    return jde.ODEProblem(f, jnp.asarray(np.sin(np.pi * dx * np.arange(1, n + 1))), (0.0, 1.0))


RING = np.sin(2 * np.pi * np.arange(300) / 300)


def test_a_large_stiff_problem_is_begun_again():
    for n in (300, 600):
        sol = jde.solve(heat(n), saveat=END, max_steps=500)
        assert int(sol.stats.jac_evals) > 0
        np.testing.assert_allclose(sol.ys[0].max(), np.exp(-(np.pi**2)), rtol=0.05)
        assert "Auto(Tsit5, Rodas5P)" in sol.explain()


def test_it_is_noticed_long_before_the_end():
    """Of the 50 000 steps that stability allows Tsit5, a thousand are tried; in a `jit` nobody can look."""
    calls, problem = [], heat(300)

    def counted(t, u, _):
        jax.debug.callback(lambda: calls.append(1))
        return problem.f(t, u, _)

    sol = jde.solve(problem.replace(f=counted), saveat=END)
    jax.effects_barrier()
    np.testing.assert_allclose(sol.ys[0].max(), np.exp(-(np.pi**2)), rtol=0.05)
    assert int(sol.stats.jac_evals) > 0 and 6000 < len(calls) < 20_000


def test_one_that_takes_many_steps_and_is_not_stiff_goes_on():
    ring = jde.ODEProblem(lambda t, y, args: jnp.roll(y, 1) - jnp.roll(y, -1), RING, (0.0, 4e4))
    exact = np.real(np.fft.ifft(np.fft.fft(RING) * np.exp(-2j * 4e4 * np.sin(2 * np.pi * np.arange(300) / 300))))
    run = lambda: jde.solve(ring, saveat=END, rtol=1e-8, atol=1e-8)
    for sol in (run(), jax.jit(run)()):
        assert int(sol.stats.steps) > 10_000 and int(sol.stats.jac_evals) == 0
        np.testing.assert_allclose(sol.ys[0], exact, atol=1e-3)


def test_one_that_is_full_is_not_and_one_that_is_not_stiff_is_not():
    mean = jde.ODEProblem(lambda t, y, args: 1e5 * (jnp.mean(y) - y), jnp.arange(300.0), (0.0, 1.0))
    message, _ = failure(mean, max_steps=500)
    assert "`solve` took Tsit5, as 300 unknowns had no `jac_structure`" in message and "Banded" not in message
    ring = jde.ODEProblem(lambda t, y, args: jnp.roll(y, 1) - jnp.roll(y, -1), jnp.sin(jnp.arange(300.0)), (0.0, 1e3))
    message, _ = failure(ring, max_steps=100, rtol=1e-6, atol=1e-12)
    assert "The steps have the size that accuracy takes" in message


def test_a_large_stiff_problem_is_told_what_works():
    problem = heat(300)
    message, _ = failure(problem, jde.Tsit5(), max_steps=500)
    assert "The problem is stiff: its steps are held up by stability" in message
    advice = re.search(r"`(solve\(problem.replace.*?\))`", message)
    assert advice and "Banded(1, 1)" in advice[1]
    written = advice[1].removesuffix(")") + ", saveat=END)"
    sol = eval(written, {**vars(jde), "problem": problem, "END": END})
    np.testing.assert_allclose(sol.ys[0].max(), np.exp(-(np.pi**2)), rtol=0.05)


def test_a_small_stiff_problem_names_implicit_methods():
    problem = jde.ODEProblem(lambda t, y, args: -1e4 * (y - jnp.cos(t)), jnp.ones(2), (0.0, 10.0))
    message, _ = failure(problem, jde.Tsit5(), max_steps=300)
    assert "Write `solve(problem, Rodas5P())` or `solve(problem, BDF())`, which are implicit" in message
    assert "`solve` took" not in message


def test_what_is_not_stiff_is_not_called_so():
    problem = jde.ODEProblem(lambda t, y, args: jnp.stack([y[1], -y[0]]), jnp.array([1.0, 0.0]), (0.0, 1000.0))
    message, _ = failure(problem, jde.Tsit5(), max_steps=100, rtol=1e-8, atol=1e-8)
    assert "The steps have the size that accuracy takes" in message and "stiff:" not in message
    message, _ = failure(problem, jde.Rodas5P(), max_steps=20)
    assert "Rodas5P is implicit here, so that stability is no reason" in message


def test_half_precision_is_named():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        message, _ = failure(
            jde.ODEProblem(lambda t, y, args: y * y, jnp.ones(2, jnp.float16), (0.0, 2.0)), jde.Tsit5()
        )
    assert "Half precision is coarse: a `y0` of float32 has more" in message
