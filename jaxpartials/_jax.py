"""The only contact with JAX's internals.

Everything here moves between JAX releases, so everything here is small, and `tests/test_jax_contract.py`
pins what the rest of the library relies on, on every supported JAX.
"""

import contextlib
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax._src import config as _config
from jax._src import source_info_util as _source
from jax._src import xla_metadata_lib as _metadata
from jax._src.interpreters import batching as _batching
from jax.experimental.xla_metadata import set_xla_metadata as _set_metadata
from jax.extend import core as _core
from jax.interpreters import ad as _ad
from jax.interpreters import mlir as _mlir

# Equations that the library emits keep the user's lines, never ours.
_source.register_exclusion(os.path.dirname(__file__) + os.sep)

_JAX_FILES = os.path.dirname(jax.__file__) + os.sep

Literal = _core.Literal
Primitive = _core.Primitive
ShapedArray = jax.core.ShapedArray  # pyright: ignore[reportAttributeAccessIssue]
Tracer = jax.core.Tracer  # pyright: ignore[reportAttributeAccessIssue]

# How JAX refuses a mode of differentiation, or operands that do not fit; its rules use all three.
REFUSALS = (TypeError, ValueError, NotImplementedError)


class Jaxpr(NamedTuple):
    """A closed jaxpr, in the one form that all supported releases can be brought to."""

    inputs: list[Any]
    constants: list[tuple[Any, Any]]
    equations: list[Any]
    outputs: list[Any]


def is_jaxpr(thing: Any) -> bool:
    return isinstance(thing, (_core.Jaxpr, _core.ClosedJaxpr))


def open_jaxpr(closed: Any) -> Jaxpr:
    """Open a `Jaxpr` or `ClosedJaxpr` (from 0.11 on they are one class)."""
    consts = list(getattr(closed, "consts", ()))
    plain = getattr(closed, "jaxpr", closed)
    return Jaxpr(
        list(plain.invars),
        list(zip(plain.constvars, consts, strict=False)),
        list(plain.eqns),
        list(plain.outvars),
    )


def trace(fn: Callable, *args: Any) -> tuple[Any, Any]:
    """Trace `fn`; return its closed jaxpr and the pytree of its outputs' shapes."""
    return jax.make_jaxpr(fn, return_shape=True)(*args)


def trace_context() -> Any:
    """What besides the arguments decides a trace: x64, matmul precision, mesh, named axes, ..."""
    return _config.trace_context()


def alike() -> Any:
    """A context in which programs are traced alike for every size: no size decides how a value is computed.

    It is a setting that JAX knows of, so that functions traced before, in it or out of it, are traced anew.
    """
    return _set_metadata(jaxpartials="alike")


def is_alike() -> bool:
    """Whether what is traced now is traced in the context `alike()`."""
    return (_metadata.current_xla_metadata() or {}).get("jaxpartials") == "alike"


def typeof(value: Any) -> Any:
    return jax.typeof(value)


def is_weak(value: Any) -> bool:
    """Whether the type of a value, or a type, gives way to others in what is computed from it."""
    return getattr(value if hasattr(value, "weak_type") else jax.typeof(value), "weak_type", False)


def with_weakness(array: Any, weak: bool) -> Any:
    """`array`, its type weak or not."""
    if is_weak(array) == weak:
        return array
    return jax.lax.convert_element_type_p.bind(array, new_dtype=array.dtype, weak_type=weak, sharding=None)


def static_arguments(fn: Callable) -> tuple[frozenset[int], frozenset[str]]:
    """The positions and the names of the arguments that a jitted function fixes at trace time."""
    info = getattr(fn, "_jit_info", None)
    return frozenset(getattr(info, "static_argnums", ())), frozenset(getattr(info, "static_argnames", ()))


def as_varying(array: Any, aval: Any) -> Any:
    """`array`, marked as varying over the manual mesh axes that `aval` varies over (inside `shard_map`)."""
    axes = varying_axes(aval)
    return jax.lax.pcast(array, axes, to="varying") if axes else array


def varying_axes(aval: Any) -> tuple[Any, ...]:
    """The manual mesh axes that an array varies over, inside `shard_map`."""
    return tuple(getattr(getattr(aval, "manual_axis_type", None), "varying", ()))


