"""Who may import whom: a module imports only from a lower layer, or from its own folder.

That keeps each part testable with stubs of what is below it, and the loop ignorant of everything it is handed.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "jaxdiffeq").rglob("*.py"))

LAYERS = (  # from the bottom; a folder without files of its own here stands for all that is in it
    {"types", "tableaux", "plotting", "noise.kinds", "noise.normals"},
    {"interfaces", "progress", "habits", "primitives.jax_internals"},
    {"errors", "primitives.cpu_kernel", "primitives.dataflow", "primitives.varying_axes"},
    {"clock", "primitives.constant_matmul", "primitives.linear_call", "primitives.row_buffer", "primitives.while_loop"},
    {"primitives.lanes", "jumps.refusals", "jumps.jump_errors"},
    {"primitives.fused_region", "primitives.scan", "primitives.both_ways", "primitives.search"},
    {"jumps.counters", "jumps.blocks"},
    {
        "algebra.norm",
        "algebra.order",
        "algebra.lu",
        "algebra.vectors",
        "engine.interpolant",
        "problems.ravel",
        "frontend.saveat",
        "frontend.packed",
    },
    {"algebra.blocks", "algebra.bracket", "inputs", "noise"},
    {"algebra.structure", "noise.processes"},
    {"algebra.conserved", "algebra.detect", "algebra.krylov", "algebra.newton"},
    {"implicit.consistent"},
    {
        "problems.vector_field",
        "problems.reached",
        "problems.past",
        "problems.delay_errors",
        "problems.noise_errors",
    },
    {"problems.driven_field"},
    {"problems.langevin_field"},
    {"problems.user_functions", "problems.definitions", "implicit.system"},
    {"implicit.jacobian_reuse", "problems.random", "problems.langevin", "jumps.definitions"},
    {"engine.control", "engine.recorders", "engine.stops", "jumps.channels", "jumps.network"},
    {"jumps.exact", "jumps.leaping", "jumps.pairs", "jumps.walk"},
    {"engine.log", "engine.outcome", "engine.regularisers", "engine.crossings"},
    {"engine.events"},
    {"steppers.stages", "steppers.base"},
    {"steppers.explicit", "steppers.rosenbrock", "steppers.dirk", "steppers.collocation", "steppers.auto"},
    {"steppers.stochastic"},
    {
        "steppers.multistep",
        "steppers.imex",
        "steppers.stochastic_rk",
        "steppers.weak",
        "steppers.reversible",
        "steppers.langevin",
    },
    {"steppers.adams", "steppers.stochastic_implicit", "steppers.stabilized"},
    {"engine.integration"},
    {"engine.breaks"},
    {"engine.history", "engine.driven"},
    {"methods"},
    {"gradients.retaken", "gradients.steady", "gradients.rule", "gradients.segments", "gradients.quadrature"},
    {"gradients.forward", "gradients.reverse", "gradients.packing"},
    {"gradients.adjoint_equation", "gradients.adjoint_noise", "gradients.estimators", "gradients.reversible"},
    {"gradients.adjoint_jumps"},
    {"gradients.adjoint_events"},
    {"gradients.adjoint_sweep"},
    {"gradients.adjoint"},
    {"gradients.check", "gradients.support"},
    {"solution"},
    {"events"},
    {"event_library"},
    {"frontend.options", "frontend.user_events", "frontend.delays", "frontend.noise"},
    {"frontend.plan", "jumps.hybrid", "jumps.solve"},
    {"jumps"},
    {"engine.fixed_steps", "frontend.steady_state", "frontend.assemble", "frontend.blame"},
    {"frontend.diagnose"},
    {"frontend.execute"},
    {"frontend.steady_doses"},
    {"solve"},
    {"integrator", "diffeq", "jumps.expectation"},
    {"trace"},
    {"nn"},  # written against solve() only
    {"__init__"},
    {"__main__"},
)
LAYER = {name: i for i, names in enumerate(LAYERS) for name in names}

HANDED = {  # although it is lower: these are handed the parts as arguments
    "engine.integration": ("steppers", "tableaux"),
    "gradients": ("steppers", "tableaux", "engine.integration"),
}
ONLY = {"tableaux": {"collections", "dataclasses", "fractions", "functools", "math", "numpy", "typing"}}
PRIVATE = ("jax._src", "jaxlib", "equinox.internal")
PUBLIC_NAMES = 70


def place(dotted: str) -> str:
    """The entry that a module, or a name in one, belongs to."""
    parts = dotted.split(".")[1:]
    while parts and ".".join(parts) not in LAYER:
        parts.pop()
    return ".".join(parts) or "__init__"


def within(entry: str, folders: tuple[str, ...]) -> bool:
    return entry.split(".")[0] in folders or entry in folders


class Import(NamedTuple):
    line: int
    name: str  # dotted: of a module, or of a thing in one
    local: str  # what the name is called here


def imports(tree: ast.Module) -> Iterator[Import]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(node.lineno, alias.name, alias.asname or alias.name.split(".")[0])
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                name = f"{'.' * node.level}{node.module or ''}.{alias.name}"
                yield Import(node.lineno, name, alias.asname or alias.name)


def of_layers(module: str, tree: ast.Module) -> Iterator[str]:
    here = place(module)
    folder = here.split(".")[0]
    if here == "__init__" and module != "jaxdiffeq.__init__":
        yield f"1: {module} has no layer: give it one in tests/test_layers.py"
        return
    for line, name, _ in imports(tree):
        if name.startswith("."):
            yield f"{line}: relative import of {name}"
        if folder in ONLY and name.split(".")[0] not in (*ONLY[folder], "jaxdiffeq"):
            yield f"{line}: {here} imports {name}, may import only {', '.join(sorted(ONLY[folder]))}"
        there = place(name) if name.split(".")[0] == "jaxdiffeq" else here
        if there == here and there != "__init__":
            continue
        if within(there, HANDED.get(folder, HANDED.get(here, ()))):
            yield f"{line}: {here} imports {there}, which it should be handed"
        elif LAYER[there] >= LAYER[here]:
            yield f"{line}: {here} imports {there}, which is not below it"


def test_every_file_has_a_layer_and_every_layer_a_file():
    modules = {name for name in map(module_name, MODULES) if not hollow(name)}
    missing = sorted(LAYER.keys() - {place(name) for name in modules})
    assert not missing, f"no such files: {missing}"


def hollow(module: str) -> bool:
    """An empty `__init__`."""
    path = ROOT.joinpath(*module.split("."), "__init__.py")
    return path.exists() and not path.read_text("utf8").strip()


def dotted(node: ast.AST, names: dict[str, str]) -> str | None:
    """The full name of a chain of attributes that starts at an imported name."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        start = dotted(node.value, names)
        return start and f"{start}.{node.attr}"
    return None


