"""Loops of many kinds, each compared with `lax.while_loop`: run as `python one_kernel.py BATCH` by test_while_loop.py.

With a second argument, `whole`, each is one kernel with what stands before it and after it; with `rows`, a scan.
The name of a case is printed before it is compiled, so when XLA aborts the process the last name says which one it was.
"""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdiffeq.primitives.fused_region import fused_region
from jaxdiffeq.primitives.scan import scan
from jaxdiffeq.primitives.while_loop import frozen_while

jax.config.update("jax_enable_x64", True)

ONES, RAMP = jnp.ones(3), jnp.arange(1.0, 4.0)


def loop(body, carry, n=3, use=frozen_while):
    """`n` times body, with the count as the fixed part."""

    def step(c, k):
        live = k < n
        return jax.tree.map(lambda new, old: jnp.where(live, new, old), body(c), c), k + live.astype(k.dtype)

    if use is frozen_while:
        return frozen_while(lambda c, k: k < n, step, carry, 0)
    return lax.while_loop(lambda x: x[1] < n, lambda x: step(*x), (carry, jnp.asarray(0)))


def plain(body, carry, n=3):
    return loop(body, carry, n, None)


def whole(body, carry, n=3, ours=True):
    """A trip, the loop and another trip."""

    def run(c, n):
        c, k = (loop if ours else plain)(body, body(c), n)
        return body(c), k

    return fused_region(run, carry, n) if ours else run(carry, n)


def rows(body, carry, n=3, ours=True):
    """A scan of four trips, of which `n` do something, with a row of each."""

    def trip(c, k):
        c = jax.tree.map(lambda new, old: jnp.where(k < n, new, old), body(c), c)
        return c, c

    return (scan if ours else lax.scan)(trip, carry, jnp.arange(4))


MODES = {"whole": (whole, functools.partial(whole, ours=False)), "rows": (rows, functools.partial(rows, ours=False))}
OURS, THEIRS = MODES[sys.argv[2]] if len(sys.argv) > 2 else (loop, plain)


def check(name, with_loop, *args, transform=jax.jit):
    """`with_loop(loop)` is a function of `args`."""
    print(name, flush=True)
    ours, theirs = transform(with_loop(OURS))(*args), transform(with_loop(THEIRS))(*args)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14), ours, theirs)


def variants(body, real, use):
    """The loop, over a batch of four, and its derivative, in one program."""

    def run(c):
        many = jax.tree.map(lambda x: jnp.stack([jnp.asarray(x)] * 4), c)
        d = jax.jvp(lambda c: use(body, c)[0], (c,), (c,)) if real else None
        return use(body, c), jax.vmap(lambda c: use(body, c))(many), d

    return run


def bodies(cases):
    for name, body, carry in cases:
        real = all(jnp.issubdtype(jnp.result_type(x), jnp.inexact) for x in jax.tree.leaves(carry))

        check(name, functools.partial(variants, body, real), carry)


def shapes():
    bodies(
        [
            ("scalar", lambda x: x * 1.1, 1.0),
            ("vector", lambda x: x * 1.1, RAMP),
            ("matrix", lambda x: x * 1.1, jnp.ones((3, 2))),
            ("rank 4", lambda x: x * 1.1, jnp.ones((1, 3, 1, 2))),
            ("one element", lambda x: x * 1.1, jnp.ones((1, 1))),
            ("zero size", lambda x: x * 1.1, jnp.ones((0,))),
            ("zero size, rank 2", lambda x: x * 1.1, jnp.ones((3, 0))),
            ("zero size beside others", lambda c: (c[0] * 2, c[1]), (ONES, jnp.ones((0, 2)))),
            ("bool", lambda x: ~x, jnp.array([True, False])),
            ("int32", lambda x: x + 1, jnp.arange(3, dtype=jnp.int32)),
            ("uint8", lambda x: x + jnp.uint8(200), jnp.arange(3, dtype=jnp.uint8)),
            ("float32", lambda x: x * jnp.float32(1.5), jnp.ones(3, jnp.float32)),
            ("float16", lambda x: x * jnp.float16(1.5), jnp.ones(3, jnp.float16)),
            ("bfloat16", lambda x: x * jnp.bfloat16(1.5), jnp.ones(3, jnp.bfloat16)),
            ("complex64", lambda x: x * jnp.complex64(1j), jnp.ones(3, jnp.complex64)),
            ("complex128", lambda x: x * 1j + x.real, jnp.ones(3, jnp.complex128)),
            ("mixed", lambda c: (c[0] + c[1].astype(float), c[1] + 1, ~c[2]), (ONES, jnp.arange(3), jnp.array(True))),
            ("big", lambda x: jnp.sin(x) * 1.1, jnp.ones(20_000)),
            *(
                (
                    f"{op.__name__} of {size} along {axis}",
                    lambda x, op=op, axis=axis: x + op(x * 0.5, axis, keepdims=True),
                    x,
                )
                for size, x in ((4095, jnp.ones((63, 65))), (4096, jnp.ones((64, 64))))
                for op in (jnp.sum, jnp.max, jnp.min)
                for axis in (0, 1, None)
            ),
            ("sum of what is big", lambda c: (c[0] + jnp.sum(c[1]), c[1]), (ONES, jnp.ones(20_000))),
            ("big buffer, small body", lambda x: lax.dynamic_update_slice(x, x[:1] * 2, (1,)), jnp.ones(20_000)),
        ]
    )