def bind(primitive: Any, params: dict[str, Any], operands: Sequence[Any]) -> list[Any]:
    """Apply a primitive as `eval_jaxpr` would; always a list of outputs."""
    bound = primitive.get_bind_params(params)
    # Up to some releases: (functions, params); later the functions travel inside the params.
    functions, bound = bound if isinstance(bound, tuple) else ((), bound)
    out = primitive.bind(*functions, *operands, **bound)
    return list(out) if primitive.multiple_results else [out]


def expand(params: dict[str, Any], operands: Sequence[Any]) -> Any:
    """What an operation that JAX keeps whole, with a rule of its own, is made of."""
    return params["_prim"].expand(*operands)


@contextlib.contextmanager
def user_context(source: Any, context: Any):
    """Emit equations under the source line, the name stack and the settings they were first traced with."""
    if source is None:
        yield
        return
    names = _source.current_name_stack() + source.name_stack
    with _source.user_context(source.traceback, name_stack=names), context.manager:
        yield


class _Called(_source.SourceInfo):
    """The source of an equation of a function that is called elsewhere: JAX cuts the traceback where a jit begins."""

    __slots__ = ["caller"]

    def __init__(self, traceback: Any, name_stack: Any, caller: Any):
        super().__init__(traceback, name_stack)
        self.caller = caller

    def replace(self, *, traceback: Any = None, name_stack: Any = None) -> "_Called":
        return _Called(traceback or self.traceback, name_stack or self.name_stack, self.caller)


def inside(source: Any, caller: Any) -> Any:
    """The source of an equation of a function that is called at `caller`: what transforms the call transforms it."""
    if source is None or caller is None:
        return source
    return _Called(source.traceback, caller.name_stack + source.name_stack, caller)


def placed(source: Any, caller: Any) -> Any:
    """The same of an equation that no line of the user's made: its line is that of the call."""
    if source is None or not source.name_stack.stack:
        return caller
    return caller.replace(name_stack=caller.name_stack + source.name_stack)


def transformations(source: Any) -> tuple[str, ...]:
    """What the user's transformations made an equation: ("jvp", "vmap", "transpose", "jvp"), outermost first."""
    stack = () if source is None else source.name_stack.stack
    return tuple(part.name for part in stack if type(part).__name__ == "Transform")


def context_key(context: Any) -> Any:
    """The settings of an equation that tell it from an otherwise equal one."""
    metadata = context.xla_metadata
    return (
        context.compute_type,
        context.threefry_partitionable,
        None if not metadata else tuple(sorted(metadata.items(), key=repr)),
    )


def user_line(source: Any) -> tuple[str, int, str] | None:
    """File, line and function of the user's frame that made an equation."""
    frame = None if source is None else _source.user_frame(_traceback(source))
    return None if frame is None else (frame.file_name, frame.start_line, frame.function_name)


def user_lines(source: Any) -> list[tuple[str, int, str]]:
    """File, line and function of all of the user's frames around an equation, innermost first."""
    lines: list[tuple[str, int, str]] = []
    while source is not None:
        frames = _source.user_frames(_traceback(source))
        further = [(frame.file_name, frame.start_line, frame.function_name) for frame in frames]
        # Of the body of a loop that was traced where it is called, the caller's lines are there already.
        lines += further if lines[-len(further) :] != further else []
        source = getattr(source, "caller", None)
    return lines


def function_info(params: dict[str, Any]) -> str | None:
    """The user's function inside an equation: "model.py:12 (energy)"."""
    name, _, place = _function(params).partition(" at ")
    return f"{place.rsplit('/', 1)[-1]} ({name})" if place else name or None


def is_jax_function(params: dict[str, Any]) -> bool:
    """Whether the function inside an equation is JAX's own, such as the body of `jnp.flip` or `jax.nn.relu`."""
    return _function(params).partition(" at ")[2].startswith(_JAX_FILES)


def _function(params: dict[str, Any]) -> str:
    for value in params.values():
        if is_jaxpr(value):
            info = getattr(getattr(value, "jaxpr", value), "debug_info", None)
            return str(getattr(info, "func_src_info", None) or "")
    return ""


def has_user_frame(source: Any) -> bool:
    return _source.user_frame(_traceback(source)) is not None


def _traceback(source: Any) -> Any:
    return source.traceback


def scan_counts(params: dict[str, Any]) -> tuple[int, int]:
    """How many operands of a scan are constants, and how many are carried."""
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    consts, carry, _ = params["ft_in"].unpack()  # from 0.12
    return len(consts), len(carry)


