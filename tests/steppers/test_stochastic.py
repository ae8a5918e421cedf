"""Methods for equations with noise, on paths that are given: what each declares, it has."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from given_noise import Problem, coarser, ends, fine_path
from noisy_problems import PROBLEMS

from jaxdiffeq import FixedSteps, SaveAt, SDEProblem, solve
from jaxdiffeq.engine.control import Tolerance
from jaxdiffeq.methods import stochastic as methods
from jaxdiffeq.noise.kinds import Kind
from jaxdiffeq.steppers.stochastic import MilsteinStepper
from jaxdiffeq.types import Context, State

KEY = jax.random.key(3)
FINE, PATHS, LEVELS = 1024, 200, (8, 16, 32, 64)
NAMES = [name for name in methods.__all__ if name not in methods.LANGEVIN]  # these have their own tests
METHODS = {name: getattr(methods, name)() for name in NAMES}
STRONG = {name: method for name, method in METHODS.items() if method.strong_order is not None}
FAMILIES = {type(method): name for name, method in METHODS.items()}.values()  # one of each, of which tables are data
ADAPTIVE = {name: method for name, method in METHODS.items() if method.error_order is not None}


def given_areas(inc, h, terms):
    """Those of the path itself, which the harness hands over in place of a key."""
    return inc.key


def cases():
    for name, method in STRONG.items():
        for kind in method.serves:
            calculi = method.interpretations[:1] if kind == "additive" else method.interpretations
            for calculus in calculi:
                yield pytest.param(name, kind, calculus, id=f"{name}-{kind}-{calculus}")


@functools.cache
def path(kind):
    return fine_path(PROBLEMS[kind].shape, FINE, PATHS)


@functools.cache
def reference(kind):
    """y(1), by a method that is tested against closed forms below; of noise that does not commute, with small steps."""
    method = {"general": "StochasticHeun", "commutative": "SlowRK"}.get(kind, "SRIW2")
    return ends(METHODS[method], PROBLEMS[kind], path(kind), METHODS[method].interpretations[0])


def in_steps(kind, n):
    """The path in n steps, with the iterated integrals ∫Wⱼ∘dWₖ over each if there are columns."""
    w, area = path(kind)
    total, mean = coarser((w, area), FINE // n)
    if kind != "general":
        return total, mean
    parts = w.reshape(n, FINE // n, *w.shape[1:])
    middles = np.cumsum(parts, 1) - 0.5 * parts
    return total, mean, np.einsum("nrpj,nrpk->npjk", middles, parts)


def rms(x):
    return np.sqrt(np.mean(np.abs(x) ** 2))


def slope(errors):
    return -np.polyfit(np.log(LEVELS), np.log(errors), 1)[0]


@pytest.mark.parametrize(("name", "kind", "calculus"), list(cases()))
def test_strong_order(name, kind, calculus):
    method = STRONG[name].in_calculus(calculus).on_equal_steps
    if isinstance(method, MilsteinStepper):
        method = MilsteinStepper(calculus, equal=True, areas=given_areas)
    found = [ends(method, PROBLEMS[kind], in_steps(kind, n), calculus, room=LEVELS[-1]) for n in LEVELS]
    errors = [rms(y - reference(kind)) for y in found]
    order = STRONG[name].strong_order_on(kind)
    # a coarse step of order 1/2 is still partly one of order 1, and with additive noise 3/2 is nearly 2
    most = {0.5: 0.35, 1.0: 0.15, 1.5: 0.55}[order]
    assert order - 0.1 < slope(errors) < order + most
    assert errors[0] < 0.15


def sine_drift(t, y, args):
    return jnp.sqrt(1 + y * y) * jnp.cos(t)


def sine_diffusion(t, y, args):
    return 0.5 * jnp.sqrt(1 + y * y)


def spiral_drift(t, y, args):
    return jnp.stack([-0.3 * y[0] - 0.5 * y[1], 0.5 * y[0] - 0.3 * y[1]])


def from_closed_form(w):
    """y(1) = sinh(arsinh y₀ + sin 1 + W/2), of each component."""
    return np.sinh(np.arcsinh([0.7, -0.4]) + np.sin(1) + 0.5 * w)


def spiral(w):
    """y(1) = exp(−0.3 + 0.5i + W₁/2 + 0.6i·W₂)·y₀, in the complex plane."""
    z = np.exp(-0.3 + 0.5j + 0.5 * w[:, 0] + 0.6j * w[:, 1]) * (0.7 - 0.4j)
    return np.stack([z.real, z.imag], -1)


CLOSED = {
    "diagonal": (Problem(Kind("diagonal"), sine_drift, sine_diffusion, (0.7, -0.4)), from_closed_form, "SRIW2"),
    "commutative": (PROBLEMS["commutative"]._replace(drift=spiral_drift), spiral, "SlowRK"),
}


@pytest.mark.parametrize("kind", CLOSED)
def test_references_agree_with_closed_forms(kind):
    problem, exact, name = CLOSED[kind]
    method, calculus = METHODS[name], METHODS[name].interpretations[0]
    fine = path(kind)
    errors = []
    for n in LEVELS:
        coarse = coarser(fine, FINE // n)
        errors.append(rms(ends(method, problem, coarse, calculus, room=LEVELS[-1]) - exact(coarse[0].sum(0))))
    assert 1.4 < slope(errors) < 1.8


# -------------------- one step, op by op ------------------------------------------------------------------------------


def one_step(method, problem, width=0.1, dtype: Any = float, args=None, seed=0):
    """From y₀ at 0, and the problem's field as the method sees it."""
    method = method.on_equal_steps
    rng, real = np.random.default_rng(seed), jnp.finfo(dtype).dtype
    w, area = (
        jnp.asarray(rng.standard_normal((1, *problem.shape)) * s, real) for s in (width**0.5, (width / 12) ** 0.5)
    )
    args = {**(args or {}), "noise": (w, area, jax.random.split(jax.random.key(seed), 1))}
    field = problem.field(method.interpretations[0]).at(None, Context(0))
    t, y = jnp.zeros((), real), jnp.asarray(problem.y0).astype(dtype)
    return method.step(field, State(t, y, method.init(field, t, y, args)), t + jnp.asarray(width, real), args, None)


