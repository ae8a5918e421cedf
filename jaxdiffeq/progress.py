"""Progress bars: `solve(progress=True)`, under `jit` and `vmap` too, and `bar` for a training loop.

A solve that is not watched has no callback in its program. One that is calls the host when its mean progress over all
lanes passes another percent, every thousand steps, and at the end: a hundred calls or so, however many steps it takes.
"""

from __future__ import annotations

import functools
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdiffeq.types import Inputs

PERCENT = 100
STEPS = 1000  # a solve that is stuck should be seen counting
WIDTH = 24
T = TypeVar("T")
TERMINAL, LOG = 0.1, 10.0  # seconds between two drawings, on a terminal and in a file


# ---- text


class Bar:
    """One line of text that is drawn again and again: on a terminal and in a notebook in place, else line by line."""

    def __init__(self, label: str):
        self.label = label
        self.begun = time.monotonic()
        self.drawn = -float("inf")

    def show(self, fraction: float, note: str = "", last: bool = False) -> None:
        """Draw, unless the last drawing was a moment ago; the `last` one is always drawn and ends the line."""
        out, now = sys.stderr, time.monotonic()
        live = out.isatty() or "ipykernel" in sys.modules
        if not last and now - self.drawn < (TERMINAL if live else LOG):
            return
        self.drawn = now
        filled = round(WIDTH * min(max(fraction, 0.0), 1.0))
        seconds = int(now - self.begun)
        line = (
            f"{self.label} {fraction:4.0%} {'━' * filled}{'·' * (WIDTH - filled)} {seconds // 60}:{seconds % 60:02d}"
            f"{'  ' if note else ''}{note}"
        )
        try:
            line.encode(getattr(out, "encoding", None) or "utf-8")
        except UnicodeEncodeError:
            line = line.replace("━", "#").replace("·", ".").encode("ascii", "replace").decode("ascii")
        end = "\n" if last or not live else ""
        out.write((f"\r{line}\033[K" if live else line) + end)
        out.flush()


@dataclass
class Loop(Generic[T]):
    """An iterable that draws how far its loop has come. What the loop sets as `note` is shown beside the bar."""

    items: Iterable[T]
    label: str = "progress"
    note: str = field(default="", init=False)

    def __iter__(self) -> Iterator[T]:
        items = self.items if hasattr(self.items, "__len__") else list(self.items)
        total, line = len(items), Bar(self.label)  # pyright: ignore[reportArgumentType]  # it has a length now
        done = 0
        try:
            for item in items:
                line.show(done / total, self.note)
                yield item
                done += 1
        finally:  # a loop that breaks ends its line too
            line.show(done / total if total else 1.0, self.note, last=True)


def bar(items: Iterable[T], label: str = "progress") -> Loop[T]:
    """A progress bar for a loop: `for epoch in (epochs := bar(range(100), "fit")): ...; epochs.note = "loss 3.1"`."""
    return Loop(items, label)


class Report(NamedTuple):
    """How far a solve has come; under `vmap` the slowest lane and the mean of all."""

    low: float
    """of the slowest lane, from 0 at t0 to 1 at t1"""
    mean: float
    steps: int
    """attempted, in the lane with the most"""
    lanes: int
    done: bool
    """no lane goes on; `low` is below 1 if one of them failed"""


class _Screen:
    """The bar on which solves report; a new one begins when the last solve has ended."""

    def __init__(self) -> None:
        self.line: Bar | None = None
        self.lock = threading.Lock()  # callbacks come from the threads of the devices

    def __call__(self, report: Report) -> None:
        with self.lock:
            self.line = self.line or Bar("solve")
            note = f"{report.steps} steps"
            if report.lanes > 1:
                note += f" at most, slowest of {report.lanes} lanes {report.low:.0%}"
            self.line.show(report.mean, note, report.done)
            self.line = None if report.done else self.line


on_screen = _Screen()


# ---- inside a compiled program


@dataclass(frozen=True)
class Watch:
    """What the loop calls after each trip. `sink` gets a `Report` now and then; a new sink is a new program."""

    sink: Callable[[Report], None]

    def __call__(self, value: jax.Array, inputs: Inputs, before: tuple, after: tuple, done: jax.Array) -> jax.Array:
        """`value`, unchanged: who needs it needs the report too, so that neither is removed as dead code.

        `before` and `after` the trip are the time and the number of attempted steps.
        """
        span = inputs.t1 - inputs.t0
        share = lambda t: (t - inputs.t0) / jnp.where(span == 0, 1, span)
        numbers = share(before[0]), share(after[0]), before[1], after[1], done
        numbers = [jnp.asarray(lax.stop_gradient(x)) for x in numbers]
        return _reporting(self.sink)(jnp.asarray(value), *numbers)


def watcher(progress: bool | Callable[[Report], None]) -> Watch | None:
    """What `solve(progress=...)` means: nothing, a bar on stderr, or a function of your own."""
    if progress is False or progress is None:
        return None
    if progress is not True and not callable(progress):
        raise TypeError(f"`progress` must be True, False or a function of a Report, but is {progress!r}.")
    return Watch(on_screen if progress is True else progress)


@functools.lru_cache
def _reporting(sink: Callable[[Report], None]) -> Callable:
    """value, numbers ↦ value, and a report if one is due; one call for all lanes."""

    @jax.custom_batching.custom_vmap
    def reported(value, before, after, first, last, done):
        over = jnp.all(done)
        percent = lambda share: jnp.floor(PERCENT * jnp.mean(share))
        passed = percent(after) > percent(before)
        due = over | passed | (jnp.max(last) // STEPS > jnp.max(first) // STEPS)
        tell = functools.partial(_deliver, sink=sink, lanes=after.size)

        def call():
            jax.debug.callback(tell, jnp.min(after), jnp.mean(after), jnp.max(last), over)

        lax.cond(due, call, lambda: None)
        return value

    @reported.def_vmap
    def _(size, batched, *operands):
        spread = [x if b else jnp.broadcast_to(x, (size, *x.shape)) for x, b in zip(operands, batched, strict=True)]
        return reported(*spread), True

    @jax.custom_jvp
    def watched(value, *numbers):
        return reported(value, *numbers)

    @watched.defjvp
    def _(primals, tangents):
        return watched(*primals), tangents[0]

    return watched


def _deliver(low: Any, mean: Any, steps: Any, done: Any, *, sink: Callable, lanes: int) -> None:
    low, mean, steps, done = (np.asarray(x) for x in (low, mean, steps, done))
    sink(Report(float(low), float(mean), int(steps), lanes, bool(done)))
