"""t₀ = t₁: no step is taken, and yet y(t) = y₀ + (t − t₀)·f(t₀, y₀) + … says how the solution moves with its times."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiffeq as jde
from jaxdiffeq.gradients import support as table

SERVES = [kind for kind in table.STRATEGIES if table.serves(kind, "ODEProblem")]
STRATEGIES = pytest.mark.parametrize("kind", SERVES, ids=lambda kind: kind.__name__)
X = jnp.array([0.9, 0.5, 0.5, 0.5, 0.7])  # y0, t0, t1, a time to save at, p


def field(t, y, p):
    return jnp.cos(t) + p * y


def fn(t, y, p):
    return (1 + t) * y**2 + p


def solved(x, gradient, field=field):
    y0, t0, t1, at, p = x
    save = jde.SaveAt(ts=jnp.stack([at, t0]), t1=True, fn=fn)
    options = {"saveat": save, "rtol": 1e-9, "atol": 1e-9, "max_steps": 64, "gradient": gradient}
    return jde.solve(jde.ODEProblem(field, y0, (t0, t1), p), jde.Tsit5(), **options).ys


def first_order(x):
    y0, t0, t1, at, p = x
    return jnp.stack([fn(t, y0 + (t - t0) * field(t0, y0, p), p) for t in (at, t0, t1)])


@STRATEGIES
def test_the_end_and_saved_values_move_with_the_times(kind):
    """Exact: nothing is integrated. Each derivative is a handful of operations, in numbers below ten."""
    wanted = jax.jacobian(first_order)(X)
    assert abs(wanted[2, 2]) > 4  # so that a zero would be seen
    found = jax.jit(jax.jacrev(lambda x: solved(x, kind())))(X)
    np.testing.assert_allclose(found, wanted, rtol=1e-14, atol=1e-14)


def test_and_in_forward_mode_which_is_one_for_all_strategies():
    found = jax.jit(jax.jacfwd(lambda x: solved(x, jde.ReverseAD())))(X)
    np.testing.assert_allclose(found, jax.jacobian(first_order)(X), rtol=1e-14, atol=1e-14)


def test_among_lanes_that_take_steps():
    """A lane's derivative is what it is alone, and in the limit of a short span that of an instant."""
    ends = jnp.array([0.5, 0.5 + 1e-9, 1.3])

    @jax.jit
    def gradient(t1):
        return jax.grad(lambda x: solved(x, jde.ReverseAD())[2])(X.at[2].set(t1).at[3].set(0.5))

    lanes = jax.jit(jax.vmap(gradient))(ends)
    np.testing.assert_allclose(lanes[0], lanes[1], rtol=1e-7, atol=1e-8)
    for lane, t1 in zip(lanes, ends, strict=True):
        np.testing.assert_allclose(lane, gradient(t1), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("gradient", [jde.ReverseAD(), jde.ForwardAD()], ids=["reverse", "forward"])
def test_complex_states_of_several_leaves(gradient):
    """y' = i·y and z' = t: Re of the cotangent −i gives the imaginary part of dy/dt₁ = i·y₀."""

    def end(times):
        y0 = {"y": jnp.array([2.0 + 1.0j]), "z": jnp.array(0.5)}
        problem = jde.ODEProblem(lambda t, s, _: {"y": 1j * s["y"], "z": t}, y0, (times[0], times[1]))
        end = jde.solve(problem, jde.Tsit5(), saveat=jde.SaveAt(t1=True), gradient=gradient, max_steps=16).y_end
        return jnp.imag(end["y"][0]) + 10 * end["z"]

    np.testing.assert_allclose(jax.jit(jax.grad(end))(jnp.array([0.3, 0.3])), [-5.0, 5.0], rtol=1e-14)
    assert jax.jit(lambda d: jax.jvp(end, (jnp.array([0.3, 0.3]),), (d,)))(jnp.array([0.0, 1.0]))[1] == 5.0
