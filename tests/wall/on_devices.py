"""Solves on four devices, donated arguments and exported programs: run by test_devices.py, in a process of its own."""

import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from helpers.cases import run as run_cases
from helpers.plain import answer, assert_close, fresh, plain
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxdiffeq as jde

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")

YS = jnp.linspace(0.2, 1.0, 16).reshape(8, 2)
RATE = jnp.array(0.7)
END = jde.SaveAt(t1=True)
EQUAL = {"controller": jde.FixedSteps(4)}
SOLVES: dict[str, tuple[Any, dict]] = {
    "adaptive": (jde.BS3(), {"saveat": np.array([0.4, 1.0])}),
    "equal": (jde.RK4(), EQUAL),
    "equal rows": (jde.Midpoint(), {**EQUAL, "saveat": jde.SaveAt(steps=1)}),
    "equal implicit": (jde.Kvaerno3(), EQUAL),
    "Rosenbrock": (jde.ROS2(), {}),
    "implicit": (jde.Kvaerno3(), {}),
    "chosen": (None, {}),
    "Gauss": (jde.BS3(), {"gradient": jde.GaussAdjoint()}),
    "steps": (jde.BS3(), {"saveat": jde.SaveAt(steps=1), "max_steps": 16}),
}


def field(t, y, rate):
    return -rate * y * jnp.sum(y * y)


def single(name: str, f: Callable = field) -> Callable:
    method, options = SOLVES[name]

    def end(y, rate):
        problem = jde.ODEProblem(f, y, (0.0, 1.0), rate)
        return jde.solve(problem, method, **{"saveat": END, "max_steps": 60, **options}).ys[-1]

    return end


def lanes(name: str) -> Callable:
    return lambda ys, rate: jax.vmap(single(name), (0, None))(ys, rate)


def gradient(name: str) -> Callable:
    return jax.grad(lambda ys, rate: jnp.sum(jnp.sin(lanes(name)(ys, rate))), (0, 1))


def both(name: str) -> Callable:
    return lambda ys, rate: (lanes(name)(ys, rate), gradient(name)(ys, rate))


def wanted(fun: Callable, *args: Any) -> Any:
    return answer(jax.jit(fresh(fun)), *args, on=True)


def mesh(kind: str, shape=(4,), names=("d",)):
    return jax.make_mesh(shape, names, axis_types=(getattr(AxisType, kind),) * len(names))


# ---- sharded arguments


def sharded(kind: str, name: str) -> None:
    where = mesh(kind)
    with jax.set_mesh(where):
        ys = jax.device_put(YS, NamedSharding(where, P("d")))
        found = jax.device_get(jax.jit(both(name))(ys, RATE))
    assert_close(found, wanted(both(name), YS, RATE))


def sharded_state(kind: str, name: str) -> None:
    """One state, divided among the devices."""
    where = mesh(kind)

    def total(y, rate):
        return jnp.sum(jnp.sin(single(name)(y, rate)))

    run = jax.value_and_grad(total, (0, 1))
    with jax.set_mesh(where):
        y = jax.device_put(YS.reshape(16), NamedSharding(where, P("d")))
        found = jax.device_get(jax.jit(run)(y, RATE))
    assert_close(found, wanted(run, YS.reshape(16), RATE))


def in_shard_map(name: str, check: bool, which: Callable = both) -> None:
    where = mesh("Auto")
    outs = (P("d"), (P("d"), P())) if which is both else P("d")
    specs = {"mesh": where, "in_specs": (P("d"), P()), "out_specs": outs}
    if which is both and not check:  # then nobody adds up the derivatives of what is shared
        total = lambda ys, rate: (lanes(name)(ys, rate), (gradient(name)(ys, rate)[0], rate))
        found = jax.jit(jax.shard_map(total, check_vma=False, **specs))(YS, RATE)
        out, (d_ys, _) = wanted(both(name), YS, RATE)
        assert_close(jax.device_get(found[0]), out)
        assert_close(jax.device_get(found[1][0]), d_ys)
        return
    found = jax.device_get(jax.jit(jax.shard_map(which(name), check_vma=check, **specs))(YS, RATE))
    assert_close(found, wanted(which(name), YS, RATE))


