"""Everything that raises: one function a check. A message says what came, what was expected and what to do."""

from __future__ import annotations

import inspect
import math
import warnings
import weakref
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiffeq import habits
from jaxdiffeq.primitives.jax_internals import Tracer
from jaxdiffeq.types import PyTree, Result

ROOM = 2**30  # bytes of saved steps that a compiled program may hold


def concrete(x: Any) -> bool:
    """Whether the value of `x` is known now."""
    return not isinstance(x, Tracer)


def all_concrete(tree: PyTree) -> bool:
    return all(concrete(x) for x in jax.tree.leaves(tree))


class InUserCode(Exception):
    """An exception on its way out of a function of the user, past the frames in between."""

    def __init__(self, error: Exception):
        super().__init__(str(error))
        self.error = error


def call(f: Any, *args: Any) -> Any:
    """f(*args), whose exceptions `solve` raises again as they are."""
    try:
        return f(*args)
    except InUserCode:
        raise
    except Exception as error:
        trace = error.__traceback__
        raise InUserCode(error.with_traceback(trace and trace.tb_next)) from None


def out_of_user_code(run: Any, *args: Any) -> Any:
    """run(*args), where what the user's function raised is raised again, with its traceback from there on."""
    try:
        return run(*args)
    except InUserCode as inside:
        error = inside.error
    raise error


SILENCE = "give the problem `check_names=False`"
_LOOKED_AT: weakref.WeakKeyDictionary[Any, set] = weakref.WeakKeyDictionary()
"""functions that have the arguments asked for, to ask once"""


def callable_with(f: Any, name: str, arguments: Sequence[str], ordered: bool = True, silence: str = SILENCE) -> None:
    """A function of so many arguments, whose parameters, unless `ordered` is false, are not named in another order."""
    if not callable(f):
        wanted = f"{name}({', '.join(arguments)})"
        raise TypeError(f"`{name}` must be a function {wanted}, but is {type(f).__name__}: {f!r}.")
    if not inspect.isfunction(f):
        return _signature(f, name, arguments, ordered, silence)
    seen, asked = _LOOKED_AT.setdefault(f, set()), (arguments, ordered)
    if asked not in seen:
        _signature(f, name, arguments, ordered, silence)
        seen.add(asked)


def _signature(f: Any, name: str, arguments: Sequence[str], ordered: bool, silence: str) -> None:
    try:
        signature = inspect.signature(f)
    except (TypeError, ValueError):
        return
    names, wanted = habits.names_of(f) or [], f"{name}({', '.join(arguments)})"
    cure = lambda: f"Write `{habits.reordered(names, arguments, name)}`" if names else "Write a lambda"
    try:
        signature.bind(*arguments)
    except TypeError as error:
        inplace = names and names[0] in habits.SLOPES and "dy" not in arguments
        todo = f"Return the derivative in place of writing into `{names[0]}`" if inplace else cure()
        raise TypeError(
            f"`{name}` must take {len(arguments)} arguments, {wanted}, but its signature is {signature} ({error}). "
            f"{todo}. Parameters that it does not use may be named `_`."
        ) from None
    names = names[: len(arguments)]
    if ordered and habits.misplaced(names, arguments):
        raise TypeError(
            f"`{name}` must take its arguments in the order {wanted}, but the names of its parameters say another "
            f"order: ({', '.join(names)}). {cure()}, or, if the names mean something else, {silence}."
        )


def call_it(given: Any) -> str:
    """What to do with a class, or a function that makes an object, in place of that object."""
    return f" Call it: `{given.__name__}()`." if isinstance(given, type) or inspect.isfunction(given) else ""


def problem(given: Any) -> None:
    library, _ = habits.written(given)
    its = f" of {library}" if library else ""
    hint = " Write solve(ODEProblem(f, y0, (t0, t1), args))." if callable(given) or library else ""
    hint = (
        f" {given.__name__} is a class: give it f, y0 and tspan." if isinstance(given, type) and not library else hint
    )
    raise TypeError(
        f"`solve` takes a problem, such as ODEProblem(f, y0, tspan), but got {type(given).__name__}{its}.{hint}"
    )


