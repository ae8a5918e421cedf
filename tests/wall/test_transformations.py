"""What `lax.while_loop` and `lax.scan` can do under a transformation, a solve can; the numbers are the plain path's.

Every transformation is tried on a few kinds of solves: on one of them in the quick tests, on two more in the slow ones.
Programs of several devices, donation and export are in a process of their own: test_devices.py.
"""

import functools
import threading
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.plain import answer, assert_as_plain, assert_close, fresh, plain
from jax import lax

import jaxdiffeq as jde

Y, A = jnp.array([0.9, 0.5]), jnp.array(0.7)
YS = jnp.stack([Y, 1.5 * Y, 0.2 * Y, -Y])
AS = jnp.array([0.7, 0.1, -0.4, 1.3])
TIMES = np.array([0.0, 0.35, 1.0])
END = jde.SaveAt(t1=True)


def field(t, y, a):
    return jnp.stack([a * y[1] * jnp.cos(t), -y[0] - 0.1 * y[0] * y[1]])


def of(method, saveat: Any = END, f=field, **options):
    """(y0 [2], a) ↦ the rows that are saved, all in one vector, and the end with a weight of its own."""

    def run(y, a):
        problem = jde.ODEProblem(f, y, (0.0, 1.0), a)
        sol = jde.solve(problem, method, saveat=saveat, rtol=1e-3, atol=1e-4, **options)
        rows = jnp.where(sol.mask[:, None], sol.ys, 0.0)
        return jnp.append(jnp.ravel(rows), 2.0 * jnp.sum(sol.y_end))

    return run


def dense(y, a):
    problem = jde.ODEProblem(field, y, (0.0, 1.0), a)
    sol = jde.solve(problem, jde.BS3(), dense=True, saveat=END, max_steps=40)
    return jnp.ravel(sol(jnp.array([0.1, 0.6])))


SOLVES: dict[str, Callable] = {
    "times": of(jde.BS3(), TIMES),
    "equal": of(jde.Midpoint(), controller=jde.FixedSteps(4)),
    "Rosenbrock": of(jde.ROS2(), TIMES),
    "steps": of(jde.BS3(), jde.SaveAt(steps=1), max_steps=16),
    "equal rows": of(jde.RK4(), jde.SaveAt(steps=1), controller=jde.FixedSteps(3)),
    "implicit": of(jde.Kvaerno3()),
    "chosen": of(None),
    "Gauss": of(jde.BS3(), gradient=jde.GaussAdjoint()),
    "forward": of(jde.BS3(), TIMES, gradient=jde.ForwardAD()),
    "stops": of(jde.BS3(), TIMES, stops=[0.5]),
    "dense": dense,
}


# ---- transformations: run ↦ a function without arguments


def total(run):
    return lambda y, a: jnp.sum(jnp.sin(run(y, a)))


def scan(run, length=3):
    def trip(y, a):
        out = run(y, a)
        return y + 0.1 * out[-3:-1], out

    return lambda y, a: lax.scan(trip, y, a + 0.1 * jnp.arange(length, dtype=float))


def loop(run):
    def trip(state):
        y, k = state
        return 0.5 * run(y, A)[-3:-1], k + 1

    return lambda y: lax.while_loop(lambda s: s[1] < 3, trip, (y, jnp.array(0)))


def with_rule(run):
    @jax.custom_vjp
    def whole(y, a):
        return run(y, a)

    whole.defvjp(lambda y, a: jax.vjp(run, y, a), lambda back, g: back(g))
    return whole


def with_tangent(run):
    @jax.custom_jvp
    def whole(y, a):
        return run(y, a)

    whole.defjvp(lambda primals, tangents: jax.jvp(run, primals, tangents))
    return whole


def transposed(run):
    """The derivative, transposed by hand."""
    out, tangent = jax.linearize(run, Y, A)
    return jax.linear_transpose(tangent, Y, A)(out)


def program(run):
    return jax.extend.core.jaxpr_as_fun(jax.make_jaxpr(run)(Y, A))(Y, A)


