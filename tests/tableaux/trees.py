"""Order conditions by rooted trees, for all families of one-step methods.

A Runge–Kutta method has order p when Σᵢ bᵢ φᵢ(τ) = 1/γ(τ) for every rooted tree τ with up to p nodes (Hairer, Nørsett,
Wanner, Solving ODEs I, II.2), so this is all of it: 200 conditions at order 8, 53 272 at order 14. Additive pairs have
trees with nodes of two colours, Rosenbrock methods their own rule for nodes with one son (Solving ODEs II, IV.7).
"""

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

ROUNDING = 2.0**-53  # of one number or one operation, relative


@dataclass(frozen=True)
class Rounded:
    """Numbers, and how far rounding can have moved them."""

    value: np.ndarray
    error: np.ndarray

    @property
    def T(self) -> "Rounded":
        return Rounded(self.value.T, self.error.T)

    def __getitem__(self, index) -> "Rounded":
        return Rounded(self.value[index], self.error[index])

    def __add__(self, other: "Rounded") -> "Rounded":
        value = self.value + other.value
        return Rounded(value, self.error + other.error + ROUNDING * abs(value))

    def __sub__(self, other: "Rounded") -> "Rounded":
        return self + Rounded(-other.value, other.error)

    def __mul__(self, other: "Rounded") -> "Rounded":
        value = self.value * other.value
        error = self.error * (abs(other.value) + other.error) + abs(self.value) * other.error
        return Rounded(value, error + ROUNDING * abs(value))

    def __matmul__(self, other: "Rounded") -> "Rounded":
        """A sum of s products is off by s roundings of Σ|…|, whatever its order."""
        size, other_abs = self.value.shape[-1], abs(other.value)
        error = (self.error + size * ROUNDING * abs(self.value)) @ other_abs
        return Rounded(self.value @ other.value, error + (abs(self.value) + self.error) @ other.error)

    def inverse(self) -> "Rounded":
        value = np.linalg.inv(self.value)
        error = self.error + 2 * len(value) * ROUNDING * abs(self.value)
        return Rounded(value, 2 * abs(value) @ error @ abs(value))  # twice, for what is of second order


def stored(x: Any, digits: float | None = None) -> Rounded:
    """Numbers rounded to float64; or printed with so many digits, behind the point if they are below one."""
    x = np.array(x, float)
    return Rounded(x, ROUNDING * abs(x) if digits is None else 0.5 * 10.0**-digits * np.maximum(abs(x), 1))


def exact(x: Any) -> Rounded:
    return Rounded(np.array(x, float), np.zeros(np.shape(x)))


def where(condition: np.ndarray, x: Rounded, y: Rounded) -> Rounded:
    return Rounded(np.where(condition, x.value, y.value), np.where(condition, x.error, y.error))


def concatenate(parts: Sequence[Rounded]) -> Rounded:
    return Rounded(np.concatenate([x.value for x in parts]), np.concatenate([x.error for x in parts]))


def square(rows: Sequence[Sequence[float]]) -> np.ndarray:
    """Rows of a triangle as a matrix."""
    a = np.zeros((len(rows), len(rows)))
    for i, row in enumerate(rows):
        a[i, : len(row)] = row
    return a


# -------------------- trees -------------------------------------------------------------------------------------------


class Trees(NamedTuple):
    """All rooted trees with n nodes, each as `base` with `child` grafted on its root as the last subtree."""

    base: np.ndarray  # numbers count all trees, the smallest first
    child: np.ndarray
    density: np.ndarray  # γ
    colour: np.ndarray  # of the root


@functools.cache
def rooted_trees(n: int, colours: int = 1) -> Trees:
    if n == 1:
        return Trees(np.arange(colours), np.full(colours, -1), np.ones(colours), np.arange(colours))
    smaller = [rooted_trees(m, colours) for m in range(1, n)]
    last = np.concatenate([trees.child for trees in smaller])
    density = np.concatenate([trees.density for trees in smaller])
    colour = np.concatenate([trees.colour for trees in smaller])
    size = np.repeat(np.arange(1, n), [len(trees.base) for trees in smaller])
    pairs = []
    for m in range(1, n):
        base, child = np.flatnonzero(size == m), np.flatnonzero(size == n - m)
        i, j = np.nonzero(last[base][:, None] <= child)  # subtrees in increasing order: every tree once
        pairs.append((base[i], child[j]))
    base, child = (np.concatenate(column) for column in zip(*pairs, strict=True))
    return Trees(base, child, n * density[base] / size[base] * density[child], colour[base])


