"""Whether times can be told apart in the dtype of t: spans, times to save at, stops, and sizes of steps."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiffeq import errors

RESOLVED = 256  # units of rounding of its own times, which a span has to be longer than


def beside(t: jax.Array, towards: jax.Array) -> jax.Array:
    """The next time that can be told from t, in the direction of the sign of `towards`.

    From zero that is the smallest number that keeps all its digits: lesser ones are taken for zero on the way.
    """
    far = jnp.where(towards < 0, -jnp.inf, jnp.inf).astype(t.dtype)
    least = jnp.where(towards < 0, -1, 1).astype(t.dtype) * jnp.finfo(t.dtype).tiny
    return jnp.where(t == 0, least, jnp.nextafter(t, far))


def _cure(dtype: Any) -> str:
    if jnp.dtype(dtype).itemsize >= 8:
        return "Shift the origin of time: integrate over (0, t1 - t0) and let f add t0."
    wider = "put `jax.config.update('jax_enable_x64', True)` first"
    if jax.config.jax_enable_x64:
        wider = "give a `y0` of float64, or the times as np.float64"
    return f"Shift the origin of time, integrate over (0, t1 - t0) and let f add t0; or {wider}."


def _unit(dtype: Any, *times: Any) -> float:
    return float(jnp.finfo(dtype).eps) * max(abs(float(t)) for t in times)


def resolved(t0: Any, t1: Any, dtype: Any) -> None:
    """Whether a span, as it was given, is more than rounding of its own times."""
    if not errors.all_concrete((t0, t1)):
        return
    span, unit = abs(float(t1) - float(t0)), _unit(dtype, t0, t1)
    if 0 < span < RESOLVED * unit:
        raise ValueError(
            f"`tspan` = ({float(t0)!r}, {float(t1)!r}) is {span / unit:.3g} units of rounding long in "
            f"{jnp.dtype(dtype).name}, which is no more than noise: it must be {RESOLVED} at least. {_cure(dtype)}"
        )


def steps_resolved(first_step: Any, controller: Any, t0: Any, t1: Any) -> None:
    """Whether steps of a given size move t."""
    if not errors.all_concrete((t0, t1)):
        return
    span, unit = abs(float(t1) - float(t0)), _unit(t0.dtype, t0, t1)
    given: tuple[tuple[str, Any], ...] = (
        ("first_step", first_step),
        ("max_step", controller.max_step),
        ("FixedSteps", controller.fixed_size(span)),
    )
    for name, size in given:
        if size is None or not (errors.concrete(size) and errors.real_number(size) and np.ndim(size) == 0):
            continue
        if span > 0 and 0 < float(size) < min(unit, span):
            raise ValueError(
                f"`{name}` gives steps of {float(size):.3g}, which do not move a time of size "
                f"{max(abs(float(t0)), abs(float(t1))):.9g} in {t0.dtype.name}. {_cure(t0.dtype)}"
            )


def apart(given: Any, dtype: Any, name: str, ends: tuple = ()) -> None:
    """Whether times that were given as different ones are so in this dtype."""
    if isinstance(given, list | tuple) and len(given) < 2 - (ends != ()):
        return
    if not errors.all_concrete((given, ends)) or np.size(given) == 0:
        return
    values = np.sort(np.append(np.ravel(np.asarray(given, float)), [float(t) for t in ends]))
    noise = 4 * np.finfo(float).eps * np.abs(values[1:])
    lost = (np.diff(values) > noise) & (np.diff(values.astype(dtype)) == 0)
    if lost.any():
        one, other = values[int(np.argmax(lost)) :][:2].tolist()
        raise ValueError(
            f"`{name}` has {one!r} and {other!r}, which are the same time in {jnp.dtype(dtype).name}. {_cure(dtype)}"
        )
