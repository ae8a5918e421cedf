"""`check_gradients` finds what is wrong, and the reason to have it: Lorenz's equations do not run backwards."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiffeq as jde
from jaxdiffeq.gradients import table

STRATEGIES = [kind() for kind in table.STRATEGIES]


def lorenz(t, y, p):
    a, b, c = p
    return jnp.stack([a * (y[1] - y[0]), y[0] * (b - y[2]) - y[1], y[0] * y[1] - c * y[2]])


P = jnp.array([10.0, 28.0, 8 / 3])


def lorenz_end(y0, span, **options):
    options = {"rtol": 1e-12, "atol": 1e-12, "max_steps": 200_000, "throw": False, **options}
    return jde.solve(jde.ODEProblem(lorenz, y0, span, args=P), jde.Vern9(), **options)


@pytest.mark.slow
def test_lorenz_does_not_run_backwards():
    """From t = 100 back: errors grow like e^{14.6·t}, so figures hold within a factor of a few; then divergence.

    The published relative errors, with DOP853 at the same tolerance: 1e-9 after one unit of time, 1.2 % after two, 236
    % after 2.5, 6050 % after 2.75.
    """
    forward = lorenz_end(jnp.array([1.0, 0.0, 0.0]), (0.0, 100.0), saveat=100 - np.array([2.75, 2.5, 2.0, 1.0, 0.0]))
    back = lorenz_end(forward.ys[-1], (100.0, 97.25), saveat=100 - np.array([2.75, 2.5, 2.0, 1.0]))
    error = np.linalg.norm(back.ys - forward.ys[:-1], axis=1) / np.linalg.norm(forward.ys[:-1], axis=1)
    wanted = np.array([60.5, 2.36, 0.012, 1.1e-9])
    # e^{14.6·t} amplifies the rounding of another method, and where on the attractor t = 100 lands is chaotic itself:
    # the rates are those of the attractor, the constants are not
    assert np.all(error > wanted / 300)
    assert np.all(error < wanted * 300)
    growth = np.log(error[2] / error[3])
    assert 8 < growth < 22
    assert lorenz_end(forward.ys[-1], (100.0, 0.0), saveat=jde.SaveAt(t1=True)).result != jde.Result.success


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
