"""Random right-hand sides, each solved and differentiated on both paths: run by test_random_programs.py.

A program is a list of (operation, operands by number); its name is that list, printed before it is compiled.
"""

import sys
import traceback
from collections.abc import Callable

import hypothesis
import jax
import jax.numpy as jnp
from helpers.cases import BAD, BEGIN, GOOD
from helpers.plain import answer, assert_close
from hypothesis import strategies as st
from jax import lax

import jaxdiffeq as jde

jax.config.update("jax_enable_x64", True)


def one(op: Callable) -> Callable:
    return lambda a, b: op(a)


def masked(a, b):
    return jnp.where(a > b, a, 0.5 * b)


def folded(a, b):
    return lax.scan(lambda c, x: (c * 0.5 + x, c), a, jnp.stack([b, a, b]))[0]


def rows(a, b):
    return jnp.sum(lax.scan(lambda c, x: (c + x, jnp.sin(c)), a, jnp.stack([b, a]))[1], 0)


def chosen(a, b):
    return lax.cond(jnp.sum(a) > jnp.sum(b), lambda: jnp.sin(a), lambda: 0.3 * b)


def switched(a, b):
    return lax.switch(jnp.argmax(a) % 3, [jnp.sin, jnp.cos, lambda x: x * 0.5], b)


OPERATIONS: dict[str, Callable] = {
    "add": jnp.add,
    "sub": jnp.subtract,
    "mul": lambda a, b: 0.7 * a * b,
    "div": lambda a, b: a / (1.0 + b * b),
    "max": jnp.maximum,
    "where": masked,
    "sin": one(jnp.sin),
    "tanh": one(jnp.tanh),
    "exp": one(lambda a: jnp.exp(-a * a)),
    "log": one(lambda a: jnp.log(1.0 + a * a)),
    "sqrt": one(lambda a: jnp.sqrt(1.0 + a * a)),
    "pow": lambda a, b: jnp.power(1.0 + a * a, 0.3),
    "sum": lambda a, b: a + 0.1 * jnp.sum(b),
    "prod": lambda a, b: a + 0.1 * jnp.prod(jnp.cos(b)),
    "mean over rows": lambda a, b: a - (jnp.mean(b, 0, keepdims=True) if b.ndim else b),
    "cumsum": one(lambda a: 0.3 * jnp.cumsum(jnp.ravel(a)).reshape(a.shape)),
    "sort": one(lambda a: jnp.sort(jnp.ravel(a)).reshape(a.shape)),
    "flip": one(jnp.flip),
    "roll": one(lambda a: jnp.roll(a, 1)),
    "gather": lambda a, b: jnp.ravel(a)[jnp.argsort(jnp.ravel(b))].reshape(a.shape),
    "pick": lambda a, b: b + jnp.ravel(a)[jnp.argmax(jnp.ravel(b))],
    "scatter": lambda a, b: jnp.ravel(a).at[jnp.argmin(jnp.ravel(b))].add(0.5).reshape(a.shape),
    "update": lambda a, b: lax.dynamic_update_slice(a, 0.5 * b[..., :1], (0,) * a.ndim) if a.ndim else a,
    "dot": lambda a, b: a * jnp.vdot(a, b) * 0.2,
    "outer": lambda a, b: jnp.tanh(jnp.outer(a, b) @ jnp.ravel(a)).reshape(a.shape) * 0.3,
    "interp": one(lambda a: jnp.interp(a, jnp.linspace(-2.0, 2.0, 7), jnp.linspace(0.0, 1.0, 7))),
    "float32": one(lambda a: jnp.tanh(a.astype(jnp.float32)).astype(a.dtype)),
    "whole": one(lambda a: a + 0.1 * (jnp.floor(a).astype(jnp.int32) % 3).astype(a.dtype)),
    "flags": lambda a, b: a * (jnp.any(b > 0.2)).astype(a.dtype),
    "complex": lambda a, b: jnp.real((a + 1j * b) ** 2) * 0.3,
    "scan": folded,
    "rows": rows,
    "fori": lambda a, b: lax.fori_loop(0, 2, lambda i, c: jnp.sin(c) + 0.1 * b, a),
    "cond": chosen,
    "switch": switched,
    "map": one(lambda a: lax.map(jnp.sin, a) if a.ndim else a),
    "checkpoint": jax.checkpoint(lambda a, b: jnp.sin(a) * b),
    "jit": jax.jit(lambda a, b: jnp.cos(a) - b),
    "zero": one(jnp.zeros_like),
    "constant": one(lambda a: jnp.full_like(a, 0.3)),
    "stopped": one(lax.stop_gradient),
}
METHODS = {
    "BS3": (jde.BS3(), {"saveat": jnp.array([0.3, 1.0])}),
    "equal": (jde.Midpoint(), {"controller": jde.FixedSteps(3)}),
    "ROS2": (jde.ROS2(), {}),
}
SHAPES = [(), (1,), (2,), (4,), (2, 3), (1, 2, 2)]


@st.composite
def programs(draw):
    shape = draw(st.sampled_from(SHAPES))
    count = draw(st.integers(1, 8))
    names = st.sampled_from(sorted(OPERATIONS))
    steps = [(draw(names), draw(st.integers(0, k + 1)), draw(st.integers(0, k + 1))) for k in range(count)]
    return shape, tuple(steps), draw(st.sampled_from(sorted(METHODS))), draw(st.sampled_from([0, 1, 3]))


def field(steps) -> Callable:
    """Values 0 and 1 are y and a·y + t, and each operation adds one."""

    def f(t, y, a):
        values = [y, a * y + 0.1 * t]
        for name, i, j in steps:
            values.append(OPERATIONS[name](values[i], values[j]))
        return -y + 0.2 * jnp.tanh(values[-1])

    return f


def compare(shape, steps, method, lanes) -> None:
    f, (kind, options) = field(steps), METHODS[method]
    y = 0.2 + 0.13 * jnp.arange(1.0, 1.0 + max(1, jnp.zeros(shape).size)).reshape(shape)

    def end(y, a):
        problem = jde.ODEProblem(f, y, (0.0, 1.0), a)
        options_of = {"saveat": jde.SaveAt(t1=True), "max_steps": 60, **options}
        return jnp.sum(jde.solve(problem, kind, throw=False, **options_of).ys ** 2)

    run = jax.value_and_grad(end, (0, 1))
    if lanes:
        run = jax.vmap(run, (0, None), axis_size=lanes)
        y = jnp.stack([y * (1 + 0.1 * k) for k in range(lanes)])
    program = jax.jit(run)
    found, wanted = answer(program, y, jnp.array(0.4)), answer(jax.jit(lambda *x: run(*x)), y, jnp.array(0.4), on=True)
    assert_close(found, wanted, rtol=1e-8, atol=1e-10)


@hypothesis.settings(
    max_examples=int(sys.argv[2]),
    derandomize=True,
    deadline=None,
    database=None,
    phases=[hypothesis.Phase.generate],  # a case is small as it is, and the next attempt may abort
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.data_too_large],
)
@hypothesis.given(programs())
def every(program) -> None:
    global number
    number += 1
    if number <= int(sys.argv[1]):
        return
    print(f"{BEGIN}{program}", flush=True)
    try:
        compare(*program)
    except Exception:
        print(f"{traceback.format_exc(limit=-3)}\n{BAD}", flush=True)
    else:
        print(GOOD, flush=True)


if __name__ == "__main__":
    number = 0
    every()
