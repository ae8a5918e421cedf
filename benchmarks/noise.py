"""Equations with noise: equal steps against a scan and diffrax, gradients, adaptive steps, a stiff equation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import common
import diffrax as dfx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jax import lax

import jaxdiffeq as jde
from jaxdiffeq.noise.normals import pair, seed_of

PATHS, STEPS = 10_000, 200
GROWTH = np.array([0.3, 0.5])


def growth(t, y, p):
    return p[0] * y


def noise_of_growth(t, y, p):
    return p[1] * y


# ---- Euler–Maruyama with every step saved; (key, p) ↦ [steps, *shape]


def ours(shape: tuple, dtype: Any) -> Callable:
    problem = jde.SDEProblem(growth, noise_of_growth, jnp.ones(shape, dtype), (0.0, 1.0), key=jax.random.key(0))

    def run(key, p):
        return jde.solve(problem, jde.EulerMaruyama(), key=key, args=p, controller=jde.FixedSteps(STEPS)).ys[1:]

    return run


def by_hand(shape: tuple, dtype: Any) -> Callable:
    def run(key, p):
        dt, seed = jnp.asarray(1 / STEPS, dtype), seed_of(jax.random.key_data(key), 1)

        def step(y, i):
            z, _ = pair(seed, i, shape, dtype)
            y = y + dt * growth(0.0, y, p) + noise_of_growth(0.0, y, p) * (jnp.sqrt(dt) * z)
            return y, y

        return lax.scan(step, jnp.ones(shape, dtype), jnp.arange(STEPS, dtype=jnp.uint32))[1]

    return run


def by_hand_with_jax_random(shape: tuple, dtype: Any) -> Callable:
    def run(key, p):
        dt = jnp.asarray(1 / STEPS, dtype)

        def step(y, i):
            z = jax.random.normal(jax.random.fold_in(key, i), shape, dtype)
            y = y + dt * growth(0.0, y, p) + noise_of_growth(0.0, y, p) * (jnp.sqrt(dt) * z)
            return y, y

        return lax.scan(step, jnp.ones(shape, dtype), jnp.arange(STEPS))[1]

    return run


def diffrax(shape: tuple, dtype: Any, tree: bool = False) -> Callable:
    def run(key, p):
        like = jax.ShapeDtypeStruct(shape, dtype)
        path = dfx.VirtualBrownianTree(0.0, 1.0, 0.5 / STEPS, like, key) if tree else dfx.UnsafeBrownianPath(like, key)
        diagonal = lx.DiagonalLinearOperator if shape else lambda b: b
        terms = dfx.MultiTerm(
            dfx.ODETerm(growth), dfx.ControlTerm(lambda t, y, p: diagonal(noise_of_growth(t, y, p)), path)
        )
        return dfx.diffeqsolve(
            terms,
            dfx.Euler(),
            0.0,
            1.0,
            1 / STEPS,
            jnp.ones(shape, dtype),
            p,
            saveat=dfx.SaveAt(steps=True),
            max_steps=STEPS,
            adjoint=dfx.RecursiveCheckpointAdjoint() if tree else dfx.ForwardMode(),  # the other path takes no other
            throw=False,
        ).ys

    return run


def diffrax_tree(shape: tuple, dtype: Any) -> Callable:
    return diffrax(shape, dtype, tree=True)


CONTESTANTS = {
    "ours": ours,
    "scan": by_hand,
    "scan, jax.random": by_hand_with_jax_random,
    "diffrax, unsafe": diffrax,
    "diffrax, tree": diffrax_tree,
}


def torchsde(dtype: Any) -> Callable | None:
    """() ↦ [steps, paths], with torchsde's own path; None where it is not installed."""
    try:
        import torch
        import torchsde as peer
    except ImportError:
        return None
    kind = torch.float32 if dtype == jnp.float32 else torch.float64

    class Growth(torch.nn.Module):
        noise_type, sde_type = "diagonal", "ito"

        def f(self, t, y):
            return GROWTH[0] * y

        def g(self, t, y):
            return GROWTH[1] * y

    ts, y0 = torch.linspace(0, 1, STEPS + 1, dtype=kind), torch.ones(PATHS, 1, dtype=kind)

    def run():
        with torch.no_grad():
            return peer.sdeint(Growth(), y0, ts, method="euler", dt=1 / STEPS)[1:, :, 0].numpy()

    return run


def ensemble(make: Callable, lanes: bool, dtype: Any) -> Callable:
    """(key, p) ↦ [paths, steps] or [steps, paths]."""
    if not lanes:
        return make((PATHS,), dtype)
    return lambda key, p: jax.vmap(make((), dtype), (0, None))(jax.random.split(key, PATHS), p)


def loss_of(fun: Callable) -> Callable:
    return lambda key, p: jnp.mean((fun(key, p) - 1) ** 2)


