"""Equations with noise from end to end: one key is one path, whoever asks; laws, derivatives, messages."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiffeq as jde

KEY = jax.random.key(7)
END = jde.SaveAt(t1=True)
ARGS = jnp.array([0.3, 0.5])


def grows(t, y, args):
    return args[0] * y


def shakes(t, y, args):
    return args[1] * y


GBM = jde.SDEProblem(grows, shakes, jnp.array([1.0, 2.0]), (0.0, 1.0), ARGS, key=KEY)
EQUAL = jde.FixedSteps(16)
EULER = jde.EulerMaruyama()


def exact(w, t, args=ARGS):
    """Geometric Brownian motion, dy = a·y dt + b·y dW."""
    return jnp.exp((args[0] - args[1] ** 2 / 2) * t + args[1] * w) * jnp.array([[1.0, 2.0]])


# ---- one key is one path


def ends(key, args=ARGS, gradient=None):
    how = {} if gradient is None else {"gradient": gradient}
    return jde.solve(GBM, EULER, key=key, args=args, controller=EQUAL, saveat=END, **how).ys[-1]


def test_a_path_is_the_same_however_it_is_run():
    eager, jitted = ends(KEY), jax.jit(ends)(KEY)
    lanes = jax.vmap(ends)(jax.random.split(KEY, 3))
    np.testing.assert_array_equal(eager, jitted)
    np.testing.assert_array_equal(lanes[1], jax.jit(ends)(jax.random.split(KEY, 3)[1]))
    legacy = jax.random.wrap_key_data(jax.random.PRNGKey(3))
    np.testing.assert_array_equal(ends(jax.random.PRNGKey(3)), ends(legacy))
    assert not np.array_equal(eager, ends(jax.random.key(8)))


def test_gradients_take_the_same_path_again():
    loss = lambda args, gradient: jnp.sum(jnp.sin(ends(KEY, args, gradient)))
    reverse, forward = (jax.grad(loss)(ARGS, g) for g in (jde.ReverseAD(), jde.ForwardAD()))
    np.testing.assert_allclose(reverse, forward, rtol=1e-12)
    h = 1e-5
    near = [(loss(ARGS.at[i].add(h), None) - loss(ARGS.at[i].add(-h), None)) / (2 * h) for i in range(2)]
    np.testing.assert_allclose(reverse, jnp.stack(near), rtol=1e-8)
    hessian = jax.hessian(lambda args: loss(args, None))(ARGS)
    np.testing.assert_allclose(hessian, hessian.T, rtol=1e-10)


@pytest.mark.filterwarnings("error")
def test_second_derivatives_over_lanes_of_keys():
    """Outside of `jit`: what does not depend on the key, as the time at the end, is the same in all lanes; what its
    derivative is, JAX cannot know."""
    keys = jax.random.split(KEY, 3)
    mean = lambda mu: jnp.mean(jax.vmap(lambda key: ends(key, ARGS.at[0].set(mu)))(keys))
    slope = jax.grad(mean)
    bent, h = jax.jvp(slope, (0.5,), (1.0,))[1], 1e-5
    np.testing.assert_allclose(bent, (slope(0.5 + h) - slope(0.5 - h)) / (2 * h), rtol=1e-7)


@functools.partial(jax.jit, static_argnames=("tree", "n"))
def along(key, tree, n, tol=1e-2):
    how: dict[str, Any] = {"controller": jde.FixedSteps(n), "brownian": "tree"} if n else {"rtol": tol, "atol": tol}
    saveat = jnp.linspace(0.0, 1.0, 5) ** 1.5
    sol = jde.solve(GBM, jde.SOSRI(), key=key, saveat=saveat, max_steps=1000, **how)
    return sol.ys, exact(sol.brownian(sol.ts), sol.ts[:, None]), sol.stats.accepted, sol.ok


@pytest.mark.parametrize("n", [0, 32])
def test_solves_follow_the_path_that_they_show(n):
    """Strong error against the closed form at the path's own W, at steps and between them."""
    ys, right, steps, ok = jax.vmap(lambda key: along(key, True, n))(jax.random.split(KEY, 64))
    assert jnp.all(ok)
    error = jnp.sqrt(jnp.mean((ys - right) ** 2, (0, 2)))
    assert error[0] == 0
    assert jnp.all(error[1:] < 0.02), error
    if n == 0:
        finer, same, more, _ = jax.vmap(lambda key: along(key, True, n, 1e-3))(jax.random.split(KEY, 64))
        np.testing.assert_allclose(same, right, rtol=1e-12)  # one path at both tolerances
        assert jnp.mean(more) > 1.5 * jnp.mean(steps)
        assert jnp.sqrt(jnp.mean((finer - right) ** 2)) < 0.4 * jnp.sqrt(jnp.mean((ys - right) ** 2))


