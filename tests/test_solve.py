"""`solve` as a user meets it: what has one sensible meaning works, in every dtype, at every scale of time."""

import functools
import subprocess
import sys
import traceback
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiffeq as jde

END = jde.SaveAt(t1=True)


def decay(t, y, args):
    return jax.tree.map(jnp.negative, y)


def run(y0, tspan=(0.0, 1.0), f=decay, **options):
    options = {"rtol": 2e-6, "atol": 1e-9, "saveat": END, **options}
    return jde.solve(jde.ODEProblem(f, y0, tspan), jde.Tsit5(), **options)


# ---- states


STATES = {
    "int": (2, "float64"),
    "list": ([1, 2.0], "float64"),
    "int array": (np.arange(3), "float64"),
    "one array": (np.arange(6.0).reshape(1, 2, 3), "float64"),
    "float32": (jnp.ones(2, jnp.float32), "float32"),
    "complex": (1.0 + 2.0j, "complex128"),
    "complex64": (jnp.array([1j, 2.0], jnp.complex64), "complex64"),
    "nothing in it": (np.zeros((0, 3)), "float64"),
    "tree": ({"a": (np.ones((2, 1), np.float32), 1), "b": [np.ones(0), 2.0]}, None),
    "mixed with complex": ({"r": np.ones(2, np.float32), "c": 1j}, None),
}


@pytest.mark.parametrize("name", STATES)
def test_any_state_is_solved_in_its_own_shape_and_dtype(name):
    y0, dtype = STATES[name]
    sol = run(y0, (0, 1))
    assert sol.ts.dtype == ("float32" if dtype in ("float32", "complex64") else "float64")
    assert jax.tree.structure(sol.ys) == jax.tree.structure(y0)
    for x, y in zip(jax.tree.leaves(y0), jax.tree.leaves(sol.ys), strict=True):
        assert y.shape == (1, *np.shape(x))
        own = np.asarray(x).dtype if isinstance(x, np.ndarray) and np.asarray(x).dtype.kind in "fc" else None
        assert y.dtype == (dtype or own or ("complex128" if isinstance(x, complex) else "float64"))
        np.testing.assert_allclose(y[0], np.exp(-1) * np.asarray(x), rtol=2e-6)


def test_half_precision_is_solved_with_a_clock_in_single():
    sol = run(jnp.ones(2, jnp.float16), rtol=2e-2, atol=1e-3)
    assert sol.ys.dtype == jnp.float16 and sol.ts.dtype == jnp.float32
    np.testing.assert_allclose(sol.ys[-1].astype(float), np.exp(-1), rtol=2e-2)


def test_the_clock_may_be_finer_than_the_state():
    sol = run(jnp.ones(2, jnp.float32), (jnp.zeros((), jnp.float64), jnp.ones((), jnp.float64)))
    assert sol.ys.dtype == jnp.float32 and sol.ts.dtype == jnp.float64


@pytest.mark.parametrize("name", ["BS3", "Tsit5", "DP8", "Vern7"])
def test_complex_states_turn(name):
    problem = jde.ODEProblem(lambda t, y, w: 1j * w * y, jnp.array([1.0, 1j]), (0, 2), 2 + 0j)
    sol = jde.solve(problem, getattr(jde, name)(), rtol=1e-8, atol=1e-10, dense=True, saveat=[1.0, 2.0])
    exact = np.exp(2j * np.array([[1.0], [2.0]])) * np.array([1.0, 1j])
    np.testing.assert_allclose(sol.ys, exact, rtol=1e-6)
    np.testing.assert_allclose(sol.derivative(1.0), 2j * exact[0], rtol=1e-4)


def test_complex_states_have_gradients():
    def end(w):
        problem = jde.ODEProblem(lambda t, y, w: 1j * w.astype(complex) * y, 1 + 0j, (0, 2), w)
        return jde.solve(problem, jde.Tsit5(), saveat=END, rtol=1e-9, atol=1e-11).ys[-1].real

    np.testing.assert_allclose(jax.grad(end)(2.0), -2 * np.sin(4), rtol=1e-6)


