"""Derivatives of expectations over paths that jump: what estimates them, without which bias, and what each refuses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jaxdiffeq import errors
from jaxdiffeq.gradients.reverse import ReverseAD

DISCRETE = ReverseAD()


@dataclass(frozen=True)
class ScoreFunction:
    """E[(L − b)·∂ log p/∂θ]: the likelihood-ratio estimator. Unbiased; its variance grows with the number of jumps.

    `baseline` b is "mean", of the other paths, which leaves it unbiased, a number, or None for 0. What the loss itself
    depends on is differentiated too. Over an equation, every decision of a thinning is scored and the path in between
    is differentiated by `strategy`, which together is unbiased for sizes, rates and the equation.
    Serves parameters of rates, discrete paths exactly; a state or an affect that depends on them raises.
    """

    baseline: Any = "mean"
    strategy: Any = DISCRETE


@dataclass(frozen=True)
class CoupledFiniteDifferences:
    """(E L(θ + h) − E L(θ − h))/2h over coupled paths. Biased by O(h²); its variance grows with 1/h, for smooth L less.

    h is `step`·|θ|, or `step` where θ is zero. `coupling` is "split": both jump together as often as they can; or
    "common path": each reaction has the same unit-rate clock in both. It takes 2 paths for each number in θ.
    Source: Anderson, SIAM J. Numer. Anal. 50 (2012) 2237; Rathinam et al., J. Chem. Phys. 132 (2010) 034103.
    """

    step: float = 0.05
    coupling: str = "split"

    def __post_init__(self) -> None:
        errors.one_of(self.coupling, "coupling", ("split", "common path"))


@dataclass(frozen=True)
class SmoothedPerturbation:
    """E ∫∑ᵣ ∂aᵣ/∂θ·(L with one more jump r then − L) dt: conditional on the hazards. Unbiased, of moderate variance.

    The time is drawn, and the jump by its propensity; with and without it, both go on together as often as they can.
    It takes 2 paths whatever the number of parameters.
    Source: Gupta, Khammash, J. Chem. Phys. 140 (2014) 234112; Gong, Ho, IEEE Trans. Autom. Control 32 (1987) 858.
    """


@dataclass(frozen=True)
class Pathwise:
    """The derivative of the path itself, by `strategy`: valid where no jump is caused or avoided by what changes.

    Times, sizes and what lies between jumps are differentiated, at a fixed number and order of jumps. That is the
    derivative of an expectation if the loss is continuous when jumps pass each other or the end of the solve: unbiased
    for jump sizes and the equation in between, as of a Merton model; for rates only of such as ∫y dt, not of a count.
    """

    strategy: Any = DISCRETE


ESTIMATORS: dict[type, tuple[str, str, str]] = {  # what it is, good for, paths
    ScoreFunction: ("the mean of losses times scores", "rates, sizes and the equation at once", "1"),
    SmoothedPerturbation: (
        "the mean of what one more jump would change, conditional on the hazards",
        "many rates of a `DiscreteProblem`",
        "2",
    ),
    CoupledFiniteDifferences: (
        "differences of paths that share their randomness",
        "few rates of a `DiscreteProblem`, with the smallest variance",
        "2 a parameter",
    ),
    Pathwise: (
        "the derivative of each path, at its number and order of jumps",
        "sizes of jumps and the equation between them; also `solve(…, gradient=Pathwise())`",
        "1",
    ),
}
BASES = "ODEProblem", "DDEProblem", "SDEProblem"
RATES, AFFECTS, LEAPS = "rates of a DiscreteProblem", "x0 and affects of a DiscreteProblem", "leaps"
OVER = tuple(f"{what}, {base}" for base in BASES for what in ("rates", "sizes"))
UNBOUNDED, ONE_PATH, SECOND, EQUATION = "rates without a bound", "solve", "hessian", "a problem without jumps"
OF_JUMPS = (RATES, AFFECTS, LEAPS, *OVER, UNBOUNDED, ONE_PATH, SECOND, EQUATION)

STEPS = (
    "{name} does not serve a DiscreteProblem, whose paths are step functions. Take ScoreFunction(), "
    "SmoothedPerturbation() or CoupledFiniteDifferences()."
)
COUPLES = (
    "{name} does not serve jumps over an equation: it couples paths of a DiscreteProblem jump by jump. Take "
    "ScoreFunction(), with a bound of every rate, or Pathwise()."
)
MOVED = (
    "{name} does not serve what x0 or an affect of a DiscreteProblem depends on, which changes states and not only "
    "how likely they are. Over an ODEProblem that stands still ScoreFunction() and Pathwise() serve it; or take "
    "jax.lax.stop_gradient in the affect, if no derivative of it is wanted."
)
MANY_JUMPS = "{name} does not serve leaps, in which nobody knows the jumps. Take SSA() or NextReaction()."
NO_BOUND = (
    "{name} does not serve a VariableRateJump without a `bound`: it differentiates the probability of proposals that "
    "are taken or left, which only thinning makes. Give a bound; or Pathwise(), if no jump is caused or avoided."
)
EXPECTS = (
    "{name} does not serve `solve`: it estimates derivatives of expectations over paths that jump, and not of one "
    "path. Take jaxdiffeq.expectation(loss, problem, gradient={name}())."
)
TWICE = (
    "{name} does not serve second derivatives: it estimates the first one alone. Difference jax.grad of "
    "jaxdiffeq.expectation, with the same key."
)
NO_JUMPS = "{name} does not serve problems without jumps, whose solution has a derivative. Take gradient=ReverseAD()."
OF_PAIRS = SmoothedPerturbation, CoupledFiniteDifferences
REFUSED: dict[tuple[type, str], str] = {
    (Pathwise, RATES): STEPS,
    **{(kind, AFFECTS): MOVED for kind in ESTIMATORS},
    **{(kind, LEAPS): MANY_JUMPS for kind in ESTIMATORS},
    **{(Pathwise, what): STEPS for what in (AFFECTS, LEAPS)},
    **{(kind, what): COUPLES for kind in OF_PAIRS for what in (*OVER, UNBOUNDED)},
    (ScoreFunction, UNBOUNDED): NO_BOUND,
    **{(kind, ONE_PATH): EXPECTS for kind in ESTIMATORS if kind is not Pathwise},
    **{(kind, SECOND): TWICE for kind in ESTIMATORS if kind is not Pathwise},
    **{(kind, EQUATION): NO_JUMPS for kind in ESTIMATORS},
}
BIASED: dict[tuple[type, str], str] = {
    (CoupledFiniteDifferences, RATES): "O(step²)",
    **{(Pathwise, what): "∫ over time" for what in (*OVER[::2], UNBOUNDED)},
    (Pathwise, ONE_PATH): "of that path",
    (Pathwise, SECOND): "as the first",
}


def cell(kind: type, what: str) -> str:
    """Of the table: "unbiased", how far it is not or of which losses it is, or "no", which raises."""
    assert kind in ESTIMATORS, kind
    assert what in OF_JUMPS, what
    return "no" if (kind, what) in REFUSED else BIASED.get((kind, what), "unbiased")


def refusal(kind: type, what: str) -> str:
    """The error's text of a cell that is "no"."""
    return REFUSED[kind, what].format(name=kind.__name__)


def refuse(gradient: Any, *asked: str) -> None:
    """One error, before anything is traced, if the estimator does not serve one of these."""
    for what in asked:
        if (type(gradient), what) in REFUSED:
            errors.unsupported(refusal(type(gradient), what))


def is_estimator(gradient: Any) -> bool:
    return type(gradient) in ESTIMATORS


def check(gradient: Any) -> None:
    """One error if that is none of them."""
    if not is_estimator(gradient):
        names = ", ".join(f"{kind.__name__}()" for kind in ESTIMATORS)
        raise TypeError(f"The derivative of an expectation is estimated by {names}, but `gradient` is {gradient!r}.")


def markdown() -> str:
    """The table of estimators, and one of what each serves."""
    first = [("`gradient=`", "what it is", "good for", "paths"), ("---",) * 4]
    first += [(f"`{kind.__name__}()`", *texts) for kind, texts in ESTIMATORS.items()]
    head = "", *(f"`{kind.__name__}`" for kind in ESTIMATORS)
    second = [head, ("---",) * len(head), *((what, *(cell(kind, what) for kind in ESTIMATORS)) for what in OF_JUMPS)]
    return "\n\n".join("\n".join(f"| {' | '.join(row)} |" for row in table) for table in (first, second))
