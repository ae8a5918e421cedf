"""Jumps of states that move in between: their laws in closed form, and the derivative of a path."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiffeq as jde

KEY = jax.random.key(0)
T, RATE = 2.0, 3.0
DECAY = jde.ODEProblem(lambda t, y, args: -args["k"] * y, jnp.array([0.0]), (0.0, T), {"k": 1.0, "rate": RATE})
SOLVE = {"rtol": 1e-6, "atol": 1e-8, "saveat": jde.SaveAt(t1=True)}
of_args = lambda t, y, args: args["rate"]
CLOCKS = {
    "hazard": jde.VariableRateJump(of_args, lambda t, y, args: y + 1.0),
    "thinning": jde.VariableRateJump(of_args, [1.0], bound=5.0),
    "constant": jde.ConstantRateJump(of_args, jnp.array([1.0])),
}


def ensemble(problem, paths=1000, method=None, **options):
    method = jde.Tsit5() if method is None else method
    run = jax.jit(jax.vmap(lambda key: jde.solve(problem, method, key=key, **{**SOLVE, **options})))
    sol = run(jax.random.split(jax.random.key(1), paths))
    assert (sol.result == jde.Result.success).all()
    return sol


def close_to(x, mean, variance=None):
    """Within four standard errors."""
    x = np.asarray(x)
    spread = x.var() if variance is None else variance
    assert abs(x.mean() - mean) < 4 * np.sqrt(spread / len(x)), (x.mean(), mean, np.sqrt(spread / len(x)))
    if variance is not None:
        assert abs(x.var() / variance - 1) < 4 * np.sqrt(4 / len(x))


@pytest.mark.parametrize("name", CLOCKS)
def test_shot_noise(name):
    """dy/dt = −y, and y + 1 at the rate λ: the mean is λ·(1 − e^(−t)), the variance λ/2·(1 − e^(−2t))."""
    sol = ensemble(jde.JumpProblem(DECAY, CLOCKS[name], key=KEY))
    close_to(sol.y_end[:, 0], RATE * (1 - np.exp(-T)), RATE / 2 * (1 - np.exp(-2 * T)))
    close_to(sol.stats.events, RATE * T, RATE * T)


@pytest.mark.parametrize("bound", [None, lambda t, y, args: y[0]])
def test_a_process_that_excites_itself(bound):
    """Hawkes: dλ/dt = −2·(λ − 1), λ + 1 at the rate λ; E N = 2t − (1 − e^(−t)). λ falls, and is its own bound."""
    base = jde.ODEProblem(lambda t, y, args: jnp.stack([-2 * (y[0] - 1), 0 * y[1]]), jnp.array([1.0, 0.0]), (0.0, 3.0))
    problem = jde.JumpProblem(base, jde.VariableRateJump(lambda t, y, args: y[0], [1.0, 1.0], bound), key=KEY)
    sol = ensemble(problem)
    close_to(sol.y_end[:, 1], 6 - (1 - np.exp(-3.0)))


def test_rates_are_other_ones_after_an_event_of_the_users():
    """At a rate that is a number of y, which the user raises from ½ to 20 halfway."""
    base = jde.ODEProblem(lambda t, y, args: 0 * y, jnp.array([0.5, 0.0]), (0.0, 2.0))
    raised = jde.PresetTimes([1.0], lambda t, y, args: y.at[0].set(20.0))
    counted = jde.ConstantRateJump(lambda t, y, args: y[0], [0.0, 1.0])
    sol = ensemble(jde.JumpProblem(base, counted, key=KEY), events=raised)
    close_to(sol.y_end[:, 1], 20.5, 20.5)


def test_a_rate_above_its_bound_ends_the_solve():
    jump = jde.VariableRateJump(lambda t, y, args: 3.0 + t, [1.0], bound=4.0)
    with pytest.raises(jde.SolveError, match="exceeds its bound") as failed:
        jde.solve(jde.JumpProblem(DECAY, jump, key=KEY), tspan=(0.0, 20.0), saveat=1.0)
    assert failed.value.solution.y_end.shape == (1,)


def test_two_jumps_that_take_turns():
    """Telegraph noise: s changes between ±1 at the rates 1 and 2, dy/dt = s; the mean of s tends to 1/3."""
    base = jde.ODEProblem(lambda t, y, args: {"y": y["s"], "s": 0 * y["s"]}, {"y": 0.0, "s": 1.0}, (0.0, 2.0))
    up = jde.VariableRateJump(
        lambda t, y, args: jnp.where(y["s"] < 0, 2.0, 0), lambda t, y, args: {**y, "s": jnp.ones(())}
    )
    down = jde.VariableRateJump(
        lambda t, y, args: jnp.where(y["s"] > 0, 1.0, 0), lambda t, y, args: {**y, "s": -jnp.ones(())}
    )
    sol = ensemble(jde.JumpProblem(base, [up, down], key=KEY))
    mean = lambda t: 1 / 3 + 2 / 3 * np.exp(-3 * t)
    close_to(sol.y_end["s"], mean(2.0), 1 - mean(2.0) ** 2)
    close_to(sol.y_end["y"], 2 / 3 + 2 / 9 * (1 - np.exp(-6.0)))


def test_reactions_over_an_equation():
    """Mass action whose state moves by itself: molecules flow in at a steady rate and die one by one."""
    base = jde.ODEProblem(lambda t, y, args: 0 * y + 10.0, jnp.array([20.0]), (0.0, 1.0))
    problem = jde.JumpProblem(base, jde.MassActionJumps([2.0], [[1]], [[-1]]), key=KEY)
    close_to(ensemble(problem, 400).y_end[:, 0], 5 + 15 * np.exp(-2.0))


def test_jumps_of_an_equation_with_delays():
    """dy/dt = −y(t − 1) from 1, kicked by ½ twice in a unit of time: the mean stays where it is."""
    f = lambda t, y, h, args: -h(t - 1.0)
    base = jde.DDEProblem(f, jnp.array([1.0]), (0.0, 2.0), history=lambda s, args: jnp.array([1.0]), lags=[1.0])
    problem = jde.JumpProblem(base, jde.VariableRateJump(lambda t, y, args: 2.0, [0.5], bound=2.5), key=KEY)
    close_to(ensemble(problem, 300).y_end[:, 0], 1.0)


def test_jump_diffusions():
    """Of Merton, mean and variance of log S; of Bates, whose variance is one of Cox, Ingersoll and Ross, means."""
    rate, mean, spread = 0.5, -0.1, 0.15
    extra = rate * (np.exp(mean + spread**2 / 2) - 1)
    leap = lambda s, key: s * jnp.exp(mean + spread * jax.random.normal(key, dtype=s.dtype))
    equal = {"controller": jde.FixedSteps(40), "rtol": 1e-3, "paths": 2000, "method": jde.EulerMaruyama()}
    merton = jde.SDEProblem(lambda t, s, p: (0.05 - extra) * s, lambda t, s, p: 0.2 * s, jnp.array(1.0), (0.0, 1.0))
    jump = jde.ConstantRateJump(lambda t, s, p: rate, lambda t, s, p, key: leap(s, key))
    log = np.log(ensemble(jde.JumpProblem(merton, jump, key=KEY), **equal).y_end)
    variance = 0.2**2 + rate * (mean**2 + spread**2)
    close_to(log, 0.05 - extra - 0.2**2 / 2 + rate * mean)
    assert abs(log.var() / variance - 1) < 0.15

    def drift(t, y, p):
        return jnp.stack([(0.05 - extra) * y[0], 2.0 * (0.09 - y[1])])

    def diffusion(t, y, p):
        v = jnp.sqrt(jnp.maximum(y[1], 0.0))
        return jnp.array([[1.0, 0.0], [-0.7, 0.51**0.5]]) * jnp.stack([y[0] * v, 0.3 * v])[:, None]

    smooth = merton.replace(drift=lambda t, s, p: 0.03 * s, interpretation="stratonovich", convert=True)
    grown = ensemble(jde.JumpProblem(smooth, jump, key=KEY), **equal).y_end  # what else the base says is kept
    close_to(grown, np.exp(0.05 + extra))

    bates = jde.SDEProblem(drift, diffusion, jnp.array([1.0, 0.04]), (0.0, 1.0), noise="general")
    jump = jde.ConstantRateJump(lambda t, y, p: rate, lambda t, y, p, key: y.at[0].set(leap(y[0], key)))
    price, v = ensemble(jde.JumpProblem(bates, jump, key=KEY), **equal).y_end.T
    close_to(price, np.exp(0.05))
    close_to(v, 0.09 - 0.05 * np.exp(-2.0))


def test_a_path_depends_on_its_key_alone_and_goes_through_its_jumps():
    problem = jde.JumpProblem(DECAY, CLOCKS["hazard"], key=KEY)
    keys = jax.random.split(KEY, 2)
    solve = lambda key: jde.solve(problem, jde.Tsit5(), key=key, rtol=1e-8, atol=1e-10, saveat=[0.7, T], dense=True)
    lanes = jax.jit(jax.vmap(lambda key: solve(key).ys))(keys)
    sol = solve(keys[0])
    np.testing.assert_allclose(sol.ys, lanes[0], rtol=1e-12)
    np.testing.assert_allclose(sol(0.7), sol.ys[0], rtol=1e-6)
    reset = jde.PresetTimes([1.0], lambda t, y, args: 0 * y)
    again = jde.solve(problem, jde.Tsit5(), key=keys[0], events=[reset], saveat=[0.7, 1.0], rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(again.ys[0], sol.ys[0], rtol=1e-7)
    assert (again.ys[1] == 0).all() and again.events.after.shape[1:] == (1,) and int(again.events.count) == 1


# ---- derivatives


def end(problem, **options):
    """Of one path, with the derivative of it."""
    options = {**SOLVE, "rtol": 1e-9, "atol": 1e-11, "gradient": jde.Pathwise(), **options}
    return jde.solve(problem, jde.Tsit5(), **options).y_end[0]


def test_the_derivative_of_a_path():
    """With respect to a size, to the equation in between, and to when the jumps come."""
    sized = jde.VariableRateJump(of_args, lambda t, y, args: y + args["size"])
    problem = jde.JumpProblem(DECAY, sized, key=jax.random.key(3))
    run = jax.jit(jax.value_and_grad(lambda args: end(problem, args=args)))
    args = {"k": 1.0, "rate": RATE, "size": 2.0}
    value, slope = run(args)
    np.testing.assert_allclose(2 * slope["size"], value, rtol=1e-9)
    for name in ("k", "rate"):
        high, low = (run({**args, name: args[name] + h})[0] for h in (1e-5, -1e-5))
        np.testing.assert_allclose(slope[name], (high - low) / 2e-5, rtol=1e-5)


def test_what_has_no_derivative_says_so():
    problem = jde.JumpProblem(DECAY, CLOCKS["constant"], key=KEY)
    plain = lambda k: jde.solve(problem, jde.Tsit5(), args={"k": k, "rate": RATE}, **SOLVE).y_end[0]
    with pytest.raises(NotImplementedError, match="Pathwise"):
        jax.grad(plain)(1.0)


def with_jump(rate, affect):
    return lambda problem: jde.solve(problem, jumps=jde.ConstantRateJump(rate, affect))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (lambda p: jde.solve(p, jde.SSA()), "over a DiscreteProblem"),
        (lambda p: jde.solve(p, events=[jde.PositiveDomain()]), "does not serve a JumpProblem"),
        (lambda p: p.replace(y0=1.0, speed=2), "has no field 'speed'"),
        (lambda p: jde.solve(p, tspan=(1.0, 0.0)), "go forwards in time"),
        (lambda p: jde.solve(p, key=None), "or jumps needs a key"),
        (lambda p: jde.solve(p, key=jax.random.split(KEY)), "jax.vmap"),
        (with_jump(of_args, 1.0), "what is added to y"),
        (with_jump(of_args, lambda t, y, args: None), "Does affect end with a `return`"),
        (with_jump(of_args, lambda t, y, args: [y[0]]), r"write `return jnp.stack\(\[d0\]\)` in affect"),
        (with_jump(lambda t, y, args: None, [1.0]), "one number, but returned None"),
        (with_jump(lambda t, y, args: y[0] - 1, [1.0]), r"must be finite and not negative, but are \[-1.\] at t0"),
        (with_jump(lambda t, y, args: 1 + jnp.sin(t), [1.0]), "Give VariableRateJump"),
        (with_jump(lambda y, t: y, [1.0]), r"Write `lambda t, y, args: rate\(y, t\)`"),
        (with_jump(lambda x, t: x, [1.0]), r"Write `lambda t, x, args: rate\(x, t\)`"),
    ],
)
def test_what_is_refused(asked, message):
    with pytest.raises((TypeError, ValueError), match=message):
        asked(jde.JumpProblem(DECAY, CLOCKS["hazard"], key=KEY))
