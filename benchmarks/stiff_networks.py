"""A thousand random stiff reaction networks without a method: how many solves fail, and by how much they err.

Six species, ten reactions with one or two molecules on either side, so that their number is conserved and no
concentration leaves [0, 1]; rates from 1e-2 to 1e7 at random; from t = 0 to 100. One program solves all networks of one
tolerance, one after the other. The reference is Rodas5P at a tolerance of 1e-10; networks
that it does not solve are left out. What grows by itself from less than the tolerance runs away by any method.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import common
import jax
import jax.numpy as jnp
import numpy as np

import jaxdiffeq as jde

NETWORKS, SPECIES, REACTIONS, T1 = 1000, 6, 10, 100.0
ROBERTSON = 0.04, 3e7, 1e4
TOLERANCES = 1e-3, 1e-5, 1e-7


class Network(NamedTuple):
    """Species are counted from 1; number 0 stands for no second molecule."""

    reactants: Any
    """[reactions, 2]"""
    change: Any
    """[species + 1, reactions]: molecules that a reaction makes, less those it takes"""
    rates: Any


def random_networks(seed: int, count: int) -> Network:
    rng = np.random.default_rng(seed)
    shape = count, REACTIONS, 2
    before, after = (rng.integers(1, SPECIES + 1, shape) for _ in range(2))
    alone = rng.uniform(size=shape[:2]) < 0.5
    before[alone, 1] = after[alone, 1] = 0
    made = np.eye(SPECIES + 1)[after].sum(2) - np.eye(SPECIES + 1)[before].sum(2)
    rates = 10 ** rng.uniform(-2, 7, shape[:2])
    return Network(before, np.moveaxis(made, 1, 2), rates)


def flow(t, y, network: Network):
    """Mass action. Shapes: y [species]."""
    present = jnp.concatenate([jnp.ones(1, y.dtype), y])[network.reactants]
    return jnp.sum(network.change[1:] * (network.rates * present[:, 0] * present[:, 1])[None], axis=1)


def robertson(t, y, k):
    first, second = -k[0] * y[0] + k[2] * y[1] * y[2], k[1] * y[1] ** 2
    return jnp.stack([first, -first - second, second])


def solved(f: Callable, y0: np.ndarray, t1: float, many: Any, method: Any, **options: Any) -> Any:
    """Ends, results and attempts of all of them."""
    problem = jde.ODEProblem(f, y0, (0.0, t1))

    def one(args):
        sol = jde.solve(problem, method, args=args, saveat=jde.SaveAt(t1=True), throw=False, **options)
        return sol.ys[-1], sol.result, sol.stats.steps

    return jax.tree.map(np.asarray, jax.jit(lambda many: jax.lax.map(one, many))(many))


def contest(name: str, f: Callable, y0: np.ndarray, t1: float, many: Any) -> Any:
    exact, good, _ = solved(f, y0, t1, many, jde.Rodas5P(), rtol=1e-10, atol=1e-13)
    known = good == jde.Result.success
    pairs = {"none": None, "DP5 and Rodas5P": jde.Auto(jde.DP5(), jde.Rodas5P()), "Rodas5P": jde.Rodas5P()}
    for tol in TOLERANCES:
        for who, method in pairs.items():
            ends, results, steps = solved(f, y0, t1, many, method, rtol=tol, atol=1e-3 * tol)
            fine = known & (results == jde.Result.success)
            off = np.max(np.abs(ends - exact) / (tol * (1e-3 + np.abs(exact))), axis=1)[fine]
            yield {
                "problems": name,
                "method": who,
                "rtol": tol,
                "of": int(np.sum(known)),
                "fail": int(np.sum(known & ~fine)),
                "error in tolerances, median": float(np.median(off)),
                "99 %": float(np.quantile(off, 0.99)),
                "worst": float(np.max(off)),
                "steps, mean": float(np.mean(steps[fine])),
            }


def main() -> None:
    start = np.full(SPECIES, 1 / SPECIES)
    spread = np.exp(np.random.default_rng(0).uniform(-1, 1, (NETWORKS, 3)))
    rows = common.gather(contest("Robertson's", robertson, np.array([1.0, 0.0, 0.0]), 1e5, ROBERTSON * spread))
    rows += common.gather(contest("networks", flow, start, T1, random_networks(0, NETWORKS)))
    common.report("stiff_networks", "Random stiff networks", rows)


if __name__ == "__main__":
    main()