def compiled(run):
    return jax.jit(run).lower(Y, A).compile()(Y, A)


def named(run):
    """Collectives outside of the solve, over the lanes that it is mapped over."""
    return jax.vmap(lambda y: run(lax.pmean(y, "lane") + y, A) / lax.psum(1.0, "lane"), axis_name="lane")(YS)


def hvp(run):
    return jax.jvp(lambda y: jax.grad(total(run))(y, A), (Y,), (Y[::-1],))[1]


def single(run):
    y, a = Y.astype(jnp.float32), A.astype(jnp.float32)
    return jax.value_and_grad(total(run))(y, a)


def policies(run):
    policy = jax.checkpoint_policies.save_only_these_names("nothing")
    keep = jax.checkpoint_policies.everything_saveable
    return [jax.grad(total(jax.checkpoint(run, policy=p)))(Y, A) for p in (policy, keep)]


BOTH = (0, 1)
TRANSFORMATIONS: dict[str, Callable] = {
    "no jit": lambda run: run(Y, A),
    "jit": lambda run: jax.jit(run)(Y, A),
    "jit in jit": lambda run: jax.jit(lambda y: jax.jit(run, inline=True)(y, A) + jax.jit(run)(y, A))(Y),
    "lower, compile": compiled,
    "make_jaxpr": program,
    "eval_shape": lambda run: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(run, Y, A)),
    "vmap": lambda run: jax.jit(jax.vmap(run))(YS, AS),
    "vmap, one lane": lambda run: jax.jit(jax.vmap(run))(YS[:1], AS[:1]),
    "vmap, no lanes": lambda run: jax.jit(jax.vmap(run))(YS[:0], AS[:0]),
    "grad of vmap, no lanes": lambda run: jax.grad(lambda a: jnp.sum(jax.vmap(run, (0, None))(YS[:0], a)))(A),
    "vmap of y": lambda run: jax.vmap(run, (0, None))(YS, A),
    "vmap of a": lambda run: jax.vmap(run, (None, 0))(Y, AS),
    "vmap, other axes": lambda run: jax.vmap(run, (1, 0), 1)(YS.T, AS),
    "vmap of vmap": lambda run: jax.jit(jax.vmap(jax.vmap(run, (None, 0)), (0, None)))(YS[:3], AS[:2]),
    "vmap, axis_name": named,
    "vmap of nothing": lambda run: jax.vmap(lambda _: run(Y, A))(AS),
    "map": lambda run: lax.map(lambda x: run(*x), (YS, AS)),
    "map in batches": lambda run: lax.map(lambda x: run(*x), (YS, AS), batch_size=3),
    "sequential_vmap": lambda run: jax.vmap(jax.custom_batching.sequential_vmap(run))(YS, AS),
    "grad": lambda run: jax.grad(total(run), BOTH)(Y, A),
    "value_and_grad, aux": lambda run: jax.jit(
        jax.value_and_grad(lambda y: (jnp.sum(run(y, A)), {"rows": run(y, A)}), has_aux=True)
    )(Y),
    "jacfwd": lambda run: jax.jacfwd(run, BOTH)(Y, A),
    "jacrev": lambda run: jax.jacrev(run, BOTH)(Y, A),
    "hessian": lambda run: jax.jit(jax.hessian(total(run)))(Y, A),
    "jacfwd of jacfwd": lambda run: jax.jit(jax.jacfwd(jax.jacfwd(total(run))))(Y, A),
    "jvp of grad": hvp,
    "jvp of vmap": lambda run: jax.jvp(jax.vmap(run), (YS, AS), (YS, AS)),
    "vmap of grad": lambda run: jax.jit(jax.vmap(jax.grad(total(run), BOTH)))(YS, AS),
    "vmap of jvp": lambda run: jax.vmap(lambda y, d: jax.jvp(run, (y, A), (d, A)))(YS, YS[::-1]),
    "vmap of directions": lambda run: jax.vmap(lambda d: jax.jvp(run, (Y, A), (d, A))[1])(jnp.eye(2)),
    "grad of vmap": lambda run: jax.jit(jax.grad(lambda a: jnp.sum(jax.vmap(total(run), (0, None))(YS, a))))(A),
    "vmap of hessian": lambda run: jax.jit(jax.vmap(jax.hessian(total(run)), (0, None)))(YS[:2], A),
    "linearize": lambda run: jax.linearize(run, Y, A)[1](Y, A),
    "linear_transpose": transposed,
    "vjp, twice": lambda run: [jax.vjp(run, Y, A)[1](c * run(Y, A)) for c in (1.0, 2.0)],
    "vmap of vjp": lambda run: jax.vmap(jax.vjp(run, Y, A)[1])(jnp.eye(run(Y, A).size)[:2]),
    "scan": lambda run: jax.jit(scan(run))(Y, A),
    "grad of scan": lambda run: jax.jit(jax.grad(lambda y, a: jnp.sum(scan(run)(y, a)[1]), BOTH))(Y, A),
    "jvp of scan": lambda run: jax.jvp(scan(run), (Y, A), (Y, A)),
    "vmap of scan": lambda run: jax.jit(jax.vmap(scan(run, 2), (0, None)))(YS, A),
    "scan of vmap": lambda run: lax.scan(lambda ys, a: (ys, jax.vmap(run, (0, None))(ys, a)), YS, AS[:2]),
    "cond": lambda run: jax.jit(lambda y: lax.cond(y[0] > 0, lambda: run(y, A), lambda: run(-y, A) * 2))(Y),
    "vmap of cond": lambda run: jax.jit(
        jax.vmap(lambda y: lax.cond(y[0] > 0, lambda: run(y, A), lambda: run(-y, A) * 0.0))
    )(YS),
    "grad of cond": lambda run: jax.grad(
        lambda y: jnp.sum(lax.cond(y[0] > 0, lambda: run(y, A), lambda: jnp.zeros_like(run(y, A))))
    )(Y),
    "switch": lambda run: jax.jit(
        jax.vmap(lambda k: lax.switch(k, [lambda: run(Y, A), lambda: run(Y, -A), lambda: run(-Y, A)]))
    )(jnp.array([2, 0, 1])),
    "while": lambda run: jax.jit(loop(run))(Y),
    "vmap of while": lambda run: jax.jit(jax.vmap(loop(run)))(YS),
    "jvp of while": lambda run: jax.jvp(lambda y: loop(run)(y)[0], (Y,), (Y,)),
    "fori": lambda run: jax.jit(lambda y: lax.fori_loop(0, 3, lambda i, y: 0.5 * run(y, A + i)[-3:-1], y))(Y),
    "grad of fori": lambda run: jax.grad(
        lambda y: jnp.sum(lax.fori_loop(0, 3, lambda i, y: 0.5 * run(y, A)[-3:-1], y))
    )(Y),
    "checkpoint": lambda run: jax.jit(jax.grad(total(jax.checkpoint(run)), BOTH))(Y, A),
    "checkpoint, policies": policies,
    "checkpoint of scan": lambda run: jax.jit(jax.grad(lambda y: jnp.sum(scan(jax.checkpoint(run))(y, A)[1])))(Y),
    "vmap of checkpoint": lambda run: jax.vmap(jax.grad(total(jax.checkpoint(run))))(YS, AS),
    "custom_vjp around": lambda run: jax.grad(total(with_rule(run)), BOTH)(Y, A),
    "custom_jvp around": lambda run: jax.grad(total(with_tangent(run)), BOTH)(Y, A),
    "stop_gradient": lambda run: jax.grad(lambda y: jnp.sum(run(lax.stop_gradient(y), A) * y[0]))(Y),
    "float32": single,
    "filter_jit, filter_grad": lambda run: eqx.filter_jit(eqx.filter_grad(lambda y: jnp.sum(run(y, A))))(Y),
    "closure_convert": lambda run: jax.closure_convert(lambda y: run(y, A), Y)[0](Y),
    "named_call": lambda run: jax.jit(jax.named_call(run, name="mine"))(Y, A),
    "optimization_barrier": lambda run: jax.jit(lambda y: run(lax.optimization_barrier(y), A))(Y),
}
NAMES = {name: k for k, name in enumerate(TRANSFORMATIONS)}
QUICK = ["times", "equal"]
SLOW = [name for name in SOLVES if name not in QUICK]


