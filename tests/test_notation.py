"""The notation: what each spec means, and what is said about those that mean nothing."""

import dataclasses
import inspect
import re
from collections import OrderedDict, namedtuple
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import tree_util

from jaxpartials.errors import DerivativeError, JaxPartialsError, NotationError
from jaxpartials.notation import Block, Operand, check_signature, parse, parse_wanted, resolve


def f32(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def i32(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.int32)


def is_block(x):
    return isinstance(x, Block)


# Reading: text -> output, inputs (one per order), axes that stay.

READ = [
    ("u", "u", "", None),
    ("u/x", "u", "x", None),
    ("u/x^2", "u", "x x", None),
    ("u/x^1", "u", "x", None),
    ("u/x^12", "u", " ".join("x" * 12), None),
    ("u/x y", "u", "x y", None),
    ("u/x^2 y^3", "u", "x x y y y", None),
    ("u/x\ty\n z", "u", "x y z", None),
    ("u[b]", "u[b]", "", None),
    ("u[] / x[]", "u[]", "x[]", None),
    ("v[i]/x[j]", "v[i]", "x[j]", None),
    ("v[i]/x[i] ->", "v[i]", "x[i]", ()),
    ("u/x[i]^2", "u", "x[i] x[i]", None),
    ("u/x[i]^2 x[j]^2", "u", "x[i] x[i] x[j] x[j]", None),
    ("u/x[i]^2 -> i", "u", "x[i] x[i]", ("i",)),
    ("y[b]/x[b,i] -> b i", "y[b]", "x[b,i]", ("b", "i")),
    ("y[b]/x[b i]->i,b", "y[b]", "x[b,i]", ("i", "b")),
    ("u[b]/X[b,0]^2 -> b", "u[b]", "X[b,0] X[b,0]", ("b",)),
    ("f/X[i,i] Y[k,l] -> k l", "f", "X[i,i] Y[k,l]", ("k", "l")),
    ("f/X[i,i]Y[k,l]", "f", "X[i,i] Y[k,l]", None),
    ("  u  /  x  [ i , 10 ]  ^  2  ->  i  ", "u", "x[i,10] x[i,10]", ("i",)),
    ("0/a", "0", "a", None),
    ("1.loss/a", "1.loss", "a", None),
    ("y/params.layers.0.weight", "y", "params.layers.0.weight", None),
    ("y / params . w [i] ^2", "y", "params.w[i] params.w[i]", None),
    ("y/_hidden.__x__", "y", "_hidden.__x__", None),
    ("θ[λ]/φ1[α_2]", "θ[λ]", "φ1[α_2]", None),
    ("Z[i,i]", "Z[i,i]", "", None),
    ("u[b]->", "u[b]", "", ()),
]


@pytest.mark.parametrize(("text", "output", "wrt", "kept"), READ)
def test_a_spec_is_read(text, output, wrt, kept):
    partial = parse(text)
    assert partial.text == text
    assert str(partial.output) == output
    assert [str(x) for x in partial.wrt] == wrt.split()
    assert partial.kept == kept
    assert partial.order == len(partial.wrt)
    assert hash(partial) == hash(parse(text))


def test_what_a_spec_is_made_of():
    partial = parse("y.loss/params.layers.0.w[b,3] -> b")
    assert partial.output == Operand(("y", "loss"), None)
    assert partial.wrt == (Operand(("params", "layers", "0", "w"), ("b", 3)),)
    assert parse("u[]").output.axes == ()


# text, the character under the caret (its position), and what the message says
UNREADABLE = [
    ("", 0, "the spec ends where the name of an output was expected"),
    ("   ", 3, "the spec ends where the name of an output"),
    ("/x", 0, "starts with the name of an output"),
    ("-> i", 0, "starts with the name of an output"),
    ("∂u/∂x", 0, 'written "u/x"'),
    ("u/", 2, "the spec ends where the name of an input was expected"),
    ("u/∂x", 2, "name of an input was expected"),
    ("u/0", 2, "'0' found where the name of an input"),
    ("u v", 2, r'where "\[", "/" or "->" was expected'),
    ("u[i] v", 5, 'where "/" or "->" was expected'),
    ("u/x/y", 3, r'separated by spaces: "u/x y"'),
    ("u/x,y", 3, 'separated by spaces, "u/x y"; commas separate axes'),
    ("u/x*y", 3, 'separated by spaces: "u/x y"'),
    ("u/x**2", 3, r'power is written with \^: "u/x\^2"'),
    ("u/x²", 3, r'power is written with \^: "u/x\^2"'),
    ("u/x(i)", 3, r'in square brackets: "u/x\[i\]"'),
    ("u^2/x", 1, "power belongs to an input"),
    ("u/x^2^2", 5, "power belongs to an input"),
    ("u/x^2[i]", 5, r'before the order: "u/x\[i\]\^2"'),
    ("u/x^", 4, r"the spec ends where an order \(1, 2, 3, ...\) was expected"),
    ("u/x^0", 4, "'0' found where an order"),
    ("u/x^-1", 4, "'-' found where an order"),
    ("u/x^n", 4, "'n' found where an order"),
    ("u/x^2y", 4, r'separated by spaces: "u/x\^2 y"'),
    ("u/x^1.5", 5, "'.' found where another input"),
    ("u/x^2 3", 6, "named by the signature; a position names a part"),
    ("u/x.", 4, "identifier or a position: params.layers.0.weight"),
    ("u/params.layer-1", 14, "a part is named by an identifier or a position"),
    ("u/params.1a", 9, "'1' found where a key, attribute or position"),
    ("u/x[i", 5, r'where ",", a space or "\]" was expected.*bracket "\[" is not closed'),
    ("u/x[i,", 6, r'where an axis was expected.*bracket "\[" is not closed'),
    ("u[b/x[b]", 3, r'bracket "\[" is not closed'),
    ("u/x[i,]", 6, "'\\]' found where an axis was expected"),
    ("u/x[i,,j]", 6, "',' found where an axis was expected"),
    ("u/x[,i]", 4, "',' found where an axis or"),
    ("u/x[:,0]", 4, "there are no slices"),
    ("u/x[-1]", 4, "counted from the front"),
    ("u/x[_i]", 4, "starts with a letter"),
    ("u/x[0i]", 4, "or a name that starts with a letter"),
    ("u/x[i)", 5, r"'\)' found where"),
    ("u/x ]", 4, r"'\]' found where"),
    ("u/x[i]=>i", 6, 'arrow is written "->"'),
    ("u/x[i] → i", 7, 'arrow is written "->"'),
    ("u/x[i] - i", 7, 'arrow is written "->"'),
    ("u/x[i] -> j", 10, "No array names an axis j; they name i"),
    ("u/x -> i", 7, "No array names an axis i"),
    ("u/x[i,j] -> i i", 14, "axis i is listed twice"),
    ("u/x[i,0] -> i 0", 14, "position leaves no axis in the result"),
    ("u/x[i] -> [i]", 10, 'listed without brackets: "-> b i"'),
    ("u/x[i] -> (i)", 10, 'listed without brackets: "-> b i"'),
    ("u/x[i] -> ...", 10, "Every axis that stays is listed"),
    ("u; u/x", 1, r'One spec asks for one partial; several are a list or a dict of specs: \["u", "u/x"\]'),
    ("u/x[i] -> i; u", 11, "several are a list"),
    ("u/x[i;j]", 5, "several are a list"),
    ("u/x[..., 0]", 4, "nothing stands for the others"),
    ("u/x...", 4, "nothing stands for the others"),
    ("(u)/x", 0, r'axes are written in square brackets: "u\[b\]"'),
    ("u/x[b,(i)]", 6, r'not grouped: "u/x\[i,j\]"'),
    ("u/params[w][i,j]", 11, r'named after a dot: "y/params.w\[i,j\]"'),
    ("u/x[i] -> i,", 12, "the spec ends where an axis that stays was expected"),
    ("u/x[i] -> i -> i", 12, "'-' found where another axis or the end"),
]


@pytest.mark.parametrize(("text", "caret", "said"), UNREADABLE)
def test_a_spec_that_cannot_be_read(text, caret, said):
    with pytest.raises(NotationError) as caught:
        parse(text)
    first, shown, pointer, *_ = str(caught.value).splitlines()
    assert first.startswith(f'cannot read "{text}": ')
    assert shown == f"  {text}"
    assert pointer == "  " + " " * caret + "^"
    assert re.search(said, str(caught.value), re.DOTALL), str(caught.value)


SHARED = [
    ("y[b]/x[b]", "y[b]/x[b] -> b", "y[b]/x[b] ->"),
    ("y[b]/x[b,i]", "y[b]/x[b,i] -> b i", "y[b]/x[b,i] -> i"),
    ("y[b,k]/x[b,i]", "y[b,k]/x[b,i] -> b k i", "y[b,k]/x[b,i] -> k i"),
    ("y[b,k]/x[k,b]", "y[b,k]/x[k,b] -> b k", "y[b,k]/x[k,b] ->"),
    ("u[b]/X[b,0]^2", "u[b]/X[b,0]^2 -> b", "u[b]/X[b,0]^2 ->"),
    ("u[b]/x[b,i]^2", "u[b]/x[b,i]^2 -> b", "u[b]/x[b,i]^2 ->"),
    ("d[b]/x[b] z y[b,c]", "d[b]/x[b] z y[b,c] -> b c", "d[b]/x[b] z y[b,c] -> c"),
]


@pytest.mark.parametrize(("text", "keep", "drop"), SHARED)
def test_an_axis_shared_by_output_and_input_needs_an_arrow(text, keep, drop):
    with pytest.raises(NotationError, match="nothing says whether to keep") as caught:
        parse(text)
    assert re.findall(r'"([^"]*)"', str(caught.value)) == [text, keep, drop]
    assert parse(keep).wrt == parse(drop).wrt


def test_wanted_is_any_pytree_of_specs():
    class Terms(NamedTuple):
        value: str
        rest: dict

    partials, structure = parse_wanted(Terms("u", {"t": "u/t", "xx": ["u/x^2", ("u/x",)]}))
    assert [partial.text for partial in partials] == ["u", "u/t", "u/x^2", "u/x"]
    assert structure.unflatten(range(4)) == Terms(0, {"t": 1, "xx": [2, (3,)]})
    assert parse_wanted("u/x")[1].unflatten(["alone"]) == "alone"


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (3, r"^wanted is the Python int 3\.\n.*strings such as"),
        (None, "^wanted is None"),
        ({"a": "u", "b": None}, r"wanted at \['b'\] is None"),
        (["u", {"q": len}], r"wanted at \[1\]\['q'\] is the function len"),
        ({"a": {"u"}}, r"wanted at \['a'\] is a set"),
        ({"a": b"u"}, r"wanted at \['a'\] is a bytes"),
    ],
)
def test_wanted_holds_specs_alone(wanted, said):
    with pytest.raises(NotationError, match=said):
        parse_wanted(wanted)


