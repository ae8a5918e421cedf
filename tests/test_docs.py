"""The pages of docs/ name what is there: the map of files is that of the layers.

`python tests/test_docs.py` rewrites the map.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_layers import LAYERS, MODULES, ROOT, hollow, module_name, place

DOCS = ROOT / "docs"
ARCHITECTURE = DOCS / "architecture.md"
START, END = "<!-- map -->\n", "<!-- /map -->"

pytestmark = pytest.mark.smoke


# -------------------- the map -----------------------------------------------------------------------------------------


def first_sentence(path: Path) -> str:
    text = " ".join((ast.get_docstring(ast.parse(path.read_text("utf8"))) or "").split())
    return re.split(r"(?<=[.])\s", text)[0].replace("|", "\\|")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT / "jaxdiffeq").as_posix()


def rows() -> Iterator[tuple[str, list[Path]]]:
    """The layers from the top, numbered from the bottom, with the files of each."""
    files = [path for path in MODULES if not hollow(module_name(path)) or path.stem != "__init__"]
    for number, entries in reversed(list(enumerate(LAYERS))):
        found = [path for path in files if place(module_name(path)) in entries]
        yield str(number), sorted(found, key=name_of)


def map_of_files() -> str:
    lines = ["| layer | file | |", "|---|---|---|"]
    for number, files in rows():
        lines += [f"| {'' if i else number} | `{name_of(f)}` | {first_sentence(f)} |" for i, f in enumerate(files)]
    return "\n".join(lines)


def rewritten(text: str) -> str:
    before, rest = text.split(START)
    return f"{before}{START}{map_of_files()}\n{END}{rest.split(END)[1]}"


def test_the_map_is_up_to_date():
    text = ARCHITECTURE.read_text("utf8")
    assert rewritten(text) == text, "run: python tests/test_docs.py"


def test_the_map_names_every_file_once_in_the_order_of_the_layers():
    named = re.findall(r"^\| \d* \| `(.*?)` \|", ARCHITECTURE.read_text("utf8"), re.MULTILINE)
    assert sorted(named) == sorted(name_of(f) for f in MODULES if f.stat().st_size and f.read_text("utf8").strip())
    layer = {entry: i for i, entries in enumerate(LAYERS) for entry in entries}
    heights = [layer[place(module_name(ROOT / "jaxdiffeq" / name))] for name in named]
    assert heights == sorted(heights, reverse=True)


def test_every_file_says_what_it_is():
    assert [name_of(f) for _, files in rows() for f in files if not first_sentence(f)] == []


if __name__ == "__main__":
    ARCHITECTURE.write_text(rewritten(ARCHITECTURE.read_text("utf8")), "utf8")
    sys.stdout.write("docs/architecture.md is up to date\n")
