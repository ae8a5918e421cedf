"""Recorders, handed steps one by one: which rows they write, and what a rejected attempt leaves alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiffeq as jde
from jaxdiffeq.engine.control import Tolerance
from jaxdiffeq.engine.integration import Integration
from jaxdiffeq.engine.interpolant import hermite
from jaxdiffeq.engine.log import Held, Log, Marks, Window, WindowMarks
from jaxdiffeq.engine.recorders import SaveSteps, SaveTimes
from jaxdiffeq.primitives.row_buffer import read, rows, write
from jaxdiffeq.problems.vector_field import VectorField
from jaxdiffeq.types import Inputs, Settings, Shapes, Sizing, State, StepView

NAN = jnp.array(jnp.nan)


def count(n):
    return jnp.array(n, jnp.int32)


def blank(shapes):
    """Buffers as the loop makes them, with NaN (or −1) for what is not yet written."""
    return jax.tree.map(lambda x: jnp.full(x.shape, -1 if x.dtype == jnp.int32 else jnp.nan, x.dtype), shapes)


def line(t):
    """y(t) = (t, 10·t), the solution of which all steps here are pieces."""
    return jnp.stack([t, 10 * t])


def state(t):
    t = jnp.asarray(t, float)
    return State(t, line(t), -t)


def step(t0, t1, number, taken=True):
    """The cubic of this line, and the step size as it would be tried: unsigned."""
    rise = line(jnp.asarray(t1, float)) - line(jnp.asarray(t0, float))
    cubic = hermite(line(jnp.asarray(t0, float)), line(jnp.asarray(t1, float)), rise, rise)
    dt = jnp.asarray(abs(t1 - t0), float)
    before, after = state(t0), state(t1)
    return StepView(before, after, after.y, cubic, Sizing(dt, count(100 + number)), jnp.array(taken), count(number))


def inputs(ts=(), span=(0.0, 1.0)):
    t0, t1 = (jnp.asarray(t, float) for t in span)
    return Inputs(line(t0), (), t0, t1, jnp.asarray(ts, float), jnp.zeros(0))


def observe(t, y, args):
    return {"t": t, "y": y}


def test_a_write_that_must_not_happen_goes_to_the_spare_row():
    buffer = blank(rows((jax.ShapeDtypeStruct((2,), float), jax.ShapeDtypeStruct((), np.int32)), 3))
    assert buffer[0].shape == (4, 2) and buffer[1].shape == (4,)
    values = jnp.array([1.0, 2.0]), count(7)
    done = write(write(buffer, count(1), values, jnp.array(True)), count(2), values, jnp.array(False))
    np.testing.assert_array_equal(done[1][:3], [-1, 7, -1])
    np.testing.assert_array_equal(np.isnan(done[0][:3, 0]), [True, False, True])
    np.testing.assert_array_equal(read(done, count(1))[0], values[0])


# ---- values at times


@pytest.mark.parametrize("span", [(0.0, 1.0), (1.0, 0.0)], ids=["forwards", "backwards"])
def test_times_are_saved_in_the_step_that_passes_them(span):
    """Repeated times, the start, the end of a step and the end of all."""
    at = lambda t: t if span[0] == 0 else 1 - t
    ts = np.array([at(t) for t in (0.0, 0.0, 0.25, 0.625, 0.625, 0.75, 1.0, 1.0)])
    given, recorder = inputs(ts, span), SaveTimes(observe)
    record = jax.jit(lambda moving, fixed, passage: recorder.record(moving, fixed, passage, given))
    moving, fixed = recorder.init(given, state(span[0]), Shapes(None, Sizing(jnp.zeros(()))))
    passed = [int(fixed)]
    for number, (a, b, taken) in enumerate([(0, 0.5, False), (0, 0.25, True), (0.25, 0.5, True), (0.5, 0.625, True),
                                            (0.625, 1, False), (0.625, 1, True)]):  # fmt: skip
        before = moving
        moving, fixed = record(moving, fixed, step(at(a), at(b), number, taken))
        passed.append(int(fixed))
        if not taken:
            jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[:-1], y[:-1]), before, moving)
        done = passed[-1]
        np.testing.assert_array_equal(moving["t"][:done], ts[:done])
        np.testing.assert_allclose(moving["y"][:done], jax.vmap(line)(ts[:done]), rtol=1e-15, atol=1e-15)
        np.testing.assert_array_equal(np.isnan(moving["t"][max(done, 2) : -1]), True)
    assert passed == [0, 0, 3, 3, 5, 5, 8]


def test_the_polynomial_is_wanted_where_a_time_is_due():
    recorder, given = SaveTimes(observe), inputs([0.5, 0.5, 0.8])
    wants = lambda passed, t1: bool(recorder.wants(count(passed), given, jnp.array(1.0), jnp.array(t1)))
    assert [wants(0, 0.4), wants(0, 0.5), wants(1, 0.5), wants(2, 0.7), wants(2, 0.9), wants(3, 1.0)] == [
        *(False, True, True, False, True, False)
    ]


def test_at_an_instant_every_time_is_the_start():
    given = inputs([0.5, 0.5, 0.7], (0.5, 0.5))
    moving, fixed = SaveTimes(observe).init(given, state(0.5), Shapes(None, Sizing(jnp.zeros(()))))
    np.testing.assert_array_equal(moving["t"], [0.5, 0.5, np.nan, np.nan])
    assert fixed == 0


# ---- steps


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("dense", [False, True])
def test_every_nth_step_is_saved_while_there_is_room(every, dense):
    recorder, given = SaveSteps(observe, 4, every, dense), inputs()
    like = jax.ShapeDtypeStruct((4, 2), float)
    shapes, fixed = recorder.init(given, state(0.0), Shapes(like if dense else None, Sizing(jnp.zeros(()))))
    moving = blank(shapes)
    record = jax.jit(lambda moving, fixed, passage: recorder.record(moving, fixed, passage, given))
    for n in range(16):
        for taken in (False, True):
            passage = step(n / 16, (n + 1) / 16 if taken else 9.0, n, taken)
            moving, fixed = record(moving, fixed, passage if dense else passage._replace(coefficients=None))
        kept = min((n + 1) // every, 4)
        assert fixed == kept
        numbers = every * np.arange(1, kept + 1)
        np.testing.assert_array_equal(moving.t[:kept], numbers / 16)
        np.testing.assert_array_equal(moving.values["y"][:kept, 1], 10 * numbers / 16)
        if dense:
            np.testing.assert_array_equal(moving.coefficients[:kept, 0, 0], (numbers - 1) / 16)
        assert np.all(np.isnan(moving.t[kept:-1]))
    assert (moving.coefficients is None) is not dense


# ---- the log of a replay


def thinned(slots, stride, n, entry):
    """What `Log` does, in plain Python. Shapes: `slots` is a list; returns it and the stride."""
    if n >= len(slots) * stride:
        half = len(slots) // 2
        slots, stride = [*slots[::2], *[None] * half], 2 * stride
    if n % stride == 0:
        slots[n // stride] = entry
    return slots, stride


@pytest.mark.parametrize("size", [2, 4, 8, 64])
def test_the_log_keeps_every_strideth_step(size):
    log, given = Log(size, 64), inputs()
    shapes, fixed = log.init(given, state(0.0), Shapes(None, Sizing(jnp.zeros(()), jax.ShapeDtypeStruct((), np.int32))))
    moving, fixed = blank(shapes), Marks(blank(fixed.made), fixed.stride)
    record = jax.jit(lambda moving, fixed, passage: log.record(moving, fixed, passage, given))
    model, stride = [None] * size, 1
    for n in range(64):
        for taken in (False, True):
            moving, fixed = record(moving, fixed, step(n / 64, (n + 1) / 64 if taken else 9.0, n, taken))
        model, stride = thinned(model, stride, n, n)
        assert fixed.stride == stride
        for slot, number in enumerate(model):
            if number is None:
                continue
            assert number == slot * stride <= n
            kept = read((moving, *fixed.made[:2]), count(slot))
            jax.tree.map(np.testing.assert_array_equal, kept, (state(number / 64), 1 / 64, 100 + number))
        assert sum(number is not None for number in model) == n // stride + 1 > min(n, size // 2 - 1)
    assert log.thins is (size < 64) and stride == 64 // size


def test_a_window_holds_consecutive_steps():
    window, first = Window(3), 4
    room = lambda: blank(window.init(inputs(), state(0.0), Shapes(None, Sizing(jnp.zeros(())))))
    moving, fixed = room()
    record = jax.jit(lambda moving, fixed, passage: window.record(moving, fixed, passage, inputs()))
    for n in range(12):
        for taken in (False, True):
            fixed = fixed._replace(first=count(first))
            moving, fixed = record(moving, fixed, step(n / 16, (n + 1) / 16, n, taken))
            assert fixed.first == first
    np.testing.assert_array_equal(moving.t[:3], np.array([4, 5, 6]) / 16)
    np.testing.assert_array_equal(moving.y[:3, 1], 10 * np.array([4, 5, 6]) / 16)
    np.testing.assert_array_equal(fixed.made.dt[:3], 1 / 16)
    moving, fixed = room()
    for n in (3, 7):
        moving, fixed = record(moving, fixed._replace(first=count(first)), step(n / 16, (n + 1) / 16, n))
    assert np.all(np.isnan(moving.t[:3])) and np.all(np.isnan(fixed.made.dt[:3]))


@functools.cache
def logged():
    """A solve whose steps differ in size, some rejected, with all of them saved, and a log of four slots."""
    log, saved = Log(4, 128), SaveSteps(observe, 128)
    field = VectorField(lambda t, y, args: -40 * (y - jnp.cos(8 * t)))
    integration = Integration(field, jde.BS3(), {"saved": saved, "log": log})
    settings = Settings(jde.PIDController(), Tolerance(jnp.array(1e-3), jnp.array(1e-3)), jnp.array(0.1), count(128))
    given = Inputs(jnp.zeros(1), (), jnp.array(0.0), jnp.array(1.0), jnp.zeros(0), jnp.array([0.6]))
    carry = jax.jit(integration.run)(given, settings)
    return integration, given, settings, carry


@pytest.mark.parametrize("slot", [0, 1, 2])
def test_a_replay_from_a_slot_takes_the_same_steps(slot):
    """To the bit, with their sizes, through rejections and a stop, and none before or after."""
    integration, given, settings, carry = logged()
    saved, slots = carry.records["saved"], carry.records["log"]
    marks, counts = carry.control.marks["log"], carry.control.counts
    steps, stride = int(counts.steps), int(marks.stride)
    assert counts.rejected_error > 0 and 4 >= steps / stride > 2 and stride >= 4
    ts, ys = np.append(0.0, saved.t[:steps]), np.append(0.0, saved.values["y"][:steps, 0])

    window, first = Window(stride), slot * stride
    records = blank(rows((read(slots, count(0)), Sizing(NAN)), stride))
    again = jax.jit(integration.with_recorders(window=window).replay)
    made = read(marks.made, count(slot))
    end = min(first + stride, steps) - 1
    held = Held({"window": records[0]}, {"window": WindowMarks(count(first), records[1])})
    held = again(given, settings, read(slots, count(slot)), made, (count(first), count(end)), held)
    states, sizes = held.records["window"], held.marks["window"].made.dt
    np.testing.assert_array_equal(states.t[: end - first], ts[first:end])
    np.testing.assert_array_equal(states.y[: end - first, 0], ys[first:end])
    assert np.all(np.isnan(states.t[end - first : stride]))
    moved = np.diff(ts)[first:end]
    inside = ~np.isin(ts[first + 1 : end + 1], [0.6, 1.0])  # a step that lands was asked to be longer, or 1 % shorter
    np.testing.assert_allclose(sizes[: end - first][inside], moved[inside], rtol=1e-12)


def test_steps_saved_next_to_times_ask_for_no_interpolant():
    """Of a method whose interpolant takes calls of f."""
    problem = jde.ODEProblem(lambda t, y, args: -y * jnp.cos(t), 1.0, (0.0, 3.0))
    alone, both = (
        jde.solve(problem, jde.Vern7(), saveat=jde.SaveAt(ts=[0.5], steps=steps), rtol=1e-8, atol=1e-8)
        for steps in (False, True)
    )
    assert alone.stats.f_evals == both.stats.f_evals
    assert int(both.stats.steps) > 4
    np.testing.assert_allclose(both.ys[0], alone.ys[0], rtol=1e-12)  # another program, which may round otherwise