# Fitting to the signature.


def plain(params, t, x, *, scale=1.0): ...
def variadic(x, *points, **options): ...
def no_arguments(): ...


@pytest.mark.parametrize(
    ("fn", "spec", "outputs"),
    [
        (plain, "u/t x params.w scale", None),
        (plain, "anything", None),
        (plain, "z/x", ("z", "y")),
        (plain, "1/x", ("z", "y")),
        (variadic, "u/points.0 points x", None),
        (variadic, "u/options.a", None),
        (variadic, "u/a", None),
    ],
)
def test_names_that_fit_the_signature(fn, spec, outputs):
    check_signature(parse(spec), inspect.signature(fn), outputs)


@pytest.mark.parametrize(
    ("fn", "spec", "outputs", "said"),
    [
        (
            plain,
            "u/z",
            None,
            r'^"u/z": the function has no argument named z; its arguments are params, t, x, scale.$',
        ),
        (plain, "u/dx^2", None, r'no argument named dx.*\n  Did you mean "u/x\^2"\?'),
        (plain, "u/t param.w[i]", None, r'no argument named param.*\n  Did you mean "u/t params.w\[i\]"\?'),
        (plain, "u/X -> ", None, r'Did you mean "u/x ->"\?'),
        (plain, "w/x", ("z", "y"), r'^"w/x": there is no output named w; outputs= names z, y.$'),
        (plain, "velocty/x", ("velocity", "p"), r'Did you mean "velocity/x"\?'),
        (plain, "2/x", ("z", "y"), "there is no output named 2"),
        (plain, "z/x", "zy", r'outputs="zy" should be a tuple of names: outputs=\("zy",\)'),
        (plain, "z/x", ("z", 3), "3 is not a name that a spec can spell"),
        (plain, "z/x", ("z", "a-b"), "'a-b' is not a name that a spec can spell"),
        (plain, "z/x", ("z", "z"), "every output needs a name of its own"),
        (no_arguments, "u/x", None, "it takes no arguments"),
    ],
)
def test_names_that_do_not_fit_the_signature(fn, spec, outputs, said):
    with pytest.raises(NotationError, match=said):
        check_signature(parse(spec), inspect.signature(fn), outputs)