def assert_transformed(transformation, solve):
    if transformation in ("hessian", "jvp of grad", "vmap of hessian") and solve == "implicit":
        solve = "Rosenbrock"
    run = lambda how: lambda: TRANSFORMATIONS[transformation](how)
    found = answer(run(fresh(SOLVES[solve])))
    wanted = answer(run(fresh(SOLVES[solve])), on=True)
    for x in jax.tree.leaves(found):
        assert np.all(np.isfinite(x))
    tight = 1e-5 if transformation == "float32" else 1e-9
    assert_close(found, wanted, rtol=tight, atol=tight * 1e-3)


@pytest.mark.parametrize("transformation", TRANSFORMATIONS)
def test_transformations(transformation):
    assert_transformed(transformation, QUICK[NAMES[transformation] % 2])


@pytest.mark.slow
@pytest.mark.parametrize("turn", [0, 1])
@pytest.mark.parametrize("transformation", TRANSFORMATIONS)
def test_transformations_of_more_solves(transformation, turn):
    assert_transformed(transformation, SLOW[(2 * NAMES[transformation] + turn) % len(SLOW)])


@pytest.mark.smoke
@pytest.mark.parametrize("solve", SOLVES)
def test_solves(solve):
    """Each kind of solve, its gradient and that over lanes, in one program."""

    def everything(y, a):
        run = fresh(SOLVES[solve])
        lanes = jax.vmap(lambda y, a: jax.value_and_grad(total(run), BOTH)(y, a))
        return run(y, a), lanes(YS, AS)

    assert_as_plain(jax.jit(everything), Y, A)


