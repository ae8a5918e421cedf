"""Every cell of the table: what a strategy serves is right, what it does not serve raises the documented error.

y' = a·y·cos(b·t) has the solution y₀·exp(a·sin(b·t)/b): all derivatives are those of a closed form. Solves are at
rtol = 1e-9, and so are backward solves; global errors of a solve, of its sensitivities and of an adjoint are each some
ten times that on this problem, second derivatives some ten times more. 1e-6, relative to the largest entry, is a
hundred times what is expected and a thousandth of what any forgotten term would make.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiffeq as jde
from jaxdiffeq.gradients import support as table

STRATEGIES = {kind.__name__: kind for kind in table.STRATEGIES}
X = jnp.array([0.8, 1.7, 0.9])  # a, b, y0
TIMES = np.array([0.0, 0.4, 0.4, 1.1, 1.5])
WEIGHTS = np.array([0.3, -0.2, 0.7, 1.1, 0.4])
STOP, END = 0.7, 1.5
LIMIT = 1e-6
METHOD = jde.BS3()  # of few stages, since a program for each cell has to be compiled


def field(t, y, args):
    return {"y": args[0] * y["y"] * jnp.cos(args[1] * t)}


def truth(x, t):
    return x[2] * jnp.exp(x[0] * jnp.sin(x[1] * t) / x[1])


def run(x, strategy, f=field, **options):
    problem = jde.ODEProblem(f, {"y": x[2:]}, (0.0, END), args=x)
    options = {"rtol": 1e-9, "atol": 1e-9, "max_steps": 4096, **options}
    return jde.solve(problem, METHOD, gradient=strategy, **options)


# -------------------- options: a loss, and the same loss in closed form -----------------------------------------------


def at_times(x, strategy, **options):
    return jnp.sum(WEIGHTS * run(x, strategy, saveat=TIMES, **options).ys["y"][:, 0] ** 2)


def at_times_true(x):
    return jnp.sum(WEIGHTS * truth(x, TIMES) ** 2)


def steps(x, strategy):
    """A sum over the steps that is the same for every set of steps: of the squared distance from the solution, and of
    the end."""
    solution = run(x, strategy, saveat=jde.SaveAt(steps=2, t0=True))
    true = jax.vmap(lambda t: truth(X, t))(jax.lax.stop_gradient(solution.ts))
    weights = jnp.where(solution.mask, true, 0.0) / jax.lax.stop_gradient(jnp.sum(solution.mask, dtype=float))
    return jnp.sum(weights * jnp.log(solution.ys["y"][:, 0]))


def steps_true(x):
    solution = run(X, jde.ReverseAD(), saveat=jde.SaveAt(steps=2, t0=True))
    return jnp.mean(truth(X, solution.ts) * jnp.log(truth(x, solution.ts)))


def end(x, strategy):
    return run(x, strategy, saveat=jde.SaveAt(t1=True)).ys["y"][0, 0] ** 2


def end_true(x):
    return truth(x, END) ** 2


def observed(x, strategy):
    fn = lambda t, y, args: jnp.sin(y["y"][0]) * args[1] * t
    return jnp.sum(WEIGHTS * run(x, strategy, saveat=jde.SaveAt(ts=TIMES, fn=fn)).ys)


def observed_true(x):
    return jnp.sum(WEIGHTS * jnp.sin(truth(x, TIMES)) * x[1] * TIMES)


def dense(x, strategy):
    solution = run(x, strategy, saveat=jde.SaveAt(t1=True), dense=True)
    return jnp.sum(WEIGHTS * solution(jnp.asarray(TIMES))["y"][:, 0] ** 2)


def stopped(x, strategy):
    """With a fourth parameter, the time at which the growth begins."""
    x = jnp.append(x, STOP * x[0] / X[0])
    problem = jde.ODEProblem(jumping_of_four, {"y": x[2:3]}, (0.0, END), args=x)
    options = {"rtol": 1e-9, "atol": 1e-9, "max_steps": 4096, "stops": x[3:], "saveat": TIMES}
    return jnp.sum(WEIGHTS * jde.solve(problem, METHOD, gradient=strategy, **options).ys["y"][:, 0] ** 2)


def jumping_of_four(t, y, args):
    return {"y": jnp.where(t < args[3], 0.0, args[0] * y["y"] * jnp.cos(args[1] * t))}


def stopped_true(x):
    growth = lambda t: jnp.sin(x[1] * t) / x[1]
    stop = STOP * x[0] / X[0]
    exponent = jnp.where(TIMES > STOP, x[0] * (growth(TIMES) - growth(stop)), 0.0)
    return jnp.sum(WEIGHTS * (x[2] * jnp.exp(exponent)) ** 2)


def fixed(x, strategy):
    return at_times(x, strategy, controller=jde.FixedSteps(dt=0.002))


def energy(x, strategy):
    return run(x, strategy, saveat=jde.SaveAt(t1=True), regularisers=["energy"]).regularisers["energy"]


def energy_true(x):
    nodes, weights = np.polynomial.legendre.leggauss(30)
    t = END * (nodes + 1) / 2
    return END / 2 * jnp.sum(weights * (x[0] * truth(x, t) * jnp.cos(x[1] * t)) ** 2)


def happening(x, strategy):
    """Where y crosses a level that depends on b, it gains what depends on a."""
    gain = jde.Event(lambda t, y, args: y["y"][0] - 0.7 * args[1], lambda t, y, args: {"y": y["y"] + 0.5 * args[0]})
    return at_times(x, strategy, events=gain)


def happening_true(x):
    when = jnp.arcsin(x[1] * jnp.log(0.7 * x[1] / x[2]) / x[0]) / x[1]
    after = (0.7 * x[1] + 0.5 * x[0]) * jnp.exp(x[0] * (jnp.sin(x[1] * TIMES) - jnp.sin(x[1] * when)) / x[1])
    return jnp.sum(WEIGHTS * jnp.where(when > TIMES, truth(x, TIMES), after) ** 2)


def complex_field(t, y, args):
    return (1 + 2j) * args[0] * y * jnp.cos(args[1] * jnp.asarray(t, complex)) + 0.3 * jnp.conj(y)


def complex_loss(x, strategy, rtol=1e-9):
    """With a complex parameter, and a right-hand side that is not holomorphic."""
    problem = jde.ODEProblem(
        complex_field, x[2:].astype(complex) * (1 - 0.5j), (0.0, END), args=x.astype(complex) * (1 + 0.2j)
    )
    options = {"rtol": rtol, "atol": rtol, "max_steps": 512, "saveat": TIMES}
    ys = jde.solve(problem, jde.Tsit5(), gradient=strategy, **options).ys[:, 0]
    return jnp.sum(WEIGHTS * jnp.real(ys * ys * (0.3 + 1j)))


def pair(t, y, args):
    """x[1]·y′ = x[1]·f, and 0 = z − a·y²."""
    return {"y": args[1] * field(t, y, args)["y"], "z": y["z"] - args[0] * y["y"] ** 2}


def of_pair(ys):
    return jnp.sum(WEIGHTS * (ys["y"][:, 0] ** 2 + 0.3 * ys["z"][:, 0]))


def with_mass(x, strategy):
    """M depends on a parameter, and z has to be found."""
    start, mass = {"y": x[2:], "z": jnp.zeros(1)}, {"y": x[1:2], "z": jnp.zeros(1)}
    problem = jde.ODEProblem(pair, start, (0.0, END), x, mass_matrix=mass)
    options = {"rtol": 1e-9, "atol": 1e-9, "max_steps": 512, "saveat": TIMES}
    return of_pair(jde.solve(problem, jde.Rodas5P(), gradient=strategy, **options).ys)


def residual(x, strategy):
    def zero(t, y, dy, args):
        f = pair(t, y, args)
        return {"y": args[1] * dy["y"] - f["y"], "z": f["z"]}

    problem = jde.DAEProblem(zero, {"y": x[2:], "z": jnp.zeros(1)}, None, (0.0, END), x)
    options = {"rtol": 1e-10, "atol": 1e-10, "max_steps": 2048, "saveat": TIMES}
    return of_pair(jde.solve(problem, jde.BDF(), gradient=strategy, **options).ys)


def of_pair_true(x):
    y = truth(x, TIMES)
    return jnp.sum(WEIGHTS * (y**2 + 0.3 * x[0] * y**2))


def delayed(x, strategy):
    """y′ = −x[0]·y(t − x[1]), and y = x[2] before."""

    def f(t, y, h, args):
        return {"y": -args[0] * h(t - args[1])["y"]}

    problem = jde.DDEProblem(f, {"y": x[2:]}, (0.0, END), x, history={"y": x[2:]}, lags=lambda args: args[1])
    options = {"rtol": 1e-10, "atol": 1e-10, "max_steps": 512, "saveat": TIMES}
    return jnp.sum(WEIGHTS * jde.solve(problem, jde.Tsit5(), gradient=strategy, **options).ys["y"][:, 0] ** 2)


def delayed_true(x):
    """By the method of steps: y = x[2]·Σ (−x[0])ᵏ (t − (k − 1)·x[1])ᵏ/k!, over k with t > (k − 1)·x[1]."""
    y = sum((-x[0] * jnp.maximum(TIMES - (k - 1) * x[1], 0)) ** k / math.factorial(k) for k in range(1, 12))
    return jnp.sum(WEIGHTS * (x[2] * (1 + y)) ** 2)


def noisy(x, strategy):
    """dy = a·y dt + b/50·y∘dW: with so little noise a method of order one has no larger an error than the others."""
    return jnp.sum(WEIGHTS * along_path(x, strategy, 10_000, saveat=TIMES).ys["y"][:, 0] ** 2)


def along_path(x, strategy, n, **options):
    reversible = isinstance(strategy, jde.ReversibleAdjoint)
    method = jde.ReversibleHeun() if reversible else jde.StochasticHeun()
    drift, diffusion = (lambda t, y, x, k=k, c=c: {"y": c * x[k] * y["y"]} for k, c in ((0, 1), (1, 1 / 50)))
    how = {"key": jax.random.key(5), "noise": "scalar", "interpretation": "stratonovich"}
    problem = jde.SDEProblem(drift, diffusion, {"y": x[2:]}, (0.0, END), x, **how)
    return jde.solve(problem, method, gradient=strategy, controller=jde.FixedSteps(n), **options)


@functools.cache
def brownian(n, times=TIMES):
    """The path, at TIMES or all ends of steps."""
    solution = along_path(X, jde.ReverseAD(), n, saveat=jde.SaveAt(t1=True))
    return np.asarray(solution.brownian(jnp.asarray(times)))


def noisy_true(x):
    return jnp.sum(WEIGHTS * (x[2] * jnp.exp(x[0] * TIMES + x[1] / 50 * brownian(10_000))) ** 2)


OPTIONS = {
    "ODEProblem": (at_times, at_times_true),
    "mass_matrix": (with_mass, of_pair_true),
    "DAEProblem": (residual, of_pair_true),
    "DDEProblem": (delayed, delayed_true),
    "SDEProblem": (noisy, noisy_true),
    "ts": (at_times, at_times_true),
    "steps": (steps, steps_true),
    "t1": (end, end_true),
    "fn": (observed, observed_true),
    "dense": (dense, at_times_true),
    "stops": (stopped, stopped_true),
    "FixedSteps": (fixed, at_times_true),
    "regularisers": (energy, energy_true),
    "events": (happening, happening_true),
}


def assert_close(found, wanted):
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.shape == wanted.shape
    assert np.max(np.abs(found - wanted)) <= LIMIT * np.max(np.abs(wanted))


@functools.cache
def gradient_of(name, option):
    """Shared by the cells that ask for the same program."""
    loss, _ = OPTIONS[option]
    return jax.jit(jax.grad(lambda x: loss(x, STRATEGIES[name]())))(X)


@functools.cache
def kept_of_noise(name):
    """Of a loss of all that equal steps with noise can keep, of a complex state."""

    def loss(x):
        fn = lambda t, y, args: y * args[0] + jnp.asarray(t, complex)
        problem = jde.SDEProblem(
            lambda t, y, args: args[0] * jnp.conj(y),
            lambda t, y, args: args[1] * y * (1 + 0.3j),
            x[2:].astype(complex) * (1 - 0.5j),
            (0.0, x[0]),
            x.astype(complex),
            key=jax.random.key(5),
            interpretation="stratonovich",
        )
        saveat = jde.SaveAt(ts=np.array([0.0, 0.31, 0.4]), steps=2, t1=True, fn=fn)
        how = {"saveat": saveat, "dense": True, "controller": jde.FixedSteps(5), "gradient": STRATEGIES[name]()}
        solution = jde.solve(problem, jde.ReversibleHeun(), **how)
        return jnp.sum(jnp.real(solution.ys**2)) + jnp.sum(jnp.imag(solution(jnp.array([0.33, 0.5]))))

    return jax.jit(jax.grad(loss))(X)


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("name", STRATEGIES)
def test_option(name, option):
    reverses = name == "ReversibleAdjoint"
    if not table.serves(STRATEGIES[name], option):
        what = f"({option}|ODEProblem)" if reverses else option
        with pytest.raises(NotImplementedError, match=f"{name} does not serve {what}"):
            gradient_of(name, option)
        return
    if reverses and option != "SDEProblem":
        return assert_close(kept_of_noise(name), kept_of_noise("ReverseAD"))
    true = OPTIONS[option][1]
    same = "ts" if option == "ODEProblem" else option
    assert_close(gradient_of(name, same), jax.grad(true)(X))


@functools.cache
def complex_reference():
    """The split into real and imaginary parts is what central differences of a real function of x see."""
    value = jax.jit(lambda x: complex_loss(x, jde.ReverseAD(), 1e-12))
    h = 1e-4
    central = lambda e, h: (value(X + h * e) - value(X - h * e)) / (2 * h)
    return np.array([(4 * central(e, h / 2) - central(e, h)) / 3 for e in jnp.eye(3)])


@pytest.mark.parametrize("name", STRATEGIES)
def test_complex(name):
    assert table.serves(STRATEGIES[name], "complex")
    if name == "ReversibleAdjoint":
        return assert_close(kept_of_noise(name), kept_of_noise("ReverseAD"))
    assert_close(jax.jit(jax.grad(lambda x: complex_loss(x, STRATEGIES[name]())))(X), complex_reference())


def test_every_option_has_a_test():
    assert {*OPTIONS, "complex"} == set(table.OPTIONS)
    assert set(MODES) == set(table.MODES)


# -------------------- modes of differentiation ------------------------------------------------------------------------


def grad(f, x):
    return jax.grad(lambda x: f(x)[0])(x)


DIRECTION, ANOTHER = jnp.array([0.3, -1.0, 0.7]), jnp.array([1.0, 0.2, -0.4])


def along(f, x, direction=DIRECTION):
    return jax.jvp(f, (x,), (direction,))[1]


def hessian(f, x):
    """Row by row: `jax.hessian` makes lanes of them, which takes twice as long to compile."""
    gradient = jax.grad(lambda x: jnp.sum(f(x) ** 2))
    return jax.lax.map(lambda row: along(gradient, x, row), jnp.eye(3))


def over(outer, inner):
    return lambda f, x: outer(inner(lambda x: jnp.sum(f(x) ** 2)))(x)


MODES = {
    "grad": grad,
    "jvp": along,
    "jacfwd": lambda f, x: jax.jacfwd(f)(x),
    "jacrev": lambda f, x: jax.jacrev(f)(x),
    "vmap": lambda f, x: jax.vmap(lambda x: grad(f, x))(jnp.array([[0.9], [1.0], [1.2]]) * x[None]),
    "hessian": hessian,
    "forward over forward": lambda f, x: along(lambda x: along(f, x), x, ANOTHER),
    "reverse over forward": over(jax.jacrev, jax.jacfwd),
    "reverse over reverse": over(jax.jacrev, jax.grad),
}


def values(x, strategy):
    """The rows that are saved on the way, and at the end."""
    return run(x, strategy, saveat=TIMES[1:]).ys["y"][:, 0]


def of_path(x, strategy):
    """The same of an equation with noise."""
    return along_path(x, strategy, 6, saveat=jde.SaveAt(steps=2)).ys["y"][:, 0]


def of_path_true(x, reversible):
    """By hand, of the steps of the two methods."""
    moves, found, y, z = np.diff(brownian(6, tuple(np.linspace(0.0, END, 7)))), [], x[2], x[2]
    for w in moves:
        c = x[0] * END / 6 + x[1] / 50 * w
        before, z = (z, 2 * y - z + c * z) if reversible else (y, y + c * y)
        y = y + c * (before + z) / 2
        found.append(y)
    return jnp.stack(found[1::2])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", STRATEGIES)
def test_mode(name, mode):
    reverses = name == "ReversibleAdjoint"
    found = of_path if reverses else values
    derivative = jax.jit(lambda x: MODES[mode](lambda x: found(x, STRATEGIES[name]()), x))
    if not table.serves(STRATEGIES[name], mode):
        with pytest.raises(NotImplementedError, match=r"jax\.hessian"):
            derivative(X)
        return
    true = functools.partial(of_path_true, reversible=True) if reverses else lambda x: truth(x, TIMES[1:])
    assert_close(derivative(X), MODES[mode](true, X))


NOISY = [("ReverseAD", mode) for mode in MODES] + [("ForwardAD", mode) for mode in ("grad", "hessian")]


@pytest.mark.parametrize(("name", "mode"), NOISY)
def test_mode_along_a_path(name, mode):
    derivative = jax.jit(lambda x: MODES[mode](lambda x: of_path(x, STRATEGIES[name]()), x))
    if not table.serves(STRATEGIES[name], mode):
        with pytest.raises(NotImplementedError, match=r"jax\.hessian"):
            derivative(X)
        return
    assert_close(derivative(X), MODES[mode](functools.partial(of_path_true, reversible=False), X))


@pytest.mark.parametrize("name", ["ReverseAD", "GaussAdjoint"])
def test_lanes_of_a_hessian(name):
    found = jax.jit(jax.hessian(lambda x: jnp.sum(values(x, STRATEGIES[name]()) ** 2)))(X)
    assert_close(found, jax.hessian(lambda x: jnp.sum(truth(x, TIMES[1:]) ** 2))(X))


def test_a_strategy_that_is_none_is_refused_before_tracing():
    with pytest.raises(TypeError, match=r"Call it: `ReverseAD\(\)`"):
        run(X, jde.ReverseAD)
    with pytest.raises(TypeError, match=r"one of ReverseAD\(\), ForwardAD\(\), Back"):
        run(X, "backward")
    with pytest.raises(NotImplementedError, match=r"ReverseAD\(\) or ForwardAD\(\)"):
        run(X, jde.GaussAdjoint(), dense=True)
