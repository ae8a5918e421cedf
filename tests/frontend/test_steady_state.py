"""Steady states: roots, their derivatives, and what must be said to have none."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiffeq as jde
from jaxdiffeq.algebra.structure import Banded


def square(y, a):
    return y * y - a


def turning(y, a):
    """Newton's full step from y0 = 10 leads further and further away: |y| > 1.39 diverges."""
    return a - jnp.arctan(y)


def switch(y, args):
    """Two genes that hold each other down, and a pytree; leaves of different shapes."""
    x, z = y["x"], y["z"]
    return {"x": args["a"] / (1 + z**2) - x, "z": args["b"] / (1 + jnp.sum(x) ** 2) - z}


START = {"x": jnp.array([1.0, 0.5]), "z": jnp.array(0.2)}
RATES = {"a": jnp.array([2.0, 0.7]), "b": jnp.array(0.9)}


@pytest.mark.parametrize(
    ("f", "y0", "a", "root"),
    [
        (square, 1.0, 2.0, 2**0.5),
        (square, -3, 2.0, -(2**0.5)),
        (square, 1 + 1j, -2.0 + 0j, 1j * 2**0.5),
        (turning, 10.0, 0.3, np.tan(0.3)),
        (lambda y, a: jnp.log(y) - a, 9.0, -1.0, np.exp(-1)),  # a full step leaves the domain of log
        (lambda y, a: a - y, 5.0, 0.0, 0.0),
    ],
    ids=["above", "integer", "complex", "damped", "domain", "linear"],
)
def test_closed_forms(f, y0, a, root):
    found = jde.solve(jde.SteadyStateProblem(f, y0, a), rtol=1e-8, atol=1e-8)
    assert found.status == "success"
    assert found.ok
    np.testing.assert_allclose(found.ys, root, rtol=1e-12, atol=1e-15)


def test_newton_alone_diverges_where_damping_does_not():
    y = 10.0
    for _ in range(5):
        y = y + (0.3 - np.arctan(y)) * (1 + y * y)
    assert abs(y) > 1e6
    assert jde.solve(jde.SteadyStateProblem(turning, 10.0, 0.3)).stats.rejected_solver > 0


def test_the_flow_leads_on_where_newton_stalls():
    """|f| has a minimum at y = 0 that is not zero, where ∂f/∂y = 0: no damped step leaves it."""

    def f(y, _):
        return 1 + y * y - 0.2 * y**3

    found = jde.solve(jde.SteadyStateProblem(f, -1.0), rtol=1e-10)
    root = max(np.roots([-0.2, 1, 0, 1]).real, key=abs)
    assert found.status == "success"
    assert found.stats.rejected_solver >= 10  # every damping factor was tried
    np.testing.assert_allclose(found.ys, root, rtol=1e-12)


@pytest.mark.parametrize(
    ("f", "y0", "status"),
    [
        (lambda y, _: y * y + 1, 1.0, "nonlinear_solve_failed"),
        (lambda y, _: y * y, 1.0, "nonlinear_solve_failed"),  # a double root has no derivative
        (lambda y, _: jnp.stack([y[0] + y[1] - 1, 2 * (y[0] + y[1]) - 3]), jnp.zeros(2), "nonlinear_solve_failed"),
        (lambda y, _: jnp.log(y), -1.0, "nonfinite"),
    ],
    ids=["no root", "double root", "singular", "outside"],
)
def test_failure_is_reported(f, y0, status):
    found = jde.solve(jde.SteadyStateProblem(f, y0), throw=False)
    assert found.status == status
    assert np.isnan(found.ys).all()
    with pytest.raises(jde.SolveError, match=status):
        jde.solve(jde.SteadyStateProblem(f, y0))


# ---- conserved totals


def reactions(y, k):
    """A ⇌ B + C and B ⇌ C, of which A + B + C never changes: with equal rates C = B, A = B², B = √(1 + total) − 1."""
    first, second = k[0] * y[0] - k[1] * y[1] * y[2], k[2] * y[1] - k[3] * y[2]
    return jnp.stack([-first, first - second, second])