# ---- calculus, paths of the user's, other kinds of equation


@pytest.mark.parametrize("coupled", [False, True])
def test_the_drift_is_corrected(coupled):
    """A Stratonovich equation by Euler's method for Itô's, against the rules of smooth paths: dy = c·y∘dW."""
    turn = jnp.array([[0.0, 1.0], [-1.0, 0.0]])  # with it, y turns: the diffusion of a number depends on the other one
    move = lambda y: turn @ y if coupled else y
    kind: dict[str, Any] = {"noise": "scalar"} if coupled else {"noise": "diagonal"}
    problem = jde.SDEProblem(
        lambda t, y, c: 0 * y, lambda t, y, c: c * move(y), jnp.array([1.0, 0.5]), (0.0, 1.0), 0.4,
        interpretation="stratonovich", convert=True, **kind,
    )  # fmt: skip

    @jax.jit
    @jax.vmap
    def error(key):
        sol = jde.solve(problem, EULER, key=key, controller=jde.FixedSteps(256), saveat=END)
        w = 0.4 * sol.brownian(1.0)
        if coupled:
            c, s = jnp.cos(w), jnp.sin(w)
            return sol.ys[-1] - jnp.array([c + 0.5 * s, 0.5 * c - s])
        return sol.ys[-1] - jnp.array([1.0, 0.5]) * jnp.exp(w)

    assert jnp.sqrt(jnp.mean(error(jax.random.split(KEY, 128)) ** 2)) < 0.015  # 0.1 without the correction


W = jde.SDEProblem(lambda t, y, a: 0 * y, lambda t, y, a: jnp.ones_like(y), jnp.zeros(2), (0.0, 1.0), noise="additive")


def test_paths_of_the_users():
    """dy = dW gives the path back, whose derivative by an increment is one."""
    run = lambda brownian: jde.solve(W, EULER, brownian=brownian, controller=jde.FixedSteps(10), saveat=END).ys[-1]
    np.testing.assert_allclose(run(lambda t: jnp.stack([t, jnp.sin(t)])), [1.0, np.sin(1.0)], rtol=1e-14)
    rows = jax.random.normal(KEY, (10, 2))
    np.testing.assert_allclose(run(rows), rows.sum(0), rtol=1e-13)
    np.testing.assert_allclose(jax.grad(lambda w: run(w)[0])(rows), jnp.ones((10, 1)) * jnp.array([[1.0, 0.0]]))


def test_backwards_in_time():
    """An equation of Itô's is that in s = t₀ − t, whose drift is −a; one of Stratonovich's follows its path."""
    a, b = lambda t, y, p: jnp.sin(t) - p * y, lambda t, y, p: (0.3 + t) * y
    back = jde.SDEProblem(a, b, jnp.array([1.0, 2.0]), (1.0, 0.0), 2.0, key=KEY)
    there = back.replace(drift=lambda s, y, p: -a(1 - s, y, p), diffusion=lambda s, y, p: b(1 - s, y, p))
    sol = jde.solve(back, EULER, controller=EQUAL, saveat=[0.9, 0.51, 0.0])
    mirrored = jde.solve(there, EULER, controller=EQUAL, tspan=(0.0, 1.0), saveat=[0.1, 0.49, 1.0])
    np.testing.assert_allclose(sol.ys, mirrored.ys, rtol=1e-12)
    np.testing.assert_allclose(sol.brownian(sol.ts), mirrored.brownian(mirrored.ts), rtol=1e-12)
    smooth = GBM.replace(tspan=(1.0, 0.0), interpretation="stratonovich")
    sol = jde.solve(smooth, jde.StochasticHeun(), rtol=1e-3, atol=1e-3, saveat=[0.9, 0.51, 0.0])
    w = sol.brownian(sol.ts)
    right = jnp.exp(ARGS[0] * (sol.ts[:, None] - 1) + ARGS[1] * w) * jnp.array([[1.0, 2.0]])
    np.testing.assert_allclose(sol.ys, right, rtol=2e-2)


