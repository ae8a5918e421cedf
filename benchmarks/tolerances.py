"""What a tolerance is worth: the error reached over the one asked for, of every method that chooses its steps.

Explicit methods solve six problems that are not stiff, implicit ones three of these and three stiff ones, at three
tolerances; each is solved to four ends, which are steps, and saved at eleven times before each, which are not. The
error is measured as step-size control measures it, rms of (y − exact) / (atol + rtol·|exact|), with atol = rtol, and
the worst time counts. All problems have four components and are one f, so that a method is compiled once.

Tolerances are of one step, so a global error is what the problem makes of many of them: the table of problems gives the
largest factor by which an error grows from any of the times to any end, by the derivative of the flow, and the median
over the methods, which is what the problem asks of any of them.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import common
import jax
import jax.numpy as jnp
import numpy as np
import problems as shared

import jaxdiffeq as jde
from jaxdiffeq import methods

TOLERANCES = 1e-4, 1e-7, 1e-10
ENDS, TIMES, MAX_STEPS = 4, 12, 50_000
EXACT = {"rtol": 1e-13, "atol": 1e-13, "max_steps": 1_000_000}


class Problem(NamedTuple):
    f: Callable
    """(t, y) ↦ dy/dt, [4]"""
    y0: tuple[float, ...]
    t1: float


def oscillators(t, y):
    return jnp.stack([y[1], -y[0], 2 * y[3], -2 * y[2]])


def forced(t, y):
    """Two linear equations with forcing, and an integral of each."""
    return jnp.stack([-y[0] + jnp.cos(3 * t), y[0] - 2 * y[1] + jnp.sin(5 * t), y[0], jnp.cos(2 * t) * y[1]])


def lotka_volterra(t, y):
    """Twice, from different states."""
    rates = 1.5, 1.0, 3.0, 1.0
    return jnp.concatenate([shared.lotka_volterra(t, y[:2], rates), shared.lotka_volterra(t, y[2:], rates)])


def kepler(t, y):
    r2 = y[0] * y[0] + y[1] * y[1]
    return jnp.stack([y[2], y[3], -y[0] / (r2 * jnp.sqrt(r2)), -y[1] / (r2 * jnp.sqrt(r2))])


def lorenz(t, y):
    """And the mean of a state."""
    return jnp.append(shared.lorenz(t, y[:3], (10.0, 28.0, 8 / 3)), y[0])


def brusselator(t, y):
    """Twice, from different states."""
    (u, v), (p, q) = y[:2], y[2:]
    return jnp.stack([1 + u * u * v - 4 * u, 3 * u - u * u * v, 1 + p * p * q - 4 * p, 3 * p - p * p * q])


def prothero_robinson(t, y):
    """Solutions cos t, whatever the rate."""
    return -jnp.array([1.0, 1e2, 1e4, 1e6]) * (y - jnp.cos(t)) - jnp.sin(t)


def van_der_pol(t, y):
    """Twice, from different states; ε = 1e-3."""
    fast = lambda u, v: 1e3 * ((1 - u * u) * v - u)
    return jnp.stack([y[1], fast(y[0], y[1]), y[3], fast(y[2], y[3])])


def robertson(t, y):
    """With the second species in units of 1e-5, and an integral of the first."""
    slow, fast, back = 0.04 * y[0], 3e-3 * y[1] * y[1], 0.1 * y[1] * y[2]
    return jnp.stack([back - slow, 1e5 * (slow - back - fast), fast, y[0]])


OSCILLATORS = Problem(oscillators, (1.0, 0.0, 0.0, 1.0), 10.0)
FORCED = Problem(forced, (1.0, 0.5, 0.0, 0.0), 10.0)
LOTKA_VOLTERRA = Problem(lotka_volterra, (1.0, 1.0, 2.0, 1.0), 5.0)
NONSTIFF = {
    "oscillators": OSCILLATORS,
    "forced": FORCED,
    "Lotka–Volterra": LOTKA_VOLTERRA,
    "Kepler, e = 0.5": Problem(kepler, (0.5, 0.0, 0.0, 3**0.5), 5.0),
    "Lorenz": Problem(lorenz, (1.0, 0.0, 0.0, 0.0), 2.0),
    "Brusselator": Problem(brusselator, (1.5, 3.0, 1.0, 2.0), 5.0),
}
STIFF = {
    "oscillators": OSCILLATORS,
    "forced": FORCED,
    "Lotka–Volterra": LOTKA_VOLTERRA,
    "Prothero–Robinson": Problem(prothero_robinson, (1.0, 1.0, 1.0, 1.0), 10.0),
    "Van der Pol": Problem(van_der_pol, (2.0, -0.66, 1.5, -1.2), 1.0),
    "Robertson": Problem(robertson, (1.0, 0.0, 0.0, 0.0), 40.0),
}


# ---- the errors


def field(problems: dict[str, Problem]) -> Callable:
    """f(t, y, i), of the i-th problem."""
    return lambda t, y, i: jax.lax.switch(i, [p.f for p in problems.values()], t, y)


def solved(problems: dict[str, Problem], method: Any, saveat: Any, **options: Any) -> Callable:
    """(problem's number, y0, t0, t1, tolerance) ↦ solution saved at `saveat`, fractions of the span."""
    problem = jde.ODEProblem(field(problems), jnp.zeros(4), (0.0, 1.0))

    def run(i, y0, t0, t1, tol):
        given = {"rtol": tol, "atol": tol, "max_steps": MAX_STEPS, "throw": False} | options
        ts = t0 + (t1 - t0) * jnp.asarray(saveat)
        return jde.solve(problem, method, y0=y0, args=i, tspan=(t0, t1), saveat=ts, **given)

    return run


def starts(problems: dict[str, Problem]) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Numbers, first states and lengths."""
    several = problems.values()
    y0, t1 = jnp.asarray([p.y0 for p in several]), jnp.asarray([p.t1 for p in several])
    return jnp.arange(len(several)), y0, t1


def states(problems: dict[str, Problem], method: Any) -> Any:
    """At t1/48, 2·t1/48, … t1, each the end of a solve. Shapes: ↦ [problems, 48, 4]."""
    run = solved(problems, method, [1.0], max_steps=1_000_000, throw=False)
    fractions = jnp.arange(1, ENDS * TIMES + 1) / (ENDS * TIMES)

    def one(start):
        i, y0, t1 = start
        return jax.lax.map(lambda x: run(i, y0, 0.0, x * t1, 1e-13).ys[0], fractions)

    return np.asarray(jax.jit(lambda starts: jax.lax.map(one, starts))(starts(problems)))


def errors(problems: dict[str, Problem], method: Any, exact: np.ndarray) -> Any:
    """In tolerances, at steps and at saved times, NaN where a solve failed. Shapes: ↦ 2 of [problems, tolerances]."""
    run = solved(problems, method, np.arange(1, TIMES + 1) / TIMES)
    places = np.outer(np.arange(1, ENDS + 1), np.arange(1, TIMES + 1)) - 1

    def one(start, exact, tol):
        i, y0, t1 = start
        ends = t1 * jnp.arange(1, ENDS + 1) / ENDS
        found = jax.lax.map(lambda end: run(i, y0, 0.0, end, tol).ys, ends)
        off = (found - exact[places]) / (tol * (1 + jnp.abs(exact[places])))
        rms = jnp.sqrt(jnp.mean(off * off, axis=2))
        return jnp.max(rms[:, -1]), jnp.max(rms[:, :-1])

    @jax.jit
    def all_of(starts, exact, tolerances):
        at = lambda one_of: jax.lax.map(lambda tol: one(*one_of, tol), tolerances)
        return jax.lax.map(at, (starts, exact))

    return jax.tree.map(np.asarray, all_of(starts(problems), jnp.asarray(exact), jnp.asarray(TOLERANCES)))


def growth(problems: dict[str, Problem], method: Any, exact: np.ndarray) -> np.ndarray:
    """The largest factor by which an error, in tolerances, grows until an end. Shapes: ↦ [problems]."""
    run = solved(problems, method, [1.0])
    count = ENDS * TIMES

    def one(start, states):
        i, y0, t1 = start
        before = jnp.concatenate([y0[None], states[:-1]])
        pairs = np.array([(k, end) for end in range(TIMES, count + 1, TIMES) for k in range(end)])

        def factor(pair):
            k, end = pair
            flow = lambda y: run(i, y, k * t1 / count, end * t1 / count, 1e-6).ys[0]
            scales = 1 + jnp.abs(before[k]), 1 + jnp.abs(states[end - 1])
            return jnp.linalg.norm(jax.jacfwd(flow)(before[k]) * scales[0] / scales[1][:, None], 2)

        return jnp.max(jax.lax.map(factor, jnp.asarray(pairs)))

    return np.asarray(jax.jit(lambda *many: jax.lax.map(lambda x: one(*x), many))(starts(problems), jnp.asarray(exact)))


# ---- the table


def families() -> dict[str, dict[str, Any]]:
    """Every method that chooses its steps."""
    found: dict[str, dict[str, Any]] = {}
    for name, make in vars(methods).items():
        if not isinstance(make, types.FunctionType) or not name[0].isupper():
            continue
        if make().error_order is not None and not make().takes_noise:
            found.setdefault(make.__module__.rpartition(".")[2], {})[name] = make()
    return found


def explicit(family: str, name: str) -> bool:
    return family == "explicit" or name == "Adams"


def contest(wanted: list[str], exact: dict[bool, np.ndarray]) -> Any:
    for family, several in families().items():
        for name, method in several.items():
            if wanted and name not in wanted:
                continue
            which = explicit(family, name)
            problems = NONSTIFF if which else STIFF
            steps, saved = errors(problems, method, exact[which])
            row: dict[str, Any] = {"method": name, "family": family}
            for k, tol in enumerate(TOLERANCES):
                good = np.isfinite(steps[:, k])
                row[f"{tol:.0e}, steps"] = float(np.max(steps[good, k])) if good.any() else None
                row[f"{tol:.0e}, saved"] = float(np.max(saved[good, k])) if good.any() else None
                row[f"{tol:.0e}, solved"] = int(good.sum())
            worst = np.nanmax(np.where(np.isfinite(steps), np.maximum(steps, saved), 0), axis=1)
            row["worst"] = list(problems)[int(np.argmax(worst))]
            row["errors"] = {p: [steps[i].tolist(), saved[i].tolist()] for i, p in enumerate(problems)}
            jax.clear_caches()
            yield row


def about_problems(exact: dict[bool, np.ndarray], rows: list[dict[str, Any]]) -> list[str]:
    """A line for the explicit methods' problems, one for the others'."""
    lines = []
    for who, which, method in (("Explicit methods", True, jde.Vern7()), ("Implicit methods", False, jde.Rodas5P())):
        problems = NONSTIFF if which else STIFF
        grows = growth(problems, method, exact[which])
        several = [row for row in rows if explicit(row["family"], row["method"]) == which]
        asked = [float(np.nanmedian([row["errors"][p][0][1] for row in several])) for p in problems]
        told = [f"{p} {g:.2g}, {a:.2g}" for p, g, a in zip(problems, grows, asked, strict=True)]
        lines.append(f"{who}, problem by problem, growth of an error and median at steps at 1e-7: {'; '.join(told)}.")
    return lines


def picture(rows: list[dict[str, Any]]) -> None:
    """A method a line: the worst problem at steps (filled) and at saved times (hollow), one colour a tolerance."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = ("explicit", "auto"), ("rosenbrock", "multistep"), ("dirk", "collocation")
    figure, all_axes = plt.subplots(1, len(panels), figsize=(15, 9), sharex=True, layout="constrained")
    for axes, several in zip(all_axes, panels, strict=True):
        chosen = [row for row in rows if row["family"] in several][::-1]
        for place, row in enumerate(chosen):
            for tol, colour in zip(TOLERANCES, ("tab:green", "tab:orange", "tab:red"), strict=True):
                steps, saved = row[f"{tol:.0e}, steps"], row[f"{tol:.0e}, saved"]
                if steps is not None:
                    axes.plot([steps, saved], [place, place], color=colour, lw=0.7)
                    axes.plot(steps, place, "o", color=colour, ms=5)
                    axes.plot(saved, place, "o", color=colour, ms=5, mfc="white")
        axes.set_yticks(range(len(chosen)), [row["method"] for row in chosen], fontsize=7)
        axes.axvspan(1e-2, 1, color="0.93", zorder=0)
        axes.axvline(30, color="0.5", lw=0.7, ls=":")
        axes.set(xscale="log", title=", ".join(several), xlabel="error over tolerance, the worst problem")
        axes.grid(axis="y", alpha=0.2)
    figure.suptitle("At steps (filled) and at saved times (hollow); tolerances 1e-4 green, 1e-7 orange, 1e-10 red")
    figure.savefig(common.RESULTS / "tolerances.png", dpi=100)
    plt.close(figure)


def main() -> None:
    exact = {True: states(NONSTIFF, jde.Vern9()), False: states(STIFF, jde.RadauIIA9())}
    rows = common.gather(contest(sys.argv[1:], exact))
    title = "Error reached over tolerance: the worst of six problems, at steps and at saved times"
    notes = about_problems(exact, rows)
    details = {row["method"]: row.pop("errors") for row in rows}
    common.report("tolerances", title, rows, notes, details)
    picture(rows)


if __name__ == "__main__":
    main()