def structure():
    bodies(
        [
            ("nothing moves", lambda x: x, RAMP),
            ("constant result", lambda x: jnp.zeros_like(x), RAMP),
            ("unused carry", lambda c: (c[0] * 2, c[1]), (ONES, RAMP)),
            ("overwritten carry", lambda c: (c[0] * 2, c[0]), (ONES, RAMP)),
            ("swapped", lambda c: (c[1], c[0]), (ONES, RAMP)),
            ("duplicated operand", lambda c: (c[0] + c[1], c[1] * 2), (RAMP, RAMP)),
            ("duplicated result", lambda c: (c[0] * 2, c[0] * 2), (RAMP, ONES)),
            ("many carries", lambda c: [x + 1.0 for x in c[1:]] + [c[0]], [jnp.float64(i) for i in range(40)]),
            ("closed-over constant", lambda x: x * np.arange(3.0), ONES),
            ("closed-over array, unused", lambda x: (RAMP * 0 + x) * 1, ONES),
        ]
    )
    check("no carry", lambda use: lambda: use(lambda c: (), ()))
    check("unused operand", lambda use: lambda x, y: use(lambda c: c + 0 * y, x), ONES, RAMP)
    check("same operand twice", lambda use: lambda x: use(lambda c: (c[0] * x, c[1] + x), (x, x)), RAMP)
    check("no result used", lambda use: lambda x: (use(lambda c: c * 2, x), x)[1], RAMP)
    check("one result used", lambda use: lambda x: use(lambda c: (c[1], c[0] * 2), (x, x))[0][1], RAMP)
    check("constant input", lambda use: lambda x: use(lambda c: c * x, jnp.zeros(3)), RAMP)
    check("everything constant", lambda use: lambda: use(lambda c: c * 2, jnp.ones(3)))
    check("traced count", lambda use: lambda n: use(lambda c: c * 2, ONES, n), 5)
    check("no trip", lambda use: lambda n: use(lambda c: c * 2, ONES, n), 0)


