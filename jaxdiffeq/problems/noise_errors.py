"""What raises for equations with noise."""

from __future__ import annotations

from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiffeq import errors
from jaxdiffeq.noise.given import data_of
from jaxdiffeq.noise.kinds import Kind
from jaxdiffeq.types import PyTree

KEY = "give one as `key=`, in the problem or in solve(problem, key=jax.random.key(0))"


def forwards(stepper: Any, t0: Any, t1: Any) -> None:
    if errors.all_concrete((t0, t1)) and t1 < t0:
        raise ValueError(
            f"{stepper} goes forwards in time, but tspan is ({float(t0):g}, {float(t1):g}). Backwards go "
            "EulerMaruyama() for an equation of Itô's, StochasticHeun() for one of Stratonovich's, with no drift "
            "converted; or write the equation in s = t0 - t, with −drift."
        )


def key_data(key: Any) -> tuple[str, Any]:
    """The name of a key's generator, and its data."""
    if key is None:
        raise ValueError(f"a problem with noise or jumps needs a key: {KEY}.")
    if isinstance(key, int) or not hasattr(key, "dtype"):
        raise TypeError(f"`key` must be a key of jax.random, but is {key!r}: {KEY}.")
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    words = () if typed else jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0))).shape
    if not typed and (key.dtype != np.uint32 or key.shape[-1:] != words):
        wrong = f"an array of {key.dtype} with shape {key.shape}"
        raise TypeError(f"`key` must be one key of jax.random, but is {wrong}: {KEY}.")
    if key.ndim != len(words):
        raise TypeError(
            f"`key` must be one key, but is an array of keys with shape {key.shape[: key.ndim - len(words)]}. For an "
            "ensemble write jax.vmap(lambda key: solve(problem, key=key).ys)(keys)."
        )
    return data_of(key)


def has_path(solution: Any) -> None:
    if solution.noise is None:
        _refuse("there is no Brownian path: this is the solution of an equation without noise.")


def one_path(t_end: Any) -> None:
    if np.ndim(t_end):
        _refuse(
            f"this is an ensemble of solutions, {np.shape(t_end)}, with a path each. Write "
            "jax.vmap(lambda sol: sol.brownian(t))(sols)."
        )


def counter() -> NoReturn:
    _refuse(
        'brownian="counter" draws by the number of the step, which is one path only where every step has the same size '
        'and none is refused. Give controller=FixedSteps(n), or brownian="tree".'
    )


def serves(stepper: Any, noise: Any) -> None:
    """Whether a method takes an equation with this noise, or without."""
    if noise is None:
        if stepper is not None and stepper.takes_noise:  # a steady state has none
            _refuse(
                f"{stepper} is a method for noise, but the problem has none. Give an SDEProblem, or another method."
            )
        return
    if not stepper.takes_noise:
        _refuse(f"{stepper} has no place for noise. Give SOSRI(), SOSRA() or EulerMaruyama(), say, or no method.")
    if stepper.takes_langevin and noise.langevin is None:
        _refuse(f"{stepper} is made for a LangevinProblem, of friction and a force. Give SOSRA(), say, or no method.")
    if noise.name not in stepper.serves:
        served = ", ".join(f'"{name}"' for name in stepper.serves)
        more = f' It takes {served}. `recommend(problem)` names one that takes "{noise.name}" noise.'
        _refuse(f'{stepper} does not take noise="{noise.name}".{more}')
    if noise.name != "additive" and noise.interpretation not in stepper.interpretations and not noise.convert:
        other = stepper.interpretations[0]
        _refuse(
            f'{stepper} solves in the sense of "{other}", but interpretation="{noise.interpretation}". Give '
            "convert=True to have the drift corrected, or a method of that calculus; `recommend(problem)` names one."
        )


def _refuse(message: str) -> NoReturn:
    raise ValueError(message)


def diffusion(given: PyTree, y: PyTree, name: str) -> Kind:
    """The kind of noise, of which the shape of the diffusion is a part; that has to go with its name."""
    of_y = [(errors.path_of(path), np.shape(x)) for path, x in jax.tree_util.tree_leaves_with_path(y)]
    if jax.tree.structure(given) != jax.tree.structure(y):
        cure = errors.one_for_the_other(given, y, "diffusion")
        came = jax.tree.structure(given)
        raise TypeError(f"diffusion must return a pytree like y, {jax.tree.structure(y)}, but returned {came}.{cure}")
    for (path, x), b in zip(jax.tree_util.tree_leaves_with_path(y), jax.tree.leaves(given), strict=True):
        if jnp.iscomplexobj(b) and not jnp.iscomplexobj(x):
            raise TypeError(
                f"diffusion returned complex numbers for `{errors.path_of(path)}`, which is {x.dtype}. Give a complex "
                "`y0`, for instance y0 + 0j."
            )
    shapes = [np.shape(x) for x in jax.tree.leaves(given)]
    alike = shapes == [shape for _, shape in of_y]
    longer = all(len(s) == len(shape) + 1 and s[:-1] == shape for s, (_, shape) in zip(shapes, of_y, strict=True))
    columns = {s[-1] for s in shapes} if longer else set()
    if name in ("diagonal", "scalar", "additive") and alike:
        return Kind(name)
    if name in ("additive", "commutative", "general") and len(columns) == 1:
        return Kind(name, columns.pop())
    wanted = {
        "diagonal": "the shape of y, for one Brownian motion to each number,",
        "scalar": "the shape of y, for one Brownian motion,",
        "additive": "the shape of y, or one axis more for m Brownian motions,",
    }.get(name, "the shape of y and one axis more, for m Brownian motions,")
    came = ", ".join(
        f"{path or 'y'}: {s} for a state of {shape}" for s, (path, shape) in zip(shapes, of_y, strict=True)
    )
    cure = ' Give noise="general".' if longer and name in ("diagonal", "scalar") else ""
    cure = ' Give noise="diagonal", or noise="scalar".' if alike and not cure else cure
    same = len(shapes) == 1 and shapes[0] == () and not longer and name in ("diagonal", "scalar", "additive")
    cure = " For one number everywhere write jnp.full_like(y, number)." if same else cure
    _refuse(f'with noise="{name}" diffusion must return {wanted} but returned {came}.{cure}')


def depends_on_state(name: str) -> NoReturn:
    _refuse(
        f'noise="{name}" is for a diffusion that does not depend on y, but this one computes with y. Give '
        'noise="diagonal", "commutative" or "general"; or take its shape alone, as jnp.full_like(y, 0.1) does.'
    )


# -------------------- options of methods ------------------------------------------------------------------------------


def implicit_share(theta: Any) -> float:
    """θ of a θ-method."""
    number = isinstance(theta, int | float | np.number) and not isinstance(theta, bool)
    if not (number and 0 < theta <= 1):
        raise ValueError(f"`theta` must be a number above 0 and at most 1, but is {theta!r}.")
    return float(theta)


def stabilized(stages: Any, tables: tuple) -> Any:
    """The first of the tables with as many stages."""
    fewest, most = tables[0].stages, tables[-1].stages
    whole = isinstance(stages, int | np.integer) and not isinstance(stages, bool)
    if not (whole and fewest <= stages <= most):
        raise ValueError(f"`stages` must be an integer from {fewest} to {most}, but is {stages!r}.")
    return next(table for table in tables if table.stages >= stages)


def terms(count: Any) -> int:
    """Of a series for Lévy areas."""
    if isinstance(count, bool) or not isinstance(count, int | np.integer) or count < 0:
        raise ValueError(f"`terms` must be an integer of at least 0, but is {count!r}.")
    return int(count)
