"""What noise adds to a plan: where the increments of its path come from, and what becomes of the drift."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiffeq import errors
from jaxdiffeq.noise.paths import Counted, Tree
from jaxdiffeq.problems import noise_errors
from jaxdiffeq.problems.definitions import Noise
from jaxdiffeq.problems.ravel import real_dtype
from jaxdiffeq.problems.user_functions import Driving

ITO = "ito"


class Source(NamedTuple):
    """What of the noise is known when a solve is compiled."""

    name: str
    impl: str
    """of the key"""
    how: str
    """"counter", "tree", or "given" """
    sign: int
    """of the correction to the drift: 1 from Stratonovich to Itô"""
    snaps: bool
    ito: bool
    """the drift is one of Itô's calculus, once it has been corrected"""
    forwards: bool = True
    """in time, as the method or a drift that is corrected asks"""
    ends: bool = False
    """all that is saved is known to lie at ends of steps"""


def source(noise: Noise, stepper: Any, controller: Any, looks: bool) -> tuple[Source, Any]:
    """How the path is made, and the key's data; `looks`: steps may be refused to land on events."""
    how, equal = noise.brownian, controller.equal
    if how is None:
        how = "counter" if equal and not looks else "tree"
    elif isinstance(how, str):
        errors.one_of(how, "brownian", ("counter", "tree"))
        if how == "counter" and not (equal and not looks):
            noise_errors.counter()
    else:
        how.follows(controller.n if equal and not looks else None)
        how = "given"
    impl, data = ("", ()) if how == "given" and noise.key is None else noise_errors.key_data(noise.key)
    own = noise.interpretation in stepper.interpretations or noise.name == "additive"
    given = noise.interpretation == ITO
    sign = 0 if own else -1 if given else 1
    forwards = sign != 0 or not stepper.either_way
    return Source(noise.name, impl, how, sign, how == "tree" and not equal, given == own, forwards), data


def saved_at_ends(source: Source | None, equal: int | None, ts: Any, span: tuple[Any, Any]) -> Source | None:
    """With what is known of the times to save at, where steps are equal."""
    if source is None or equal is None or not errors.all_concrete((ts, span)):
        return source
    t0, t1 = (float(t) for t in span)
    place = (np.asarray(ts, float) - t0) / ((t1 - t0) or 1.0) * equal
    slack = max(1e-6, 8 * equal * float(np.finfo(np.asarray(span[0]).dtype).eps))
    return source._replace(ends=bool(np.all(np.abs(place - np.round(place)) < slack)))


def given(noise: Noise) -> Any:
    """The user's own path."""
    return None if isinstance(noise.brownian, str) else noise.brownian


class PathOf(NamedTuple):
    """The path for a Brownian motion of some shape, and what of it is not static."""

    source: Source
    dtype: Any
    brownian: Any
    span: tuple[jax.Array, jax.Array]
    data: Any

    def __call__(self, shape: tuple[int, ...]) -> tuple[Any, Any]:
        impl = self.source.impl
        if self.source.how == "given":
            return self.brownian.bound(shape, self.dtype, self.span, (impl, self.data) if impl else None)
        return {"counter": Counted, "tree": Tree}[self.source.how](shape, self.dtype, impl), jnp.asarray(self.data)


def driving(source: Source, y: jax.Array, brownian: Any, span: tuple[jax.Array, jax.Array], data: Any) -> Driving:
    path = PathOf(source, jnp.dtype(real_dtype(y.dtype)), brownian, span, data)
    return Driving(source.name, path, source.sign, source.ito)
