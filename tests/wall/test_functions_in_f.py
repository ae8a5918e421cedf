"""Any public function of JAX may stand in f: with any method, any gradient, under vmap, the answer is the plain path's.

f = −y + 0.1·Σᵢ wᵢ·tanh(gᵢ(y)), of many functions gᵢ at a time, for what costs time is one program more. When a group
fails it is halved until the culprits are known.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from functions import NO_DERIVATIVE, NO_REVERSE, WRITTEN, Call, found, matrix, number, words
from helpers.plain import assert_as_plain
from jax import lax

import jaxdiffeq as jde

Y0 = np.array([0.8, 0.45])
END = jde.SaveAt(t1=True)
EQUAL = {"controller": jde.FixedSteps(3), "saveat": END}


def field(functions: Sequence[Callable]) -> Callable:
    weights = np.linspace(1.0, 1.5, len(functions)) / len(functions)

    def f(t, y, rate):
        terms = [w * jnp.tanh(g(y)) for w, g in zip(weights, functions, strict=True)]
        return -rate * y + 0.1 * (1 + t) * sum(terms)

    return f


def solve(f, y0, rate, method, **options):
    options = {"saveat": END, "rtol": 1e-3, "atol": 1e-4, "max_steps": 100, **options}
    return jde.solve(jde.ODEProblem(f, y0, (0.0, 1.0), rate), method, **options)


def end(f, method, **options):
    return lambda y0, rate: jnp.sum(solve(f, y0, rate, method, **options).ys ** 2)


def lanes(run):
    return lambda y0, rate: jnp.sum(jax.vmap(run, (0, None))(jnp.stack([y0, 0.9 * y0]), rate))


def reverse(run):
    return jax.jit(jax.value_and_grad(run, (0, 1)))


def forward(run):
    return jax.jit(lambda y0, rate: jax.jvp(run, (y0, rate), (jnp.ones(2), 1.0)))


PROGRAMS: dict[str, Callable[[Callable], Callable]] = {
    "adaptive": lambda f: jax.jit(end(f, jde.Midpoint())),
    "adaptive lanes, reverse": lambda f: reverse(lanes(end(f, jde.Midpoint()))),
    "equal steps": lambda f: jax.jit(lanes(end(f, jde.Euler(), **EQUAL))),
    "equal steps, reverse": lambda f: reverse(end(f, jde.Euler(), **EQUAL)),
    "implicit equal steps": lambda f: forward(end(f, jde.ImplicitEuler(), **EQUAL)),
    "implicit, reverse": lambda f: reverse(end(f, jde.ROS2())),
}
NEEDS = {  # programs that want no more than this of f
    "nothing": ["adaptive", "equal steps"],
    "forward": ["adaptive", "equal steps", "implicit equal steps"],
    "reverse": ["adaptive lanes, reverse", "equal steps, reverse", "implicit equal steps"],
}


def fails(functions: Sequence[Callable], program: Callable) -> str:
    """What is wrong, or nothing."""
    try:
        assert_as_plain(program(field(functions)), Y0, 0.7, rtol=1e-8, atol=1e-11)
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:300]}"
    return ""


def culprits(calls: Sequence[tuple[str, Callable]], program: Callable) -> dict[str, str]:
    wrong = fails([g for _, g in calls], program)
    if not wrong:
        return {}
    if len(calls) == 1:
        return {calls[0][0]: wrong}
    half = len(calls) // 2
    return culprits(calls[:half], program) | culprits(calls[half:], program) or {"together": wrong}


def check(calls: Sequence[tuple[str, Callable]], programs: Sequence[str]) -> None:
    wrong = {name: culprits(calls, PROGRAMS[name]) for name in programs}
    assert not any(wrong.values()), "\n".join(f"{name}: {what}" for name, what in wrong.items() if what)


@pytest.fixture(autouse=True)
def loose():
    """JAX's own functions, and their derivatives, do not keep to strict promotion."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


# ---- the nastiest, also on the oldest JAX


@jax.custom_jvp
def with_jvp(x):
    return jnp.sum(x**2)