def known_fields(changes: Iterable[str], fields: Sequence[str], owner: str, options: Sequence[str] = ()) -> None:
    for name in changes:
        if name in fields:
            continue
        if said := habits.FIELDS.get(owner, {}).get(name):
            raise TypeError(f"{owner} has no field {name!r}, which another library has: {said}.")
        if name in habits.OPTIONS:
            where = "`solve`" if options else owner
            raise TypeError(f"{where} has no option {name!r}, which another library has: {habits.OPTIONS[name]}.")
        hint = habits.option(name, (*fields, *options))
        rest = f"; options of `solve` are {', '.join(options)}" if options else ""
        raise TypeError(f"{owner} has no field {name!r}. Its fields are {', '.join(fields)}{rest}.{hint}")


def no_other_options(others: Iterable[str], owner: str, options: Sequence[str]) -> None:
    """Options of other libraries, and misspelt ones."""
    for name in others:
        if name in habits.OPTIONS:
            raise TypeError(f"{owner} has no option {name!r}, which another library has: {habits.OPTIONS[name]}.")
        hint = habits.option(name, options) or " What `solve` has besides belongs to `solve`." * (name in habits.OURS)
        raise TypeError(f"{owner} has no option {name!r}. Its options are {', '.join(options)}.{hint}")


def time_span(tspan: Any) -> tuple[Any, Any]:
    try:
        t0, t1 = tspan
    except (TypeError, ValueError):
        raise TypeError(f"`tspan` must be a pair (t0, t1), but is {tspan!r}.") from None
    for name, t in (("t0", t0), ("t1", t1)):
        if np.ndim(t) != 0:
            raise TypeError(f"`tspan` must hold two numbers, but {name} has shape {np.shape(t)}.")
        if not real_number(t):
            raise TypeError(f"`tspan` must hold two real numbers, but {name} = {t!r}.")
        if concrete(t) and not math.isfinite(t):
            raise ValueError(
                f"`tspan` must be finite, but {name} = {t}. Give a finite end time; where a solution settles to rest "
                f"is found without time: SteadyStateProblem(f, y0, args), f(y, args)."
            )
    return t0, t1


def real_number(x: Any) -> bool:
    """Whether x is a real number or an array of them."""
    if isinstance(x, float | int):
        return True
    kind = getattr(x, "dtype", None) or np.asarray(x).dtype
    return any(jnp.issubdtype(kind, real) for real in (jnp.floating, jnp.integer, jnp.bool_))


def path_of(path: Any) -> str:
    return "y0" + jax.tree_util.keystr(path)


def state(y0: PyTree) -> None:
    leaves = jax.tree_util.tree_leaves_with_path(y0)
    if not leaves:
        raise ValueError(f"`y0` holds no numbers: {y0!r}. Give at least one array or number.")
    for path, leaf in leaves:
        kind = getattr(leaf, "dtype", None) or np.asarray(leaf).dtype
        if not (jnp.issubdtype(kind, jnp.number) or jnp.issubdtype(kind, jnp.bool_)):
            raise TypeError(
                f"`{path_of(path)}` must be numeric, but is {type(leaf).__name__} of dtype {kind}: {leaf!r}."
            )
        if concrete(leaf) and jnp.issubdtype(kind, jnp.inexact) and not np.all(np.isfinite(leaf)):
            raise ValueError(f"`{path_of(path)}` must be finite, but is {leaf}.")


def one_for_the_other(given: PyTree, y0: PyTree, f: str = "f", name: str = "y0") -> str:
    """What to write where one of both, what `f` returned and the state, is an array and the other a list."""
    sizes = [len(jax.tree.leaves(x)) for x in (given, y0)]
    flat = [isinstance(x, list | tuple) and jax.tree_util.all_leaves(x) for x in (given, y0)]
    names = [type(x).__name__ for x in (given, y0)]
    if jax.tree_util.all_leaves([y0]) and flat[0]:
        parts = ", ".join(f"d{i}" for i in range(sizes[0])) if sizes[0] < 5 else "d0, d1, ..."
        same = "" if np.shape(y0)[:1] == (sizes[0],) else f" `{name}` has the shape {np.shape(y0)}."
        return f" `{name}` is an array and {f} returned a {names[0]}: write `return jnp.stack([{parts}])` in {f}.{same}"
    if jax.tree_util.all_leaves([given]) and flat[1]:
        return (
            f" `{name}` is a {names[1]} of {sizes[1]} and {f} returned an array: give {name}=jnp.array([...]), or "
            f"return a {names[1]} of {sizes[1]}."
        )
    if given is None or y0 is None:
        return f" Does {f} end with a `return`?"
    return ""


