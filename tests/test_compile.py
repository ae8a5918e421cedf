"""Laws 5 and 7: compile once, with no callback in the program; and what a compiled solve costs in memory."""

import re

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import jaxdiffeq as jde
from jaxdiffeq.primitives.jax_internals import plain_path

TIMES = np.linspace(0.0, 2.0, 5)
Y0 = jnp.array([1.0, 0.5])


class Counted:
    """A right-hand side that counts how often Python runs it."""

    def __init__(self):
        self.traces = 0

    def __call__(self, t, y, args):
        self.traces += 1
        return jnp.stack([y[1], -args * y[0] * jnp.cos(t)])


def solve(f, y0, args, **options):
    problem = jde.ODEProblem(f, y0, options.pop("tspan", (0.0, 2.0)), args)
    return jde.solve(problem, options.pop("method", jde.Tsit5()), **{"saveat": TIMES, **options})


def loss(f, y0, args, **options):
    return jnp.sum(solve(f, y0, args, **options).ys ** 2)


def oscillator(t, y, args):
    return jnp.stack([y[1], -args * y[0] * jnp.cos(t)])


@pytest.mark.parametrize("saveat", [TIMES, None, jde.SaveAt(t1=True)], ids=["times", "steps", "end"])
def test_traces_of_a_solve(saveat):
    f = Counted()
    solve(f, Y0, jnp.array(2.0), saveat=saveat)
    assert 1 <= f.traces <= 2
    count = f.traces
    solve(f, Y0 + 1, jnp.array(3.0), saveat=saveat)
    assert f.traces == count


def test_traces_of_a_gradient():
    f = Counted()
    gradient = jax.jit(jax.grad(lambda y, a: loss(f, y, a), (0, 1)))
    gradient(Y0, jnp.array(2.0))
    assert 1 <= f.traces <= 5
    count = f.traces
    gradient(Y0 + 1, jnp.array(3.0))
    assert f.traces == count


@pytest.mark.parametrize(
    "new",
    [
        {"rtol": 1e-5},
        {"atol": jnp.array(1e-7)},
        {"rtol": np.float64(1e-4), "atol": 1e-9},
        {"tspan": (0.0, 3.0)},
        {"tspan": (-1, 2)},
        {"tspan": (jnp.array(-0.5), 2.5)},
        {"saveat": TIMES / 2},
        {"saveat": jnp.asarray(TIMES / 3)},
        {"saveat": list(TIMES)},
        {"max_steps": 100_000},
        {"args": 5.0},
        {"args": np.float64(5.0)},
        {"y0": np.array([2.0, 1.0])},
    ],
    ids=str,
)
def test_a_new_number_is_no_new_program(new, counted=Counted()):
    options = {"y0": Y0, "args": jnp.array(2.0), "rtol": 1e-3, "atol": 1e-6}
    solve(counted, **options)
    count = counted.traces
    solve(counted, **{**options, **new})
    assert counted.traces == count


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"first_step": 0.1}, {"first_step": jnp.array(0.2)}),
        ({"controller": jde.PIDController(0.2, 0.3)}, {"controller": jde.PIDController(0.3, 0.2, 0.1, safety=0.8)}),
        ({"controller": jde.FixedSteps(dt=0.1)}, {"controller": jde.FixedSteps(dt=0.2)}),
        ({"stops": [0.5]}, {"stops": np.array([0.7])}),
        ({"rtol": np.array([1e-3, 1e-4])}, {"rtol": np.array([1e-5, 1e-6])}),
    ],
    ids=lambda x: str(sorted(x)),
)
def test_new_options_are_no_new_program(old, new):
    f = Counted()
    solve(f, Y0, 2.0, **old)
    count = f.traces
    solve(f, Y0, 2.0, **new)
    assert f.traces == count


PROGRAMS = {
    "solve": lambda y, a: solve(oscillator, y, a).ys,
    "gradient": jax.grad(lambda y, a: loss(oscillator, y, a)),
    "vmap": jax.vmap(lambda y, a: solve(oscillator, y, a).ys, (None, 0)),
}