def off(ys: jax.Array, lanes: bool) -> float:
    """The mean at the end, less e^a, in standard errors."""
    ends = np.asarray(ys[:, -1] if lanes else ys[-1], np.float64)
    return float(abs(ends.mean() - math.exp(GROWTH[0])) / (ends.std() / math.sqrt(PATHS)))


def prepared(fun: Callable, *args: Any) -> Callable:
    compiled = jax.jit(fun).lower(*args).compile()
    return lambda: compiled(*args)


def equal_steps(lanes: bool, dtype: Any) -> Iterator[dict]:
    key, p = jax.random.key(1), jnp.asarray(GROWTH, dtype)
    runs = {name: prepared(ensemble(make, lanes, dtype), key, p) for name, make in CONTESTANTS.items()}
    what = {"what": f"{'vmap over keys' if lanes else 'one state'}, {jnp.dtype(dtype).name}"}
    errors = {name: off(run(), lanes) for name, run in runs.items()}
    slow = {"diffrax, tree": runs.pop("diffrax, tree")}
    if (theirs := torchsde(dtype)) is not None:
        slow["torchsde"], errors["torchsde"] = theirs, off(theirs(), lanes=False)
    seconds = common.interleaved(runs, rounds=15)
    mid = common.medians(seconds)
    tree = common.interleaved({"ours": runs["ours"], **slow}, rounds=3)
    mid |= common.medians(tree)
    for name, target in (
        ("scan", 1.1),
        ("scan, jax.random", None),
        ("diffrax, unsafe", 0.7),
        ("diffrax, tree", 0.05),
        *[("torchsde", 0.1) for _ in slow.keys() & {"torchsde"}],
    ):
        share = common.ratio(tree if name in slow else seconds, "ours", name)
        yield row("forward, over " + name, what, share, target, mid["ours"], mid[name], errors["ours"], errors[name])


def gradients(lanes: bool, dtype: Any) -> Iterator[dict]:
    """Of a mean over all values saved, over the time of that mean; beside the same of the hand-written scan."""
    key, p = jax.random.key(1), jnp.asarray(GROWTH, dtype)
    runs, found = {}, {}
    for name in ("ours", "scan"):
        loss = loss_of(ensemble(CONTESTANTS[name], lanes, dtype))
        runs[name] = prepared(loss, key, p)
        runs[f"{name}, gradient"] = prepared(jax.value_and_grad(loss, argnums=1), key, p)
        found[name] = np.asarray(runs[f"{name}, gradient"]()[1])
    seconds = common.interleaved(runs, rounds=11)
    mid = common.medians(seconds)
    what = {"what": f"{'vmap over keys' if lanes else 'one state'}, {jnp.dtype(dtype).name}"}
    differ = common.relative_error(found["ours"], found["scan"])
    for over, target in (("ours", 3.5), ("scan, gradient", None)):
        share = common.ratio(seconds, "ours, gradient", over)
        name = "its own forward" if over == "ours" else "that of the scan"
        yield row(f"gradient, over {name}", what, share, target, mid["ours, gradient"], mid[over], differ, None)


# ---- adaptive steps


def predators(t, y, p):
    a, b, c, d = p
    x, w = y
    return jnp.stack([a * x - b * x * w, -c * w + d * x * w])


LOTKA = jde.SDEProblem(
    predators, lambda t, y, p: 0.1 * y, jnp.ones(2), (0.0, 10.0), jnp.array([1.5, 1, 3, 1]), key=jax.random.key(0)
)
END = jde.SaveAt(t1=True)
TRIED = 64


def one_by_one(solve: Callable) -> Callable:
    """() ↦ the ends and the numbers of steps tried, one path after the other."""
    keys = jax.random.split(jax.random.key(3), TRIED)

    def one(key):
        sol = solve(key)
        return sol.ys[-1], sol.stats.steps

    return prepared(lambda keys: lax.map(one, keys), keys)


def with_equal_steps(method: Any, n: int, brownian: str) -> Callable:
    how = {"controller": jde.FixedSteps(n), "max_steps": max(n, 1), "saveat": END}
    return one_by_one(lambda key: jde.solve(LOTKA, method, key=key, brownian=brownian, **how))


def adaptively(tol: float) -> Callable:
    how = {"rtol": tol, "atol": tol, "saveat": END, "max_steps": 100_000}
    return one_by_one(lambda key: jde.solve(LOTKA, jde.SOSRI(), key=key, **how))


