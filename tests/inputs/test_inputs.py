"""Inputs as functions, in comparison with SciPy and with closed forms, and what a solve makes of them."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.interpolate as reference

import jaxdiffeq as jde
from jaxdiffeq.inputs import CubicSpline, Input, PiecewiseConstant, PiecewiseLinear, Sampled, SquareWave
from jaxdiffeq.inputs.tables import LANDED_ON

END = jde.SaveAt(t1=True)
TIGHT = {"rtol": 1e-9, "atol": 1e-9, "saveat": END}
RNG = np.random.default_rng(3)
TS = np.cumsum(RNG.uniform(0.2, 1.0, 12))
VALUES = RNG.normal(size=(12, 2))
WITHIN = np.linspace(TS[0], TS[-1], 57)


def relax(t, y, u):
    return u(t) - y


def end(u, y0=0.0, span=(0.0, 3.0), f=relax, method=None, **options):
    """y(t₁) of y' = u(t) − y."""
    problem = jde.ODEProblem(f, jnp.atleast_1d(jnp.asarray(y0)), span, args=u)
    return jde.solve(problem, jde.Tsit5() if method is None else method, **{**TIGHT, **options}).ys[-1, 0]


# ---- values


@pytest.mark.parametrize("kind", ["natural", "not-a-knot", "akima"])
@pytest.mark.parametrize("n", [2, 3, 4, 12])
def test_splines_are_those_of_scipy(kind, n):
    ts, values, at = TS[:n], VALUES[:n], np.linspace(TS[0], TS[n - 1], 57)
    if kind == "akima":
        other = reference.Akima1DInterpolator(ts, values) if n > 2 else reference.interp1d(ts, values, axis=0)
    else:
        other = reference.CubicSpline(ts, values, bc_type=kind)
    np.testing.assert_allclose(CubicSpline(ts, values, kind)(at), other(at), rtol=1e-12, atol=1e-12)


def test_hermite_splines_have_the_slopes_given_or_those_of_parabolas():
    slopes = RNG.normal(size=VALUES.shape)
    other = reference.CubicHermiteSpline(TS, VALUES, slopes)
    np.testing.assert_allclose(CubicSpline(TS, VALUES, "hermite", slopes=slopes)(WITHIN), other(WITHIN), rtol=1e-12)
    parabola = CubicSpline(TS, TS**2 - 3 * TS, "hermite")
    np.testing.assert_allclose(parabola(WITHIN), WITHIN**2 - 3 * WITHIN, rtol=1e-11, atol=1e-11)


