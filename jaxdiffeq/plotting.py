"""Pictures of solutions, of work against precision, and of a model as it learns. Needs matplotlib: the extra `plot`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

COLOURS = ("#2660a4", "#d1603d", "#3a8f5c", "#8a5fa8", "#b8912b", "#4aa3b5", "#8c4a4a", "#6b6b6b")
MARKERS = "osD^vP*X"
STYLE = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.edgecolor": "0.4",
    "grid.color": "0.9",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "font.size": 10.0,
    "lines.linewidth": 1.6,
    "figure.dpi": 110,
}
SMOOTH = 600  # points of a curve drawn from dense output
LEGEND = 10  # more curves than that have no names
SETTINGS = (
    *("title", "xlabel", "ylabel", "zlabel", "xlim", "ylim", "zlim", "xscale", "yscale", "zscale"),
    *("xticks", "yticks", "aspect", "facecolor"),
)  # of axes, by the names that matplotlib's `Axes.set` has for them


def pyplot() -> Any:
    """matplotlib.pyplot, with the colours and lines of this library within `style`."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError('pictures need matplotlib and pillow: pip install "jaxdiffeq[plot]"') from error
    return plt


def style() -> Any:
    """A context in which figures look as they do here."""
    plt = pyplot()
    return plt.rc_context({**STYLE, "axes.prop_cycle": plt.cycler(color=COLOURS)})


# -------------------- solutions ---------------------------------------------------------------------------------------


class Drawable(Protocol):
    """What a picture of a solution is made from; `Solution` says what each of them is."""

    @property
    def ts(self) -> Any: ...
    @property
    def ys(self) -> Any: ...
    @property
    def num_saved(self) -> Any: ...
    @property
    def result(self) -> Any: ...
    @property
    def interpolant(self) -> Any: ...
    def __call__(self, t: Any) -> Any: ...


def plot_solution(
    sol: Drawable,
    vars: Any = None,
    ax: Any = None,
    *,
    labels: Sequence[str] | None = None,
    label: str | Sequence[str] | None = None,
    figsize: tuple[float, float] | None = None,
    log: str = "",
    points: int = SMOOTH,
    mark_saved: bool = False,
    **line: Any,
) -> Any:
    """Draw components against time, or with a tuple of two or three of them the phase portrait; returns the axes.

    `vars`: None for every component; a list of components against time; a tuple (a, b) or (a, b, c) for a curve in
    the plane or in space. A component is its number in the flattened state, its path like "hares" or "foxes.young[2]",
    or "t" for time. Curves are smooth where the solution has dense output, and go through what was saved elsewhere.
    `labels` are names of the curves; `label` is one for all of them, as where several solutions share their axes.
    `log`: the axes to make logarithmic, among "xyz". `line`: what matplotlib's `plot` takes, and of `Axes.set` the
    title, labels, limits, scales and ticks.
    Units: `figsize` in inches.
    Errors: `ImportError` without matplotlib; `ValueError` for a batch of solutions, or no such component.
    """
    plt = pyplot()
    if np.ndim(sol.result):
        raise ValueError("this is a batch of solutions: pick one, as in jax.tree.map(lambda x: x[0], sol)")
    names = components(sol.ys)
    curves = _curves(sol, points)
    phase = isinstance(vars, tuple)
    if phase and len(vars) not in (2, 3):
        raise ValueError(
            f"a phase portrait has two or three components, but `vars` is {vars!r}; for curves give a list"
        )
    wanted = list(names) if vars is None else vars if isinstance(vars, tuple | list) else [vars]
    picked = [_find(v, names) for v in wanted]
    settings = {name: line.pop(name) for name in SETTINGS if name in line}
    labels, label = (labels, label) if label is None or isinstance(label, str) else (label, None)
    with style():
        if ax is None:
            figure = plt.figure(layout="constrained", figsize=figsize)
            ax = figure.add_subplot(projection="3d" if phase and len(picked) == 3 else None)
        marks = _saved(sol) if mark_saved else None
        if phase:
            titles = labels or [_title(name) for name in picked]
            _draw_phase(ax, (picked, titles), names, curves, marks, {**line, "label": label})
        else:
            titles = _names_of_curves(picked, labels or [], label)
            settings |= {"ylabel": _title(picked[0])} if label and len(picked) == 1 and "ylabel" not in settings else {}
            _draw_series(ax, (picked, titles), names, curves, marks, line)
        for axis in log:
            getattr(ax, f"set_{axis}scale")("log")
        ax.set(**settings)
        if label is not None:
            ax.legend()
    return ax


