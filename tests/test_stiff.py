"""What stiff problems ask for: methods, tolerances by component, controllers, IMEX, and a DAE as a layer."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdiffeq as jde

END = jde.SaveAt(t1=True)


def robertson(t, y, rates):
    a, b, c = y
    slow, fast, back = rates[0] * a, rates[1] * b * b, rates[2] * b * c
    return jnp.stack([-slow + back, slow - back - fast, fast])


ROBERTSON = jde.ODEProblem(robertson, jnp.array([1.0, 0.0, 0.0]), (0.0, 1e11), jnp.array([0.04, 3e7, 1e4]))

# ---- explicit methods


@pytest.mark.parametrize("method", [jde.Tsit5(), jde.Adams()], ids=["Tsit5", "Adams"])
@pytest.mark.parametrize("rtol", [1e-3, 1e-6])
def test_an_explicit_method_names_stiff_ones_in_its_error(method, rtol):
    """Whether it runs out of steps or, between loose tolerances, runs away to where f overflows."""
    with pytest.raises(jde.SolveError, match=r"stiff.* Rodas5P\(\)\)?`? or .*BDF\(\)") as raised:
        jde.solve(ROBERTSON, method, saveat=END, rtol=rtol, atol=1e-3 * rtol, max_steps=20_000)
    stopped = raised.value.solution
    assert stopped.status in ("max_steps_reached", "nonfinite", "step_size_too_small")
    assert stopped.stats.steps <= 20_000 and stopped.t_end < 100
    assert np.isnan(stopped.ys[-1]).all()


# ---- tolerances by component


@functools.cache
def along():
    """Robertson's problem by KenCarp4, at times even in log t, with y a pytree of two."""

    def field(t, y, rates):
        major, minor = y["major"], y["minor"]
        d = robertson(t, jnp.stack([major[0], minor, major[1]]), rates)
        return {"major": d[::2], "minor": d[1]}

    start = {"major": jnp.array([1.0, 0.0]), "minor": jnp.array(0.0)}
    prob = jde.ODEProblem(field, start, (0.0, 1e11), ROBERTSON.args)
    ts = jnp.geomspace(1e-4, 1e11, 31)

    @jax.jit
    def run(major, minor, rtol=1e-6):
        return jde.solve(prob, jde.KenCarp4(), saveat=ts, rtol=rtol, atol={"major": major, "minor": minor})

    return run, ts


ROOM = [[1e-6, 1e-6], [1e-6, 1e-10], [1e-12, 1e-16]]
"""atol of the major components and of the minor one, which is at most 3.6e-5 and ends at 8e-14"""


@functools.cache
def off():
    """Largest relative error of y₂ until t = 1000, and of y₁ in the end, for each of ROOM."""
    run, ts = along()
    truth = run(1e-16, 1e-22, 1e-9).ys
    np.testing.assert_allclose(truth["major"][-1], [2.0833401e-8, 0.9999999791665], rtol=1e-6)
    np.testing.assert_allclose(truth["minor"][-1], 8.3333607e-14, rtol=1e-6)
    sols = [run(*room) for room in ROOM]
    early = [float(jnp.max(jnp.abs(s.ys["minor"] / truth["minor"] - 1)[ts < 1e3])) for s in sols]
    late = [float(jnp.abs(s.ys["major"][-1, 0] / truth["major"][-1, 0] - 1)) for s in sols]
    return early, late


def test_a_tolerance_of_its_own_makes_a_small_component_right():
    early, late = off()
    assert early[1] < early[0] / 10
    assert early[2] < 1e-4
    assert late[2] < 1e-3 < 1e-2 < late[1]  # the end is small in y₁ as well, and within 1e-6 anything is right


def test_mass_is_conserved_whatever_the_tolerances():
    run, _ = along()
    for room in ROOM:
        sol = run(*room)
        assert sol.ok
        np.testing.assert_allclose(sol.ys["major"].sum(1) + sol.ys["minor"], 1.0, atol=1e-13)


