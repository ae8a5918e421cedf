"""What the parts promise each other. A part is known by this alone: never by its class, or its place in a list.

Shapes: y [*state], t []; a memory is any pytree of arrays whose structure stays the same. Units: step sizes in the unit
of t, errors in that of y.
"""

from __future__ import annotations

from typing import Any, Protocol

import jax

from jaxdiffeq.types import (
    Context,
    Increment,
    Inputs,
    PyTree,
    Settings,
    Shapes,
    State,
    Step,
    StepCotangents,
    StepView,
    Verdict,
)

# ---- recorders: see `jaxdiffeq.engine.recorders.RecorderDefaults` for what most of them answer


class Recorder(Protocol):
    """Sees every step of a solve, and keeps something in two memories.

    Gradients flow through `moving`, whose buffers have a spare last row for writes that must not happen; to them
    `fixed` is constant.
    """

    @property
    def reads_interpolant(self) -> bool: ...

    @property
    def inner(self) -> bool:
        """It serves the steps that follow, and is no output of a solve."""
        ...

    def init(self, inputs: Inputs, start: State, shapes: Shapes, /) -> tuple[Any, Any]:
        """`moving` and `fixed` before the first step; a buffer may be a `jax.ShapeDtypeStruct`."""
        ...

    def wants(self, fixed: Any, inputs: Inputs, direction: jax.Array, t1: jax.Array, /) -> jax.Array:
        """Whether it will read the interpolant of a step that ends at t1, if it ever does. Shapes: []."""
        ...

    def record(self, moving: Any, fixed: Any, step: StepView, inputs: Inputs, /) -> tuple[Any, Any]:
        """Both memories after a step; unchanged but for the spare row unless `step.taken`."""
        ...


class SavingRecorder(Recorder, Protocol):
    """One whose rows become part of a solution, and have derivatives."""

    @property
    def reads_estimates(self) -> bool: ...

    @property
    def at_given_times(self) -> bool: ...

    def at_start(self, inputs: Inputs, start: State, /) -> PyTree:
        """What it keeps without a step, like `moving`; None: nothing."""
        ...

    def between_chunks(self, fixed: Any, /) -> tuple[jax.Array | None, Any]:
        """How many rows are taken away when a solve pauses, None if they stay, and `fixed` to go on with."""
        ...

    def reached(self, fixed: Any, count: int, inputs: Inputs, /) -> jax.Array:
        """Which of its `count` rows hold what a solve has come to. Shapes: [count], or [] for all alike."""
        ...

    def rows(self, moving: Any, /) -> PyTree:
        """What a solution gets to see of `moving`."""
        ...

    def vjp(
        self, bars: StepCotangents, cursor: Any, step: StepView, active: Any, out: PyTree, /
    ) -> tuple[StepCotangents, Any]:
        """`bars` with what the cotangents `out` of `moving` add around this step, and the cursor moved back.

        Steps come last first; `cursor` is the last row not yet seen, −1 after the first. `active` says which of the
        inputs are differentiated; see `jaxdiffeq.gradients.rule.Active`.
        """
        ...


class ValueRecorder(SavingRecorder, Protocol):
    """One whose rows are values of (t, y, args), of which a continuous adjoint needs nothing else."""

    @property
    def observe(self) -> Any:
        """(t, y, args) ↦ a row."""
        ...

    @property
    def first(self) -> int:
        """Where its own begin among the times to save at."""
        ...

    def times(self, moving: Any, inputs: Inputs, /) -> jax.Array:
        """Where its rows lie. Shapes: [rows]."""
        ...

    def parted(self, bars: PyTree, /) -> tuple[PyTree, Any]:
        """Cotangents of rows as those of the values and of the times."""
        ...


# ---- gradients


class BoundStrategy(Protocol):
    """A way to differentiate one integration."""

    def run(self, integration: Any, inputs: Inputs, settings: Settings, /) -> tuple[Any, Any, PyTree]:
        """`Outputs`, which gradients come from, `Constants`, which they do not, and what `pull` needs."""
        ...

    def pull(
        self, integration: Any, active: Any, settings: Settings, constants: Any, tape: Any, bars: Any, /
    ) -> list[jax.Array]:
        """The cotangents of the active leaves of the inputs from `bars`, those of the outputs; linear in these."""
        ...


class GradientStrategy(Protocol):
    """What a user gives as `gradient=`: options alone, hashable."""

    def bind(self, max_steps: int, state_bytes: int, /) -> BoundStrategy:
        """The strategy for solves of at most `max_steps` steps with a state of this size."""
        ...


# ---- noise


