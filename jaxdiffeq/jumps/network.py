"""A network of reactions, and the three equations that describe it: by the molecule, with noise, and without."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxdiffeq import errors, habits
from jaxdiffeq.jumps.definitions import ConstantRateJump, DiscreteProblem, JumpProblem, MassActionJumps, Rows
from jaxdiffeq.jumps.jump_errors import numbers_of, one_constant, pairs_of
from jaxdiffeq.problems import definitions
from jaxdiffeq.problems.definitions import ODEProblem
from jaxdiffeq.types import PyTree

ARROW = re.compile(r"<?-+>|⇌|↔|→|⟶")
BOTH_WAYS = ("<", "⇌", "↔")
TERM = re.compile(r"(\d*)\s*\*?\s*([^\W\d]\w*)")


class ReactionNetwork(eqx.Module):
    """Reactions as lines: `ReactionNetwork([("S + E <-> C", (1e-3, 1e-4)), ("C -> P + E", 0.1)])`.

    Each has a rate constant, two if it goes both ways: a number, or a function args ↦ number. By mass action it
    happens at the constant times ∏ C(x, m), the number of ways in which its reactants can meet: k·A·(A − 1)/2 for
    "2 A -> B", in the limit of many k·A²/2. Or the rate is a function (t, x, args) ↦ number, which then is all of it.
    "0 -> A" is a source. A state is a vector in the order of `species`, that of their first appearance, or as given.

    `jumps` is the process of the molecules, exact; `sde` the chemical Langevin equation, for many of them; `ode` the
    rate equation, the limit of ever more. All three are problems for `solve`.
    Errors: `ValueError` for a line that cannot be read.
    """

    rates: list
    species: tuple[str, ...] = eqx.field(static=True)
    reactants: Rows = eqx.field(static=True)
    change: Rows = eqx.field(static=True)

    def __init__(self, reactions: Sequence[tuple[str, Any]] | Mapping[str, Any], species: Sequence[str] | None = None):
        sides, rates = [], []
        for line, rate in pairs_of(reactions):
            for left, right, k in _read(line, rate):
                sides.append((left, right))
                rates.append(k)
        found = list(dict.fromkeys(name for pair in sides for side in pair for name in side))
        if species is not None and set(found) - set(species):
            raise ValueError(f"`species` lacks {sorted(set(found) - set(species))}, which react.")
        self.species = tuple(found if species is None else species)
        self.rates = rates
        place = {name: i for i, name in enumerate(self.species)}
        self.reactants = Rows(tuple(tuple(sorted((place[s], m) for s, m in left.items())) for left, _ in sides))
        self.change = Rows(tuple(_difference(left, right, place) for left, right in sides))

    def state(self, numbers: Mapping[str, Any]) -> jax.Array:
        """A vector from numbers by name; what is not named is zero."""
        unknown = set(numbers) - set(self.species)
        if unknown:
            raise ValueError(f"{sorted(unknown)} is not among the species {self.species}.")
        return jnp.stack([jnp.asarray(numbers.get(name, 0)).astype(float) for name in self.species])

    def propensities(self, t: Any, x: jax.Array, args: PyTree) -> jax.Array:
        """Of many molecules: k·∏ xᵐ/m!. Shapes: [reactions]."""
        values = []
        for k, row in zip(self.rates, self.reactants.rows, strict=True):
            if _is_whole(k):
                values.append(jnp.asarray(errors.call(k, t, x, args)))
                continue
            value = jnp.asarray(errors.call(k, args) if callable(k) else k).astype(x.dtype)
            for s, m in row:
                for i in range(m):
                    value = value * x[s] / (i + 1)
            values.append(value)
        return jnp.stack([v.astype(x.dtype) for v in values])

    def drift(self, t: Any, x: jax.Array, args: PyTree) -> jax.Array:
        """dx/dt of the rate equation: ∑ νᵣ·aᵣ(x)."""
        return self._matrix(x).T @ self.propensities(t, x, args)

    def diffusion(self, t: Any, x: jax.Array, args: PyTree) -> jax.Array:
        """Of the chemical Langevin equation, dx = ∑ νᵣ·(aᵣ dt + √aᵣ dWᵣ). Shapes: [species, reactions].

        Source: Gillespie, J. Chem. Phys. 113 (2000) 297.
        """
        a = self.propensities(t, x, args)
        some = a > 0  # where nothing reacts, the slope of the root is infinite
        return self._matrix(x).T * jnp.where(some, jnp.sqrt(jnp.where(some, a, 1)), 0)[None, :]

    def _matrix(self, x: jax.Array) -> jax.Array:
        return jnp.asarray(self.change.dense(len(self.species)), x.dtype)

    def ode(self, x0: Any, tspan: Any, args: PyTree = None) -> ODEProblem:
        """The rate equation."""
        return ODEProblem(self.drift, self._start(x0), tspan, args)

    def jumps(self, x0: Any, tspan: Any, args: PyTree = None, *, key: Any) -> JumpProblem:
        """Every molecule and every reaction."""
        if any(map(_is_whole, self.rates)):
            jumps = [self._jump(r) for r in range(len(self.rates))]
        else:
            constants = [k for k in self.rates if not callable(k)]
            rates = jnp.asarray(self.rates, float) if len(constants) == len(self.rates) else _Rates(self.rates)
            jumps = MassActionJumps(rates, self.reactants, self.change)
        return JumpProblem(DiscreteProblem(self._start(x0), tspan, args), jumps, key=key)

    def _jump(self, r: int) -> Any:
        k, change = self.rates[r], self.change.dense(len(self.species))[r]
        if _is_whole(k):
            return ConstantRateJump(k, change)
        rates = _Rates([k]) if callable(k) else jnp.asarray([k], float)
        return MassActionJumps(rates, Rows((self.reactants.rows[r],)), Rows((self.change.rows[r],)))

    def sde(self, x0: Any, tspan: Any, args: PyTree = None, *, key: Any) -> definitions.SDEProblem:
        """The chemical Langevin equation, in the sense of Itô."""
        start = self._start(x0)
        return definitions.SDEProblem(self.drift, self.diffusion, start, tspan, args, key=key, noise="general")

    def _start(self, x0: Any) -> Any:
        if isinstance(x0, Mapping) or callable(x0):
            return self.state(x0) if isinstance(x0, Mapping) else x0
        x0 = jnp.asarray(x0)
        numbers_of(x0, self.species)
        return x0

    @property
    def conserved(self) -> np.ndarray:
        """Whole numbers w with w·x constant: a basis, one row each. Shapes: [laws, species]."""
        return _left_null_space(self.change.dense(len(self.species)))

    def totals(self, x: jax.Array) -> jax.Array:
        """What no reaction changes. Shapes: x [..., species] ↦ [..., laws]."""
        return x @ jnp.asarray(self.conserved.T, x.dtype)


class _Rates(eqx.Module):
    """args ↦ rate constants."""

    rates: list

    def __call__(self, args: PyTree) -> jax.Array:
        values = [jnp.asarray(errors.call(k, args) if callable(k) else k) for k in self.rates]
        return jnp.stack([v.astype(float) for v in values])


def _is_whole(rate: Any) -> bool:
    """A function of (t, x, args): not the constant of a reaction by mass action, but all of its rate."""
    return callable(rate) and len(habits.names_of(rate) or ()) > 1


def _read(line: str, rate: Any) -> list[tuple[dict[str, int], dict[str, int], Any]]:
    parts = ARROW.split(line)
    if len(parts) != 2:
        raise ValueError(f"A reaction reads like 'S + E -> C' or 'S + E <-> C', but is {line!r}.")
    left, right = (_side(part, line) for part in parts)
    if not any(arrow in line for arrow in BOTH_WAYS):
        one_constant(rate, line)
        return [(left, right, rate)]
    if not isinstance(rate, list | tuple) or len(rate) != 2:
        raise ValueError(f"{line!r} goes both ways and takes two rates, forwards and backwards, but has {rate!r}.")
    for one in rate:
        one_constant(one, line)
    return [(left, right, rate[0]), (right, left, rate[1])]


def _side(text: str, line: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for term in text.split("+"):
        if term.strip() in ("0", "∅", ""):
            continue
        match = TERM.fullmatch(term.strip())
        if match is None:
            raise ValueError(f"{term.strip()!r} in the reaction {line!r} is no species, such as A or 2 A.")
        found[match[2]] = found.get(match[2], 0) + int(match[1] or 1)
    return found


def _difference(left: dict, right: dict, place: dict) -> tuple:
    names = dict.fromkeys([*left, *right])
    change = {place[s]: right.get(s, 0) - left.get(s, 0) for s in names}
    return tuple(sorted((s, m) for s, m in change.items() if m))


def _left_null_space(change: np.ndarray) -> np.ndarray:
    """Whole numbers w with change·w = 0, by elimination in fractions."""
    rows = [[Fraction(int(v)) for v in row] for row in change]
    columns, pivots = change.shape[1], []
    for c in range(columns):
        k = next((i for i in range(len(pivots), len(rows)) if rows[i][c]), None)
        if k is None:
            continue
        top = len(pivots)
        rows[top], rows[k] = rows[k], rows[top]
        rows[top] = [v / rows[top][c] for v in rows[top]]
        for i, row in enumerate(rows):
            if i != top and row[c]:
                rows[i] = [a - row[c] * b for a, b in zip(row, rows[top], strict=True)]
        pivots.append(c)
    basis = []
    for free in (c for c in range(columns) if c not in pivots):
        w = [Fraction(int(c == free)) for c in range(columns)]
        for row, p in zip(rows, pivots, strict=False):
            w[p] = -row[free]
        scale = np.lcm.reduce([v.denominator for v in w])
        basis.append([int(v * int(scale)) for v in w])
    return np.array(basis, int).reshape(-1, columns)
