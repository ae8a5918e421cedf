"""Every Rosenbrock tableau against everything it declares, by algebra alone, in the standard form of the books."""

import copy
import dataclasses
from typing import NamedTuple

import numpy as np
import pytest
from stability import check_claim
from trees import Rounded, exact, measured_order, rosenbrock, rosenbrock_w, square, stored
from wrong import nudged, with_row

from jaxdiffeq.tableaux import rosenbrock as tableaux
from jaxdiffeq.tableaux.rosenbrock import RosenbrockTableau

METHODS = {name: tab for name, tab in vars(tableaux).items() if isinstance(tab, RosenbrockTableau)}
DIGITS = 15  # of the tables

every_method = pytest.mark.parametrize("tab", METHODS.values(), ids=METHODS.keys())


class Standard(NamedTuple):
    """kᵢ = f(y + dt·Σⱼ αᵢⱼ kⱼ) + dt·J·Σⱼ γᵢⱼ kⱼ,   u = dt·Γ·k"""

    alpha: Rounded
    gamma: Rounded
    b: Rounded


def standard(tab) -> Standard:
    diagonal = stored(np.eye(tab.stages) / tab.gamma)
    gamma = (diagonal - stored(square(tab.g), DIGITS)).inverse()
    lower = exact(np.tri(tab.stages))
    gamma = gamma * lower
    return Standard(stored(square(tab.a), DIGITS) @ gamma, gamma, stored(tab.m, DIGITS) @ gamma)


def declared(tab) -> dict[str, int | None]:
    return {
        "m": tab.order,
        "m − e": tab.embedded_order,
        "dense": tab.dense and tab.dense.order,
        "any J": tab.w_order,
    }


def measured(tab) -> dict[str, int | None]:
    """What `declared` says, from the coefficients. Looks one order further, so that nothing is understated either."""
    alpha, gamma, b = standard(tab)
    orders: dict[str, int | None] = dict.fromkeys(declared(tab))
    orders["m"] = measured_order(rosenbrock(alpha, gamma), [b], tab.order + 1)
    if tab.e:
        error = stored(tab.e, DIGITS) @ gamma
        orders["m − e"] = measured_order(rosenbrock(alpha, gamma), [b - error], tab.embedded_order + 1)
    if tab.dense:
        weights = (stored(tab.dense.b, DIGITS).T @ gamma).T
        orders["dense"] = measured_order(rosenbrock(alpha, gamma), [weights], tab.dense.order + 1)
    orders["any J"] = measured_order(rosenbrock_w(alpha, gamma), [b], tab.w_order + 1)
    return orders


@every_method
def test_orders_are_the_declared_ones(tab):
    assert measured(tab) == declared(tab)


@every_method
def test_stability_is_the_declared_one(tab):
    alpha, gamma, b = standard(tab)
    check_claim(tab.stability, alpha.value + gamma.value, b.value, tab.r_infinity)


@every_method
def test_stiffly_accurate_methods_end_at_their_last_stage(tab):
    """b is the last row of α + Γ of those stages that make the step; then R(∞) = 0 and the last c is 1."""
    alpha, gamma, b = standard(tab)
    last = np.flatnonzero(tab.m)[-1]
    row = (alpha + gamma)[last]
    assert tab.stiffly_accurate == np.allclose(row.value, b.value, rtol=0, atol=1e-8)
    if tab.stiffly_accurate:
        assert np.isclose(tab.c[last], 1.0, rtol=0, atol=1e-15)
        assert abs(tab.r_infinity) < 1e-14


@every_method
def test_name_is_the_constants_name(tab):
    assert METHODS[tab.name.upper()] is tab


def altered(tab, **fields):
    """A copy that no checksum has seen."""
    mutant = copy.copy(tab)
    for name, value in fields.items():
        object.__setattr__(mutant, name, value)
    return mutant


def mutants(tab):
    """One number in every row of every table is off by 1e-6. Where dⱼ = 0, uⱼ may be too small for that to be seen."""
    rng = np.random.default_rng(0)
    visible = np.flatnonzero(np.abs(tab.d) > 1e-12)
    for field in ("a", "g"):
        rows = getattr(tab, field)
        for i in range(1, tab.stages):
            j = rng.choice(visible[visible < i])
            yield altered(tab, **{field: with_row(rows, i, nudged(rows[i], int(j)))})
    yield altered(tab, gamma=tab.gamma + 1e-6)
    yield from (altered(tab, m=nudged(tab.m, i)) for i in range(tab.stages))
    if tab.e:
        yield altered(tab, e=nudged(tab.e))
    rows = tab.dense.b if tab.dense else ()
    for i in visible[visible < len(rows)]:
        b = with_row(rows, i, nudged(nudged(rows[i], 0), 1, -1e-6))
        yield altered(tab, dense=dataclasses.replace(tab.dense, b=b))


@every_method
def test_order_conditions_catch_a_wrong_digit(tab):
    for mutant in mutants(tab):
        assert measured(mutant) != declared(mutant)


@every_method
def test_checksums_catch_a_wrong_digit(tab):
    swap = dataclasses.replace
    wrong = [{"m": nudged(tab.m), "dense": None}, {"gamma": tab.gamma + 1e-6}]
    for field in ("a", "g"):
        rows = getattr(tab, field)
        wrong += [{field: with_row(rows, i, nudged(rows[i]))} for i in range(1, tab.stages)]
    wrong += [{"c": nudged(tab.c, i)} for i in range(tab.stages)]
    wrong += [{"d": nudged(tab.d, i)} for i in range(tab.stages)]
    if tab.e:
        wrong.append({"e": nudged(tab.e)})
    for fields in wrong:
        with pytest.raises(AssertionError):
            swap(tab, **fields)
    if tab.dense:
        with pytest.raises(AssertionError):
            swap(tab, dense=swap(tab.dense, b=(nudged(tab.dense.b[0]), *tab.dense.b[1:])))


@pytest.mark.parametrize(
    ("name", "claim"),
    [("GRK4T", "A"), ("GRK4T", "A(89.0)"), ("ROS3P", "L"), ("ROSENBROCK32", "A"), ("RODAS4", "A"), ("RODAS4", "")],
)
def test_wrong_claims_of_stability_are_caught(name, claim):
    alpha, gamma, b = standard(METHODS[name])
    with pytest.raises(AssertionError):
        check_claim(claim, alpha.value + gamma.value, b.value, METHODS[name].r_infinity)


def test_methods_whose_weights_estimate_no_error_of_linear_problems_are_marked():
    """On y′ = z·y, one step of size one: u(z) is a product of (1/γ − z)⁻¹, and an estimate Σ eᵢuᵢ may vanish for all z.

    Without more, a solve of a linear problem would meet every tolerance with any steps, and be wrong.
    """

    def estimate(tab, z):
        us = []
        for a, g in zip(tab.a, tab.g, strict=True):
            right = z * (1 + np.dot(a[: len(us)], us)) + np.dot(g[: len(us)], us)
            us.append(right / (1 / tab.gamma - z))
        return abs(np.dot(tab.e, us))

    blind = {name for name, tab in METHODS.items() if tab.e and max(estimate(tab, z) for z in (-0.5, -3.0)) < 1e-10}
    assert blind == {name for name, tab in METHODS.items() if tab.missed == "linear"}
