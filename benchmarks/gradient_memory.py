"""Peak memory and time of gradients by strategy: what the compiled program allocates for temporaries and output.

The network 16-64-64-16 on a batch of 64, 300 equal Tsit5 steps taken by the adaptive loop, float32.
"""

from __future__ import annotations

import common
import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np
import solvers
from problems import NETWORKS, mlp

import jaxdiffeq as jde

STEPS = 300
MEMORIES = (None, "sqrt", "all", 8, 32, 128)


def main() -> None:
    net = NETWORKS[1]
    w, y0 = jax.tree.map(jnp.asarray, (net.weights(), net.y0()))
    dt = np.float32(1 / STEPS)

    def ours(memory):
        def loss(w):
            control, saveat = jde.FixedSteps(dt=dt), jde.SaveAt(t1=True)
            problem, gradient = jde.ODEProblem(mlp, y0, (0.0, 1.0), w), jde.ReverseAD(memory=memory)
            options = {"controller": control, "saveat": saveat, "gradient": gradient, "max_steps": 512}
            return jnp.mean(jde.solve(problem, jde.Tsit5(), **options).ys ** 2)

        return loss

    def diffrax(adjoint):
        def loss(w):
            term, saveat = dfx.ODETerm(mlp), dfx.SaveAt(t1=True)
            options = {"saveat": saveat, "adjoint": adjoint, "max_steps": 512, "throw": False}
            return jnp.mean(
                dfx.diffeqsolve(term, dfx.Tsit5(), np.float32(0), np.float32(1), dt, y0, w, **options).ys ** 2
            )

        return loss

    contestants = {f"ReverseAD({memory!r})": ours(memory) for memory in MEMORIES}
    contestants |= {
        "diffrax checkpoints, default": diffrax(dfx.RecursiveCheckpointAdjoint()),
        "diffrax checkpoints, 8": diffrax(dfx.RecursiveCheckpointAdjoint(8)),
        "diffrax checkpoints, 128": diffrax(dfx.RecursiveCheckpointAdjoint(128)),
        "diffrax backsolve": diffrax(dfx.BacksolveAdjoint()),
    }
    runs, memory, values = {}, {}, {}
    for name, loss in contestants.items():
        compiled, runs[name] = solvers.jitted(jax.grad(loss), w)
        memory[name] = solvers.peak_bytes(compiled)
        values[name] = np.concatenate([np.asarray(x).ravel() for x in jax.tree.leaves(runs[name]())])
    _, runs["forward"] = solvers.jitted(ours(None), w)
    seconds = common.interleaved(runs, 5)
    exact, mid = values["ReverseAD('all')"], common.medians(seconds)
    state = y0.size * 4
    rows = [
        {
            "strategy": name,
            "peak MiB": memory[name] / 2**20,
            "in states": memory[name] / state,
            "ms": mid[name] * 1e3,
            "gradient / forward": common.ratio(seconds, name, "forward"),
            "differs from 'all' by": common.relative_error(values[name], exact),
        }
        for name in contestants
    ]
    notes = [f"A state has {state} bytes; all {STEPS} of them {STEPS * state / 2**20:.2f} MiB."]
    common.report("gradient_memory", "Peak memory of gradients", rows, notes)
    groups = {r["strategy"]: {"MiB": r["peak MiB"]} for r in rows}
    common.bars("gradient_memory", "Peak memory of gradients", groups, "MiB")


if __name__ == "__main__":
    main()
