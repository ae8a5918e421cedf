"""README.md's table, claim → script → target → measured, from what is under results/."""

from __future__ import annotations

import json
import pathlib
import statistics
from collections.abc import Callable
from typing import Any

from common import RESULTS, markdown, show

Rows = list[dict[str, Any]]
KVAERNO5 = "Kvaerno5 ours / diffrax"
ACHIEVED = "1e-07, steps", "1e-07, saved"
MARK = "<!-- measured -->"


def span(rows: Rows, key: str, keep: Callable[[dict], bool] = lambda row: True) -> str:
    values = [row[key] for row in rows if keep(row) and row.get(key) is not None]
    return "not measured" if not values else " to ".join(dict.fromkeys(show(v) for v in (min(values), max(values))))


def largest(rows: Rows, keys: list[str], keep: Callable[[dict], bool] = lambda row: True) -> str:
    values = [row[key] for row in rows if keep(row) for key in keys]
    return show(max(values)) if values else "not measured"


def traces(rows: Rows) -> str:
    return f"{span(rows, 'ours', solves)}; gradient {span(rows, 'ours', gradients)}; again {span(rows, 'ours, again')}"


def solves(row: dict) -> bool:
    return row["what"] in ("solve", "forward", "eager solve")


def gradients(row: dict) -> bool:
    return row["what"] == "gradient"


def saved_101(row: dict) -> bool:
    return row["problem"].startswith("Lotka") and row["saved"] == 101


def used_again(row: dict) -> bool:
    return row["chosen"] == "again"


def failures(rows: Rows) -> str:
    return str(sum(value for row in rows for key, value in row.items() if key.endswith("fail")))


def half_of_them(rows: Rows) -> str:
    """The median over the methods."""
    return "; ".join(show(statistics.median(row[key] for row in rows if row[key])) for key in ACHIEVED)


def exactly(end: str) -> Callable[[dict], bool]:
    return lambda row: row["over"].endswith(end)


def cheap(row: dict) -> bool:
    return "over that of 1000" in row["of"] and "ReverseAD" not in row["of"]


def as_chosen(row: dict) -> bool:
    """By the method that is chosen where none is named; on few reactions that is the direct one."""
    return row["over"].startswith("numba") and ("paths" in row["what"] or "NextReaction" in row["what"])


def never(row: dict) -> bool:
    return "never" in row["solve"]


def over(peer: str) -> Callable[[dict], bool]:
    return lambda row: row["over"].startswith(peer)


def contact(rows: Rows, table: str) -> str:
    return span(rows, "ratio", lambda row: row["table"] == table)


