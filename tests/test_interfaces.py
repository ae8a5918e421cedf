"""The promises of `jaxdiffeq.interfaces`, kept by every part. Pyright checks the types of these tables."""

from typing import Any, cast

import jax.numpy as jnp
import numpy as np
import pytest
from helpers.made import MADE, NOISY

import jaxdiffeq as jde
from jaxdiffeq import interfaces
from jaxdiffeq.algebra import structure
from jaxdiffeq.algebra.krylov import Krylov
from jaxdiffeq.engine.driven import SaveOnPath
from jaxdiffeq.engine.events import Events, SaveEvents
from jaxdiffeq.engine.history import Pieces
from jaxdiffeq.engine.log import Log, Window
from jaxdiffeq.engine.recorders import RecorderDefaults, SaveAtEvents, SaveSteps, SaveTimes, Stacked
from jaxdiffeq.engine.regularisers import RegulariserSums
from jaxdiffeq.frontend.plan import Calls
from jaxdiffeq.gradients.quadrature import Integrals, Quadrature
from jaxdiffeq.gradients.segments import Checkpoints, Polynomials
from jaxdiffeq.noise.given import Function, Grid
from jaxdiffeq.noise.paths import Counted, Tree


def observe(t, y, args):
    return y


VALUES: list[interfaces.ValueRecorder] = [
    *(SaveTimes(observe), SaveSteps(observe, 4), SaveAtEvents(observe, 4), Stacked(observe, 4)),
    SaveOnPath(observe, field=None, stepper=None),
]
NO_EVENTS = Events((), None, np.zeros(0), None, (), lambda args: [], lambda args, new: args, 4, False)
SAVING: list[interfaces.SavingRecorder] = [
    *VALUES,
    RegulariserSums(("error",)),
    SaveEvents(NO_EVENTS),
    Integrals(lambda t, y, args: [y], (), 3),
]
RECORDERS: list[interfaces.Recorder] = [
    *SAVING, Log(4, 64), Window(4), Pieces(4), Checkpoints(4, 64), Polynomials(),
    Quadrature(lambda t, z, args: [z], (), 3), Calls((), cast(Any, None)),
]  # fmt: skip
STRATEGIES: list[interfaces.GradientStrategy] = [
    *(jde.ReverseAD(), jde.ForwardAD(), jde.BacksolveAdjoint(), jde.InterpolatingAdjoint()),
    *(jde.QuadratureAdjoint(), jde.GaussAdjoint()),
]
BOUND: list[interfaces.BoundStrategy] = [strategy.bind(100, 16) for strategy in STRATEGIES]
STEPPERS: list[interfaces.Stepper] = [  # one of each family
    *{type(m): m for m in NOISY.values()}.values(),
    *(jde.Tsit5(), jde.Rodas5P(), jde.KenCarp4(), jde.RadauIIA5(), jde.BDF(), jde.SBDF2(), jde.Adams()),
    jde.AutoTsit5(),
]
CONTROLLERS: list[interfaces.Controller] = [jde.PIDController(), jde.PredictiveController(), jde.FixedSteps(4)]
ALGEBRAS: list[interfaces.LinearAlgebra] = [
    structure.Dense(),
    structure.Diagonal().bind(3),
    Krylov(jde.MatrixFree(), lambda t, v, args: v, None),
]

PATHS: list[interfaces.Path] = [
    Counted((), jnp.float32, "threefry2x32"),
    Tree((), jnp.float32, "threefry2x32"),
    Function(None, lambda consts, t: t),
    Grid(None, 4, jnp.float32, None),
]

PROMISES = {
    interfaces.Path: PATHS,
    interfaces.Recorder: RECORDERS,
    interfaces.SavingRecorder: SAVING,
    interfaces.ValueRecorder: VALUES,
    interfaces.GradientStrategy: STRATEGIES,
    interfaces.BoundStrategy: BOUND,
    interfaces.Stepper: STEPPERS,
    interfaces.Controller: CONTROLLERS,
    interfaces.LinearAlgebra: ALGEBRAS,
}


def members(promise):
    """Of a protocol and of those that it extends."""
    return sorted({name for kind in promise.__mro__ for name in vars(kind) if name[0] != "_"})


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
def test_every_part_has_what_its_interface_promises(promise):
    assert members(promise)
    for part in PROMISES[promise]:
        missing = [name for name in members(promise) if not hasattr(part, name)]
        assert not missing, (type(part).__name__, missing)


def test_no_interface_and_no_family_is_left_out():
    own = lambda kind: isinstance(kind, type) and kind.__module__ == interfaces.__name__
    protocols = set(filter(own, vars(interfaces).values()))
    assert protocols == set(PROMISES)
    assert {type(m) for m in (MADE | NOISY).values()} <= {type(m) for m in STEPPERS}
    kept = RecorderDefaults.__subclasses__()
    assert {*kept, *(child for kind in kept for child in kind.__subclasses__())} == {type(r) for r in RECORDERS}
