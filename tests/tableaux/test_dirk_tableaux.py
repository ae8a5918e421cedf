"""Every diagonally implicit tableau against everything it declares, by algebra alone: nothing is solved here."""

import dataclasses

import numpy as np
import pytest
from stability import check_claim
from trees import additive, measured_order, square, stored
from wrong import nudged, shifted, with_row

from jaxdiffeq.tableaux import dirk
from jaxdiffeq.tableaux.dirk import DIRKTableau

METHODS = {name: tab for name, tab in vars(dirk).items() if isinstance(tab, DIRKTableau)}
PAIRS = {name: tab for name, tab in METHODS.items() if tab.explicit}
DIGITS = 14  # of the interpolant of Hairer42

every_method = pytest.mark.parametrize("tab", METHODS.values(), ids=METHODS.keys())
every_pair = pytest.mark.parametrize("tab", PAIRS.values(), ids=PAIRS.keys())


def parts(tab):
    return [tab, tab.explicit] if tab.explicit else [tab]


def declared(tab) -> dict[str, int | None]:
    return {"b": tab.order, "b − e": tab.embedded_order, "dense": tab.interpolant and tab.interpolant.order}


def measured(tab) -> dict[str, int | None]:
    """What `declared` says, from the coefficients. Looks one order further, so that nothing is understated either.

    Trees of a pair have nodes of both parts in all combinations, so the coupling is in it too.
    """
    trees = lambda: additive([stored(square(part.a)) for part in parts(tab)])
    weights = [stored(part.b) for part in parts(tab)]
    orders: dict[str, int | None] = dict.fromkeys(declared(tab))
    orders["b"] = measured_order(trees(), weights, tab.order + 1)
    if tab.e:
        embedded = [b - stored(part.e) for b, part in zip(weights, parts(tab), strict=True)]
        orders["b − e"] = measured_order(trees(), embedded, tab.embedded_order + 1)
    if dense := tab.interpolant:
        same = [stored(dense.b, DIGITS)] * len(weights)
        after = [(*row, 0.0) for row in dense.a]  # explicit in both parts
        with_more = additive([stored(square([*part.a, *after])) for part in parts(tab)])
        orders["dense"] = measured_order(with_more, same, dense.order + 1)
    return orders


@every_method
def test_orders_are_the_declared_ones(tab):
    assert measured(tab) == declared(tab)


@every_method
def test_a_bump_has_both_slopes_of_the_cubic(tab):
    """The first stage is y; the last one y₁, or one more follows."""
    if tab.bump:
        assert tab.explicit_first and tab.stiffly_accurate
        assert {len(row) for row in tab.bump} == {tab.stages + (tab.explicit is not None)}


@every_pair
def test_the_parts_of_a_pair_are_at_the_same_order_alone(tab):
    for part in parts(tab):
        trees = additive([stored(square(part.a))])
        assert measured_order(trees, [stored(part.b)], tab.order) == tab.order


@every_method
def test_stability_is_the_declared_one(tab):
    check_claim(tab.stability, square(tab.a), np.array(tab.b), tab.r_infinity)


@every_method
def test_stability_at_infinity_is_a_limit(tab):
    """R(−x) − R(∞) falls as 1/x."""
    a, x = square(tab.a), 1e6
    growth = 1 - x * np.array(tab.b) @ np.linalg.solve(np.eye(tab.stages) + x * a, np.ones(tab.stages))
    assert abs(growth - tab.r_infinity) < 100 / x


@every_method
def test_properties_are_not_lost_to_a_digit(tab):
    near = lambda x, y: np.allclose(x, y, rtol=0, atol=1e-6)
    first = 1 if near(tab.a[0], 0) else 0
    diagonal = [row[-1] for row in tab.a[first:]]
    assert tab.explicit_first == bool(first)
    assert tab.stiffly_accurate == near(tab.a[-1], tab.b)
    assert (tab.gamma is not None) == near(diagonal, diagonal[0])
    assert not tab.stiffly_accurate or tab.c[-1] == 1.0


@every_method
def test_predictors_look_back_only(tab):
    """Their weights on the slopes before are there for every stage but the first."""
    if tab.predictor:
        assert [len(row) for row in tab.predictor] == list(range(tab.stages))
        assert all(any(row) for row in tab.predictor[1:])


@every_method
def test_name_is_the_constants_name(tab):
    assert METHODS[tab.name.upper()] is tab


# -------------------- wrong digits ------------------------------------------------------------------------------------


def mutants(tab):
    """Wrong tables that no checksum sees: in each the numbers of one row are off by about 1e-6."""
    swap, rng = dataclasses.replace, np.random.default_rng(0)
    for i, row in enumerate(tab.a):
        if len(row) > 1 and (tab.order > 2 or tab.gamma):  # at order 2 rows enter by their sums alone
            yield swap(tab, a=with_row(tab.a, i, shifted(row, rng)))
    if tab.stages > 1:
        yield swap(tab, b=shifted(tab.b, rng), dense=None)
    if tab.e and tab.embedded_order > 1:  # for order 1 the checksum is all there is
        yield swap(tab, e=shifted(tab.e, rng))
    for i, row in enumerate(tab.dense.b if tab.dense else ()):
        yield swap(tab, dense=swap(tab.dense, b=with_row(tab.dense.b, i, shifted(row, rng))))
    for i, row in enumerate(tab.bump or ()):
        yield swap(tab, bump=with_row(tab.bump, i, shifted(row, rng)))


def mutants_of_explicit_part(tab):
    swap, rng = dataclasses.replace, np.random.default_rng(0)
    for i, row in enumerate(tab.explicit.a):
        if len(row) > 1 and tab.order > 2:
            yield swap(tab, explicit=swap(tab.explicit, a=with_row(tab.explicit.a, i, shifted(row, rng))))
    yield swap(tab, explicit=swap(tab.explicit, b=shifted(tab.explicit.b, rng)))


def claims(tab):
    """What a table has besides its order."""
    return tab.stiffly_accurate, tab.gamma is None, tab.stability == "L" and abs(tab.r_infinity) < 1e-12


@every_method
def test_a_wrong_digit_is_caught(tab):
    for mutant in mutants(tab):
        assert claims(mutant) != claims(tab) or measured(mutant) != declared(mutant)


@every_pair
def test_a_wrong_digit_in_the_explicit_part_is_caught(tab):
    for mutant in mutants_of_explicit_part(tab):
        assert measured(mutant) != declared(mutant)


@every_method
def test_checksums_catch_a_wrong_digit(tab):
    swap = dataclasses.replace
    wrong = [{"b": nudged(tab.b), "dense": None}]
    wrong += [{"a": with_row(tab.a, i, nudged(row))} for i, row in enumerate(tab.a)]
    if tab.e:
        wrong.append({"e": nudged(tab.e)})
    for i, row in enumerate(tab.predictor or ()):
        wrong += [{"predictor": with_row(tab.predictor, i, nudged(row))}] if row else []
    if tab.explicit:
        wrong.append({"explicit": swap(tab.explicit, b=nudged(tab.explicit.b))})
        rows = tab.explicit.a
        wrong += [{"explicit": swap(tab.explicit, a=with_row(rows, i, nudged(rows[i])))} for i in range(1, len(rows))]
    if tab.dense:
        wrong.append({"dense": swap(tab.dense, b=with_row(tab.dense.b, 0, nudged(tab.dense.b[0])))})
    for i, row in enumerate(tab.bump or ()):
        wrong.append({"bump": with_row(tab.bump, i, nudged(row))})
    for fields in wrong:
        with pytest.raises(AssertionError):
            swap(tab, **fields)