# ---- controllers


def van_der_pol(t, y, mu):
    return jnp.stack([y[1], mu * (1 - y[0] ** 2) * y[1] - y[0]])


def oregonator(t, y, args):
    a, b, c = y
    return jnp.stack([77.27 * (b + a * (1 - 8.375e-6 * a - b)), (c - (1 + a) * b) / 77.27, 0.161 * (a - c)])


JUMPS = {
    "Van der Pol": (jde.ODEProblem(van_der_pol, jnp.array([2.0, 0.0]), (0.0, 2000.0), 1000.0), [1.0, 1e-3]),
    "Oregonator": (jde.ODEProblem(oregonator, jnp.array([1.0, 2.0, 3.0]), (0.0, 360.0)), [1.0, 1.0, 1.0]),
}
FINAL = {"Van der Pol": 1.70616773217, "Oregonator": 1.00081487032}


@pytest.mark.parametrize("name", JUMPS)
def test_memory_of_the_error_avoids_rejections(name):
    problem, size = JUMPS[name]
    atol = 1e-8 * jnp.array(size)
    run = jax.jit(lambda c: jde.solve(problem, jde.Rodas4(), saveat=END, rtol=1e-5, atol=atol, controller=c))
    integral, default, pi = (run(c) for c in (jde.IController(), jde.PIDController(), jde.PIController()))
    rejected = [int(s.stats.steps - s.stats.accepted) for s in (integral, default, pi)]
    assert rejected[0] > 1.2 * rejected[1] > 1.2 * 1.2 * rejected[2]
    assert integral.stats.accepted < default.stats.accepted < pi.stats.accepted  # what calm costs
    for sol in (integral, default, pi):
        assert sol.ok
        np.testing.assert_allclose(sol.ys[-1, 0], FINAL[name], rtol=2e-2)


@pytest.mark.parametrize("name", JUMPS)
def test_implicit_methods_follow_the_trend(name):
    """The default of theirs: hardly a rejection, as by Gustafsson's gains, without their short steps."""
    problem, size = JUMPS[name]
    atol = 1e-8 * jnp.array(size)
    run = jax.jit(lambda c: jde.solve(problem, jde.Rodas4(), saveat=END, rtol=1e-5, atol=atol, controller=c))
    default, calm = run(None), run(jde.PIController())
    rejected, as_calm = (int(s.stats.steps - s.stats.accepted) for s in (default, calm))
    assert rejected < 1.2 * as_calm
    assert int(default.stats.steps) < 0.9 * int(calm.stats.steps)
    np.testing.assert_allclose(default.ys[-1, 0], FINAL[name], rtol=2e-2)


# ---- IMEX

N = 64
DX = 1 / (N + 1)


def diffusion(t, u, nu):
    v = jnp.pad(u, 1)
    return nu * (v[2:] - 2 * u + v[:-2]) / DX**2


def advection(t, u, nu):
    v = jnp.pad(u, 1)
    return -(v[2:] - v[:-2]) / (2 * DX)


def both(t, u, nu):
    return diffusion(t, u, nu) + advection(t, u, nu)


@functools.cache
def carried(name):
    """A bump that is carried along and spreads, by the coefficient of diffusion: end state and counts."""
    start = jnp.exp(-(((DX * jnp.arange(1.0, N + 1.0) - 0.2) / 0.06) ** 2))
    band = jde.Banded(1, 1)
    split = jde.SplitODEProblem(diffusion, advection, start, (0.0, 0.4), jac_structure=band)
    whole = jde.ODEProblem(both, start, (0.0, 0.4), jac_structure=band)
    problem = split if name == "IMEX" else whole
    method = jde.Tsit5() if name == "explicit" else jde.KenCarp4()
    run = jax.jit(lambda nu: jde.solve(problem, method, args=nu, saveat=END, rtol=1e-4, atol=1e-4))
    exact = jax.jit(lambda nu: jax.scipy.linalg.expm(0.4 * jax.jacfwd(lambda u: both(0.0, u, nu))(start)) @ start)
    return run, exact


