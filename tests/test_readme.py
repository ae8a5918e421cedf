"""The README and the pages of docs/ say what is true: their tables are those of the code, and their examples run.

`python tests/test_readme.py` rewrites the tables.
"""

import functools
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jaxdiffeq import methods
from jaxdiffeq.gradients import estimators
from jaxdiffeq.gradients import support as gradients
from jaxdiffeq.types import Result

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {page.name: page.read_text("utf8") for page in PAGES}

pytestmark = pytest.mark.smoke


# -------------------- tables ------------------------------------------------------------------------------------------


def table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join('' if cell is None else str(cell) for cell in line)} |" for line in lines)


FAMILIES = ("explicit", "rosenbrock", "dirk", "collocation", "multistep")  # the files of `jaxdiffeq.methods`


def methods_of(family: str) -> Iterator[Any]:
    for name, make in vars(methods).items():
        if name[0].isupper() and getattr(make, "__module__", "") == f"{methods.__name__}.{family}":
            yield make()


def all_methods() -> Iterator[Any]:
    for family in FAMILIES:
        yield from methods_of(family)


def described(method: Any) -> tuple[str, str, str]:
    """The three parts of a method's docstring: its numbers, what it is good for, who published it."""
    text = " ".join((getattr(methods, method.name).__doc__ or "").split()).removesuffix(".")
    facts, *uses, source = re.split(r"(?<!et al)\. ", text)
    return facts, ". ".join(uses), source


def dense(method: Any) -> str:
    extra = method.evaluations[2]
    return f"{method.dense_order}" + (f" with {extra} more" if extra else "")


def order(tableau: Any) -> str:
    if tableau.embedded_order is None:
        return f"{tableau.order}"
    return f"{tableau.order}({tableau.embedded_order}{', 3' if tableau.e3 else ''})"


def stages(tableau: Any) -> str:
    return f"{tableau.stages}{' FSAL' if tableau.fsal else ''}"


def numbers(method: Any) -> tuple[str | None, ...]:
    """Order, stages, and order of the dense output."""
    if not hasattr(method, "tableau"):
        return f"1–{method.order}", None, f"1–{method.dense_order}"
    return order(method.tableau), stages(method.tableau), dense(method)


def methods_table(family: str) -> str:
    found = sorted(methods_of(family), key=lambda method: method.order)
    rows = [(f"`{m.name}`", *numbers(m), *described(m)[1:]) for m in found]
    return table(("method", "order", "stages", "dense", "good for", "source"), rows)


def noise_table() -> str:
    """Of methods for noise: calculus, noise, orders, and whether steps can be found by their error."""
    rows = []
    for m in methods_of("stochastic"):
        orders = (m.strong_order, m.weak_order)
        facts = ", ".join(m.interpretations), ", ".join(m.serves), *orders, "yes" if m.error_order else "no"
        rows.append((f"`{m.name}`", *facts, *described(m)[1:]))
    return table(("method", "calculus", "noise", "strong", "weak", "adaptive", "good for", "source"), rows)


Tables = dict[str, Callable[[], str]]
GENERATED: dict[str, Tables] = {
    "gradients.md": {"gradients": gradients.markdown},
    "jumps.md": {"estimators": estimators.markdown},
    "noise.md": {"stochastic": noise_table},
    "methods.md": {family: functools.partial(methods_table, family) for family in FAMILIES},
}


def rewritten(text: str, tables: Tables) -> str:
    """The text with every generated table as it should be, each between two comments with its name."""
    for name, make in tables.items():
        start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, rest = text.split(start)
        text = f"{before}{start}{make()}\n{end}{rest.split(end)[1]}"
    return text


@pytest.mark.parametrize("page", GENERATED)
def test_tables_are_up_to_date(page):
    assert rewritten(TEXTS[page], GENERATED[page]) == TEXTS[page], "run: python tests/test_readme.py"