def kinds_of(method):
    """One for each way through its code; of implicit ones, which are dear, a single one."""
    kinds = [kind for kind in ("additive", "diagonal", "commutative") if kind in method.serves]
    return kinds[-1:] if method.work else kinds


@pytest.mark.parametrize("name", FAMILIES)
def test_single_precision(name):
    """With dtypes that do not widen by themselves."""
    for kind in kinds_of(METHODS[name]):
        single, double = (one_step(METHODS[name], PROBLEMS[kind], dtype=d) for d in (jnp.float32, jnp.float64))
        assert single.after.y.dtype == jnp.float32
        np.testing.assert_allclose(single.after.y, double.after.y, rtol=0, atol=3e-6)


def rotating(t, y, args):
    return (-0.3 + 2j) * y * jnp.cos(jnp.abs(y)).astype(y.dtype)


def kicked(t, y, args):
    return (0.4 + 0.3j) * jnp.conj(y) + 0.2


def real_pair(f):
    def of_pair(t, y, args):
        z = f(t, jax.lax.complex(y[:1], y[1:]), args)[0]
        return jnp.stack([z.real, z.imag])

    return of_pair


@pytest.mark.parametrize("name", [name for name in FAMILIES if "scalar" in METHODS[name].serves])
def test_complex_states(name):
    """As the real equation of their two parts, also where the diffusion is not holomorphic."""
    plane = Problem(Kind("scalar"), rotating, kicked, (0.7 - 0.4j,))
    pair = Problem(Kind("scalar"), real_pair(rotating), real_pair(kicked), (0.7, -0.4))
    y, parts = one_step(METHODS[name], plane, dtype=complex).after.y, one_step(METHODS[name], pair).after.y
    np.testing.assert_allclose([y[0].real, y[0].imag], parts, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.work == ()])
def test_calls_of_the_drift(name):
    method, calls = METHODS[name].on_equal_steps, []
    kind = "diagonal" if "diagonal" in method.serves else "additive"

    def counted(t, y, args):
        calls.append(t)
        return PROBLEMS[kind].drift(t, y, args)

    with jax.disable_jit():  # a loop over stages is one over calls
        one_step(method, PROBLEMS[kind]._replace(drift=counted))
    assert len(calls) == method.evaluations[0] + method.evaluations[1]


@pytest.mark.parametrize("name", FAMILIES)
def test_derivative_of_a_step(name):
    """By parameters of the drift and of the diffusion, against central differences."""
    kind = kinds_of(METHODS[name])[-1]
    drift, diffusion = PROBLEMS[kind].drift, PROBLEMS[kind].diffusion
    problem = PROBLEMS[kind]._replace(
        drift=lambda t, y, args: args["p"] * drift(t, y, args),
        diffusion=lambda t, y, args: args["p"] * diffusion(t, y, args),
    )
    after = lambda p: one_step(METHODS[name], problem, args={"p": p}).after.y
    _, tangent = jax.jvp(after, (jnp.array(1.0),), (jnp.array(1.0),))
    gap = 1e-5
    np.testing.assert_allclose(tangent, (after(jnp.array(1 + gap)) - after(jnp.array(1 - gap))) / (2 * gap), atol=1e-8)


