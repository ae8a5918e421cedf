"""Every tableau against everything it declares, by algebra alone: nothing is integrated here.

A Runge–Kutta method has order p when Σᵢ bᵢ φᵢ(τ) = 1/γ(τ) for every rooted tree τ with up to p nodes (Hairer, Nørsett,
Wanner, Solving ODEs I, II.2), so this is all of it: 200 conditions at order 8, 53 272 at order 14.
"""

import dataclasses
import functools
import itertools
from typing import NamedTuple

import numpy as np
import pytest

from jaxdiffeq.tableaux import explicit
from jaxdiffeq.tableaux.explicit import ButcherTableau

METHODS = {name: tab for name, tab in vars(explicit).items() if isinstance(tab, ButcherTableau)}
ROUNDING = 2.0**-53  # of one number or one operation, relative

every_method = pytest.mark.parametrize("tab", METHODS.values(), ids=METHODS.keys())


class Trees(NamedTuple):
    """All rooted trees with n nodes, each as `base` with `child` grafted on its root as the last subtree."""

    base: np.ndarray  # numbers count all trees, the smallest first
    child: np.ndarray
    density: np.ndarray  # γ


@functools.cache
def rooted_trees(n: int) -> Trees:
    if n == 1:
        return Trees(np.array([0]), np.array([-1]), np.array([1.0]))
    smaller = [rooted_trees(m) for m in range(1, n)]
    last = np.concatenate([trees.child for trees in smaller])
    density = np.concatenate([trees.density for trees in smaller])
    size = np.repeat(np.arange(1, n), [len(trees.base) for trees in smaller])
    pairs = []
    for m in range(1, n):
        base, child = np.flatnonzero(size == m), np.flatnonzero(size == n - m)
        i, j = np.nonzero(last[base][:, None] <= child)  # subtrees in increasing order: every tree once
        pairs.append((base[i], child[j]))
    base, child = (np.concatenate(column) for column in zip(*pairs, strict=True))
    return Trees(base, child, n * density[base] / size[base] * density[child])


def elementary_weights(a):
    """φ of all trees with 1, 2, 3, … nodes, [trees, stages] each, and how far rounding can have moved it.

    φ(base ∘ child) = φ(base) · a φ(child). A sum of s products with stored numbers is off by ≤ (s + 1) ROUNDING Σ|…|.
    """
    sum_error = (len(a) + 2) * ROUNDING  # one more, for what is of second order
    phi, error = np.ones((1, len(a))), np.zeros((1, len(a)))
    yield phi, error
    for n in itertools.count(2):
        slope, slope_error = phi @ a.T, (error + sum_error * abs(phi)) @ abs(a.T)
        base, child, _ = rooted_trees(n)
        new = phi[base] * slope[child]
        new_error = error[base] * abs(slope[child]) + abs(phi[base]) * slope_error[child] + ROUNDING * abs(new)
        yield new, new_error
        phi, error = np.concatenate([phi, new]), np.concatenate([error, new_error])


def measured_order(a, parts, enough: int) -> int:
    """The order of the weights Σ parts, looked at up to `enough`.

    Shapes:  a part is [stages]; or [stages, powers of θ], then the answer holds for every θ.
    """
    weights, weights_abs = np.sum(parts, axis=0), np.sum(np.abs(parts), axis=0)
    for n, (phi, error) in enumerate(itertools.islice(elementary_weights(a), enough), 1):
        target = 1 / rooted_trees(n).density
        if weights.ndim == 2:  # θⁿ/γ
            if n > weights.shape[1]:
                return n - 1
            target = np.outer(target, np.arange(1, weights.shape[1] + 1) == n)
        slack = (error + (len(a) + 2) * ROUNDING * abs(phi)) @ weights_abs + 2 * ROUNDING * target
        if np.any(abs(phi @ weights - target) > slack):  # rounding cannot explain it
            return n - 1
    return enough


def square(rows):
    a = np.zeros((len(rows), len(rows)))
    for i, row in enumerate(rows):
        a[i, :i] = row
    return a


def declared(tab) -> dict[str, int | None]:
    return {
        "b": tab.order,
        "b − e": tab.embedded_order,
        "b − e3": 3 if tab.e3 else None,
        "dense": tab.dense and tab.dense.order,
    }


def measured(tab) -> dict[str, int | None]:
    """What `declared` says, from the coefficients. Looks one order further, so that nothing is understated either."""
    a, b = square(tab.a), np.array(tab.b)
    orders: dict[str, int | None] = dict.fromkeys(declared(tab))
    orders["b"] = measured_order(a, [b], tab.order + 1)
    if tab.e:
        orders["b − e"] = measured_order(a, [b, -np.array(tab.e)], tab.embedded_order + 1)
    if tab.e3:
        orders["b − e3"] = measured_order(a, [b, -np.array(tab.e3)], 4)
    if tab.dense:
        orders["dense"] = measured_order(square(tab.a + tab.dense.a), [np.array(tab.dense.b)], tab.dense.order + 1)
    return orders


