"""What to solve."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import equinox as eqx
import jax
import numpy as np

from jaxdiffeq import errors
from jaxdiffeq.algebra.structure import Sparse
from jaxdiffeq.noise.given import own_path
from jaxdiffeq.noise.kinds import NAMES
from jaxdiffeq.types import PyTree

Slope = Callable[[Any, PyTree, PyTree], PyTree]


def pattern(given: Any) -> Any:
    """A structure; that of a matrix of numbers, also one of `scipy.sparse`, is where these are not zero."""
    return Sparse.of(given) if hasattr(given, "tocsr") or np.ndim(given) == 2 else given


class Problem(eqx.Module):
    """What problems have in common."""

    def __new__(cls, *_: Any, **given: Any) -> Self:
        errors.known_fields(given, _fields(cls), cls.__name__)
        return super().__new__(cls)

    def replace(self, **changes: Any) -> Self:
        """The same problem with other fields: `problem.replace(args=p, tspan=(0, 20))`."""
        return replaced(self, changes)


class ODEProblem(Problem):
    """M·dy/dt = f(t, y, args), y(t₀) = y0, for t from tspan[0] to tspan[1], forwards or backwards.

    y0 is any pytree of real or complex numbers, and f returns one like it; args is any pytree, an `equinox` module
    included. `y0` may be a function (args, t0) ↦ y0 and `tspan` a function args ↦ (t0, t1): then the whole problem is a
    function of its parameters. Every array in a problem is a leaf that gradients flow to. A network as `y0` is a state,
    as of a gradient flow: f sees all of it, a solution its numbers, with None in place of functions.

    What f finds elsewhere, by its closure, its object or globals, is looked at in every eager call; not seen are numpy
    arrays over 64 KiB changed in place, attributes of modules and classes, and what a function under `jax.jit` of your
    own has closed over.

    What only implicit methods use: `mass_matrix` is M, perhaps singular: then this is a DAE, and what M·y0 leaves open
    of y0 is changed so that it satisfies the algebraic equations. A function (t, y, args) ↦ M serves the methods that
    solve a `DAEProblem`, `BDF()` and `KenCarp4()` among them. `jac(t, y, args)` is ∂f/∂y, found by forward
    differentiation when left out; `jac_structure` says where it may differ from zero: `Dense()`, `Diagonal()`,
    `Banded(lower, upper)`, `BlockDiagonal(size)` or `Sparse.of(pattern)`; `Detected()` finds that out from f,
    `MatrixFree()` does without.
    Shapes: M and ∂f/∂y are [n, n] for n numbers in y0, its leaves one after the other; or M is a pytree like y0, a
    diagonal.
    Errors: `TypeError` for an f that is not callable or takes other arguments, or whose parameters have names that say
    another order than (t, y, args), unless `check_names` is false; the rest is checked by `solve`.
    """

    f: Slope
    y0: PyTree
    tspan: Any
    args: PyTree = None
    _: dataclasses.KW_ONLY
    mass_matrix: PyTree = None
    jac: Callable[[Any, PyTree, PyTree], Any] | None = None
    jac_structure: Any = None
    check_names: bool = eqx.field(default=True, static=True)

    def __post_init__(self) -> None:
        if self.jac_structure is not None:
            self.jac_structure = pattern(self.jac_structure)
        errors.callable_with(self.f, "f", ("t", "y", "args"), self.check_names)
        if callable(self.mass_matrix):
            errors.callable_with(self.mass_matrix, "mass_matrix", ("t", "y", "args"), self.check_names)
        errors.hints(self.jac, self.jac_structure, ("t", "y", "args"), self.check_names)


class SplitODEProblem(Problem):
    """dy/dt = f_implicit(t, y, args) + f_explicit(t, y, args): a stiff term and one that is not.

    IMEX methods treat each in its way; every other method solves for the sum. The rest is as in `ODEProblem`; `jac` and
    `jac_structure` are those of `f_implicit`, for a method that is implicit throughout they are left aside.
    """

    f_implicit: Slope
    f_explicit: Slope
    y0: PyTree
    tspan: Any
    args: PyTree = None
    _: dataclasses.KW_ONLY
    jac: Callable[[Any, PyTree, PyTree], Any] | None = None
    jac_structure: Any = None
    check_names: bool = eqx.field(default=True, static=True)

    def __post_init__(self) -> None:
        if self.jac_structure is not None:
            self.jac_structure = pattern(self.jac_structure)
        errors.callable_with(self.f_implicit, "f_implicit", ("t", "y", "args"), self.check_names)
        errors.callable_with(self.f_explicit, "f_explicit", ("t", "y", "args"), self.check_names)
        errors.hints(self.jac, self.jac_structure, ("t", "y", "args"), self.check_names)


class DAEProblem(Problem):
    """F(t, y, dy/dt, args) = 0, y(t₀) = y0: `residual` is F, of index 1.

    y0 is any pytree of real or complex numbers, or a function (args, t0) ↦ y0; the residual returns one like it. Before
    the first step, y0 is made consistent: what the equation determines of dy/dt is found from the guess `dy0` (zero
    when left out), the rest of y from the equation; the other components of y0 stay. `jac_structure` says where
    ∂F/∂y or ∂F/∂(dy/dt) may differ from zero; the rest is as in `ODEProblem`.
    Errors: as for `ODEProblem`; a y0 that cannot be made consistent ends the solve with `initialisation_failed`.
    """

    residual: Callable[[Any, PyTree, PyTree, PyTree], PyTree]
    y0: PyTree
    dy0: PyTree
    tspan: Any
    args: PyTree = None
    _: dataclasses.KW_ONLY
    jac_structure: Any = None
    check_names: bool = eqx.field(default=True, static=True)

    def __post_init__(self) -> None:
        if self.jac_structure is not None:
            self.jac_structure = pattern(self.jac_structure)
        errors.callable_with(self.residual, "residual", ("t", "y", "dy", "args"), self.check_names)
        errors.hints(None, self.jac_structure)


class DDEProblem(Problem):
    """dy/dt = f(t, y, h, args), y(t₀) = y0, where `h(s)` is the state at a time s ≤ t: an equation with delays.

    Before t₀ it is `history(s, args)`, or numbers like y0 if it was constant; `h(s, derivative=True)` is its slope, for
    `neutral` equations; s may be an array, as of the nodes of a quadrature. y0 may differ from the history at t₀.

    `lags` are the constant delays: numbers, or a function args ↦ numbers; they are leaves that gradients flow to. The
    solve lands where they carry what is not smooth at t₀, and takes no step longer than the shortest. `dependent_lags`
    are functions (t, y, args) ↦ τ, for delays that vary; these may vanish. If no lag is given, every step makes sure
    that it has not asked for more of the past than there was.

    `mass_matrix` is M of M·dy/dt = f, a matrix or a diagonal, perhaps singular; the rest is as in `ODEProblem`.
    Units: lags are in the unit of t, and positive; a solve goes forwards in time.
    Errors: as for `ODEProblem`; what the bounded memory of the past has let go is `history_too_short`.
    """

    f: Callable[[Any, PyTree, Callable, PyTree], PyTree]
    y0: PyTree
    tspan: Any
    args: PyTree = None
    _: dataclasses.KW_ONLY
    history: Any
    lags: Any = ()
    dependent_lags: Any = ()
    neutral: bool = eqx.field(default=False, static=True)
    mass_matrix: PyTree = None
    jac_structure: Any = None
    check_names: bool = eqx.field(default=True, static=True)

    def __post_init__(self) -> None:
        if self.jac_structure is not None:
            self.jac_structure = pattern(self.jac_structure)
        errors.callable_with(self.f, "f", ("t", "y", "h", "args"), self.check_names)
        self.dependent_lags = _past_checked(self)


def _past_checked(problem: Any) -> tuple:
    """The lags that vary, each a function."""
    varying = (problem.dependent_lags,) if callable(problem.dependent_lags) else problem.dependent_lags
    if is_function(problem.history):
        errors.callable_with(problem.history, "history", ("s", "args"), problem.check_names)
    for lag in varying:
        errors.callable_with(lag, "dependent_lags", ("t", "y", "args"), problem.check_names)
    return varying


class SDEProblem(Problem):
    """dy = drift(t, y, args) dt + diffusion(t, y, args) dW, y(t₀) = y0, where W is a Brownian motion made from `key`.

    `noise` says how W enters. "diagonal": every number of y has its own, and `diffusion` returns something like y;
    "scalar": one for all, likewise; "general": m of them, and `diffusion` has a last axis more, (n, m) for n numbers;
    "commutative": the same, with Σ b^{ij}∂b^k/∂yᵢ = Σ b^{ik}∂b^j/∂yᵢ for any two columns; "additive": like y or with
    that axis, and independent of y. `interpretation` is "ito" or "stratonovich"; for additive noise they are one. A
    method of the other calculus is refused, or with `convert` the drift corrected by ∓½ Σ (∂bʲ/∂y)·bʲ.

    One key is one path, whatever the tolerance: `jax.vmap(lambda key: solve(problem, key=key))(keys)` is an ensemble.
    Equal steps draw by the number of the step, other steps from a tree over the span; `brownian="tree"` says so for
    equal steps too, and is a path of your own otherwise: a function t ↦ W(t), an array of its increments over equal
    steps, or a `BrownianPath`, `BrownianIncrements` or `BrownianTree`.
    y0, args, tspan and gradients are as in `ODEProblem`; a solve goes forwards in time.
    Errors: as for `ODEProblem`; a diffusion of another shape says what came and what was expected.
    """

    drift: Callable[..., PyTree]
    diffusion: Callable[..., PyTree]
    y0: PyTree
    tspan: Any
    args: PyTree = None
    _: dataclasses.KW_ONLY
    key: Any = None
    noise: str = eqx.field(default="diagonal", static=True)
    interpretation: str = eqx.field(default="ito", static=True)
    brownian: Any = None
    convert: bool = eqx.field(default=False, static=True)
    jac_structure: Any = None
    check_names: bool = eqx.field(default=True, static=True)

    def __post_init__(self) -> None:
        if self.jac_structure is not None:
            self.jac_structure = pattern(self.jac_structure)
        errors.one_of(self.noise, "noise", NAMES)
        errors.one_of(self.interpretation, "interpretation", ("ito", "stratonovich"))
        errors.callable_with(self.drift, "drift", ("t", "y", "args"), self.check_names)
        errors.callable_with(self.diffusion, "diffusion", ("t", "y", "args"), self.check_names)


class SDDEProblem(SDEProblem):
    """dy = drift(t, y, h, args) dt + diffusion(t, y, h, args) dW, where `h(s)` is the state at a time s ≤ t.

    The past and its delays are as in `DDEProblem`, the noise as in `SDEProblem`. Between the ends of steps the past is
    a straight line: exact at steps if the lags are multiples of equal steps, else of strong order 1/2. The solve lands
    on the times to save at.
    """

    history: Any = None
    lags: Any = ()
    dependent_lags: Any = ()

    def __post_init__(self) -> None:
        errors.one_of(self.noise, "noise", NAMES)
        errors.one_of(self.interpretation, "interpretation", ("ito", "stratonovich"))
        errors.callable_with(self.drift, "drift", ("t", "y", "h", "args"), self.check_names)
        errors.callable_with(self.diffusion, "diffusion", ("t", "y", "h", "args"), self.check_names)
        self.dependent_lags = _past_checked(self)


class SteadyStateProblem(Problem):
    """f(y, args) = 0, from the guess y0: a state at which dy/dt = f(y, args) rests.

    y0 is any pytree of real or complex numbers, and f returns one like it; `jac(y, args)` and `jac_structure` are as in
    `ODEProblem`. A solution has the state as `ys`, and gradients by the implicit function theorem.

    Totals that f conserves, as a closed network of reactions does, keep the values that they have in y0. Of several
    roots `root="nearest"` finds one by Newton's method, mostly one near y0, stable or not; `root="flow"` the one that
    dy/dt = f(y, args) reaches from y0, which takes about five times the steps.
    Errors: `TypeError` for an f that is not callable or takes other arguments; the rest is checked by `solve`.
    """

    f: Callable[[PyTree, PyTree], PyTree]
    y0: PyTree
    args: PyTree = None
    _: dataclasses.KW_ONLY
    jac: Callable[[PyTree, PyTree], Any] | None = None
    jac_structure: Any = None
    root: str = eqx.field(default="nearest", static=True)
    check_names: bool = eqx.field(default=True, static=True)

    def __post_init__(self) -> None:
        errors.one_of(self.root, "root", ("nearest", "flow"))
        if self.jac_structure is not None:
            self.jac_structure = pattern(self.jac_structure)
        errors.callable_with(self.f, "f", ("y", "args"), self.check_names)
        errors.hints(self.jac, self.jac_structure, ("y", "args"), self.check_names)


def _fields(kind: type) -> list[str]:
    return [name for name in getattr(kind, "__dataclass_fields__", ()) if name != "_"]


def replaced(problem: Any, changes: dict[str, Any], options: Sequence[str] = ()) -> Any:
    """The problem with other fields; `options` are what else might have been meant."""
    if not isinstance(problem, Problem):
        errors.problem(problem)
    names = _fields(type(problem))
    errors.known_fields(changes, names, type(problem).__name__, options)
    return type(problem)(**{**{name: getattr(problem, name) for name in names}, **changes})


class Delays(NamedTuple):
    """What makes an equation one with delays."""

    history: Any
    lags: PyTree
    dependent_lags: tuple
    neutral: bool


class Noise(NamedTuple):
    """What makes an equation one with noise: see `SDEProblem`."""

    diffusion: Slope | None
    name: str
    interpretation: str
    key: Any
    brownian: Any
    convert: bool
    langevin: Any = None
    """args ↦ friction and inverse mass, in place of a diffusion: then f is a force"""


class Terms(NamedTuple):
    """A problem as the solver takes it: M·dy/dt = f(t, y, args) + explicit(t, y, args) from y0 at t0 to t1.

    Or, without f, residual(t, y, dy/dt, args) = 0.
    """

    f: Slope | None
    args: PyTree
    y0: PyTree
    t0: Any
    t1: Any
    explicit: Slope | None = None
    mass: PyTree = None
    jac: Callable[[Any, PyTree, PyTree], Any] | None = None
    structure: Any = None
    residual: Callable[[Any, PyTree, PyTree, PyTree], PyTree] | None = None
    dy0: PyTree = None
    on_whole: Callable[[Any], Any] | None = None
    """what makes of a function of the state as it was given, functions in it included, one of `y0`"""

    delays: Delays | None = None
    noise: Noise | None = None

    @property
    def is_residual(self) -> bool:
        """Whether dy/dt has to be solved for, by methods that can."""
        return self.residual is not None or callable(self.mass)


@functools.singledispatch
def terms_of(problem: Any) -> Terms:
    """The problem in terms of a field and an initial state; one rule for each kind of problem."""
    errors.problem(problem)
    raise AssertionError


@terms_of.register
def _(problem: ODEProblem) -> Terms:
    # not by attribute: on an equinox module each one costs tens of microseconds
    fields = object.__getattribute__(problem, "__dict__")
    extra = {"mass": fields["mass_matrix"], "jac": fields["jac"], "structure": fields["jac_structure"]}
    return _terms(fields, fields["f"], **extra)


@terms_of.register
def _(problem: SplitODEProblem) -> Terms:
    fields = object.__getattribute__(problem, "__dict__")
    extra = {"explicit": fields["f_explicit"], "jac": fields["jac"], "structure": fields["jac_structure"]}
    return _terms(fields, fields["f_implicit"], **extra)


@terms_of.register
def _(problem: DAEProblem) -> Terms:
    fields = object.__getattribute__(problem, "__dict__")
    extra = {"residual": fields["residual"], "dy0": fields["dy0"], "structure": fields["jac_structure"]}
    return _terms(fields, None, **extra)


@terms_of.register
def _(problem: DDEProblem) -> Terms:
    fields = object.__getattribute__(problem, "__dict__")
    extra = {"mass": fields["mass_matrix"], "structure": fields["jac_structure"]}
    return _terms(fields, fields["f"], **extra, delays=_delays(fields, fields["neutral"]))


def _delays(fields: dict[str, Any], neutral: bool) -> Delays:
    lags = fields["lags"](fields["args"]) if callable(fields["lags"]) else fields["lags"]
    return Delays(fields["history"], lags, tuple(fields["dependent_lags"]), neutral)


@terms_of.register
def _(problem: SDEProblem) -> Terms:
    fields = object.__getattribute__(problem, "__dict__")
    names = "diffusion", "noise", "interpretation", "key", "brownian", "convert"
    noise = Noise(*(fields[name] for name in names))
    noise = noise._replace(brownian=own_path(noise.brownian))
    delays = _delays(fields, False) if isinstance(problem, SDDEProblem) else None
    return _terms(fields, fields["drift"], noise=noise, delays=delays, structure=fields["jac_structure"])


def _terms(fields: dict[str, Any], f: Slope | None, **extra: Any) -> Terms:
    args = fields["args"]
    y0, t0, t1 = begun(fields["y0"], fields["tspan"], args)
    terms = Terms(f, args, y0, t0, t1, **extra)
    return terms if isinstance(y0, jax.Array | float) else _without_functions(terms)


def begun(y0: Any, tspan: Any, args: PyTree) -> tuple[PyTree, Any, Any]:
    """The initial state and both ends, of which each may be a function of the parameters."""
    t0, t1 = errors.time_span(tspan(args) if callable(tspan) else tspan)
    return y0(args, t0) if is_function(y0) else y0, t0, t1


def is_function(y0: Any) -> bool:
    """Of the parameters; what is callable and holds arrays, such as a network, is a state."""
    if not callable(y0) or isinstance(y0, type):
        return callable(y0)
    wraps = isinstance(y0, functools.partial | eqx.Partial) or hasattr(y0, "__wrapped__")
    return wraps or jax.tree_util.all_leaves([y0])


def numbers(tree: PyTree) -> PyTree:
    """With None in place of functions, such as the activations of a network."""
    return eqx.filter(tree, callable, inverse=True)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class OfWhole:
    """A function of states with functions in them, on states without: `places` are those of its arguments."""

    f: Any
    rest: PyTree
    """the functions, and None in place of numbers"""
    places: tuple[int, ...] = dataclasses.field(metadata={"static": True})

    def __call__(self, *given: Any) -> Any:
        whole = [eqx.combine(x, self.rest) if i in self.places else x for i, x in enumerate(given)]
        return numbers(errors.call(self.f, *whole))


def _without_functions(terms: Terms) -> Terms:
    """Terms whose state is numbers alone."""
    if not any(callable(x) for x in jax.tree.leaves(terms.y0)):
        return terms
    rest = eqx.filter(terms.y0, callable)
    on = lambda f, *places: OfWhole(f, rest, places or (1,)) if callable(f) else f
    return terms._replace(
        f=on(terms.f),
        explicit=on(terms.explicit),
        jac=on(terms.jac),
        mass=on(terms.mass),
        residual=on(terms.residual, 1, 2),
        y0=numbers(terms.y0),
        dy0=numbers(terms.dy0),
        on_whole=on,
        noise=terms.noise and terms.noise._replace(diffusion=on(terms.noise.diffusion)),
    )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Timeless:
    """(t, y, args) ↦ f(y, args)."""

    f: Any

    def __call__(self, t: Any, y: PyTree, args: PyTree) -> Any:
        return errors.call(self.f, y, args)


def terms_at_rest(problem: SteadyStateProblem) -> Terms:
    """dy/dt = f(y, args) at an instant: none of the rules above, so that nothing takes it for a span to integrate."""
    f, y0, args, jac, structure = map(
        object.__getattribute__(problem, "__dict__").get, ("f", "y0", "args", "jac", "jac_structure")
    )
    given = Timeless(f), args, y0, 0.0, 0.0
    return _without_functions(Terms(*given, jac=None if jac is None else Timeless(jac), structure=structure))
