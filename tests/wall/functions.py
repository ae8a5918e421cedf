"""The public functions of JAX that make numbers of numbers, found by walking its namespaces.

Each is tried with a few shapes of arguments; for those that want more than arrays a call is written out. What remains
is listed with the reason.
"""

# pyright: reportArgumentType=false
# numpy's arrays where JAX says its own: what users give, and what JAX takes

import functools
import inspect
import re
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy
import jax.scipy.cluster.vq
import jax.scipy.fft
import jax.scipy.integrate
import jax.scipy.interpolate
import jax.scipy.linalg
import jax.scipy.ndimage
import jax.scipy.optimize
import jax.scipy.signal
import jax.scipy.spatial.transform
import jax.scipy.special
import jax.scipy.stats
import numpy as np
from jax import lax

ROOTS = {"numpy": jnp, "lax": lax, "nn": jax.nn, "scipy": jax.scipy}
V, S, M = np.zeros(2), np.zeros(()), np.zeros((2, 2))
SHAPES = [(V,), (V, V), (V, V, V), (M,), (M, V), (M, M), (V, S), (S,), (S, S), (S, S, S)]


def words(text: str) -> list[str]:
    return text.split()


class Call(NamedTuple):
    name: str
    fun: Callable
    """x [2], between 0.2 and 1 ↦ a number"""
    program: str
    operations: frozenset[str]


# Names, with `*` at the end for all that begin so, of what makes no numbers of traced numbers.
NO_MAPS = {
    "tells of types or shapes": """numpy.can_cast numpy.result_type numpy.promote_types numpy.issubdtype numpy.isdtype
        numpy.broadcast_shapes numpy.iterable numpy.isscalar numpy.shape numpy.size numpy.ndim numpy.iscomplexobj
        numpy.isrealobj lax.broadcast_shapes lax.dtype lax.padtype_to_pads lax.conv_dimension_numbers
        lax.conv_general_shape_tuple lax.conv_shape_tuple lax.conv_transpose_shape_tuple lax.conv_general_permutations
        lax.reduce_window_shape_tuple lax.shape_as_value numpy.einsum_path nn.get_scaled_dot_general_config""",
    "reads, writes or prints": """numpy.array_repr numpy.array_str numpy.save numpy.savez numpy.load numpy.from*
        numpy.get_printoptions numpy.set_printoptions numpy.printoptions""",
    "has a result whose shape depends on values": """numpy.trim_zeros numpy.unique_all numpy.unique_inverse
        numpy.packbits numpy.unpackbits""",
    "changes its argument, which no array of JAX allows": "numpy.place numpy.put numpy.fill_diagonal",
    "makes a constant of whole numbers": """numpy.arange numpy.bartlett numpy.blackman numpy.hamming numpy.hanning
        numpy.kaiser numpy.empty numpy.eye numpy.ones numpy.zeros numpy.full numpy.identity numpy.indices numpy.tri
        numpy.tril_indices numpy.triu_indices numpy.mask_indices numpy.diag_indices numpy.fft.fftfreq
        numpy.fft.rfftfreq lax.empty lax.iota lax.broadcasted_iota lax.full scipy.linalg.dft scipy.linalg.hadamard
        scipy.linalg.helmert scipy.linalg.hilbert scipy.linalg.invhilbert scipy.linalg.invpascal scipy.linalg.pascal
        scipy.special.bernoulli nn.initializers.*""",
    "is for whole numbers only": """numpy.bitwise_* numpy.left_shift numpy.right_shift numpy.invert numpy.gcd numpy.lcm
        numpy.ravel_multi_index lax.bitwise_* lax.clz lax.population_count lax.mulhi lax.reduce_and lax.reduce_or
        lax.reduce_xor lax.shift_*""",
    "works across named axes: see test_transformations.py": """lax.all_* lax.axis_* lax.p* lax.ragged_all_to_all
        lax.with_sharding_constraint""",
    "is a token or a hint of the compiler": """lax.after_all lax.create_token lax.dce_sink lax.stage
        lax.platform_dependent""",
    "is for types or shapes that are not those of a state": """lax.ragged_dot* lax.scaled_dot* nn.scaled_*
        lax.conv_general_dilated_local lax.scatter_apply lax.linalg.cholesky_update lax.composite lax.linalg.ormqr
        lax.DotDimensionNumbers""",
}
# Not finite, or without a derivative, at these arguments: see WRITTEN for those that are at others.
NOT_HERE = words("""
    numpy.acosh numpy.arccosh lax.acosh lax.polygamma lax.zeta scipy.special.zeta scipy.stats.dirichlet.logpdf
    scipy.stats.pareto.logcdf scipy.stats.pareto.logpdf scipy.stats.poisson.logpmf scipy.stats.truncnorm.logcdf
    scipy.stats.truncnorm.logpdf scipy.stats.truncnorm.logsf scipy.stats.truncnorm.sf scipy.special.polygamma
    scipy.stats.multinomial.* scipy.stats.betabinom.*
""")
NO_REVERSE = words("""
    lax.linalg.qdwh lax.random_gamma_grad scipy.linalg.polar lax.while_loop lax.fori_loop
    scipy.linalg.eigh_tridiagonal
""")  # as lax.while_loop
NO_DERIVATIVE = words("""
    numpy.linalg.eig lax.linalg.eig lax.betainc lax.igamma_grad_a lax.linalg.hessenberg
    lax.linalg.householder_product lax.linalg.schur lax.linalg.symmetric_product lax.linalg.tridiagonal
    scipy.linalg.hessenberg scipy.linalg.qr_multiply scipy.linalg.schur scipy.linalg.sqrtm scipy.linalg.rsf2csf
    scipy.linalg.funm scipy.linalg.solve_sylvester lax.rng_uniform scipy.special.betainc scipy.stats.beta.cdf
    scipy.stats.beta.logcdf scipy.stats.beta.logsf scipy.stats.beta.sf scipy.stats.gumbel_l.ppf
    scipy.stats.gumbel_r.ppf numpy.linalg.lstsq
""")  # of the last the norm of what is left is zero, to rounding, and has none there


