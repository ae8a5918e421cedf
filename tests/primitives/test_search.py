"""How many sorted numbers lie at or before another, however they lie."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiffeq.primitives.search import FEW, WINDOW, count_until

RNG = np.random.default_rng(5)
TABLES = {
    "equal": lambda n: np.linspace(0.0, 1.0, n),
    "uneven": lambda n: np.sort(RNG.uniform(size=n)),
    "crowded": lambda n: np.linspace(0.0, 1.0, n) ** 20,
    "repeated": lambda n: np.sort(RNG.integers(0, 5, n)) / 4.0,
    "all the same": lambda n: np.full(n, 0.5),
    "many at the end": lambda n: np.minimum(np.linspace(0.0, 2.0, n), 1.0),
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("n", [1, FEW, FEW + 1, 100, 1025])
def test_the_count_is_that_of_numpy(name, n):
    rows = 1 + TABLES[name](n)  # numbers next to zero are taken for zero in a program
    at = np.concatenate([[-np.inf, -1.0, 2.0, np.inf], rows, np.nextafter(rows, 9), np.nextafter(rows, -9)])
    found = jax.jit(jax.vmap(lambda x: count_until(jnp.asarray(rows), x)))(at)
    np.testing.assert_array_equal(found, np.searchsorted(rows, at, side="right"))
    down = jax.jit(lambda xs: jax.lax.map(lambda x: count_until(jnp.asarray(-rows), x, -1.0), xs))(-at)
    np.testing.assert_array_equal(down, found)


def test_many_are_not_all_looked_at():
    """No operation is as large as the table, so none takes a time in proportion to it."""
    program = jax.make_jaxpr(count_until)(jnp.zeros(100_000), 0.5)

    def sizes(jaxpr):
        for eqn in jaxpr.eqns:
            passed_on = {id(v) for v in eqn.invars}
            yield from (v.aval.size for v in eqn.outvars if id(v) not in passed_on)
            for inner in jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from sizes(inner)

    found = [n for n in sizes(program.jaxpr) if n < 100_000]
    large = [n for n in sizes(program.jaxpr) if n >= 100_000]
    assert max(found) == WINDOW
    assert len(large) <= 1  # the copy that `stop_gradient` is on paper, and is not in a program