def is_plain_jit(params: dict[str, Any]) -> bool:
    """Whether a `jit` equation asks for nothing but compilation (no shardings, no layouts, no options)."""

    def unspecified(sharding: Any) -> bool:
        return type(sharding).__name__ == "UnspecifiedValue"

    return (
        all(map(unspecified, params.get("in_shardings", ())))
        and all(map(unspecified, params.get("out_shardings", ())))
        and not any(params.get("in_layouts", ()) or ())
        and not any(params.get("out_layouts", ()) or ())
        and not params.get("compiler_options_kvs", ())
    )


class Enclosed:
    """A function of arrays of fixed types that is traced, differentiated and lowered in a context of its own.

    JAX applies the rules of equations where they are differentiated, and lowers them where they are compiled, in
    whatever context that happens. Around an `Enclosed` there is but one equation, whose operands and results have types
    that need no context; its derivative, its transpose and its `vmap` are `Enclosed` themselves.
    """

    def __init__(self, run: Callable[..., list[Any]], outputs: Sequence[Any], context: Callable[[], Any]):
        self.run, self.outputs, self.context = run, tuple(outputs), context
        self._derived: dict[Any, Enclosed] = {}

    def __call__(self, *arrays: Any) -> list[Any]:
        return list(enclosed_p.bind(*arrays, inside=self))

    @functools.cached_property
    def jitted(self) -> Callable[..., list[Any]]:
        return jax.jit(self.run)

    def traced(self, operands: Sequence[Any]) -> Any:
        """The jaxpr of what it does with operands like these."""
        with self.context():
            return jax.make_jaxpr(self.run)(*operands)

    def tangent(self, moving: tuple[int, ...]) -> "Enclosed":
        """The tangents of the floating-point results, of the operands and of the tangents of those that move."""
        kept = [i for i, out in enumerate(self.outputs) if is_inexact(out)]

        def run(*arrays):
            count = len(arrays) - len(moving)
            primals, tangents = arrays[:count], arrays[count:]
            moved = lambda *xs: self.run(*_put(primals, moving, xs))
            _, found = jax.jvp(moved, tuple(primals[i] for i in moving), tangents)
            return [found[i] for i in kept]

        return self._kept(("tangent", moving), run, [self.outputs[i] for i in kept])

    def transposed(self, linear: tuple[int, ...], types: tuple[Any, ...]) -> "Enclosed":
        """The cotangents of the operands that it is linear in, of the other operands and the results' cotangents."""

        def run(*arrays):
            count = len(arrays) - len(self.outputs)
            known, cotangents = arrays[:count], list(arrays[count:])
            others = [i for i in range(count + len(linear)) if i not in linear]
            along = lambda *xs: self.run(*_put(_put([None] * (count + len(linear)), others, known), linear, xs))
            return list(jax.linear_transpose(along, *types)(cotangents))

        return self._kept(("transposed", linear, types), run, types)

    def mapped(self, axes: tuple[int | None, ...], size: int) -> "Enclosed":
        run = jax.vmap(self.run, in_axes=axes, out_axes=0, axis_size=size)
        outputs = [jax.ShapeDtypeStruct((size, *out.shape), out.dtype) for out in self.outputs]
        return self._kept(("mapped", axes, size), run, outputs)

    def _kept(self, key: Any, run: Callable[..., list[Any]], outputs: Sequence[Any]) -> "Enclosed":
        if key not in self._derived:
            self._derived[key] = Enclosed(run, outputs, self.context)
        return self._derived[key]


def is_inexact(aval: Any) -> bool:
    return bool(jax.numpy.issubdtype(aval.dtype, jax.numpy.inexact))


def _put(arrays: Sequence[Any], places: Sequence[int], given: Sequence[Any]) -> list[Any]:
    """`arrays` with others in some places."""
    found = list(arrays)
    for place, array in zip(places, given, strict=True):
        found[place] = array
    return found


enclosed_p = Primitive("enclosed")
enclosed_p.multiple_results = True


@enclosed_p.def_impl
def _enclosed_now(*arrays: Any, inside: Enclosed) -> list[Any]:
    with inside.context():
        return inside.jitted(*arrays)


@enclosed_p.def_abstract_eval
def _enclosed_types(*_: Any, inside: Enclosed) -> list[Any]:
    return [ShapedArray(out.shape, out.dtype) for out in inside.outputs]


