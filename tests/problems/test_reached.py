"""What lies outside of f's arguments may change between two solves, and the answer changes with it."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiffeq as jde

RATE, RATES = 1.0, {"k": 1.0}


class Model:
    def __init__(self, k):
        self.k, self.calls, self.seen = k, 0, []

    def slope(self, t, y, _):
        return -self.k * y

    def __call__(self, t, y, _):
        self.calls += 1
        self.seen.append(y)
        return -self.k * y


class Slotted:
    __slots__ = ("k",)

    def slope(self, t, y, _):
        return -self.k * y


def of_global(t, y, _):
    return -RATE * y


def of_entry(t, y, _):
    return -RATES["k"] * y


def helper(y):
    return -RATE * y


def of_helper(t, y, _):
    return (lambda y: helper(y))(y)


def held(k, t, y, _):
    return -k * y


DEFAULT = np.array(1.0)


def with_default(t, y, _, k=DEFAULT):
    return -k * y


def end(f, args=None):
    sol = jde.solve(jde.ODEProblem(f, 1.0, (0.0, 1.0), args), jde.BS3(), saveat=jde.SaveAt(t1=True))
    return float(sol.ys[-1])


def nonlocal_number():
    k = 1.0

    def f(t, y, _):
        return -k * y

    def change(value):
        nonlocal k
        k = value

    return f, change


def cases():
    """Name ↦ a right-hand side, and what makes its rate another one."""
    model, slotted, array = Model(1.0), Slotted(), np.array(1.0)
    slotted.k = 1.0
    cell, change = nonlocal_number()
    return {
        "method": (model.slope, lambda k: setattr(model, "k", k)),
        "callable object": (model, lambda k: setattr(model, "k", k)),
        "slots": (slotted.slope, lambda k: setattr(slotted, "k", k)),
        "closed array": (lambda t, y, _: -array * y, lambda k: array.fill(k)),
        "partial": (functools.partial(held, array), lambda k: array.fill(k)),
        "nonlocal": (cell, change),
        "default": (with_default, lambda k: DEFAULT.fill(k)),
        "global": (of_global, lambda k: globals().update(RATE=k)),
        "entry of a dict": (of_entry, lambda k: RATES.update(k=k)),
        "through a helper": (of_helper, lambda k: globals().update(RATE=k)),
    }


@pytest.mark.parametrize("name", cases())
def test_what_changed_is_seen(name):
    f, change = cases()[name]
    for k in (1.0, 2.0):
        change(k)
        assert end(f) == pytest.approx(np.exp(-k), rel=2e-2)


def test_a_plain_object_in_args():
    f, args = (lambda t, y, p: -p.k * y), Model(1.0)
    assert end(f, args) == pytest.approx(np.exp(-1), rel=2e-2)
    args.k = 2.0
    assert end(f, args) == pytest.approx(np.exp(-2), rel=2e-2)


def test_what_a_function_keeps_for_itself_is_no_parameter():
    """It may count and collect while it is traced: that must not have it traced again."""
    model, record = Model(1.0), []

    def recording(t, y, _):
        record.append(1)
        record.append(y)
        return -y

    for f in (model, recording):
        end(f)
        before = model.calls, len(record)
        assert end(f) == pytest.approx(np.exp(-1), rel=2e-2)
        assert (model.calls, len(record)) == before


def test_a_redefined_array_is_another_one():
    k = jnp.array(1.0)
    f = lambda t, y, _: -k * y
    end(f)
    k = jnp.array(2.0)
    assert end(f) == pytest.approx(np.exp(-2), rel=2e-2)