# -------------------- estimates of the error --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ADAPTIVE)
def test_order_and_size_of_the_estimate(name):
    """E|err| goes with the power of dt that is declared, and is not below what a step of this size has as an error."""
    method = ADAPTIVE[name]
    kind = "general" if method.strong_order == 0.5 else method.serves[0]
    problem, calculus = PROBLEMS[kind], method.interpretations[0]
    field = problem.field(calculus).at(None, Context(0))
    t, y = jnp.array(0.3), jnp.asarray(problem.y0)
    tolerance = Tolerance(jnp.array(1e-8), jnp.array(1e-8))

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(None, 1))
    def error(width, noise):
        args = {"noise": (*noise, jnp.zeros(1))}
        start = State(t, y, method.init(field, t, y, args))
        return method.step(field, start, t + width, args, tolerance).error

    widths = (2.0**-6, 2.0**-10)
    sizes = [rms(error(jnp.array(h), fine_path(problem.shape, 1, PATHS, span=h))) for h in widths]
    assert np.log(sizes[0] / sizes[1]) / np.log(widths[0] / widths[1]) == pytest.approx(method.error_order, abs=0.2)


# -------------------- what some are made for --------------------------------------------------------------------------


def test_reversible_steps_can_be_taken_back():
    method, problem, n = METHODS["ReversibleHeun"], PROBLEMS["general"], 200
    noise = tuple(jnp.asarray(x[:, 0]) for x in fine_path(problem.shape, n, 1))
    args, field = {"noise": (*noise, jnp.zeros(n))}, problem.field()
    t, y = jnp.array(0.0), jnp.asarray(problem.y0)
    first = State(t, y, method.init(field, t, y, args))

    @jax.jit
    def there_and_back(first):
        forth = lambda i, at: method.step(field.at(None, Context(i)), at, (i + 1) / n, args).after
        back = lambda i, at: method.back(field.at(None, Context(n - 1 - i)), at, (n - 1 - i) / n, args)
        end = jax.lax.fori_loop(0, n, forth, first)
        return end, jax.lax.fori_loop(0, n, back, end)

    end, start = there_and_back(first)
    assert np.linalg.norm(end.y - first.y) > 0.1
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-11), start, first)


STIFF = 1e5


@pytest.mark.parametrize("name", ["ImplicitEM", "ImplicitEulerHeun", "ImplicitRKMil", "SKenCarp"])
def test_stiff_components_keep_no_noise(name):
    """dy = −λy dt + dW with λ·dt = 1e4: nothing of the start is left, and less than 5 times the noise there is."""
    problem = Problem(
        Kind("additive"), lambda t, y, args: -STIFF * y, lambda t, y, args: jnp.ones_like(y), np.ones(400)
    )
    y = one_step(METHODS[name], problem).after.y
    assert rms(y) < 5 / np.sqrt(2 * STIFF)


def test_cubic_drifts_do_not_blow_up():
    """dy = −y³ dt + y dW from 100, with steps of 1/10, by which Euler's method goes to infinity."""
    problem = Problem(Kind("diagonal"), lambda t, y, args: -(y**3) - 0.5 * y, lambda t, y, args: y, (100.0,))
    coarse = fine_path((1,), 10, PATHS)
    assert not np.all(np.isfinite(ends(METHODS["EulerMaruyama"], problem, coarse, "ito")))
    assert np.max(np.abs(ends(METHODS["SplitStepBE"].on_equal_steps, problem, coarse, "ito"))) < 10


def test_names():
    assert [repr(method) for method in METHODS.values()] == [
        f"{name}()" if name != "SROCK2" else "SROCK2(10)" for name in METHODS
    ]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: methods.ImplicitEM(theta=0), "`theta` must be a number above 0 and at most 1, but is 0"),
        (lambda: methods.ImplicitRKMil(theta=True), "`theta` must be a number above 0 and at most 1, but is True"),
        (lambda: methods.Milstein(terms=-1), "`terms` must be an integer of at least 0, but is -1"),
        (lambda: methods.SROCK2(3), "`stages` must be an integer from 4 to 200, but is 3"),
    ],
)
def test_options_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_stages_there_is_no_table_for():
    assert repr(methods.SROCK2(23)) == "SROCK2(24)"


def test_an_equation_is_solved_in_its_own_calculus():
    """dy = ½y·dW on one path by methods that know both: y = exp(W/2), and in Itô's calculus exp(W/2 − 1/8)."""
    found, how = {}, {"controller": FixedSteps(256), "saveat": SaveAt(t1=True)}
    drift, diffusion = lambda t, y, args: 0 * y, lambda t, y, args: 0.5 * y
    for calculus in ("ito", "stratonovich"):
        problem = SDEProblem(drift, diffusion, jnp.ones(1), (0.0, 1.0), key=KEY, interpretation=calculus)
        for method in (methods.Milstein(), methods.ImplicitRKMil()):
            found[calculus, method.name] = solve(problem, method, **how).ys[0]
    for name in ("Milstein", "ImplicitRKMil"):
        ratio = found["ito", name] / found["stratonovich", name]
        np.testing.assert_allclose(ratio, np.exp(-0.125), rtol=0.01)