def _enclosed_jvp(primals: Sequence[Any], tangents: Sequence[Any], *, inside: Enclosed) -> tuple[Any, Any]:
    results = enclosed_p.bind(*primals, inside=inside)
    moving = tuple(i for i, tangent in enumerate(tangents) if type(tangent) is not _ad.Zero)
    found = iter(enclosed_p.bind(*primals, *(tangents[i] for i in moving), inside=inside.tangent(moving)))
    still = lambda y: _ad.Zero(typeof(y).to_tangent_aval())
    moved = [next(found) if is_inexact(y) else still(y) for y in results]
    return results, moved


def _enclosed_transpose(cotangents: Sequence[Any], *operands: Any, inside: Enclosed) -> list[Any]:
    linear = tuple(i for i, x in enumerate(operands) if _ad.is_undefined_primal(x))
    types = tuple(jax.ShapeDtypeStruct(operands[i].aval.shape, operands[i].aval.dtype) for i in linear)
    known = [x for i, x in enumerate(operands) if i not in linear]
    given = [_ad.instantiate_zeros(cotangent) for cotangent in cotangents]
    found = enclosed_p.bind(*known, *given, inside=inside.transposed(linear, types))
    return _put([None] * len(operands), linear, found)


def _enclosed_batched(operands: Sequence[Any], axes: Sequence[Any], *, inside: Enclosed) -> tuple[Any, Any]:
    (size,) = {x.shape[axis] for x, axis in zip(operands, axes, strict=True) if axis is not None}
    results = enclosed_p.bind(*operands, inside=inside.mapped(tuple(axes), size))
    return results, [0] * len(results)


def _enclosed_lowered(context: Any, *operands: Any, inside: Enclosed) -> Any:
    with inside.context():
        return _mlir.lower_fun(inside.run, multiple_results=True)(context, *operands)


_ad.primitive_jvps[enclosed_p] = _enclosed_jvp
_ad.primitive_transposes[enclosed_p] = _enclosed_transpose
_batching.primitive_batchers[enclosed_p] = _enclosed_batched
_mlir.register_lowering(enclosed_p, _enclosed_lowered)


def rule_identity(params: dict[str, Any]) -> Any:
    """What identifies the rule of a `custom_jvp_call`: the user's function and its static arguments.

    JAX wraps the rule anew at every trace, in memoised closures. Two calls with equal bodies and the same rule
    are one call; where the rule cannot be found, the answer is None and the calls stay apart.
    """
    found: list[Any] = []
    lanes: list[Any] = []
    seen: set[int] = set()

    def wraps_a_rule(function: Any) -> bool:
        module = getattr(function, "__module__", None) or ""
        name = getattr(function, "__qualname__", "")
        return module.startswith("jax._src.interpreters") or name.startswith(("lift_jvp", "_memoize"))

    def plain(argument: Any) -> Any:
        # Static arguments of the user's come wrapped.
        if isinstance(argument, tuple):
            return tuple(map(plain, argument))
        value = getattr(argument, "val", argument)
        return type(value), repr(value) if isinstance(value, float) else value

    def maps_nothing(arguments: tuple) -> bool:
        # A `vmap` of which no lanes reach the call, as that of `jax.jacfwd` over what does not move.
        if not any(isinstance(argument, _batching.AxisData) for argument in arguments):
            return False
        return all(axis is None for argument in arguments if isinstance(argument, tuple) for axis in argument)

    def walk(thing: Any, depth: int) -> None:
        # Every transformation that the call went through has put a few closures around the rule.
        if depth > 200 or id(thing) in seen:
            return
        seen.add(id(thing))
        if hasattr(thing, "f_transformed") and hasattr(thing, "transforms"):
            arguments = [each for _, given in thing.transforms if not maps_nothing(given) for each in given]
            if wraps_a_rule(thing.f):
                # Under `vmap` the rule is that of a lane: which axes the lanes have is part of it.
                lanes.extend(argument for argument in arguments if isinstance(argument, tuple))
                walk(thing.f, depth + 1)
            else:
                # The transformations carry their static arguments and a fresh store for the output tree.
                static = tuple(
                    plain(argument)
                    for argument in arguments
                    if getattr(argument, "__module__", None) != "jax._src.linear_util"
                )
                found.append((thing.f, static, thing.params))
            return
        for cell in getattr(thing, "__closure__", None) or ():
            with contextlib.suppress(ValueError):
                walk(cell.cell_contents, depth + 1)

    walk(params["jvp_jaxpr_fun"], 0)
    if len(found) != 1:
        return None
    identity = (*found[0], tuple(lanes))
    try:
        hash(identity)
    except TypeError:
        return None
    return identity