# ---- named axes inside f: collectives over the lanes of a vmap


def collective(name):
    def f(t, y, a):
        if name == "axis_index":
            return -a * y + 0.1 * lax.axis_index("lane").astype(y.dtype)
        if name == "all_gather":
            return -a * y + 0.1 * jnp.mean(lax.all_gather(y, "lane"), 0)
        if name == "pshuffle":
            return -a * y + 0.1 * lax.pshuffle(y, "lane", [1, 2, 3, 0])
        if name == "ppermute":
            return -a * y + 0.1 * lax.ppermute(y, "lane", [(i, (i + 1) % 4) for i in range(4)])
        return -a * y + 0.1 * getattr(lax, name)(y, "lane")

    return f


COLLECTIVES = ["psum", "pmean", "pmax", "axis_index", "all_gather", "ppermute", "pshuffle"]
EQUAL = {"controller": jde.FixedSteps(4)}


def scanned(f, lanes, rates):
    """The equal steps of `Euler`, by `lax.scan`."""

    def run(y, a):
        def step(y, t):
            return y + 0.25 * f(t, y, a), None

        return lax.scan(step, y, jnp.arange(4.0) * 0.25)[0]

    return jax.vmap(run, axis_name="lane")(lanes, rates)


def with_lanes(name, method, ys, rates, **options):
    def run(y, a):
        problem = jde.ODEProblem(collective(name), y, (0.0, 1.0), a)
        return jde.solve(problem, method, saveat=END, max_steps=500, **options).ys[-1]

    return jax.vmap(run, axis_name="lane")(ys, rates)


@pytest.mark.parametrize("name", COLLECTIVES)
def test_collectives_in_f(name):
    """Lanes that speak to one another take the same number of equal steps; `lax.scan` says what comes out."""
    ours = functools.partial(with_lanes, name, jde.Euler(), **EQUAL)
    theirs = functools.partial(scanned, collective(name))
    assert_close(jax.jit(ours)(YS, AS), jax.jit(theirs)(YS, AS), rtol=1e-12)
    for mode in (jax.jacrev, jax.jacfwd) if name != "pmax" else ():  # which has no derivative in JAX
        found, wanted = (jax.jit(mode(fresh(run), (0, 1)))(YS, AS) for run in (ours, theirs))
        assert_close(found, wanted, rtol=1e-11)


