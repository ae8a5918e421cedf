"""Every fully implicit tableau against everything it declares, by algebra alone: nothing is solved here."""

import dataclasses

import numpy as np
import pytest
from stability import check_claim
from trees import ROUNDING, concatenate, measured_order, runge_kutta, stored
from wrong import nudged, shifted, with_row

from jaxdiffeq.tableaux import collocation
from jaxdiffeq.tableaux.collocation import CollocationTableau

METHODS = {name: tab for name, tab in vars(collocation).items() if isinstance(tab, CollocationTableau)}

every_method = pytest.mark.parametrize("tab", METHODS.values(), ids=METHODS.keys())


def stage_order(tab) -> int:
    """The largest q with Σⱼ aᵢⱼ cⱼᵏ⁻¹ = cᵢᵏ/k for all i and k ≤ q."""
    a, c = stored(tab.a), np.array(tab.c)
    for k in range(1, tab.stages + 2):
        mean, goal = a @ stored(c ** (k - 1)), c**k / k
        if np.any(abs(mean.value - goal) > mean.error + 4 * k * ROUNDING * (goal + abs(a.value).sum(1))):
            return k - 1
    return tab.stages + 1


def declared(tab) -> dict[str, int | None]:
    return {"b": tab.order, "ŷ": tab.embedded_order, "dense": tab.dense and tab.dense.order, "stages": tab.stage_order}


def measured(tab) -> dict[str, int | None]:
    """What `declared` says, from the coefficients. Looks one order further, so that nothing is understated either."""
    a, b = stored(tab.a), stored(tab.b)
    orders: dict[str, int | None] = dict.fromkeys(declared(tab))
    orders["b"] = measured_order(runge_kutta(a), [b], tab.order + 1)
    orders["stages"] = stage_order(tab)
    if tab.error:  # ŷ = y₁ + γ₀ dt f(t, y) + Σ eᵢ zᵢ, where z = dt·A·k: one more stage, at the start of the step
        early = np.zeros((tab.stages + 1, tab.stages + 1))
        early[1:, 1:] = tab.a
        weights = concatenate([stored([tab.error.gamma0]), b + stored(tab.error.e) @ a])
        orders["ŷ"] = measured_order(runge_kutta(stored(early)), [weights], tab.error.order + 1)
    if tab.dense:
        orders["dense"] = measured_order(runge_kutta(a), [stored(tab.dense.b)], tab.dense.order + 1)
    return orders


@every_method
def test_orders_are_the_declared_ones(tab):
    assert measured(tab) == declared(tab)


def r_infinity(tab) -> float:
    a, ones = np.array(tab.a), np.ones(tab.stages)
    if tab.explicit_first:  # as of DIRK methods
        return float(-np.linalg.solve(a[1:, 1:], a[1:, 0])[-1])
    if not a[:, -1].any():  # no stage needs the last one, A has no inverse: from afar
        a = a + np.eye(tab.stages) / 1e6
    return float(1 - tab.b @ np.linalg.solve(a, ones))


@every_method
def test_stability_is_the_declared_one(tab):
    check_claim(tab.stability, np.array(tab.a), np.array(tab.b), r_infinity(tab))


@every_method
def test_dense_output_is_the_collocation_polynomial(tab):
    """Its slope at cⱼ is fⱼ alone, and it ends at y₁."""
    if tab.dense:
        c, b = np.array(tab.c)[:, None], np.array(tab.dense.b)
        powers = np.arange(1, b.shape[1] + 1)
        slack = 8 * ROUNDING * abs(b) @ (powers * abs(c) ** (powers - 1)).T
        slack += 8 * ROUNDING * abs(b) @ (powers * (powers - 1)).T[:, None]  # c is rounded
        assert np.all(abs(b @ (powers * c ** (powers - 1)).T - np.eye(tab.stages)) <= slack)
        assert np.all(abs(b.sum(1) - tab.b) <= 8 * ROUNDING * abs(b).sum(1))