class Path(Protocol):
    """A Brownian motion W of which steps take increments. `known` is what of it is not static: a key's data, say.

    Units: w and area of an increment have that of √t. Shapes: those of W.
    """

    def over(self, where: Context, t0: jax.Array, t1: jax.Array, known: Any, /) -> Increment:
        """From t0 to t1, both ends of a step, the one that `where` says."""
        ...

    def within(self, where: Context, ends: tuple[jax.Array, jax.Array], t: jax.Array, known: Any, /) -> Increment:
        """From the first of `ends`, those of a step, to a time t between them; of the same path."""
        ...

    def at(self, span: tuple[jax.Array, jax.Array], size: Any, t: jax.Array, known: Any, /) -> jax.Array:
        """W(t) − W(t₀); `size` is that of equal steps, where there are such."""
        ...


# ---- what a step is made of


class Stepper(Protocol):
    """One method for dy/dt = f(t, y, args) and, of some, for the other forms that a `VectorField` may have."""

    @property
    def order(self) -> float:
        """Of y."""
        ...

    @property
    def error_order(self) -> int | None:
        """The power of dt in the error of one step; None: no estimate, fixed steps only."""
        ...

    @property
    def degree(self) -> int:
        """Of the interpolant's polynomial."""
        ...

    @property
    def evaluations(self) -> tuple[int, int, int]:
        """Calls of f: in `init`, in every attempted step, in `polynomial`."""
        ...

    @property
    def work(self) -> Any:
        """Zeros, as many as a step counts of what varies: a `Work`, or ()."""
        ...

    @property
    def compact(self) -> Any:
        """The same method, up to rounding, as a smaller program."""
        ...

    @property
    def smallest(self) -> Any:
        """The same method, up to rounding, as the smallest program, for one that may never run."""
        ...

    @property
    def on_equal_steps(self) -> Any:
        """The same method where every step has the same size, and none is refused."""
        ...

    def sized(self, n: int, /) -> Any:
        """The method for n unknowns."""
        ...

    def init(self, f: Any, t: jax.Array, y: jax.Array, args: PyTree, /) -> PyTree:
        """Its memory at the start, or where f has changed."""
        ...

    def step(self, f: Any, start: State, t1: jax.Array, args: PyTree, tolerance: Any, /) -> Step:
        """One attempt to get from `start` to t1. It never raises and never retries: `Step.ok` says what failed."""
        ...

    def polynomial(self, f: Any, dense: Any, args: PyTree, /) -> jax.Array:
        """The interpolant from `Step.dense`: coefficients in θ = (t − t₀)/(t₁ − t₀), [degree + 1, *state]."""
        ...


class Controller(Protocol):
    """Says whether a step is good enough, and how long the next one shall be. Constant to differentiation."""

    @property
    def needs_error(self) -> bool: ...

    @property
    def algebraic(self) -> bool:
        """Errors of components that have no derivative count."""
        ...

    @property
    def equal(self) -> bool:
        """Its steps have one size, `n` of them or `dt` each, and none is refused for its error."""
        ...

    def fixed_size(self, span: jax.Array, /) -> Any:
        """The size of its steps over a span of this length, unsigned; None if it finds them as it goes."""
        ...

    def measured(self, around: Any, /) -> Any:
        """The controller with another norm, made of its own."""
        ...

    def init(self, dtype: Any, /) -> PyTree:
        """Its memory; `dtype` is that of t."""
        ...

    def judge(self, before: State, step: Step, dt: jax.Array, memory: PyTree, tolerance: Any, order: Any, /) -> Verdict:
        """The verdict on a step of the unsigned size `dt`; `order` is the stepper's `error_order`."""
        ...


class LinearAlgebra(Protocol):
    """How Jacobians J of n unknowns are held, and systems with W = c·M − J solved. Shapes: vectors [n]."""

    def jacobian(self, g: Any, y: jax.Array, /) -> tuple[jax.Array, Any]:
        """g(y) and its Jacobian."""
        ...

    def at(self, f: Any, given: Any, place: tuple, /) -> tuple[jax.Array, Any]:
        """f and its Jacobian ∂f/∂v at `place`, (t, v, args); `given`, if not None, is what computes the latter."""
        ...

    def magnitude(self, jacobian: Any, /) -> jax.Array:
        """Its largest |entry|; where there are no entries, about its largest |eigenvalue|."""
        ...

    def worth_keeping(self, n: int, /) -> bool:
        """Whether a method with several stages gains by using a Jacobian again."""
        ...

    def shifted(self, c: jax.Array, mass: Any, jacobian: Any, /) -> Any:
        """W; M is the identity if `mass` is None."""
        ...

    def times(self, w: Any, x: jax.Array, /) -> jax.Array:
        """W·x, or J·x."""
        ...

    def factor(self, w: Any, /) -> Any:
        """What `solve` needs of W."""
        ...

    def solve(self, factors: Any, b: jax.Array, transpose: bool = False, /) -> jax.Array:
        """W⁻¹·b, or W⁻ᵀ·b."""
        ...

    def repeated(self, m: int, /) -> Any:
        """For `factor` and `solve` where every unknown is `m` of them, next to each other."""
        ...
