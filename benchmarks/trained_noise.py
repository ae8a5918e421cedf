"""The layer of an article, trained: Lotka–Volterra with noise 0.1·y, so that the number of prey stays at one.

Rackauckas et al. 2019, arXiv:1902.02376: `SOSRI` at rtol = atol = 0.1, saved every 0.1 up to t = 10, Adam at a rate of
0.1 for 100 epochs, a new path each. With one path and with a hundred a step; the loss is that over 200 other paths, as
mean ± standard error over 20 seeds. These paths are the same for all, so that what they err by together is not in it:
other 200 gave 8.8 for 7.4.
"""

from __future__ import annotations

import time

import common
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxdiffeq as jde

TIMES = jnp.linspace(0.0, 10.0, 101)
START = jnp.array([2.2, 1.0, 2.0, 0.4])
EPOCHS, SEEDS = 100, 20
HOW = {"saveat": TIMES, "rtol": 0.1, "atol": 0.1, "max_steps": 2000}


def drift(t, y, p):
    a, b, c, d = p
    x, w = y
    return jnp.stack([a * x - b * x * w, d * x * w - c * w])


PROBLEM = jde.SDEProblem(drift, lambda t, y, p: 0.1 * y, jnp.ones(2), (0.0, 10.0), START, key=jax.random.key(0))


def loss(p: jax.Array, keys: jax.Array) -> jax.Array:
    def prey(key):
        return jde.solve(PROBLEM, jde.SOSRI(), args=p, key=key, **HOW).ys[:, 0]

    return jnp.mean(jnp.sum((jax.lax.map(prey, keys, batch_size=20) - 1) ** 2, -1))


def trained(seed: jax.Array, paths: int) -> jax.Array:
    optimiser = optax.adam(0.1)

    def epoch(state, key):
        p, of_adam = state
        updates, of_adam = optimiser.update(jax.grad(loss)(p, jax.random.split(key, paths)), of_adam)
        return (optax.apply_updates(p, updates), of_adam), None

    keys = jax.random.split(jax.random.key(seed), EPOCHS)
    return jax.lax.scan(epoch, (START, optimiser.init(START)), keys)[0][0]


def row(paths: int, judge) -> dict:
    fit = jax.jit(lambda seed: trained(seed, paths))
    fit(0)
    start = time.process_time()
    losses = np.array([judge(fit(seed)) for seed in range(SEEDS)])
    seconds = (time.process_time() - start) / SEEDS
    spread = losses.std(ddof=1) / SEEDS**0.5
    return {
        "paths a step": paths,
        "loss": losses.mean(),
        "± standard error": spread,
        "worst": losses.max(),
        "s a training": seconds,
    }


def main() -> None:
    judge = jax.jit(lambda p: loss(p, jax.random.split(jax.random.key(99), 200)))
    rows = common.gather(row(paths, judge) for paths in (1, 100))
    common.report("trained_noise", f"An SDE layer trained: loss {float(judge(START)):.1f} before", rows)


if __name__ == "__main__":
    main()