OFF = """
import jax, jax.numpy as jnp, numpy as np, warnings
warnings.simplefilter("error")
jax.config.update("jax_numpy_dtype_promotion", "strict")
import jaxdiffeq as jde
f = lambda t, y, args: jax.tree.map(lambda x: -args * x, y)
for y0 in (1, 1.0, np.ones(2), jnp.ones((2, 1)), {"a": 1, "b": [np.ones(3, np.float32)]}):
    sol = jde.solve(jde.ODEProblem(f, y0, (0, 10), 0.5), saveat=0.1)
    assert sol.ts.shape == (101,) and sol.ts.dtype == jnp.float32 and bool(sol.ok)
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(sol.ys))
    end = jax.tree.leaves(sol.ys)[0].reshape(101, -1)[-1, 0]
    assert abs(end - np.exp(-5)) < 1e-4, end
sol = jde.solve(jde.ODEProblem(f, np.ones(2), np.array([0.0, 3.0]), 0.5), dense=True)
assert abs(sol(1.5)[0] - np.exp(-0.75)) < 1e-3 and sol.ts[-1] == 3.0
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    jde.solve(jde.ODEProblem(f, 1.0, (0, 1), 0.5), jde.Tsit5(), rtol=1e-8)
assert "rtol = 1.0e-08 is below what float32 can resolve; 1.2e-06" in str(seen[0].message)
"""


def test_everything_works_in_the_default_precision():
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", OFF], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# ---- scales and shifts of time


@functools.partial(jax.jit, static_argnums=0)
def at_scale(dtype, c):
    """y' = −y(1 + sin(t/c)/2)/c to t = 2c; in units of c the same problem for every c."""

    def f(t, y, c):
        return -y * (1 + jnp.sin(t / c) / 2) / c

    c = c.astype(dtype)
    sol = jde.solve(
        jde.ODEProblem(f, jnp.ones((), dtype), (jnp.zeros((), dtype), 2 * c), c),
        jde.Tsit5(),
        saveat=[0.5 * c, 2 * c],
        stops=[c],
        rtol=1e-5,
        atol=1e-6,
    )
    return sol.ys, sol.stats, sol.result, sol.t_end / c


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_a_solve_does_not_know_its_unit_of_time(dtype):
    one, stats, result, end = at_scale(dtype, jnp.float64(1))
    t = np.array([0.5, 2.0])
    np.testing.assert_allclose(one, np.exp(-t - (1 - np.cos(t)) / 2), rtol=1e-4)
    assert result == 0 and end == 2
    for c in (2.0**-50, 2.0**-20, 2.0**50):  # no rounding in the change of unit, only in roots that steps are made of
        ys, others, result, end = at_scale(dtype, jnp.float64(c))
        np.testing.assert_allclose(ys, one, rtol=8 * float(jnp.finfo(dtype).eps))
        assert (others.steps, result, end) == (stats.steps, 0, 2)
    for c in (1e-15, 3e-8, 1e-3, 7e5, 1e15):
        ys, others, result, end = at_scale(dtype, jnp.float64(c))
        np.testing.assert_allclose(ys, np.exp(-t - (1 - np.cos(t)) / 2), rtol=1e-4)
        assert (result, end) == (0, 2) and abs(int(others.steps) - int(stats.steps)) <= 1


@functools.partial(jax.jit, static_argnums=0)
def at_shift(dtype, t0):
    def f(t, y, t0):
        return (t - t0) * jnp.cos(y)

    t0 = t0.astype(dtype)
    problem = jde.ODEProblem(f, jnp.ones((), dtype), (t0, t0 + 2), t0)
    sol = jde.solve(problem, jde.Tsit5(), saveat=END, rtol=1e-4, atol=1e-6)
    return sol.ys[-1], sol.result, sol.t_end - t0


@pytest.mark.parametrize(("dtype", "shifts"), [(jnp.float32, [1e3, -1e4, 5e4]), (jnp.float64, [1e3, -1e8, 1e12])])
def test_a_solve_does_not_know_its_origin_of_time(dtype, shifts):
    # s = t²/2 turns it into dy/ds = cos y, whose solution is y = 2·arctan(tanh((s + s₀)/2))
    exact = 2 * np.arctan(np.tanh((2 + 2 * np.arctanh(np.tan(0.5))) / 2))
    y, result, span = at_shift(dtype, jnp.float64(0))
    np.testing.assert_allclose(y, exact, rtol=1e-4)
    for t0 in shifts:
        y, result, span = at_shift(dtype, jnp.float64(t0))
        assert result == 0 and span == 2
        ulp = float(jnp.finfo(dtype).eps) * abs(t0)  # how well the clock knows where it is
        np.testing.assert_allclose(y, exact, atol=1e-4 + 4 * ulp)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("ulps", [600, 2000])
