"""The demonstration: `python -m jaxdiffeq` trains two models, compares every gradient and draws what happened."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import jaxdiffeq as jde
from jaxdiffeq import plotting
from jaxdiffeq.progress import bar

STRATEGIES = (
    *("ReverseAD", "ForwardAD", "BacksolveAdjoint", "InterpolatingAdjoint", "QuadratureAdjoint", "GaussAdjoint"),
)
TIGHT: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-9}

# The gradient at GUESS: variational equations, SciPy's DOP853 at tolerances of 1e-13. The loss is 4324.59795 there.
FIRST_GRADIENT = (53.49116, -1732.95293, 4553.00089, -29519.81641)


def say(text: str = "") -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def timed(f: Callable, *args: Any) -> tuple[Any, float]:
    """The value of f(*args), and the seconds until it is there."""
    start = time.perf_counter()
    out = jax.block_until_ready(f(*args))
    return out, time.perf_counter() - start


# -------------------- predators and prey: four parameters, every gradient ---------------------------------------------


GUESS = (2.2, 1.0, 2.0, 0.4)
TIMES = np.linspace(0.0, 10.0, 101)


def lotka_volterra(t, y, args):
    """Rabbits x and wolves w: x' = a x − b x w, w' = −c w + d x w."""
    a, b, c, d = args
    x, w = y
    return jnp.stack([a * x - b * x * w, -c * w + d * x * w])


def animals(p: jax.Array, **options: Any) -> jde.Solution:
    prob = jde.ODEProblem(lotka_volterra, jnp.array([1.0, 1.0]), (0.0, 10.0), p)
    return jde.solve(prob, jde.Tsit5(), **TIGHT, **options)


def rabbits_at_one(p: jax.Array, strategy: Any) -> jax.Array:
    """Σ (x − 1)² over 101 times."""
    return jnp.sum((animals(p, saveat=TIMES, gradient=strategy).ys[:, 0] - 1.0) ** 2)


class Training(NamedTuple):
    losses: list[float]
    """before every step, and at the end"""
    path: list[np.ndarray]
    """the parameters that go with them"""
    gradient: np.ndarray
    """the first one"""
    compile_time: float
    step_time: float


def train_parameters(strategy: Any, epochs: int, label: str) -> Training:
    """Adam with a rate of 0.1, the gradient by `strategy`."""
    import optax

    optimiser = optax.adam(0.1)

    @jax.jit
    def step(p, state):
        loss, gradient = jax.value_and_grad(rabbits_at_one)(p, strategy)
        updates, state = optimiser.update(gradient, state)
        return optax.apply_updates(p, updates), state, loss, gradient

    p = jnp.array(GUESS)
    state = optimiser.init(p)
    compiled, compile_time = timed(lambda: step.lower(p, state).compile())
    losses, path, first, seconds = [], [], None, []
    for _ in (todo := bar(range(epochs + 1), f"{label:<20}")):
        path.append(np.asarray(p))
        (p, state, loss, gradient), spent = timed(compiled, p, state)
        first = np.asarray(gradient) if first is None else first
        losses.append(float(loss))
        seconds.append(spent)
        todo.note = f"loss {float(loss):.4g}"
    assert first is not None
    return Training(losses, path, first, compile_time, float(np.median(seconds)))


def estimate(out: Path, epochs: int) -> None:
    """Part one, and its pictures."""
    say("1. Rabbits and wolves: find the four parameters that keep the rabbits at 1")
    say(f"   u' = (a x − b x w, −c w + d x w) from (1, 1), p = {GUESS}, Adam(0.1), {epochs} epochs")
    say()
    found = {name: train_parameters(getattr(jde, name)(), epochs, name) for name in STRATEGIES if hasattr(jde, name)}
    say()
    say(comparison(found, epochs))
    say()
    best = found["ReverseAD"]
    final = animals(jnp.asarray(best.path[-1]), saveat=TIMES).ys
    off = np.max(np.abs(np.asarray(final) - 1.0), axis=0)
    say(f"   Parameters after {epochs} epochs: {', '.join(f'{x:.4f}' for x in best.path[-1])}.")
    say(f"   Largest distance from 1 at the 101 times: rabbits {off[0]:.3f}, wolves {off[1]:.3f}. The loss sees the")
    say("   rabbits only, and the answer is not unique: any p with a = b and c = d keeps both at 1 for ever.")
    draw_animals(best, out)
    draw_phases(best, out)


def comparison(found: dict[str, Training], epochs: int) -> str:
    """The table of strategies."""
    reference = np.array(FIRST_GRADIENT)
    head = ("gradient by", "first loss", "its gradient", "off by", f"loss at {epochs}", "compile", "step")
    rows = []
    for name, run in found.items():
        error = np.linalg.norm(run.gradient - reference) / np.linalg.norm(reference)
        gradient = "(" + ", ".join(f"{x:.7g}" for x in run.gradient) + ")"
        times = f"{run.compile_time:.2f} s", f"{1e3 * run.step_time:.2f} ms"
        rows.append((name, f"{run.losses[0]:.3f}", gradient, f"{error:.0e}", f"{run.losses[-1]:.4f}", *times))
    return table(head, rows) + (
        f"\n   off by: from ({', '.join(f'{x:.7g}' for x in FIRST_GRADIENT)}), which SciPy says, relative."
    )


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    line = lambda cells: "   " + "  ".join(f"{c:>{w}}" if i else f"{c:<{w}}" for i, (c, w) in enumerate(cells))
    lines = [line(list(zip(row, widths, strict=True))) for row in (head, *rows)]
    return "\n".join([lines[0], "   " + "─" * (len(lines[0]) - 3), *lines[1:]])


def draw_animals(run: Training, out: Path) -> None:
    """The fit before and after, and the loss."""
    plt = plotting.pyplot()
    with plotting.style():
        figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
        for ax, p, title in ((axes[0], run.path[0], "before"), (axes[1], run.path[-1], "after training")):
            sol = animals(jnp.asarray(p), dense=True)
            plotting.plot_solution(sol, ax=ax, labels=("rabbits", "wolves"))
            ax.legend(loc="upper right", ncols=2)
            ax.axhline(1.0, color="0.5", linewidth=0.8, linestyle="--", zorder=0)
            ax.set_title(title, fontsize=10)
        axes[0].set_ylim(0.0, 20.0)
        axes[1].set_ylim(0.0, 2.0)
        axes[2].semilogy(run.losses, color=plotting.COLOURS[3])
        axes[2].set_xlabel("epoch")
        axes[2].set_title("loss, Σ (rabbits − 1)²", fontsize=10)
        figure.savefig(out / "lotka_volterra.png", dpi=120)
        plt.close(figure)


def draw_phases(run: Training, out: Path) -> None:
    """Rabbits against wolves, at several epochs."""
    plt = plotting.pyplot()
    with plotting.style():
        figure, ax = plt.subplots(figsize=(4.8, 4.2), layout="constrained")
        shown = sorted({round(x * (len(run.path) - 1)) for x in (0.0, 0.02, 0.05, 0.1, 0.2, 1.0)})
        for epoch, shade in zip(shown, np.linspace(0.15, 0.95, len(shown)), strict=True):
            sol = animals(jnp.asarray(run.path[epoch]), dense=True)
            colour = plt.get_cmap("viridis_r")(shade)
            plotting.plot_solution(sol, (0, 1), ax, labels=("rabbits", "wolves"), color=colour, label=f"epoch {epoch}")
        ax.legend(loc="center", bbox_to_anchor=(0.75, 0.4))  # between the first orbit and the next
        figure.savefig(out / "lotka_volterra_phase.png", dpi=120)
        plt.close(figure)


# -------------------- the spiral: a network as the right-hand side ----------------------------------------------------


A = np.array([[-0.1, 2.0], [-2.0, -0.1]])
POINTS = np.linspace(0.0, 1.5, 30)
START = (2.0, 0.0)
ELSEWHERE = ((1.9, 0.5), (1.5, 0.0), (1.3, -1.3), (-1.6, 0.8), (0.0, 1.0), (2.5, 0.0))
TARGET = 1e-6
BEGINNING = 600  # steps of Adam, before L-BFGS takes over


def truth(t, u, _):
    """u' = Aᵀ u³"""
    return A.T @ u**3


