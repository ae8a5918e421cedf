"""Which gradient strategy serves what: the table that refuses, that the README prints, that the tests go through."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from jaxdiffeq import errors
from jaxdiffeq.gradients import estimators
from jaxdiffeq.gradients.adjoint import (
    CONTINUOUS,
    BacksolveAdjoint,
    GaussAdjoint,
    InterpolatingAdjoint,
    QuadratureAdjoint,
)
from jaxdiffeq.gradients.estimators import ESTIMATORS
from jaxdiffeq.gradients.forward import ForwardAD
from jaxdiffeq.gradients.reverse import ReverseAD
from jaxdiffeq.gradients.reversible import ONLY_EQUAL, ReversibleAdjoint
from jaxdiffeq.gradients.steady import SteadyStateAdjoint
from jaxdiffeq.primitives.linear_call import REVERSE_OVER_REVERSE

STRATEGIES: dict[type, tuple[str, str]] = {  # what it is, good for
    ReverseAD: (
        "the discrete adjoint of the steps taken, from a log of bounded size; the default",
        "training: the exact gradient of the computed solution",
    ),
    ForwardAD: ("forward sensitivities through the solver", "few parameters"),
    BacksolveAdjoint: (
        "solves backwards in time, as in the neural-ODE paper",
        "constant memory, *where the reversed equation is stable: often it is not*",
    ),
    InterpolatingAdjoint: ("continuous adjoint over the solution, recomputed from checkpoints", "large systems"),
    QuadratureAdjoint: (
        "the same, with the parameters' integral by adaptive quadrature",
        "a careful gradient of the true solution",
    ),
    GaussAdjoint: (
        "the same, with that integral by Gauss's rule step by step",
        "large systems with many parameters",
    ),
    ReversibleAdjoint: (
        "the discrete adjoint of `ReversibleHeun()` on equal steps, run backwards",
        "`SDEProblem` over many steps: exact, in constant memory",
    ),
}
STEADY = {
    SteadyStateAdjoint: (
        "the implicit function theorem at the root found, by whatever path",
        "`SteadyStateProblem`, whose default it is; it serves nothing else",
    ),
}
OPTIONS = (
    "ODEProblem",
    "mass_matrix",
    "DAEProblem",
    "DDEProblem",
    "SDEProblem",
    "ts",
    "steps",
    "t1",
    "fn",
    "dense",
    "stops",
    "FixedSteps",
    "regularisers",
    "events",
    "complex",
)
MODES = (
    *("grad", "jvp", "jacfwd", "jacrev", "vmap", "hessian"),
    *("forward over forward", "reverse over forward", "reverse over reverse"),
)

NO_DENSE = (
    "{name} does not serve dense=True: the polynomials between the steps depend on the stages of each step, which a "
    "continuous adjoint does not know. Give the times you want in `saveat`, or gradient=ReverseAD() or ForwardAD()."
)
NO_STEPS = (
    "{name} does not serve regularisers: they are sums over the steps that were taken, which a continuous adjoint does "
    "not know. Give gradient=ReverseAD() or ForwardAD()."
)
NO_RESIDUAL = (
    "{name} does not serve DAEProblem, nor a mass matrix that varies: their adjoint equations need d²y/dt², which a "
    "backward solve of y does not know. Give another gradient=, or, if M is constant, an ODEProblem with `mass_matrix`."
)
NO_EVENTS = (
    "{name} does not serve events: it solves for y backwards, and the state after an event does not tell that before "
    "it. Give gradient=InterpolatingAdjoint(), GaussAdjoint(), QuadratureAdjoint(), ReverseAD() or ForwardAD()."
)
NO_INFO = (
    "{name} does not serve events that ask for `info`: it is about the step that landed there, which a continuous "
    "adjoint does not know. Do without that parameter, or give gradient=ReverseAD() or ForwardAD()."
)
NO_INTEGRALS = (
    "{name} does not serve Integrate: it is a sum over the steps that were taken, which a continuous adjoint does not "
    "know. Make it a component of y, or give gradient=ReverseAD() or ForwardAD()."
)
NO_DELAYS = (
    "{name} does not serve DDEProblem: the adjoint equation of one with delays asks for the future, and its own "
    "breaking points. Give gradient=ReverseAD() or ForwardAD(), which serve lags and histories too."
)
NO_NOISE = (
    "{name} does not serve SDEProblem: between the steps, where it would ask for y(t), y is no polynomial but follows "
    "its Brownian path. Give gradient=ReverseAD(), ForwardAD() or, on equal steps, BacksolveAdjoint()."
)
ONLY_REVERSIBLE = (
    "{name} does not serve {what}: it takes back the steps of ReversibleHeun(), of an SDEProblem on equal steps "
    "without stops and events. Give gradient=ReverseAD()."
)
NO_DIRECTIONS = (
    "BacksolveAdjoint needs a method of Stratonovich's calculus whose noise is b·W and b·H in a step, to go back along "
    "a path, but method={method}. Give StochasticHeun(), StochasticMidpoint(), EulerHeun(), SPaRK() or SlowRK()."
)
NOT_REVERSIBLE = ("ODEProblem", "mass_matrix", "DAEProblem", "DDEProblem", "stops", "regularisers", "events")
UNSUPPORTED: dict[tuple[type, str], str] = {
    **{(strategy, "dense"): NO_DENSE for strategy in CONTINUOUS},
    **{(strategy, "regularisers"): NO_STEPS for strategy in CONTINUOUS},
    **{(strategy, "DDEProblem"): NO_DELAYS for strategy in CONTINUOUS},
    **{(strategy, "SDEProblem"): NO_NOISE for strategy in CONTINUOUS if strategy is not BacksolveAdjoint},
    **{(ReversibleAdjoint, what): ONLY_REVERSIBLE for what in NOT_REVERSIBLE},
    (BacksolveAdjoint, "DAEProblem"): NO_RESIDUAL,
    (BacksolveAdjoint, "events"): NO_EVENTS,
    **{(strategy, mode): REVERSE_OVER_REVERSE for strategy in STRATEGIES for mode in MODES[-2:]},
}


def serves(strategy: type, what: str) -> bool:
    """Whether a strategy serves an option or a mode of differentiation."""
    assert strategy in STRATEGIES, strategy
    assert what in (*OPTIONS, *MODES), what
    return (strategy, what) not in UNSUPPORTED


def check(
    strategy: Any,
    dense: bool,
    regularisers: Any,
    residual: bool,
    delays: bool = False,
    events: Any = (),
    noise: bool = False,
) -> None:
    """One error, before anything is traced, if the strategy does not serve these options, or a problem that is a
    residual or has delays.

    Modes of differentiation are not known here: they raise when JAX asks for them.
    """
    estimators.refuse(strategy, estimators.EQUATION)
    errors.strategy(strategy, [kind.__name__ for kind in STRATEGIES])
    kind = type(strategy)
    asked = {
        "dense": dense,
        "DAEProblem": residual,
        "DDEProblem": delays,
        "SDEProblem": noise,
        "ODEProblem": not (residual or delays or noise),
        "regularisers": regularisers,
        "events": events,
    }
    for what, given in asked.items():
        if given and (kind, what) in UNSUPPORTED:
            errors.unsupported(UNSUPPORTED[kind, what].format(name=kind.__name__, what=what))


def check_path(strategy: Any, noise: bool, equal: bool) -> None:
    """One error if the strategy needs equal steps, of an equation with noise, and has not got them."""
    if noise and not equal and isinstance(strategy, BacksolveAdjoint | ReversibleAdjoint):
        errors.unsupported(ONLY_EQUAL.format(name=type(strategy).__name__))


def along_path(strategy: Any, stepper: Any, otherwise: Any) -> Any:
    """The strategy for an equation with noise, with a method to go back along its path: that of the solve or another.

    One error if that cannot be.
    """
    if isinstance(strategy, ReversibleAdjoint) and not hasattr(stepper, "back"):
        errors.unsupported(ONLY_REVERSIBLE.format(name="ReversibleAdjoint", what=stepper))
    if not isinstance(strategy, BacksolveAdjoint):
        return strategy
    if strategy.method is None:
        return replace(strategy, method=stepper if stepper.directions else otherwise)
    if not getattr(strategy.method, "directions", 0):
        errors.unsupported(NO_DIRECTIONS.format(method=strategy.method))
    return strategy


def check_info(strategy: Any, asks: bool, integrates: bool = False) -> None:
    """One error if events ask for what the strategy does not know."""
    for asked, text in ((asks, NO_INFO), (integrates, NO_INTEGRALS)):
        if asked and isinstance(strategy, CONTINUOUS):
            errors.unsupported(text.format(name=type(strategy).__name__))


def check_steady(strategy: Any) -> None:
    """One error if the strategy does not serve steady states; the default of `solve` stands for theirs."""
    estimators.refuse(strategy, estimators.EQUATION)
    if type(strategy) not in (*STEADY, ReverseAD):
        errors.unsupported(f"{strategy!r} does not serve steady states. Take SteadyStateAdjoint().")


def rows() -> list[tuple[str, str, str]]:
    """Of the table of strategies: `gradient=`, what it is, good for."""
    of_jumps = {kind: (f"of `expectation`: {what}", why) for kind, (what, why, _) in ESTIMATORS.items()}
    return [(f"`{kind.__name__}()`", *texts) for kind, texts in (STRATEGIES | STEADY | of_jumps).items()]


def markdown() -> str:
    """The table of strategies, and one of what each serves, for the README."""
    first = [("`gradient=`", "what it is", "good for"), ("---",) * 3, *rows()]
    head = "", *(f"`{kind.__name__}`" for kind in STRATEGIES)
    marks = [(what, *("yes" if serves(kind, what) else "no" for kind in STRATEGIES)) for what in (*OPTIONS, *MODES)]
    second = [head, ("---",) * len(head), *marks]
    return "\n\n".join("\n".join(f"| {' | '.join(row)} |" for row in table) for table in (first, second))