def test_a_span_of_a_few_hundred_units_in_the_last_place(dtype, ulps):
    """Less is refused, see test_clock.py."""
    t0 = dtype(1000)
    t1 = t0 + ulps * np.spacing(t0)
    sol = run(jnp.ones((), dtype), (jnp.asarray(t0), jnp.asarray(t1)), saveat=None)
    assert sol.ts[-1] == t1 and sol.stats.accepted <= ulps


@pytest.mark.parametrize("t1", [0.1, 1 / 3, 1.1, 7.3])
def test_the_end_is_met_exactly(t1):
    sol = run(1.0, (0.0, t1), saveat=None, stops=[t1 / 3, t1 / 7])
    assert sol.ts[-1] == t1 == sol.t_end
    assert {t1 / 3, t1 / 7} <= set(np.asarray(sol.ts).tolist())


def test_a_long_oscillation_in_single_precision_ends():
    def f(t, y, args):
        return jnp.stack([y[1], -y[0]])

    sol = run(jnp.array([1.0, 0.0], jnp.float32), (0.0, 600.0), f, rtol=1e-4, atol=1e-6)
    assert bool(sol.ok) and sol.t_end == 600.0 and sol.stats.steps < 2000
    np.testing.assert_allclose(sol.ys[-1], [np.cos(600), -np.sin(600)], atol=0.06)  # 95 turns at 1e-4 a step


def test_tolerances_below_the_precision_are_raised_to_it():
    with pytest.warns(UserWarning, match="2.2e-15 is used"):
        low = run(1.0, rtol=1e-30, atol=0.0)
    floor = run(1.0, rtol=10 * np.finfo(float).eps, atol=0.0)
    assert low.stats.steps == floor.stats.steps and bool(low.ok)


def test_tolerances_may_differ_from_component_to_component():
    def steps(atol):
        f = lambda t, y, args: {"a": -y["a"], "b": -50 * y["b"]}
        return int(run({"a": jnp.ones(2), "b": 1.0}, f=f, rtol=0.0, atol=atol).stats.accepted)

    loose = steps({"a": 1e-8, "b": 1e3})
    assert loose < 0.8 * steps({"a": np.full(2, 1e-8), "b": 1e-8})


# ---- stops


def wave(strict):
    """y' = s − y, where s is 1 before t = 1 and −1 after; at t = 1 itself either of the two."""
    before = jnp.less if strict else jnp.less_equal
    return lambda t, y, args: jnp.where(before(t, 1.0), 1.0, -1.0) - y


AFTER_WAVE = (1 - np.exp(-1)) * np.exp(-1) - (1 - np.exp(-1))


@pytest.mark.parametrize("strict", [True, False])
def test_a_jump_at_a_stop_costs_no_order(strict):
    f, errors = wave(strict), []
    for h in (0.2, 0.1, 0.05):
        problem, controller = jde.ODEProblem(f, 0.0, (0.0, 2.0)), jde.FixedSteps(dt=h)
        sol = jde.solve(problem, jde.RK4(), controller=controller, stops=[1.0], saveat=END)
        errors.append(abs(float(sol.ys[-1]) - AFTER_WAVE))
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all(np.abs(orders - 4) < 0.2), orders


