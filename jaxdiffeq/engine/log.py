"""The log that a gradient replays: states now and then, from which the steps between them are taken again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdiffeq.engine.recorders import RecorderDefaults
from jaxdiffeq.primitives.row_buffer import read, rows, write
from jaxdiffeq.primitives.while_loop import frozen_while
from jaxdiffeq.types import Inputs, Shapes, Sizing, State, StepView


class Marks(NamedTuple):
    """The constant part of the log: how each kept step was made, and the number of steps from one slot to the next."""

    made: Sizing
    stride: jax.Array


class Held(NamedTuple):
    """What the recorders have: what gradients flow through, and what is constant to them, each by name."""

    records: dict[str, Any]
    marks: dict[str, Any]


@dataclass(frozen=True)
class Log(RecorderDefaults):
    """What a replay needs: the state before every `stride`-th step, with the step size and the controller's memory.

    When the `slots` are full every other one is dropped and the stride doubles, so a solve of any length fits, and
    running the controller again from a slot gives the same steps. Sizes are not kept step by step: on a CPU a buffer
    is filled with zeros before its use, and one of `max_steps` numbers costs more than a small solve.
    Shapes: moving, State of [slots + 1, ...]; fixed, `Marks` of [slots + 1, ...].
    """

    slots: int
    capacity: int
    first_stride: int = 1

    @property
    def thins(self) -> bool:
        return self.slots * self.first_stride < self.capacity

    @property
    def window(self) -> Window:
        """What a replay keeps at a time."""
        return Window(max(self.slots // 4, 8))

    def init(self, inputs: Inputs, start: State, shapes: Shapes) -> tuple[State, Marks]:
        made = rows(shapes.made, self.slots)
        return rows(start, self.slots), Marks(made, jnp.full((), self.first_stride, jnp.int32))

    def record(self, moving: State, fixed: Marks, step: StepView, inputs: Inputs) -> tuple[State, Marks]:
        n, taken = step.number, step.taken
        if self.thins:
            moving, fixed = self._thin(moving, fixed, taken & (n >= self.slots * fixed.stride))
        due, slot = taken & (n % fixed.stride == 0), n // fixed.stride
        made = write(fixed.made, slot, step.made, due)
        return write(moving, slot, step.before, due), Marks(made, fixed.stride)

    def _thin(self, moving: State, fixed: Marks, full: jax.Array) -> tuple[State, Marks]:
        """Move every other slot to the front half; a loop, since its buffers are updated in place, a branch's not."""

        def more(slots, fixed):
            return full & (fixed[1] < self.slots // 2)

        def move(slots, fixed):
            made, i = fixed
            wanted, source = more(slots, fixed), jnp.minimum(2 * i, self.slots)
            made = write(made, i, read(made, source), wanted)
            return write(slots, i, read(slots, source), wanted), (made, i + wanted.astype(i.dtype))

        moving, (made, _) = frozen_while(more, move, moving, (fixed.made, jnp.ones((), jnp.int32)))
        return moving, Marks(made, jnp.where(full, 2 * fixed.stride, fixed.stride))


class WindowMarks(NamedTuple):
    """The number of the first step in a window, and how its steps were made, `Sizing` of [size + 1]."""

    first: jax.Array
    made: Any


@dataclass(frozen=True)
class Window(RecorderDefaults):
    """The states before `size` consecutive steps and how these were made, without the controller's memory.

    Shapes: moving, State of [size + 1, ...]; fixed, `WindowMarks`.
    """

    size: int

    def init(self, inputs: Inputs, start: State, shapes: Shapes) -> tuple[State, WindowMarks]:
        made = shapes.made._replace(controller=None)
        return rows(start, self.size), WindowMarks(jnp.zeros((), jnp.int32), rows(made, self.size))

    def record(self, moving: State, fixed: WindowMarks, step: StepView, inputs: Inputs) -> tuple[State, WindowMarks]:
        place = step.number - fixed.first
        due = step.taken & (place >= 0) & (place < self.size)
        made = write(fixed.made, place, step.made._replace(controller=None), due)
        return write(moving, place, step.before, due), WindowMarks(fixed.first, made)