with_jvp.defjvp(lambda primals, tangents: (with_jvp(*primals), 2 * jnp.dot(*primals, *tangents)))


@jax.custom_vjp
def with_vjp(x):
    return jnp.sum(x**3)


with_vjp.defvjp(lambda x: (jnp.sum(x**3), x), lambda x, g: (3 * g * x**2,))


@jax.custom_batching.custom_vmap
def with_vmap(x):
    return jnp.sin(x)


@with_vmap.def_vmap
def _(size, batched, x):
    return jnp.sin(x), batched[0]


def on_the_host(x):
    """A callback, with the derivative that it does not have by itself."""
    call = jax.custom_jvp(lambda x: jax.pure_callback(np.sin, x, x, vmap_method="expand_dims"))
    call.defjvp(lambda primals, tangents: (call(*primals), jnp.cos(*primals) * tangents[0]))
    return call(x)


def told(x):
    jax.debug.callback(lambda x: None, x)
    return x


MODULE = eqx.nn.MLP(2, 2, 3, 1, key=jax.random.key(0))
LAYERS = eqx.nn.Sequential([eqx.nn.LayerNorm(2), eqx.nn.Linear(2, 1, key=jax.random.key(1))])
NAMES = {
    "searching": """numpy.argwhere numpy.unique numpy.nonzero numpy.take numpy.take_along_axis lax.dynamic_slice
        lax.gather lax.scatter lax.scatter_add lax.scatter_max lax.dynamic_update_slice lax.top_k numpy.ldexp""",
    "structure": """lax.cond lax.switch lax.scan lax.map lax.associative_scan lax.custom_linear_solve lax.custom_root
        lax.reduce lax.reduce_window lax.conv lax.convert_element_type lax.bitcast_convert_type numpy.vectorize""",
}
SPECIAL: dict[str, dict[str, Callable]] = {
    **{kind: {name: WRITTEN[name] for name in names.split()} for kind, names in NAMES.items()},
    "tables and orders": {
        "interp": lambda x: jnp.interp(x, np.linspace(0, 1, 9), np.linspace(0, 1, 9) ** 2),
        "searchsorted": lambda x: jnp.searchsorted(np.linspace(0, 1, 9), x),
        "digitize": lambda x: jnp.digitize(x, np.linspace(0, 1, 9)),
        "histogram": lambda x: jnp.histogram(x, 4, (0.0, 1.0), weights=x)[0],
        "frexp": jnp.frexp,
        "sort": jnp.sort,
        "argsort": lambda x: x[jnp.argsort(x)],
        "cumsum": jnp.cumsum,
        "cumlogsumexp": lax.cumlogsumexp,
        "median": jnp.median,
        "segment_sum": lambda x: jax.ops.segment_sum(x, jnp.array([1, 0]), 3),
        "add at": lambda x: x.at[jnp.argmax(x)].add(x[0]),
        "set at": lambda x: jnp.zeros(3).at[jnp.array([0, 2])].set(x, unique_indices=True),
    },
    "algebra": {
        "solve": lambda x: jnp.linalg.solve(matrix(x), x),
        "eigh": lambda x: jnp.linalg.eigh(matrix(x))[0],
        "svd": lambda x: jnp.linalg.svd(matrix(x) + jnp.diag(x), compute_uv=False),
        "qr": lambda x: jnp.linalg.qr(matrix(x))[1],
        "cholesky": lambda x: jnp.linalg.cholesky(matrix(x)),
        "fft": lambda x: jnp.abs(jnp.fft.fft(x)),
        "einsum": lambda x: jnp.einsum("i,ij,j->", x, matrix(x), x),
        "convolve": lambda x: jnp.convolve(x, np.array([0.3, 0.4])),
        "logsumexp": jax.scipy.special.logsumexp,
        "gammainc": lambda x: jax.scipy.special.gammainc(2.0, x),
        "attention": lambda x: jax.nn.softmax(jnp.outer(x, x)) @ x,
    },
    "programs": {
        "custom_jvp": with_jvp,
        "checkpoint": jax.checkpoint(lambda x: jnp.sin(x) * jnp.exp(x)),
        "jit": jax.jit(lambda x: jnp.sin(x) * jnp.exp(x)),
        "jit, inlined": jax.jit(lambda x: jnp.cos(x) * x, inline=True),
        "fori": lambda x: lax.fori_loop(0, 3, lambda i, c: c * 0.9 + 0.1 * i, x),
        "while in stop": lambda x: lax.while_loop(lambda c: c[0] < 2, lambda c: c * 1.5, lax.stop_gradient(x)),
        "callback": on_the_host,
        "print": told,
        "grad": jax.grad(lambda x: jnp.sum(jnp.sin(x) ** 2)),
        "jacfwd": lambda x: jax.jacfwd(jnp.sin)(x),
        "hessian": jax.hessian(lambda x: jnp.prod(x**2)),
        "vmap": jax.vmap(lambda v: lax.cond(v > 0.5, jnp.sin, jnp.cos, v)),
        "MLP": MODULE,
        "layers": LAYERS,
        "bfloat16": lambda x: jnp.dot(x.astype(jnp.bfloat16), x.astype(jnp.bfloat16)).astype(x.dtype),
        "float32": lambda x: jnp.sum(jnp.tanh(x.astype(jnp.float32))).astype(x.dtype),
        "complex": lambda x: jnp.real(jnp.exp(1j * x)),
        "random": lambda x: x * jax.random.uniform(jax.random.key(3), (2,)),
        "one_hot": lambda x: jax.nn.one_hot(jnp.argmax(x), 2) @ x,
    },
}


