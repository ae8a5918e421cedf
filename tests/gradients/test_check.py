"""`check_gradients` finds what is wrong, and the reason to have it: Lorenz's equations do not run backwards."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiffeq as jde
from jaxdiffeq.gradients import support as table

STRATEGIES = [kind() for kind in table.STRATEGIES if table.serves(kind, "ODEProblem")]


def lorenz(t, y, p):
    a, b, c = p
    return jnp.stack([a * (y[1] - y[0]), y[0] * (b - y[2]) - y[1], y[0] * y[1] - c * y[2]])


P = jnp.array([10.0, 28.0, 8 / 3])


# Volumes shrink as e^{−(10 + 1 + 8/3)·t}, the exponents are 0.906, 0 and what is left to the third: Sprott, Chaos and
# Time-Series Analysis, 2003.
CONTRACTION = 10 + 1 + 8 / 3 + 0.906


def lorenz_at(y0, times, **options):
    """The states at these times, of which the first is the start."""
    options = {"rtol": 1e-12, "atol": 1e-12, "max_steps": 200_000, "throw": False, **options}
    problem = jde.ODEProblem(lorenz, y0, (times[0], times[-1]), args=P)
    return jde.solve(problem, jde.DP8(), saveat=times, **options)


@pytest.mark.slow
def test_lorenz_does_not_run_backwards():
    """Solved forwards to t = 100 at 1e-12 and back: the error grows as e^{14.6·t}.

    Published relative errors: 1.2 % after 2 units of time, 236 % after 2.5, 6050 % after 2.75, divergence after 3.2.
    These figures do not repeat from one program to the next: where a chaotic solution is at t = 100 depends on every
    rounding on the way, and the error of a step is any number below the tolerance. What it is multiplied with does
    repeat: by the linearised equation, whose rate is the attractor's.
    """
    back = 100 - np.array([0.0, 0.5, 1.0, 1.75, 2.75])
    rates = []
    for start in ([1.0, 0.0, 0.0], [1.0, 1.0, 1.0], [2.0, 3.0, 20.0]):
        forward = lorenz_at(jnp.array(start), np.append(0.0, back[::-1])).ys[:0:-1]
        error = lorenz_at(forward[0], back).ys - forward
        size = np.linalg.norm(error, axis=1) / np.linalg.norm(forward, axis=1)
        rates.append(np.log(size[3] / size[1]) / 1.25)
        # Up to 1.75 growth is linear but for a part of the size of the error, below 1e-3 there; the steps after 1.0 add
        # what has grown e^{14.6/2} times less than the steps before 0.5 did.
        onwards = lambda y: lorenz_at(y, back[2:4]).ys[-1]
        grown = jax.jvp(onwards, (forward[2],), (error[2],))[1]
        assert size[1] > 1e-13 and size[3] < 1e-3
        np.testing.assert_allclose(error[3], grown, rtol=0, atol=2e-3 * float(np.linalg.norm(grown)))
        assert size[4] > 0.1  # 1e-6 or more at 1.75, times e^{14.6}: nothing is left of the solution
    # over so short a time the rate is an average over one or two turns of the attractor
    assert np.all(np.abs(np.array(rates) / CONTRACTION - 1) < 0.25), rates
    # Off the attractor x' = 10·x, and y and z turn at the rate x: the next unit of time takes e¹⁰ times the steps
    lost = lorenz_at(forward[0], np.array([100.0, 0.0]), max_steps=20_000)
    assert lost.result == jde.Result.max_steps_reached
    assert 2.5 < 100 - lost.t_end < 4 and np.abs(lost.y_end[0]) > 1000  # on the attractor it is below 20


def mean_height(x, span, gradient, rtol):
    options = {"rtol": rtol, "atol": rtol, "max_steps": 100_000, "throw": False, "saveat": jde.SaveAt(t1=True)}
    problem = jde.ODEProblem(lorenz, jnp.array([1.0, 0.0, 0.0]), (0.0, span), args=x)
    return jde.solve(problem, jde.Tsit5(), gradient=gradient, **options).ys[0, 2]


@pytest.mark.slow
def test_backsolve_across_lorenz_is_flagged_and_reverse_is_right():
    """On [0, 10] finite differences can still tell: e^{0.9·10} is 8000. Across [0, 100] nothing but NaN or nonsense."""
    strategies = [jde.ReverseAD(), jde.BacksolveAdjoint()]
    loss = lambda x, gradient: mean_height(x, 10.0, gradient, 1e-10)
    report = jde.check_gradients(loss, P, strategies)
    assert report[jde.ReverseAD].agrees, str(report)
    assert not report[jde.BacksolveAdjoint].agrees
    assert "backward solve failed" in str(report) or "unstable" in str(report)
    far = jde.check_gradients(lambda x, gradient: mean_height(x, 100.0, gradient, 1e-6), P, strategies[1:])
    assert not far[jde.BacksolveAdjoint].agrees
    assert not far


def decay(x, gradient):
    problem = jde.ODEProblem(lambda t, y, p: -p["rate"] * y, x["y0"], (0.0, 1.0), args=x)
    return jnp.sum(
        jde.solve(problem, jde.Tsit5(), saveat=jde.SaveAt(t1=True), rtol=1e-8, atol=1e-8, gradient=gradient).ys
    )


X = {"y0": jnp.array([1.0, 2.0]), "rate": jnp.array(0.7)}


def test_what_is_right_agrees():
    report = jde.check_gradients(decay, X, [jde.ReverseAD(), jde.BacksolveAdjoint()])
    assert report, str(report)
    assert report.noise < 1e-6
    assert all(row.grad < 1e-5 and row.jvp < 1e-5 for row in report.rows)
    assert str(report).count("yes") == 2


def test_what_is_wrong_is_found():
    """A factor of two in the derivative, and in one direction of the parameters only."""

    def wrong(x, gradient):
        half = jax.lax.stop_gradient(x["rate"]) / 2 + x["rate"] / 2
        return decay({**x, "rate": half}, gradient)

    report = jde.check_gradients(wrong, X, [jde.ReverseAD()])
    assert not report
    assert "not even forward mode agrees" in str(report)


def test_what_cannot_be_is_said():
    def with_dense(x, gradient):
        problem = jde.ODEProblem(lambda t, y, p: -p["rate"] * y, x["y0"], (0.0, 1.0), args=x)
        return jnp.sum(jde.solve(problem, jde.Tsit5(), dense=True, gradient=gradient, max_steps=64)(0.5))

    report = jde.check_gradients(with_dense, X, [jde.ReverseAD(), jde.GaussAdjoint()])
    assert report[jde.ReverseAD].agrees
    assert "GaussAdjoint does not serve dense=True" in report[jde.GaussAdjoint].note


def geometric(x, gradient):
    how = {"key": jax.random.key(2), "interpretation": "stratonovich"}
    noise = lambda t, y, x: x["rate"] * jnp.cos(y)
    problem = jde.SDEProblem(lambda t, y, x: -x["rate"] * y, noise, x["y0"], (0.0, 1.0), x, **how)
    options = {"controller": jde.FixedSteps(64), "saveat": jnp.array([0.4, 1.0]), "gradient": gradient}
    return jnp.sum(jde.solve(problem, jde.ReversibleHeun(), **options).ys ** 2)


def test_steps_that_run_backwards_are_tried_where_they_serve(monkeypatch):
    """And found wrong where they are: by a state that is not the one before the step."""
    report = jde.check_gradients(geometric, X, rtol=1e-2)
    row = report[jde.ReversibleAdjoint]
    assert row.agrees and max(row.grad, row.jvp) < 1e-6, report
    assert report and not report[jde.GaussAdjoint].serves  # which has no say, but a row
    assert not any(isinstance(row.strategy, jde.ReversibleAdjoint) for row in jde.check_gradients(decay, X).rows)
    kind = type(jde.ReversibleHeun())
    right = kind.back
    wrong = lambda *of: right(*of)._replace(y=1.01 * right(*of).y)
    monkeypatch.setattr(kind, "back", wrong)
    jax.clear_caches()
    report = jde.check_gradients(geometric, X, [jde.ReversibleAdjoint()], rtol=1e-4)
    assert not report and "the gradient is wrong" in report[jde.ReversibleAdjoint].note


# -------------------- the training problem ----------------------------------------------------------------------------


def predators(t, y, p):
    a, b, c, d = p
    return jnp.stack([a * y[0] - b * y[0] * y[1], -c * y[1] + d * y[0] * y[1]])


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda s: type(s).__name__)
def test_the_gradient_of_the_training_loss(strategy):
    """Reference of DOP853 at 1e-12 with forward sensitivities, to the digits printed; 1e-6 of the largest component."""
    problem = jde.ODEProblem(predators, jnp.ones(2), (0.0, 10.0))

    def loss(p):
        options = {"saveat": np.linspace(0, 10, 101), "rtol": 1e-9, "atol": 1e-9, "gradient": strategy}
        return jnp.sum((jde.solve(problem, jde.Tsit5(), args=p, **options).ys[:, 0] - 1) ** 2)

    value, gradient = jax.jit(jax.value_and_grad(loss))(jnp.array([2.2, 1.0, 2.0, 0.4]))
    assert abs(value - 4324.59795086) < 1e-3
    assert np.allclose(gradient, [53.4912, -1732.953, 4553.001, -29519.82], rtol=0, atol=0.03)


@pytest.mark.parametrize("solve, kind", [(jde.diffeq_rd, jde.ReverseAD), (jde.diffeq_fd, jde.ForwardAD),
                                         (jde.diffeq_adjoint, jde.InterpolatingAdjoint)])  # fmt: skip
def test_one_character_changes_the_method(solve, kind):
    problem = jde.ODEProblem(lambda t, y, p: p * y, jnp.array([1.0]), (0.0, 1.0))
    f = lambda p: solve(problem, jde.Tsit5(), args=p, saveat=jde.SaveAt(t1=True), rtol=1e-9, atol=1e-9).ys[0, 0]
    assert np.allclose(jax.grad(f)(jnp.array(0.5)), np.exp(0.5), rtol=1e-7)
    assert kind.__name__ in solve(problem, args=jnp.array(0.5)).explain()


@pytest.mark.parametrize(
    ("level", "power", "said"), [(0.3, 1, ""), (0.3, 3, "grazing"), (1.0 - 1e-6, 1, "another number")]
)
def test_events_that_hardly_happen_have_no_derivative(level, power, said):
    """y = sin t meets a level, but hardly where that is its top, and a cube has no slope where it meets zero."""
    problem = jde.ODEProblem(lambda t, y, args: jnp.cos(t) + 0 * y, jnp.zeros(1), (0.0, 2.0))
    events = jde.Event(lambda t, y, level: (y[0] - level) ** power, lambda t, y, level: y + 0.1 * t, direction=1)

    def loss(level, gradient):
        options = {"events": events, "gradient": gradient, "saveat": jnp.array([2.0]), "max_events": 3}
        return jde.solve(problem, jde.Tsit5(), args=level, rtol=1e-11, atol=1e-12, **options).ys[0, 0]

    report = jde.check_gradients(loss, level, [jde.ReverseAD()])
    assert bool(report) == (not said) and said in report.smooth and report.smooth in str(report)
