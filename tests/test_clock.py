"""Times that rounding makes the same are refused, with what to do; those within rounding of the ends are the ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiffeq as jde

SINGLE = jnp.ones(1, jnp.float32)
END = jde.SaveAt(t1=True)


def solve(tspan, y0=SINGLE, method=None, **options):
    options = {"saveat": END, **options}
    return jde.solve(
        jde.ODEProblem(lambda t, y, k: -k * y, y0, tspan, 1.0), jde.BS3() if method is None else method, **options
    )


CURE = r"Shift the origin of time, integrate over \(0, t1 - t0\) and let f add t0; or give a `y0` of float64"


@pytest.mark.parametrize(
    "span", [(2460000.0, 2460000.1), (1.7e9, 1.7e9 + 60), (2023.5, 2023.50005), (-1e9, -1e9 - 5000)]
)
@pytest.mark.parametrize("around", [lambda f: f, jax.jit, jax.vmap], ids=["eager", "jit", "vmap"])
def test_a_span_that_rounds_to_nothing(span, around):
    message = r"`tspan` = \(.*units of rounding long in float32.*256 at least. " + CURE
    with pytest.raises(ValueError, match=message):
        around(lambda y0: solve(span, y0).ys)(SINGLE[None])
    length = span[1] - span[0]
    np.testing.assert_allclose(solve((0.0, length), args=1 / length).ys, np.exp([[-1.0]]), rtol=1e-2)


def test_a_span_of_float64_is_as_good_as_another():
    days = solve(tuple(np.array([2460000.0, 2460000.1])), jnp.ones(1), rtol=1e-6)
    np.testing.assert_allclose(days.ys, np.exp(-0.1), rtol=1e-5)
    with pytest.raises(ValueError, match=r"units of rounding long in float64.*let f add t0\.$"):
        solve((1.7e9, 1.7e9 + 1e-5), jnp.ones(1))
    assert solve((1.7e9, 1.7e9)).status == "success"  # an instant is one


def test_a_traced_span_that_rounds_to_noise_fails():
    run = lambda t1, controller: solve((np.float32(2460000.0), t1), controller=controller, throw=False)
    for controller in (None, jde.FixedSteps(2)):
        sol = jax.jit(lambda t1, controller=controller: run(t1, controller))(jnp.float32(2460001.0))
        assert sol.status == "step_size_too_small" and np.all(np.isnan(sol.ys))
    batch = jax.vmap(lambda t1: run(t1, None).result)(jnp.array([2460001.0, 2460100.0], jnp.float32))
    assert batch.tolist() == [jde.Result.step_size_too_small, jde.Result.success]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"saveat": [2460000.01, 2460000.02]},
            r"`saveat` has 2460000.01 and 2460000.02, which are the same time in float32",
        ),
        ({"saveat": 0.1}, r"`saveat` has 24600\d\d.\d+ and .* the same time in float32"),
        ({"stops": [2460050.0, 2460050.1]}, r"`stops` has 2460050.0 and 2460050.1"),
        ({"stops": [2460000.05]}, r"`stops` has 2460000.0 and 2460000.05"),
        ({"first_step": 0.1}, r"`first_step` gives steps of 0.1, which do not move a time of size 2460100 in float32"),
        ({"controller": jde.FixedSteps(dt=0.1)}, r"`FixedSteps` gives steps of 0.1"),
        ({"controller": jde.FixedSteps(1000)}, r"`FixedSteps` gives steps of 0.1"),
        ({"controller": jde.PIDController(max_step=0.1)}, r"`max_step` gives steps of 0.1"),
    ],
)
def test_times_and_steps_likewise(options, message):
    span = 2460000.0, 2460100.0
    with pytest.raises(ValueError, match=message + ".*" + CURE):
        solve(span, **options)
    with pytest.raises(ValueError, match=message):
        jax.jit(lambda y0: solve(span, y0, **options).ys)(SINGLE)


@pytest.mark.parametrize("span", [(0.0, 0.3), (0.3, 0.0), (-2.0, 0.3)])
def test_dense_output_and_saved_times_agree_on_the_ends(span):
    low, high = np.nextafter(min(span), -9), np.nextafter(max(span), 9)
    saved = solve(span, jnp.ones(1), saveat=np.array([low, high]))
    dense = solve(span, jnp.ones(1), dense=True)
    np.testing.assert_allclose(saved.ys, dense(np.array([low, high])), rtol=1e-14)
    assert np.all(np.isfinite(dense.derivative(np.array([low, high]))))
    np.testing.assert_allclose(jax.vmap(dense)(jnp.array([low, high])), saved.ys, rtol=1e-14)
    assert np.all(np.isnan(dense(np.array([min(span) - 1e-12, max(span) + 1e-12]))))
    instant = solve((span[0], span[0]), jnp.ones(1), dense=True)
    assert instant(np.nextafter(span[0], 9)) == 1.0