def test_identifiers_are_compared_as_python_compares_them():
    namespace = {}
    exec("def f(ϕ): ...", namespace)  # Python stores the parameter under its normal form, φ
    signature = inspect.signature(namespace["f"])
    assert list(signature.parameters) == ["φ"]
    check_signature(parse("u/ϕ"), signature, None)
    assert resolve(parse("u/ϕ"), {"φ": f32()}, f32()).wrt == (0,)


# Fitting to the arrays: which leaves, and which labels.

ARGUMENTS = {
    "x": f32(8, 3),
    "t": 2.0,
    "params": {"w": f32(4, 3), "b": f32(4), "deep": [f32(), (f32(5), f32(6))]},
    "n": 3,
    "points": (f32(2), f32(7)),
    "options": {"q": f32(9), "a": f32()},
}
ORDER = ["x", "t", "b", "deep0", "deep10", "deep11", "w", "n", "p0", "p1", "a", "q"]
POSITIONS = {name: n for n, name in enumerate(ORDER)}
Y = f32(8, 2)

LABELLED = [
    # spec, output shape, inputs, labels of output and inputs, labels of the result
    ("y/x", Y, "x", "#0 #1 | #2 #3", "#0 #1 #2 #3"),
    ("y/t", Y, "t", "#0 #1 |", "#0 #1"),
    ("y/t^2 x", Y, "t t x", "#0 #1 | | | #2 #3", "#0 #1 #2 #3"),
    ("u/params.b^2", f32(), "b b", "| #0 | #1", "#0 #1"),
    ("y[b,k]/x[c,i]", Y, "x", "b k | c i", "b k c i"),
    ("y[b,k]/x[b,i] -> k b i", Y, "x", "b k | b i", "k b i"),
    ("y[b,k]/x[b,i] -> b k", Y, "x", "b k | b i", "b k"),
    ("y[b,k]/x[b,i] ->", Y, "x", "b k | b i", ""),
    ("y[b,k]/x[b,2]^2 -> b k", Y, "x x", "b k | b 2 | b 2", "b k"),
    ("u/x[b,i]^2", f32(), "x x", "| b i | b i", ""),
    ("u/x[b,i] x[b,j]", f32(), "x x", "| b i | b j", "i j"),
    ("u/x[b,i]^2 -> i", f32(), "x x", "| b i | b i", "i"),
    ("y[7,k]/t[]", Y, "t", "7 k |", "k"),
    ("y[b,k]/t params.deep.0", Y, "t deep0", "b k | |", "b k"),
    ("z[i,i]/x[b,j]", f32(4, 4), "x", "i i | b j", "b j"),
    ("z[i,i]/t -> i", f32(4, 4), "t", "i i |", "i"),
    ("y[b,k]", Y, "", "b k", "b k"),
    ("y[b,k] -> k", Y, "", "b k", "k"),
    ("y", Y, "", "#0 #1", "#0 #1"),
    ("u ->", f32(), "", "", ""),
    ("u/params.w[i,j]", f32(), "w", "| i j", "i j"),
    ("u/params.deep.1.1", f32(), "deep11", "| #0", "#0"),
    ("u/points.1", f32(), "p1", "| #0", "#0"),
    ("u/options.q", f32(), "q", "| #0", "#0"),
    ("u/q a", f32(), "q a", "| #0 |", "#0"),
    ("0/t", f32(), "t", "|", ""),
]