class Cubic(eqx.Module):
    """u ↦ network(u³), 2 → 50 → 2: 252 parameters.

    u³ goes up to 8 and the slope to 16: the first layer starts small, lest tanh saturate, and the last one large.
    """

    network: eqx.nn.MLP

    def __init__(self, key: jax.Array):
        network = eqx.nn.MLP(2, 2, 50, depth=1, activation=jnp.tanh, key=key)
        weights = lambda net: (net.layers[0].weight, net.layers[0].bias, net.layers[1].weight)
        first, bias, last = weights(network)
        self.network = eqx.tree_at(weights, network, (first / 50, bias / 50, last * 50))
        assert sum(x.size for x in jax.tree.leaves(eqx.filter(self, eqx.is_array))) == 252

    def __call__(self, u):
        return self.network(u**3)


def spirals(field: Any, starts: Any, ts: Any) -> np.ndarray:
    """The true solutions, or those of a network. Shapes: [batch, 2], [times] ↦ [batch, times, 2]."""

    def one(start):
        if field is truth:
            return jde.solve(jde.ODEProblem(truth, start, (ts[0], ts[-1])), jde.Tsit5(), saveat=ts, **TIGHT).ys
        return jde.nn.NeuralODE(field, (ts[0], ts[-1]), saveat=ts, rtol=1e-6, atol=1e-8)(start)

    return np.asarray(eqx.filter_jit(jax.vmap(one))(jnp.asarray(starts)))