def argument(name):
    return jnp.array([1.0, 2.0]) if name == "vmap" else jnp.array(2.0)


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_call_nobody(name):
    text = str(jax.make_jaxpr(PROGRAMS[name])(Y0, argument(name)))
    assert "callback" not in text
    compiled = jax.jit(PROGRAMS[name]).lower(Y0, argument(name)).compile().as_text()
    assert compiled is not None and "callback" not in compiled


@pytest.mark.parametrize("name", PROGRAMS)
def test_export_round_trip(name):
    exported = jax.export.export(jax.jit(PROGRAMS[name]))(Y0, argument(name))
    again = jax.export.deserialize(exported.serialize())
    wanted = jax.jit(PROGRAMS[name])(Y0, argument(name))
    # what is exported has no kernels, in which XLA rounds some sums in another order
    np.testing.assert_allclose(again.call(Y0, argument(name)), wanted, rtol=1e-11)


@pytest.mark.skipif(jax.device_count() < 2, reason="needs two devices")
@pytest.mark.parametrize("saveat", [jde.SaveAt(t1=True), [0.5, 1.0]], ids=["t1", "ts"])
def test_shards(saveat):
    """A loop that XLA divides among devices may call the others, which a kernel cannot."""
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    ys, rate = jnp.arange(8.0).reshape(4, 2), jnp.array(2.0)
    batch = jax.vmap(lambda y, a: solve(oscillator, y, a, saveat=saveat).ys[-1], (0, None))
    wanted = batch(ys, rate)
    mapped = jax.shard_map(batch, mesh=mesh, in_specs=(P("batch"), P()), out_specs=P("batch"))
    np.testing.assert_allclose(jax.jit(mapped)(ys, rate), wanted, rtol=1e-13)
    spread = jax.device_put(ys, jax.sharding.NamedSharding(mesh, P("batch")))
    np.testing.assert_allclose(jax.jit(batch)(spread, rate), wanted, rtol=1e-13)


SHARDED = {
    "saved times": {"saveat": TIMES},
    "equal steps": {"method": jde.Kvaerno3(), "controller": jde.FixedSteps(20), "saveat": jde.SaveAt(t1=True)},
    "dense and stops": {"method": jde.Vern7(), "saveat": [0.3], "stops": [1.0]},
    "implicit": {"method": jde.Kvaerno3(), "saveat": jde.SaveAt(t1=True)},
    "collocation": {"method": jde.RadauIIA3(), "saveat": jde.SaveAt(t1=True)},
    "Rosenbrock": {"method": jde.Rosenbrock23(), "saveat": jde.SaveAt(t1=True)},
    "multistep": {"method": jde.BDF(), "saveat": jde.SaveAt(t1=True)},
    "forward": {"gradient": jde.ForwardAD(), "saveat": jde.SaveAt(t1=True)},
    "Gauss": {"gradient": jde.GaussAdjoint(), "saveat": jde.SaveAt(t1=True)},
}


# One program of each kind on every Python and JAX: they take longest of all quick tests.
QUICK = {"saved times", "equal steps", "Gauss"}


@pytest.mark.skipif(jax.device_count() < 2, reason="needs two devices")
@pytest.mark.parametrize(
    "options", [pytest.param(o, marks=[pytest.mark.smoke] * (k in QUICK), id=k) for k, o in SHARDED.items()]
)
def test_gradients_of_shards(options):
    """What all devices share has one derivative, summed over them, as JAX has it for everything else."""
    if plain_path() and "stops" in options:
        pytest.skip("JAX marks values twice as varying in a branch that lanes turn into a choice")
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    ys, rate = jnp.arange(8.0).reshape(4, 2), jnp.array(2.0)

    def total(ys, rate):
        return jnp.sum(jax.vmap(lambda y: loss(oscillator, y, rate, **options))(ys))

    gradient = jax.grad(total, (0, 1))
    mapped = jax.shard_map(gradient, mesh=mesh, in_specs=(P("batch"), P()), out_specs=(P("batch"), P()))
    for found, wanted in zip(jax.jit(mapped)(ys, rate), jax.jit(gradient)(ys, rate), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-11)


