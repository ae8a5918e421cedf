"""On the tested versions of JAX a small solve is one kernel on the CPU, and no other device sees it.

What is looked for are the attributes by which XLA is asked for one function; XLA sets the first of them by itself, but
only for loops that are smaller than any adaptive step.
"""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.plain import fresh, plain

import jaxdiffeq as jde
from jaxdiffeq.primitives.jax_internals import plain_path

Y, A = jnp.array([0.9, 0.5]), jnp.array(0.7)
END, TIMES = jde.SaveAt(t1=True), np.array([0.4, 1.0])
EQUAL = {"controller": jde.FixedSteps(40)}
FAMILIES: dict[str, tuple[Any, dict]] = {
    "explicit": (jde.Tsit5(), {}),
    "explicit, times": (jde.Tsit5(), {"saveat": TIMES}),
    "explicit, steps": (jde.BS3(), {"saveat": jde.SaveAt(steps=1), "max_steps": 60}),
    "explicit, equal": (jde.RK4(), EQUAL),
    "Rosenbrock": (jde.Rodas5P(), {}),
    "DIRK": (jde.Kvaerno3(), {}),
    "DIRK, equal": (jde.Kvaerno3(), EQUAL),
    "collocation": (jde.RadauIIA3(), {}),
    "multistep": (jde.BDF(), {}),
    "chosen": (None, {}),
    "ForwardAD": (jde.Tsit5(), {"gradient": jde.ForwardAD()}),
    "GaussAdjoint": (jde.Tsit5(), {"gradient": jde.GaussAdjoint()}),
    "BacksolveAdjoint": (jde.Tsit5(), {"gradient": jde.BacksolveAdjoint()}),
    "SteadyState": (None, {}),
}


def field(t, y, a):
    return jnp.stack([a * y[1] * jnp.cos(t), -y[0] - 0.1 * y[0] * y[1]])


def run(name: str):
    method, options = FAMILIES[name]

    def end(y, a):
        if name == "SteadyState":
            problem: Any = jde.SteadyStateProblem(lambda y, a: y**2 - a, y, a)
            return jnp.sum(jde.solve(problem).ys)
        problem = jde.ODEProblem(field, y, (0.0, 1.0), a)
        return jnp.sum(jde.solve(problem, method, **{"saveat": END, **options}).ys[-1])

    return end


def gradient(name: str):
    return jax.grad(run(name), (0, 1))


PROGRAMS = {"solve": run, "gradient": gradient}


def compiled(fun, *args) -> str:
    text = jax.jit(fresh(fun)).lower(*args).compile().as_text()
    assert text is not None
    return text


def kernels(text: str) -> int:
    """How many calls are asked to be one function; XLA itself does not say `inlineable`."""
    return sum('xla_cpu_small_call="true"' in line and 'inlineable="false"' in line for line in text.splitlines())


needs_cpu = pytest.mark.skipif(
    jax.default_backend() != "cpu" or plain_path(), reason="kernels are made on the CPU, on the fast path"
)
WHOLE = {"SteadyState": 0}  # families that need none


@needs_cpu
@pytest.mark.smoke
@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("name", [n for n in FAMILIES if n not in WHOLE])
def test_a_kernel_is_made(name, program):
    text = compiled(PROGRAMS[program](name), Y, A)
    assert kernels(text) >= 1
    if program == "solve":
        assert text.count(" while(") == len(re.findall(r" while\(", inside_kernels(text))), "a loop is outside"


def inside_kernels(text: str) -> str:
    """The computations that kernels call, and those that these call."""
    bodies = dict(re.findall(r"^(?:ENTRY )?(%\S+) \(.*?\{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL))
    said = r"(?:to_apply|calls|body|condition|branch_computations|(?:true|false)_computation)"
    lists = re.compile(said + r"=\{?(%[\w.\-]+(?:, %[\w.\-]+)*)")
    calls = lambda body: [name for names in lists.findall(body) for name in names.split(", ")]
    lines = [line for line in text.splitlines() if 'inlineable="false"' in line and "small_call" in line]
    todo, seen = [c for line in lines for c in calls(line)], set()
    while todo:
        name = todo.pop()
        if name not in seen and name in bodies:
            seen.add(name)
            todo += calls(bodies[name])
    return "\n".join(bodies[name] for name in seen)


@needs_cpu
def test_lanes_are_one_kernel():
    lanes = jax.vmap(run("explicit"), (0, None))
    assert kernels(compiled(lanes, jnp.stack([Y] * 8), A)) >= 1


@needs_cpu
def test_large_states_are_none():
    wide = lambda y, a: jnp.sum(jde.solve(jde.ODEProblem(lambda t, y, a: -a * y, y, (0.0, 1.0), a), saveat=END).ys)
    assert kernels(compiled(wide, jnp.ones(50_000), A)) == 0


# ---- the plain path is public JAX


def primitives(jaxpr) -> set:
    found = set()
    for eqn in jaxpr.eqns:
        found.add(eqn.primitive)
        for value in eqn.params.values():
            for inner in value if isinstance(value, tuple | list) else [value]:
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    found |= primitives(inner)
    return found


@pytest.mark.smoke
@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("name", FAMILIES)
def test_the_plain_path_is_public(name, program):
    """No primitive of this library, and no kernel."""
    with plain():
        traced = jax.make_jaxpr(fresh(PROGRAMS[program](name)))(Y, A)
        text = jax.jit(fresh(PROGRAMS[program](name))).lower(Y, A).as_text()
    ours = {p.name for p in primitives(traced.jaxpr) if getattr(p.impl, "__module__", "").startswith("jaxdiffeq")}
    assert not ours
    assert "inlineable" not in text and "small_call" not in text


# ---- other devices

HOST = ("callback", "small_call", "inlineable", "lapack", "cpu", "Eigen", "LAPACK")


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("name", FAMILIES)
def test_programs_for_other_devices(name, program, platform):
    """Nothing calls the host, and nothing made for a CPU is left in them."""
    traced = jax.jit(fresh(PROGRAMS[program](name))).trace(Y, A)
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert "stablehlo.while" in text
    assert not [word for word in HOST if word in text]


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("method", [jde.Rodas5P(), jde.Kvaerno3(), jde.BDF()], ids=["Rosenbrock", "DIRK", "multistep"])
def test_large_systems_for_other_devices(method, platform):
    """With matrices beyond those that are factored in place."""

    def end(y, a):
        f = lambda t, y, a: -a * y + 0.1 * jnp.tanh(jnp.flip(y)) * jnp.sum(y)
        return jnp.sum(jde.solve(jde.ODEProblem(f, y, (0.0, 1.0), a), method, saveat=END).ys)

    traced = jax.jit(jax.grad(end)).trace(jnp.linspace(0.0, 1.0, 30), A)
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert not [word for word in HOST if word in text]
