"""Many cases in one process of their own, where an abort costs one case and not the whole run.

A script ends in `run(CASES)`, a dict of functions without arguments. `failures(script)` runs it, and again from the
next case whenever one has brought the process down.
"""

import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
BEGIN, GOOD, BAD = "== case ", "== good", "== bad"


def run(cases: dict[str, Callable[[], Any]]) -> None:
    """Those from number `sys.argv[1]` on, each named before it runs."""
    for name, case in list(cases.items())[int(sys.argv[1]) :]:
        print(f"{BEGIN}{name}", flush=True)
        try:
            case()
        except Exception:
            print(f"{traceback.format_exc(limit=-4)}\n{BAD}", flush=True)
        else:
            print(GOOD, flush=True)


def failures(script: Path, *words: str, seconds: float = 600, **environment: str) -> dict[str, str]:
    """What went wrong, by case: the end of its output. `words` are handed to the script after the number."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]), **environment}
    first, found = 0, {}
    while True:
        command = [sys.executable, str(script), str(first), *words]
        done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=seconds)
        chunks = done.stdout.split(BEGIN)[1:]
        first += len(chunks)
        for chunk in chunks:
            name, _, output = chunk.partition("\n")
            if not output.rstrip().endswith(GOOD):
                found[name] = output.removesuffix(f"{BAD}\n").strip()[-700:]
        if done.returncode == 0:
            assert first, f"{script.name} ran no case"
            return found
        assert chunks, f"{script.name} does not begin:\n{done.stderr[-3000:]}"
        last = chunks[-1].partition("\n")[0]
        found[last] = f"the process ended with {done.returncode}:\n{done.stderr[:700]}"


def report(found: dict[str, str]) -> str:
    return f"\n{len(found)} cases failed\n" + "\n".join(f"-- {name}\n{what}\n" for name, what in found.items())