@pytest.mark.skipif(jax.device_count() < 2, reason="needs two devices")
def test_shards_of_what_is_chosen_or_steady():
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    ys = jnp.arange(1.0, 9.0).reshape(4, 2)
    chosen = jax.vmap(lambda y: solve(oscillator, y, jnp.array(2.0), method=None).ys[-1])
    steady = jde.SteadyStateProblem(lambda y, a: y**2 - a, jnp.ones(2), ys[0])
    root = jax.vmap(jax.grad(lambda a: jnp.sum(jde.solve(steady, args=a).ys)))
    for batch in (chosen, root):
        mapped = jax.shard_map(batch, mesh=mesh, in_specs=P("batch"), out_specs=P("batch"))
        np.testing.assert_allclose(jax.jit(mapped)(ys), jax.jit(batch)(ys), rtol=1e-11)


def test_memory_does_not_grow_with_the_bound_on_steps():
    def used(max_steps):
        run = jax.jit(lambda y, a: solve(oscillator, y, a, max_steps=max_steps).ys)
        memory = run.lower(Y0, 2.0).compile().memory_analysis()
        assert memory is not None
        return memory.temp_size_in_bytes + memory.output_size_in_bytes

    assert used(1_000_000) <= 1.05 * used(1_000)


def test_no_trip_copies_the_log():
    """Kernels inside kernels copied the log and the replay window trip after trip: 863 ms where 14 are enough."""

    def end(args):
        f = lambda t, y, args: -args * y
        options = {"saveat": jde.SaveAt(t1=True), "gradient": jde.ReverseAD(memory=64)}
        return jnp.sum(solve(f, jnp.ones(1000), args, **options).ys)

    program = jax.jit(jax.grad(end)).lower(1.0).compile().as_text()
    assert program is not None
    for rows in (64 + 1, 64 // 4 + 1):  # of the log, of the window
        assert re.search(rf"f64\[{rows},1000\]", program)
        copies = re.findall(rf"= f64\[{rows},1000\]\S* copy\((.*?)\)", program)
        assert all("broadcast" in source for source in copies)


@pytest.mark.parametrize(
    "options",
    [
        {"gradient": jde.ReverseAD(memory=64)},
        {"gradient": jde.ReverseAD(memory=64), "max_steps": 64},
        {"gradient": jde.GaussAdjoint()},
        {"controller": jde.FixedSteps(40)},
    ],
    ids=["thinned", "whole", "segments", "equal steps"],
)
def test_no_state_is_looked_up_again_for_every_number_made_of_it(options):
    """XLA fused the log into the forces among a hundred bodies: 59 ms where 20 are enough."""

    def end(args):
        f = lambda t, y, args: jnp.sum(jnp.tanh(args * (y[None] - y[:, None])), 1)
        return jnp.sum(solve(f, jnp.linspace(0, 1, 70), args, saveat=jde.SaveAt(t1=True), **options).ys)

    program = jax.jit(jax.grad(end)).lower(1.0).compile().as_text()
    assert program is not None
    kept = {f"f64[{shape}]" for shape in re.findall(r"f64\[(\d+(?:,\d+)?,70)\]", program)} - {"f64[70,70]", "f64[1,70]"}
    assert kept  # the states of a log or of equal steps, or the polynomials of a segment
    pairs = re.findall(r"^%fused\S* \((.*?)\) -> f64\[70,70\]", program, re.MULTILINE)
    assert pairs
    assert not [operands for operands in pairs if any(shape in operands for shape in kept)]


def carried(y0):
    """How many arrays the loop carries."""
    f = lambda t, y, args: jax.tree.map(jnp.negative, y)
    run = jax.jit(lambda y: jde.solve(jde.ODEProblem(f, y, (0.0, 1.0)), jde.Tsit5(), saveat=jde.SaveAt(t1=True)).ys)
    loops = re.findall(r"stablehlo\.while\(([^)]*)\)", run.lower(y0).as_text())
    return max(loop.count("=") for loop in loops)


def test_the_loop_carries_one_array_however_many_leaves_the_state_has():
    assert carried([jnp.ones(()) * k for k in range(60)]) == carried(jnp.ones(60))