class Fit(NamedTuple):
    layer: Any
    losses: list[float]
    films: list[tuple[int, float, Any]]
    """some steps on the way: number, loss, network"""


def train_network(data: np.ndarray, limit: int) -> Fit:
    """Adam, which finds the valley, then L-BFGS, which finds its floor, until the error is below `TARGET`."""
    import optax

    layer = jde.nn.NeuralODE(Cubic(jax.random.PRNGKey(0)), (0.0, 1.5), saveat=POINTS, rtol=1e-6, atol=1e-8)
    weights, rest = eqx.partition(layer, eqx.is_array)
    adam, lbfgs = optax.adam(0.001), optax.lbfgs()

    def loss_of(weights):
        return jnp.mean((eqx.combine(weights, rest)(jnp.array(START)) - data) ** 2)

    @jax.jit
    def first(weights, state):
        loss, gradient = jax.value_and_grad(loss_of)(weights)
        updates, state = adam.update(gradient, state)
        return optax.apply_updates(weights, updates), state, loss

    @jax.jit
    def then(weights, state):
        loss, gradient = optax.value_and_grad_from_state(loss_of)(weights, state=state)
        given = {"value": loss, "grad": gradient, "value_fn": loss_of}
        updates, new = lbfgs.update(gradient, state, weights, **given)
        new = jax.tree.map(lambda x, like: jnp.asarray(x, like.dtype), new, state)
        return optax.apply_updates(weights, updates), new, loss

    state, losses, films = adam.init(weights), [], []
    for i in (todo := bar(range(limit), f"{'spiral':<20}")):
        if i == BEGINNING:
            state = jax.tree.map(jnp.asarray, lbfgs.init(weights))
        later, state, loss = (first if i < BEGINNING else then)(weights, state)
        losses.append(float(loss))
        todo.note = f"mean squared error {losses[-1]:.2g}"
        done = losses[-1] < TARGET or i == limit - 1
        if done or i % 12 == 0:
            films.append((i, losses[-1], eqx.combine(weights, rest).func))
        if done:
            break
        weights = later
    return Fit(eqx.combine(weights, rest), losses, films)


def learn(out: Path, limit: int) -> None:
    """Part two, and its pictures."""
    say()
    say("2. A spiral: a network learns the equation u' = Aᵀu³ from 30 points of one trajectory")
    say()
    (data,) = spirals(truth, [START], POINTS)
    fit, seconds = timed(train_network, data, limit)
    say()
    verb = "below" if fit.losses[-1] < TARGET else "NOT below"
    steps = len(fit.losses) - 1
    after = min(steps, BEGINNING), max(steps - BEGINNING, 0)
    say(f"   Mean squared error {fit.losses[-1]:.2e}, {verb} {TARGET:g}, after {after[0]} steps of Adam")
    say(f"   and {after[1]} of L-BFGS ({seconds:.0f} s, compilation included).")
    say("   Root mean square error from other initial states, which the network was shown none of, and later:")
    say()
    ts = np.linspace(0.0, 3.0, 400)
    seen, starts = ts <= 1.5, [START, *ELSEWHERE]
    want, got = spirals(truth, starts, ts), spirals(fit.layer.func, starts, ts)
    error = lambda when: np.sqrt(np.mean((want - got)[:, when] ** 2, axis=(1, 2)))
    rows = [
        (f"({u}, {v})", f"{a:.4f}", f"{b:.4f}") for (u, v), a, b in zip(starts, error(seen), error(~seen), strict=True)
    ]
    say(table(("from u0 =", "on [0, 1.5]", "on (1.5, 3]"), rows))
    say("   The first is the one it was trained on; (2.5, 0) lies outside of all that it has seen.")
    want, got = want[1:, seen], got[1:, seen]
    draw_spiral(fit, data, want, got, out)
    film(fit, data, out)