def exchange(y, args):
    """Two vessels, of volumes V: V₀·y₀ + V₁·y₁ never changes, so both end at its share of V₀ + V₁."""
    flux = args["rate"] * (y[1] - y[0])
    return jnp.stack([flux, -flux]) / args["volume"]


def test_a_conserved_total_is_kept():
    for y0 in ([100.0, 1.0, 1.0], [0.0, 102.0, 0.0], [0.0, 0.0, 0.0]):
        for root in ("nearest", "flow"):
            total = sum(y0)
            problem = jde.SteadyStateProblem(reactions, jnp.array(y0), jnp.full(4, 0.1), root=root)
            found = jde.solve(problem, rtol=1e-8, atol=1e-10)
            b = np.sqrt(1 + total) - 1
            np.testing.assert_allclose(found.ys, [b * b, b, b], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("mode", [jax.jacrev, jax.jacfwd])
def test_derivatives_with_a_conserved_total(mode):
    """The weights of the total depend on the volumes, and the total on y0."""

    def end(y0, volume):
        args = {"rate": 1e-3, "volume": volume}
        return jde.solve(jde.SteadyStateProblem(exchange, y0, args)).ys

    def exact(y0, volume):
        return jnp.full(2, volume @ y0 / jnp.sum(volume))

    at = jnp.array([3.0, 1.0]), jnp.array([2.0, 500.0])
    found, wanted = (jax.jit(lambda *at, run=run: (run(*at), *mode(run, (0, 1))(*at)))(*at) for run in (end, exact))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), found, wanted)


def test_random_networks_end_where_their_flow_does():
    """Unimolecular reactions at rates over eight orders: what is conserved follows from which of them there are."""
    rng = np.random.default_rng(7)
    n, lanes = 6, 8
    rates = np.where(rng.random((lanes, n, n)) < 0.3, 10 ** rng.uniform(-4, 4, (lanes, n, n)), 0)
    y0 = rng.random((lanes, n))

    def f(y, k):
        return k.T @ y - jnp.sum(k, axis=1) * y

    found = jax.jit(jax.vmap(lambda y0, k: jde.solve(jde.SteadyStateProblem(f, y0, k))))(y0, rates)
    for y, start, k in zip(found.ys, y0, rates, strict=True):
        generator = k.T - np.diag(k.sum(1))
        power = np.eye(n) + generator / np.abs(generator).max()  # of stochastic columns: its powers are the flow
        for _ in range(60):
            power = power @ power
            power /= power.sum(0)
        np.testing.assert_allclose(y, power @ start, rtol=1e-6, atol=1e-9)


def toggle(y, a):
    return jnp.stack([a / (1 + y[1] ** 4) - y[0], a / (1 + y[0] ** 4) - y[1]])


def test_the_flow_decides_between_roots():
    """Newton's method lands on the middle root, which is unstable, from most places; the flow never does."""
    cubic = lambda y, _: -(y - 1) * (y - 2) * (y - 4)
    for y0 in (-50.0, 0.0, 1.9, 2.1, 3.0, 100.0):
        flow = jde.solve(jde.SteadyStateProblem(cubic, y0, root="flow"))
        np.testing.assert_allclose(flow.ys, 1.0 if y0 < 2 else 4.0, rtol=1e-9)
    assert jde.solve(jde.SteadyStateProblem(cubic, 1.9)).ys == pytest.approx(2.0)
    for y0 in ([1.0, 1.2], [1.2, 1.0], [1.5, 1.4999]):
        flow = jde.solve(jde.SteadyStateProblem(toggle, jnp.array(y0), 3.0, root="flow")).ys
        assert (flow[0] > flow[1]) == (y0[0] > y0[1])
        assert max(abs(toggle(flow, 3.0))) < 1e-6


def test_a_flow_that_slows_down_for_ever_is_no_root():
    """Robertson's kinetics end as 1/t, at a multiple root."""

    def kinetics(y, k):
        slow, back, fast = k[0] * y[0], k[2] * y[1] * y[2], k[1] * y[1] ** 2
        return jnp.stack([back - slow, slow - back - fast, fast])

    for root in ("nearest", "flow"):
        problem = jde.SteadyStateProblem(kinetics, jnp.array([1.0, 0, 0]), jnp.array([0.04, 3e7, 1e4]), root=root)
        assert jde.solve(problem, throw=False, max_steps=5000).status == "nonlinear_solve_failed"