def operations():
    def branch(x):
        return lax.cond(x[0] > 2, lambda: jnp.sin(x), lambda: x * 1.5)

    unary = (
        "exp exp2 log log1p expm1 sin cos tan tanh sinh cosh arcsinh arctan sqrt cbrt square abs sign floor ceil round"
    )
    cases = [(name, lambda x, f=getattr(jnp, name): 0.5 + 0.1 * f(x), RAMP) for name in unary.split()]
    special = ["erf", "erfc", "lgamma", "digamma", "rsqrt", "logistic", "reciprocal", "bessel_i0e", "erf_inv"]
    cases += [(name, lambda x, f=getattr(lax, name): 0.5 + 0.1 * f(x / 4), RAMP) for name in special]
    reductions = [
        "sum",
        "prod",
        "max",
        "min",
        "any",
        "all",
        "argmax",
        "mean",
        "std",
        "cumsum",
        "cumprod",
        "sort",
        "linalg.norm",
    ]
    for name in reductions:
        f = jnp.linalg.norm if "." in name else getattr(jnp, name)
        cases.append((name, lambda x, f=f: x * 0.9 + jnp.asarray(f(x)).astype(float) * 0.1, RAMP))
    binary = ["power", "arctan2", "maximum", "minimum", "fmod", "hypot", "logaddexp", "heaviside", "copysign"]
    cases += [(name, lambda x, f=getattr(jnp, name): 0.1 + 0.1 * f(x, x[::-1]), RAMP) for name in binary]
    bodies(
        [
            *cases,
            ("polynomial", lambda x: jnp.polyval(RAMP * 0.1, x), RAMP),
            ("gather", lambda x: x[jnp.array([2, 0, 1])] * 1.1, RAMP),
            ("gather by value", lambda x: x[jnp.argmax(x)] + 0 * x, RAMP),
            ("dynamic slice", lambda x: x + lax.dynamic_slice(x, (jnp.argmin(x),), (1,)), RAMP),
            ("dynamic update", lambda x: x.at[jnp.argmin(x)].set(2.0), RAMP),
            ("scatter add", lambda x: x.at[jnp.array([0, 0, 2])].add(1.0), RAMP),
            ("dot", lambda x: jnp.eye(3) @ x, RAMP),
            ("outer", lambda x: jnp.outer(x, x)[0] * 0.1, RAMP),
            ("einsum", lambda x: jnp.einsum("ij,i->j", jnp.ones((3, 3)) / 3, x), RAMP),
            ("convolution", lambda x: jnp.convolve(x, jnp.array([0.2, 0.6, 0.2]), "same"), RAMP),
            ("solve", lambda x: jnp.linalg.solve(jnp.eye(3) * 2, x), RAMP),
            ("fft", lambda x: jnp.fft.irfft(jnp.fft.rfft(x, 4), 4)[:3] * 0.5, RAMP),
            ("roll", lambda x: jnp.roll(x, 1) * 0.9, RAMP),
            ("pad, concatenate", lambda x: jnp.concatenate([jnp.pad(x, 1)[1:3], x[:1] + 1]), RAMP),
            ("stack, transpose", lambda x: jnp.stack([x, x * 2]).T.reshape(-1)[:3], RAMP),
            ("flip, tile, repeat", lambda x: (jnp.tile(x, 2)[::-1][:3] + jnp.repeat(x, 2)[:3]) / 2, RAMP),
            ("clip, where", lambda x: jnp.where(x > 1.5, jnp.clip(x * 2, 0, 5), -x), RAMP),
            ("diff", lambda x: jnp.append(jnp.diff(x), 1.0), RAMP),
            ("softmax", jax.nn.softmax, RAMP),
            ("relu, gelu, silu", lambda x: jax.nn.relu(x) + jax.nn.gelu(x) - jax.nn.silu(x), RAMP),
            ("softplus, elu", lambda x: jax.nn.softplus(x) - jax.nn.elu(-x), RAMP),
            ("random", lambda x: x + jax.random.normal(jax.random.key(0), (3,)), RAMP),
            ("integer arithmetic", lambda x: (x * 7 + 3) // 2 % 11, jnp.arange(3)),
            ("bits", lambda x: (x << 1) ^ (x >> 2) & 5 | 1, jnp.arange(3)),
            ("cond", branch, RAMP),
            ("switch", lambda x: lax.switch(jnp.argmax(x), [jnp.sin, jnp.cos, lambda x: x * 2], x), RAMP),
            ("bitcast", lambda x: lax.bitcast_convert_type(lax.bitcast_convert_type(x, jnp.int64), float) * 1.1, RAMP),
            ("device put", lambda x: jax.device_put(x) * 1.1, RAMP),
            ("device put there", lambda x: jax.device_put(x, jax.devices()[0]) * 1.1, RAMP),
            ("checkpoint", jax.checkpoint(lambda x: jnp.sin(x) * 2), RAMP),
            ("jit inside", jax.jit(lambda x: jnp.sin(x) * 2), RAMP),
            ("grad inside", jax.grad(lambda x: jnp.sum(jnp.sin(x) ** 2)), RAMP),
            ("jacfwd inside", lambda x: jnp.sum(jax.jacfwd(jnp.sin)(x), 1), RAMP),
        ]
    )


def transformations():
    def body(c):
        return jnp.sin(c) * 1.1 + c * jnp.sum(c) * 0.01

    check("jit of vmap", lambda use: jax.vmap(lambda x: use(body, x)), jnp.ones((4, 3)))
    check("no jit", lambda use: lambda x: use(body, x), RAMP, transform=lambda f: f)
    check("hessian-like", lambda use: jax.jacfwd(jax.jacfwd(lambda x: use(body, x)[0])), RAMP)
    check(
        "vmap of jvp", lambda use: jax.vmap(lambda x: jax.jvp(lambda x: use(body, x)[0], (x,), (x,))), jnp.ones((2, 3))
    )
    check("batched count", lambda use: jax.vmap(lambda n: use(body, RAMP, n)), jnp.arange(4))
    check("vmap of vmap", lambda use: jax.vmap(jax.vmap(lambda x: use(body, x))), jnp.ones((2, 2, 3)))
    check("in scan", lambda use: lambda x: lax.scan(lambda c, _: (use(body, c)[0], c), x, None, 4), RAMP)
    check("in fori", lambda use: lambda x: lax.fori_loop(0, 4, lambda _, c: use(body, c)[0], x), RAMP)
    check(
        "in while", lambda use: lambda x: lax.while_loop(lambda c: c[0] > 0.9, lambda c: use(body, c)[0] - 0.2, x), RAMP
    )
    check("in cond", lambda use: lambda x: lax.cond(x[0] > 0, lambda: use(body, x)[0], lambda: x), RAMP)
    check("in map", lambda use: lambda x: lax.map(lambda x: use(body, x)[0], x), jnp.ones((4, 3)))
    check(
        "vmap of scan",
        lambda use: jax.vmap(lambda x: lax.scan(lambda c, _: (use(body, c)[0], c), x, None, 2)),
        jnp.ones((4, 3)),
    )
    check(
        "jvp of scan",
        lambda use: lambda x: jax.jvp(lambda x: lax.scan(lambda c, _: (use(body, c)[0], c), x, None, 2), (x,), (x,)),
        RAMP,
    )
    check("two in a row", lambda use: lambda x: use(jnp.cos, use(body, x)[0]), RAMP)
    check("two side by side", lambda use: lambda x: (use(body, x), use(jnp.cos, x)), RAMP)
    check("same twice", lambda use: lambda x: (use(body, x), use(body, x * 2)), RAMP)


def nesting():
    def inner(use):
        return lambda c: use(lambda x: x * 1.1, c)[0]

    def wide(use):
        return lambda c: (use(lambda x: (x[1], x[0] + 1), c)[0][0], c[1] * use(jnp.cos, c[0], 2)[0])

    check("loop in loop", lambda use: lambda x: use(inner(use), x), RAMP)
    check("loop in loop in loop", lambda use: lambda x: use(lambda c: use(inner(use), c)[0], x), RAMP)
    check("two loops in a loop", lambda use: lambda x: use(wide(use), (x, x)), RAMP)
    check(
        "inner result unused",
        lambda use: lambda x: use(lambda c: (use(jnp.sin, c[0])[0], c[1])[::-1], (x, x + 1)),
        RAMP,
    )
    check(
        "inner constant carry",
        lambda use: lambda x: use(lambda c: use(lambda d: (d[0] + d[1], d[1]), (c, ONES))[0][0], x),
        RAMP,
    )
    check("jvp of nested", lambda use: lambda x: jax.jvp(lambda x: use(inner(use), x)[0], (x,), (x,)), RAMP)
    check("vmap of nested", lambda use: jax.vmap(lambda x: use(inner(use), x)), jnp.ones((2, 3)))
    check(
        "lax.while in loop",
        lambda use: lambda x: use(lambda c: lax.while_loop(lambda d: d[0] < 9, lambda d: d * 2, c), x),
        RAMP,
    )
    check("fori in loop", lambda use: lambda x: use(lambda c: lax.fori_loop(0, 3, lambda i, d: d + i, c), x), RAMP)
    check("scan in loop", lambda use: lambda x: use(lambda c: lax.scan(lambda d, a: (d + a, a), c, RAMP)[0], x), RAMP)
    check("dot in the inner loop", lambda use: lambda x: use(lambda c: use(lambda d: jnp.eye(3) @ d, c)[0], x), RAMP)
    check(
        "cond around inner",
        lambda use: lambda x: use(lambda c: lax.cond(c[0] > 0, lambda: inner(use)(c), lambda: c), x),
        RAMP,
    )


def fuzz():
    """Random straight-line programs of small operations with swapped, dropped and repeated carries."""
    makers = [
        lambda a, b: a + b,
        lambda a, b: a * 0.5 - b,
        lambda a, b: jnp.sin(a),
        lambda a, b: jnp.where(a > b, a, b * 0.9),
        lambda a, b: a + jnp.sum(b) * 0.01,
        lambda a, b: jnp.roll(a, 1),
        lambda a, b: lax.dynamic_update_index_in_dim(a, b[0], 1, 0),
        lambda a, b: jnp.zeros_like(a),
        lambda a, b: jnp.tanh(a / (1 + b * b)),
        lambda a, b: b,
    ]
    for seed in range(40):
        rng = np.random.default_rng(seed)
        count = int(rng.integers(1, 6))
        plan = [(int(rng.integers(len(makers))), *(int(i) for i in rng.integers(0, count + k, 2))) for k in range(8)]
        picks = [int(i) for i in rng.integers(0, count + len(plan), count)]

        def body(c, plan=plan, picks=picks):
            values = list(c)
            for which, i, j in plan:
                values.append(makers[which](values[i], values[j]))
            return tuple(values[i] for i in picks)

        carry = tuple(jnp.asarray(rng.normal(size=3)) for _ in range(count))
        check(f"fuzz {seed}", lambda use, body=body: lambda c: use(body, c), carry)


if __name__ == "__main__":
    globals()[sys.argv[1]]()