FORWARD = {"custom_vmap": with_vmap, "while": WRITTEN["lax.while_loop"], "fori": WRITTEN["lax.fori_loop"]}


@pytest.mark.smoke
@pytest.mark.parametrize("program", NEEDS["forward"])
def test_functions_for_forward_mode_only(program):
    check([(name, number(g)) for name, g in FORWARD.items()], [program])


@pytest.mark.smoke
@pytest.mark.parametrize("program", NEEDS["reverse"])
@pytest.mark.parametrize("kind", SPECIAL)
def test_nasty_functions(kind, program):
    check([(name, number(g)) for name, g in SPECIAL[kind].items()], [program])


# ---- all of them, in groups

SIZE, GROUPS = 24, 18
APART = frozenset(
    words("""sort scatter gather dot_general while scan fft conv_general_dilated custom_jvp_call custom_vjp_call lu eigh
    scatter_add qr svd cholesky cumsum custom_linear_solve triangular_solve jit cond top_k""")
)


@functools.cache
def groups(what: str) -> list[list[Call]]:
    """Of those that want `what` of f, those first whose programs are short and may become one kernel."""
    calls, _ = found()
    kinds = dict.fromkeys(NO_REVERSE, "forward") | dict.fromkeys(NO_DERIVATIVE, "nothing")
    mine = [c for name, c in calls.items() if kinds.get(name, "reverse") == what]
    mine.sort(key=lambda c: (bool(APART & c.operations), len(c.program)))
    return [mine[i : i + SIZE] for i in range(0, len(mine), SIZE)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:nperseg")  # of a signal of two numbers
@pytest.mark.parametrize("k", range(GROUPS))
def test_every_function(k):
    calls = groups("reverse")[k] if k < len(groups("reverse")) else []
    check([(c.name, c.fun) for c in calls], NEEDS["reverse"])


@pytest.mark.slow
@pytest.mark.parametrize("what", ["nothing", "forward"])
def test_functions_without_all_derivatives(what):
    for calls in groups(what):
        check([(c.name, c.fun) for c in calls], NEEDS[what])


@pytest.mark.slow
def test_no_function_is_forgotten():
    calls, unfit = found()
    assert not unfit, f"write a call of each of these, or a reason: {unfit}"
    assert len(calls) > 400
    assert len(groups("reverse")) <= GROUPS


# ---- what stands in f beside functions of y


def truth_of_cubes(k):
    return 1 / np.sqrt(1 + 2 * k)  # y' = -k y³ from 1, at 1


@jax.custom_vjp
def cube(x):
    return x**3


cube.defvjp(lambda x: (x**3, x), lambda x, g: (3 * x**2 * g,))


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("method", "options"),
    [
        (jde.Tsit5(), {}),
        (jde.RK4(), {"controller": jde.FixedSteps(10)}),
        (jde.RK4(), {"controller": jde.FixedSteps(10), "saveat": jde.SaveAt(steps=1)}),
        (None, {}),
        (jde.Tsit5(), {"gradient": jde.GaussAdjoint()}),
        (jde.Tsit5(), {"gradient": jde.BacksolveAdjoint()}),
    ],
    ids=["adaptive", "equal steps", "every equal step", "chosen", "Gauss", "backsolve"],
)
def test_a_rule_for_reverse_mode_only(method, options):
    """f holds a `custom_vjp`, which forward mode refuses."""

    def last(k):
        f = lambda t, y, k: -k * cube(y)
        problem = jde.ODEProblem(f, jnp.ones(2), (0.0, 1.0), k)
        options_of = {"saveat": END, "rtol": 1e-6, "atol": 1e-8, **options}
        return jnp.sum(jde.solve(problem, method, **options_of).ys[-1])

    np.testing.assert_allclose(last(1.0), 2 * truth_of_cubes(1.0), rtol=1e-4)
    value, gradient = jax.jit(jax.value_and_grad(last))(1.0)
    np.testing.assert_allclose(value, 2 * truth_of_cubes(1.0), rtol=1e-4)
    np.testing.assert_allclose(gradient, -2 / 3**1.5, rtol=1e-4)