def matrix(x):
    return jnp.outer(x, x) * 0.3 + jnp.eye(2) * 1.3


def window(x, computation, start):
    return lax.reduce_window(x, np.asarray(start, x.dtype), computation, (2,), (1,), "SAME")


def image(x):
    return jnp.concatenate([x, x**2, x]).reshape(1, 1, 2, 3)


KERNEL = np.array([[0.2, 0.5], [0.1, -0.3]]).reshape(1, 1, 2, 2)
ONE = lax.ScatterDimensionNumbers((), (0,), (0,))
ROW = lax.GatherDimensionNumbers((), (0,), (0,))
AT = np.array([[1], [1]])
WRITTEN: dict[str, Callable] = {
    "numpy.apply_along_axis": lambda x: jnp.apply_along_axis(jnp.cumsum, 0, matrix(x)),
    "numpy.apply_over_axes": lambda x: jnp.apply_over_axes(jnp.sum, matrix(x), [0, 1]),
    "numpy.argpartition": lambda x: jnp.argpartition(x, 1) * x,
    "numpy.argwhere": lambda x: jnp.argwhere(x > 0.5, size=2),
    "numpy.array_split": lambda x: jnp.array_split(x, 2)[1],
    "numpy.astype": lambda x: jnp.astype(x, jnp.float32),
    "numpy.bincount": lambda x: jnp.bincount(jnp.array([0, 1]), x, length=3),
    "numpy.broadcast_to": lambda x: jnp.broadcast_to(x, (3, 2)),
    "numpy.choose": lambda x: jnp.choose(jnp.array([0, 1]), [x, x * 2], mode="clip"),
    "numpy.compress": lambda x: jnp.compress(x > 0.5, x, size=2),
    "numpy.cross": lambda x: jnp.cross(jnp.append(x, 1.0), jnp.array([0.1, 0.2, 0.3])),
    "numpy.delete": lambda x: jnp.delete(x, 0),
    "numpy.dsplit": lambda x: jnp.dsplit(x.reshape(1, 1, 2), 2)[0],
    "numpy.einsum": lambda x: jnp.einsum("i,ij->j", x, matrix(x)),
    "numpy.expand_dims": lambda x: jnp.expand_dims(x, 0),
    "numpy.extract": lambda x: jnp.extract(x > 0.5, x, size=2),
    "numpy.flatnonzero": lambda x: jnp.flatnonzero(x > 0.5, size=2),
    "numpy.fromfunction": lambda x: jnp.fromfunction(lambda i: x[i], (2,), dtype=int),
    "numpy.frompyfunc": lambda x: jnp.frompyfunc(lambda a, b: a * b, 2, 1, identity=1).reduce(x),
    "numpy.hsplit": lambda x: jnp.hsplit(x, 2)[0],
    "numpy.insert": lambda x: jnp.insert(x, 1, 0.5),
    "numpy.intersect1d": lambda x: jnp.intersect1d(x, x, size=2),
    "numpy.ldexp": lambda x: jnp.ldexp(x, 2),
    "numpy.linalg.cross": lambda x: jnp.linalg.cross(jnp.append(x, 1.0), jnp.array([0.1, 0.2, 0.3])),
    "numpy.linalg.matrix_power": lambda x: jnp.linalg.matrix_power(matrix(x), 3),
    "numpy.moveaxis": lambda x: jnp.moveaxis(matrix(x), 0, 1),
    "numpy.nonzero": lambda x: jnp.nonzero(x > 0.5, size=2),
    "numpy.pad": lambda x: jnp.pad(x, 1, "linear_ramp"),
    "numpy.partition": lambda x: jnp.partition(x, 1),
    "numpy.permute_dims": lambda x: jnp.permute_dims(matrix(x), (1, 0)),
    "numpy.polyfit": lambda x: jnp.polyfit(jnp.arange(2.0), x, 1),
    "numpy.put_along_axis": lambda x: jnp.put_along_axis(x, jnp.array([1]), 0.3, 0, inplace=False),
    "numpy.repeat": lambda x: jnp.repeat(x, 2),
    "numpy.reshape": lambda x: jnp.reshape(x, (2, 1)),
    "numpy.resize": lambda x: jnp.resize(x, (3,)),
    "numpy.rollaxis": lambda x: jnp.rollaxis(matrix(x), 1),
    "numpy.setdiff1d": lambda x: jnp.setdiff1d(x, x[:1], size=2, fill_value=0.5),
    "numpy.setxor1d": lambda x: jnp.setxor1d(x, x[:1], size=2, fill_value=0.5),
    "numpy.split": lambda x: jnp.split(x, 2)[0],
    "numpy.swapaxes": lambda x: jnp.swapaxes(matrix(x), 0, 1),
    "numpy.take": lambda x: jnp.take(x, jnp.argmax(x)),
    "numpy.take_along_axis": lambda x: jnp.take_along_axis(x, jnp.argsort(x), 0)[0],
    "numpy.tile": lambda x: jnp.tile(x, 2),
    "numpy.top_k": lambda x: jnp.top_k(x, 1),
    "numpy.union1d": lambda x: jnp.union1d(x, x[:1], size=2),
    "numpy.unique": lambda x: jnp.unique(x, size=2),
    "numpy.unique_counts": lambda x: jnp.unique_counts(x, size=2),
    "numpy.unique_values": lambda x: jnp.unique_values(x, size=2),
    "numpy.vectorize": lambda x: jnp.vectorize(jnp.dot, signature="(n),(n)->()")(matrix(x), x),
    "numpy.vsplit": lambda x: jnp.vsplit(matrix(x), 2)[0],
    "lax.approx_max_k": lambda x: lax.approx_max_k(x, 1),
    "lax.approx_min_k": lambda x: lax.approx_min_k(x, 1),
    "lax.argmax": lambda x: lax.argmax(x, 0, np.int32),
    "lax.argmin": lambda x: lax.argmin(x, 0, np.int32),
    "lax.associative_scan": lambda x: lax.associative_scan(jnp.multiply, jnp.tile(x, 2)),
    "lax.bitcast_convert_type": lambda x: lax.bitcast_convert_type(
        lax.bitcast_convert_type(x, jnp.int64) >> 30, x.dtype
    ),
    "lax.broadcast": lambda x: lax.broadcast(x, (2,)),
    "lax.broadcast_in_dim": lambda x: lax.broadcast_in_dim(x, (2, 2), (1,)),
    "lax.broadcast_to_rank": lambda x: lax.broadcast_to_rank(x, 2),
    "lax.collapse": lambda x: lax.collapse(matrix(x), 0, 2),
    "lax.concatenate": lambda x: lax.concatenate([x, x], 0),
    "lax.cond": lambda x: lax.cond(x[0] > 0.5, jnp.sin, jnp.cos, x),
    "lax.conv": lambda x: lax.conv(image(x), KERNEL, (1, 1), "SAME"),
    "lax.conv_general_dilated": lambda x: lax.conv_general_dilated(image(x), KERNEL, (1, 1), "VALID"),
    "lax.conv_general_dilated_patches": lambda x: lax.conv_general_dilated_patches(image(x), (2, 2), (1, 1), "SAME"),
    "lax.conv_transpose": lambda x: lax.conv_transpose(
        image(x), KERNEL, (1, 1), "SAME", dimension_numbers=("NCHW", "OIHW", "NCHW")
    ),
    "lax.conv_with_general_padding": lambda x: lax.conv_with_general_padding(
        image(x), KERNEL, (1, 1), [(0, 1), (1, 0)], None, None
    ),
    "lax.convert_element_type": lambda x: lax.convert_element_type(x, jnp.bfloat16),
    "lax.custom_linear_solve": lambda x: lax.custom_linear_solve(
        lambda v: 2.0 * v, x, lambda _, b: 0.5 * b, symmetric=True
    ),
    "lax.custom_root": lambda x: lax.custom_root(
        lambda r: r * r - x, x, lambda _, r: jnp.sqrt(x) + 0 * r, lambda g, y: y / g(jnp.ones_like(y))
    ),
    "lax.dot_general": lambda x: lax.dot_general(matrix(x), x, (((1,), (0,)), ((), ()))),
    "lax.dynamic_index_in_dim": lambda x: lax.dynamic_index_in_dim(x, jnp.argmax(x)),
    "lax.dynamic_slice": lambda x: lax.dynamic_slice(x, (jnp.argmax(x),), (1,)),
    "lax.dynamic_slice_in_dim": lambda x: lax.dynamic_slice_in_dim(x, jnp.argmin(x), 1),
    "lax.dynamic_update_index_in_dim": lambda x: lax.dynamic_update_index_in_dim(x, x[0] * 2, jnp.argmax(x), 0),
    "lax.dynamic_update_slice": lambda x: lax.dynamic_update_slice(x, x[:1] * 2, (jnp.argmax(x),)),
    "lax.dynamic_update_slice_in_dim": lambda x: lax.dynamic_update_slice_in_dim(x, x[:1] * 2, jnp.argmax(x), 0),
    "lax.expand_dims": lambda x: lax.expand_dims(x, (0,)),
    "lax.fft": lambda x: jnp.abs(lax.fft(x.astype(complex), "FFT", (2,))),
    "lax.fori_loop": lambda x: lax.fori_loop(0, jnp.argmax(x) + 2, lambda i, c: c * 0.9 + i, x),
    "lax.gather": lambda x: lax.gather(x, AT, ROW, (1,)),
    "lax.imag": lambda x: lax.imag(lax.complex(x, x**2)),
    "lax.index_in_dim": lambda x: lax.index_in_dim(x, 1),
    "lax.index_take": lambda x: lax.index_take(x, (np.array([1, 0]),), (0,)),
    "lax.integer_pow": lambda x: lax.integer_pow(x, 3),
    "lax.linalg.lu_pivots_to_permutation": lambda x: lax.linalg.lu_pivots_to_permutation(
        lax.linalg.lu(matrix(x))[1], 2
    ),
    "lax.linalg.tridiagonal_solve": lambda x: lax.linalg.tridiagonal_solve(x * 0.1, x + 1, x * 0.1, x[:, None]),
    "lax.map": lambda x: lax.map(jnp.sin, x),
    "lax.pad": lambda x: lax.pad(x, x[0], [(1, -1, 1)]),
    "lax.real": lambda x: lax.real(lax.complex(x, x**2)),
    "lax.reduce": lambda x: lax.reduce(x, np.float64(1), lambda a, b: a * b + 0.1 * (a - 1) * (b - 1), (0,)),
    "lax.reduce_max": lambda x: lax.reduce_max(x, (0,)),
    "lax.reduce_min": lambda x: lax.reduce_min(x, (0,)),
    "lax.reduce_precision": lambda x: lax.reduce_precision(x, 8, 10),
    "lax.reduce_prod": lambda x: lax.reduce_prod(x, (0,)),
    "lax.reduce_sum": lambda x: lax.reduce_sum(x, (0,)),
    "lax.reduce_window": lambda x: window(x, lax.add, 0.0) + window(x, lax.max, -np.inf),
    "lax.reshape": lambda x: lax.reshape(x, (2, 1)),
    "lax.rev": lambda x: lax.rev(x, (0,)),
    "lax.rng_bit_generator": lambda x: (
        lax.rng_bit_generator(jax.random.key_data(jax.random.key(1, impl="rbg")), (2,))[1] % 2
    ),
    "lax.rng_uniform": lambda x: lax.rng_uniform(x[0], x[0] + 1e-9, (2,)) * 0,
    "lax.scan": lambda x: lax.scan(lambda c, r: (c * r, c + r), x[0], jnp.tile(x, 2)),
    "lax.scatter": lambda x: lax.scatter(x, AT[:1], x[:1] * 2, ONE),
    "lax.scatter_add": lambda x: lax.scatter_add(x, AT, x, ONE),
    "lax.scatter_max": lambda x: lax.scatter_max(x, AT, x, ONE),
    "lax.scatter_min": lambda x: lax.scatter_min(x, AT, x, ONE),
    "lax.scatter_mul": lambda x: lax.scatter_mul(x, AT[:1], x[:1], ONE, unique_indices=True),
    "lax.scatter_sub": lambda x: lax.scatter_sub(x, AT, x, ONE),
    "lax.select": lambda x: lax.select(x > 0.5, x, x * 2),
    "lax.select_n": lambda x: lax.select_n(x > 0.5, x, x * 2),
    "lax.slice": lambda x: lax.slice(x, (1,), (2,)),
    "lax.slice_in_dim": lambda x: lax.slice_in_dim(x, 0, 1),
    "lax.split": lambda x: lax.split(x, (1, 1)),
    "lax.squeeze": lambda x: lax.squeeze(x[None], (0,)),
    "lax.switch": lambda x: lax.switch(jnp.argmax(x) + 1, [jnp.sin, jnp.cos, jnp.exp], x),
    "lax.tile": lambda x: lax.tile(x, (2,)),
    "lax.top_k": lambda x: lax.top_k(x, 1),
    "lax.transpose": lambda x: lax.transpose(matrix(x), (1, 0)),
    "lax.while_loop": lambda x: lax.while_loop(lambda c: c[0] < 2, lambda c: c * 1.5, x),
    "nn.one_hot": lambda x: jax.nn.one_hot(jnp.argmax(x), 2) * x,
    "nn.dot_product_attention": lambda x: jax.nn.dot_product_attention(*[image(x).reshape(1, 3, 1, 2)] * 3),
    "scipy.linalg.cho_solve": lambda x: jax.scipy.linalg.cho_solve((jnp.linalg.cholesky(matrix(x)), True), x),
    "scipy.linalg.convolution_matrix": lambda x: jax.scipy.linalg.convolution_matrix(x, 2),
    "scipy.linalg.eigh_tridiagonal": lambda x: jax.scipy.linalg.eigh_tridiagonal(x, x[:1], eigvals_only=True) * 0,
    "scipy.linalg.funm": lambda x: jax.scipy.linalg.funm(matrix(x), jnp.sin, disp=False)[0],
    "scipy.linalg.lu_solve": lambda x: jax.scipy.linalg.lu_solve(jax.scipy.linalg.lu_factor(matrix(x)), x),
    "scipy.linalg.solve_sylvester": lambda x: jax.scipy.linalg.solve_sylvester(matrix(x), matrix(x), matrix(x)),
    "scipy.ndimage.map_coordinates": lambda x: jax.scipy.ndimage.map_coordinates(matrix(x), [x, x], 1),
    "scipy.special.bessel_jn": lambda x: jax.scipy.special.bessel_jn(x, v=2),
    "scipy.special.hyp2f1": lambda x: jax.scipy.special.hyp2f1(0.5, 0.25, 1.5, x * 0.5),
    "scipy.special.multigammaln": lambda x: jax.scipy.special.multigammaln(x + 2, 2),
    "scipy.special.sph_harm_y": lambda x: jnp.real(
        jax.scipy.special.sph_harm_y(np.array([1, 2]), np.array([0, 1]), x, x, n_max=2)
    ),
    "numpy.arccosh": lambda x: jnp.arccosh(1 + x),
    "scipy.special.zeta": lambda x: jax.scipy.special.zeta(x + 1.5, 1.2),
    "scipy.special.polygamma": lambda x: jax.scipy.special.polygamma(2, x),
    "scipy.stats.pareto.logpdf": lambda x: jax.scipy.stats.pareto.logpdf(x + 1, 2.0),
    "scipy.stats.truncnorm.logpdf": lambda x: jax.scipy.stats.truncnorm.logpdf(x, -1.0, 2.0),
}


