"""Every explicit tableau against everything it declares, by algebra alone: nothing is integrated here."""

import dataclasses

import numpy as np
import pytest
from trees import ROUNDING, measured_order, rooted_trees, runge_kutta, square, stored
from wrong import nudged, shifted, with_row

from jaxdiffeq.tableaux import explicit
from jaxdiffeq.tableaux.explicit import ButcherTableau

METHODS = {name: tab for name, tab in vars(explicit).items() if isinstance(tab, ButcherTableau)}

every_method = pytest.mark.parametrize("tab", METHODS.values(), ids=METHODS.keys())


def declared(tab) -> dict[str, int | None]:
    return {
        "b": tab.order,
        "b − e": tab.embedded_order,
        "b − e3": 3 if tab.e3 else None,
        "dense": tab.interpolant and tab.interpolant.order,
    }


def measured(tab) -> dict[str, int | None]:
    """What `declared` says, from the coefficients. Looks one order further, so that nothing is understated either."""
    a, b = stored(square(tab.a)), stored(tab.b)
    orders: dict[str, int | None] = dict.fromkeys(declared(tab))
    orders["b"] = measured_order(runge_kutta(a), [b], tab.order + 1)
    if tab.e:
        orders["b − e"] = measured_order(runge_kutta(a), [b - stored(tab.e)], tab.embedded_order + 1)
    if tab.e3:
        orders["b − e3"] = measured_order(runge_kutta(a), [b - stored(tab.e3)], 4)
    if dense := tab.interpolant:
        all_stages = runge_kutta(stored(square(tab.a + dense.a)))
        orders["dense"] = measured_order(all_stages, [stored(dense.b)], dense.order + 1)
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
    if tab.interpolant is None:
        return
    rows, b = tab.a + tab.interpolant.a, np.array(tab.interpolant.b, float)
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


def mutants(tab):
    """Wrong tables that no checksum sees: in each the numbers of one row are off by about 1e-6."""
    swap, rng = dataclasses.replace, np.random.default_rng(0)
    for i, row in enumerate(tab.a[2:], 2):
        yield swap(tab, a=with_row(tab.a, i, shifted(row, rng)))
    if tab.stages > 1:
        yield swap(tab, b=shifted(tab.b, rng), dense=None)
    if tab.e and tab.embedded_order > 1:  # for order 1 the checksum is all there is
        yield swap(tab, e=shifted(tab.e, rng))
    if tab.dense and tab.dense.order > 1:
        for i, row in enumerate(tab.dense.b):
            yield swap(tab, dense=swap(tab.dense, b=with_row(tab.dense.b, i, shifted(row, rng))))
        for i, row in enumerate(tab.dense.a):
            yield swap(tab, dense=swap(tab.dense, a=with_row(tab.dense.a, i, shifted(row, rng))))


@every_method
def test_order_conditions_catch_a_wrong_digit(tab):
    for mutant in mutants(tab):
        assert measured(mutant) != declared(mutant)


@every_method
def test_checksums_catch_a_wrong_digit(tab):
    swap = dataclasses.replace
    wrong = [{"b": nudged(tab.b)}]
    wrong += [{"a": with_row(tab.a, i, nudged(row))} for i, row in enumerate(tab.a[1:], 1)]
    if tab.e:
        wrong.append({"e": nudged(tab.e)})
    for fields in wrong:
        with pytest.raises(AssertionError):
            swap(tab, **fields)
    if tab.dense:
        with pytest.raises(AssertionError):
            swap(tab, dense=swap(tab.dense, b=with_row(tab.dense.b, 0, nudged(tab.dense.b[0]))))
        for i, row in enumerate(tab.dense.a):
            with pytest.raises(AssertionError):
                swap(tab.dense, a=with_row(tab.dense.a, i, nudged(row)))
