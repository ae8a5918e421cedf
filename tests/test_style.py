"""The budgets that keep the code readable, counted.

Code lines exclude blanks, comments and docstrings. Nesting counts if, for, while, with, try, match and def below a
function's own level, an elif chain once. Parameters are those that can be given by position, without self: keyword-only
ones do not count, because a call names each of them, and `solve` has many options by contract.
"""

import ast
import io
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = sorted((ROOT / "jaxdiffeq").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

FUNCTION_LINES = 45
NESTING = 3
PARAMETERS = 7
FILE_LINES = 500

Function = ast.FunctionDef | ast.AsyncFunctionDef
BLOCKS = (
    *(ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.TryStar, ast.Match),
    *(ast.FunctionDef, ast.AsyncFunctionDef),
)
NO_CODE = {
    *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT),
    *(tokenize.ENCODING, tokenize.ENDMARKER),
}


def is_string(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def code_lines(source: str) -> set[int]:
    """The numbers of the lines with code on them. A string that is a statement is a docstring."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and is_string(node):
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return lines


def depth(node: ast.AST) -> int:
    """How many blocks deep the code below `node` goes; an elif is as deep as its if."""
    deepest = 0
    for child in ast.iter_child_nodes(node):
        chained = isinstance(node, ast.If) and isinstance(child, ast.If) and [child] == node.orelse
        deepest = max(deepest, depth(child) + (isinstance(child, BLOCKS) and not chained))
    return deepest


def parameters(function: Function) -> int:
    names = [a.arg for a in (*function.args.posonlyargs, *function.args.args)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def breaches(source: str, *, file_lines: int | None = FILE_LINES) -> Iterator[str]:
    lines = code_lines(source)
    if file_lines is not None and len(lines) > file_lines:
        yield f"1: {len(lines)} code lines in the file, at most {file_lines}"
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, Function):
            continue
        length = len(lines.intersection(range(node.lineno, (node.end_lineno or node.lineno) + 1)))
        counts = ("code lines", length, FUNCTION_LINES), ("levels of nesting", depth(node), NESTING)
        for what, count, most in (*counts, ("parameters", parameters(node), PARAMETERS)):
            if count > most:
                yield f"{node.lineno}: {node.name} has {count} {what}, at most {most}"


def of_file(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", PACKAGE, ids=of_file)
def test_budgets(path):
    limit = None if "tableaux" in path.parts else FILE_LINES
    found = [f"{of_file(path)}:{breach}" for breach in breaches(path.read_text("utf8"), file_lines=limit)]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize("path", TESTS, ids=of_file)
def test_length_of_test_files(path):
    count = len(code_lines(path.read_text("utf8")))
    assert count <= FILE_LINES, f"{of_file(path)} has {count} code lines, at most {FILE_LINES}"


# -------------------- do they count? ----------------------------------------------------------------------------------

LONG = "def f(x):\n    '''Two\n    lines.'''\n\n    # why\n" + "    x += 1\n" * FUNCTION_LINES
DEEP = """
def f(x):
    for i in x:
        if i:
            pass
        elif x:
            with i:
                {}
"""


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (LONG, "f has 46 code lines, at most 45"),
        (DEEP.format("while x: pass"), "f has 4 levels of nesting, at most 3"),
        ("class A:\n    def f(self, a, b, c, d, e, f, g, h): pass", "f has 8 parameters, at most 7"),
        ("def f(a, b, c, d, /, e, f, g, h): pass", "f has 8 parameters, at most 7"),
        ("x = (1,\n2)\n" * 251, "502 code lines in the file, at most 500"),
    ],
)
def test_a_breach_is_found(source, message):
    (found,) = breaches(source)
    assert message in found


@pytest.mark.parametrize(
    "source",
    [
        LONG.replace("    x += 1\n", "", 1),
        DEEP.format("pass"),
        "class A:\n    def f(self, a, b, c, d, e, f, g): pass",
        "def solve(a, b, c, d, e, f, g, *, h, i, j): pass",
        "'''Text.\n" + "\n" * 600 + "'''\n" + "# comment\n\n" * 600 + "x = 1\n" * 500,
    ],
)
def test_what_keeps_the_budgets_passes(source):
    assert list(breaches(source)) == []
