"""Where forward mode stops beating reverse: the gradient of one loss in 2 to 1000 parameters.

dyᵢ/dt = −yᵢ + sin(Σₖ φᵢₖ pₖ + t)/4 on ten components, φ fixed random numbers, one product with p a call.
`jacfwd` pushes all parameters at once through the solve, `grad` pulls back once.
"""

from __future__ import annotations

from collections.abc import Callable

import common
import jax
import jax.numpy as jnp
import numpy as np
import solvers

import jaxdiffeq as jde

COUNTS = (2, 5, 10, 20, 50, 100, 300, 1000)
N, T1 = 10, 5.0


def field(mixing: np.ndarray) -> Callable:
    def f(t, y, p):
        return -y + jnp.sin(mixing @ p + t) / 4

    return f


def contest(count: int) -> dict:
    mixing = np.random.default_rng(0).standard_normal((N, count)) / np.sqrt(count)
    p, y0 = jnp.ones(count), jnp.linspace(0.5, 1.5, N)
    run, peer = (make(field(mixing), "Tsit5", T1) for make in (solvers.ours, solvers.diffrax))

    def loss(p, run=run):
        return jnp.sum(run(y0, p, 1e-6) ** 2)

    makers = {
        "reverse": jax.grad(loss),
        "forward": jax.jacfwd(loss),
        "diffrax reverse": jax.grad(lambda p: loss(p, peer)),
    }
    if hasattr(jde, "ForwardAD"):
        strategy = solvers.ours(field(mixing), "Tsit5", T1, gradient=jde.ForwardAD())
        makers["ForwardAD"] = jax.grad(lambda p: loss(p, strategy))
    runs, values = {}, {}
    for name, fun in makers.items():
        _, runs[name] = solvers.jitted(fun, p)
        values[name] = np.asarray(runs[name]())
    seconds = common.interleaved(runs, 15)
    return {
        "parameters": count,
        **{f"{name} µs": s * 1e6 for name, s in common.medians(seconds).items()},
        "forward / reverse": common.ratio(seconds, "forward", "reverse"),
        "they differ by": common.relative_error(values["forward"], values["reverse"]),
    }


def main() -> None:
    rows = common.gather(contest(count) for count in COUNTS)
    better = [r["parameters"] for r in rows if r["forward / reverse"] < 1]
    note = f"Forward mode is faster up to {max(better)} parameters." if better else "Forward mode is never faster here."
    common.report("forward_or_reverse", "Forward or reverse", rows, [note])
    curves = {k[:-3]: ([r["parameters"] for r in rows], [r[k] for r in rows]) for k in rows[0] if k.endswith("µs")}
    common.lines("forward_or_reverse", "Gradient of one loss", curves, ("parameters", "µs"))


if __name__ == "__main__":
    main()
