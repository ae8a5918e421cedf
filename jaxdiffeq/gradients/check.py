"""Compare gradient strategies with finite differences."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiffeq import errors
from jaxdiffeq.gradients.adjoint import BacksolveAdjoint, GaussAdjoint, InterpolatingAdjoint, QuadratureAdjoint
from jaxdiffeq.gradients.forward import ForwardAD
from jaxdiffeq.gradients.reverse import ReverseAD
from jaxdiffeq.gradients.reversible import ReversibleAdjoint
from jaxdiffeq.types import PyTree

ALL = (
    *(ReverseAD(), ForwardAD(), BacksolveAdjoint()),
    *(InterpolatingAdjoint(), QuadratureAdjoint(), GaussAdjoint()),
)
OF_NOISE = (ReversibleAdjoint(),)  # rows only where they serve
DIRECTIONS = 2


@dataclass(frozen=True)
class Comparison:
    """One strategy: its relative difference from finite differences in `grad` and in `jvp`, and what to make of it."""

    strategy: Any
    grad: float
    jvp: float
    agrees: bool
    note: str
    serves: bool = True


@dataclass(frozen=True)
class GradientReport:
    """What `check_gradients` found; prints as a table, and is true if every strategy agrees.

    Of all strategies, which nobody has asked for by name, those that do not serve the loss have no say.
    """

    rows: tuple[Comparison, ...]
    noise: float
    """relative uncertainty of the finite differences themselves"""
    smooth: str = ""
    """why there is no derivative here, if events say so"""
    asked: bool = True
    """for these strategies, by name"""

    def __bool__(self) -> bool:
        return not self.smooth and all(row.agrees for row in self.rows if self.asked or row.serves)

    def __getitem__(self, strategy: type) -> Comparison:
        return next(row for row in self.rows if isinstance(row.strategy, strategy))

    def __str__(self) -> str:
        names = [type(row.strategy).__name__ for row in self.rows]
        width = max(map(len, (*names, "strategy")))
        lines = [f"{'strategy':<{width}}  {'grad':>8}  {'jvp':>8}  agrees  note"]
        for name, row in zip(names, self.rows, strict=True):
            verdict = "yes" if row.agrees else "NO"
            lines.append(f"{name:<{width}}  {row.grad:8.1e}  {row.jvp:8.1e}  {verdict:<6}  {row.note}".rstrip())
        lines.append(f"relative differences from central differences, which are uncertain by {self.noise:.1e}")
        return "\n".join([*lines, self.smooth] if self.smooth else lines)


class _Seen(threading.local):
    """What the solves of a loss say of their events while it is checked: (one hardly crosses zero, how many)."""

    events: list[tuple[bool, int]] | None = None


SEEN = _Seen()
GRAZES = "an event hardly crosses zero here (`sol.events.grazing`): a little less and nothing happens. No derivative."
COME_AND_GO = "as x moves a little, another number of events happens: there may be no derivative here."


def tell_of_events(log: Any) -> None:
    """Let a solve's log of events be seen, if a loss is being checked."""
    if SEEN.events is None or log is None:
        return
    grazing = jnp.any(log.grazing & log.mask)
    jax.debug.callback(lambda grazes, count: _see(bool(np.any(grazes)), int(np.sum(count))), grazing, log.count)


def _see(grazes: bool, count: int) -> None:
    if SEEN.events is not None:
        SEEN.events.append((grazes, count))


@contextlib.contextmanager
def _seeing() -> Iterator[list]:
    before, SEEN.events = SEEN.events, []
    try:
        yield SEEN.events
    finally:
        SEEN.events = before


def _smooth(value: Callable, x: PyTree, differences: Callable) -> tuple[Any, str]:
    """The differences, and what events say of the derivative: at x, and whether there are as many beside it."""
    with _seeing() as here:
        jax.block_until_ready(value(x))
        jax.effects_barrier()
        at_x = sorted(count for _, count in here)
        grazes = any(touches for touches, _ in here)
        here.clear()
        found = differences()
        jax.effects_barrier()
        beside = sorted(count for _, count in here)
    times = len(beside) // max(len(at_x), 1)
    if grazes:
        return found, GRAZES
    return found, "" if beside == sorted(at_x * times) else COME_AND_GO


