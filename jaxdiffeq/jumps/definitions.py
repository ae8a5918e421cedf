"""What jumps: problems, and the jumps themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np

from jaxdiffeq import errors, habits
from jaxdiffeq.problems.definitions import DDEProblem, ODEProblem, Problem, SDEProblem, replaced
from jaxdiffeq.types import PyTree

ARGUMENTS = ("t", "x", "args")
ODE_ARGUMENTS = ("t", "y", "args")


class DiscreteProblem(Problem):
    """x(t₀) = x0, which nothing changes but jumps: the base of a `JumpProblem` of molecules, customers or the like.

    x0 is any pytree of numbers; whole numbers become floats, which hold them exactly up to 2⁵³, in float32 up to 2²⁴.
    `x0` may be a function (args, t0) ↦ x0 and `tspan` a function args ↦ (t0, t1).
    """

    x0: PyTree
    tspan: Any
    args: PyTree = None


class ConstantRateJump(eqx.Module):
    """Happens at the `rate(t, x, args)`, which does not change between jumps, and makes `affect(t, x, args)` of x.

    `affect` may be what is added to x, or a function that takes a fourth parameter `key`, for marks that are drawn.
    Over an equation whose state moves between jumps, that rate is the one at the jump before. Units: 1/t.
    """

    rate: Callable
    affect: Any

    def __post_init__(self) -> None:
        self.affect = _numbers(self.affect)
        _checked(self)


class VariableRateJump(eqx.Module):
    """Happens at the `rate(t, x, args)`, which may change with t and with a state that moves between jumps.

    Exact by the hazard ∫rate dt, which a solve integrates until it reaches an exponential number; or by thinning,
    where a `bound(t, x, args)` is given, a number that the rate does not exceed until the next proposal: then no
    hazard is integrated. The rest is as in `ConstantRateJump`.
    """

    rate: Callable
    affect: Any
    bound: Any = None

    def __post_init__(self) -> None:
        self.affect = _numbers(self.affect)
        _checked(self)
        if callable(self.bound):
            _takes(self.bound, "bound")


class MassActionJumps(eqx.Module):
    """Reactions by mass action: number r happens at the rate rates[r]·∏ₛ C(xₛ, reactants[r, s]), and adds `change[r]`.

    C(x, m) is the number of ways in which m of x can meet, so that 2 A → B happens at k·A·(A − 1)/2. The state is a
    vector [species]. `rates` are numbers [reactions], or a function args ↦ numbers.
    Shapes: reactants and change [reactions, species], whole numbers; or a list of a mapping {species: number} each.
    """

    rates: Any
    reactants: Any = eqx.field(static=True)
    change: Any = eqx.field(static=True)

    def __init__(self, rates: Any, reactants: Any, change: Any):
        self.rates = rates if callable(rates) or isinstance(rates, jax.Array) else np.asarray(rates, float)
        self.reactants, self.change = _rows(reactants, "reactants"), _rows(change, "change")
        count = len(self.reactants.rows)
        if len(self.change.rows) != count:
            raise ValueError(
                f"`reactants` and `change` must have a row for each reaction, but have {count} and "
                f"{len(self.change.rows)}."
            )
        if any(m < 1 for row in self.reactants.rows for _, m in row):
            raise ValueError("`reactants` must be counts, 0, 1, 2 …, but some are negative.")
        if not callable(rates) and np.shape(rates) != (count,):
            raise ValueError(f"`rates` must be one number for each of {count} reactions, but are {np.shape(rates)}.")


@dataclasses.dataclass(frozen=True)
class Rows:
    """A matrix of whole numbers, most of them zero: of each row, the columns and numbers that are not."""

    rows: tuple[tuple[tuple[int, int], ...], ...]

    def __hash__(self) -> int:
        return self._hash

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash(self.rows))

    _hash: int = dataclasses.field(default=0, init=False, compare=False, repr=False)

    def dense(self, columns: int) -> np.ndarray:
        matrix = np.zeros((len(self.rows), columns))
        for r, row in enumerate(self.rows):
            for s, m in row:
                matrix[r, s] += m
        return matrix

    @property
    def least_columns(self) -> int:
        return 1 + max((s for row in self.rows for s, _ in row), default=-1)


def _rows(given: Any, name: str) -> Rows:
    if isinstance(given, Rows):
        return given
    if isinstance(given, Sequence) and all(isinstance(row, Mapping) for row in given):
        given = [sorted(row.items()) for row in given]
    else:
        matrix = np.asarray(given)
        if matrix.ndim != 2:
            raise ValueError(f"`{name}` must be a matrix [reactions, species], but has the shape {matrix.shape}.")
        given = [[(int(s), matrix[r, s]) for s in np.flatnonzero(row)] for r, row in enumerate(matrix)]
    if any(int(m) != m for row in given for _, m in row):
        raise ValueError(f"`{name}` must be whole numbers, but are {given}.")
    return Rows(tuple(tuple((int(s), int(m)) for s, m in row if m) for row in given))


KINDS = (ConstantRateJump, VariableRateJump, MassActionJumps)
BASES = (DiscreteProblem, ODEProblem, SDEProblem, DDEProblem)


class JumpProblem(Problem):
    """`base`, and `jumps` that happen to its state: a list of them, or one.

    Over a `DiscreteProblem` nothing happens in between, and the methods are those of chemical kinetics: `SSA()` and its
    like, exact, or `TauLeaping()` and its like. Over an `ODEProblem`, a `DDEProblem` or an `SDEProblem` these go on in
    between, by methods of their own: a piecewise-deterministic process, a jump diffusion.

    The path depends on the `key` alone: the same under `jit`, `vmap` and `shard_map`, and, unless by leaps, which land
    on them, whatever times are saved. `jax.vmap(lambda key: solve(problem, key=key))(keys)` is the ensemble. Fields of
    the base can be replaced by their names: `solve(problem, args=p, x0=x)`.
    Errors: a derivative of a path with respect to what its law depends on is no derivative of an expectation, and
    raises; see `expectation`.
    """

    base: Any
    jumps: Any
    _: dataclasses.KW_ONLY
    key: Any

    def __post_init__(self) -> None:
        self.jumps = tuple(self.jumps) if isinstance(self.jumps, list | tuple) else (self.jumps,)
        for jump in self.jumps:
            if not isinstance(jump, KINDS):
                kinds = ", ".join(kind.__name__ for kind in KINDS)
                raise TypeError(f"`jumps` must be jumps ({kinds}) or a list of them, but {jump!r} is among them.")
        if type(self.base) not in BASES:
            bases = ", ".join(kind.__name__ for kind in BASES)
            raise TypeError(f"`base` must be one of {bases}, but is {self.base!r}.")
        if not self.jumps:
            raise ValueError("`jumps` is empty: solve `base` itself.")

    def replace(self, **changes: Any) -> JumpProblem:
        """The same problem with other fields, those of the base included: `problem.replace(args=p, key=key)`."""
        return with_fields(self, changes)

    @property
    def is_discrete(self) -> bool:
        """Whether nothing happens between the jumps, and no rate changes there."""
        varies = any(isinstance(jump, VariableRateJump) for jump in self.jumps)
        return isinstance(self.base, DiscreteProblem) and not varies


def with_fields(problem: JumpProblem, changes: dict[str, Any], options: Sequence[str] = ()) -> JumpProblem:
    own = {name: value for name, value in changes.items() if name in ("base", "jumps", "key")}
    inner = {name: value for name, value in changes.items() if name not in own}
    problem = replaced(problem, own, options)
    return replaced(problem, {"base": replaced(problem.base, inner, options)}) if inner else problem


def moving(problem: JumpProblem) -> JumpProblem:
    """With a base that stands still as an equation whose slope is zero."""
    base = problem.base
    if not isinstance(base, DiscreteProblem):
        return problem
    still = ODEProblem(_rest, base.x0, base.tspan, base.args)
    return JumpProblem(still, problem.jumps, key=problem.key)


def _rest(t: Any, y: PyTree, args: PyTree) -> PyTree:
    return jax.tree.map(lambda x: 0 * x, y)


@dataclasses.dataclass(frozen=True)
class Added:
    """What is added to a vector, known when a solve is compiled; an array of JAX is not, and may be differentiated."""

    numbers: tuple[float, ...]


def _numbers(affect: Any) -> Any:
    """Plain numbers as `Added`."""
    if isinstance(affect, np.ndarray) or (isinstance(affect, list | tuple) and errors.all_concrete(affect)):
        given = np.asarray(affect, float) if _are_numbers(affect) else None
        if given is not None and given.ndim == 1:
            return Added(tuple(given.tolist()))
    return affect


def _are_numbers(affect: Any) -> bool:
    return isinstance(affect, np.ndarray) or all(isinstance(x, int | float | np.number) for x in affect)


def takes_key(affect: Any) -> bool:
    """Whether an affect draws marks: it has a parameter `key`, or a fourth one."""
    names = habits.names_of(affect) or []
    return "key" in names or len(names) > 3


def _arguments(f: Any) -> tuple[str, ...]:
    names = habits.names_of(f) or []
    return ODE_ARGUMENTS if "y" in names[:3] else ARGUMENTS


def _checked(jump: Any) -> None:
    _takes(jump.rate, "rate")
    if callable(jump.affect):
        _takes(jump.affect, "affect", *(("key",) if takes_key(jump.affect) else ()))


def _takes(f: Any, name: str, *more: str) -> None:
    errors.callable_with(f, name, (*_arguments(f), *more), silence="write `lambda *given: fn(*given)`")
