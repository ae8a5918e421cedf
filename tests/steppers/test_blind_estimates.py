"""No error estimate of a method of one step is blind to integrals, to linear or to forced linear equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.made import MADE
from scipy.integrate import solve_ivp

import jaxdiffeq as jde
from jaxdiffeq.engine.control import Tolerance
from jaxdiffeq.problems.vector_field import VectorField
from jaxdiffeq.types import State

METHODS = {name: m for name, m in MADE.items() if hasattr(m, "tableau") and m.error_order is not None}
MATRIX = np.array([[0.0, 1.0], [-1.0, -0.3]])
CASES = {"quadrature": (0.0, 1.0), "linear": (1.0, 0.0), "forced": (1.0, 1.0)}
END = jde.SaveAt(t1=True)
TIGHT = Tolerance(jnp.asarray(1e-13), jnp.asarray(1e-13))
T0, Y0 = 0.3, np.array([1.0, 0.5])


def field(t, y, share):
    return share[0] * (MATRIX @ y) + share[1] * jnp.stack([jnp.cos(3 * t), jnp.sin(2 * t)])


def exact(share, width):
    slope = lambda t, y: share[0] * (MATRIX @ y) + share[1] * np.array([np.cos(3 * t), np.sin(2 * t)])
    return solve_ivp(slope, (T0, T0 + width), Y0, "DOP853", rtol=1e-13, atol=1e-14).y[:, -1]


@pytest.mark.parametrize("name", METHODS)
def test_an_estimate_sees_every_kind_of_error(name):
    """A step so long that the error is far above rounding: of the estimate it is at most a hundred times as large."""
    method, f = METHODS[name], VectorField(field)
    width = 0.5 if method.order <= 5 else 1.5 if method.order <= 9 else 3.0

    def step(share):
        t, y = jnp.asarray(T0), jnp.asarray(Y0)
        taken = method.step(f, State(t, y, method.init(f, t, y, share)), t + width, share, TIGHT)
        return taken.after.y, taken.error

    shares = jnp.array(list(CASES.values()))
    ends, estimates = jax.jit(lambda shares: jax.lax.map(step, shares))(shares)
    unseen = set()
    for case, end, estimate in zip(CASES, ends, estimates, strict=True):
        error = np.abs(end - exact(CASES[case], width)).max()
        if np.abs(estimate).max() < 1e-2 * error - 1e-13:
            unseen.add(case)
    assert not unseen


@pytest.mark.parametrize("name", ["RKF78", "Feagin10", "Feagin12", "Feagin14", "Rodas5"])
def test_an_integral_beside_an_oscillator(name):
    """Their own estimates compare slopes at the same time."""
    running = jde.ODEProblem(
        lambda t, y, _: jnp.stack([y[1], -y[0], jnp.cos(20 * t)]), jnp.array([1.0, 0.0, 0.0]), (0.0, 3.0)
    )
    for tol in (1e-5, 1e-8, 1e-11):
        end = jde.solve(running, METHODS[name], saveat=[3.0], rtol=tol, atol=tol).ys[-1]
        assert np.abs(end - np.array([np.cos(3), -np.sin(3), np.sin(60) / 20])).max() < 10 * tol


@pytest.mark.parametrize("name", ["ROS3P", "ROS3PR", "ROS34PW1a", "ROS34PW1b"])
def test_a_damped_oscillator(name):
    """Their own estimates vanish: four steps, and errors of 6000 tolerances."""
    swings = jde.ODEProblem(field, Y0, (T0, T0 + 10.0), (1.0, 0.0))
    for tol in (1e-4, 1e-6):
        end = jde.solve(swings, METHODS[name], saveat=END, rtol=tol, atol=tol).ys[-1]
        assert np.abs(end - exact((1.0, 0.0), 10.0)).max() < 20 * tol
