"""Tables of methods for noise against the conditions of their order, by algebra alone."""

import dataclasses

import numpy as np
import pytest
from trees import square

from jaxdiffeq.tableaux import stabilized
from jaxdiffeq.tableaux import stochastic as tableaux
from jaxdiffeq.tableaux.stochastic import SRATableau, SRITableau

SRA = {name: tab for name, tab in vars(tableaux).items() if isinstance(tab, SRATableau)}
SRI = {name: tab for name, tab in vars(tableaux).items() if isinstance(tab, SRITableau)}


def sra_conditions(tab):
    """Strong order 3/2 with additive noise: Rößler 2010, theorem 6.3."""
    a, b = square(tab.a), square(tab.b)
    c0, c1, alpha, beta1, beta2 = (np.array(x) for x in (tab.c0, tab.c1, tab.alpha, tab.beta1, tab.beta2))
    noise = b.sum(1)
    return [
        *(a.sum(1) - c0),
        *(alpha.sum() - 1, beta1.sum() - 1, beta2.sum()),
        *(alpha @ noise - 1, alpha @ c0 - 1 / 2, alpha @ noise**2 - 3 / 2),
        *(beta1 @ c1 - 1, beta2 @ c1 + 1),
    ]


def sri_conditions(tab):
    """Strong order 3/2 with noise of its own for every component: Rößler 2010, theorem 6.1."""
    a0, a1, b0, b1 = (square(x) for x in (tab.a0, tab.a1, tab.b0, tab.b1))
    alpha, *betas = (np.array(x) for x in (tab.alpha, tab.beta1, tab.beta2, tab.beta3, tab.beta4))
    betas, one = np.array(betas), np.ones(tab.stages)
    c1, q0, q1 = a1 @ one, b0 @ one, b1 @ one
    return [
        *(a0 @ one - tab.c0),
        *(c1 - tab.c1),
        *(alpha @ one - 1, alpha @ a0 @ one - 1 / 2, alpha @ q0 - 1, alpha @ q0**2 - 3 / 2),
        *(betas @ one - [1, 0, 0, 0]),
        *(betas @ q1 - [0, 1, 0, 0]),
        *(betas @ c1 - [1, 0, -1, 0]),
        *(betas @ q1**2 - [1, 0, -1, 2]),
        *(betas @ b1 @ q1 - [0, 0, 0, 1]),
        betas[0] @ a1 @ q0 / 2 + betas[2] @ a1 @ q0 / 3,
    ]


def left(conditions, tab):
    return np.max(np.abs(conditions(tab)))


@pytest.mark.parametrize("tab", SRA.values(), ids=SRA)
def test_additive_noise(tab):
    assert left(sra_conditions, tab) < 1e-13


@pytest.mark.parametrize("tab", SRI.values(), ids=SRI)
def test_diagonal_noise(tab):
    assert left(sri_conditions, tab) < max(1e-14, 10.0 ** (2 - tab.digits))


@pytest.mark.parametrize(("conditions", "tab"), [(sra_conditions, tableaux.SOSRA), (sri_conditions, tableaux.SOSRI)])
def test_a_wrong_digit_is_seen(conditions, tab):
    """In any number that is not zero."""
    for field in dataclasses.fields(tab):
        value = getattr(tab, field.name)
        if not isinstance(value, tuple):
            continue
        flat = np.concatenate([np.ravel(row) for row in value])
        for place in np.flatnonzero(flat):
            wrong = object.__new__(type(tab))
            wrong.__dict__.update(tab.__dict__)
            nudged, sizes = flat * (1 + 1e-8 * (np.arange(flat.size) == place)), np.cumsum([np.size(x) for x in value])
            rows = np.split(nudged, sizes[:-1])
            nested = isinstance(value[0], tuple)
            wrong.__dict__[field.name] = tuple(tuple(row) for row in rows) if nested else tuple(nudged)
            assert left(conditions, wrong) > 1e-11, (field.name, place)


@pytest.mark.parametrize("tab", stabilized.ROCK2, ids=lambda tab: str(tab.stages))
def test_stabilized(tab):
    """R(z) = 1 + z + z²/2 + O(z³), and |R| < 1 on the interval that is promised, with and without α for noise."""
    mu, kappa = tab.recurrence
    assert abs(tab.alpha * tab.slopes[-2] - 0.5) < 1e-14  # the middle of the step
    for alpha, (sigma, tau), promised in ((1, (tab.sigma, tab.tau), 0.65), (tab.alpha, tab.last, 0.43)):
        reach = promised * tab.stages**2
        z = np.append(np.linspace(-reach, -0.05, 4001), [-1e-3, 1e-3])
        before, p = np.ones_like(z), np.ones_like(z)
        for m, k in zip(mu[:-2], kappa[:-2], strict=True):
            before, p = p, (alpha * m * z + 1 + k) * p - k * before
        r = p * (1 + 2 * sigma * z + tau * z * z)
        assert np.max(np.abs(r[:-2])) < 1
        np.testing.assert_allclose(r[-2:], 1 + z[-2:] + z[-2:] ** 2 / 2, rtol=0, atol=3e-10)