def grad_of_shard_map(name: str, check: bool) -> None:
    where = mesh("Auto")
    mapped = jax.shard_map(lanes(name), mesh=where, in_specs=(P("d"), P()), out_specs=P("d"), check_vma=check)
    run = jax.grad(lambda ys, rate: jnp.sum(jnp.sin(mapped(ys, rate))), (0, 1))
    assert_close(jax.device_get(jax.jit(run)(YS, RATE)), wanted(gradient(name), YS, RATE))


def collective_in_f(name: str, check: bool) -> None:
    """Every device holds a part of one state, and f adds up over all of them: of equal steps, since each device judges
    its own part."""
    where = mesh("Auto")

    def f(t, y, rate):
        return -rate * y * lax.psum(jnp.sum(y * y), "d")

    def whole(y, rate):
        return jnp.sum(jnp.sin(single(name)(y, rate)))

    def parts(y, rate):
        mapped = jax.shard_map(single(name, f), mesh=where, in_specs=(P("d"), P()), out_specs=P("d"), check_vma=check)
        return jnp.sum(jnp.sin(mapped(y, rate)))

    y = YS.reshape(16)
    found = jax.device_get(jax.jit(jax.value_and_grad(parts, (0, 1)))(y, RATE))
    assert_close(found, wanted(jax.value_and_grad(whole, (0, 1)), y, RATE), rtol=1e-8)


def spmd_axis_name() -> None:
    where = mesh("Auto")
    run = jax.vmap(single("adaptive"), (0, None), spmd_axis_name="d")
    with jax.set_mesh(where):
        found = jax.jit(run)(jax.device_put(YS, NamedSharding(where, P("d"))), RATE)
    assert_close(jax.device_get(found), wanted(lanes("adaptive"), YS, RATE))


def two_axes(kind: str) -> None:
    where = mesh(kind, (2, 2), ("d", "e"))
    with jax.set_mesh(where):
        ys = jax.device_put(YS, NamedSharding(where, P("d", "e")))
        found = jax.device_get(jax.jit(both("adaptive"))(ys, RATE))
    assert_close(found, wanted(both("adaptive"), YS, RATE))


def pmap(name: str) -> None:
    ys = YS.reshape(4, 2, 2)
    found = jax.device_get(jax.pmap(both(name), in_axes=(0, None))(ys, RATE))
    assert_close(found, wanted(lambda ys, rate: jax.vmap(both(name), (0, None))(ys, rate), ys, RATE))


def constrained() -> None:
    where = mesh("Auto")

    def run(ys, rate):
        ys = lax.with_sharding_constraint(ys, NamedSharding(where, P("d")))
        return lanes("adaptive")(ys, rate)

    assert_close(jax.device_get(jax.jit(run)(YS, RATE)), wanted(lanes("adaptive"), YS, RATE))


def other_device() -> None:
    there = jax.device_put((YS, RATE), jax.devices()[2])
    assert_close(jax.device_get(jax.jit(both("adaptive"))(*there)), wanted(both("adaptive"), YS, RATE))


DEVICES: dict[str, Callable[[], None]] = {}
for _kind in ("Auto", "Explicit"):
    for _name in ("adaptive", "equal", "equal rows", "Rosenbrock", "implicit", "Gauss", "chosen"):
        DEVICES[f"{_kind} mesh, {_name}"] = lambda k=_kind, n=_name: sharded(k, n)
    for _name in ("adaptive", "equal"):
        DEVICES[f"{_kind} mesh, divided state, {_name}"] = lambda k=_kind, n=_name: sharded_state(k, n)
    DEVICES[f"{_kind} mesh of two axes"] = lambda k=_kind: two_axes(k)