class Conditions(NamedTuple):
    """Of trees with the same number of nodes: the mean of φ [trees, stages] by the weights of `colour` is `target`."""

    phi: Rounded
    target: np.ndarray
    colour: np.ndarray


def runge_kutta(a: Rounded) -> Iterator[Conditions]:
    """φ(base ∘ child) = φ(base) · a φ(child), for trees with 1, 2, 3, … nodes."""
    return additive([a])


def additive(parts: Sequence[Rounded]) -> Iterator[Conditions]:
    """The same where the colour of a node says of which part of f it is, and so by which matrix it enters."""
    colours = len(parts)
    levels = [exact(np.ones((colours, len(parts[0].value))))]
    roots = [np.arange(colours)]
    for n in itertools.count(1):
        trees = rooted_trees(n, colours)
        if n > 1:
            phi, colour = concatenate(levels), np.concatenate(roots)
            slope = phi @ parts[0].T
            for k in range(1, colours):
                slope = where((colour == k)[:, None], phi @ parts[k].T, slope)
            levels.append(phi[trees.base] * slope[trees.child])
            roots.append(trees.colour)
        yield Conditions(levels[-1], 1 / trees.density, trees.colour)


def rosenbrock(alpha: Rounded, gamma: Rounded) -> Iterator[Conditions]:
    """φ(base ∘ child) = φ(base) · α φ(child), but a single child enters by α + Γ."""
    beta = alpha + gamma
    levels = [exact(np.ones((1, len(alpha.value))))]
    among_others = levels[:]  # with α even for a single child, as if more were to come
    for n in itertools.count(1):
        trees = rooted_trees(n)
        if n > 1:
            phi, bases = concatenate(levels), concatenate(among_others)
            new = bases[trees.base] * (phi @ alpha.T)[trees.child]
            among_others.append(new)
            levels.append(where((trees.base == 0)[:, None], (phi @ beta.T)[trees.child], new))
        yield Conditions(levels[-1], 1 / trees.density, trees.colour)


def rosenbrock_w(alpha: Rounded, gamma: Rounded) -> Iterator[Conditions]:
    """Any matrix in place of J: it makes nodes of a second colour, with one child each, by Γ; such sums are 0."""
    levels = [exact(np.ones((2, len(alpha.value))))]  # the second is such a node that still lacks its child
    pure = np.array([True, False])
    for n in itertools.count(1):
        trees = rooted_trees(n, 2)
        if n > 1:
            phi = concatenate(levels)
            by_matrix = (trees.colour == 1)[:, None]
            new = phi[trees.base] * where(by_matrix, (phi @ gamma.T)[trees.child], (phi @ alpha.T)[trees.child])
            nonsense = (trees.child == 1) | ((trees.colour == 1) & (trees.base != 1))
            levels.append(where(nonsense[:, None], exact(np.zeros(new.value.shape)), new))
            new_pure = pure[trees.base] & pure[trees.child]
            pure = np.concatenate([pure, new_pure])
            yield Conditions(levels[-1], new_pure / trees.density, np.zeros_like(trees.colour))
        else:
            yield Conditions(levels[0][:1], np.ones(1), np.zeros(1, int))


def measured_order(conditions: Iterator[Conditions], weights: Sequence[Rounded], enough: int) -> int:
    """The order of the weights, one set for each colour, looked at up to `enough`.

    Shapes:  weights are [stages]; or [stages, powers of θ], then the answer holds for every θ.
    """
    for n, (phi, target, colour) in enumerate(itertools.islice(conditions, enough), 1):
        for k, b in enumerate(weights):
            mean, goal = phi[colour == k] @ b, target[colour == k]
            if b.value.ndim == 2:  # θⁿ/γ
                if n > b.value.shape[1]:
                    return n - 1
                goal = np.outer(goal, np.arange(1, b.value.shape[1] + 1) == n)
            if np.any(abs(mean.value - goal) > mean.error + 2 * ROUNDING * goal):  # rounding cannot explain it
                return n - 1
    return enough
