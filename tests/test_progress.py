"""Progress: seen when asked for, absent when not, and without effect on any number."""

import io
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiffeq as jde
from jaxdiffeq import progress

TIMES = np.linspace(0.0, 10.0, 11)
REPORTS: list[progress.Report] = []


def sink(report):
    REPORTS.append(report)


def field(t, y, args):
    return args * jnp.stack([y[1], -y[0]]) * (1 + 0.1 * jnp.sin(t))


PROBLEM = jde.ODEProblem(field, jnp.array([1.0, 0.0]), (0.0, 10.0), jnp.array(2.0))


def total(rate, watch, **options):
    return jnp.sum(jde.solve(PROBLEM, jde.Tsit5(), args=rate, saveat=TIMES, progress=watch, **options).ys[:, 0] ** 2)


@pytest.fixture
def reports():
    REPORTS.clear()
    yield REPORTS
    jax.effects_barrier()
    REPORTS.clear()


def waited(x):
    jax.block_until_ready(x)
    jax.effects_barrier()
    return x


def assert_same(watched, plain):
    """To rounding, some thousand additions long and relative to the largest number: a loop that calls somebody is no
    kernel, and what is added up on the way to a small derivative is as large as a large one."""
    np.testing.assert_allclose(watched, plain, rtol=0, atol=2e3 * np.finfo(float).eps * np.max(np.abs(plain)))


# -------------------- in a program ------------------------------------------------------------------------------------


def test_reports_rise_from_the_start_to_the_end(reports):
    sol = waited(jde.solve(PROBLEM, jde.Tsit5(), saveat=TIMES, rtol=1e-9, atol=1e-9, progress=sink))
    shares = [r.mean for r in reports]
    assert len(reports) > 20
    assert all(a <= b for a, b in itertools.pairwise(shares))
    assert shares[-1] == 1.0
    assert [r.done for r in reports] == [False] * (len(reports) - 1) + [True]
    assert reports[-1].steps == sol.stats.steps
    assert {r.lanes for r in reports} == {1}


def test_calls_are_few(reports):
    controller = jde.PIDController(max_step=1e-4)
    sol = waited(jde.solve(PROBLEM, jde.Tsit5(), saveat=TIMES, controller=controller, progress=sink))
    assert sol.stats.steps > 99_000
    assert len(reports) <= progress.PERCENT + sol.stats.steps // progress.STEPS + 1


def test_derivatives_are_the_same(reports):
    plain, watched = (waited(jax.jvp(lambda rate, w=w: total(rate, w), (2.0,), (1.0,))) for w in (False, sink))
    assert len(reports) > 0
    assert_same(watched, plain)


def test_values_and_gradients_are_the_same_under_jit_and_vmap(reports):
    rates = jnp.array([0.5, 1.0, 4.0])
    plain, watched = (
        waited(jax.jit(jax.vmap(jax.value_and_grad(lambda r, w=w: total(r, w))))(rates)) for w in (False, sink)
    )
    assert_same(watched, plain)
    assert {r.lanes for r in reports} == {3}
    assert reports[-1].done
    assert reports[-1].low == reports[-1].mean == 1.0
    assert any(r.low < r.mean for r in reports)  # the fast oscillator takes more steps
    assert all(r.low <= r.mean for r in reports)


@pytest.mark.parametrize("memory", ["sqrt"])
def test_fixed_steps_report_too(memory, reports):
    options = {"controller": jde.FixedSteps(200), "gradient": jde.ReverseAD(memory=memory)}
    last = lambda rate, watch: jde.solve(
        PROBLEM, jde.RK4(), args=rate, saveat=jde.SaveAt(t1=True), progress=watch, **options
    ).ys[-1, 0]
    plain, watched = (waited(jax.value_and_grad(lambda r, w=w: last(r, w))(2.0)) for w in (False, sink))
    np.testing.assert_allclose(watched, plain, rtol=1e-13)
    assert reports[0].mean < 0.02
    assert sum(r.mean == 1.0 and r.done for r in reports) >= 1


def test_saving_every_step_reports_too(reports):
    sol = waited(jde.solve(PROBLEM, jde.Tsit5(), progress=sink))
    assert sol.ts[-1] == 10.0
    assert reports[-1].mean == 1.0


def test_a_failed_solve_ends_its_bar(reports):
    blow_up = jde.ODEProblem(lambda t, y, _: y**2, 1.0, (0.0, 2.0))
    sol = waited(jde.solve(blow_up, jde.Tsit5(), saveat=[2.0], progress=sink, throw=False))
    assert not sol.ok
    assert reports[-1].done
    assert 0.45 < reports[-1].mean < 0.51  # 1 / (1 − t) goes to infinity at t = 1


def test_no_callback_unless_asked_for():
    off, on = (jax.jit(jax.grad(lambda rate, w=w: total(rate, w))).lower(2.0) for w in (False, sink))
    assert "callback" not in off.as_text()
    assert "progress" not in str(jax.make_jaxpr(lambda rate: total(rate, False))(2.0))
    assert "callback" in on.as_text()


def test_what_progress_may_be():
    with pytest.raises(TypeError, match="`progress` must be True, False or a function"):
        jde.solve(PROBLEM, progress=3)


# -------------------- on the screen -----------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_bar_of_a_solve(monkeypatch):
    out = Terminal()
    monkeypatch.setattr("sys.stderr", out)
    monkeypatch.setattr(progress, "TERMINAL", 0.0)
    waited(jax.vmap(lambda r: total(r, True))(jnp.array([1.0, 3.0])))
    lines = out.getvalue().split("\r")
    assert lines[-1].startswith("solve 100% " + "━" * progress.WIDTH)
    assert lines[-1].endswith("\n")
    assert any("slowest of 2 lanes" in line for line in lines)
    assert out.getvalue().count("\n") == 1


def test_the_bar_of_a_loop(monkeypatch):
    out = Terminal()
    monkeypatch.setattr("sys.stderr", out)
    monkeypatch.setattr(progress, "TERMINAL", 0.0)
    seen = []
    for i in (steps := progress.bar((x for x in range(4)), "fit")):
        seen.append(i)
        steps.note = f"loss {4 - i}"
    assert seen == [0, 1, 2, 3]
    shown = [line[4:8] for line in out.getvalue().split("\r")[1:]]
    assert shown == ["  0%", " 25%", " 50%", " 75%", "100%"]
    assert out.getvalue().rstrip().removesuffix("\033[K").endswith("loss 1")


def test_a_loop_that_breaks_ends_its_line(monkeypatch):
    out = Terminal()
    monkeypatch.setattr("sys.stderr", out)
    for i in progress.bar(range(4), "fit"):
        if i == 2:
            break
    assert out.getvalue().split("\r")[-1].startswith("fit  50%")
    assert out.getvalue().endswith("\n")


def test_a_log_file_gets_few_lines_and_no_control_characters(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr("sys.stderr", out)
    monkeypatch.delitem(__import__("sys").modules, "ipykernel", raising=False)
    for _ in progress.bar(range(1000), "fit"):
        pass
    assert len(out.getvalue().splitlines()) == 2
    assert "\r" not in out.getvalue()
    assert "\033" not in out.getvalue()


def test_an_old_terminal_is_not_offended(monkeypatch):
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stderr", out)
    progress.Bar("fit").show(0.5)
    out.seek(0)
    assert " 50% ############" in out.read()