def derivative(given: PyTree, y0: PyTree) -> None:
    """The output of f against y0, by structure, shape and kind of number."""
    a, b = jax.tree.structure(given), jax.tree.structure(y0)
    if a != b:
        raise TypeError(
            f"f must return the same pytree as `y0`, but returned {a} where `y0` is {b}.{one_for_the_other(given, y0)}"
        )
    pairs = zip(jax.tree_util.tree_leaves_with_path(y0), jax.tree.leaves(given), strict=True)
    for (path, leaf), slope in pairs:
        if slope.shape != leaf.shape:
            raise ValueError(
                f"f must return the shapes of `y0`, but for `{path_of(path)}` of shape {leaf.shape} it returned "
                f"{slope.shape}."
            )
        if jnp.issubdtype(slope.dtype, jnp.complexfloating) and not jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            raise TypeError(
                f"f returned complex numbers for `{path_of(path)}`, which is {leaf.dtype}. Give a complex `y0`, for "
                f"instance y0 + 0j."
            )


def static(tree: PyTree, name: str) -> None:
    """Whether what a program depends on besides arrays can be compared: it is neither hashable nor a pytree if not."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        try:
            hash(leaf)
        except TypeError:
            kind, whose = type(leaf).__name__, name + jax.tree_util.keystr(path)
            if hasattr(leaf, "__dataclass_fields__"):
                cure = f"write `@jax.tree_util.register_dataclass` above the `@dataclass` of {kind}"
            elif hasattr(leaf, "__dict__") and not callable(leaf):
                cure = "give vars(...) of it, which is a dict"
            else:
                cure = "put what it holds in a dict"
            raise TypeError(
                f"`{whose}` is a {kind}, which is no pytree, so that what is in it cannot be seen. Make it one: "
                f"{cure}, or take a dict, a NamedTuple or an equinox.Module."
            ) from None


def tolerances(rtol: Any, atol: Any) -> None:
    for name, tol in (("rtol", rtol), ("atol", atol)):
        if not jax.tree.leaves(tol):
            raise TypeError(f"`{name}` must be a number, but is {tol!r}.")
        for leaf in jax.tree.leaves(tol):
            if not real_number(leaf):
                raise TypeError(f"`{name}` must be a number, but is {leaf!r}.")
            if concrete(leaf) and not (np.all(np.asarray(leaf) >= 0) and np.all(np.isfinite(leaf))):
                raise ValueError(f"`{name}` must be a finite number that is not negative, but is {leaf}.")
    if all_concrete((rtol, atol)):
        none = [np.all(np.asarray(leaf) == 0) for leaf in jax.tree.leaves((rtol, atol))]
        if all(none):
            raise ValueError(
                "`rtol` and `atol` are both zero, which no step can meet. Give one of them, say rtol=1e-6."
            )


def tolerance_floor(rtol: Any, dtype: Any) -> None:
    """Warn, as often as Python warns from one place in the user's code, which is once."""
    floor = 10 * float(jnp.finfo(dtype).eps)
    if (isinstance(rtol, float) and rtol >= floor) or not all_concrete(rtol):
        return
    given = [float(x) for leaf in jax.tree.leaves(rtol) for x in np.ravel(leaf)]
    low = min((x for x in given if x > 0), default=floor)
    if low < floor:
        frame, level = inspect.currentframe(), 1
        while frame is not None and frame.f_globals["__name__"].startswith("jaxdiffeq."):
            frame, level = frame.f_back, level + 1
        hint = " Put `jax.config.update('jax_enable_x64', True)` first for more." if dtype == np.float32 else ""
        warnings.warn(
            f"rtol = {low:.1e} is below what {jnp.dtype(dtype).name} can resolve; {floor:.1e} is used.{hint}",
            stacklevel=level,
        )