def check_gradients(
    loss: Callable[..., Any], x: PyTree, strategies: Iterable[Any] | None = None, *, rtol: float = 1e-3, seed: int = 0
) -> GradientReport:
    """Differentiate `loss(x, gradient=strategy)`, a number, with every strategy, and compare with finite differences.

    Without `strategies` with all of them, `ReversibleAdjoint` where it serves: steps of `ReversibleHeun()`.

    The derivatives along random directions of the size of x are compared, from `grad` and from `jvp`, with central
    differences of four widths, Richardson-extrapolated; of these the one that is least uncertain counts. A strategy
    agrees if both are within `rtol`, or within three times the uncertainty. Small tolerances in `solve` make finite
    differences, and so the comparison, sharper; use float64.
    Where an event of a solve in the loss hardly crosses zero, or as many events do not happen beside x as at x, there
    may be no derivative: the report says so, and is false.
    Errors: `TypeError` for a loss that takes no `gradient`; a strategy that cannot serve this loss gets a row that
    says why.
    Source: Ridders 1982, doi:10.1016/S0141-1195(82)80057-0.
    """
    errors.takes_strategy(loss)
    x = jax.tree.map(jnp.asarray, x)
    asked = strategies is not None
    strategies = (*ALL, *OF_NOISE) if strategies is None else tuple(strategies)
    value = jax.jit(lambda x: loss(x, gradient=strategies[0]))
    rng = np.random.default_rng(seed)
    directions = [jax.tree.map(lambda leaf: _direction(rng, leaf), x) for _ in range(DIRECTIONS)]
    differences = lambda: [_difference(value, x, d) for d in directions]
    found, smooth = _smooth(value, x, differences)
    wanted, doubt = zip(*found, strict=True)
    scale = max(np.linalg.norm(wanted), np.finfo(float).tiny)
    noise = float(np.linalg.norm(doubt) / scale)
    rows = [_compare(loss, s, x, directions, (np.asarray(wanted), scale, max(rtol, 3 * noise))) for s in strategies]
    rows = [row for row in rows if asked or row.serves or row.strategy not in OF_NOISE]
    return GradientReport(tuple(rows), noise, smooth, asked)


def _direction(rng: np.random.Generator, leaf: jax.Array) -> jax.Array:
    """Random, of the size of the leaf; zero for integers."""
    if not jnp.issubdtype(leaf.dtype, jnp.inexact):
        return jnp.zeros_like(leaf)
    size = np.maximum(np.abs(np.asarray(leaf)), 1e-3)
    parts = rng.uniform(0.5, 1, leaf.shape) * rng.choice([-1, 1], leaf.shape)
    if jnp.iscomplexobj(leaf):
        parts = parts + 1j * rng.uniform(-1, 1, leaf.shape)
    return jnp.asarray(size * parts, leaf.dtype)


def _difference(value: Callable, x: PyTree, d: PyTree) -> tuple[float, float]:
    """The derivative along d, and how uncertain it is: by halved widths, extrapolated from orders two and four."""
    eps = max(
        float(jnp.finfo(leaf.dtype).eps) for leaf in jax.tree.leaves(d) if jnp.issubdtype(leaf.dtype, jnp.inexact)
    )

    def central(h):
        def at(s):
            return float(value(jax.tree.map(lambda a, b: a + (s * h * b).astype(a.dtype), x, d)))

        return (at(1.0) - at(-1.0)) / (2 * h)

    best = np.nan, np.inf
    for h in 0.25 * eps ** np.array([0.2, 0.25, 0.3, 0.35]):
        wide, middle, narrow = (central(h / 2**k) for k in range(3))
        first, second = (4 * middle - wide) / 3, (4 * narrow - middle) / 3
        third = (16 * second - first) / 15
        doubt = abs(third - second)
        if doubt < best[1]:
            best = third, doubt
    return best


def _compare(loss: Callable, strategy: Any, x: PyTree, directions: list, target: tuple) -> Comparison:
    wanted, scale, limit = target

    def of(x):
        return loss(x, gradient=strategy)

    def derivative(x, d):
        return jax.jvp(of, (x,), (_tangent(x, d),))[1]

    try:
        grad = jax.jit(jax.grad(of, allow_int=True))(x)
        jvp = np.array([jax.jit(derivative)(x, d) for d in directions])
    except (NotImplementedError, TypeError, ValueError) as error:
        note = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        return Comparison(strategy, np.nan, np.nan, False, note, not isinstance(error, NotImplementedError))
    along = np.array([_dot(grad, d) for d in directions])
    off = [float(np.linalg.norm(found - wanted) / scale) for found in (along, jvp)]
    agrees = all(error <= limit for error in off)
    return Comparison(strategy, off[0], off[1], agrees, _note(strategy, off, limit))


def _tangent(x: PyTree, d: PyTree) -> PyTree:
    zero = lambda leaf: np.zeros(leaf.shape, jax.dtypes.float0)
    return jax.tree.map(lambda a, b: b if jnp.issubdtype(a.dtype, jnp.inexact) else zero(a), x, d)


def _dot(grad: PyTree, d: PyTree) -> float:
    pairs = zip(jax.tree.leaves(grad), jax.tree.leaves(d), strict=True)
    return float(sum(np.sum(np.real(np.asarray(g) * np.asarray(e))) for g, e in pairs if g.dtype != jax.dtypes.float0))


def _note(strategy: Any, off: list[float], limit: float) -> str:
    """`off`: of grad and of jvp."""
    if np.isnan(off[0]) and not np.isnan(off[1]):
        return "the backward solve failed: the gradient is NaN"
    if any(np.isnan(off)):
        return "the solve, or the finite differences, failed"
    if off[0] > limit and isinstance(strategy, BacksolveAdjoint):
        return "wrong: the reversed equation is unstable, or steps along a path are too wide; use ReverseAD()"
    if off[0] > limit >= off[1]:
        return "the gradient is wrong, or its backward solve needs smaller tolerances"
    return "" if max(off) <= limit else "not even forward mode agrees: is the loss smooth, and are tolerances small?"