def adaptive() -> Iterator[dict]:
    """At equal strong error, E|y(10) − reference|² on the same paths; and at equal numbers of steps."""
    reference = np.asarray(with_equal_steps(jde.SRIW1(), 2**16, "tree")()[0])
    error = lambda ys: float(np.sqrt(np.mean((np.asarray(ys) - reference) ** 2)))
    numbers = 2 ** np.arange(7, 13)
    strong = [error(with_equal_steps(jde.SRIW1(), int(n), "tree")()[0]) for n in numbers]
    for tol in (1e-2, 1e-3):
        ours = adaptively(tol)
        ys, tried = ours()
        found, attempts = error(ys), int(np.mean(tried))
        n = int(np.exp(np.interp(np.log(found), np.log(strong[::-1]), np.log(numbers[::-1]))))
        peers = {
            "SRIW1 on the tree, equal error": with_equal_steps(jde.SRIW1(), n, "tree"),
            "SRIW1 by the counter, equal error": with_equal_steps(jde.SRIW1(), n, "counter"),
            "SOSRI by the counter, equal number of steps": with_equal_steps(jde.SOSRI(), attempts, "counter"),
        }
        seconds = common.interleaved({"ours": ours, **peers}, rounds=11)
        mid = {name: value / TRIED for name, value in common.medians(seconds).items()}
        theirs = error(peers["SRIW1 on the tree, equal error"]()[0])
        for name, target in zip(peers, (1.0, 1.0, 4.0), strict=True):
            what = {"what": f"Lotka–Volterra, rtol {tol:g}, {attempts if 'number' in name else n} steps"}
            errors = (None, None) if "number" in name else (found, theirs)
            yield row(
                "adaptive, over " + name,
                what,
                common.ratio(seconds, "ours", name),
                target,
                mid["ours"],
                mid[name],
                *errors,
            )


# ---- a stiff equation

MU, SPAN = 1e3, 200.0
OSCILLATOR = jde.SDEProblem(
    lambda t, y, p: jnp.stack([y[1], MU * (1 - y[0] ** 2) * y[1] - y[0]]),
    lambda t, y, p: jnp.array([0.01, 0.0]),
    jnp.array([2.0, -2 / 3e3]),
    (0.0, SPAN),
    key=jax.random.key(0),
    noise="additive",
)
EULER_STEPS = int(SPAN * 4000)
"""about the fewest: with three thousand a unit of time paths that reach y = 2.5 blow up"""


def stiff_path(method: Any, number: int, seed: int, **options: Any) -> Callable:
    """() ↦ y(T) of so many paths at a time."""
    keys = jax.random.split(jax.random.key(seed), number)
    how = {"saveat": END, "throw": False, **options}
    return prepared(jax.vmap(lambda key: jde.solve(OSCILLATOR, method, key=key, **how).ys[-1, 0]), keys)


def stiff() -> Iterator[dict]:
    """At equal weak error: both means are within what 256 paths can tell; Euler's steps are as long as is stable."""
    number = 256
    exact = np.mean(stiff_path(jde.SKenCarp(), 4096, 5, rtol=1e-5, atol=1e-5)())
    runs = {
        "ours": stiff_path(jde.SKenCarp(), number, 6, rtol=1e-2, atol=1e-2),
        "EulerMaruyama": stiff_path(
            jde.EulerMaruyama(), number, 7, controller=jde.FixedSteps(EULER_STEPS), max_steps=EULER_STEPS
        ),
    }
    seconds = common.interleaved(runs, rounds=3)
    mid = {name: value / number for name, value in common.medians(seconds).items()}
    errors = [float(abs(np.mean(run()) - exact) / (np.std(run()) / math.sqrt(number))) for run in runs.values()]
    share = common.ratio(seconds, "ours", "EulerMaruyama")
    what = {"what": "Van der Pol, μ = 1e3, additive noise; rtol 1e-2"}
    yield row("SKenCarp, over EulerMaruyama", what, share, 0.02, mid["ours"], mid["EulerMaruyama"], *errors)


def row(
    table: str, what: dict, ratio: float, target: float | None, mine: float, peer: float, *errors: float | None
) -> dict:
    return {
        "over": table,
        **what,
        "ours, ms": mine * 1e3,
        "peer, ms": peer * 1e3,
        "ratio": ratio,
        "at most": target,
        "met": None if target is None else common.verdict(ratio, target),
        "error, ours": errors[0],
        "error, peer": errors[1],
    }


def rows() -> Iterator[dict]:
    for dtype in (jnp.float32, jnp.float64):
        for lanes in (False, True):
            yield from equal_steps(lanes, dtype)
    for lanes in (False, True):
        yield from gradients(lanes, jnp.float64)
    yield from adaptive()
    yield from stiff()


def main() -> None:
    notes = (
        f"Forward and gradient: Euler–Maruyama, {PATHS} paths of geometric Brownian motion, {STEPS} steps saved;"
        " the error is that of the mean at the end, in standard errors, and that of a gradient how far it is from the"
        " scan's. The scan draws the same numbers as we do; with jax.random it is what one would write.",
        f"Adaptive: {TRIED} paths one after the other, times of one; the error is √E|y(10) − reference|² of each path.",
        "Stiff: 256 paths at a time, times of one; the error is that of the mean of y₁(200), in standard errors."
        " EulerMaruyama takes the longest steps with which it is stable, so that it can't be had for less.",
    )
    common.report("noise", "Equations with noise", common.gather(rows()), notes)


if __name__ == "__main__":
    main()
