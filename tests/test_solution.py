"""Dense output, failures with place and cause, statistics that count, and the account of how a solve was made."""

import functools
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiffeq as jde
from jaxdiffeq import errors
from jaxdiffeq.frontend.diagnose import ADVICE


def decay(t, y, args):
    return -y


# ---- dense output


@functools.cache
def dense(t0=0.0, t1=2.0):
    problem = jde.ODEProblem(decay, np.exp(-t0) * np.ones(2), (t0, t1))
    return jde.solve(problem, jde.Tsit5(), dense=True, saveat=jde.SaveAt(t1=True), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("span", [(0.0, 2.0), (2.0, 0.0)])
def test_dense_output_and_its_derivative(span):
    sol, t = dense(*span), np.linspace(0, 2, 21)
    np.testing.assert_allclose(sol(t), np.exp(-t)[:, None] * np.ones(2), rtol=1e-7)
    np.testing.assert_allclose(sol.derivative(t), -np.exp(-t)[:, None] * np.ones(2), rtol=1e-5)
    np.testing.assert_array_equal(sol(span[0]), np.exp(-span[0]) * np.ones(2))
    np.testing.assert_allclose(sol(span[1]), sol.ys[-1], rtol=1e-15)


def test_dense_output_takes_times_of_any_shape_and_kind():
    sol = dense()
    assert sol(1).shape == sol(jnp.float32(1)).shape == (2,)
    assert sol([0.5, 1]).shape == (2, 2)
    assert sol.derivative(np.ones((3, 1, 4))).shape == (3, 1, 4, 2)
    np.testing.assert_array_equal(sol([[0.5]])[0, 0], sol(0.5))


def test_outside_of_the_solve_there_is_nothing():
    sol = dense()
    outside = np.array([-1e-9, 2 + 1e-9, np.inf, -np.inf, np.nan])
    assert np.all(np.isnan(sol(outside))) and np.all(np.isnan(sol.derivative(outside)))


def test_the_derivative_in_time_of_dense_output_is_its_derivative():
    sol = dense()
    np.testing.assert_allclose(jax.jacfwd(sol)(0.7), sol.derivative(0.7), rtol=1e-12)


def test_dense_output_of_a_pytree_inside_jit_with_room_to_spare():
    def at(y0, t):
        problem = jde.ODEProblem(lambda t, y, args: jax.tree.map(jnp.negative, y), y0, (0.0, 1.0))
        return jde.solve(problem, jde.Tsit5(), dense=True, max_steps=50, rtol=1e-8)(t)

    y = jax.jit(at)({"a": jnp.ones((2, 1)), "b": 2.0}, jnp.array([0.5, 3.0]))
    assert y["a"].shape == (2, 2, 1) and y["b"].shape == (2,)
    np.testing.assert_allclose(y["b"], [2 * np.exp(-0.5), np.nan], rtol=1e-6)


@pytest.mark.parametrize("inside", [False, True])
def test_dense_output_of_an_instant(inside):
    def at(y0):
        sol = jde.solve(jde.ODEProblem(decay, y0, (1, 1)), jde.Tsit5(), dense=True, max_steps=5)
        return sol(jnp.array([1.0, 2.0])), sol.derivative(1.0)

    y, slope = jax.jit(at)(3.0) if inside else at(3.0)
    np.testing.assert_array_equal(y, [3.0, np.nan])
    assert np.isnan(slope)


def test_dense_output_after_a_failure_ends_where_the_solve_did():
    problem = jde.ODEProblem(decay, 1.0, (0.0, 10.0))
    sol = jde.solve(problem, jde.Tsit5(), dense=True, max_steps=3, throw=False)
    y = sol(jnp.array([0.5, 1.0]) * sol.t_end)
    np.testing.assert_allclose(y, np.exp([-0.5 * sol.t_end, -sol.t_end]), rtol=1e-3)
    assert np.isnan(sol(sol.t_end * 1.001))


# ---- failures


def fails(f, y0, error, t1=2.0, **options):
    with pytest.raises(error) as caught:
        jde.solve(jde.ODEProblem(f, y0, (0.0, t1)), jde.Tsit5(), rtol=1e-6, **options)
    return str(caught.value), caught.value.solution


def test_steps_that_do_not_suffice():
    message, sol = fails(
        lambda t, y, args: {"slow": -y["slow"], "fast": [-100 * y["fast"][0]]},
        {"slow": 1.0, "fast": [jnp.ones(3)]},
        errors.MaxStepsReached,
        max_steps=20,
    )
    assert sol.status == "max_steps_reached" and len(sol.ts) == int(sol.stats.accepted) + 1
    assert f"at t = {float(sol.t_end):.9g}" in message
    assert f"next step would have been {float(sol.next_step):.3g}" in message
    assert "worst component is y0['fast'][0][" in message
    assert "larger max_steps" in message and "throw=False" in message


def test_a_step_that_cannot_move_the_clock():
    def blow(t, y, args):
        return {"tame": 0 * y["tame"], "wild": y["wild"] ** 2}

    message, sol = fails(blow, {"tame": jnp.ones(2), "wild": jnp.array([[0.1, 1.0]])}, errors.StepSizeTooSmall)
    assert abs(sol.t_end - 1) < 1e-3  # 1 / (1 − t)
    assert "worst component is y0['wild'][0, 1] = " in message and "singularity" in message
    assert np.all(np.isfinite(sol.ys["wild"]))


def test_a_slope_that_is_no_number():
    def root(t, y, args):
        return [y[0] * 0, -jnp.sqrt(1.0 - t)]

    message, sol = fails(root, [1.0, 2.0], errors.NonfiniteSolution)
    assert abs(sol.t_end - 1) < 1e-9
    assert "worst component is y0[1] = 1.333" in message and "division by zero" in message
    np.testing.assert_allclose(sol.ys[1][-1], 4 / 3, rtol=1e-5)
    assert sol.stats.rejected_solver > 0


def test_a_slope_that_is_no_number_at_the_start():
    message, sol = fails(lambda t, y, args: y / t, jnp.ones(2), errors.NonfiniteSolution)
    assert sol.t_end == 0.0 and sol.stats.accepted == 0 and len(sol.ts) == 1
    assert "at t = 0:" in message


def test_all_errors_are_solve_errors_with_a_result_of_their_own():
    codes = {error.result for error in jde.SolveError.__subclasses__()}
    assert codes == set(jde.Result) - {jde.Result.running, jde.Result.success, jde.Result.terminated}
    assert set(ADVICE) == codes


def test_inside_jit_a_failure_is_a_value():
    @functools.partial(jax.jit, static_argnums=0)
    def code(f):
        problem = jde.ODEProblem(f, 1.0, (0.0, 2.0))
        sol = jde.solve(problem, jde.Tsit5(), saveat=jde.SaveAt(t1=True), rtol=1e-6, max_steps=1000)
        return sol.result, sol.ok, sol.ys[-1]

    for f, result in (
        (lambda t, y, args: y * y, jde.Result.step_size_too_small),
        (lambda t, y, args: -jnp.sqrt(1.0 - t), jde.Result.nonfinite),
        (lambda t, y, args: -1e5 * (y - jnp.cos(t)), jde.Result.max_steps_reached),
    ):
        got, ok, y = code(f)
        assert got == result and not ok and np.isnan(y)


def test_only_the_lanes_that_fail_fail():
    def solve(y0):
        problem = jde.ODEProblem(lambda t, y, args: y * y, y0, (0.0, 2.0))
        sol = jde.solve(problem, jde.Tsit5(), saveat=[0.5, 2.0], rtol=1e-8, atol=1e-10)
        return sol.ys, sol.result, sol.ok

    ys, result, ok = jax.vmap(solve)(jnp.array([0.25, 1.0, -1.0]))
    np.testing.assert_array_equal(ok, [True, False, True])
    np.testing.assert_array_equal(result, [0, jde.Result.step_size_too_small, 0])
    y0, t = np.array([0.25, 1.0, -1.0])[:, None], np.array([0.5, 2.0])
    exact = np.where((y0 == 1) & (t == 2), np.nan, y0 / np.where(y0 * t == 2, 1, 1 - y0 * t))
    np.testing.assert_allclose(ys, exact, rtol=1e-6)


# ---- counts


@pytest.mark.parametrize("name", ["Tsit5", "BS5", "Vern7", "Heun", "DP8"])
@pytest.mark.parametrize("saving", ["end", "times", "first step"])
def test_f_is_called_as_often_as_is_said(name, saving):
    calls = []

    def f(t, y, args):
        jax.debug.callback(lambda t: calls.append(t), t)
        return -y * jnp.cos(3 * t)

    saveat = [0.3, 1.9] if saving == "times" else jde.SaveAt(t1=True)
    first_step = 0.5 if saving == "first step" else None
    problem = jde.ODEProblem(f, 1.0, (0.0, 2.0))
    sol = jde.solve(problem, getattr(jde, name)(), rtol=1e-4, saveat=saveat, first_step=first_step)
    jax.effects_barrier()
    assert len(calls) == int(sol.stats.f_evals)
    stats = sol.stats
    assert stats.steps == stats.accepted + stats.rejected_error + stats.rejected_solver


# ---- a solution is data


def slow(rate: Any = 1.0, **options):
    return jde.solve(
        jde.ODEProblem(lambda t, y, k: -k * y, 1.0, (0.0, 1.0), rate), jde.Tsit5(), saveat=[0, 1], **options
    )


def fast():
    return jde.solve(jde.ODEProblem(lambda t, y, k: -k * y, 1.0, (0.0, 1.0), 2.0), jde.Rodas5P(), saveat=[0, 1])


def test_solutions_of_different_solves_combine():
    difference = jax.tree.map(lambda a, b: a - b, slow(), fast())
    np.testing.assert_allclose(difference.ys[-1], np.exp(-1) - np.exp(-2), rtol=1e-2)
    assert "Tsit5" in difference.explain()  # of several, the first one's
    chosen = jax.jit(lambda c: jax.lax.cond(c, slow, fast))
    for c, sol in ((True, slow()), (False, fast())):
        np.testing.assert_allclose(chosen(c).ys, sol.ys, rtol=1e-12)
        assert chosen(c).stats.accepted == sol.stats.accepted
    _, sols = jax.lax.scan(lambda y, k: ((sol := slow(k)).ys[-1], sol), 1.0, jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(sols.ys[:, -1], np.exp([-1, -2]), rtol=1e-2)
    assert sols.mask.all()


def test_a_solution_is_pickled_without_what_made_it():
    for sol in (slow(dense=True), dense()):
        again = pickle.loads(pickle.dumps(sol))
        assert again.explain() == sol.explain()
        jax.tree.map(np.testing.assert_array_equal, jax.tree.leaves(again), jax.tree.leaves(sol))
        np.testing.assert_array_equal(again(0.3), sol(0.3))


def test_explain_says_what_was_done_and_why():
    problem = jde.ODEProblem(decay, 1.0, (0.0, 2.0))
    text = jde.solve(problem, saveat=jde.SaveAt(t1=True), rtol=1e-8).explain()
    assert "Vern7" in text and "chosen for the tolerance" in text and "ReverseAD" in text
    assert "success at t = 2" in text and "steps tried" in text
    text = dense().explain()
    assert "Tsit5" in text and "as given" in text and "the default of this method" in text
    assert "order 5 with an embedded solution of order 4, dense output of order 4" in text
    text = jde.solve(problem, jde.Trapezoid(), saveat=[2.0]).explain()
    assert "order 2 with an estimate of its own error, dense output of order 2" in text
    said = []

    def traced(y0):
        sol = jde.solve(problem, controller=jde.PIDController(max_step=0.5), y0=y0, saveat=[2.0])
        said.append(sol.explain())
        return sol.ys

    jax.eval_shape(traced, 1.0)
    assert "PIDController, as given" in said[0] and "result" not in said[0]  # not known yet


@pytest.mark.parametrize("controller", [jde.FixedSteps(10), jde.FixedSteps(dt=0.25)])
@pytest.mark.parametrize("name", ["RK4", "Tsit5"])
def test_equal_steps_are_counted_too(name, controller):
    calls = []

    def f(t, y, args):
        jax.debug.callback(lambda t: calls.append(t), t)
        return -y

    problem = jde.ODEProblem(f, 1.0, (0.0, 2.0))
    sol = jde.solve(problem, getattr(jde, name)(), controller=controller, saveat=jde.SaveAt(t1=True))
    jax.effects_barrier()
    assert len(calls) == int(sol.stats.f_evals)
    assert sol.stats.accepted == (10 if controller.n else 8)


STOPS = (0.3, 0.3, 1.25, 2.0, 5.0)


@pytest.mark.parametrize(
    ("stops", "span", "max_steps", "landings"),
    [
        (STOPS, (0.0, 2.0), 100, 2),  # 0.3 and 1.25
        (STOPS, (2.0, 0.0), 100, 2),
        (STOPS, (0.0, 2.0), 6, 2),  # 0.25 0.3 0.55 0.8 1.05 1.25
        (STOPS, (2.0, 0.0), 6, 1),  # 1.75 1.5 1.25 1 0.75 0.5
        ((-1.0, 0.0), (0.0, 2.0), 100, 0),
        ((-1.0, 0.0), (0.0, 2.0), 6, 0),
        (STOPS, (2.0, 2.0), 100, 0),
    ],
)
def test_starting_anew_after_a_stop_is_counted_too(stops, span, max_steps, landings):
    calls = []

    def f(t, y, args):
        jax.debug.callback(lambda t: calls.append(t), t)
        return -y

    options = {"controller": jde.FixedSteps(dt=0.25), "stops": stops, "max_steps": max_steps, "throw": False}
    sol = jde.solve(jde.ODEProblem(f, 1.0, span), jde.RK4(), **options)
    jax.effects_barrier()
    assert len(calls) == int(sol.stats.f_evals) == 1 + 4 * int(sol.stats.steps) + landings


@pytest.mark.parametrize("options", [{}, {"controller": jde.FixedSteps(2000)}], ids=["adaptive", "march"])
def test_the_eager_gradient_of_a_failure_is_nan(options):
    """y blows up at t = 2/3. Where it stands is traced, so there is no message to raise."""
    problem = jde.ODEProblem(lambda t, y, a: a * y * y, 1.5, (0.0, 2.0), 1.0)
    options |= {"saveat": jde.SaveAt(t1=True)}
    assert jnp.isnan(jax.grad(lambda a: jde.solve(problem, jde.Tsit5(), args=a, **options).ys[-1])(1.0))
    with pytest.raises(jde.SolveError):
        jde.solve(problem, jde.Tsit5(), **options)


def test_what_is_shown_fits_on_a_line():
    f = lambda t, y, args: {"a": -y["a"]}
    solve = lambda y0: jde.solve(jde.ODEProblem(f, {"a": y0}, (0.0, 2.0)), jde.Tsit5(), saveat=0.5)
    assert repr(solve(1.0)) == "Solution(ts=f64[5], ys={'a': f64[5]}, success at t = 2)"
    lanes = jax.vmap(solve)(jnp.array([1.0, 2.0, jnp.nan]))
    assert repr(lanes) == "Solution(ts=f64[3,5], ys={'a': f64[3,5]}, 2 × success, 1 × nonfinite)"
    assert lanes.explain().endswith("2 × success, 1 × nonfinite")
    shown = []
    jax.jit(lambda y0: shown.append(repr(solve(y0))))(1.0)
    assert shown == ["Solution(ts=f64[5], ys={'a': f64[5]})"]
    assert "ts=None" in repr(jax.tree.map(lambda x: None, lanes))


# ---- the end


@pytest.mark.parametrize("strategy", [jde.ReverseAD(), jde.ForwardAD(), jde.InterpolatingAdjoint()])
@pytest.mark.parametrize("controller", [None, jde.FixedSteps(20)], ids=["adaptive", "equal"])
def test_the_time_of_the_end_moves_with_it(strategy, controller):
    """y(t₁) = exp(−t₁), and what is saved there is t₁·y."""

    def end(t1):
        problem = jde.ODEProblem(decay, 1.0, (0.0, t1))
        saveat = jde.SaveAt(t1=True, fn=lambda t, y, args: t * y)
        options = {"saveat": saveat, "controller": controller, "gradient": strategy, "rtol": 1e-8, "atol": 1e-10}
        sol = jde.solve(problem, jde.Tsit5(), **options)
        return jnp.stack([sol.t_end, sol.ts[-1], sol.ys[-1]])

    for derivative in (jax.jacrev(end)(2.0), jax.jacfwd(end)(2.0)):
        np.testing.assert_allclose(derivative, [1, 1, -np.exp(-2)], rtol=1e-7)


@pytest.mark.parametrize("plain", [False, True])
def test_explain_says_which_path_ran(monkeypatch, plain):
    monkeypatch.setenv("JAXDIFFEQ_PLAIN", "1" if plain else "0")
    problem = jde.ODEProblem(decay, 1.0, (0.0, 2.0))
    sol = jde.solve(problem, jde.Tsit5(), saveat=jde.SaveAt(t1=True))
    assert sol.account.plan.plain is plain
    path = {line.split()[0]: line for line in sol.explain().splitlines()}["path"]
    assert ("public JAX alone" in path) is plain
