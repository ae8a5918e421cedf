"""What is saved, in every form of `saveat`: which rows, in which order, and which of them are real."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiffeq as jde
from jaxdiffeq.frontend.saveat import SaveAt, normalise, one_array, spaced, times


def decay(t, y, args):
    return -y


def run(saveat=None, tspan=(0.0, 1.0), **options):
    options = {"rtol": 1e-7, "atol": 1e-10, **options}
    return jde.solve(jde.ODEProblem(decay, 1.0, tspan), jde.Tsit5(), saveat=saveat, **options)


def exact(sol, t0=0.0):
    np.testing.assert_allclose(sol.ys, np.exp(t0 - np.asarray(sol.ts)), rtol=1e-6)


# ---- times, without a solve


@pytest.mark.parametrize("span", [(0, 10), (0.0, 10.0), (3, 13), (-10, 0), (10, 0), (1e9, 1e9 + 10)])
def test_a_tenth_on_ten_gives_exactly_101_points(span):
    ts = spaced(0.1, *span)
    assert ts.shape == (101,)
    assert (ts[0], ts[-1]) == span
    np.testing.assert_allclose(np.abs(np.diff(ts)), 0.1, rtol=1e-6)


def test_a_spacing_that_does_not_divide_stops_short():
    np.testing.assert_array_equal(spaced(0.4, 0, 1), [0, 0.4, 0.8])
    np.testing.assert_array_equal(spaced(3.0, 0, 1), [0])
    np.testing.assert_array_equal(spaced(0.1, 2, 2), [2])


def test_forms_become_one():
    assert normalise(None) == SaveAt(steps=1, t0=True)
    assert normalise(0.1).every == 0.1 and normalise(2).every == 2
    assert normalise([1, 2]).ts == [1, 2]
    given = SaveAt(t1=True)
    assert normalise(given) is given
    np.testing.assert_array_equal(one_array((0, jnp.float32(1), 2.5)), [0, 1, 2.5])


def test_times_are_sorted_in_the_order_of_travel_and_put_back():
    given = np.array([0.5, 0.0, 1.0, 0.5])
    keep, ts = times(SaveAt(ts=given), 0.0, 1.0, np.dtype(float))
    np.testing.assert_array_equal(ts, [0.0, 0.5, 0.5, 1.0])
    np.testing.assert_array_equal(ts[np.asarray(keep.order)], given)
    keep, ts = times(SaveAt(ts=given), 1.0, 0.0, np.dtype(float))
    np.testing.assert_array_equal(ts, [1.0, 0.5, 0.5, 0.0])
    np.testing.assert_array_equal(ts[np.asarray(keep.order)], given)


def test_times_beyond_the_end_by_rounding_are_the_end():
    end = np.float32(0.1)
    _, ts = times(SaveAt(ts=[0.1]), np.float32(0), end, np.dtype(np.float32))
    assert ts[0] == end
    _, ts = times(SaveAt(ts=[0.1 * 3]), 0.0, 0.3, np.dtype(float))  # 0.30000000000000004
    assert ts[0] == 0.3


# ---- rows


def test_every_step_by_default():
    sol = run()
    assert sol.ts[0] == 0.0 and sol.ts[-1] == 1.0 and sol.ys[0] == 1.0
    assert sol.ts.shape == (int(sol.stats.accepted) + 1,) == (int(sol.num_saved),)
    assert np.all(np.diff(sol.ts) > 0) and bool(sol.mask.all())
    exact(sol)


@pytest.mark.parametrize("max_steps", [40, 100_000, 2**31 - 1])
def test_the_bound_on_steps_does_not_show(max_steps):
    sol = run(max_steps=max_steps)
    np.testing.assert_array_equal(sol.ts, run().ts)


@pytest.mark.parametrize("steps", [1, 2, 3, 1000])
def test_every_nth_step(steps):
    whole, some = run(), run(SaveAt(steps=steps))
    np.testing.assert_array_equal(some.ts, whole.ts[1:][steps - 1 :: steps])
    np.testing.assert_array_equal(some.ys, whole.ys[1:][steps - 1 :: steps])
    assert some.num_saved == len(some.ts)


def test_rows_continue_from_chunk_to_chunk():
    n = 2500  # a chunk has 1024 steps
    sol = run(SaveAt(steps=7, ts=[0.25, 0.75], t1=True), controller=jde.FixedSteps(dt=1 / n))
    assert sol.stats.accepted == n
    np.testing.assert_allclose(sol.ts[2:-1], np.arange(7, n + 1, 7) / n, rtol=1e-12)
    exact(sol)


def test_given_times_come_back_in_the_order_given():
    ts = [1, 0.0, 0.5, 0.5, 0.25]
    sol = run(ts)
    np.testing.assert_array_equal(sol.ts, ts)
    exact(sol)
    assert sol.ys[2] == sol.ys[3] and sol.ys[1] == 1.0


@pytest.mark.parametrize("ts", [[], (), np.zeros(0), jnp.zeros(0)])
def test_no_times_give_no_rows(ts):
    sol = run(ts)
    assert sol.ts.shape == sol.ys.shape == (0,) and sol.num_saved == 0 and bool(sol.ok)


def test_backwards():
    sol = run([0.0, 1.0, 0.25], tspan=(1.0, 0.0))
    np.testing.assert_array_equal(sol.ts, [0.0, 1.0, 0.25])
    exact(sol, t0=1.0)
    sol = run(tspan=(1, 0))
    assert np.all(np.diff(sol.ts) < 0) and sol.ts[-1] == 0.0
    exact(sol, t0=1.0)


COMBINED = [  # ts, every, steps, t0, t1, fn
    (None, None, 2, True, True, False),
    (None, 0.5, False, True, False, True),
    ([0.75, 0.5], 0.5, 2, False, True, False),
    ([0.75, 0.5], None, False, True, True, False),
    ([0.75, 0.5], 0.5, 2, True, True, True),
    (None, None, 3, False, False, True),
]


@pytest.mark.parametrize(("ts", "every", "n", "t0", "t1", "with_fn"), COMBINED)
def test_everything_at_once_comes_in_the_stated_order(ts, every, n, t0, t1, with_fn):
    fn = (lambda t, y, args: {"twice": 2 * y, "early": t < 0.6}) if with_fn else None
    sol = run(SaveAt(ts=ts, every=every, steps=n, t0=t0, t1=t1, fn=fn))
    given = (ts or []) + ([] if every is None else [0.0, 0.5, 1.0])
    rows = list(run().ts[1:][n - 1 :: n]) if n else []
    start = [0.0] * t0
    middle = [*given, *start, *rows] if n else [*start, *given]  # the start leads the steps
    expected = [*middle, *[1.0] * t1]
    # from another program, which may round otherwise: the choice of a step makes more of it
    np.testing.assert_allclose(sol.ts, expected, rtol=1e-10)
    assert sol.num_saved == len(expected)
    values = sol.ys["twice"] / 2 if with_fn else sol.ys
    np.testing.assert_allclose(values, np.exp(-sol.ts), rtol=1e-6)
    if with_fn:
        np.testing.assert_array_equal(sol.ys["early"], sol.ts < 0.6)


# ---- t0 == t1


def instant(y0, *forms):
    problem = jde.ODEProblem(decay, y0, (2, 2))
    return [jde.solve(problem, jde.Tsit5(), saveat=form, max_steps=3) for form in forms]


def test_an_instant_is_saved_as_it_is():
    forms = None, [2.0, 2.0], 0.1, SaveAt(t0=True, t1=True), SaveAt(steps=1)
    solutions = [*jax.jit(lambda y0: instant(y0, *forms))(5.0), *instant(5.0, *forms[:2])]
    for sol, count in zip(solutions, [1, 2, 1, 2, 0, 1, 2], strict=True):
        assert sol.num_saved == count and sol.status == "success" and sol.stats.accepted == 0
        np.testing.assert_array_equal(sol.ts[sol.mask], 2.0)
        np.testing.assert_array_equal(sol.ys[sol.mask], 5.0)
    assert np.all(solutions[0].ys == 5.0) and np.all(solutions[0].ts == 2.0)  # padding repeats the last row


# ---- inside jit


@jax.jit
def padded(y0, rtol):
    problem = jde.ODEProblem(decay, y0, (0.0, 1.0))
    return jde.solve(
        problem, jde.Tsit5(), saveat=SaveAt(steps=1, t0=True, t1=True), rtol=rtol, atol=1e-10, max_steps=30
    )


def test_padding_repeats_the_last_row():
    sol, eager = padded(1.0, 1e-7), run()
    n = len(eager.ts)
    assert sol.ts.shape == (32,) and sol.num_saved == n + 1
    np.testing.assert_array_equal(sol.mask, [True] * n + [False] * (31 - n) + [True])
    np.testing.assert_array_equal(sol.ts[:n], eager.ts)
    np.testing.assert_array_equal(sol.ts[n:], 1.0)
    np.testing.assert_array_equal(sol.ys[n:], eager.ys[-1])


def test_rows_of_many_solves_are_masked_one_by_one():
    sol = jax.vmap(padded, (None, 0))(1.0, jnp.array([1e-3, 1e-9]))
    assert sol.mask.shape == (2, 32)
    np.testing.assert_array_equal(sol.num_saved, np.asarray(sol.stats.accepted) + 2)
    assert sol.num_saved[0] < sol.num_saved[1]


@jax.jit
def at(ts):
    sol = run(ts)
    return sol.ys, sol.mask


def test_traced_times_may_be_in_any_order():
    ts = jnp.array([0.5, 0.0, 1.0, 0.5])
    ys, mask = at(ts)
    np.testing.assert_allclose(ys, np.exp(-ts), rtol=1e-6)
    assert bool(mask.all())


def test_traced_times_outside_of_the_span_are_nan():
    ys, mask = at(jnp.array([-0.5, 0.5, 1.5, 1 + 2e-16]))
    np.testing.assert_array_equal(mask, [False, True, False, True])
    np.testing.assert_array_equal(np.isnan(ys), [True, False, True, False])


def test_a_list_may_mix_numbers_and_tracers():
    ys = jax.jit(lambda t: run([0, t, 1.0]).ys)(0.5)
    np.testing.assert_allclose(ys, np.exp([0, -0.5, -1.0]), rtol=1e-6)


# ---- failure


@pytest.mark.parametrize("inside", [False, True])
def test_what_comes_after_a_failure_is_nan_and_what_came_before_is_kept(inside):
    def solve(y0):
        saveat = SaveAt(ts=[0.9, 0.01, 0.0], t0=True, t1=True)
        problem = jde.ODEProblem(decay, y0, (0.0, 1.0))
        return jde.solve(problem, jde.Tsit5(), saveat=saveat, rtol=1e-7, max_steps=3, throw=False)

    sol = jax.jit(solve)(1.0) if inside else solve(1.0)
    assert sol.status == "max_steps_reached" and not bool(sol.ok) and 0.01 < sol.t_end < 0.9
    np.testing.assert_array_equal(sol.mask, [True, False, True, True, False])
    np.testing.assert_array_equal(np.isnan(sol.ys), ~np.asarray(sol.mask))
    np.testing.assert_allclose(sol.ys[2], np.exp(-0.01), rtol=1e-6)
    assert sol.num_saved == 3


def test_steps_after_a_failure():
    eager = run(max_steps=3, throw=False)
    assert len(eager.ts) == 4 and bool(eager.mask.all()) and eager.ts[-1] == eager.t_end

    def blow(y0):
        problem = jde.ODEProblem(lambda t, y, args: y * y, y0, (0.0, 2.0))
        return jde.solve(problem, jde.Tsit5(), max_steps=300, rtol=1e-7, throw=False)

    sol = jax.jit(blow)(1.0)
    n = int(sol.num_saved)
    assert sol.ts.shape == (301,) and n < 301 and not bool(sol.ok)
    assert np.all(np.isfinite(sol.ys[:n])) and np.all(np.isnan(sol.ys[n:])) and np.all(np.isnan(sol.ts[n:]))


def test_equal_steps_after_a_failure():
    def blow(y0):
        problem, controller = jde.ODEProblem(lambda t, y, args: y * y, y0, (0.0, 20.0)), jde.FixedSteps(10)
        return jde.solve(problem, jde.RK4(), controller=controller, throw=False)

    eager, sol = blow(1.0), jax.jit(blow)(1.0)
    n = len(eager.ts)
    assert sol.num_saved == n < 11 and sol.t_end == eager.t_end == eager.ts[-1] and sol.status == "nonfinite"
    np.testing.assert_allclose(sol.ys[:n], eager.ys, rtol=1e-12)
    assert np.all(np.isnan(sol.ys[n:])) and np.all(np.isnan(sol.ts[n:]))