def tolerance_shape(tol: PyTree, y0: PyTree, name: str) -> None:
    a, b = jax.tree.structure(tol), jax.tree.structure(y0)
    if a != b:
        raise ValueError(
            f"`{name}` must be a number or a pytree like `y0` (numbers or arrays for each leaf), but its structure is "
            f"{a} where `y0` has {b}."
        )
    for (path, leaf), t in zip(jax.tree_util.tree_leaves_with_path(y0), jax.tree.leaves(tol), strict=True):
        try:
            fits = np.broadcast_shapes(np.shape(t), np.shape(leaf)) == np.shape(leaf)
        except ValueError:
            fits = False
        if not fits:
            raise ValueError(
                f"`{name}` of shape {np.shape(t)} does not fit `{path_of(path)}` of shape {np.shape(leaf)}."
            )


def one_of(given: Any, name: str, choices: Sequence[Any]) -> None:
    if not any(given is choice or (isinstance(given, type(choice)) and given == choice) for choice in choices):
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, choices))}, but is {given!r}.")


def positive(value: Any, name: str) -> Any:
    if value is None or not concrete(value):
        return value
    number = real_number(value) and not isinstance(value, bool | np.bool_)
    if not (number and np.ndim(value) == 0 and np.isfinite(value) and value > 0):
        raise ValueError(f"`{name}` must be a positive number, but is {value!r}.")
    return value


def positive_integer(value: Any, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"`{name}` must be a positive integer, but is {value!r}.")
    if value >= 2**31:
        raise ValueError(f"`{name}` must be less than 2³¹, but is {value}.")


def highest_order(value: Any, most: int) -> None:
    positive_integer(value, "max_order")
    if value > most:
        raise ValueError(f"`max_order` must be at most {most}, but is {value}.")


def hints(jac: Any, structure: Any, arguments: Sequence[str] = (), ordered: bool = True) -> None:
    """What a problem may say about ∂f/∂y."""
    if jac is not None:
        callable_with(jac, "jac", arguments, ordered)
    if structure is not None and (isinstance(structure, type) or not hasattr(structure, "bind")):
        raise TypeError(
            f"`jac_structure` must be Dense(), Diagonal(), Banded(lower, upper), BlockDiagonal(size), "
            f"Sparse.of(pattern), Detected() or MatrixFree(), or a matrix that is not zero where ∂f/∂y is not, but is "
            f"{structure!r}.{call_it(structure)}"
        )


def mass(given: PyTree, shapes: Any, size: int) -> None:
    raise ValueError(
        f"`mass_matrix` must be a matrix of shape ({size}, {size}), or a diagonal with the structure of y0, but "
        f"has shape {shapes}."
    )


def jacobian(given: Any, size: int) -> Any:
    if np.shape(given) != (size, size):
        raise ValueError(f"`jac` must return an array of shape ({size}, {size}), but returned shape {np.shape(given)}.")
    return given


def automatic_pair(nonstiff: Any, stiff: Any) -> None:
    for role, given in (("nonstiff", nonstiff), ("stiff", stiff)):
        if getattr(given, "error_order", None) is None or not hasattr(given, "measures"):
            raise TypeError(
                f"`Auto({role}=...)` must be a Runge–Kutta or Rosenbrock method with an error estimate, or BDF() "
                f"for the stiff one, such as Auto(Tsit5(), Rodas5P()), but is {given!r}."
            )
    if getattr(getattr(nonstiff, "tableau", None), "pair", None) is None:
        raise ValueError(
            f"`Auto(nonstiff={nonstiff!r})` cannot tell whether a problem is stiff, having no two stages at the same "
            "time. Take Tsit5(), DP5(), Vern7() or another method that has."
        )


def regularisers(given: Any, stepper: Any, names: Sequence[str]) -> tuple[str, ...]:
    """The names of regularisers that this method has."""
    if not isinstance(given, list | tuple) or not set(given) <= set(names):
        raise ValueError(f"`regularisers` must be names out of {tuple(names)}, such as ('energy',), but is {given!r}.")
    for name in given:
        if name not in stepper.regularisers:
            raise ValueError(
                f"{stepper.name} has no derivative of its {name!r}, only of {stepper.regularisers}. "
                "Take an explicit method, such as Tsit5(), which has all of them."
            )
    return tuple(given)


