"""What raises for paths of the user's."""

from __future__ import annotations

from typing import Any, NoReturn


def shape(what: str, came: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    if came != wanted:
        raise ValueError(
            f"{what} must have the shape of the Brownian motion that the diffusion takes, {wanted}, but has {came}."
        )


def rows(w: Any, area: Any) -> None:
    if w.ndim == 0 or w.shape[0] == 0:
        raise ValueError(f"`w` must have a row for each of n equal steps, [n, *noise], but has shape {w.shape}.")
    if area is not None and area.shape != w.shape:
        raise ValueError(f"`area` must have the shape of `w`, {w.shape}, but has {area.shape}.")


def no_area() -> NoReturn:
    raise ValueError(
        "this method takes the space-time Lévy area of each step, which the given path does not tell. Give "
        "BrownianPath(function, integral=...), BrownianIncrements(w, area=...) or BrownianIncrements(w, key=...), or "
        "take a method that does not, such as EulerMaruyama()."
    )


def no_key() -> NoReturn:
    raise ValueError(
        "this method draws numbers of its own in each step besides the given path, and has no key for it: give one as "
        "`key=`, in the problem or in solve(problem, key=jax.random.key(0))."
    )


def grid(cells: int, steps: int | None, has_key: bool) -> None:
    """Whether equal `steps`, None for other ones, begin and end where increments over equal cells are known."""
    if has_key or (steps is not None and cells % steps == 0):
        return
    what = "steps of other sizes" if steps is None else f"{steps} equal steps"
    raise ValueError(
        f"BrownianIncrements with {cells} rows says nothing of W between their ends, where {what} go. Give "
        f"controller=FixedSteps({cells}), or BrownianIncrements(w, key=...) to have the path refined."
    )


def no_path(given: Any) -> NoReturn:
    raise TypeError(
        f'`brownian` must be "counter", "tree", a function t ↦ W(t), an array of increments over equal steps, or a '
        f"BrownianPath, BrownianIncrements or BrownianTree, but is {given!r}."
    )
