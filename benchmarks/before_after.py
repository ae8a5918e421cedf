"""Another checkout against this one, in turns: `python benchmarks/before_after.py PATH`. Nothing may get slower.

Each checkout has a process that stays; a round times a case in one and then in the other, so that the ratio survives a
busy machine. Compile time is that of the processor, of a program never seen before, with JAX's caches emptied.
"""

from __future__ import annotations

import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent.parent
ROUNDS, COMPILES = 31, 3


def cases() -> dict[str, Callable[[], tuple[Callable, tuple]]]:
    """By name: () ↦ a function never seen before, and its arguments."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    import jaxdiffeq as jde

    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_enable_compilation_cache", False)
    y0, p, times = jnp.ones(2), jnp.array([1.5, 1.0, 3.0, 1.0]), jnp.linspace(0.0, 10.0, 101)
    end = jde.SaveAt(t1=True)

    def lotka(t, y, a):
        return jnp.stack([a[0] * y[0] - a[1] * y[0] * y[1], -a[2] * y[1] + a[3] * y[0] * y[1]])

    def robertson(t, y, k):
        slow, fast, back = k[0] * y[0], k[1] * y[1] * y[1], k[2] * y[1] * y[2]
        return jnp.stack([-slow + back, slow - back - fast, fast])

    def network(t, y, w):
        return jnp.tanh(jnp.tanh(y @ w[0]) @ w[1]) @ w[2]

    def solve(f, y0, args, t1, method, **options):
        fresh = lambda t, y, a: f(t, y, a)  # an f never seen before is a program never seen before
        return jde.solve(jde.ODEProblem(fresh, y0, (0.0, t1), args), method, **options).ys

    small = {"rtol": 1e-6, "atol": 1e-6}
    total = lambda run: lambda *args: jnp.sum(run(*args) ** 2)
    ends = lambda p, y: solve(lotka, y, p, 10.0, jde.Tsit5(), saveat=end, **small)
    many = lambda p, y: solve(lotka, y, p, 10.0, jde.Tsit5(), saveat=times, **small)
    fixed = lambda p, y: solve(lotka, y, p, 10.0, jde.RK4(), saveat=end, controller=jde.FixedSteps(1000))
    stiff = lambda method: lambda k, y: solve(robertson, y, k, 1e5, method, saveat=end, rtol=1e-6, atol=1e-9)
    rates, start = jnp.array([0.04, 3e7, 1e4]), jnp.array([1.0, 0.0, 0.0])
    rng = np.random.default_rng(0)
    shapes = (8, 64), (64, 64), (64, 8)
    w = [jnp.asarray(rng.normal(size=s) / s[0] ** 0.5) for s in shapes]
    batch = jnp.asarray(rng.normal(size=(64, 8)))
    neural = lambda w, y: solve(network, y, w, 1.0, jde.Tsit5(), saveat=end, rtol=1e-4, atol=1e-4)
    lanes = lambda p, ys: jax.vmap(lambda y: many(p, y))(ys)
    ys = jnp.asarray(1 + rng.uniform(size=(64, 2)))
    return {
        "small solve, end": lambda: (ends, (p, y0)),
        "small solve, 101 times": lambda: (many, (p, y0)),
        "its gradient": lambda: (jax.grad(total(many)), (p, y0)),
        "64 lanes": lambda: (lanes, (p, ys)),
        "64 lanes, gradient": lambda: (jax.grad(total(lanes)), (p, ys)),
        "RK4 × 1000": lambda: (fixed, (p, y0)),
        "RK4 × 1000, gradient": lambda: (jax.grad(total(fixed)), (p, y0)),
        "neural ODE, gradient": lambda: (jax.grad(total(neural)), (w, batch)),
        "Robertson, Rodas5P": lambda: (stiff(jde.Rodas5P()), (rates, start)),
        "Robertson, Rodas5P, gradient": lambda: (jax.grad(total(stiff(jde.Rodas5P()))), (rates, start)),
        "Robertson, KenCarp4": lambda: (stiff(jde.KenCarp4()), (rates, start)),
        "Robertson, BDF": lambda: (stiff(jde.BDF()), (rates, start)),
    }


def serve() -> None:
    """Answer lines on standard input: `compile NAME` and `time NAME`, each with a number of seconds."""
    import jax

    made, ready = cases(), {}
    print("ready", flush=True)
    for line in sys.stdin:
        what, name = line.strip().split(" ", 1)
        if what == "compile":
            jax.clear_caches()
            run, args = made[name]()
            used = time.process_time()
            compiled = jax.jit(run).lower(*args).compile()
            print(time.process_time() - used, flush=True)
            ready[name] = compiled, args
            continue
        compiled, args = ready[name]
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < 0.01:
            jax.block_until_ready(compiled(*args))
            count += 1
        print((time.perf_counter() - start) / count, flush=True)


class Checkout:
    def __init__(self, path: pathlib.Path, **settings: str):
        env = {**os.environ, "PYTHONPATH": str(path), **settings}
        command = [sys.executable, __file__, "--serve"]
        self.process = subprocess.Popen(command, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._line() == "ready"

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, what: str) -> float:
        assert self.process.stdin is not None
        print(what, file=self.process.stdin, flush=True)
        return float(self._line())


def contest(name: str, before: Checkout, after: Checkout) -> dict[str, Any]:
    pairs = [(before.ask(f"compile {name}"), after.ask(f"compile {name}")) for _ in range(COMPILES)]
    times = [(before.ask(f"time {name}"), after.ask(f"time {name}")) for _ in range(ROUNDS)]
    share = lambda of: statistics.median(b / a for a, b in of)
    return {
        "case": name,
        "before µs": 1e6 * statistics.median(a for a, _ in times),
        "after µs": 1e6 * statistics.median(b for _, b in times),
        "after / before": share(times),
        "compile before, CPU s": statistics.median(a for a, _ in pairs),
        "compile after / before": share(pairs),
    }


def main() -> None:
    import common

    if len(sys.argv) < 2:
        sys.exit(__doc__)
    before = Checkout(pathlib.Path(sys.argv[1]).resolve())
    after = Checkout(HERE)
    rows = common.gather(contest(name, before, after) for name in cases())
    common.report("before_after", "This checkout against the one that it began with", rows)


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["--serve"] else main()
