"""Gradients along a Brownian path over the forward solve, in time and in memory, by strategy.

10 000 paths of geometric Brownian motion, equal steps, the state at the end; float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import common
import jax
import jax.numpy as jnp
import numpy as np

import jaxdiffeq as jde

PATHS, STEPS = 10_000, 200
P = np.array([0.3, 0.5])
REPLAY, BACK = jde.ReverseAD(), jde.ReversibleAdjoint()
CONTESTANTS = {  # method, strategy, target
    "EulerMaruyama, ReverseAD": (jde.EulerMaruyama(), REPLAY, 3.5),
    "EulerMaruyama, ReverseAD('sqrt')": (jde.EulerMaruyama(), jde.ReverseAD(memory="sqrt"), None),
    "StochasticHeun, ReverseAD": (jde.StochasticHeun(), REPLAY, None),
    "StochasticHeun, BacksolveAdjoint": (jde.StochasticHeun(), jde.BacksolveAdjoint(), None),
    "ReversibleHeun, ReverseAD": (jde.ReversibleHeun(), REPLAY, None),
    "ReversibleHeun, ReversibleAdjoint": (jde.ReversibleHeun(), BACK, None),
}


def loss_of(method: Any, strategy: Any, paths: int, n: int) -> Any:
    drift, diffusion = (lambda t, y, p, k=k: p[k] * y for k in (0, 1))
    calculus = method.interpretations[0]
    problem = jde.SDEProblem(drift, diffusion, jnp.ones(paths), (0.0, 1.0), interpretation=calculus)
    how = {"controller": jde.FixedSteps(n), "saveat": jde.SaveAt(t1=True), "max_steps": n, "gradient": strategy}

    def loss(p, key):
        return jnp.mean(jde.solve(problem, method, args=p, key=key, **how).ys ** 2)

    return loss


def compiled(run: Any) -> Any:
    return jax.jit(run).lower(P, jax.random.key(0)).compile()


def of_time() -> Iterator[dict]:
    for name, (method, strategy, target) in CONTESTANTS.items():
        loss, reference = (loss_of(method, s, PATHS, STEPS) for s in (strategy, REPLAY))
        programs = compiled(loss), compiled(jax.value_and_grad(loss))
        forward, both = (lambda run=run: jax.block_until_ready(run(P, jax.random.key(0))) for run in programs)
        seconds = common.interleaved({"forward": forward, "gradient": both}, 11)
        exact = compiled(jax.grad(reference))(P, jax.random.key(0))
        share, mid = common.ratio(seconds, "gradient", "forward"), common.medians(seconds)
        yield {
            "of": name,
            "gradient over forward": share,
            "target": target,
            "gradient, s": mid["gradient"],
            "memory, MB": programs[1].memory_analysis().temp_size_in_bytes / 1e6,
            "distance from ReverseAD": common.relative_error(both()[1], exact),
        }


def of_memory() -> Iterator[dict]:
    for name, (method, strategy, _) in CONTESTANTS.items():
        programs = [compiled(jax.grad(loss_of(method, strategy, 10, n))) for n in (1000, 100_000)]
        few, many = (x.memory_analysis().temp_size_in_bytes for x in programs)
        constant = not isinstance(strategy, jde.ReverseAD)
        yield {"of": f"{name}, 10 paths, memory of 100 000 steps over that of 1000", "ratio": many / few} | (
            {"target": 1.1} if constant else {}
        )


def main() -> None:
    text = f"Gradients of {PATHS} paths through {STEPS} steps; then memory as steps are added."
    common.report("noise_gradients", text, [*of_time(), *of_memory()])


if __name__ == "__main__":
    main()
