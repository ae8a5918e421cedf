"""`max_steps` is a bound and not a cost: forward time and memory from 1e3 to 1e6 grow by at most 1.05."""

from __future__ import annotations

import common
import jax.numpy as jnp
import solvers
from problems import CASES

BOUNDS = (1_000, 10_000, 100_000, 1_000_000)


def contest(many: bool) -> list[dict]:
    case = CASES[0]
    args = jnp.asarray(case.y0), jnp.asarray(case.p), jnp.asarray(1e-6)
    exact = case.reference(case.ts) if many else case.reference(case.ts)[-1:]
    runs, bytes_, errors = {}, {}, {}
    for who, make in (("ours", solvers.ours), ("diffrax", solvers.diffrax)):
        for bound in BOUNDS:
            run = make(case.f, "Tsit5", case.t1, case.ts if many else None, max_steps=bound)
            compiled, runs[who, bound] = solvers.jitted(run, *args)
            bytes_[who, bound] = solvers.peak_bytes(compiled)
            errors[who, bound] = common.relative_error(runs[who, bound](), exact)
    seconds = common.interleaved(runs)
    mid, rows = common.medians(seconds), []
    for who in ("ours", "diffrax"):
        base = who, BOUNDS[0]
        for bound in BOUNDS:
            key = who, bound
            time, memory = common.ratio(seconds, key, base), bytes_[key] / bytes_[base]
            rows.append(
                {
                    "who": who,
                    "saved": 101 if many else 1,
                    "max_steps": bound,
                    "µs": mid[key] * 1e6,
                    "bytes": bytes_[key],
                    "error": errors[key],
                    "time / first": time,
                    "memory / first": memory,
                    "≤ 1.05": common.verdict(max(time, memory), 1.05),
                }
            )
    return rows


def main() -> None:
    rows = common.gather(row for many in (False, True) for row in contest(many))
    common.report("max_steps", "Forward time and memory against max_steps", rows)
    curves = {}
    for who in ("ours", "diffrax"):
        for saved in (1, 101):
            mine = [r for r in rows if r["who"] == who and r["saved"] == saved]
            curves[f"{who}, {saved} saved"] = ([r["max_steps"] for r in mine], [r["µs"] for r in mine])
    common.lines("max_steps", "Forward time against max_steps", curves, ("max_steps", "µs"))


if __name__ == "__main__":
    main()