for _check in (True, False):
    for _name in ("adaptive", "equal", "equal rows", "equal implicit", "Rosenbrock", "chosen", "Gauss", "steps"):
        DEVICES[f"shard_map, check_vma={_check}, {_name}"] = lambda c=_check, n=_name: in_shard_map(n, c)
    for _name in ("adaptive", "equal"):
        DEVICES[f"grad of shard_map, check_vma={_check}, {_name}"] = lambda c=_check, n=_name: grad_of_shard_map(n, c)
    DEVICES[f"collective in f, check_vma={_check}"] = lambda c=_check: collective_in_f("equal", c)
DEVICES |= {"spmd_axis_name": spmd_axis_name, "sharding constraint": constrained, "another device": other_device}
if hasattr(jax, "pmap"):
    DEVICES |= {f"pmap, {name}": lambda n=name: pmap(n) for name in ("adaptive", "equal")}


# ---- donation


def donate(args: tuple, numbers: Any, program: Callable) -> None:
    copy = lambda: jax.tree.map(lambda x: jnp.array(x, copy=True), args)
    found = jax.device_get(jax.jit(fresh(program), donate_argnums=numbers)(*copy()))
    assert_close(found, wanted(program, *copy()))


PARAMETERS = {"w": jnp.ones(2), "none_yet": jnp.zeros((0,)), "flat": jnp.zeros((3, 0)), "i": jnp.arange(2)}


def step_of(name: str) -> Callable:
    """One step of gradient descent; a parameter without elements and whole numbers among the others."""

    def step(p, y):
        loss = lambda w, p: jnp.sum(single(name, lambda t, y, p: -p["w"] * y * jnp.sum(y * y))(y, {**p, "w": w}))
        return {**p, "w": p["w"] - 0.1 * jax.grad(loss)(p["w"], p)}

    return step


def all_leaves(name: str) -> Callable:
    """With the empty leaf differentiated as well."""

    def step(p, y):
        f = lambda t, y, p: -p["w"] * y
        slopes = jax.grad(lambda p: jnp.sum(single(name, f)(y, p)))(p)
        return jax.tree.map(lambda x, g: x - 0.1 * g, p, slopes)

    return step


SOME = {"w": jnp.ones(2), "none_yet": jnp.zeros((0,))}
EMPTY_STATE = lambda name: lambda y, rate: (single(name)(y, rate), y)
DONATION: dict[str, Callable[[], None]] = {}
for _name in ("adaptive", "equal", "equal rows", "Rosenbrock", "implicit", "Gauss", "steps", "chosen"):
    DONATION |= {
        f"parameters, {_name}": lambda n=_name: donate((PARAMETERS, YS[0]), 0, step_of(n)),
        f"empty leaf, {_name}": lambda n=_name: donate((SOME, YS[0]), 0, all_leaves(n)),
        f"everything, {_name}": lambda n=_name: donate((PARAMETERS, YS[0]), (0, 1), step_of(n)),
        f"state, {_name}": lambda n=_name: donate((YS[0], RATE), 0, single(n)),
        f"not used, {_name}": lambda n=_name: donate((YS[0], RATE), (0, 1), lambda y, r, n=n: single(n)(YS[1], RATE)),
        f"lanes, {_name}": lambda n=_name: donate((YS, RATE), 0, lanes(n)),
        f"empty state, {_name}": lambda n=_name: donate((jnp.zeros((0,)), RATE), 0, EMPTY_STATE(n)),
    }


# ---- export


def round_trip(program: Callable, shapes: tuple, *args: Any, platforms=("cpu",)) -> None:
    exported = jax.export.export(jax.jit(fresh(program)), platforms=platforms)(*shapes)
    again = jax.export.deserialize(exported.serialize())
    assert_close(jax.device_get(again.call(*args)), wanted(program, *args))
    assert_close(jax.device_get(jax.jit(again.call)(*args)), wanted(program, *args))