def _names_of_curves(picked: list[str], labels: Sequence[str], label: str | None) -> list[str]:
    if len(labels) > len(picked):
        raise ValueError(f"there are {len(picked)} curves, but {len(labels)} names for them: {[*labels]}")
    titles = [*labels, *map(_title, picked[len(labels) :])]
    if label is None or labels:
        return titles
    return [label] if len(titles) == 1 else [f"{label}, {title}" for title in titles]


def components(ys: Any) -> dict[str, int]:
    """The name of every number in a state, by the path of its leaf, and its place. Shapes: ys [rows, ...]."""
    found: dict[str, int] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(ys):
        stem = ".".join(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path)
        for index in np.ndindex(leaf.shape[1:]):
            inner = ", ".join(map(str, index))
            found[f"{stem}[{inner}]" if index else stem] = len(found)
    return found


def _find(var: Any, names: Mapping[str, int]) -> str:
    """The name of a component that was given by number or name."""
    if var == "t":
        return "t"
    if isinstance(var, str):
        if var in names:
            return var
    elif -len(names) <= int(var) < len(names):
        return list(names)[int(var)]
    some = ", ".join(repr(name) for name in list(names)[:8])
    raise ValueError(f"no component {var!r}; there are {len(names)}, among them {some}, and 't'")


def _title(name: str) -> str:
    return "t" if name == "t" else f"y{name}" if name.startswith("[") else name or "y"


def _flat(ys: Any) -> np.ndarray:
    rows = [np.asarray(leaf).reshape(leaf.shape[0], -1) for leaf in jax.tree.leaves(ys)]
    return np.concatenate([np.real(row) if np.iscomplexobj(row) else row for row in rows], axis=1)


def _saved(sol: Drawable) -> tuple[np.ndarray, np.ndarray]:
    count = int(sol.num_saved)
    return np.asarray(sol.ts)[:count], _flat(sol.ys)[:count]