def test_a_root_is_one_of_two():
    with pytest.raises(ValueError, match="`root` must be one of 'nearest', 'flow', but is 'newton'"):
        jde.SteadyStateProblem(square, 1.0, 2.0, root="newton")


def test_a_singular_jacobian_with_a_structure_is_a_failure():
    """Totals are looked for in dense Jacobians alone; no root may come from dividing by rounding."""

    def insulated(y, _):
        flux = jnp.diff(y) * jnp.linspace(1.0, 2.0, 11)
        return jnp.diff(flux, prepend=0.0, append=0.0)

    y0 = jnp.sin(jnp.arange(12.0))
    kept = jde.solve(jde.SteadyStateProblem(insulated, y0))
    np.testing.assert_allclose(kept.ys, jnp.mean(y0), rtol=1e-12)
    problem = jde.SteadyStateProblem(insulated, y0, jac_structure=Banded(1, 1))
    assert jde.solve(problem, throw=False).status == "nonlinear_solve_failed"


def test_a_bound_on_steps():
    found = jde.solve(jde.SteadyStateProblem(square, 1e6, 2.0), max_steps=3, throw=False)
    assert found.status == "max_steps_reached"
    assert found.stats.steps == 3


def loss(args):
    y = jde.solve(jde.SteadyStateProblem(switch, START), args=args, rtol=1e-10, atol=1e-10).ys
    return jnp.sum(jnp.array([1.0, 3.0]) * y["x"]) + y["z"] ** 2


def test_pytrees_and_gradients():
    y = jde.solve(jde.SteadyStateProblem(switch, START, RATES), rtol=1e-10, atol=1e-10).ys
    assert jax.tree.structure(y) == jax.tree.structure(START)
    assert max(float(jnp.max(jnp.abs(x))) for x in jax.tree.leaves(switch(y, RATES))) < 1e-13
    compiled, reverse = jax.jit(loss), jax.grad(loss)(RATES)
    forward = jax.jacfwd(loss)(RATES)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), forward, reverse)
    h = 1e-5
    for name, at in (("a", 0), ("a", 1), ("b", ())):
        ends = [compiled({**RATES, name: RATES[name].at[at].add(s * h)}) for s in (1, -1)]
        np.testing.assert_allclose(reverse[name][at], (ends[0] - ends[1]) / (2 * h), rtol=1e-8)


def root_of(a):
    return jde.solve(jde.SteadyStateProblem(square, 1.0, 2.0), args=a, rtol=1e-10, throw=False).ys


def test_derivatives_of_the_root_of_a_number():
    """y = √a: y′ = a^(−1/2)/2, y″ = −a^(−3/2)/4; and NaN where there is no root."""
    a = jnp.array([1.0, 2.0, -1.0, 3.0])
    real = a > 0
    good = np.where(real, a, 1.0)
    y, slope, bend = (np.asarray(jax.vmap(g)(a)) for g in (root_of, jax.grad(root_of), jax.hessian(root_of)))
    for found, exact in ((y, good**0.5), (slope, good**-0.5 / 2), (bend, -(good**-1.5) / 4)):
        np.testing.assert_allclose(found[real], exact[real], rtol=1e-12)
        assert np.isnan(found[~real]).all()
    np.testing.assert_array_equal(y[real], [root_of(x) for x in a[real]])  # vmap = single


def test_what_f_closes_over_has_a_gradient():
    def closing(a):
        return jde.solve(jde.SteadyStateProblem(lambda y, _: y * y - a, 1.0), rtol=1e-10, gradient=strategy).ys

    strategy = jde.SteadyStateAdjoint()
    np.testing.assert_allclose(jax.grad(closing)(2.0), 2**-1.5, rtol=1e-12)
    guess = jax.grad(lambda y0: jde.solve(jde.SteadyStateProblem(square, y0, 2.0)).ys)(1.0)
    assert guess == 0


def diffusion(y, load):
    return jnp.concatenate([y[1:], jnp.zeros(1)]) - 2 * y + jnp.concatenate([jnp.zeros(1), y[:-1]]) - y**3 + load


