"""Every cell of the table of estimators: what serves agrees with a closed form, and what does not says so."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiffeq as jde
from jaxdiffeq.gradients import estimators as table
from jaxdiffeq.jumps import Pathwise

KEY, END, T = jax.random.key(0), jde.SaveAt(t1=True), 1.5
P = {"rate": jnp.array(3.0), "size": jnp.array(0.5), "k": jnp.array(0.8)}
KINDS = {kind.__name__: kind for kind in table.ESTIMATORS}
JUMP = jde.ConstantRateJump(lambda t, y, p: p["rate"], lambda t, y, p: y.at[0].add(p["size"]))
UNBOUND = jde.VariableRateJump(lambda t, y, p: p["rate"], lambda t, y, p: y.at[0].add(p["size"]))
decays = lambda t, y, p: jnp.stack([-p["k"] * y[0], y[0]])
BASES = {  # of y and ∫y dt, from (1, 0)
    "ODEProblem": jde.ODEProblem(decays, jnp.array([1.0, 0.0]), (0.0, T), P),
    "DDEProblem": jde.DDEProblem(
        lambda t, y, h, p: jnp.stack([-p["k"] * h(t - 1.0)[0], y[0]]),
        jnp.array([1.0, 0.0]),
        (0.0, T),
        P,
        history=lambda s, p: jnp.array([1.0, 0.0]),
        lags=[1.0],
    ),
    "SDEProblem": jde.SDEProblem(
        lambda t, y, p: jnp.stack([0 * y[0], y[0]]),
        lambda t, y, p: jnp.stack([0.1 * p["k"], 0 * p["k"]]),
        jnp.array([1.0, 0.0]),
        (0.0, T),
        P,
        noise="additive",
        interpretation="stratonovich",
    ),
}
HOW = {"ODEProblem": (jde.Tsit5(), {}), "DDEProblem": (jde.Tsit5(), {}), "SDEProblem": (jde.StochasticHeun(), {})}
HOW["SDEProblem"][1]["controller"] = jde.FixedSteps(6)  # exact for these means


def mean(base, p):
    """E y and E ∫y dt at the end."""
    k, flow = p["k"], p["rate"] * p["size"]
    if base == "ODEProblem":
        left = jnp.exp(-k * T)
        y = left + flow / k * (1 - left)
        return jnp.stack([y, (1 - y) / k + flow / k * T])
    if base == "SDEProblem":
        return jnp.stack([1 + flow * T, T + flow * T**2 / 2])
    moves = flow - k  # until t = 1, and from then on y′ = flow − k·(1 + moves·(t − 1))
    y = lambda s: 1 + moves + (flow - k) * s - k * moves * s**2 / 2
    of_y = lambda s: s * (1 + moves) + (flow - k) * s**2 / 2 - k * moves * s**3 / 6
    return jnp.stack([y(T - 1), 1 + moves / 2 + of_y(T - 1)])


def discrete(jump=None):
    jump = jump or jde.MassActionJumps(lambda p: jnp.stack([p["rate"]]), [[0]], [[1]])
    return jde.JumpProblem(jde.DiscreteProblem(jnp.array([4.0]), (0.0, 1.0), P), jump, key=KEY)


def first(sol):
    return sol.y_end[0]


def expected(gradient, problem=None, method=None, p=P, paths=3, **options):
    problem = discrete() if problem is None else problem
    return jde.expectation(first, problem, method, args=p, paths=paths, saveat=END, gradient=gradient, **options)


def agrees(found, wanted):
    """Of batches, within four standard errors."""
    found, wanted = np.asarray(found), np.asarray(wanted)
    error = found.std(0, ddof=1) / np.sqrt(len(found))
    assert (np.abs(found.mean(0) - wanted) <= 4 * error + 1e-5 * np.abs(wanted)).all(), (found.mean(0), wanted, error)


def in_batches(derivative, of):
    keys = jax.random.split(jax.random.key(7), 16)
    return jax.jit(jax.vmap(lambda key: derivative(lambda p: of(p, key))(P)))(keys)


def over(base, kind, jump: Any = JUMP):
    """The derivative of both expectations, in batches."""
    method, options = HOW[base]
    problem = jde.JumpProblem(BASES[base], jump, key=KEY)

    def of(p, key):
        given = {"args": p, "key": key, "paths": 25, "saveat": END, "gradient": kind(), **options}
        return jde.expectation(lambda sol: sol.y_end, problem, method, **given)

    return in_batches(jax.jacfwd, of)


OVER = "sizes, {}"
MARKS = {"DDEProblem": pytest.mark.slow}
SERVED = [
    pytest.param(name, base, marks=MARKS.get(base, ()))
    for name in KINDS
    for base in BASES
    if table.cell(KINDS[name], OVER.format(base)) != "no"
]


@pytest.mark.parametrize(("name", "base"), SERVED)
def test_over_an_equation(name, base):
    """By scores everything; by the path sizes and the equation, and rates of what is an integral over time."""
    found, wanted = over(base, KINDS[name]), jax.jacrev(lambda p: mean(base, p))(P)
    cells = {what: table.cell(KINDS[name], f"{what}, {base}") for what in ("rates", "sizes")}
    assert cells == {"rates": "unbiased" if name == "ScoreFunction" else "∫ over time", "sizes": "unbiased"}
    for at in ("size", "k"):
        agrees(found[at], wanted[at])
    agrees(found["rate"][:, 1], wanted["rate"][1])
    if name == "ScoreFunction":
        agrees(found["rate"][:, 0], wanted["rate"][0])


def test_rates_without_a_bound():
    assert table.cell(Pathwise, table.UNBOUNDED) == "∫ over time"
    found, wanted = over("ODEProblem", Pathwise, UNBOUND), jax.jacrev(lambda p: mean("ODEProblem", p))(P)
    agrees(found["rate"][:, 1], wanted["rate"][1])
    agrees(found["size"], wanted["size"])


def test_second_derivatives_of_paths():
    problem = jde.JumpProblem(BASES["ODEProblem"], JUMP, key=KEY)
    of = lambda p, key: expected(Pathwise(), problem, jde.Tsit5(), p, paths=25, key=key)
    found = in_batches(lambda f: jax.jacfwd(jax.jacfwd(f)), of)
    wanted = jax.hessian(lambda p: mean("ODEProblem", p)[0])(P)
    agrees(found["k"]["k"], wanted["k"]["k"])
    agrees(found["k"]["size"], wanted["k"]["size"])


def test_the_bias_of_differences():
    """That of the central difference of the expectation, whatever the number of paths."""
    step = 0.8
    of = lambda k: jnp.exp(-k)
    problem = discrete(jde.MassActionJumps(lambda p: jnp.stack([p["k"]]), [[1]], [[-1]]))
    estimate = lambda p, key: expected(jde.CoupledFiniteDifferences(step), problem, p=p, paths=100, key=key)
    found, k = in_batches(jax.grad, estimate)["k"], P["k"]
    wanted = 4 * (of(k * (1 + step)) - of(k * (1 - step))) / (2 * k * step)
    agrees(found, wanted)
    with pytest.raises(AssertionError):
        agrees(found, 4 * jax.grad(of)(k))


def slope(kind, problem, method=None):
    return jax.jit(jax.grad(lambda p: expected(kind(), problem, method, p)))(P)


def asked(kind, what):
    """What a cell is about, of this estimator."""
    moved = jde.ConstantRateJump(lambda t, x, p: p["rate"], lambda t, x, p: x + p["size"])
    ode = BASES["ODEProblem"]
    if what == table.RATES:
        return slope(kind, discrete())
    if what == table.AFFECTS:
        return slope(kind, discrete(moved))
    if what == table.LEAPS:
        return slope(kind, discrete(), jde.TauLeaping())
    if what in table.OVER:
        return slope(kind, jde.JumpProblem(BASES[what.split()[-1]], JUMP, key=KEY))
    if what == table.UNBOUNDED:
        return slope(kind, jde.JumpProblem(ode, UNBOUND, key=KEY))
    if what == table.SECOND:
        return jax.jit(jax.hessian(lambda p: expected(kind(), p=p)))(P)
    if what == table.EQUATION:
        return jde.solve(ode, gradient=kind())
    assert what == table.ONE_PATH
    return jde.solve(jde.JumpProblem(ode, JUMP, key=KEY), jde.Tsit5(), gradient=kind())


REFUSED = [(name, what) for name, kind in KINDS.items() for what in table.OF_JUMPS if table.cell(kind, what) == "no"]


@pytest.mark.parametrize(("name", "what"), REFUSED)
def test_what_is_refused(name, what):
    with pytest.raises(NotImplementedError) as caught:
        asked(KINDS[name], what)
    assert str(caught.value).startswith(f"{name} does not serve ")
    assert table.refusal(KINDS[name], what) in str(caught.value)


@pytest.mark.parametrize("name", KINDS)
def test_a_path_that_stands_still_has_no_estimator_in_solve(name):
    with pytest.raises(NotImplementedError, match=f"{name} does not serve"):
        jde.solve(discrete(), gradient=KINDS[name]())
    with pytest.raises(NotImplementedError, match=f"{name} does not serve problems without jumps"):
        jde.solve(jde.SteadyStateProblem(lambda y, p: 1 - y, jnp.array([3.0])), gradient=KINDS[name]())


@pytest.mark.parametrize("name", ["ScoreFunction", "CoupledFiniteDifferences", "SmoothedPerturbation"])
def test_what_starts_somewhere_else_is_refused(name):
    with pytest.raises(NotImplementedError, match=f"{name} does not serve what x0"):
        jax.grad(lambda x: expected(KINDS[name](), discrete().replace(x0=x)))(jnp.array([4.0]))


def test_second_derivatives_by_scores_over_an_equation_are_refused():
    """Of a loss of its own parameter too: no mixed derivative is half of what it should be."""
    problem = jde.JumpProblem(BASES["ODEProblem"], JUMP, key=KEY)
    of = lambda p: p["k"] * expected(jde.ScoreFunction(), problem, jde.Tsit5(), {**P, "rate": p["rate"]})
    with pytest.raises(NotImplementedError, match="ScoreFunction does not serve second derivatives"):
        jax.jit(jax.jacfwd(jax.jacfwd(of)))(P)