def test_diffusion_costs_explicit_steps_and_no_others():
    steps = {}
    for name in ("explicit", "IMEX", "implicit"):
        run, exact = carried(name)
        sols = [run(nu) for nu in (0.02, 0.08, 0.32)]
        for nu, sol in zip((0.02, 0.08, 0.32), sols, strict=True):
            assert sol.ok
            np.testing.assert_allclose(sol.ys[-1], exact(nu), atol=2e-3)
        steps[name] = np.array([int(s.stats.steps) for s in sols])
    growth = steps["explicit"][1:] / steps["explicit"][:-1]
    assert np.all((growth > 3) & (growth < 4.5))  # as ν, which is fourfold
    for name in ("IMEX", "implicit"):
        assert steps[name][2] < 2 * steps[name][0]
        assert steps[name][2] < steps["explicit"][2] / 20


# ---- a DAE as a layer


class Circuit(eqx.Module):
    """v' = sin(2t)·source − i, 0 = v − (r·i + a·tanh(b·i)), which increases: of index 1 whatever the weights."""

    logs: jax.Array
    """of r, a, b"""

    def law(self, i):
        r, a, b = jnp.exp(self.logs)
        return r * i + a * jnp.tanh(b * i)

    def __call__(self, t, y, source):
        v, i = y
        return jnp.stack([source * jnp.sin(2 * t) - i, v - self.law(i)])


TRUE = Circuit(jnp.log(jnp.array([0.3, 1.0, 2.0])))
SOURCES = jnp.array([0.7, 2.0, -3.0])
TIMES = jnp.linspace(0.0, 3.0, 16)


def trajectories(circuit, rtol=1e-6):
    """Shapes: [sources, times, 2]."""
    prob = jde.ODEProblem(circuit, jnp.zeros(2), (0.0, 3.0), mass_matrix=jnp.array([1.0, 0.0]))
    at = functools.partial(jde.solve, prob, jde.Rodas4(), saveat=TIMES, rtol=rtol, atol=1e-2 * rtol)
    return jax.vmap(lambda source: at(args=source).ys)(SOURCES)


@functools.cache
def training():
    """The loss of voltages alone with its gradient, as one program, and the circuit to begin with."""
    measured = jax.jit(trajectories)(TRUE)[..., 0]

    def loss(circuit):
        ys = trajectories(circuit)
        residual = ys[..., 0] - circuit.law(ys[..., 1])
        return jnp.mean((ys[..., 0] - measured) ** 2), jnp.max(jnp.abs(residual))

    return jax.jit(jax.value_and_grad(loss, has_aux=True)), Circuit(jnp.log(jnp.array([1.0, 0.4, 1.0])))


def test_gradient_of_a_dae_layer():
    """All three parameters occur in the constraint alone."""
    both, circuit = training()
    _, gradient = both(circuit)
    h = 1e-4
    moved = lambda e: both(Circuit(circuit.logs + e))[0][0]
    differences = [(moved(h * e) - moved(-h * e)) / (2 * h) for e in jnp.eye(3)]
    assert np.abs(differences).min() > 1e-4
    np.testing.assert_allclose(gradient.logs, differences, rtol=1e-3)


def test_a_dae_layer_learns_and_keeps_its_constraint():
    both, circuit = training()
    adam = optax.adam(0.1)
    state, losses = adam.init(circuit.logs), []
    for _ in range(60):
        (value, residual), gradient = both(circuit)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes floats and counts
            updates, state = adam.update(gradient.logs, state)
        circuit = Circuit(circuit.logs + jnp.asarray(updates))
        losses.append(float(value))
        assert residual < 1e-4
    assert losses[-1] < 0.01 * losses[0]
    i = jnp.linspace(-0.8, 0.8, 9)  # never measured
    np.testing.assert_allclose(circuit.law(i), TRUE.law(i), atol=0.1)
