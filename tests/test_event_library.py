"""Doses, projections, domains, limits of steps and an end at rest, against closed forms."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiffeq as jde

TIGHT: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-10}
TS = jnp.array([0.0, 1.0, 2.5, 6.0, 10.0])
ONE = jde.ODEProblem(lambda t, y, args: -args * y, jnp.zeros(1), (0.0, 10.0), 0.4)


def course(s, amount, duration, k):
    """One compartment, s after a dose began: at once, or at a constant rate."""
    rate = amount / jnp.where(duration > 0, duration, 1)
    filling = -jnp.expm1(-k * jnp.clip(s, 0, duration)) * rate / k
    after = jnp.where(duration > 0, filling, amount) * jnp.exp(-k * jnp.maximum(s - duration, 0))
    return jnp.where(s >= 0, after, 0.0)


def superposed(times, amounts, duration, available, lag, k, ts=TS):
    one = lambda t, a, d: course(ts - t - lag, available * a, d, k)
    return jnp.sum(jax.vmap(one)(times, amounts, duration), 0)


def dosed(doses, k=0.4, problem=ONE, method=None, **options):
    method = jde.Tsit5() if method is None else method
    return jde.solve(problem, method, args=k, events=doses, saveat=TS, **(TIGHT | options)).ys[:, 0]


# ---- doses

TIMES, AMOUNTS = jnp.array([0.5, 2.0, 2.5]), jnp.array([3.0, 2.0, 1.5])
DURATIONS = jnp.array([0.0, 1.5, 4.0])


@pytest.mark.parametrize("strategy", [jde.ReverseAD(), jde.ForwardAD()], ids=str)
def test_doses_superpose_and_have_derivatives_in_every_number(strategy):
    """At once and over a time, overlapping, one of them at a time that is saved at."""

    def numbers(x):
        return x["times"], x["amounts"], jnp.append(0.0, x["duration"]), x["available"], x["lag"]

    def found(x):
        times, amounts, duration, available, lag = numbers(x)
        doses = jde.Doses(times, amounts, 0, duration, bioavailability=available, lag=lag)
        return dosed(doses, x["k"], gradient=strategy)

    x = {"times": TIMES, "amounts": AMOUNTS, "duration": DURATIONS[1:], "available": 0.8, "lag": 0.1, "k": 0.4}
    x = jax.tree.map(jnp.asarray, x)
    true = lambda x: superposed(*numbers(x), x["k"])
    np.testing.assert_allclose(found(x), true(x), rtol=1e-9)
    jacobian = jax.jacrev if isinstance(strategy, jde.ReverseAD) else jax.jacfwd
    slopes, expected = jax.jit(jacobian(found))(x), jax.jacobian(true)(x)
    for name, slope in slopes.items():
        np.testing.assert_allclose(slope, expected[name], rtol=1e-7, atol=1e-8, err_msg=name)


def test_infusions_that_follow_each_other_each_have_their_own_derivatives():
    """One ends where the next begins: two times that are one, and at t₀ too."""

    def found(x):
        return dosed(jde.Doses(x[:3], x[3:6], 0, x[6:]))

    true = lambda x: superposed(x[:3], x[3:6], x[6:], 1.0, 0.0, 0.4)
    x = jnp.array([0.0, 1.0, 2.0, 3.0, 1.0, 2.0, 1.0, 1.0, 1.5])
    np.testing.assert_allclose(found(x), true(x), rtol=1e-9)
    away = jnp.array([2, 3, 4])  # at 1.0 itself the closed form has a kink
    slopes, expected = jax.jit(jax.jacrev(found))(x), jax.jacfwd(true)(x)
    np.testing.assert_allclose(slopes[away], expected[away], rtol=1e-7, atol=1e-8)


def test_doses_at_one_time_each_have_their_own_derivatives():
    """Two at once, and an infusion that begins with them."""

    def found(x):
        return dosed(jde.Doses(x[:3], x[3:6], 0, jnp.stack([0.0, 0.0, x[6]])))

    true = lambda x: superposed(x[:3], x[3:6], jnp.stack([0.0, 0.0, x[6]]), 1.0, 0.0, 0.4)
    x = jnp.array([0.7, 0.7, 0.7, 3.0, 1.0, 2.0, 1.5])
    np.testing.assert_allclose(jax.jit(jax.jacrev(found))(x), jax.jacfwd(true)(x), rtol=1e-7, atol=1e-8)


def test_doses_at_the_start_have_derivatives_for_later_ones():
    """Of two that are given there and their lag, by a mixed event too."""

    def found(x):
        events = [jde.Doses(x[:2], x[2:4], 0, lag=x[4]), jde.PresetTimes(x[5], lambda t, y, args: y + 2.0 + t)]
        return dosed(events)[1:]

    def true(x):
        own = jnp.append(x[:2] + x[4], x[5])
        return superposed(own, jnp.append(x[2:4], 2.0 + x[5]), jnp.zeros(3), 1.0, 0.0, 0.4, TS[1:])

    x = jnp.array([0.0, 0.0, 3.0, 1.0, 0.0, 0.0])
    np.testing.assert_allclose(found(x), true(x), rtol=1e-9)
    np.testing.assert_allclose(jax.jit(jax.jacrev(found))(x), jax.jacfwd(true)(x), rtol=1e-7, atol=1e-8)


def test_an_infusion_that_began_before_is_in_its_course():
    doses = jde.Doses(-1.0, 4.0, 0, duration=3.0)
    expected = 4 / 3 / 0.4 * (1 - np.exp(-0.4 * 2.0)) * np.exp(-0.4 * (TS - 2.0))
    np.testing.assert_allclose(dosed(doses)[2:], expected[2:], rtol=1e-9)


@pytest.mark.parametrize("method", [jde.Rodas5P(), jde.BDF(), jde.Auto(jde.Tsit5(), jde.BDF())], ids=str)
def test_every_kind_of_method_is_infused(method):
    doses = jde.Doses(TIMES, AMOUNTS, 0, DURATIONS)
    expected = superposed(TIMES, AMOUNTS, DURATIONS, 1.0, 0.0, 0.4)
    np.testing.assert_allclose(dosed(doses, method=method, rtol=1e-8, atol=1e-8), expected, rtol=2e-6, atol=1e-9)


@pytest.mark.parametrize("kind", ["mass", "varying mass", "residual", "split"])
def test_every_kind_of_problem_is_infused(kind):
    """With an algebraic component, twice the first; the split problem has none."""
    f = lambda t, y, args: jnp.stack([-2 * args * y[0], y[1] - 2 * y[0]])
    matrix = jnp.diag(jnp.array([2.0, 0.0]))
    residual = lambda t, y, dy, args: matrix @ dy - f(t, y, args)
    y0, span = jnp.zeros(2), (0.0, 10.0)
    parts = [lambda t, y, args, c=c: -c * args * y for c in (0.7, 0.3)]
    problem = {
        "mass": lambda: jde.ODEProblem(f, y0, span, 0.4, mass_matrix=matrix),
        "varying mass": lambda: jde.ODEProblem(f, y0, span, 0.4, mass_matrix=lambda t, y, args: matrix),
        "residual": lambda: jde.DAEProblem(residual, y0, jnp.zeros(2), span, 0.4),
        "split": lambda: jde.SplitODEProblem(parts[0], parts[1], y0[:1], span, 0.4),
    }[kind]()
    doses = jde.Doses(TIMES, AMOUNTS, 0, DURATIONS)
    method = jde.KenCarp4() if kind == "split" else jde.BDF() if kind == "residual" else jde.RadauIIA5()
    sol = jde.solve(problem, method, events=doses, saveat=TS, rtol=1e-7, atol=1e-9)
    expected = superposed(TIMES, AMOUNTS, DURATIONS, 1.0, 0.0, 0.4)
    np.testing.assert_allclose(sol.ys[:, 0], expected, rtol=1e-5, atol=1e-8)
    if kind != "split":
        np.testing.assert_allclose(sol.ys[:, 1], 2 * expected, rtol=1e-5, atol=1e-8)


def test_repeated_oral_doses_of_patients_in_lanes():
    """Gut and blood; each patient has a schedule, a lag and rates of their own."""

    def f(t, y, args):
        absorbed = args["ka"] * y["gut"]
        return {"gut": -absorbed, "blood": absorbed - args["k"] * y["blood"]}

    def found(amount, lag, ka, every):
        doses = jde.Doses(0.0, amount, "gut", every=every, count=4, lag=lag)
        args = {"ka": ka, "k": jnp.asarray(0.3)}
        problem = jde.ODEProblem(f, {"gut": jnp.zeros(()), "blood": jnp.zeros(())}, (0.0, 10.0), args)
        return jde.solve(problem, jde.Tsit5(), events=doses, saveat=TS, **TIGHT).ys["blood"]

    def true(amount, lag, ka, every):
        s = TS[None] - lag - every * jnp.arange(4.0)[:, None]
        one = amount * ka / (ka - 0.3) * (jnp.exp(-0.3 * s) - jnp.exp(-ka * s))
        return jnp.sum(jnp.where(s >= 0, one, 0), 0)

    patients = (
        jnp.array([1.0, 3.0, 2.0]),
        jnp.array([0.0, 0.3, 0.7]),
        jnp.array([1.0, 1.5, 0.8]),
        jnp.array([2.0, 1.7, 2.1]),
    )
    np.testing.assert_allclose(jax.vmap(found)(*patients), jax.vmap(true)(*patients), rtol=1e-8, atol=1e-9)
    some = jax.tree.map(lambda x: x[1:], patients)
    slope = lambda f: jax.vmap(jax.grad(lambda *x: jnp.sum(f(*x)), range(4)))(*some)
    for found_slope, expected in zip(slope(found), slope(true), strict=True):
        np.testing.assert_allclose(found_slope, expected, rtol=1e-7)


class Body(NamedTuple):
    gut: jax.Array
    rest: dict


class Module(eqx.Module):
    gut: jax.Array


@pytest.mark.parametrize(
    ("y0", "into", "get"),
    [
        (jnp.zeros((2, 3)), (1, 2), lambda y: y[:, 1, 2]),
        (Body(jnp.zeros(()), {"a": jnp.zeros(2)}), ("rest", "a", -1), lambda y: y.rest["a"][:, 1]),
        (Body(jnp.zeros(()), {"a": jnp.zeros(2)}), "gut", lambda y: y.gut),
        ((jnp.zeros(2), [jnp.zeros(1)]), (1, 0, 0), lambda y: y[1][0][:, 0]),
        (Module(jnp.zeros(())), "gut", lambda y: y.gut),
        (jnp.zeros(2), lambda y, amount: y + amount * jnp.array([0.25, 0.75]), lambda y: y[:, 1] / 0.75),
    ],
    ids=["array", "in a dictionary", "attribute", "in a list", "module", "function"],
)
def test_where_doses_go(y0, into, get):
    problem = jde.ODEProblem(lambda t, y, args: jax.tree.map(lambda x: -0.4 * x, y), y0, (0.0, 10.0))
    sol = jde.solve(problem, jde.Tsit5(), events=jde.Doses(TIMES, AMOUNTS, into, DURATIONS), saveat=TS, **TIGHT)
    np.testing.assert_allclose(get(sol.ys), superposed(TIMES, AMOUNTS, DURATIONS, 1.0, 0.0, 0.4), rtol=1e-9)
    total = sum(jnp.sum(jnp.abs(x[-1])) for x in jax.tree.leaves(sol.ys))
    np.testing.assert_allclose(total, get(sol.ys)[-1], rtol=1e-9)


def test_doses_are_logged_if_asked():
    doses = jde.Doses(jnp.array([1.0, 3.0]), 2.0, 0, duration=jnp.array([0.0, 1.0]), counts=True)
    log = jde.solve(ONE, jde.Tsit5(), events=doses, saveat=TS, max_events=5).events
    assert log is not None
    np.testing.assert_array_equal(log.ts[:3], [1.0, 3.0, 4.0])
    np.testing.assert_allclose(log.after[:3, 0] - log.before[:3, 0], [2.0, 0.0, 0.0])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: jde.Doses([1.0, 2.0], [1.0, 2.0, 3.0], 0), ValueError, r"amounts \(3,\)"),
        (lambda: jde.Doses([1.0, 2.0], 1.0, 0, every=1.0), ValueError, "go together"),
        (lambda: jde.Doses([1.0, 2.0], 1.0, 0, every=0.0, count=2), ValueError, "`every` must be a positive"),
        (lambda: jde.Doses(1.0, 1.0, 0.5), TypeError, "`into` must be"),
        (lambda: dosed(jde.Doses(1.0, 1.0, 1)), ValueError, r"no place in an array of shape \(1,\)"),
        (lambda: dosed(jde.Doses(1.0, 1.0, "gut")), ValueError, "no place in an array"),
        (lambda: jde.solve(ONE, tspan=(1.0, 0.0), events=jde.Doses(0.5, 1.0, 0)), ValueError, "forwards"),
    ],
)
def test_wrong_doses_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


# ---- doses that have always been given


def always(times, amounts, duration, rest):
    """One compartment; of what was given sixty intervals ago e^(−70) is left."""
    available, lag, every, k = rest
    earlier = every * jnp.arange(-60.0, 4.0)
    same = lambda x: jnp.broadcast_to(x, 64)
    series = lambda t, a, d: superposed(t + earlier, same(a), same(d), available, lag, k)
    return sum(series(*x) for x in zip(times, amounts, duration, strict=True))


def test_doses_that_have_always_been_given():
    """At once, and over most of an interval, with derivatives in every number."""

    def found(x):
        given = {"bioavailability": x["available"], "lag": x["lag"], "steady_state": True}
        doses = jde.Doses(x["times"], x["amounts"], 0, jnp.append(0.0, x["duration"]), x["every"], 4, **given)
        ys = dosed(doses, x["k"])
        return ys, ys

    def true(x):
        lasts = jnp.append(0.0, x["duration"])
        return always(x["times"], x["amounts"], lasts, (x["available"], x["lag"], x["every"], x["k"]))

    x = {"times": jnp.array([0.5, 2.0]), "amounts": jnp.array([3.0, 2.0]), "available": 0.8, "lag": 0.1, "k": 0.4}
    x = jax.tree.map(jnp.asarray, x | {"every": 3.0, "duration": 2.5})
    slopes, values = jax.jit(jax.jacrev(found, has_aux=True))(x)
    np.testing.assert_allclose(values, true(x), rtol=1e-9)
    for name, expected in jax.jacobian(true)(x).items():
        np.testing.assert_allclose(slopes[name], expected, rtol=1e-7, atol=1e-8, err_msg=name)


def test_accumulation_has_its_closed_form():
    """1/(1 − e^(−kτ)) of a dose just after it; an infusion that lasts for more than two intervals; NaN if nobody can
    know that it does."""
    peak = 2.0 / -np.expm1(-0.4 * 3.0)
    once = jde.Doses(0.0, 2.0, 0, every=3.0, count=5, steady_state=True)
    np.testing.assert_allclose(dosed(once)[0], peak, rtol=1e-9)
    np.testing.assert_allclose(dosed(once, method=jde.BDF(), rtol=1e-8)[0], peak, rtol=1e-6)
    infused = lambda lasts: jde.Doses(0.5, 2.0, 0, lasts, 3.0, 4, steady_state=True)
    expected = always(jnp.array([0.5]), jnp.array([2.0]), jnp.array([7.0]), (1.0, 0.0, 3.0, 0.4))
    np.testing.assert_allclose(dosed(infused(7.0)), expected, rtol=1e-9)
    assert jnp.any(jnp.isnan(jax.jit(infused)(7.0).rates)) and jnp.all(jnp.isfinite(jax.jit(infused)(3.0).rates))


SATURATED = jde.ODEProblem(lambda t, y, args: -args["v"] * y / (args["k"] + y), jnp.zeros(1), (0.0, 5.0))


def test_doses_that_have_always_been_given_of_patients_in_lanes():
    """Of y′ = −v·y/(k + y), for which ln y + y/k falls by v/k: before a dose y = dose/(e^((v·τ − dose)/k) − 1). Of one
    patient hardly less comes than goes."""

    def found(v, dose, every):
        doses = jde.Doses(0.0, dose, 0, every=every, count=2, steady_state=True)
        args = {"v": v, "k": jnp.asarray(1.0)}
        return jde.solve(SATURATED, jde.Tsit5(), args=args, events=doses, saveat=jde.SaveAt(ts=[0.0]), **TIGHT).ys[0, 0]

    true = lambda v, dose, every: dose + dose / jnp.expm1(v * every - dose)
    x = jnp.array([2.0, 1.0, 3.0]), jnp.array([5.9, 0.5, 4.0]), jnp.array([3.0, 2.0, 2.0])
    value = lambda f: jax.jit(jax.vmap(jax.value_and_grad(f, (0, 1, 2))))(*x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), value(found), value(true))


@pytest.mark.parametrize(
    ("doses", "error", "message"),
    [
        ([jde.Doses(0.0, 6.1, 0, every=3.0, count=2, steady_state=True)], jde.SolveError, "comes again after each"),
        ([jde.Doses(3.0, 1.0, 0, every=3.0, count=2, steady_state=True)], ValueError, "first of `times`"),
        ([jde.Doses(0.0, 1.0, 0, every=x, count=2, steady_state=True) for x in (1.0, 2.0)], ValueError, "same `every`"),
    ],
)
def test_wrong_doses_that_have_always_been_given(doses, error, message):
    with pytest.raises(error, match=message):
        jde.solve(SATURATED, jde.Tsit5(), args={"v": 2.0, "k": 1.0}, events=doses)
    with pytest.raises(ValueError, match="needs `every`"):
        jde.Doses(0.0, 1.0, 0, steady_state=True)


# ---- manifolds

ELLIPSE = jde.ODEProblem(
    lambda t, y, args: jnp.stack(
        [y[2], y[3], -y[0] / (y[0] ** 2 + y[1] ** 2) ** 1.5, -y[1] / (y[0] ** 2 + y[1] ** 2) ** 1.5]
    ),
    jnp.array([0.6, 0.0, 0.0, jnp.sqrt(7 / 3)]),
    (0.0, 2 * jnp.pi),
)


def invariants(t, y, args):
    """Energy and angular momentum of a Kepler orbit of eccentricity 0.4."""
    x, v = y[:2], y[2:]
    return {
        "energy": jnp.sum(v * v) / 2 - 1 / jnp.sqrt(jnp.sum(x * x)) + 0.5,
        "spin": x[0] * v[1] - x[1] * v[0] - jnp.sqrt(0.84),
    }


KEPT = jde.ManifoldProjection(invariants)


@pytest.mark.parametrize(("method", "order"), [(jde.RK4(), 4), (jde.Tsit5(), 5)], ids=["RK4", "Tsit5"])
def test_invariants_are_kept_and_the_order_too(method, order):
    def error(n):
        sol = jde.solve(ELLIPSE, method, events=KEPT, controller=jde.FixedSteps(n), saveat=jde.SaveAt(t1=True))
        left = jnp.stack(jax.tree.leaves(invariants(0.0, sol.ys[0], None)))
        np.testing.assert_allclose(left, 0, atol=4e-15)
        assert int(sol.stats.accepted) == n and int(sol.stats.events) == 0
        return float(jnp.linalg.norm(sol.ys[0] - ELLIPSE.y0))

    coarse, fine = error(160), error(320)
    assert order - 0.3 < np.log2(coarse / fine) < order + 1.3, (coarse, fine)


def test_projections_leave_the_step_sizes_to_the_controller():
    plain = jde.solve(ELLIPSE, jde.Tsit5(), rtol=1e-6, atol=1e-9)
    kept = jde.solve(ELLIPSE, jde.Tsit5(), events=KEPT, rtol=1e-6, atol=1e-9)
    assert abs(int(kept.stats.steps) - int(plain.stats.steps)) <= 3
    np.testing.assert_allclose(np.diff(kept.ts), np.diff(plain.ts)[: len(kept.ts) - 1], rtol=0.2)


@pytest.mark.parametrize("strategy", [jde.ReverseAD(), jde.ForwardAD()], ids=str)
def test_a_projection_has_derivatives(strategy):
    """The radius of a circle that the projection alone sets: y ↦ p·y/|y| after each step."""
    circle = jde.ManifoldProjection(lambda t, y, args: jnp.sum(y * y) - args**2, iterations=6)
    problem = jde.ODEProblem(lambda t, y, args: jnp.stack([-y[1], y[0]]), jnp.array([1.0, 0.0]), (0.0, 1.0), 1.1)
    end = lambda p: jde.solve(
        problem, jde.Tsit5(), args=p, events=circle, saveat=jde.SaveAt(t1=True), gradient=strategy, **TIGHT
    ).ys[0]
    value, slope = end(1.1), jax.jacfwd(end)(1.1) if isinstance(strategy, jde.ForwardAD) else jax.jacrev(end)(1.1)
    np.testing.assert_allclose(value, 1.1 * np.array([np.cos(1.0), np.sin(1.0)]), rtol=1e-9)
    np.testing.assert_allclose(slope, [np.cos(1.0), np.sin(1.0)], rtol=1e-8)


# ---- domains

ROOT = jde.ODEProblem(lambda t, y, args: -jnp.sqrt(y), jnp.array([1.0]), (0.0, 1.9))
"""y = (1 − t/2)², whose right-hand side is NaN below zero."""


def robertson(t, y, args):
    a, b, c = 0.04 * y[0], 1e4 * y[1] * y[2], 3e7 * y[1] ** 2
    return jnp.stack([-a + b, a - b - c, c])


@pytest.mark.parametrize("method", [jde.TRBDF2(), jde.BDF()], ids=str)
def test_robertson_stays_positive_with_a_loose_tolerance(method):
    """Left alone, y₁ goes below zero, where atol lets it, and with TRBDF2 runs away to −10⁹."""
    problem = jde.ODEProblem(robertson, jnp.array([1.0, 0.0, 0.0]), (0.0, 1e5))
    loose: dict[str, Any] = {"rtol": 1e-2, "atol": 1e-2}
    free = jde.solve(problem, method, **loose, throw=False)
    assert float(jnp.nanmin(free.ys)) < 0, "nothing to guard against"
    sol = jde.solve(problem, method, events=jde.PositiveDomain(), **loose)
    assert float(jnp.min(sol.ys)) >= 0 and int(sol.stats.rejected_error) > 0
    np.testing.assert_allclose(sol.ys[-1], [0.01786592, 7.274e-8, 0.98213401], atol=2e-2)  # twice the tolerance


def test_a_solution_that_leaves_its_domain_is_a_result_with_a_name():
    """y = 1 − t has to leave where it is zero."""
    problem = jde.ODEProblem(lambda t, y, args: -jnp.ones_like(y), jnp.array([1.0]), (0.0, 2.0))
    with pytest.raises(
        jde.SolveError, match=r"step_size_too_small at t = 1: PositiveDomain 'concentration': the next.*end the solve"
    ):
        jde.solve(problem, jde.Tsit5(), events=jde.PositiveDomain(name="concentration"))
    sol = jde.solve(problem, jde.Tsit5(), events=jde.Domain(lambda t, y, args: y + 0.5), throw=False)
    assert sol.status == "step_size_too_small"
    np.testing.assert_allclose(sol.t_end, 1.5, rtol=1e-9)
    assert jde.solve(problem, jde.Tsit5(), events=jde.PositiveDomain(slack=1.5)).ok


def test_derivatives_do_not_see_refused_steps():
    """The first step leaves the domain of the square root, where all would be NaN."""
    end = lambda y0: jde.solve(
        ROOT,
        jde.Tsit5(),
        y0=jnp.stack([y0]),
        first_step=1.9,
        events=jde.PositiveDomain(),
        saveat=jde.SaveAt(t1=True),
        **TIGHT,
    ).ys[0, 0]
    value, slope = jax.value_and_grad(end)(1.0)
    np.testing.assert_allclose([value, slope], [0.05**2, 0.05], rtol=1e-6)


# ---- limits of steps, and an end


def test_no_step_is_longer_than_its_limit():
    limit = jde.StepLimit(lambda t, y, args: 0.1 + t, safety=0.5)
    sol = jde.solve(ONE, jde.Tsit5(), events=limit, y0=jnp.ones(1), first_step=1.0)
    steps = np.diff(sol.ts)
    assert np.all(steps <= 1.01 * 0.5 * (0.1 + sol.ts[:-1]))
    np.testing.assert_allclose(steps[:3], 0.5 * (0.1 + sol.ts[:3]), rtol=1e-12)


def test_a_limit_does_not_serve_equal_steps():
    with pytest.raises(ValueError, match="StepLimit"):
        jde.solve(ONE, jde.RK4(), events=jde.StepLimit(lambda t, y, args: 0.1), controller=jde.FixedSteps(10))


def test_the_end_at_rest():
    """y = 1 + e^(−k·t), of which the slope is below 1e-4·y + 1e-5 from a known time on."""
    problem = jde.ODEProblem(lambda t, y, args: {"a": 0.4 * (1 - y["a"])}, {"a": jnp.array([2.0])}, (0.0, 1000.0))
    sol = jde.solve(problem, jde.Tsit5(), events=jde.TerminateAtSteadyState(1e-4, 1e-5), rtol=1e-8, atol=1e-10)
    assert sol.status == "terminated"
    still = lambda t: 0.4 * np.exp(-0.4 * t) - 1e-4 * (1 + np.exp(-0.4 * t)) - 1e-5
    assert still(float(sol.ts[-1])) <= 0 < still(float(sol.ts[-2]))


# ---- integrals


@pytest.mark.parametrize(
    ("method", "strategy"),
    [(jde.Tsit5(), jde.ForwardAD()), (jde.Vern7(), jde.ReverseAD()), (jde.Rodas5P(), jde.ReverseAD())],
    ids=str,
)
def test_integrals_along_the_solution(method, strategy):
    """Of y = (y₀ + dose where t > 1)·e^(−k·t), and of its square times t, with derivatives in k, y₀, dose and t₁."""

    def found(x):
        problem = jde.ODEProblem(lambda t, y, args: -args * y, x["y0"], (0.0, x["t1"]), x["k"])
        integrals = jde.Integrate(lambda t, y, k: {"y": k * y, "power": t * y[0] ** 2})
        events = [jde.Doses(1.0, x["dose"], 0), integrals]
        sol = jde.solve(
            problem, method, events=events, saveat=jde.SaveAt(t1=True), gradient=strategy, rtol=1e-9, atol=1e-11
        )
        (integral,) = sol.integrals
        return jnp.append(integral["y"], integral["power"])

    def true(x):
        k, t1 = x["k"], x["t1"]
        later = x["y0"][0] * jnp.exp(-k) + x["dose"]
        primitive = lambda t: -jnp.exp(-2 * k * t) * (2 * k * t + 1) / (4 * k**2)  # of t·e^(−2·k·t)
        power = x["y0"][0] ** 2 * (primitive(1.0) - primitive(0.0))
        power += (later * jnp.exp(k)) ** 2 * (primitive(t1) - primitive(1.0))
        return jnp.stack([x["y0"][0] * -jnp.expm1(-k) - later * jnp.expm1(-k * (t1 - 1)), power])

    x = {"k": 0.4, "y0": jnp.array([2.0]), "dose": 1.5, "t1": 3.0}
    x = jax.tree.map(jnp.asarray, x)
    np.testing.assert_allclose(found(x), true(x), rtol=1e-7)
    jacobian = jax.jacrev if isinstance(strategy, jde.ReverseAD) else jax.jacfwd
    slopes, expected = jax.jit(jacobian(found))(x), jax.jacobian(true)(x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8), slopes, expected)


def test_integrals_without_jit_and_over_lanes():
    work = jde.Integrate(lambda t, y, args: jnp.sum(y))
    one = lambda y0: jde.solve(ONE, jde.Tsit5(), y0=y0, events=work, **TIGHT).integrals[0]
    expected = -np.expm1(-4.0) / 0.4
    np.testing.assert_allclose(one(jnp.ones(1)), expected, rtol=1e-8)
    np.testing.assert_allclose(jax.vmap(one)(jnp.array([[1.0], [2.0]])), [expected, 2 * expected], rtol=1e-8)
    with pytest.raises(NotImplementedError, match="does not serve Integrate"):
        jde.solve(ONE, jde.Tsit5(), events=work, gradient=jde.GaussAdjoint())
    back = jde.solve(ONE, jde.Tsit5(), y0=jnp.ones(1), tspan=(10.0, 0.0), events=work, **TIGHT).integrals[0]
    np.testing.assert_allclose(back, -np.expm1(4.0) / 0.4, rtol=1e-8)


# ---- values besides


SWITCHED = jde.PresetTimes(
    jnp.array([1.0, 2.0]), lambda t, y, args: y + 1, affect_args=lambda t, y, args: {**args, "gain": 2 * args["gain"]}
)


def switched(t, k, gain):
    """gain·y, of y′ = −k·y that gains one at 1 and at 2, where the gain doubles; after both at their times."""
    passed = (t >= 1.0).astype(float) + (t >= 2.0).astype(float)
    y = jnp.exp(-k * t) + sum(jnp.where(t >= at, jnp.exp(-k * (t - at)), 0) for at in (1.0, 2.0))
    return gain * 2**passed * y


def kept(x, strategy=None):
    """At times in any order, at steps, after events, each in its own form, and what the solution has by itself."""
    gained = lambda t, y, args: {"gained": args["gain"] * y[0]}
    whens = (jnp.stack([x["t"], x["t"] + 1.5, jnp.asarray(1.0)]), jde.SaveAt(events=True), jde.SaveAt(steps=4, t1=True))
    problem = jde.ODEProblem(
        lambda t, y, args: -args["k"] * y, jnp.ones(1), (0.0, 3.0), {"k": x["k"], "gain": x["gain"]}
    )
    strategy = jde.ReverseAD() if strategy is None else strategy
    return jde.solve(
        problem,
        jde.Tsit5(),
        events=[jde.SaveValues(gained, whens[0]), SWITCHED, *(jde.SaveValues(gained, w) for w in whens[1:])],
        saveat=jde.SaveAt(ts=[2.0, 2.5], fn=lambda t, y, args: args["gain"] * y[0]),
        gradient=strategy,
        max_events=3,
        max_steps=200,
        **TIGHT,
    )


@pytest.mark.parametrize("strategy", [jde.ReverseAD(), jde.ForwardAD(), jde.GaussAdjoint()], ids=str)
def test_values_are_saved_besides(strategy):
    """With the parameters that hold there, which events change, and derivatives in these, in times and in the rate."""

    def found(x):
        sol = kept(x, strategy)
        times, events, steps = (jnp.where(s.mask, s.ys["gained"], 0.0) for s in sol.saved)
        return times, events[:2], steps[-1], sol.ys

    def true(x):
        values = lambda ts: switched(jnp.stack(ts), x["k"], x["gain"])
        whole = values([jnp.asarray(2.0), jnp.asarray(2.5)])
        times = values([x["t"], x["t"] + 1.5, jnp.asarray(1.0)])
        return times, values([jnp.asarray(1.0), jnp.asarray(2.0)]), values([jnp.asarray(3.0)])[0], whole

    x = jax.tree.map(jnp.asarray, {"k": 0.4, "gain": 1.5, "t": 0.7})
    near = lambda tolerance: lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance)
    jax.tree.map(near(1e-8), jax.jit(found)(x), true(x))
    jacobian = jax.jacfwd if isinstance(strategy, jde.ForwardAD) else jax.jacrev
    slopes = jax.tree.map(lambda d: jnp.where(jnp.abs(d) < 1e-12, 0, d), jax.jit(jacobian(found))(x))
    jax.tree.map(near(1e-6), slopes, jax.jacfwd(true)(x))


def test_values_besides_of_lanes_and_of_a_solve_without_other_events():
    x = {"k": jnp.array([0.4, 0.7]), "gain": jnp.array([1.5, 1.0]), "t": jnp.array([0.7, 0.2])}
    saved = jax.vmap(kept)(x).saved
    np.testing.assert_allclose(saved[0].ys["gained"][:, 0], jax.vmap(switched)(x["t"], x["k"], x["gain"]), rtol=1e-8)
    np.testing.assert_array_equal(saved[1].ts[:, :2], [[1.0, 2.0]] * 2)
    np.testing.assert_array_equal(saved[1].mask.sum(1), [2, 2])
    sol = jde.solve(ONE, jde.Tsit5(), y0=jnp.ones(1), events=jde.SaveValues(lambda t, y, args: args * y), **TIGHT)
    np.testing.assert_array_equal(sol.saved[0].ts, sol.ts)
    np.testing.assert_allclose(sol.saved[0].ys, 0.4 * sol.ys, rtol=1e-14)
    assert sol.events is None and int(sol.stats.events) == 0


@pytest.mark.parametrize(
    ("when", "error", "message"),
    [
        (jde.SaveAt(ts=[1.0], fn=lambda t, y, args: y), ValueError, "leave SaveAt"),
        ("steps", ValueError, "`when` must be a positive number"),
        ([20.0], ValueError, r"`when`.*20"),
        (jde.SaveAt(events=True), ValueError, "`events` is empty"),
    ],
)
def test_wrong_times_of_values(when, error, message):
    with pytest.raises(error, match=message):
        jde.solve(ONE, events=jde.SaveValues(lambda t, y, args: y, when))


def test_calls_on_the_host():
    """In order, with what the solve saves, and again under `jit`, a gradient and `vmap`."""
    calls: list[tuple[float, float, float]] = []
    watch = jde.CallEach(lambda t, y, args: calls.append((float(t), float(y["a"][0]), float(args["k"]))))
    problem = jde.ODEProblem(
        lambda t, y, args: {"a": -args["k"] * y["a"]}, {"a": jnp.ones(1)}, (0.0, 2.0), {"k": jnp.asarray(0.7), "n": 3}
    )
    sol = jde.solve(problem, jde.Tsit5(), events=watch)
    jax.effects_barrier()
    np.testing.assert_array_equal(calls, np.stack([sol.ts, sol.ys["a"][:, 0], np.full(len(sol.ts), 0.7)], 1)[1:])
    end = lambda y0: jde.solve(problem, jde.Tsit5(), y0={"a": y0}, events=watch, saveat=jde.SaveAt(t1=True)).ys["a"][
        0, 0
    ]
    once = list(calls)
    for run, most in ((jax.jit(end), 1), (jax.grad(end), 2)):  # on the plain path a gradient solves once more
        calls.clear()
        jax.block_until_ready(run(jnp.ones(1)))
        jax.effects_barrier()
        assert calls in [once * k for k in range(1, most + 1)]
    calls.clear()
    jax.block_until_ready(jax.vmap(end)(jnp.array([[1.0], [2.0]])))
    jax.effects_barrier()
    assert sorted(y for t, y, _ in calls if t == 2.0) == pytest.approx([np.exp(-1.4), 2 * np.exp(-1.4)], rel=1e-3)


@pytest.mark.parametrize("strategy", [jde.ReverseAD(), jde.ForwardAD()], ids=str)
def test_events_at_one_instant_each_have_their_own_derivatives(strategy):
    """Three timers and two roots at t = 1, of which one is landed on; all of them commute."""

    def end(x):
        problem = jde.ODEProblem(lambda t, y, args: -args * y, jnp.array([1.0, 0.5, 0.0]), (0.0, 4.0), 0.4)
        clock = lambda t, y, args: t - x[4]
        events = [
            jde.Doses(x[0], 2.0, 0),
            jde.PresetTimes(x[1], lambda t, y, args: y.at[1].add(t)),
            jde.Doses(x[2], 3.0, 1, duration=x[3]),
            jde.Event(clock, lambda t, y, args: y.at[2].add(1.0)),
            jde.Event(lambda t, y, args: jnp.exp(t) - jnp.exp(x[5]), lambda t, y, args: y.at[0].add(2.5)),
        ]
        options = {"saveat": jnp.array([2.2, 4.0]), "gradient": strategy, "rtol": 1e-11, "atol": 1e-11}
        ys = jde.solve(problem, jde.Tsit5(), events=events, **options).ys
        return jnp.sum(ys * jnp.array([[1.0, 2.0, 0.3], [3.0, -1.0, 0.7]]))

    def true(x):
        s = jnp.array([2.2, 4.0])
        first = jnp.exp(-0.4 * s) + course(s - x[0], 2.0, 0.0, 0.4) + course(s - x[5], 2.5, 0.0, 0.4)
        first = first * jnp.array([1.0, 3.0])
        second = 0.5 * jnp.exp(-0.4 * s) + course(s - x[1], x[1], 0.0, 0.4) + course(s - x[2], 3.0, x[3], 0.4)
        third = course(s - x[4], 1.0, 0.0, 0.4) * jnp.array([0.3, 0.7])
        return jnp.sum(first + second * jnp.array([2.0, -1.0]) + third)

    x = jnp.array([1.0, 1.0, 1.0, 1.3, 1.0, 1.0])
    value, gradient = jax.jit(jax.value_and_grad(end))(x)
    np.testing.assert_allclose(value, true(x), rtol=1e-9)
    np.testing.assert_allclose(gradient, jax.grad(true)(x), rtol=1e-7)