@pytest.mark.parametrize("strict", [True, False])
def test_stops_in_any_order_more_than_once_and_outside(strict):
    f = wave(strict)
    for stops in ([1.0], 1.0, np.array([1.0]), [5.0, 1.0, -3, 0, 2, 1.0]):
        sol = run(0.0, (0.0, 2.0), f, stops=stops, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(sol.ys[-1], AFTER_WAVE, rtol=1e-8)
        assert sol.stats.rejected_error <= 2
    assert run(0.0, (0.0, 2.0), f, rtol=1e-9, atol=1e-12).stats.rejected_error > 5  # what a jump costs otherwise


def test_stops_on_the_way_back():
    sol = run(AFTER_WAVE, (2.0, 0.0), wave(True), stops=[1.0], saveat=None, rtol=1e-9, atol=1e-12)
    assert 1.0 in np.asarray(sol.ts)
    np.testing.assert_allclose(sol.ys[-1], 0.0, atol=1e-7)


def test_landing_on_a_stop_does_not_shorten_the_steps_after_it():
    f = lambda t, y, args: -y + jnp.sin(t)
    sol = run(1.0, (0.0, 10.0), f, saveat=None, stops=[4.0, 4.0 + 1e-6])
    free = np.diff(run(1.0, (0.0, 10.0), f, saveat=None).ts)
    at = int(np.argmax(np.asarray(sol.ts) == 4.0 + 1e-6))
    widths = np.diff(sol.ts)
    assert np.isclose(widths[at - 1], 1e-6)
    usual = free[np.argmax(np.cumsum(free) > 4.0)]
    assert usual / 2 < widths[at] < 2 * usual


# ---- transformations


def pendulum(t, y, args):
    return jnp.stack([y[1], -args * jnp.sin(y[0])])


def swing(y0, args, t1):
    problem = jde.ODEProblem(pendulum, y0, (0.0, t1), args)
    sol = jde.solve(problem, jde.Tsit5(), saveat=[0.3 * t1, t1], rtol=1e-6, atol=1e-8)
    return sol.ys, sol.stats.steps, sol.result


def test_a_lane_of_a_vmap_is_the_single_solve():
    y0 = jnp.array([[0.1, 0.0], [2.0, 1.0], [3.0, -2.0]])
    args, t1 = jnp.array([1.0, 5.0, 0.3]), jnp.array([1.0, 20.0, 0.0])
    ys, steps, result = jax.vmap(swing)(y0, args, t1)
    single = jax.jit(swing)
    for i in range(3):
        one, count, code = single(y0[i], args[i], t1[i])
        np.testing.assert_allclose(ys[i], one, rtol=1e-9)
        assert steps[i] == count and result[i] == code == 0
    np.testing.assert_allclose(swing(y0[1], args[1], t1[1])[0], ys[1], rtol=1e-9)


def test_ints_in_args_are_part_of_the_program_and_floats_are_not():
    traces = []

    def f(t, y, args):
        n, rate = args
        traces.append(n)
        return -rate * jnp.sum(jnp.ones(n)) * y  # n is a shape

    for n, rate in ((3, 0.5), (3, 0.25), (3, 1 / 3), (2, 0.5)):
        sol = jde.solve(jde.ODEProblem(f, 1.0, (0.0, 1.0), (n, rate)), jde.Tsit5(), saveat=END, rtol=1e-8)
        np.testing.assert_allclose(sol.ys[-1], np.exp(-n * rate), rtol=1e-6)
    assert traces.count(3) <= 2 and traces.count(2) <= 2


def test_replacements_in_passing():
    problem = jde.ODEProblem(lambda t, y, p: -p * y, 1.0, (0.0, 1.0), 1.0)
    sol = jde.solve(problem, jde.Tsit5(), saveat=END, rtol=1e-8, args=2.0, y0=3.0, tspan=(0.0, 2.0))
    np.testing.assert_allclose(sol.ys[-1], 3 * np.exp(-4), rtol=1e-6)


# ---- exceptions of the user


class Mine(Exception):
    pass


def broken(t, y, args):
    raise Mine("no such thing")


def library_frames(error):
    frames = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    assert frames[-1] == __file__
    return sum("jaxdiffeq/" in name.replace("tests/", "") and not name.startswith(__file__) for name in frames)


@pytest.mark.parametrize("saveat", [None, END])
@pytest.mark.parametrize("where", ["f", "fn", "y0", "tspan"])
def test_an_exception_of_the_user_comes_out_as_it_is(where, saveat):
    problem = jde.ODEProblem(broken if where == "f" else decay, 1.0, (0.0, 1.0))
    if where == "fn":
        saveat = jde.SaveAt(steps=saveat is None, t1=True, fn=broken)
    if where in ("y0", "tspan"):
        problem = problem.replace(**{where: lambda *_: broken(0, 0, 0)})
    with pytest.raises(Mine, match="no such thing") as caught:
        jde.solve(problem, jde.Tsit5(), saveat=saveat)
    assert library_frames(caught.value) <= 4  # solve, what it shares with jumps, execute, and the call
    assert caught.value.__cause__ is None


def test_an_exception_comes_through_jit_and_nested_solves():
    def outer(t, y, args):
        return jde.solve(jde.ODEProblem(broken, y, (0.0, 1.0)), jde.Tsit5(), saveat=END).ys[-1]

    with pytest.raises(Mine, match="no such thing"):
        jax.jit(lambda y: run(y, f=outer).ys)(1.0)
