"""The pages of docs/ name what is there: the map is that of the layers, what goes beyond JAX's public API is listed.

`python tests/test_docs.py` rewrites the map.
"""

import ast
import functools
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_layers import LAYERS, MODULES, ROOT, dotted, hollow, imports, module_name, place

DOCS = ROOT / "docs"
ARCHITECTURE, INTERNALS = DOCS / "architecture.md", DOCS / "jax-internals.md"
PAGES = sorted([*DOCS.glob("*.md"), *ROOT.glob("*.md")])
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


# -------------------- names in the prose ------------------------------------------------------------------------------


def places_named(text: str) -> set[str]:
    """Paths in `backticks`, in fences and in links: with a slash or an ending that only a file has."""
    quoted = {word for code in re.findall(r"`([^`\n]+)`", text) for word in code.split()}
    drawn = {word for block in re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL) for word in block.split()}
    linked = {link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link}
    return linked | {w for w in quoted | drawn if re.fullmatch(r"[\w.-]+(/[\w.-]+)*(/|\.py|\.md|\.toml|\.gif)", w)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page):
    roots = page.parent, ROOT, ROOT / "jaxdiffeq"
    missing = [name for name in places_named(page.read_text("utf8")) if not any((r / name).exists() for r in roots)]
    assert sorted(missing) == []


def test_a_file_that_is_not_there_is_seen():
    text = "see `solve.py`, [this](docs/no.md), `python tests/gone.py`\n```\n a ─ frontend/none.py ─\n```\n"
    assert places_named(text) == {"solve.py", "docs/no.md", "tests/gone.py", "frontend/none.py"}


# -------------------- beyond JAX's public API -------------------------------------------------------------------------

HOME = ROOT / "jaxdiffeq" / "primitives" / "jax_internals.py"
PUBLIC = {  # modules of JAX that are documented for its users; what is no module is public under `jax` itself
    *("ad_checkpoint", "custom_batching", "custom_derivatives", "custom_transpose", "debug", "dtypes", "errors"),
    *(
        "experimental",
        "export",
        "flatten_util",
        "image",
        "lax",
        "monitoring",
        "nn",
        "numpy",
        "ops",
        "profiler",
        "random",
        "scipy",
    ),
    *("sharding", "stages", "tree", "tree_util", "typing"),
}
ATTRIBUTES = {"aval", "vma", "mat", "to_tangent_aval", "is_high", "to_lojax"}  # of tracers and of abstract values


@functools.cache
def is_module(name: str) -> bool:
    try:
        return bool(importlib.import_module(name))
    except ImportError:
        return False


def is_public(name: str) -> bool:
    """Of a dotted name in JAX. `jax.lax.while_p` and its like are not: nobody promises their parameters."""
    first, *rest = (*name.split(".")[1:], "")
    private = any(part.startswith("_") and not part.endswith("__") for part in (first, *rest))
    if private or (first == "lax" and rest[0].endswith("_p")):
        return False
    return first in PUBLIC or not is_module(f"jax.{first}")


def beyond(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Lines and names of what is used of JAX and not public: modules by their names, attributes as `.name`."""
    found = list(imports(tree))
    names = {i.local: i.local if i.name.startswith(f"{i.local}.") else i.name for i in found}
    inner = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    used = [(i.line, i.name) for i in found]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            if node.attr in ATTRIBUTES:
                yield node.lineno, f".{node.attr}"
            elif id(node) not in inner:
                used.append((node.lineno, dotted(node, names) or ""))
        elif isinstance(node, ast.Call) and len(node.args) > 1 and isinstance(node.args[1], ast.Constant):
            if node.args[1].value in ATTRIBUTES:  # getattr(x, "vma", ...)
                yield node.lineno, f".{node.args[1].value}"
        elif isinstance(node, ast.Name) and id(node) not in inner:
            used.append((node.lineno, names.get(node.id, "")))
    for line, name in used:
        if name.split(".")[0] in ("jax", "jaxlib") and not is_public(name):
            yield line, thing(name)


def thing(name: str) -> str:
    """The name up to the first part that is no module: `jax.interpreters.ad.Zero` of `jax.interpreters.ad.Zero.x`."""
    ends = [i for i, letter in enumerate(f"{name}.") if letter == "."]
    return next((name[:end] for end in ends[1:] if not is_module(name[:end])), name)


@pytest.mark.parametrize("path", [path for path in MODULES if path != HOME], ids=module_name)
def test_only_public_names_of_jax_are_used(path):
    found = sorted({f"{name_of(path)}:{line}: {name}" for line, name in beyond(ast.parse(path.read_text("utf8")))})
    assert not found, "\n".join(["only primitives/jax_internals.py may use what is not public:", *found])


def test_the_page_lists_what_is_used():
    used = {
        name for _, name in beyond(ast.parse(HOME.read_text("utf8"))) if name.startswith(".") or not is_module(name)
    }
    listed = re.findall(r"^\| `(.*?)` \|", INTERNALS.read_text("utf8"), re.MULTILINE)
    assert sorted(used) == sorted(listed)


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("from jax.core import Tracer", ["jax.core.Tracer"]),
        ("import jax\njax.core.eval_jaxpr(x).y", ["jax.core.eval_jaxpr"]),
        ("from jax.interpreters import ad\nad.Zero.x", ["jax.interpreters.ad", "jax.interpreters.ad.Zero"]),
        ("from jax.extend.core import Primitive as P", ["jax.extend.core.Primitive"]),
        ("import jax\njax._src.x", ["jax._src.x"]),
        ("from jax import lax\nlax.while_p.bind(x)", ["jax.lax.while_p"]),
        ("x.aval.shape", [".aval"]),
        ("getattr(x, 'vma', None)", [".vma"]),
        (
            "import jax\njax.jit(jax.config.update, jax.__version__)\nfrom jax.custom_derivatives import SymbolicZero",
            [],
        ),
        ("import jax.numpy as jnp\njnp.ones(3).shape\nfrom jax.experimental import checkify\nfrom jax import lax", []),
    ],
)
def test_what_is_beyond_is_seen(source, names):
    assert list(dict.fromkeys(name for _, name in beyond(ast.parse(source)))) == names


if __name__ == "__main__":
    ARCHITECTURE.write_text(rewritten(ARCHITECTURE.read_text("utf8")), "utf8")
    sys.stdout.write("docs/architecture.md is up to date\n")