@pytest.mark.parametrize(("spec", "result", "inputs", "labels", "stay"), LABELLED)
def test_axes_are_labelled(spec, result, inputs, labels, stay):
    block = resolve(parse(spec), ARGUMENTS, result)
    found = [" ".join(map(str, axes)) for axes in (block.output_labels, *block.wrt_labels)]
    assert found == [axes.strip() for axes in labels.split("|")]
    assert block.wrt == tuple(POSITIONS[name] for name in inputs.split())
    assert block.output == 0
    assert block.result == tuple(stay.split())
    leaves = tree_util.tree_leaves(list(ARGUMENTS.values()))
    for axes, leaf in zip(block.wrt_labels, (leaves[n] for n in block.wrt), strict=True):
        assert tuple(block.sizes.get(axis, None) or np.shape(leaf)[n] for n, axis in enumerate(axes)) == np.shape(leaf)
    assert not any(isinstance(label, int) for label in block.sizes)
    assert block.shape == tuple(block.sizes[label] for label in stay.split())


def test_a_pytree_gives_blocks_in_the_structure_of_nested_jacfwd():
    arguments = {
        "params": {"w": f32(4, 3), "n": 2, "f": jnp.tanh, "i": i32(3), "none": None},
        "x": [f32(2), f32()],
    }
    result = {"u": (f32(5), f32()), "v": f32()}
    tree = resolve(parse("u/params x"), arguments, result)
    assert isinstance(tree, tuple)
    assert len(tree) == 2
    assert set(tree[0]) == {"w", "n", "f", "i", "none"}
    assert tree[0]["n"] is tree[0]["f"] is tree[0]["i"] is tree[0]["none"] is None
    first, second = tree[1]["w"]
    assert (first.output, first.wrt, first.shape) == (1, (3, 4), (4, 3, 2))
    assert (second.output, second.wrt, second.shape) == (1, (3, 5), (4, 3))