@pytest.mark.parametrize("method", [jde.BS3(), jde.ROS2()], ids=["explicit", "Rosenbrock"])
def test_lanes_that_know_their_number(method):
    run = functools.partial(with_lanes, "axis_index", method)
    both = lambda ys, rates: (run(ys, rates), jax.grad(lambda ys: jnp.sum(run(ys, rates) ** 2))(ys))
    assert_as_plain(jax.jit(both), YS, AS)


@pytest.mark.parametrize("name", ["pmean", "ppermute"])
def test_collectives_in_adaptive_solves(name):
    """Equal lanes, so that all of them take the same steps; they owe one another cotangents at times of their own."""
    ys, rates = jnp.stack([Y] * 4), jnp.full(4, 0.7)
    run = functools.partial(with_lanes, name, jde.BS3())
    assert_as_plain(jax.jit(lambda *xs: jax.jvp(run, xs, xs)), ys, rates)
    with pytest.raises(NotImplementedError, match="talks across the lanes of a vmap"):
        jax.grad(lambda ys: jnp.sum(run(ys, rates) ** 2))(ys)


# ---- settings


def small():
    value = jax.value_and_grad(total(fresh(SOLVES["times"])), BOTH)
    return value(Y, A), fresh(SOLVES["equal"])(Y, A), fresh(SOLVES["Rosenbrock"])(Y, A)


SETTINGS = {
    "debug_nans": lambda: jax.debug_nans(True),
    "debug_infs": lambda: jax.debug_infs(True),
    "checking_leaks": jax.checking_leaks,
    "enable_checks": lambda: jax.enable_checks(True),
    "default_matmul_precision": lambda: jax.default_matmul_precision("float32"),
    "log_compiles off": lambda: jax.log_compiles(False),
    "transfer_guard": lambda: jax.transfer_guard_device_to_host("allow"),
    "standard promotion": lambda: jax.numpy_dtype_promotion("standard"),
    "default_device": lambda: jax.default_device(jax.devices()[-1]),
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_settings(setting):
    wanted = answer(small, on=True)
    with SETTINGS[setting]():
        found = answer(lambda: jax.jit(small)())
    assert_close(found, wanted, rtol=1e-9)


def test_disable_jit():
    """Every operation by itself, so a short solve."""

    def run():
        equal = of(jde.Midpoint(), controller=jde.FixedSteps(2))
        once = of(jde.Midpoint(), first_step=0.5)
        return equal(Y, A), once(Y, A), jax.grad(total(equal))(Y, A)

    wanted = answer(run, on=True)
    with jax.disable_jit():
        found = answer(run)
    assert_close(found, wanted, rtol=1e-9)


def test_threads():
    """Eight at once, each with programs of its own and one that they share."""
    shared = jax.jit(fresh(SOLVES["equal"]))
    results: dict[int, object] = {}

    def work(k):
        try:
            mine = jax.jit(jax.grad(total(of(jde.BS3(), TIMES + 0.0 * k))))
            results[k] = jax.device_get((shared(Y + k, A), mine(Y, A + 0.1 * k)))
        except Exception as error:
            results[k] = error

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    equal, gradient = jax.jit(fresh(SOLVES["equal"])), jax.jit(jax.grad(total(of(jde.BS3(), TIMES))))
    for k in range(8):
        result = results[k]
        assert not isinstance(result, Exception), result
        with plain():
            assert_close(result, jax.device_get((equal(Y + k, A), gradient(Y, A + 0.1 * k))))


def test_one_process_serves_both_paths():
    """The setting is read at every solve: what is remembered of one path does not serve the other."""
    fast = jax.make_jaxpr(fresh(SOLVES["times"]))(Y, A)
    with plain():
        public = jax.make_jaxpr(fresh(SOLVES["times"]))(Y, A)
    assert str(fast) != str(public)
    assert str(jax.make_jaxpr(fresh(SOLVES["times"]))(Y, A)) == str(fast)