def symbolic(program: Callable, shape: str, ys: jax.Array, platforms=("cpu",)) -> None:
    (size, *more) = jax.export.symbolic_shape(shape)
    shapes = (jax.ShapeDtypeStruct((size, *more), ys.dtype), jax.ShapeDtypeStruct((), RATE.dtype))
    round_trip(program, shapes, ys, RATE, platforms=platforms)


def then_sharded(kind: str, name: str) -> None:
    exported = jax.export.export(jax.jit(fresh(both(name))))(YS, RATE)
    where = mesh(kind)
    ys = jax.device_put(YS, NamedSharding(where, P("d")))
    found = jax.device_get(jax.jit(exported.call)(ys, RATE))
    assert_close(found, wanted(both(name), YS, RATE))


def exported_gradient(name: str) -> None:
    """The derivative, exported together with the program."""
    exported = jax.export.export(jax.jit(fresh(lanes(name))))(YS, RATE)
    again = jax.export.deserialize(exported.serialize(vjp_order=1))
    run = jax.grad(lambda ys, rate: jnp.sum(jnp.sin(again.call(ys, rate))), (0, 1))
    assert_close(jax.device_get(run(YS, RATE)), wanted(gradient(name), YS, RATE))


def symbolic_state(name: str) -> None:
    """The size of the state is a symbol: methods without linear algebra can."""
    run = lambda y, rate: jax.value_and_grad(lambda y: jnp.sum(single(name)(y, rate)))(y)
    symbolic(run, "n", YS.reshape(16))


EVERYWHERE = ("cpu", "cuda", "tpu")
EXPORT: dict[str, Callable[[], None]] = {}
for _name in ("adaptive", "equal", "equal rows", "equal implicit", "Rosenbrock", "implicit", "Gauss", "chosen"):
    EXPORT |= {
        f"every platform, {_name}": lambda n=_name: round_trip(both(n), (YS, RATE), YS, RATE, platforms=EVERYWHERE),
        f"symbolic lanes, {_name}": lambda n=_name: symbolic(lanes(n), "b, 2", YS[:3]),
        f"then sharded, {_name}": lambda n=_name: then_sharded("Auto", n),
    }
for _name in ("adaptive", "equal", "Rosenbrock"):
    EXPORT |= {
        f"symbolic lanes, gradient, {_name}": lambda n=_name: symbolic(gradient(n), "b, 2", YS[:3]),
        f"symbolic lanes, everywhere, {_name}": lambda n=_name: symbolic(lanes(n), "b, 2", YS, EVERYWHERE),
        f"exported gradient, {_name}": lambda n=_name: exported_gradient(n),
    }
EXPORT |= {f"symbolic state, {n}": lambda n=n: symbolic_state(n) for n in ("adaptive", "equal")}


# ---- what is kept on disk for the next process, and memory that is not zero when it is fresh


def cached() -> None:
    directory = sys.argv[3]
    jax.config.update("jax_compilation_cache_dir", directory)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    for name in ("adaptive", "equal", "Rosenbrock"):
        assert_close(jax.device_get(jax.jit(both(name))(YS, RATE)), wanted(both(name), YS, RATE))


def fresh_memory(name: str) -> None:
    """Padded rows, masked lanes and unused slots of a log must not read what nobody has written."""
    for _ in range(2):
        assert_close(answer(jax.jit(both(name)), YS, RATE), wanted(both(name), YS, RATE))


MEMORY = {name: lambda n=name: fresh_memory(n) for name in SOLVES}
CACHE = {"cache": cached}
BATCHES = {"devices": DEVICES, "donation": DONATION, "export": EXPORT, "memory": MEMORY, "cache": CACHE}

if __name__ == "__main__":
    with plain(False):
        run_cases(BATCHES[sys.argv[2]])