def test_the_structure_is_that_of_jax_jacfwd():
    def fn(a, b):
        return {"p": a["k"] * b[0] + b[1].sum(), "q": (b[1],)}

    a, b = {"k": jnp.ones(3), "l": jnp.ones(2)}, (jnp.ones(()), jnp.ones(4))
    expected = jax.jacfwd(jax.jacfwd(lambda a, b: fn(a, b)["q"], 0), 1)(a, b)
    tree = resolve(parse("q/a b"), {"a": a, "b": b}, fn(a, b))
    shapes = tree_util.tree_map(lambda block: block.shape, tree, is_leaf=is_block)
    assert shapes == tree_util.tree_map(jnp.shape, expected)


def test_values_may_be_of_any_dtype_and_structure():
    tree = resolve(parse("aux"), {"x": f32()}, {"aux": {"n": i32(3), "u": f32()}, "v": f32()})
    assert {name: (block.output, block.wrt, block.shape) for name, block in tree.items()} == {
        "n": (0, (), (3,)),
        "u": (1, (), ()),
    }


def test_python_numbers_and_numpy_arrays_are_arrays():
    arguments = {"a": 1.0, "b": np.float64(2), "c": np.ones(3), "d": 1j, "e": jnp.ones((), jnp.bfloat16)}
    for n, name in enumerate(arguments):
        assert resolve(parse(f"u/{name}"), arguments, f32()).wrt == (n,)


def test_labels_are_found_under_a_trace():
    seen = []

    def loss(params, x):
        seen.append(resolve(parse("u/params.w x"), {"params": params, "x": x}, jnp.sum(params["w"] * x)))
        return jnp.sum(params["w"] * x)

    jax.eval_shape(jax.vmap(jax.grad(loss), (None, 0)), {"w": jnp.ones(3)}, jnp.ones((5, 3)))
    assert [block.shape for block in seen] == [(3, 3)]


# Naming the parts of arguments and outputs, in every kind of pytree.


@tree_util.register_dataclass
@dataclasses.dataclass
class State:
    momentum: object
    position: object


@tree_util.register_pytree_node_class
class Pair:
    def __init__(self, left, right):
        self.left, self.right = left, right

    def tree_flatten(self):
        return (self.left, self.right), None

    @classmethod
    def tree_unflatten(cls, _, children):
        return cls(*children)


Point = namedtuple("Point", "x y")

PARTS = [
    (State(f32(2), {"k": f32(3)}), "position.k", 1),
    (Pair(f32(2), f32(3)), "1", 1),
    (Point(f32(2), [f32(1), f32(3)]), "y.1", 2),
    (OrderedDict(b=f32(2), a=f32(3)), "a", 1),
    ({"b": f32(3), "a": f32(2)}, "b", 1),
    ({1: f32(2), 10: f32(3)}, "10", 1),
    ({"layers.0.weight": f32(3), "layers.1.weight": f32(2)}, "layers.0.weight", 0),
    ([None, (), f32(2), f32(3)], "3", 1),
    ((f32(2), (f32(1), f32(3))), "1.1", 2),
    (("static", f32(3)), "1", 1),
]


@pytest.mark.parametrize(("tree", "path", "position"), PARTS)
def test_parts_of_pytrees_are_named(tree, path, position):
    arguments = {"before": {"z": f32(), "y": 1}, "p": tree}
    block = resolve(parse(f"u/p.{path}"), arguments, f32())
    assert (block.wrt, block.shape) == ((2 + position,), (3,))
    if tree_util.tree_leaves(tree)[0] != "static":
        block = resolve(parse(f"{path}/t"), {"t": 1.0}, tree)
        assert (block.output, block.shape) == (position, (3,))


def leaf_at(arguments, block):
    return tree_util.tree_leaves(list(arguments.values()))[block.wrt[0]]


