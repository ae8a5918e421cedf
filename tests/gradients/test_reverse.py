"""ReverseAD is the derivative of the steps that were taken, and of nothing else."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiffeq as jde

P = jnp.array([1.3, 0.7])
TIMES = np.array([0.0, 0.5, 1.3, 2.0])


def field(t, y, p):
    return jnp.stack([p[0] * y[1] * jnp.cos(t), -p[1] * y[0] - 0.1 * y[1] ** 3])


def solve(p, f=field, y0=(1.0, -0.5), span=(0.0, 2.0), **options):
    options = {"saveat": TIMES, "rtol": 1e-6, "atol": 1e-6, "max_steps": 256, **options}
    return jde.solve(jde.ODEProblem(f, jnp.asarray(y0), span, args=p), jde.Tsit5(), **options)


def end(p, **options):
    return jnp.sum(solve(p, saveat=jde.SaveAt(t1=True), **options).ys[0] ** 2)


def replayed(p, hs):
    """The same steps with the tableau spelt out, differentiated by JAX."""
    tableau = jde.Tsit5().tableau
    t, y = 0.0, jnp.array([1.0, -0.5])
    for h in hs:
        ks = []
        for c, row in zip(tableau.c, tableau.a, strict=True):
            ks.append(field(t + c * h, y + h * sum((a * k for a, k in zip(row, ks, strict=True)), jnp.zeros(2)), p))
        y = y + h * sum(b * k for b, k in zip(tableau.b, ks, strict=True))
        t = t + h
    return jnp.sum(y**2)


@functools.cache
def steps_and_gradient():
    ts = np.asarray(solve(P, saveat=None).ts)
    return len(ts), jax.grad(replayed)(P, list(np.diff(ts)))


@pytest.mark.parametrize("memory", [None, 2, "sqrt", "all"])
def test_gradient_is_that_of_the_same_steps_at_fixed_sizes(memory):
    """Rounding: some 30 steps of a dozen operations, each 1e-16, in numbers of size one."""
    steps, wanted = steps_and_gradient()
    assert steps > 8  # so that two slots are thinned
    found = jax.jit(jax.grad(lambda p: end(p, gradient=jde.ReverseAD(memory))))(P)
    assert np.allclose(found, wanted, rtol=1e-12, atol=1e-13)


def test_nan_in_rejected_steps_changes_nothing():
    """Law 1: a right-hand side that is NaN where only rejected attempts go gives the same bits."""

    def poisoned(t, y, p):
        slope = -p[0] * y
        return jnp.where(y < -1e-3, jnp.sqrt(y), slope)  # √ of a negative number, in value and derivative

    def smooth(t, y, p):
        return -p[0] * y

    def loss(p, f):
        options = {"first_step": 5.0, "saveat": jde.SaveAt(t1=True)}
        solution = solve(p, f, y0=(1.0,), **options)
        return solution.ys[0, 0], solution.stats.rejected_solver

    (value, rejected), bad = jax.value_and_grad(lambda p: loss(p, poisoned), has_aux=True)(P)
    assert rejected > 0
    assert np.all(np.isfinite(bad))
    assert abs(value - np.exp(-2 * P[0])) < 1e-5
    # the same steps where nothing is NaN, since both reject to the same size
    assert np.allclose(bad, [-2 * value, 0.0], rtol=1e-4)


def test_a_failed_solve_has_its_code_and_the_derivative_of_where_it_came_to():
    """NaN is what it did not come to; see the wall for rows."""

    def loss(p, what):
        solution = solve(p, max_steps=3, throw=False)
        return jnp.sum(getattr(solution, what) ** 2), solution.result

    gradient, code = jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)(P, "y_end")
    assert code == jde.Result.max_steps_reached
    forward, _ = jax.jit(jax.jacfwd(loss, has_aux=True), static_argnums=1)(P, "y_end")
    np.testing.assert_allclose(gradient, forward, rtol=1e-12)
    assert np.all(np.isfinite(gradient)) and np.any(gradient != 0)
    assert np.all(np.isnan(jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)(P, "ys")[0]))


def test_closed_over_values_are_differentiated():
    def loss(p):
        f = lambda t, y, args: field(t, y, p)
        save = jde.SaveAt(ts=TIMES, fn=lambda t, y, args: p[1] * y[0])
        return jnp.sum(solve(None, f, saveat=save).ys)

    def plain(p):
        save = jde.SaveAt(ts=TIMES, fn=lambda t, y, args: args[1] * y[0])
        return jnp.sum(solve(p, saveat=save).ys)

    assert np.allclose(jax.grad(loss)(P), jax.grad(plain)(P), rtol=1e-13)


class Growth(eqx.Module):
    rate: jax.Array
    name: str = eqx.field(static=True)


def test_args_of_every_kind():
    args = {"m": Growth(jnp.array(0.5), "x"), "n": 2, "on": True, "key": jax.random.key(0), "none": None}

    def f(t, y, args):
        noise = 0.0 * jax.random.normal(args["key"])
        return (args["m"].rate * y + noise) * (args["n"] if args["on"] else 0)

    def loss(args):
        return solve(args, f, y0=(1.0,), saveat=jde.SaveAt(t1=True), rtol=1e-9, atol=1e-9).ys[0, 0]

    gradient = eqx.filter_grad(loss)(args)
    assert np.allclose(gradient["m"].rate, 4 * np.exp(2.0), rtol=1e-7)  # y(2) = exp(2·rate·2)


def test_unused_outputs_and_zero_cotangents():
    gradient = jax.grad(lambda p: 0.0 * jnp.sum(solve(p).ys) + jnp.sum(solve(p, saveat=None).ys[0]))(P)
    assert np.array_equal(gradient, [0.0, 0.0])


def test_vmap_of_grad_and_grad_of_vmap():
    ps = P[None] * jnp.array([[0.5], [1.0], [3.0]])
    gradient = jax.jit(jax.grad(end))
    each = jnp.stack([gradient(p) for p in ps])
    assert np.allclose(jax.jit(jax.vmap(gradient))(ps), each, rtol=1e-12, atol=1e-14)
    assert np.allclose(jax.jit(jax.grad(lambda ps: jnp.sum(jax.vmap(end)(ps))))(ps), each, rtol=1e-12, atol=1e-14)


# -------------------- time --------------------------------------------------------------------------------------------

FINE = {"rtol": 1e-10, "atol": 1e-10}


def grow(t, y, p):
    return p * t * y


def grown(y0, t0, t, p):
    return y0 * jnp.exp(p * (t**2 - t0**2) / 2)


@pytest.mark.parametrize("span", [(0.3, 1.5), (1.5, 0.3)], ids=["forwards", "backwards"])
def test_times(span):
    """y(t) = y₀·exp(p(t² − t₀²)/2): with respect to both ends, a time to save at, y0 and p."""

    def loss(x):
        y0, t0, t1, at, p = x
        save = jde.SaveAt(ts=jnp.stack([at]), t1=True)
        ys = solve(p, grow, y0=jnp.stack([y0]), span=(t0, t1), saveat=save, **FINE).ys[:, 0]
        return ys[0] + 2 * ys[1] ** 2

    def true(x):
        y0, t0, t1, at, p = x
        return grown(y0, t0, at, p) + 2 * grown(y0, t0, t1, p) ** 2

    x = jnp.array([0.9, *span, 0.8, 0.6])
    assert np.allclose(jax.jit(jax.grad(loss))(x), jax.grad(true)(x), rtol=1e-7, atol=1e-8)


def test_a_stop_where_f_jumps():
    """dy/dt = a before T and b after: dL/dT = a − b."""

    def loss(stop):
        f = lambda t, y, p: jnp.where(t < stop, 3.0, -1.0) * jnp.ones_like(y)
        return solve(None, f, y0=(0.0,), saveat=jde.SaveAt(t1=True), stops=jnp.stack([stop])).ys[0, 0]

    assert np.allclose(jax.grad(loss)(0.7), 4.0, rtol=1e-12)


def test_a_span_of_no_length():
    def loss(y0):
        return jnp.sum(solve(P, y0=y0, span=(1.0, 1.0), saveat=np.array([1.0])).ys)

    assert np.array_equal(jax.grad(loss)(jnp.array([1.0, 2.0])), [1.0, 1.0])


def test_complex():
    """y' = cy, L = Re(w·y(T)): JAX's cotangent of c is w·T·y(T), not its conjugate."""
    c, w = 0.3 + 1.1j, 0.5 - 2j

    def loss(c):
        f = lambda t, y, c: c * y
        return jnp.real(w * solve(c, f, y0=(1.0 + 0j,), saveat=jde.SaveAt(t1=True), **FINE).ys[0, 0])

    assert np.allclose(jax.grad(loss)(jnp.array(c)), w * 2 * np.exp(2 * c), rtol=1e-8)


@pytest.mark.parametrize("name", ["RKF45", "Vern8", "KenCarp5", "ESDIRK659L2SA"])
def test_saved_values_between_steps(name):
    """Of interpolants that call f, whose weights are large, that come from stages and from those of two parts."""
    weights = jnp.array([1.0, -2.0])

    def loss(p):
        options = {"saveat": [0.5, 1.9], "controller": jde.FixedSteps(6), **FINE}
        problem = jde.ODEProblem(field, jnp.array([1.0, -0.5]), (0.0, 2.0), p)
        return jnp.sum(jde.solve(problem, getattr(jde, name)(), **options).ys @ weights)

    found = jax.grad(loss)(P)
    differences = [(loss(P + h) - loss(P - h)) / 2e-5 for h in 1e-5 * np.eye(2)]
    np.testing.assert_allclose(found, differences, rtol=1e-7)