def test_rooted_trees_are_all_there():
    counts = [len(rooted_trees(n).base) for n in range(1, 13)]
    assert counts == [1, 1, 2, 4, 9, 20, 48, 115, 286, 719, 1842, 4766]  # OEIS A000081


@every_method
def test_orders_are_the_declared_ones(tab):
    assert measured(tab) == declared(tab)


@every_method
def test_name_is_the_constants_name(tab):
    assert METHODS[tab.name.upper()] is tab


@every_method
def test_fsal_is_not_lost_to_a_digit(tab):
    nearly = np.allclose((*tab.a[-1], 0.0), tab.b, rtol=0, atol=1e-6)
    assert tab.fsal == nearly
    assert not tab.fsal or tab.c[-1] == 1.0


@every_method
def test_dense_output_joins(tab):
    """b(1) = b; and where a stage is f(t₁, y₁), the slopes at both ends are those of the solution."""
    if tab.dense is None:
        return
    rows, b = tab.a + tab.dense.a, np.array(tab.dense.b)
    powers = np.arange(1, b.shape[1] + 1)
    end = np.zeros(len(b))
    end[: tab.stages] = tab.b
    slack = 8 * ROUNDING * (abs(b) @ powers + 1)  # half an ulp a coefficient, and the sum
    assert np.all(abs(b.sum(1) - end) <= slack)

    at_end = [i for i, row in enumerate(rows) if np.allclose(np.append(row, np.zeros(len(b) - i)), end, 0, 1e-6)]
    if at_end:
        first, last = np.eye(len(b))[[0, at_end[-1]]]
        assert np.all(b[:, 0] == first)
        assert np.all(abs(b @ powers - last) <= slack)


def absolutely_monotonic(tab, r) -> bool:
    """K (I + rK)⁻¹ ≥ 0 and rK (I + rK)⁻¹ 1 ≤ 1 for K = [A; b] (Kraaijevanger 1991): SSP with coefficient r."""
    k = square((*tab.a, tab.b))
    m = np.linalg.solve(np.eye(len(k)) + r * k.T, k.T).T
    return bool(np.all(m > -1e-12) and np.all(r * m.sum(1) < 1 + 1e-12))


@every_method
def test_ssp_coefficient_is_the_largest(tab):
    if tab.ssp is not None:
        assert absolutely_monotonic(tab, tab.ssp) and not absolutely_monotonic(tab, 1.001 * tab.ssp)


def replaced(row, i, entry):
    return (*row[:i], entry, *row[i + 1 :])


def nudged(row, i=0, by=1e-6):
    return replaced(row, i, row[i] + by)


def mutants(tab):
    """Wrong tables that no checksum sees: in each row one coefficient is off by 1e-6, another makes up for it."""
    swap, rng = dataclasses.replace, np.random.default_rng(0)

    def shifted(row):
        i, j = rng.choice(len(row), 2, replace=False)
        return nudged(nudged(row, i), j, -1e-6)

    for i, row in enumerate(tab.a[2:], 2):
        yield swap(tab, a=replaced(tab.a, i, shifted(row)))
    if tab.stages > 1:
        yield swap(tab, b=shifted(tab.b), dense=None)
    if tab.e and tab.embedded_order > 1:  # for order 1 the checksum is all there is
        yield swap(tab, e=shifted(tab.e))
    if tab.dense and tab.dense.order > 1:
        for i, row in enumerate(tab.dense.b):
            yield swap(tab, dense=swap(tab.dense, b=replaced(tab.dense.b, i, shifted(row))))
        for i, row in enumerate(tab.dense.a):
            yield swap(tab, dense=swap(tab.dense, a=replaced(tab.dense.a, i, shifted(row))))


@every_method
def test_order_conditions_catch_a_wrong_digit(tab):
    for mutant in mutants(tab):
        assert measured(mutant) != declared(mutant)


@every_method
def test_checksums_catch_a_wrong_digit(tab):
    swap = dataclasses.replace
    wrong = [{"b": nudged(tab.b)}]
    wrong += [{"a": replaced(tab.a, i, nudged(row))} for i, row in enumerate(tab.a[1:], 1)]
    if tab.e:
        wrong.append({"e": nudged(tab.e)})
    for fields in wrong:
        with pytest.raises(AssertionError):
            swap(tab, **fields)
    if tab.dense:
        with pytest.raises(AssertionError):
            swap(tab, dense=swap(tab.dense, b=replaced(tab.dense.b, 0, nudged(tab.dense.b[0]))))
        for i, row in enumerate(tab.dense.a):
            with pytest.raises(AssertionError):
                swap(tab.dense, a=replaced(tab.dense.a, i, nudged(row)))