def test_an_equinox_module():
    arguments = {"x": jnp.ones(2), "model": eqx.nn.MLP(2, 3, 4, depth=2, key=jax.random.key(0))}
    model = arguments["model"]
    block = resolve(parse("y[o]/model.layers.1.weight[i,j]"), arguments, f32(3))
    assert leaf_at(arguments, block) is model.layers[1].weight
    assert block.shape == (3, 4, 4)
    tree = resolve(parse("y/model"), arguments, f32(3))
    assert isinstance(tree, eqx.nn.MLP)
    assert tree.activation is None
    assert tree.layers[2].bias.shape == (3, 3)
    assert len(tree_util.tree_leaves(tree, is_leaf=is_block)) == 6
    with pytest.raises(DerivativeError, match=r"model\.activation is the function relu"):
        resolve(parse("y/model.activation"), arguments, f32(3))
    with pytest.raises(NotationError, match=r"Its attribute in_size is static, not a part of the pytree"):
        resolve(parse("y/model.in_size"), arguments, f32(3))
    with pytest.raises(
        NotationError, match=r'has no part bia;.* a Linear with weight, bias.\n.*"y/model.layers.2.bias"'
    ):
        resolve(parse("y/model.layers.2.bia"), arguments, f32(3))


class Network(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(2, 3, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)
        self.rest = nnx.List([nnx.Linear(3, 4, rngs=rngs)])


@pytest.mark.parametrize("split", [False, True])
def test_a_flax_nnx_module_or_its_state(split):
    network = Network(nnx.Rngs(0))
    arguments = {"model": nnx.split(network)[1] if split else network, "x": jnp.ones(2)}
    kernel = network.first.kernel[...]
    for spelling in ("", ".value", ".raw_value"):
        block = resolve(parse(f"y[o]/model.first.kernel{spelling}[i,j] x[k]"), arguments, f32(3))
        assert is_block(block)
        assert leaf_at(arguments, block) is kernel
        assert block.shape == (3, 2, 3, 2)
    block = resolve(parse("y/model.rest.0.bias"), arguments, f32(3))
    assert (leaf_at(arguments, block).shape, block.shape) == ((4,), (3, 4))
    tree = resolve(parse("y/model"), arguments, f32(3))
    assert type(tree) is type(arguments["model"])
    assert len(tree_util.tree_leaves(tree, is_leaf=is_block)) == 4  # the random state is left out
    with pytest.raises(DerivativeError, match="dtype key"):
        resolve(parse("y/model.dropout.rngs.key"), arguments, f32(3))
    with pytest.raises(NotationError, match=r'Did you mean "y/model\.first\.kernel"'):
        resolve(parse("y/model.first.kernal"), arguments, f32(3))


def test_a_flax_variable_stands_for_its_array():
    kernel = nnx.Param(jnp.ones((2, 3)))
    assert resolve(parse("u/k[i,j]"), {"k": kernel}, f32()).shape == (2, 3)
    assert resolve(parse("u/t"), {"t": 1.0}, kernel).shape == (2, 3)


# outputs=, and what the output's name may be.

TWO = (f32(3), f32(5))
NAMED = [
    ("z/t", TWO, ("z", "y"), 0),
    ("y/t", TWO, ("z", "y"), 1),
    ("1/t", TWO, ("z", "y"), 1),
    ("y/t", list(TWO), ["z", "y"], 1),
    ("1/t", TWO, None, 1),
    ("y.1/t", (f32(3), TWO), ("z", "y"), 2),
    ("y.k/t", (f32(3), {"j": f32(), "k": f32()}), ("z", "y"), 2),
    ("anything/t", f32(3), None, 0),
    ("0/t", f32(3), None, 0),
    ("z/t", f32(3), ("z",), 0),
    ("z/t", (f32(3),), ("z",), 0),
    ("loss/t", {"aux": i32(), "loss": f32()}, None, 1),
    ("y/t", Point(*TWO), None, 1),
]


@pytest.mark.parametrize(("spec", "result", "outputs", "position"), NAMED)
def test_outputs_are_named(spec, result, outputs, position):
    assert resolve(parse(spec), {"t": 1.0}, result, outputs).output == position


MISNAMED = [
    (
        "z/t",
        TWO,
        None,
        r'no output z; the function returns a tuple of length 2.\n.*position, as in "0/t", or name',
    ),
    ("2/t", TWO, None, "no output 2; the function returns a tuple of length 2"),
    ("1/t", f32(3), None, r"no output 1; the function returns an array of shape \(3,\)"),
    ("u.foo/t", f32(3), None, r"u has no part foo; it is an array of shape \(3,\)"),
    ("u.0/t", f32(3), None, r"u has no part 0.*\n  A component is written in brackets: u\[0\]"),
    ("w/t", TWO, ("z", "y"), "no output named w; outputs= names z, y"),
    ("zz/t", TWO, ("z", "y"), 'Did you mean "z/t"'),
    (
        "z/t",
        TWO,
        ("z",),
        r"names the positions of a tuple of length 1, but the function returns a tuple of length 2",
    ),
    ("z/t", TWO, ("z", "y", "x"), "of a tuple of length 3, but the function returns a tuple of length 2"),
    ("z/t", f32(3), ("z", "y"), "of length 2, but the function returns an array"),
    ("u/t", {"u": f32()}, ("u",), r"returns a dict with u.\n  Leave outputs= out"),
    ("x/t", Point(*TWO), ("x", "y"), r"returns a Point with x, y.\n  Leave outputs= out"),
    (
        "los/t",
        {"loss": f32()},
        None,
        r'no output los; the function returns a dict with loss.\n  Did you mean "loss/t"',
    ),
    ("v/t", {"u": f32(), "a-b": f32()}, None, "so it cannot name 'a-b'"),
    ("u", None, None, "the function returns None"),
    ("u.n/t", {"u": {"m": f32()}}, None, "u has no part n; it is a dict with m"),
]


@pytest.mark.parametrize(("spec", "result", "outputs", "said"), MISNAMED)
def test_outputs_that_are_not_there(spec, result, outputs, said):
    with pytest.raises(NotationError, match=f'^"{re.escape(spec)}": (?s:.*){said}'):
        resolve(parse(spec), {"t": 1.0}, result, outputs)


# What does not fit, and what has no derivative.

MISFITS = [
    # naming of axes, all or none
    (
        "y/t points.0[b]",
        Y,
        r"axis b is named on points.0 but y, of shape \(8, 2\), names no axes.\n"
        r'  Name them all: "y\[i,j\]/t points.0\[b\]", or none: "y/t points.0".$',
    ),
    (
        "y[b,k]/x",
        Y,
        r"axes b, k are named on y but x, of shape \(8, 3\), names no axes.\n"
        r'  Name them all: "y\[b,k\]/x\[b,i\] -> b k i", or none: "y/x".$',
    ),
    ("y[b,k]/x^2", Y, r'Name them all: "y\[b,k\]/x\[b,i\] x\[b,j\] -> b k i j", or none: "y/x\^2".$'),
    ("z[i,i]/x", f32(4, 4), r'Name them all: "z\[i,i\]/x\[j,k\]", or none'),
    ("y[b,k]/x -> b", Y, r'Name them all: "y\[b,k\]/x\[b,i\] -> b k i".$'),
    ("y[b,k]/x ->", Y, r'Name them all: "y\[b,k\]/x\[b,i\] ->".$'),
    ("y[0,1]/x", Y, r'position 0, 1 is named on y but x.*\n  Name them all: "y\[0,1\]/x\[i,j\]".$'),
    (
        "y[b,k]/params",
        Y,
        r'but params, a pytree of 5 leaves, names no axes.\n.*as in params.b\[i\], or none: "y/params"',
    ),
    (
        "y/x ->",
        Y,
        r'but y, of shape \(8, 2\), names no axes.\n  Name them all: "y\[i,j\]/x\[k,l\] ->", or keep .*"y/x"',
    ),
    ("u/params ->", f32(), r"but params, a pytree of 5 leaves, names no axes.\n.*as in params.b\[i\]"),
    ("u/params[i]", f32(), r"params is a dict with b, deep, w.\n  Name one array of it, as in params.b\[j\]"),
    ("u/params[w]", f32(), r"params is a dict with b, deep, w.\n  A part of a pytree is named after a dot: params.w.$"),
    ("u/params[w,i]", f32(), r"named after a dot: params.w\[i\].$"),
    ("u/params.deep[0]", f32(), r"named after a dot: params.deep.0.$"),
    # ranks, positions, sizes
    (
        "y[b]/t",
        Y,
        r"y\[b\] names 1 axis, but y has 2: its shape is \(8, 2\).\n  Name every axis, as in y\[b,i\]",
    ),
    ("u/x[bi]", f32(), r"x\[bi\] names 1 axis, but x has 2.*\n  Name every axis, as in x\[b,i\]"),
    ("u/x[b,i,j]", f32(), r"names 3 axes, but x has 2.*\n  Name every axis, as in x\[b,i\]"),
    ("u/x[]", f32(), r"x\[\] names 0 axes, but x has 2.*\n  Name every axis, as in x\[i,j\]"),
    (
        "u/t[i]",
        f32(),
        r"t\[i\] names 1 axis, but t has 0: its shape is \(\).\n  A scalar has no axes to name, as in t.",
    ),
    (
        "u/x[b,3]",
        f32(),
        r"position 3 on axis 1 of x, whose shape is \(8, 3\).\n  Its positions there are 0 to 2.",
    ),
    (
        "y[8,0]/t",
        Y,
        r"position 8 on axis 0 of y, whose shape is \(8, 2\).\n  Its positions there are 0 to 7.",
    ),
    ("u[0]/t", f32(0), "It is empty there"),
    (
        "y[b,k]/x[k,b] ->",
        Y,
        r"k names axes of two sizes, 2 and 8: y\[b,k\], of shape \(8, 2\), and x\[k,b\], of shape",
    ),
    ("z[i,i]/t", Y, r"i names axes of two sizes, 8 and 2: z\[i,i\], of shape \(8, 2\)."),
    # parts
    ("u/params.v", f32(), "params has no part v; it is a dict with b, deep, w"),
    (
        "u/params.w.0",
        f32(),
        r"params.w has no part 0; it is an array.*\n  A component .* brackets: params.w\[0,i\]",
    ),
    ("u/t.real", f32(), "t has no part real; it is the Python float 2.0"),
    ("u/points.2", f32(), "points has no part 2; it is a tuple of length 2"),
    ("u/params.deep.1.x", f32(), "params.deep.1 has no part x; it is a tuple of length 2"),
    ("u/param.w", f32(), r'no argument named param was passed; .*\n  Did you mean "u/params.w"'),
]


@pytest.mark.parametrize(("spec", "result", "said"), MISFITS)
def test_specs_that_do_not_fit(spec, result, said):
    with pytest.raises(NotationError, match=f'^"{re.escape(spec)}": (?s:.*){said}') as caught:
        resolve(parse(spec), ARGUMENTS, result)
    for offered in re.findall(r'"([^"]+)"', str(caught.value).partition("\n")[2]):
        resolve(parse(offered), ARGUMENTS, result)  # the spelling that works, works


NO_DERIVATIVE = [
    (
        "u/n",
        3,
        f32(),
        r"n is the Python int 3; derivatives need floating-point inputs.\n.*pass 3.0 rather than 3",
    ),
    (
        "u/n",
        i32(4),
        f32(),
        r"n is an array of shape \(4,\) and dtype int32.*\n.*convert it: jnp.asarray\(n, float\)",
    ),
    ("u/n[i]", i32(4), f32(), r"n is an array of shape \(4,\) and dtype int32"),
    ("u/n", i32(), f32(), "n is a scalar of dtype int32"),
    ("u/n", True, f32(), "n is the Python bool True"),
    ("u/n", np.bool_(True), f32(), "n is a scalar of dtype bool"),
    ("u/n", "relu", f32(), "n is the string 'relu'; .*\n  It is passed through unchanged"),
    ("u/n", jnp.tanh, f32(), "n is the function tanh"),
    ("u/n", None, f32(), "n is None"),
    ("u/n", {"a": 1, "b": "s"}, f32(), "n is a dict with a, b, with no floating-point array in it"),
    ("u/n.a", {"a": 1, "b": "s"}, f32(), "n.a is the Python int 1.*pass 1.0 rather than 1"),
    ("u/t n", 3, f32(), "n is the Python int 3"),
    ("u/n", 2, i32(), "n is the Python int 2; .*pass 2.0 rather than 2"),
    (
        "k/t",
        3,
        i32(),
        r'k is a scalar of dtype int32; derivatives need floating-point outputs.\n.*value alone: "k"',
    ),
    ("k[i]/t", 3, i32(2), 'value alone: "k\\[i\\]"'),
    ("a/t", 3, {"a": {"m": i32(), "n": i32()}}, "a is a dict with m, n, with no floating-point array in it"),
]


@pytest.mark.parametrize(("spec", "value", "result", "said"), NO_DERIVATIVE)
def test_what_has_no_derivative(spec, value, result, said):
    with pytest.raises(DerivativeError, match=f'^"{re.escape(spec)}": (?s:.*)(?s:{said})'):
        resolve(parse(spec), {"t": 1.0, "n": value}, result)


def test_a_pytree_with_no_leaves_has_no_blocks():
    assert resolve(parse("u/params"), {"params": {}}, f32()) == {}


def test_errors_are_of_their_kind():
    assert issubclass(NotationError, ValueError)
    assert issubclass(DerivativeError, TypeError)
    assert issubclass(NotationError, JaxPartialsError)
    assert issubclass(DerivativeError, JaxPartialsError)
