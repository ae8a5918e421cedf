"""One factorisation and six solves inside a loop, n = 1 to 200, single and vmapped: ours against the LAPACK calls.

Ours is scalars, a loop over columns, LAPACK's inverse or its factors, by n and the number of lanes: `chosen` is that
one, and its ratio to the fastest of all says whether the sizes at which we change are the right ones. In a solve ours
gain more than here, because a call of LAPACK ends the kernel around it. The residual is ‖b − w·x‖/(‖w‖·‖x‖).

    python benchmarks/linear_algebra.py             # all sizes, and keeps the result
    python benchmarks/linear_algebra.py 1 3 8 20    # these sizes, prints only
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import common
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdiffeq.algebra import lu
from jaxdiffeq.primitives.cpu_kernel import ELEMENTS
from jaxdiffeq.primitives.while_loop import frozen_while

SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 100, 200)
LANES = (1, 64)
SOLVES = 6
LONGEST = {"scalar": 8, "rolled": 32}  # larger ones take minutes to compile


def lapack(w: jax.Array) -> Any:
    return lu._Lapack(*lax.linalg.lu(w)[:2])


FACTOR: dict[str, Callable] = {
    "scalar": lu._factor_scalar,
    "rolled": lu._eliminate,
    "inverse": lu._inverted,
    "LAPACK": lapack,
}


def chosen(n: int, lanes: int) -> str:
    if n <= lu.SCALAR:
        return "scalar"
    if n > lu.ROLLED:
        return "LAPACK"
    return "rolled" if lanes * n**2 <= ELEMENTS else "inverse"


def loop(factor: Callable, trips: int) -> Callable:
    """(w, b) ↦ the last solution, in the loop that solves run in.

    Every trip has another matrix and right-hand side, which depend on the one before.
    """

    def trip(carry, _):
        k, w, x = carry
        factors = factor(w + 1e-3 * x[0])
        for _ in range(SOLVES):
            x = lu.substitute(factors, x)
            x = x / (1e-3 + jnp.max(jnp.abs(x)))
        return (k + 1, w, x), ()

    def going(carry, _):
        return carry[0] < trips

    return lambda w, b: frozen_while(going, trip, (jnp.zeros((), jnp.int32), w, b), ())[0][2]


def residual(factor: Callable, w: jax.Array, b: jax.Array) -> float:
    x = lu.substitute(factor(w), b)
    return float(jnp.linalg.norm(b - w @ x) / (jnp.linalg.norm(w) * jnp.linalg.norm(x)))


def contest(n: int, lanes: int) -> dict[str, Any]:
    random = np.random.default_rng(n)
    w, b = jnp.asarray(random.normal(size=(lanes, n, n))), jnp.asarray(random.normal(size=(lanes, n)))
    trips = max(4, min(1000, 200_000 // (n**2 * lanes)))
    runs, compiling, errors = {}, {}, {}
    for name, factor in FACTOR.items():
        if n > LONGEST.get(name, n):
            continue

        def make(factor=factor):
            one = loop(factor, trips)
            return (one, (w[0], b[0])) if lanes == 1 else (jax.vmap(one), (w, b))

        compiling[name] = sum(common.compile_seconds(make)[:2])
        fun, args = make()
        runs[name] = lambda f=jax.jit(fun), args=args: f(*args)
        errors[name] = residual(factor, w[0], b[0])
    seconds = common.interleaved(runs, 21)
    each = {name: s / trips / lanes * 1e6 for name, s in common.medians(seconds).items()}
    best, ours = min(each, key=each.__getitem__), chosen(n, lanes)
    return {
        "n": n,
        "lanes": lanes,
        **{f"{name} µs": each.get(name) for name in FACTOR},
        "chosen": ours,
        "chosen / LAPACK": common.ratio(seconds, ours, "LAPACK"),
        "chosen / fastest": common.ratio(seconds, ours, best),
        "residual": errors[ours],
        "of LAPACK": errors["LAPACK"],
        "compile s": compiling[ours],
        "LAPACK s": compiling["LAPACK"],
    }


def main() -> None:
    sizes = tuple(map(int, sys.argv[1:])) or SIZES
    rows = common.gather(contest(n, lanes) for lanes in LANES for n in sizes)
    if sizes != SIZES:
        print(common.markdown(rows))
        return
    title = "One factorisation and six solves, µs a system"
    common.report(
        "linear_algebra", title, rows, [f"We change at n = {lu.SCALAR}, at n = {lu.ROLLED} and at {ELEMENTS} entries."]
    )
    curves = {f"{name}, {lanes} at once": curve(rows, name, lanes) for name in FACTOR for lanes in LANES}
    common.lines("linear_algebra", title, curves, ("n", "µs"))


def curve(rows: list[dict[str, Any]], name: str, lanes: int) -> tuple[list, list]:
    kept = [r for r in rows if r["lanes"] == lanes and r[f"{name} µs"] is not None]
    return [r["n"] for r in kept], [r[f"{name} µs"] for r in kept]


if __name__ == "__main__":
    main()