def in_f(kind: str, scale: Any) -> tuple[Callable, Any]:
    """A right-hand side with something in it that is no function of y, and its `args`."""
    if kind == "a key":
        key = jax.random.key(7)
        return lambda t, y, a: -a[0] * y + 0.1 * jax.random.normal(a[1], y.shape), (scale, key)
    if kind == "whole numbers":
        return lambda t, y, a: -a[0] * y + y[a[1]] * 0.1 * a[2].astype(float), (scale, jnp.arange(2), jnp.array([1, 2]))
    if kind == "flags":
        return lambda t, y, a: jnp.where(a[1], -a[0] * y, 0.1), (scale, jnp.array([True, False]))
    if kind == "a closure":
        return lambda t, y, a: -scale * y + a, jnp.array(0.1)
    if kind == "nothing":
        return lambda t, y, a: -scale * y, (None, {}, jnp.zeros((0, 3)))
    if kind == "a module":
        return lambda t, y, a: -a[0] * y + 0.1 * a[1](y), (scale, MODULE)
    if kind == "a constant":
        table = np.linspace(0, 1, 1000)
        return lambda t, y, a: -a * y + 0.1 * table[3] + 1e-3 * jnp.sum(table), scale
    assert kind == "a table"
    return lambda t, y, a: -a[0] * y + jnp.interp(t, a[1], a[1] ** 2), (scale, jnp.linspace(0, 1, 5))


THINGS = ["a key", "whole numbers", "flags", "a closure", "nothing", "a module", "a constant", "a table"]


@pytest.mark.smoke
@pytest.mark.parametrize("kind", THINGS)
def test_things_in_f(kind):
    def losses(scale):
        f, args = in_f(kind, scale)
        adaptive = jde.ODEProblem(f, jnp.asarray(Y0), (0.0, 1.0), args)
        options = {"saveat": END, "max_steps": 50}
        ends = jde.solve(adaptive, jde.BS3(), **options).ys, jde.solve(adaptive, jde.RK4(), **EQUAL).ys
        return jnp.sum(ends[0] ** 2) + 3 * jnp.sum(ends[1] ** 2)

    def program(scale):
        return jax.value_and_grad(losses)(scale), jax.vmap(losses)(jnp.stack([scale, 2 * scale]))

    assert_as_plain(jax.jit(program), jnp.array(0.7))