def serves_equation(stepper: Any, mass: Any, residual: Any) -> None:
    """Whether a method solves for dy/dt where it is not given."""
    if residual is not None or callable(mass):
        if not stepper.takes_residual:
            what = "F(t, y, dy/dt) = 0" if residual is not None else "M(t, y)·dy/dt = f with a mass matrix that varies"
            raise ValueError(f"{stepper.name} cannot solve {what}. Take BDF(), KenCarp4() or RadauIIA5().")
    elif mass is not None and not stepper.takes_mass:
        raise ValueError(
            f"{stepper.name} cannot solve M·dy/dt = f with a mass matrix. Take an implicit method, such as Rodas5P()."
        )


def precision(stepper: Any, dtype: Any, algebraic: bool) -> None:
    """Half precision, where matrices can be factored in it."""
    if jnp.finfo(dtype).bits > 16 or not (algebraic or (stepper and not stepper.takes_half)):
        return
    what = "a mass matrix or a DAE takes" if algebraic else f"{stepper.name} takes"
    raise TypeError(
        f"`y0` has dtype {jnp.dtype(dtype).name}, but {what} linear algebra that needs float32 or more. Give "
        f"y0.astype(jnp.float32); an ODE without a mass matrix is solved in half precision by Tsit5() or Rodas5P()."
    )


def unknowns(count: int, algebraic: bool) -> None:
    """A state without numbers, where an equation has to be solved for them."""
    if count == 0 and algebraic:
        raise ValueError(
            "`y0` holds no numbers: its arrays are of size zero, and there is no equation to solve. A state of size "
            "zero needs an ODEProblem without a mass matrix."
        )


def slope_guess(dy0: PyTree, y0: PyTree) -> None:
    if jax.tree.structure(dy0) != jax.tree.structure(y0) or any(
        np.shape(a) != np.shape(b) for a, b in zip(jax.tree.leaves(dy0), jax.tree.leaves(y0), strict=True)
    ):
        shapes = [[np.shape(x) for x in jax.tree.leaves(tree)] for tree in (dy0, y0)]
        raise ValueError(
            f"`dy0` must be a pytree like `y0`, a guess of dy/dt at the start, or None for zeros, but has the leaves "
            f"{shapes[0]} where y0 has {shapes[1]}."
        )