def of_privacy(tree: ast.Module) -> Iterator[str]:
    """What JAX and equinox do not promise to keep."""
    found = list(imports(tree))
    names = {i.local: i.local if i.name.startswith(f"{i.local}.") else i.name for i in found}
    used = [(i.line, i.name) for i in found]
    used += [(n.lineno, dotted(n, names) or "") for n in ast.walk(tree) if isinstance(n, ast.Attribute)]
    for line, name in used:
        hidden = any(part.startswith("_") and not part.endswith("__") for part in name.split("."))
        if name.split(".")[0] in ("jax", "jaxlib", "equinox") and (hidden or name.startswith(PRIVATE)):
            yield f"{line}: {name} is private"


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 2 and parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_layers(path):
    tree = ast.parse(path.read_text("utf8"))
    if not tree.body:
        return
    found = dict.fromkeys([*of_layers(module_name(path), tree), *of_privacy(tree)])
    assert not found, "".join(f"\n{path.relative_to(ROOT)}:{breach}" for breach in found)


def public_names(tree: ast.Module) -> list[str]:
    """What an `__init__` offers; it must say so in lines like `from jaxdiffeq.solve import solve as solve`.

    Only the methods, too many for that, and jumps with theirs, may come all at once: these have lists of their own.
    """
    whole = [("jaxdiffeq.methods", "*"), ("jaxdiffeq.jumps", "*")]
    lines = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
    aliases = [a for n in lines for a in n.names if (getattr(n, "module", None), a.name) not in whole]
    assert all(a.asname == a.name for a in aliases), [a.name for a in aliases if a.asname != a.name]
    return [a.name for a in aliases if not a.name.startswith("_")]