def test_a_span_that_turns_out_to_go_backwards():
    end = lambda t0, t1: jde.solve(GBM, jde.SOSRI(), controller=EQUAL, tspan=(t0, t1), saveat=END, throw=False).result
    assert jax.jit(end)(0.0, 1.0) == jde.Result.success
    assert jax.jit(end)(1.0, 0.0) == jde.Result.nonfinite


def test_delays_with_noise():
    """y(t) by the recursion written out, on steps that divide the lag; and its derivatives."""
    n, lag = 32, 8
    delayed = jde.SDDEProblem(
        lambda t, y, h, a: -a[0] * h(t - 0.25), lambda t, y, h, a: a[1] * jnp.cos(h(t - 0.25)), jnp.array(1.0),
        (0.0, 1.0), history=1.0, lags=0.25, key=KEY,
    )  # fmt: skip

    def end(a, gradient):
        how = {"controller": jde.FixedSteps(n), "saveat": jnp.array([0.5, 1.0]), "max_steps": 64}
        return jde.solve(delayed, EULER, args=a, gradient=gradient, **how)

    a = jnp.array([0.7, 0.3])
    sol = end(a, jde.ReverseAD())
    w = np.asarray(sol.brownian(jnp.arange(n + 1) / n))
    y = [1.0] * (lag + 1)
    for i in range(n):
        past = y[i]
        y.append(y[-1] - 0.7 * past / n + 0.3 * np.cos(past) * (w[i + 1] - w[i]))
    np.testing.assert_allclose(sol.ys, [y[lag + n // 2], y[-1]], rtol=1e-12)
    back, along = (jax.grad(lambda a, g=g: end(a, g).ys[-1])(a) for g in (jde.ReverseAD(), jde.ForwardAD()))
    np.testing.assert_allclose(back, along, rtol=1e-11)


def test_motion_with_friction():
    """In a harmonic well, methods of its own and one for additive noise follow one path."""
    well = jde.LangevinProblem(
        lambda t, x, k: -k * x, jnp.array([1.0, -1.0]), jnp.zeros(2), (0.0, 2.0), 1.5, friction=0.8, key=KEY
    )
    run = lambda method, n: jde.solve(well, method, controller=jde.FixedSteps(n), saveat=[2.0], brownian="tree").ys[-1]
    fine = run(jde.SOSRA(), 1024)
    np.testing.assert_allclose(run(jde.UBU(), 128), fine, atol=2e-3)
    slope = jax.grad(lambda k: jde.solve(well, jde.UBU(), args=k, controller=EQUAL, saveat=[2.0]).ys[-1, 0, 0])(1.5)
    assert jnp.isfinite(slope) and slope != 0
    with pytest.raises(ValueError, match="LangevinProblem"):
        jde.solve(GBM, jde.UBU(), controller=EQUAL)


def test_events_along_a_path():
    doubles = jde.PresetTimes([0.5], lambda t, y, args: 2 * y)
    plain = jde.solve(GBM, EULER, controller=EQUAL, saveat=jnp.array([0.25, 1.0]))
    sol = jde.solve(GBM, EULER, controller=EQUAL, events=[doubles], saveat=jnp.array([0.25, 1.0]))
    np.testing.assert_allclose(sol.ys, plain.ys * jnp.array([[1.0], [2.0]]), rtol=1e-12)  # geometric: the factor stays
    stops = jde.Event(lambda t, y, args: y[0] - 1.2, terminate=True)
    sol = jde.solve(GBM, jde.SOSRI(), tspan=(0.0, 50.0), events=[stops], rtol=1e-3, atol=1e-3)
    assert sol.result == jde.Result.terminated
    assert abs(sol.y_end[0] - 1.2) < 0.02


# ---- what is refused


def drift(t, y, args):
    return -y


@pytest.mark.parametrize(
    ("given", "method", "message"),
    [
        ({"key": None}, EULER, "needs a key"),
        ({"key": 0}, EULER, "must be a key of jax.random"),
        ({"key": jax.random.split(KEY)}, EULER, "jax.vmap"),
        ({"tspan": (1.0, 0.0)}, jde.SRIW1(), r"forwards in time.* Backwards go EulerMaruyama\(\)"),
        ({"diffusion": lambda t, y, a: jnp.eye(2)}, EULER, r"\(2, 2\) for a state of \(2,\)\. Give noise=\"general\""),
        ({"noise": "general"}, EULER, 'Give noise="diagonal"'),
        ({"noise": "additive"}, EULER, "does not depend on y"),
        ({"noise": "general", "diffusion": lambda t, y, a: jnp.eye(2)}, jde.SOSRI(), "recommend"),
        ({}, jde.SRA1(), 'does not take noise="diagonal"'),
        ({"interpretation": "stratonovich"}, EULER, "convert=True"),
        ({}, jde.Tsit5(), "has no place for noise"),
        ({"brownian": 3}, EULER, "a function t ↦ W"),
        ({"brownian": "virtual"}, EULER, "'counter', 'tree'"),
        ({"brownian": lambda t0, t1: 0.0}, EULER, r"must take 1 arguments, brownian\(t\)"),
        ({"key": jnp.zeros(3, jnp.uint32)}, EULER, r"an array of uint32 with shape \(3,\)"),
        ({"noise": np.ones(2)}, EULER, "`noise` must be one of"),
        ({"diffusion": lambda t, y, a: [y[0], y[1]]}, EULER, r"write `return jnp.stack\(\[d0, d1\]\)` in diffusion"),
        ({"diffusion": lambda t, y, a: None}, EULER, "Does diffusion end with a `return`"),
        ({"diffusion": lambda t, y, a: 0.1}, EULER, "jnp.full_like"),
        ({"diffusion": lambda t, y, a: y.astype(complex)}, EULER, "Give a complex `y0`"),
        ({}, "euler", r"Take EulerMaruyama\(\)"),
    ],
)
def test_what_is_refused(given, method, message):
    fields = {"drift": drift, "diffusion": drift, "y0": jnp.ones(2), "tspan": (0.0, 1.0), "key": KEY, **given}
    with pytest.raises((TypeError, ValueError), match=message):
        jde.solve(jde.SDEProblem(**fields), method, controller=EQUAL)


def test_what_else_is_refused():
    with pytest.raises(ValueError, match="Give an SDEProblem"):
        jde.solve(jde.ODEProblem(drift, 1.0, (0.0, 1.0)), EULER, controller=EQUAL)
    with pytest.raises(ValueError, match="FixedSteps"):
        jde.solve(GBM, jde.SOSRI(), brownian="counter")
    with pytest.raises(ValueError, match=r"such as SOSRI\(\)"):
        jde.solve(GBM, EULER)
    rest = {"x0": 1.0, "v0": 0.0, "tspan": (0.0, 1.0), "key": KEY}
    still = lambda **other: jde.LangevinProblem(drift, **{**rest, **other})
    with pytest.raises(ValueError, match=r"such as ALIGN\(\)"):
        jde.solve(still(), jde.UBU())
    with pytest.raises(TypeError, match=r"`friction=` of a LangevinProblem"):
        still(gamma=1.0)
    with pytest.raises(TypeError, match="`x0` of a LangevinProblem must be an array"):
        still(x0={"a": 1.0})
    many = jax.vmap(lambda key: jde.solve(GBM, EULER, key=key, controller=EQUAL, saveat=END))(jax.random.split(KEY))
    with pytest.raises(ValueError, match=r"jax.vmap\(lambda sol: sol.brownian\(t\)\)"):
        many.brownian(0.5)
    with pytest.raises(ValueError, match="there is no Brownian path"):
        jde.solve(jde.ODEProblem(drift, 1.0, (0.0, 1.0))).brownian(0.5)
    roots = jde.SDEProblem(drift, lambda t, y, a: jnp.sqrt(y), jnp.array(0.01), (0.0, 5.0), key=KEY)
    with pytest.raises(jde.SolveError, match=r"the diffusion is NaN .* in row y0 = -"):
        jde.solve(roots, EULER, controller=jde.FixedSteps(100))