def _curves(sol: Drawable, points: int) -> tuple[np.ndarray, np.ndarray]:
    """Times and values to draw: evenly in the steps taken where there is dense output, else what was saved."""
    if sol.interpolant is None:
        return _saved(sol)
    knots = np.asarray(sol.interpolant.times)[: int(sol.interpolant.count) + 1]
    per_step = 1 - (-points // max(len(knots) - 1, 1))
    ts = np.concatenate([*[np.linspace(a, b, per_step)[:-1] for a, b in itertools.pairwise(knots)], knots[-1:]])
    return ts, _flat(sol(ts))


def _column(name: str, names: Mapping[str, int], ts: np.ndarray, curves: np.ndarray) -> np.ndarray:
    return ts if name == "t" else curves[:, names[name]]


def _draw_phase(ax: Any, picked: tuple, names: Mapping[str, int], curves: tuple, saved: Any, line: dict) -> None:
    components, titles = picked
    columns = [_column(name, names, *curves) for name in components]
    (drawn,) = ax.plot(*columns, **line)
    ax.plot(*[c[:1] for c in columns], "o", color=drawn.get_color(), markersize=5)  # where it starts
    for axis, title in zip("xyz", titles, strict=False):
        getattr(ax, f"set_{axis}label")(title)
    if saved is not None:
        ax.plot(*[_column(name, names, *saved) for name in components], ".", color="0.3")


def _draw_series(ax: Any, picked: tuple, names: Mapping[str, int], curves: tuple, saved: Any, line: dict) -> None:
    components, titles = picked
    for name, title in zip(components, titles, strict=True):
        (drawn,) = ax.plot(curves[0], _column(name, names, *curves), label=title, **line)
        if saved is not None:
            ax.plot(saved[0], _column(name, names, *saved), ".", color=drawn.get_color())
    ax.set_xlabel("t")
    if len(components) == 1:
        ax.set_ylabel(titles[0])
    elif len(components) <= LEGEND:
        ax.legend()


# -------------------- work, precision, order --------------------------------------------------------------------------


def plot_work_precision(results: Mapping[str, Sequence[tuple[float, float]]], ax: Any = None, *, work: str = "") -> Any:
    """Errors against the work they cost, one curve for each name in `results`: pairs (error, work).

    `work` says what was counted, "seconds" for instance. Further left is more accurate and lower is cheaper.
    """
    with style():
        ax = _axes(ax)
        for (name, pairs), marker in zip(results.items(), _cycle(MARKERS, len(results)), strict=True):
            errors, costs = np.array(sorted(pairs)).T
            ax.loglog(errors, costs, marker=marker, markersize=4.5, label=name)
        ax.set_xlabel("error")
        ax.set_ylabel(work or "work")
        ax.legend()
    return ax


def plot_convergence(results: Mapping[str, tuple[Any, Any]], ax: Any = None) -> Any:
    """Errors against step sizes, one curve for each name in `results`: (step sizes, errors); the legend says the slope.

    The slope is the least-squares one of all points, in logarithms.
    """
    with style():
        ax = _axes(ax)
        for (name, (dts, errors)), marker in zip(results.items(), _cycle(MARKERS, len(results)), strict=True):
            slope = np.polyfit(np.log(dts), np.log(errors), 1)[0]
            ax.loglog(dts, errors, marker=marker, markersize=4.5, label=f"{name}, slope {slope:.2f}")
        ax.set_xlabel("step size")
        ax.set_ylabel("error")
        ax.legend()
    return ax


def _axes(ax: Any) -> Any:
    return pyplot().figure(layout="constrained").add_subplot() if ax is None else ax


def _cycle(items: Sequence[str], count: int) -> list[str]:
    return [items[i % len(items)] for i in range(count)]


# -------------------- animations --------------------------------------------------------------------------------------


def animate_training(
    frames: Iterable[Any],
    draw: Callable[[Any, Any], None],
    path: str | Path,
    *,
    seconds: float = 0.1,
    hold: float = 1.5,
    size: tuple[float, float] = (4.8, 3.6),
    dpi: int = 80,
) -> Path:
    """Write a GIF with one picture for each of `frames`, by `draw(ax, frame)` on empty axes; returns its path.

    Pictures are shown for `seconds`, the last one for `hold`; all of them share the colours of the last one, which
    keeps the file small. `draw` should set the limits of the axes, or the picture jumps.
    Units: `size` in inches.
    """
    plt = pyplot()
    from PIL import Image  # comes with matplotlib

    pictures = []
    with style():
        figure = plt.figure(figsize=size, dpi=dpi, layout="constrained")
        for frame in frames:
            figure.clear()
            draw(figure.add_subplot(), frame)
            figure.canvas.draw()
            pictures.append(Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB"))
        plt.close(figure)
    if not pictures:
        raise ValueError("`frames` is empty: there is nothing to animate")
    palette = pictures[-1].quantize(64, Image.Quantize.MAXCOVERAGE)  # keeps white white
    pictures = [p.quantize(palette=palette, dither=Image.Dither.NONE) for p in pictures]
    durations = [round(1000 * seconds)] * (len(pictures) - 1) + [round(1000 * hold)]
    path = Path(path)
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=durations, loop=0, optimize=True)
    return path