def test_public_names():
    names = public_names(ast.parse((ROOT / "jaxdiffeq" / "__init__.py").read_text("utf8")))
    assert len(names) <= PUBLIC_NAMES, f"{len(names)} public names, at most {PUBLIC_NAMES}"
    assert len(names) == len(set(names))


# -------------------- do they see? ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "source", "message"),
    [
        (
            "jaxdiffeq.types",
            "from jaxdiffeq.engine.integration import Integration",
            "types imports engine.integration, which is not below it",
        ),
        (
            "jaxdiffeq.engine.control",
            "import jaxdiffeq.engine.recorders as r",
            "control imports engine.recorders, which is not below it",
        ),
        (
            "jaxdiffeq.steppers.explicit",
            "from jaxdiffeq import solve",
            "explicit imports solve, which is not below",
        ),
        ("jaxdiffeq.solve", "def f():\n    import jaxdiffeq", "2: solve imports __init__, which is not below it"),
        (
            "jaxdiffeq.solution",
            "def f():\n    from jaxdiffeq.solve import solve",
            "2: solution imports solve, which is not below it",
        ),
        (
            "jaxdiffeq.engine.integration",
            "from jaxdiffeq.steppers.explicit import ExplicitRK",
            "which it should be handed",
        ),
        ("jaxdiffeq.gradients.reverse", "from jaxdiffeq.steppers import explicit", "which it should be handed"),
        (
            "jaxdiffeq.gradients.reverse",
            "from jaxdiffeq.engine.integration import integrate",
            "which it should be handed",
        ),
        (
            "jaxdiffeq.gradients.reverse",
            "from jaxdiffeq.engine.integration import Integration",
            "which it should be handed",
        ),
        ("jaxdiffeq.tableaux.explicit", "import jax", "tableaux imports jax, may import only collections, datac"),
        ("jaxdiffeq.tableaux.explicit", "from jaxdiffeq.types import Step", "tableaux imports types, which is not"),
        ("jaxdiffeq.engine.integration", "from .types import State", "relative import"),
        ("jaxdiffeq.newcomer", "", "has no layer"),
    ],
)
def test_a_breach_of_the_layers_is_seen(module, source, message):
    (found,) = of_layers(module, ast.parse(source))
    assert message in found


@pytest.mark.parametrize("line", ["from jaxdiffeq.frontend.saveat import *", "from jaxdiffeq.solve import solve"])
def test_a_name_that_is_not_spelt_out_is_seen(line):
    with pytest.raises(AssertionError):
        public_names(ast.parse(line))


@pytest.mark.parametrize(
    "source",
    [
        "from jax._src import core",
        "from jax._src.core import Jaxpr as J",
        "import jax\njax._src.core",
        "from jax.interpreters import ad\nad._secret",
        "import jax.interpreters.mlir as m\nm._secret(1)",
        "import equinox.internal as eqxi",
        "from equinox import internal",
        "import equinox as eqx\neqx.internal.while_loop",
        "from jaxlib import xla_client",
    ],
)
def test_a_private_name_is_seen(source):
    assert list(of_privacy(ast.parse(source)))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("jaxdiffeq.steppers.dirk", "from jaxdiffeq.steppers.base import x\nfrom jaxdiffeq.tableaux import dirk"),
        ("jaxdiffeq.solution", "from jaxdiffeq import plotting"),
        ("jaxdiffeq.nn.layers", "from jaxdiffeq.solve import solve\nfrom jaxdiffeq.nn.other import x"),
        ("jaxdiffeq.__main__", "import jaxdiffeq as jde\nfrom jaxdiffeq import plotting"),
        ("jaxdiffeq.tableaux.dirk", "import math\nfrom dataclasses import dataclass\nimport numpy as np"),
        ("jaxdiffeq.engine.integration", "from jax.interpreters import ad\nad.Zero.__name__\nself._x = dense._y"),
    ],
)
def test_what_keeps_the_layers_passes(module, source):
    tree = ast.parse(source)
    assert [*of_layers(module, tree), *of_privacy(tree)] == []