CLAIMS = (
    ("small solve at equal error, against diffrax", "small_solves", "0.6", lambda r: span(r, "ours / diffrax")),
    (
        "compile time of a small solve, against diffrax",
        "compile_time",
        "0.4",
        lambda r: span(r, "ours / diffrax", solves),
    ),
    ("of its gradient", "compile_time", "0.5", lambda r: span(r, "ours / diffrax", gradients)),
    ("gradient of Lotka–Volterra, 101 times", "gradients", "0.6", lambda r: span(r, "ours / diffrax", saved_101)),
    ("other gradients", "gradients", "–", lambda r: span(r, "ours / diffrax", lambda row: not saved_101(row))),
    ("gradient of a neural ODE, against diffrax", "neural_ode", "0.9", lambda r: span(r, "ours / diffrax")),
    ("against torchdiffeq", "neural_ode", "0.5", lambda r: span(r, "ours / torchdiffeq")),
    (
        "driver of 100 000 samples over one of 100",
        "forcing",
        "1.2",
        lambda r: span(r, "100 000 / 100", lambda row: "uneven" not in row["table"]),
    ),
    ("an event that never happens, over without it", "events", "1.3; 1.05", lambda r: span(r, "ratio", never)),
    ("a bouncing ball, against diffrax restarted", "events", "0.3", lambda r: span(r, "ratio", over("diffrax"))),
    ("against SciPy restarted", "events", "0.05", lambda r: span(r, "ratio", over("SciPy"))),
    ("a step with a delay, over one without", "delays", "3", lambda r: span(r, "ratio", over("without"))),
    ("gradient of a delay equation, over the loss", "delays", "6", lambda r: span(r, "ratio", over("the loss"))),
    ("Euler–Maruyama, 10 000 paths, over a scan", "noise", "1.1", lambda r: span(r, "ratio", exactly("over scan"))),
    (
        "over diffrax with its cheap path; its tree",
        "noise",
        "0.7; 0.05",
        lambda r: span(r, "ratio", over("forward, over diffrax")),
    ),
    ("over torchsde", "noise", "0.1", lambda r: span(r, "ratio", over("forward, over torchsde"))),
    ("its gradient, over forward", "noise", "3.5", lambda r: span(r, "ratio", over("gradient, over its own"))),
    ("memory of a gradient, 100 000 steps over 1000", "noise_gradients", "1.1", lambda r: span(r, "ratio", cheap)),
    ("molecule by molecule, against numba", "jumps", "1.5", lambda r: span(r, "ratio", as_chosen)),
    ("Mackey–Glass, against a method of steps in numba", "delays", "1", lambda r: span(r, "ratio", over("a method"))),
    ("lanes under vmap, against diffrax", "lanes", "–", lambda r: span(r, "ours / diffrax", solves)),
    ("their gradients", "lanes", "–", lambda r: span(r, "ours / diffrax", gradients)),
    ("RK4 × 1000 over a hand-written scan", "fixed_steps", "1.15", lambda r: span(r, "ours / scan", solves)),
    ("its gradient", "fixed_steps", "1.15", lambda r: span(r, "ours / scan", gradients)),
    (
        "max_steps from 1e3 to 1e6: time, memory",
        "max_steps",
        "1.05",
        lambda r: largest(r, ["time / first", "memory / first"], lambda row: row["who"] == "ours"),
    ),
    ("traces of f for a solve, for a gradient", "traces", "2; 5; again 0", traces),
    ("eager solve, µs", "overhead", "–", lambda r: span(r, "µs", lambda row: row["what"] == "ours, at t1")),
    ("gradient of 1000 and 600 states, against diffrax", "large", "–", lambda r: span(r, "gradient, ours / diffrax")),
    ("stiff solve at equal error, against diffrax", "stiff", "1/30", lambda r: span(r, "ours / diffrax")),
    ("against LSODA, compiled", "stiff", "1 on most, 2", lambda r: span(r, "ours / LSODA")),
    ("calls of f, BDF over CVODE's", "stiff", "1.3", lambda r: span(r, "BDF / CVODE")),
    ("compile time of Kvaerno5, against diffrax", "stiff", "0.5", lambda r: span(r, f"compile, {KVAERNO5}")),
    ("Jacobians used again, where chosen", "chords", "–", lambda r: span(r, "again / anew", used_again)),
    ("error over tolerance, half of all methods: steps; saved", "tolerances", "30", half_of_them),
    ("failures of all methods, four DAEs, 13 tolerances", "daes", "0", failures),
    ("failures of 1000 random networks, three tolerances", "stiff_networks", "–", lambda r: span(r, "fail")),
    ("factor and six solves, n = 1 to 200, over LAPACK", "linear_algebra", "–", lambda r: span(r, "chosen / LAPACK")),
    ("first contact: compile time, against diffrax", "first_contact", "0.5; 0.7; 1", lambda r: contact(r, "compile")),
    ("no method given, over the best explicit one", "first_contact", "1.6", lambda r: contact(r, "default, not stiff")),
    ("eager solve, against diffrax", "first_contact", "0.7", lambda r: contact(r, "eager")),
    ("a second process, JAX's cache on disk", "first_contact", "0.35", lambda r: contact(r, "second process")),
    ("parameters up to 1000: forward over reverse", "forward_or_reverse", "–", lambda r: span(r, "forward / reverse")),
)


def main() -> None:
    table = []
    for claim, script, target, measure in CLAIMS:
        path = RESULTS / f"{script}.json"
        found = measure(json.loads(path.read_text())["rows"]) if path.exists() else "not measured"
        table.append(
            {"claim": claim, "script": f"[{script}](results/{script}.md)", "at most": target, "measured": found}
        )
    readme = pathlib.Path(__file__).parent / "README.md"
    before, _, after = readme.read_text().split(MARK)
    readme.write_text(f"{before}{MARK}\n{markdown(table)}\n{MARK}{after}")
    print(markdown(table))


if __name__ == "__main__":
    main()