def not_negative_integer(value: Any, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
        raise ValueError(f"`{name}` must be an integer, zero or more, but is {value!r}.")


def divides(size: int, n: int) -> None:
    if n % size:
        raise ValueError(
            f"`jac_structure=BlockDiagonal({size})` does not fit a state of {n} numbers: {size} must divide it."
        )


def pattern(rows: tuple, columns: tuple, n: int) -> None:
    if len(rows) != len(columns):
        raise ValueError(f"A pattern needs as many rows as columns, but has {len(rows)} and {len(columns)}.")
    worst = max((*rows, *columns), default=0)
    if worst >= n or min((*rows, *columns), default=0) < 0:
        raise ValueError(
            f"`jac_structure=Sparse(...)` names entry {worst}, but the state has {n} numbers: 0 to {n - 1}."
        )


def method(stepper: Any, names: Sequence[str] = ()) -> None:
    hint = habits.replacement(stepper, habits.METHODS, names)
    if hint or isinstance(stepper, type) or not (hasattr(stepper, "step") and hasattr(stepper, "init")):
        hint = hint or call_it(stepper)
        if hasattr(stepper, "exact"):
            hint = " That is one for a JumpProblem over a DiscreteProblem, where nothing moves between the jumps."
        raise TypeError(f"`method` must be a method such as Tsit5(), but is {stepper!r}.{hint}")


def controller(given: Any) -> None:
    """One of ours, by what it can do; None stands for a method's own."""
    hint = habits.replacement(given, habits.CONTROLLERS, ("PIDController", "PIController", "IController", "FixedSteps"))
    if given is None or not (hint or isinstance(given, type) or not hasattr(given, "judge")):
        return
    library, _ = habits.written(given)
    hint += " Tolerances are options of `solve`: rtol=, atol=." if library else ""
    hint = f" For steps of one size give FixedSteps(dt={given!r})." if isinstance(given, float | int) else hint
    raise TypeError(
        f"`controller` must be a controller such as PIDController() or FixedSteps(100), but is {given!r}."
        f"{hint or call_it(given)}"
    )


def saved_at(given: Any, name: str = "saveat") -> None:
    """Whether an object says when to save; numbers are looked at elsewhere."""
    library, _ = habits.written(given)
    if library and not isinstance(given, str):
        ts = f" Give {name}=SaveAt(ts=..., steps=..., t0=..., t1=...) of this library, or the times: {name}=[0.0, 1.0]."
        raise TypeError(
            f"`{name}` must be times, a spacing or a SaveAt, but is a {type(given).__name__} of {library}.{ts}"
        )
    if isinstance(given, type) or callable(given):
        raise TypeError(f"`{name}` must be times, a spacing or a SaveAt, but is {given!r}.{call_it(given)}")


def controlled(stepper: Any, controller: Any, first_step: Any) -> None:
    """Whether a method has the estimate of its error that a controller needs."""
    other = "Tsit5()"
    if stepper.takes_noise:
        other = "ALIGN()" if stepper.takes_langevin else "SOSRI()"
    if controller.needs_error and stepper.error_order is None:
        given = ", which needs one" if first_step is None else ""
        raise ValueError(
            f"{stepper.name} has no error estimate, so its steps cannot be controlled{given}. Give equal steps, "
            f"`controller=FixedSteps(100)` or `controller=FixedSteps(dt=0.01)`, or choose a method with an estimate, "
            f"such as {other}."
        )


def rounding(*times: Any) -> float:
    """How far apart, relatively, equal times may be that were computed in these dtypes."""
    dtypes = [np.dtype(getattr(t, "dtype", float)) for t in times]
    return 4 * max(float(jnp.finfo(d).eps) for d in dtypes if jnp.issubdtype(d, jnp.floating))


def one_number(given: Any, name: str) -> None:
    if np.ndim(given) != 0:
        raise ValueError(
            f"`{name}` must make one number of an array, as jnp.max does of moduli, but made one of shape "
            f"{np.shape(given)}."
        )


def times(ts: Any, t0: Any, t1: Any, name: str) -> None:
    if np.ndim(ts) != 1:
        raise ValueError(f"`{name}` must be a list of times, but has shape {np.shape(ts)}.")
    if not all_concrete((ts, t0, t1)):
        return
    values = np.asarray(ts, dtype=float)
    low, high = min(float(t0), float(t1)), max(float(t0), float(t1))
    slack = rounding(ts, t0) * max(abs(low), abs(high))
    bad = ~((values >= low - slack) & (values <= high + slack))
    if bad.any():
        i = int(np.argmax(bad))
        raise ValueError(
            f"`{name}` must lie between t0 = {float(t0)} and t1 = {float(t1)}, but {name}[{i}] = {values[i]}."
        )


def stops(given: Any) -> None:
    if np.ndim(given) > 1 or not real_number(given):
        raise ValueError(f"`stops` must be a list of times, but is {given!r}.")
    if concrete(given) and np.any(np.isnan(given)):
        raise ValueError(f"`stops` must be numbers, but {given} has NaN among them.")


def buffer_size(rows: int, row_bytes: int, max_steps: int) -> None:
    total = rows * row_bytes
    if total > ROOM:
        raise ValueError(
            f"saving every step inside jit needs room for max_steps = {max_steps} rows, {total / 2**30:.1f} GiB here. "
            f"Give `saveat` the times you want, or `saveat=SaveAt(t1=True)`, or a smaller `max_steps`."
        )


def spacing(spacing: Any, t0: Any, t1: Any, name: str = "saveat") -> None:
    positive(spacing, name)
    if not all_concrete((spacing, t0, t1)):
        raise ValueError(
            f"a spacing in `{name}` needs the number of points when it is compiled, but the time span or the spacing "
            f"is traced. Give the times themselves: `{name}=jnp.linspace(t0, t1, 101)`."
        )


def spaced_times(count: int, every: float, name: str = "saveat") -> None:
    if count > 2**27:
        raise ValueError(f"a spacing of {every} in `{name}` asks for {count} times. Give a larger one.")


def save_at_something(saveat: Any) -> None:
    if not (saveat.t0 or saveat.t1 or saveat.steps or saveat.events) and saveat.ts is None and saveat.every is None:
        raise ValueError("`SaveAt()` saves nothing. Give ts=, every=, steps=, events=True, t0=True or t1=True.")
    if saveat.events and saveat.fn is not None:
        raise ValueError(
            "`SaveAt(events=True)` saves states, but fn= is given. Solve without one of them: `sol.events.before` and "
            "`sol.events.after` have the states on both sides of every event whatever is saved."
        )


def saved_events(saveat: Any, events: Any) -> None:
    if saveat.events and not events:
        raise ValueError("`SaveAt(events=True)` saves both sides of every event, but `events` is empty.")


def is_dense(solution: Any) -> None:
    if solution.interpolant is None:
        raise ValueError("this solution has no dense output. Solve with `dense=True`, or give the times in `saveat`.")
    if np.ndim(solution.result) > 0:
        raise ValueError(
            f"these are {np.shape(solution.result)} solutions, from a `vmap`. Evaluate them in one, too: "
            f"`jax.vmap(lambda s: s(t))(sol)`."
        )


def no_time(options: Any) -> None:
    """A steady state has no time: what steers steps and what is saved on the way means nothing."""
    for name in ("method", "saveat", "first_step", "controller"):
        if getattr(options, name) is not None:
            raise TypeError(f"a SteadyStateProblem takes no `{name}`: there is no time in it. Leave it out.")
    if options.dense or len(options.stops) or options.regularisers:
        raise TypeError("a SteadyStateProblem takes no `dense`, `stops` or `regularisers`: there is no time in it.")


def fixed_steps(n: Any, dt: Any) -> None:
    if (n is None) == (dt is None):
        raise ValueError(
            "FixedSteps takes a number of steps or dt=, one of them: FixedSteps(100) or FixedSteps(dt=0.1)."
        )
    if n is not None:
        positive_integer(n, "FixedSteps(n)")


def equal_steps(controller: Any) -> bool:
    """Whether it makes equal steps, of a size that is one; None stands for a method's own, and none of these does."""
    if controller is None or not controller.equal:
        return False
    positive(controller.dt, "FixedSteps(dt)")
    return True


def strategy(given: Any, names: Sequence[str]) -> None:
    hint = habits.replacement(given, habits.GRADIENTS, names)
    if hint or isinstance(given, type) or not hasattr(given, "bind"):
        known = ", ".join(f"{n}()" for n in names)
        raise TypeError(f"`gradient` must be one of {known}, but is {given!r}.{hint or call_it(given)}")


def takes_strategy(loss: Any) -> None:
    wanted = "a function (x, gradient) ↦ number that hands `gradient` on: `def loss(x, gradient): ... solve(..., "
    wanted += "gradient=gradient) ...`, so that it can be taken with every strategy"
    if not callable(loss):
        raise TypeError(f"`loss` must be {wanted}, but is {type(loss).__name__}: {loss!r}.")
    try:
        signature = inspect.signature(loss)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(None, gradient=None)
    except TypeError as error:
        raise TypeError(f"`loss` must be {wanted}, but its signature is {signature} ({error}).") from None


def unsupported(message: str) -> None:
    raise NotImplementedError(message)


# ---- after a solve


class SolveError(RuntimeError):
    """A solve failed. `solution` holds everything up to there; the message says where, what, why, and what to try."""

    result = Result.running

    def __init__(self, message: str, solution: Any):
        super().__init__(message)
        self.solution = solution


class MaxStepsReached(SolveError):
    result = Result.max_steps_reached


class StepSizeTooSmall(SolveError):
    result = Result.step_size_too_small


class NonlinearSolveFailed(SolveError):
    result = Result.nonlinear_solve_failed


class NonfiniteSolution(SolveError):
    result = Result.nonfinite


class InitialisationFailed(SolveError):
    result = Result.initialisation_failed


class EventLimitReached(SolveError):
    result = Result.event_limit_reached


class HistoryTooShort(SolveError):
    result = Result.history_too_short


BY_RESULT = {error.result: error for error in SolveError.__subclasses__()}