def is_inverse(x, y) -> bool:
    x, y = np.array(x), np.array(y)
    return bool(np.all(abs(x @ y - np.eye(len(x))) <= (len(x) + 2) * ROUNDING * (abs(x) @ abs(y))))


@every_method
def test_inverse(tab):
    assert tab.inverse is None or is_inverse(tab.a, tab.inverse)


@every_method
def test_transform_makes_blocks_of_the_inverse(tab):
    """A T D = T, where D has the real eigenvalues of A⁻¹ and the blocks [[α, −β], [β, α]]."""
    if tab.transform is None:
        return
    real, pairs = tab.transform.real, tab.transform.complex
    assert len(real) + 2 * len(pairs) == tab.stages
    a, t, d = np.array(tab.a), np.array(tab.transform.matrix), np.zeros((tab.stages, tab.stages))
    d[range(len(real)), range(len(real))] = real
    for k, (alpha, beta) in enumerate(pairs):
        i = len(real) + 2 * k
        d[i : i + 2, i : i + 2] = [[alpha, -beta], [beta, alpha]]
    assert np.all(abs(a @ t @ d - t) <= 4 * tab.stages * ROUNDING * (abs(a) @ abs(t) @ abs(d)))
    assert is_inverse(t, tab.transform.inverse)
    assert np.allclose(np.linalg.norm(t[:, : len(real)], axis=0), 1, rtol=0, atol=1e-15)
    assert np.all(t[-1, len(real) :: 2] == 1) and np.all(t[-1, len(real) + 1 :: 2] == 0)


@every_method
def test_error_estimate_has_the_system_of_the_real_eigenvalue(tab):
    if tab.error and tab.transform.real:
        assert np.isclose(tab.error.gamma0 * tab.transform.real[0], 1, rtol=0, atol=4 * ROUNDING)


@every_method
def test_properties_are_not_lost_to_a_digit(tab):
    assert tab.stiffly_accurate == np.allclose(tab.a[-1], tab.b, rtol=0, atol=1e-6)
    assert tab.explicit_first == np.allclose(tab.a[0], 0, rtol=0, atol=1e-6)
    assert not tab.stiffly_accurate or tab.c[-1] == 1.0


@every_method
def test_name_is_the_constants_name(tab):
    assert METHODS[tab.name.upper()] is tab


# -------------------- wrong digits ------------------------------------------------------------------------------------


def mutants(tab):
    """Wrong tables that no checksum sees: in each the numbers of one row are off by about 1e-6."""
    swap, rng = dataclasses.replace, np.random.default_rng(0)
    if tab.order > 2:  # at order 2 rows enter by their sums alone
        yield from (swap(tab, a=with_row(tab.a, i, shifted(row, rng))) for i, row in enumerate(tab.a))
    if tab.stages > 1:
        yield swap(tab, b=shifted(tab.b, rng), dense=None)
    if tab.error:
        yield from (swap(tab, error=swap(tab.error, e=nudged(tab.error.e, i))) for i in range(tab.stages))
        yield swap(tab, error=swap(tab.error, gamma0=tab.error.gamma0 + 1e-6))
    if tab.dense and tab.dense.order > 1:
        for i, row in enumerate(tab.dense.b):
            yield swap(tab, dense=swap(tab.dense, b=with_row(tab.dense.b, i, shifted(row, rng))))


@every_method
def test_order_conditions_catch_a_wrong_digit(tab):
    for mutant in mutants(tab):
        assert measured(mutant) != declared(mutant)


@every_method
def test_checksums_catch_a_wrong_digit(tab):
    swap = dataclasses.replace
    wrong = [{"b": nudged(tab.b), "dense": None}]
    wrong += [{"a": with_row(tab.a, i, nudged(row))} for i, row in enumerate(tab.a)]
    if tab.dense:
        wrong.append({"dense": swap(tab.dense, b=with_row(tab.dense.b, 0, nudged(tab.dense.b[0])))})
    for fields in wrong:
        with pytest.raises(AssertionError):
            swap(tab, **fields)
