"""What the benchmarks share: interleaved timing, a record of the machine, tables and pictures.

A ratio is taken pair by pair: every round runs each contestant once, in turn, and the ratio of a round is formed from
neighbours in time. So a machine that slows down for a second slows down both. Medians over the rounds are reported.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np

RESULTS = pathlib.Path(__file__).parent / "results"
PEERS = (
    "jaxdiffeq",
    "jax",
    "jaxlib",
    "equinox",
    "diffrax",
    "numpy",
    "scipy",
    "numba",
    "numbalsoda",
    "scikit-sundae",
    "torch",
    "torchdiffeq",
    "torchsde",
)

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_enable_compilation_cache", False)


# ---- time


def interleaved(runs: dict[str, Callable[[], Any]], rounds: int = 41, slice_s: float = 1e-3) -> dict[str, list[float]]:
    """Seconds per call, one number a round: A B C, A B C, … A fast call is repeated to fill `slice_s` seconds."""
    repeats = {}
    for name, run in runs.items():
        jax.block_until_ready(run())
        repeats[name] = max(1, min(2000, int(slice_s / _seconds(run, 1))))
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            seconds[name].append(_seconds(run, repeats[name]))
    return seconds


def _seconds(run: Callable[[], Any], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        jax.block_until_ready(run())
    return (time.perf_counter() - start) / repeats


def ratio(seconds: dict[str, list[float]], ours: str, theirs: str) -> float:
    """Median over the rounds of ours over theirs."""
    return statistics.median(a / b for a, b in zip(seconds[ours], seconds[theirs], strict=True))


def medians(seconds: dict[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in seconds.items()}


def compile_seconds(make: Callable[[], tuple[Callable, tuple]], cold: bool = True) -> tuple[float, float, float]:
    """Seconds to trace and to compile a function never seen before, and of the processor for both.

    `cold`: nor were its parts seen. On a busy machine the last number is the one to trust.
    """
    if cold:
        jax.clear_caches()
    fun, args = make()
    start, used = time.perf_counter(), time.process_time()
    lowered = jax.jit(fun).lower(*args)
    middle = time.perf_counter()
    lowered.compile()
    return middle - start, time.perf_counter() - middle, time.process_time() - used


# ---- error


def relative_error(found: Any, reference: Any) -> float:
    """The largest distance in the maximum norm, relative to the largest value of the reference."""
    found, reference = np.asarray(found, np.float64), np.asarray(reference, np.float64)
    return float(np.max(np.abs(found - reference)) / np.max(np.abs(reference)))


def tolerance_for(
    error_at: Callable[[float], float], target: float, grid: Sequence[float], tries: int = 15
) -> tuple[float, float]:
    """The tolerance at which a solver errs by `target`, and the error there.

    A line through log error against log tolerance over the grid says where to look: a single lucky tolerance, which
    would flatter a solver, is far from it. Of the `tries` tolerances
    around, the one whose error is nearest the target is taken.
    """
    tols = np.log10(np.asarray(grid))
    errors = np.log10([max(error_at(10.0**tol), 1e-300) for tol in tols])
    slope, level = np.polyfit(errors, tols, 1)
    around = 10 ** (slope * np.log10(target) + level + np.linspace(-0.5, 0.5, tries))
    found = [(float(tol), error_at(float(tol))) for tol in around]
    return min(found, key=lambda pair: abs(np.log(max(pair[1], 1e-300) / target)))


# ---- programs


def loop_size(compiled: Any) -> dict[str, int]:
    """What the compiled text says: instructions, while loops, and loops turned into one function without dispatch."""
    text = compiled.as_text()
    return {
        "instructions": text.count(" = "),
        "fusions": text.count(" fusion("),
        "whiles": text.count(" while("),
        "small_calls": text.count('xla_cpu_small_call="true"'),
    }


# ---- records


def environment() -> dict[str, Any]:
    versions = {}
    for name in PEERS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "in this checkout" if name == "jaxdiffeq" else "not installed"
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "backend": jax.default_backend(),
        "python": platform.python_version(),
        "versions": versions,
    }


def _cpu() -> str:
    info = pathlib.Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def report(
    name: str, title: str, rows: list[dict[str, Any]], notes: Sequence[str] = (), details: dict[str, Any] | None = None
) -> None:
    """Print the table, and keep it as JSON, with `details`, and as markdown under results/; of nothing, nothing."""
    if not rows and not notes:
        return
    RESULTS.mkdir(exist_ok=True)
    where = environment()
    versions = ", ".join(f"{k} {v}" for k, v in where["versions"].items() if v != "not installed")
    missing = [k for k, v in where["versions"].items() if v == "not installed"]
    lines = [f"# {title}", "", markdown(rows), "", *[f"{note}\n" for note in notes]]
    lines += [f"{where['cpu']}, {where['cores']} cores, {where['backend']}; Python {where['python']}, {versions}."]
    lines += [f"Not installed here, so not compared: {', '.join(missing)}."] if missing else []
    lines += [f"Measured {where['date']} with `python benchmarks/{name}.py`."]
    text = "\n".join(lines) + "\n"
    print(text)
    (RESULTS / f"{name}.md").write_text(text)
    record = {"title": title, "environment": where, "rows": rows, "notes": list(notes)}
    record |= {} if details is None else {"details": details}
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")


def gather(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, each printed as soon as it is there. After an interrupt (Ctrl-C) those that are done."""
    done = []
    try:
        for row in rows:
            done.append(row)
            print(", ".join(f"{name} {show(value)}" for name, value in row.items()), flush=True)
    except KeyboardInterrupt:
        print("stopped early")
    return done


def markdown(rows: list[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(key for row in rows for key in row))
    cells = [names, *[[show(row.get(name)) for name in names] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(names))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]])


def show(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.3g}"
    return str(value)


def verdict(measured: float, target: float) -> str:
    return "yes" if measured <= target else "no"


# ---- pictures


def bars(name: str, title: str, groups: dict[str, dict[str, float]], unit: str = "seconds") -> None:
    """One group of bars a case, one bar a contestant, on a logarithmic scale: results/<name>.png."""
    if not groups:
        return
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    people = list(dict.fromkeys(who for group in groups.values() for who in group))
    figure, axes = plt.subplots(figsize=(max(6.0, 1.1 * len(groups) + 2), 4.2), layout="constrained")
    width = 0.8 / len(people)
    for i, who in enumerate(people):
        places = [g + (i - (len(people) - 1) / 2) * width for g, group in enumerate(groups.values()) if who in group]
        axes.bar(places, [group[who] for group in groups.values() if who in group], width, label=who)
    axes.set_yscale("log")
    axes.set_xticks(range(len(groups)), list(groups), rotation=25, ha="right", fontsize=8)
    axes.set(ylabel=unit, title=title)
    axes.legend(fontsize=8)
    figure.savefig(RESULTS / f"{name}.png", dpi=110)
    plt.close(figure)


def lines(name: str, title: str, curves: dict[str, tuple[Sequence, Sequence]], labels: tuple[str, str]) -> None:
    """Curves on logarithmic scales: results/<name>.png."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    for who, (xs, ys) in curves.items():
        axes.loglog(xs, ys, marker="o", markersize=4, label=who)
    axes.set(xlabel=labels[0], ylabel=labels[1], title=title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(RESULTS / f"{name}.png", dpi=110)
    plt.close(figure)
