"""Gradients of neural ODEs in float32: at most 0.9 of diffrax's time and 0.5 of torchdiffeq's.

Loss mean(ys²) over 10 saved times on [0, 1], gradient with respect to all weights, Tsit5 against Tsit5 (torchdiffeq:
dopri5), each at the tolerance where its solve has the target error. The error shown is that of the gradient, against
float64 at rtol 1e-8. Also: `ReverseAD` gradient over forward time for 100 equal Tsit5 steps, at most 4.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import common
import jax
import jax.numpy as jnp
import numpy as np
import solvers
from problems import NETWORKS, Network, mlp

import jaxdiffeq as jde

TS = np.linspace(0, 1, 10)
TARGET = 1e-4
GRID = np.logspace(-2, -4, 4)


def loss_of(run: Callable) -> Callable:
    return lambda weights, y0, tol: jnp.mean(run(y0, weights, tol) ** 2)


def flat(tree) -> np.ndarray:
    return np.concatenate([np.asarray(x, np.float64).ravel() for x in jax.tree.leaves(tree)])


def references(net: Network) -> tuple[np.ndarray, np.ndarray]:
    exact = solvers.ours(mlp, "Dopri8", 1.0, TS)
    w, y0 = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), (net.weights(), net.y0()))
    tol = jnp.asarray(1e-8)
    return np.asarray(jax.jit(exact)(y0, w, tol)), flat(jax.jit(jax.grad(loss_of(exact)))(w, y0, tol))


def jax_contestants(net: Network) -> dict[str, Callable]:
    ts = TS.astype(np.float32)
    many = {"max_steps": 4096}
    return {
        "ours": solvers.ours(mlp, "Tsit5", 1.0, ts),
        "diffrax": solvers.diffrax(mlp, "Tsit5", 1.0, ts),
        "ours, all kept": solvers.ours(mlp, "Tsit5", 1.0, ts, gradient=jde.ReverseAD(memory="all"), **many),
    }


def torch_contestants(net: Network) -> dict[str, tuple[Callable, Callable]]:
    """name ↦ (tol ↦ ys, tol ↦ gradient); none when torch or torchdiffeq is not installed."""
    try:
        import torch
        import torchdiffeq
    except ImportError:
        return {}
    layers: list = []
    for w, b in net.weights():
        layer = torch.nn.Linear(*w.shape)
        layer.weight.data, layer.bias.data = torch.tensor(w.T.copy()), torch.tensor(b)
        layers += [layer, torch.nn.Tanh()]
    model = torch.nn.Sequential(*layers[:-1])

    class VectorField(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, t, y):
            return self.model(y)

    field, y0, ts = VectorField(), torch.tensor(net.y0()), torch.tensor(TS, dtype=torch.float32)

    def make(odeint):
        def ys(tol):
            return odeint(field, y0, ts, rtol=tol, atol=solvers.ATOL * tol, method="dopri5")

        def gradient(tol):
            model.zero_grad()
            (ys(tol) ** 2).mean().backward()
            grads = [p.grad.T if p.grad.ndim == 2 else p.grad for p in model.parameters()]
            return grads

        return ys, gradient

    return {"torchdiffeq": make(torchdiffeq.odeint), "torchdiffeq adjoint": make(torchdiffeq.odeint_adjoint)}


def contest(net: Network) -> dict:
    values, exact = references(net)
    w, y0 = jax.tree.map(jnp.asarray, (net.weights(), net.y0()))
    runs, errors, sizes = {}, {}, {}
    for name, run in jax_contestants(net).items():
        forward, _ = solvers.jitted(run, y0, w, jnp.float32(1e-3))

        def at(tol, forward=forward):
            return common.relative_error(forward(y0, w, jnp.float32(tol)), values)

        tol = jnp.float32(common.tolerance_for(at, TARGET, GRID, 7)[0])
        compiled, _ = solvers.jitted(jax.grad(loss_of(run)), w, y0, tol)
        errors[name] = common.relative_error(flat(compiled(w, y0, tol)), exact)
        runs[name] = lambda compiled=compiled, tol=tol: compiled(w, y0, tol)
        sizes[name] = common.loop_size(compiled)
    for name, (ys, gradient) in torch_contestants(net).items():

        def at(tol, ys=ys):
            return common.relative_error(ys(tol).detach().numpy(), values)

        tol = common.tolerance_for(at, TARGET, GRID, 7)[0]
        errors[name] = common.relative_error(np.concatenate([g.numpy().ravel() for g in gradient(tol)]), exact)
        runs[name] = lambda gradient=gradient, tol=tol: gradient(tol)
    seconds = common.interleaved(runs, 15 if net.batch is None else 7)
    mid, share = common.medians(seconds), common.ratio(seconds, "ours", "diffrax")
    torch_share = common.ratio(seconds, "ours", "torchdiffeq") if "torchdiffeq" in runs else None
    print(net.name, sizes)
    return {
        "network": net.name,
        **{f"{name} ms": mid[name] * 1e3 for name in runs},
        **{f"{name} error": errors[name] for name in ("ours", "diffrax", "torchdiffeq") if name in errors},
        "ours / diffrax": share,
        "≤ 0.9": common.verdict(share, 0.9),
        "ours / torchdiffeq": torch_share,
        "≤ 0.5": None if torch_share is None else common.verdict(torch_share, 0.5),
    }


def gradient_over_forward(net: Network) -> dict:
    """100 equal Tsit5 steps, through the scan and through the loop with its log."""
    w, y0 = jax.tree.map(jnp.asarray, (net.weights(), net.y0()))
    problem = jde.ODEProblem(mlp, y0, (0.0, 1.0), w)
    controls = {"FixedSteps(100)": jde.FixedSteps(100), "FixedSteps(dt=0.01)": jde.FixedSteps(dt=np.float32(0.01))}
    runs = {}
    for name, control in controls.items():
        options = {"controller": control, "saveat": jde.SaveAt(t1=True)}

        def loss(w, options=options):
            return jnp.mean(jde.solve(problem, jde.Tsit5(), args=w, **options).ys ** 2)

        _, runs[f"{name} forward"] = solvers.jitted(loss, w)
        _, runs[f"{name} gradient"] = solvers.jitted(jax.grad(loss), w)
    seconds = common.interleaved(runs, 7)
    mid = common.medians(seconds)
    row = {"network": net.name}
    for name in controls:
        share = common.ratio(seconds, f"{name} gradient", f"{name} forward")
        row |= {f"{name} forward ms": mid[f"{name} forward"] * 1e3, f"{name} gradient / forward": share}
        row |= {f"{name} ≤ 4": common.verdict(share, 4)}
    return row


def main() -> None:
    only = sys.argv[1] if len(sys.argv) > 1 else ""
    second = common.gather(gradient_over_forward(net) for net in NETWORKS[-1:] if net.name.startswith(only))
    rows = common.gather(contest(net) for net in NETWORKS if net.name.startswith(only))
    notes = ["`ReverseAD` gradient time over forward time, 100 Tsit5 steps:", common.markdown(second)] if second else []
    common.report("neural_ode", "Gradients of neural ODEs, float32", rows, notes)
    groups = {r["network"]: {k[:-3]: v * 1e-3 for k, v in r.items() if k.endswith(" ms")} for r in rows}
    common.bars("neural_ode", "Gradients of neural ODEs, float32", groups)


if __name__ == "__main__":
    main()