def walk(module: types.ModuleType, name: str, seen: set[int]) -> Iterator[tuple[str, Callable]]:
    for key in sorted(k for k in dir(module) if not k.startswith("_")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = getattr(module, key, None)
        if id(value) in seen:
            continue
        if isinstance(value, types.ModuleType):
            if value.__name__.startswith("jax."):
                seen.add(id(value))
                yield from walk(value, f"{name}.{key}", seen)
        elif callable(value) and not inspect.isclass(value):
            seen.add(id(value))
            yield f"{name}.{key}", value


def listed(name: str, patterns: Any) -> bool:
    return any(name == p or (p.endswith("*") and name.startswith(p[:-1])) for p in patterns)


def total(out: Any) -> jax.Array:
    """The sum of all numbers that came out, weighed so that none stands for another."""
    parts = []
    for leaf in jax.tree.leaves(out):
        if hasattr(leaf, "dtype") and not jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
            real = (leaf.real + 0.5 * leaf.imag if jnp.iscomplexobj(leaf) else leaf).astype(float)
            parts.append(jnp.sum(real * jnp.linspace(1.0, 1.3, real.size).reshape(real.shape)))
    return jnp.asarray(sum(parts, jnp.zeros(())))


def arguments(x: jax.Array, shapes: tuple) -> list:
    made = {0: lambda v: v[0], 1: lambda v: v, 2: matrix}
    return [made[np.ndim(s)](x * (1 + 0.1 * k)) for k, s in enumerate(shapes)]


def number(fun: Callable, shapes: tuple | None = None) -> Callable:
    return lambda x: total(fun(x) if shapes is None else fun(*arguments(x, shapes)))


def traced(fun: Callable) -> str | None:
    """The program of x ↦ number, or None where it is refused."""
    try:
        with warnings.catch_warnings(), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            warnings.simplefilter("ignore")
            return str(jax.make_jaxpr(fun)(jnp.array([0.35, 0.6])))
    except Exception:
        return None


def operations(program: str) -> frozenset[str]:
    return frozenset(re.findall(r" = ([a-z_0-9]+)[\\[ ]", program))


def call_of(name: str, fun: Callable) -> Call | None:
    if name in WRITTEN:
        found = number(WRITTEN[name])
        program = traced(found)
        return Call(name, found, program, operations(program)) if program else None
    for shapes in SHAPES:
        found = number(fun, shapes)
        program = traced(found)
        if program is not None:
            return Call(name, found, program, operations(program))
    return None


@functools.cache
def found() -> tuple[dict[str, Call], list[str]]:
    """The calls, one for each set of operations; and the names of what none of the shapes fits."""
    calls, unfit, known, seen = {}, [], set(), set()
    for root, module in ROOTS.items():
        for name, fun in walk(module, root, seen):
            if name not in WRITTEN and any(listed(name, words(text)) for text in NO_MAPS.values()):
                continue
            if name not in WRITTEN and listed(name, NOT_HERE):
                continue
            call = call_of(name, fun)
            if call is None:
                unfit.append(name)
            elif call.operations not in known:
                known.add(call.operations)
                calls[name] = call
    return calls, unfit