def draw_spiral(fit: Fit, data: np.ndarray, want: np.ndarray, got: np.ndarray, out: Path) -> None:
    """The fit, what it says elsewhere, and the loss."""
    plt = plotting.pyplot()
    (curve,) = spirals(fit.layer.func, [START], np.linspace(0.0, 1.5, 200))
    blue, red = plotting.COLOURS[:2]
    with plotting.style():
        figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
        axes[0].plot(*data.T, "o", color="0.35", markersize=3.5, label="data")
        axes[0].plot(*curve.T, color=red, label="network")
        axes[0].set_title("the fit", fontsize=10)
        for i, (one, other) in enumerate(zip(want, got, strict=True)):
            axes[1].plot(*one.T, color=blue, label=None if i else "truth")
            axes[1].plot(*other.T, color=red, linestyle="--", label=None if i else "network")
            axes[1].plot(*one[:1].T, "o", color=blue, markersize=4)
        axes[1].set_title("from other initial states", fontsize=10)
        for ax in axes[:2]:
            ax.set_xlabel("u₁")
            ax.set_ylabel("u₂")
            ax.set_aspect("equal", adjustable="datalim")
            ax.legend(loc="center")
        axes[2].semilogy(fit.losses, color=plotting.COLOURS[3], linewidth=1.2)
        axes[2].axhline(TARGET, color="0.5", linewidth=0.8, linestyle="--")
        axes[2].set_xlabel("step")
        axes[2].set_title("mean squared error", fontsize=10)
        figure.savefig(out / "spiral.png", dpi=120)
        plt.close(figure)


def film(fit: Fit, data: np.ndarray, out: Path) -> Path:
    """The fit as it learns, as a GIF."""
    arrays, rest = zip(*[eqx.partition(network, eqx.is_array) for _, _, network in fit.films], strict=True)
    fine = np.linspace(0.0, 1.5, 120)
    run = lambda net: jde.nn.NeuralODE(eqx.combine(net, rest[0]), (0.0, 1.5), saveat=fine, rtol=1e-5)(jnp.array(START))
    curves = np.asarray(jax.jit(jax.vmap(run))(jax.tree.map(lambda *xs: jnp.stack(xs), *arrays)))

    def draw(ax, frame):
        (number, loss, _), curve = frame
        ax.plot(*data.T, "o", color="0.35", markersize=4, label="data")
        ax.plot(*curve.T, color=plotting.COLOURS[1], linewidth=2, label="neural ODE")
        ax.set(xlim=(-2.3, 2.5), ylim=(-2.0, 2.0), xlabel="u₁", ylabel="u₂")
        ax.set_title(f"step {number:>4},  mean squared error {loss:.1e}", fontsize=10, family="monospace")
        ax.legend(loc="center")

    return plotting.animate_training(list(zip(fit.films, curves, strict=True)), draw, out / "spiral.gif")


# -------------------- the command -------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m jaxdiffeq", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few steps of each, to see whether it runs")
    parser.add_argument("--out", type=Path, default=Path("jaxdiffeq-demo"), help="where pictures go (%(default)s)")
    given = parser.parse_args(arguments)
    jax.config.update("jax_enable_x64", True)
    plotting.pyplot().switch_backend("agg")
    given.out.mkdir(parents=True, exist_ok=True)
    _, seconds = timed(run_all, given.out, given.quick)
    say()
    say(f"Pictures in {given.out}: {', '.join(sorted(p.name for p in given.out.iterdir()))}. {seconds:.0f} s in all.")


def run_all(out: Path, quick: bool) -> None:
    estimate(out, 10 if quick else 100)
    learn(out, 40 if quick else 2000)


if __name__ == "__main__":
    main()
