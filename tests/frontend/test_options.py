"""Options: what was left out is chosen once, and what was given stays."""

import dataclasses

import jax.numpy as jnp
import pytest

import jaxdiffeq as jde
from jaxdiffeq.frontend.options import Options
from jaxdiffeq.frontend.plan import prepare
from jaxdiffeq.problems.definitions import terms_of

PROBLEM = jde.ODEProblem(lambda t, y, args: -y, jnp.ones(2), (0.0, 1.0))
TERMS = terms_of(PROBLEM)
ASKED = Options(None, None, False, 1e-8, 1e-10, None, None, 100, ())


def test_what_was_left_out_is_chosen_and_the_rest_is_kept():
    settled = ASKED.settled(TERMS)
    assert settled.method == jde.recommend(PROBLEM, 1e-8).method
    assert settled.controller is settled.method.controller
    assert dataclasses.replace(settled, method=None, controller=None) == ASKED
    given = dataclasses.replace(ASKED, method=jde.RK4(), controller=jde.FixedSteps(5))
    assert given.settled(TERMS).controller is given.controller
    assert given.settled(TERMS).method == jde.RK4().on_equal_steps != jde.RK4()


def test_options_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ASKED.rtol = 1.0  # pyright: ignore[reportAttributeAccessIssue]


def test_equal_plans_come_from_equal_options_and_other_numbers():
    def plan(**changes):
        return prepare(TERMS, dataclasses.replace(ASKED, **changes).settled(TERMS))[0]

    assert plan() == plan(atol=1e-3) and hash(plan()) == hash(plan(atol=1e-3))
    assert plan() != plan(max_steps=99) and plan() != plan(dense=True)
    assert plan(controller=jde.FixedSteps(dt=0.5)).has_first_step and not plan().has_first_step


def test_the_plain_path_is_a_plan_of_its_own(monkeypatch):
    plans = []
    for value in ("0", "1"):
        monkeypatch.setenv("JAXDIFFEQ_PLAIN", value)
        plans.append(prepare(TERMS, ASKED.settled(TERMS))[0])
    assert plans[0] != plans[1] and [p.plain for p in plans] == [False, True]
