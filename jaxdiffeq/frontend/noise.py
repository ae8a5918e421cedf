"""What noise adds to a plan: where the increments of its path come from, and what becomes of the drift."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

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


def source(noise: Noise, stepper: Any, equal: bool, looks: bool) -> tuple[Source, Any]:
    """How the path is made, and the key's data; `looks`: steps may be refused to land on events."""
    how = noise.brownian
    if how is None:
        how = "counter" if equal and not looks else "tree"
    elif isinstance(how, str):
        errors.one_of(how, "brownian", ("counter", "tree"))
        if how == "counter" and not (equal and not looks):
            noise_errors.counter()
    else:
        how = "given"
    impl, data = ("", ()) if how == "given" else noise_errors.key_data(noise.key)
    own = noise.interpretation in stepper.interpretations or noise.name == "additive"
    given = noise.interpretation == ITO
    sign = 0 if own else -1 if given else 1
    return Source(noise.name, impl, how, sign, how == "tree" and not equal, given == own), data


@dataclass(frozen=True)
class PathOf:
    """The path for a Brownian motion of some shape."""

    source: Source
    dtype: Any

    def __call__(self, shape: tuple[int, ...]) -> Any:
        kind = {"counter": Counted, "tree": Tree}[self.source.how]
        return kind(shape, self.dtype, self.source.impl)


def driving(source: Source, y: jax.Array) -> Driving:
    return Driving(source.name, PathOf(source, jnp.dtype(real_dtype(y.dtype))), source.sign, source.ito)