def test_a_stale_table_is_seen():
    text, tables = TEXTS["methods.md"], GENERATED["methods.md"]
    stale = text.replace("| `Tsit5` | 5(4) |", "| `Tsit5` | 6(4) |")
    assert stale != text
    assert rewritten(stale, tables) == rewritten(text, tables)
    row = "| `Tsit5` | 5(4) | 7 FSAL | 4 | The usual choice for rtol 1e-2 to 1e-6 | Tsitouras 2011 |"
    assert row in rewritten(text, tables)


@pytest.mark.parametrize("method", [m for m in all_methods() if not hasattr(m, "tableau")], ids=lambda m: m.name)
def test_docstrings_have_the_highest_orders(method):
    assert described(method)[0] == f"Order {method.order}, from 1 upwards, dense {method.dense_order}"


@pytest.mark.parametrize("method", [m for m in all_methods() if hasattr(m, "tableau")], ids=lambda method: method.name)
def test_docstrings_have_the_numbers_of_the_tableau(method):
    tableau = method.tableau
    count = f"{tableau.stages} stage{'s' * (tableau.stages > 1)}{' FSAL' * tableau.fsal}"
    facts = [f"Order {order(tableau)}", count]
    facts += [f"SSP {tableau.ssp:g}"] if tableau.ssp else []
    facts += [f"dense {dense(method)}"] if tableau.interpolant else []
    assert described(method)[0] == ", ".join(facts)


@pytest.mark.parametrize("result", [r for r in Result if r >= 0])
def test_result_codes_are_explained(result):
    assert f"| `{result.name}` |" in TEXTS["README.md"]


# -------------------- commands and examples ---------------------------------------------------------------------------


@pytest.mark.parametrize("command", ['pip install -e ".[test]"', 'pip install ".[demo]"', "python -m jaxdiffeq"])
def test_ci_runs_the_commands_of_the_readme(command):
    script = (ROOT / ".ci" / "run").read_text("utf8").replace("--quiet ", "")
    assert command in TEXTS["README.md"]
    assert command in script


def test_ci_runs_all_tests_as_the_readme_does():
    assert '".[test]" && pytest  ' in TEXTS["README.md"]
    assert "\nrun pytest\n" in (ROOT / ".ci" / "run").read_text("utf8")


def examples(page: Path) -> Iterator[Any]:
    """The Python blocks, with as many empty lines before each as there are on the page: tracebacks name its lines."""
    text = TEXTS[page.name]
    for block in re.finditer(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield compile("\n" * text[: block.start(1)].count("\n") + block[1], page, "exec")


WITH_EXAMPLES = pytest.mark.parametrize(
    "page", [page for page in PAGES if list(examples(page))], ids=lambda page: page.stem
)


@WITH_EXAMPLES
def test_examples(page):
    run_examples(page, x64=True)


def run_examples(page: Path, x64: bool) -> None:
    """All blocks of a page, one after the other, in the state in which users find JAX."""
    names: dict[str, Any] = {}
    dtype = np.dtype("float64" if x64 else "float32")
    before = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", x64)
    try:
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            for example in examples(page):
                exec(example, names)
                if "sol" in names:
                    assert names["sol"].result == Result.success
                    assert all(x.dtype == dtype for x in jax.tree.leaves(names["sol"].ys))
    finally:
        jax.config.update("jax_enable_x64", before)
    if page == README:
        assert names["gradient"].dtype == dtype
        assert abs(names["gradient"]).max() > 0
    if page.name == "events.md":
        np.testing.assert_allclose(names["log"].ts[0], np.sqrt(100 / 9.8), rtol=1e-5)
        energies = jax.vmap(names["energy"])(names["sol"].ts, names["sol"].ys)
        np.testing.assert_allclose(energies, -np.cos(1.0), atol=1e-5)
    if page.name == "gradients.md":
        assert names["report"], names["report"]
        np.testing.assert_allclose(names["approximate"], names["exact"], rtol=1e-2)


if __name__ == "__main__":
    for name, tables in GENERATED.items():
        (ROOT / "docs" / name).write_text(rewritten(TEXTS[name], tables), "utf8")
    sys.stdout.write(f"{', '.join(GENERATED)} are up to date\n")