def bend(y, _):
    return jnp.eye(12, k=1) - 2 * jnp.eye(12) + jnp.eye(12, k=-1) - jnp.diag(3 * y**2)


@pytest.mark.parametrize("options", [{"jac_structure": Banded(1, 1)}, {"jac": bend}], ids=["banded", "given"])
def test_structure_and_a_given_jacobian(options):
    load, y0 = jnp.linspace(0.0, 1.0, 12), jnp.zeros(12)

    def state(load, **options):
        return jde.solve(jde.SteadyStateProblem(diffusion, y0, load, **options), rtol=1e-10, atol=1e-10).ys

    plain, same = state(load), state(load, **options)
    np.testing.assert_allclose(same, plain, rtol=1e-12)
    weights = jnp.cos(jnp.arange(12.0))
    jacobian = bend(plain, None)
    exact = -np.linalg.solve(jacobian.T, weights)
    np.testing.assert_allclose(jax.grad(lambda load: weights @ state(load, **options))(load), exact, rtol=1e-10)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"saveat": 0.1}, TypeError, "takes no `saveat`"),
        ({"method": jde.Tsit5()}, TypeError, "takes no `method`"),
        ({"dense": True}, TypeError, "takes no `dense`, `stops` or `regularisers`"),
        ({"regularisers": ("error",)}, TypeError, "takes no `dense`, `stops` or `regularisers`"),
        ({"gradient": jde.BacksolveAdjoint()}, NotImplementedError, "SteadyStateAdjoint"),
        ({"rtol": -1.0}, ValueError, "rtol"),
        ({"max_steps": 0}, ValueError, "max_steps"),
        ({"y0": jnp.nan}, ValueError, "must be finite"),
        ({"y0": "x"}, TypeError, "must be numeric"),
        ({"tspan": (0, 1)}, TypeError, "has no field 'tspan'"),
        ({"f": lambda t, y, args: y}, TypeError, "must take 2 arguments"),
        ({"f": lambda y, args: jnp.stack([y, y])}, ValueError, "shapes of `y0`"),
    ],
)
def test_bad_input(options, error, match):
    with pytest.raises(error, match=match):
        jde.solve(jde.SteadyStateProblem(square, 1.0, 2.0), **options)


def test_an_error_in_f_is_raised_as_it_is():
    def broken(y, _):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        jde.solve(jde.SteadyStateProblem(broken, 1.0))


def test_float32_and_jit():
    found = jax.jit(lambda a: jde.solve(jde.SteadyStateProblem(square, jnp.float32(1), a)))(jnp.float32(2))
    assert found.ys.dtype == jnp.float32
    assert found.result == 0
    np.testing.assert_allclose(found.ys, 2**0.5, rtol=4 * float(np.finfo(np.float32).eps))


def test_a_tolerance_below_the_precision_warns_at_the_caller():
    with pytest.warns(UserWarning, match=r"rtol = 1.0e-20 is below what float64 can resolve") as seen:
        jde.solve(jde.SteadyStateProblem(square, 1.0, 2.0), rtol=1e-20)
    assert [w.filename for w in seen] == [__file__]


@pytest.mark.parametrize("takes_time", [jde.recommend, jde.Integrator, jde.trace])
def test_a_state_at_rest_is_no_span_to_integrate(takes_time):
    with pytest.raises(TypeError, match=r"but got SteadyStateProblem"):
        takes_time(jde.SteadyStateProblem(square, 1.0, 2.0))


def test_modules_and_new_numbers_share_a_program():
    """f is traced once, whatever its parameters are: those of a module are arrays of the plan, not part of it."""
    traces = []

    class Cube(eqx.Module):
        scale: jax.Array

        def __call__(self, y, a):
            traces.append(a)
            return self.scale * y**3 - a

    for scale, a in ((1.0, 8.0), (2.0, 54.0), (4.0, 32.0)):
        found = jde.solve(jde.SteadyStateProblem(Cube(jnp.array(scale)), 2.0, a), rtol=1e-10)
        np.testing.assert_allclose(found.ys, (a / scale) ** (1 / 3), rtol=1e-12)
    assert len(traces) <= 2
