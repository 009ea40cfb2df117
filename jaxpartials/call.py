"""The arguments of one call, and functions that are built once for each signature of shapes and dtypes."""

import copy
import functools
import inspect
import re
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from jaxpartials import _jax
from jaxpartials.graph.emit import evaluate
from jaxpartials.graph.graph import Graph, Identity
from jaxpartials.notation import Block


class ByShape:
    """A function that is built anew for each signature of shapes, dtypes and fixed arguments, and then kept."""

    def __init__(self, fn: Callable[..., Any], signature: inspect.Signature, with_defaults: bool):
        self._fn, self._name = fn, getattr(fn, "__name__", type(fn).__name__)
        self._signature, self._with_defaults = signature, with_defaults
        self._programs: dict[Any, Any] = {}
        functools.update_wrapper(self, fn, updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        call = self._bind(args, kwargs)
        if _jax.is_alike():
            return self._alike(call)
        program = self._program(call)
        return program.run(program.captured, call.arrays)

    def _bind(self, args: tuple, kwargs: dict) -> "Call":
        return Call(self._name, self._signature, args, kwargs, self._with_defaults, _jax.static_arguments(self._fn))

    def _alike(self, call: "Call") -> Any:
        """The same values, computed in a way that no size decides: by default as the function has them."""
        args, kwargs = call.rebuild(call.arrays)
        return self._fn(*args, **kwargs)

    def _on_arrays(self, call: "Call", results: "list[Results] | None" = None) -> Callable[[Sequence[Any]], Any]:
        """`fn` as a function of the arrays of a call alone.

        With `results` it returns the arrays among its results, and what it returned first is put there.
        """

        def run_fn(arrays_of_call):
            args, kwargs = call.rebuild(arrays_of_call)
            try:
                returned = self._fn(*args, **kwargs)
            except jax.errors.JAXTypeError as error:
                if error.args:
                    error.args = (_with_names(str(error), call.names_of_arrays), *error.args[1:])
                raise
            if results is None:
                return returned
            collected = Results(returned)
            results[:] = results or [collected]
            return collected.take()

        # What JAX's messages call it.
        run_fn.__name__ = run_fn.__qualname__ = self._name
        run_fn.__signature__, run_fn.__wrapped__ = inspect.signature(run_fn), self._fn
        return run_fn

    def _program(self, call: "Call") -> Any:
        """What was built for calls like this one: `captured`, the arrays closed over, and `run(captured, arrays)`."""
        key = (call.key, _jax.trace_context())
        program = self._programs.get(key)
        if program is None:
            program = self._build(call)
            # What was traced from an enclosing transformation's values is only good inside it.
            if not any(isinstance(array, _jax.Tracer) for array in program.captured):
                self._programs[key] = program
        return program

    @abstractmethod
    def _build(self, call: "Call") -> Any: ...


def _with_names(message: str, names: Sequence[str]) -> str:
    """A message of JAX's, with the names of arguments in the places of their numbers."""
    return re.sub(r"\barrays_of_call\[(\d+)\]", lambda found: names[int(found[1])], message)


def emitted(program: Graph) -> Callable[[Sequence[Any], Sequence[Any]], list[Any]]:
    """A graph as a function of the arrays it closes over and of its inputs."""
    constants = [value for value, _ in program.constants.values()]

    def run(captured, arrays):
        known = [*zip(constants, captured, strict=True), *zip(program.inputs, arrays, strict=True)]
        return evaluate(program.outputs, known, program.effects)

    return run


@dataclass
class Leaf:
    value: Any
    dynamic: bool


class Call:
    """The arguments of one call: which leaves are arrays, which are fixed, and how to put them together again."""

    def __init__(
        self,
        name: str,
        signature: inspect.Signature,
        args: tuple,
        kwargs: dict,
        with_defaults: bool,
        fixed: tuple[frozenset[int], frozenset[str]],
    ):
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{name}{signature}: {error}") from None
        if with_defaults:
            bound.apply_defaults()
        self.bound = bound
        self.arguments = dict(bound.arguments)
        self._by_name = frozenset(kwargs)
        self.names: list[str] = []
        self._leaves: list[Leaf] = []
        self._structures = []
        for name, argument in self.arguments.items():
            paths, structure = jax.tree_util.tree_flatten_with_path(argument)
            self._structures.append(structure)
            for path, leaf in paths:
                self._leaves.append(Leaf(leaf, is_array(leaf) and not self._is_fixed(name, path, fixed)))
                self.names.append(name + jax.tree_util.keystr(path))
        self.arrays = [leaf.value for leaf in self._leaves if leaf.dynamic]
        owners = [
            name for name, tree in zip(self.arguments, self._structures, strict=True) for _ in range(tree.num_leaves)
        ]
        self.arguments_of_arrays = [n for n, leaf in zip(owners, self._leaves, strict=True) if leaf.dynamic]
        self.names_of_arrays = [n for n, leaf in zip(self.names, self._leaves, strict=True) if leaf.dynamic]
        self._position = {i: n for n, i in enumerate(i for i, leaf in enumerate(self._leaves) if leaf.dynamic)}

    def _is_fixed(self, name: str, path: Sequence[Any], fixed: tuple[frozenset[int], frozenset[str]]) -> bool:
        """Whether a leaf belongs to an argument that is `fixed`: by its position, or by the name it was passed by."""
        positions, names = fixed
        parameters = self.bound.signature.parameters
        kind, position = parameters[name].kind, list(parameters).index(name)
        if kind is inspect.Parameter.VAR_POSITIONAL:
            return position + path[0].idx in positions
        if kind is inspect.Parameter.VAR_KEYWORD:
            return path[0].key in names
        return name in names if name in self._by_name else position in positions

    @property
    def key(self) -> Any:
        return (
            tuple(self.arguments),
            self._by_name,
            tuple(self._structures),
            tuple(_abstract(leaf.value) if leaf.dynamic else _static(leaf.value) for leaf in self._leaves),
        )

    def rebuild(self, arrays: Sequence[Any]) -> tuple[tuple, dict]:
        """The positional and keyword arguments, with `arrays` in place of the arrays."""
        given = iter(arrays)
        leaves = iter([next(given) if leaf.dynamic else leaf.value for leaf in self._leaves])
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for name, structure in zip(self.arguments, self._structures, strict=True):
            argument = jax.tree.unflatten(structure, [next(leaves) for _ in range(structure.num_leaves)])
            kind = self.bound.signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_POSITIONAL:
                args += argument
            elif kind is inspect.Parameter.VAR_KEYWORD:
                kwargs |= argument
            elif kwargs or name in self._by_name or kind is inspect.Parameter.KEYWORD_ONLY:
                kwargs[name] = argument  # as it was passed: what a jitted function fixes goes by that
            else:
                args.append(argument)
        return tuple(args), kwargs

    def with_arrays(self, arrays: Sequence[Any]) -> "Call":
        """The same call with other arrays."""
        given = iter(arrays)
        other = copy.copy(self)
        other._leaves = [Leaf(next(given), True) if leaf.dynamic else leaf for leaf in self._leaves]
        other.arrays = [leaf.value for leaf in other._leaves if leaf.dynamic]
        leaves = iter(leaf.value for leaf in other._leaves)
        other.arguments = {
            name: jax.tree.unflatten(structure, [next(leaves) for _ in range(structure.num_leaves)])
            for name, structure in zip(self.arguments, self._structures, strict=True)
        }
        return other

    def place(self, block: Block) -> Block:
        """The block with input positions counted among the arrays alone."""
        return replace(block, wrt=tuple(self._position[i] for i in block.wrt))

    def describe(self) -> str:
        shown = []
        for name, leaf in zip(self.names, self._leaves, strict=True):
            if leaf.dynamic:
                aval = leaf.value if isinstance(leaf.value, jax.ShapeDtypeStruct) else _jax.typeof(leaf.value)
                shown.append(f"{name}: {aval.dtype}[{','.join(map(str, aval.shape))}]")
        most = 8
        return ", ".join(shown[:most]) + (f" and {len(shown) - most} more" if len(shown) > most else "")


class Results:
    """What a function returned: arrays, and what is none and stays as it was."""

    def __init__(self, result: Any):
        leaves, self._structure = jax.tree.flatten(result)
        self._fixed = [None if isinstance(leaf, int) or is_array(leaf) else (leaf,) for leaf in leaves]
        self.arrays = [leaf for leaf, fixed in zip(leaves, self._fixed, strict=True) if fixed is None]

    def take(self) -> list[Any]:
        """The arrays, which are not kept: those of a trace must not outlive it."""
        arrays, self.arrays = self.arrays, []
        return arrays

    def rebuild(self, arrays: Sequence[Any]) -> Any:
        given = iter(arrays)
        return jax.tree.unflatten(self._structure, [next(given) if f is None else f[0] for f in self._fixed])


def is_array(leaf: Any) -> bool:
    if isinstance(leaf, (bool, int, str)):
        return False  # Python integers steer programs (sizes, powers, flags): they stay what they are
    return isinstance(leaf, (jax.Array, np.ndarray, np.generic, float, complex, jax.ShapeDtypeStruct))


def _abstract(leaf: Any) -> Any:
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.make_jaxpr(lambda x: x)(leaf).in_avals[0]
    return _jax.typeof(leaf)


def _static(leaf: Any) -> Any:
    try:
        hash(leaf)
    except TypeError:
        return Identity(leaf)
    return type(leaf), leaf