def test_piecewise_linear_and_constant_and_their_outside():
    at = np.concatenate([[TS[0] - 1], TS, WITHIN, [TS[-1] + 1]])
    line = lambda t: np.stack([np.interp(t, TS, v) for v in VALUES.T], axis=1)
    np.testing.assert_allclose(PiecewiseLinear(TS, VALUES)(at), line(at), rtol=1e-12, atol=1e-14)
    rows = np.clip(np.searchsorted(TS, at, side="right") - 1, 0, None)
    np.testing.assert_array_equal(PiecewiseConstant(TS, VALUES)(at), VALUES[rows])

    for u in (PiecewiseLinear(TS, VALUES, outside="nan"), CubicSpline(TS, VALUES, outside="nan")):
        assert np.isnan(u(at)).all(1).tolist() == [True, *[False for _ in at[2:]], True]
    assert np.isnan(PiecewiseConstant(TS, VALUES, outside="nan")(at)).all(1).tolist() == [
        True,
        *[False] * (len(at) - 1),
    ]
    beyond = PiecewiseLinear([0, 1, 3], [0, 2, 4], outside="extend")
    np.testing.assert_allclose(beyond(jnp.array([-1.0, 5.0])), [-2.0, 6.0])
    cubic = lambda t: t**3 - t
    whole = CubicSpline(TS, cubic(TS), "not-a-knot", outside="extend")
    np.testing.assert_allclose(whole(jnp.array([-1.0, 9.0])), [0.0, 720.0], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", ["linear", "constant", "cubic"])
@pytest.mark.parametrize("outside", ["hold", "nan"])
def test_a_sampled_table_is_that_of_its_times(kind, outside):
    dt, n = 0.25, 12  # exact, so that both see the same side of every time
    u = Sampled(-1.0, dt, VALUES, kind, outside=outside)
    ts = -1.0 + dt * np.arange(n)
    np.testing.assert_array_equal(u.ts, ts)
    at = np.concatenate([[-1.5], ts, np.linspace(-1, ts[-1], 41), [3.5]])
    if kind == "constant":
        expected = VALUES[np.clip(np.searchsorted(ts, at, side="right") - 1, 0, None)]
        if outside == "nan":  # the last value is held
            expected = np.where(at >= -1, expected.T, np.nan).T
    else:
        table = PiecewiseLinear if kind == "linear" else functools.partial(CubicSpline, kind="hermite")
        expected = table(ts, VALUES, outside=outside)(at)
    np.testing.assert_allclose(u(at), expected, rtol=1e-12, atol=1e-13)
    landing = Sampled(-1.0, dt, VALUES, kind, outside=outside, land=True).prepared(0.0, 1.0).taken
    np.testing.assert_allclose(landing(at), expected, rtol=1e-12, atol=1e-13)


def test_a_square_wave():
    u = SquareWave(2.0, 0.25, low=-1.0, high=3.0, phase=0.5)
    at = np.array([-1.6, -1.5, -1.1, -1.0, 0.4, 0.5, 0.9, 1.0, 2.4, 2.5])
    expected = [-1, 3, 3, -1, -1, 3, 3, -1, -1, 3]
    np.testing.assert_array_equal(u(at), expected)
    taken, edges, _, complete = u.prepared(np.asarray(2.6), np.asarray(-1.7))
    np.testing.assert_array_equal(taken(at), expected)
    assert complete is True and np.isin([-1.5, -1.0, 0.5, 1.0, 2.5], edges).all()


@pytest.mark.parametrize("make", [PiecewiseConstant, PiecewiseLinear, CubicSpline])
def test_values_of_any_shape_and_kind(make):
    rows = RNG.normal(size=(12, 2, 3)) + 1j * RNG.normal(size=(12, 2, 3))
    tree = {"wind": rows, "rain": VALUES[:, 0].astype(np.float32)}
    u = make(TS, tree)
    found = u(jnp.asarray(3.1, jnp.float32))
    assert found["wind"].dtype == complex and found["wind"].shape == (2, 3) and found["rain"].dtype == np.float32
    for part in (np.real, np.imag):
        alone = make(TS, part(rows))(jnp.asarray(3.1, jnp.float32))
        np.testing.assert_allclose(part(found["wind"]), alone, rtol=1e-12)
    np.testing.assert_allclose(make([0, 1, 2], [1, 2, 3])(1), 2.0)
    assert u(np.zeros((4, 5)))["wind"].shape == (4, 5, 2, 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PiecewiseLinear([0, 2, 1], [1, 2, 3]), r"must increase, but ts\[2\] = 1.0 follows ts\[1\] = 2.0"),
        (lambda: PiecewiseLinear([0, 1, 1], [1, 2, 3]), r"follows ts\[1\] = 1.0 in float64. Sort them; two values"),
        (lambda: PiecewiseLinear(np.array([1, 1 + 1e-9], np.float32), [1, 2]), "in float32"),
        (lambda: PiecewiseConstant([0, np.nan], [1, 2]), r"finite numbers, but ts\[1\] = nan"),
        (lambda: PiecewiseConstant([0, 1, 2], [1, 2]), "3 times and 2 rows of values. What holds from the last time"),
        (lambda: PiecewiseConstant([0, 1], {"a": [1, 2], "b": [1, 2, 3]}), r"`values\['b'\]` has shape \(3,\)"),
        (lambda: PiecewiseConstant([[0, 1]], [1, 2]), "takes a list of times"),
        (lambda: PiecewiseLinear([0], [1]), "needs 2 rows of values at least, but has 1"),
        (lambda: PiecewiseLinear([0, 1], 1.0), r"`values` has shape \(\)"),
        (lambda: CubicSpline([0, 1], [1, 2], "cubic"), "`kind` must be one of 'natural', 'not-a-knot'"),
        (lambda: CubicSpline([0, 1], [1, 2], slopes=[1, 2]), "`?slopes`? are given to CubicSpline"),
        (lambda: CubicSpline([0, 1], [1, 2], "hermite", slopes=[1]), r"shaped like `values`, \(2,\), but are \(1,\)"),
        (lambda: PiecewiseLinear([0, 1], [1, 2], outside="wrap"), "`outside` must be one of"),
        (lambda: PiecewiseConstant([0, 1], [1, 2], outside="extend"), "`outside` must be one of 'hold', 'nan'"),
        (lambda: Sampled(0.0, -1.0, [1.0, 2.0]), "`dt` must be a positive number"),
        (lambda: Sampled(0, 1.0, [1, 2], "spline"), "`kind` must be one of"),
        (lambda: SquareWave(0.0), "`period` must be a positive number"),
        (lambda: SquareWave(1.0, 1.5), "`duty` must be a number between 0 and 1, but is 1.5"),
        (lambda: SquareWave(1.0, count=0), "`count` must be a positive integer"),
        (lambda: end(SquareWave(1e-7)), "holds 3e\\+07 periods of a SquareWave, more than a quarter of a million"),
        (lambda: end(SquareWave(0.1, count=4)), "holds 30 periods of a SquareWave, more than `count` = 4"),
        (lambda: jax.jit(lambda p: end(SquareWave(p)))(1.0), r"Give `SquareWave\(…, count=n\)`"),
    ],
)
def test_what_is_wrong_is_said(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ---- where a solve lands


def near(times, ts):
    """Whether each of the times is one of `ts`, up to rounding."""
    return bool((np.abs(np.asarray(ts) - np.asarray(times)[:, None]).min(axis=1) < 1e-14).all())


def landed_on(u, times, **options):
    sol = jde.solve(jde.ODEProblem(relax, jnp.zeros(1), (0.0, 3.0), args=u), jde.Tsit5(), rtol=1e-2, **options)
    return near(times, sol.ts)


def test_who_is_landed_on():
    few, many = np.linspace(0.1, 2.9, 7), np.linspace(0.1, 2.9, LANDED_ON + 1)
    edges = [0.3, 0.65, 1.0, 1.35, 2.4, 2.75]
    assert landed_on(PiecewiseConstant(few, few), few)
    assert landed_on(PiecewiseConstant(many, many), many)
    assert not landed_on(PiecewiseConstant(few, few, land=False), few)
    for make in (PiecewiseLinear, CubicSpline):
        assert landed_on(make(few, few), few)
        assert not landed_on(make(few, few, land=False), few)
        assert not landed_on(make(many, many), many)
    assert landed_on(PiecewiseLinear(many, many, land=True), many)
    u = Sampled(few[0], few[1] - few[0], few)
    assert not landed_on(u, u.ts)
    u = Sampled(few[0], few[1] - few[0], few, land=True)
    assert landed_on(u, u.ts)
    assert landed_on(SquareWave(0.7, phase=0.3), edges)
    assert not landed_on(SquareWave(0.7, phase=0.3, land=False), edges)


class Model(eqx.Module):
    rate: jax.Array
    u: Input

    def __call__(self, t, y, args):
        return self.rate * self.u(t) * y


def test_inputs_are_found_wherever_they_are():
    """In a pytree of args, in what f is, and next to stops that are given."""
    u, times = PiecewiseConstant([0.0, 0.7], [1.0, -2.0]), np.array([0.7, 1.1, 1.9])
    wave = SquareWave(0.8, phase=1.1)
    args = {"a": (1.0, [u]), "b": {"wave": wave}}
    f = lambda t, y, args: args["a"][0] * args["a"][1][0](t) + args["b"]["wave"](t) - y
    assert near(times, jde.solve(jde.ODEProblem(f, jnp.zeros(1), (0.0, 3.0), args=args)).ts)

    problem = jde.ODEProblem(Model(jnp.ones(()), u), jnp.ones(1), (0.0, 3.0))
    sol = jde.solve(problem, jde.Tsit5(), stops=[2.2], rtol=1e-9, atol=1e-9)
    assert np.isin([0.7, 2.2], sol.ts).all()
    np.testing.assert_allclose(sol.ys[-1], np.exp(0.7 - 2 * 2.3), rtol=1e-7)
    integrator = jde.Integrator(problem, jde.Tsit5())
    state = integrator.init()
    ts = []
    while state.result == jde.Result.running:
        state = integrator.step(state)
        ts.append(float(state.t))
    assert 0.7 in ts
    assert 0.7 in jde.trace(problem, jde.Tsit5()).t


def test_breakpoints_that_all_but_coincide():
    """0.1 + 0.2 and 0.3 are an ulp apart."""
    one, other = PiecewiseConstant([0.0, 0.3], [0.0, 1.0]), PiecewiseConstant([0.0, 0.1 + 0.2], [0.0, 1.0])
    assert one.ts[1] != other.ts[1]
    for method in (jde.Tsit5(), jde.BDF()):
        f = lambda t, y, args: args[0](t) + args[1](t) + 0 * y
        np.testing.assert_allclose(end((one, other), f=f, span=(0.0, 1.0), method=method), 1.4, rtol=1e-12)


def test_a_long_table_takes_few_steps():
    ts = np.linspace(0, 3, 100_001)
    for u in (Sampled(0.0, 3e-5, np.sin(ts)), PiecewiseLinear(ts, np.sin(ts)), CubicSpline(ts, np.sin(ts), "hermite")):
        sol = jde.solve(jde.ODEProblem(relax, jnp.zeros(1), (0.0, 3.0), args=u), jde.Tsit5(), **TIGHT)
        assert sol.stats.accepted < 500
        exact = (np.sin(3) - np.cos(3) + np.exp(-3)) / 2
        np.testing.assert_allclose(sol.ys[-1], exact, rtol=1e-7)


# ---- order, across a wave

WAVE = SquareWave(1.0, 0.3, low=-0.5, high=1.5, phase=0.2)


def driven(t, y, u):
    return y * jnp.cos(t) * u(t)


def driven_truth(t0, t1):
    edges = np.sort(np.concatenate([0.2 + np.arange(-1.0, 5), 0.5 + np.arange(-1.0, 5), [t0, t1]]))
    edges = edges[(edges >= min(t0, t1)) & (edges <= max(t0, t1))]
    levels = np.where((edges[:-1] + edges[1:]) / 2 % 1 - 0.2 < 0.3, 1.5, -0.5)
    levels = np.where((edges[:-1] + edges[1:]) / 2 % 1 < 0.2, -0.5, levels)
    return np.exp(np.sign(t1 - t0) * np.sum(levels * np.diff(np.sin(edges))))


EQUAL = (jde.RK4(), jde.Tsit5(), jde.Rodas5P(), jde.KenCarp4(), jde.RadauIIA5(), jde.Gauss4())
CHOOSING = (jde.Vern7(), jde.BDF(), jde.Adams(), jde.AutoTsit5(), jde.AutoTsit5(jde.Rodas5P()))


@pytest.mark.parametrize("method", EQUAL, ids=lambda m: m.name)
@pytest.mark.parametrize("span", [(0.0, 3.0), (3.2, 0.2)])  # both ends of the latter are jumps
def test_order_across_a_square_wave(method, span):
    problem = jde.ODEProblem(driven, jnp.ones(1), span, args=WAVE)

    def errors(u, sizes):
        solved = [jde.solve(problem, method, args=u, saveat=END, controller=jde.FixedSteps(dt=h)) for h in sizes]
        return np.abs([float(sol.ys[-1, 0]) - driven_truth(*span) for sol in solved])

    kept = errors(WAVE, (0.1, 0.05, 0.025))
    assert np.log2(kept[0] / kept[2]) / 2 > method.order - 0.4, kept
    lost = errors(
        eqx.tree_at(lambda u: u.phase, SquareWave(1.0, 0.3, -0.5, 1.5, land=False), jnp.array(0.2)), (0.0251,)
    )
    assert lost[0] > 1e3 * kept[2]


@pytest.mark.parametrize("method", CHOOSING, ids=lambda m: m.name)
def test_tolerances_hold_across_a_square_wave(method):
    problem = jde.ODEProblem(driven, jnp.ones(1), (0.0, 3.0), args=WAVE)
    for tol in (1e-4, 1e-6, 1e-8):
        sol = jde.solve(problem, method, saveat=END, rtol=tol, atol=tol)
        np.testing.assert_allclose(sol.ys[-1], driven_truth(0.0, 3.0), rtol=100 * tol)
    blind = jde.solve(problem, method, args=SquareWave(1.0, 0.3, -0.5, 1.5, 0.2, land=False), rtol=tol, atol=tol)
    assert sol.stats.rejected_error < 0.5 * blind.stats.rejected_error


@pytest.mark.parametrize("method", [jde.SBDF2(), jde.SBDF3(), jde.KenCarp4()], ids=lambda m: m.name)
def test_order_of_split_problems_across_a_square_wave(method):
    stiff, wave = lambda t, y, u: -y, lambda t, y, u: u(t) * jnp.ones_like(y)
    problem = jde.SplitODEProblem(stiff, wave, jnp.ones(1), (0.0, 3.0), WAVE)
    exact = end(WAVE, 1.0, rtol=1e-12, atol=1e-12)
    solved = [jde.solve(problem, method, saveat=END, controller=jde.FixedSteps(dt=h)) for h in (0.02, 0.01, 0.005)]
    errors = np.abs([float(sol.ys[-1, 0] - exact) for sol in solved])
    assert np.log2(errors[0] / errors[2]) / 2 > method.order - 0.4, errors


def test_equal_steps_without_a_landing_are_a_scan():
    problem = jde.ODEProblem(relax, jnp.zeros(1), (0.0, 3.0))
    free, landing = (
        jde.solve(problem, jde.RK4(), args=SquareWave(0.7, land=land), controller=jde.FixedSteps(12))
        for land in (False, True)
    )
    assert free.stats.accepted == 12
    np.testing.assert_array_equal(free.ts, np.linspace(0, 3, 13))
    assert landing.stats.accepted > 16 and near([0.35], landing.ts)


@pytest.mark.parametrize(
    ("method", "residual", "span"),
    [
        (jde.RadauIIA5(), False, (0.0, 1.8)),
        (jde.BDF(), True, (1.0, 1.8)),
        (jde.Rodas5P(), False, (2.0, 0.5)),
    ],
    ids=str,
)
def test_algebraic_components_jump_with_an_input(method, residual, span):
    """z = 2u + y, from the side on which the solve lies, which at t₀ is that of what follows."""
    u = jde.inputs.PiecewiseConstant(jnp.array([0.0, 1.0, 2.0]), jnp.array([2.0, 5.0, 3.0]))
    f = lambda t, y, u: jnp.stack([u(t) - y[0], y[1] - 2 * u(t) - y[0]])
    mass = jnp.array([1.0, 0.0])
    if residual:
        balance = lambda t, y, dy, u: mass * dy - f(t, y, u)
        problem = jde.DAEProblem(balance, jnp.zeros(2), jnp.zeros(2), span, u)
    else:
        problem = jde.ODEProblem(f, jnp.zeros(2), span, u, mass_matrix=mass)
    near = 1e-9 if span[0] < span[1] else -1e-9
    inside = [t for t in (1 - near, 1 + near) if min(span) <= t <= max(span)]
    sol = jde.solve(problem, method, saveat=[span[0], *inside, span[1]], rtol=1e-8, atol=1e-8)
    sides = {(0.0, 1.8): [4.0, 4.0, 10.0, 10.0], (1.0, 1.8): [10.0, 10.0, 10.0], (2.0, 0.5): [10.0, 10.0, 4.0, 4.0]}
    np.testing.assert_allclose(sol.ys[:, 1] - sol.ys[:, 0], sides[span], rtol=1e-7)
    if span[0] == 0:
        np.testing.assert_allclose(sol.ys[-1, 0], 5 + (-3 - 2 * np.exp(-1)) * np.exp(-0.8), rtol=1e-7)
