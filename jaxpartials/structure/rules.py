"""What is known of each primitive: in which operands it is linear, and how it carries lanes.

One row per primitive, by name. What has no row is taken to be nonlinear and to mix everything. The names are those of
all supported JAX releases: a row for a primitive that a release lacks is never looked up.
"""

from dataclasses import dataclass

from jaxpartials.structure import axes_calls as calls
from jaxpartials.structure import axes_rules as axes
from jaxpartials.structure.axes_rules import AxesRule, each, elementwise, leading, matrices, reduce, window

EACH, SAME, NEVER, INSIDE = "each", "same", "never", "inside"
JOINT, FIRST, LAST = slice(None), slice(0, 1), slice(-1, None)
FIRST_TWO, CASES, OUTER = slice(0, 2), slice(1, None), slice(0, None, 2)


@dataclass(frozen=True)
class Rule:
    """`linear`: the operands in which the outputs are jointly linear while the others are fixed, as a slice of them;
    or EACH, in every operand while all others are fixed; SAME, output i is operand i; NEVER; INSIDE, as the program
    inside says. `axes`: how lanes go through.
    """

    linear: slice | str
    axes: AxesRule


RULES: dict[str, Rule] = {
    # primitive                 linear in    axes
    # ---- arithmetic
    "add":                      Rule(JOINT, elementwise),
    "add_any":                  Rule(JOINT, elementwise),
    "sub":                      Rule(JOINT, elementwise),
    "neg":                      Rule(JOINT, elementwise),
    "mul":                      Rule(EACH, elementwise),
    "div":                      Rule(FIRST, elementwise),
    "polynomial":               Rule(CASES, elementwise),  # of x and its coefficients
    "real":                     Rule(JOINT, elementwise),
    "imag":                     Rule(JOINT, elementwise),
    "conj":                     Rule(JOINT, elementwise),
    "complex":                  Rule(JOINT, elementwise),
    "select_n":                 Rule(CASES, elementwise),
    "reduce_precision":         Rule(JOINT, elementwise),
    "convert_element_type":     Rule(JOINT, elementwise),  # between inexact types
    "copy":                     Rule(JOINT, elementwise),
    "name":                     Rule(JOINT, elementwise),
    "stop_gradient":            Rule(NEVER, elementwise),
    "optimization_barrier":     Rule(SAME, each),
    "device_put":               Rule(SAME, each),
    "sharding_constraint":      Rule(JOINT, elementwise),
    "layout_constraint":        Rule(JOINT, elementwise),
    "zeros_like":               Rule(JOINT, elementwise),
    # ---- moving elements
    "broadcast_in_dim":         Rule(FIRST, axes.broadcast_in_dim),
    "reshape":                  Rule(FIRST, axes.reshape),
    "transpose":                Rule(JOINT, axes.transpose),
    "squeeze":                  Rule(JOINT, axes.squeeze),
    "stack":                    Rule(JOINT, axes.stack),
    "unstack":                  Rule(JOINT, axes.unstack),
    "tile":                     Rule(JOINT, axes.tile),
    "concatenate":              Rule(JOINT, axes.concatenate),
    "split":                    Rule(JOINT, axes.split),
    "pad":                      Rule(JOINT, axes.pad),
    "slice":                    Rule(JOINT, axes.slice_),
    "rev":                      Rule(JOINT, axes.rev),
    "dynamic_slice":            Rule(FIRST, axes.dynamic_slice),
    "dynamic_update_slice":     Rule(FIRST_TWO, axes.dynamic_update_slice),
    "gather":                   Rule(FIRST, axes.gather),
    "scatter":                  Rule(OUTER, axes.scatter),
    "scatter-add":              Rule(OUTER, axes.scatter),
    "scatter-sub":              Rule(OUTER, axes.scatter),
    "scatter-mul":              Rule(FIRST, axes.scatter),
    "scatter-min":              Rule(NEVER, axes.scatter),
    "scatter-max":              Rule(NEVER, axes.scatter),
    "bitcast_convert_type":     Rule(NEVER, axes.bitcast),
    # ---- along axes
    "reduce_sum":               Rule(JOINT, reduce),
    "reduce_prod":              Rule(NEVER, reduce),
    "reduce_max":               Rule(NEVER, reduce),
    "reduce_min":               Rule(NEVER, reduce),
    "reduce_and":               Rule(NEVER, reduce),
    "reduce_or":                Rule(NEVER, reduce),
    "reduce_xor":               Rule(NEVER, reduce),
    "reduce":                   Rule(NEVER, reduce),
    "argmax":                   Rule(NEVER, reduce),
    "argmin":                   Rule(NEVER, reduce),
    "cumsum":                   Rule(JOINT, axes.cumulative),
    "cumprod":                  Rule(NEVER, axes.cumulative),
    "cummax":                   Rule(NEVER, axes.cumulative),
    "cummin":                   Rule(NEVER, axes.cumulative),
    "cumlogsumexp":             Rule(NEVER, axes.cumulative),
    "sort":                     Rule(NEVER, axes.sort),
    "top_k":                    Rule(NEVER, axes.top_k),
    "approx_top_k":             Rule(NEVER, axes.top_k),
    "fft":                      Rule(JOINT, axes.fft),
    "reduce_window":            Rule(NEVER, window),
    "reduce_window_sum":        Rule(JOINT, window),
    "reduce_window_max":        Rule(NEVER, window),
    "reduce_window_min":        Rule(NEVER, window),
    "select_and_scatter":       Rule(NEVER, window),
    "select_and_scatter_add":   Rule(FIRST, window),
    "select_and_gather_add":    Rule(FIRST, window),
    # ---- contractions
    "dot_general":              Rule(EACH, axes.dot_general),
    "ragged_dot_general":       Rule(EACH, axes.ragged_dot),
    "conv_general_dilated":     Rule(EACH, axes.convolution),
    # ---- linear algebra: how many of each operand's last axes are matrices
    "cholesky":                 Rule(NEVER, matrices(2)),
    "cholesky_update":          Rule(NEVER, matrices(2, 1)),
    "eig":                      Rule(NEVER, matrices(2)),
    "eigh":                     Rule(NEVER, matrices(2)),
    "geqp3":                    Rule(NEVER, matrices(2, 1)),
    "geqrf":                    Rule(NEVER, matrices(2)),
    "hessenberg":               Rule(NEVER, matrices(2)),
    "householder_product":      Rule(NEVER, matrices(2, 1)),
    "lu":                       Rule(NEVER, matrices(2)),
    "lu_pivots_to_permutation": Rule(NEVER, matrices(1)),
    "ormqr":                    Rule(NEVER, matrices(2, 1, 2)),
    "qr":                       Rule(NEVER, matrices(2)),
    "schur":                    Rule(NEVER, matrices(2)),
    "svd":                      Rule(NEVER, matrices(2)),
    "symmetric_product":        Rule(NEVER, matrices(2, 2)),
    "triangular_solve":         Rule(LAST, axes.triangular_solve),
    "tridiagonal":              Rule(NEVER, matrices(2)),
    "tridiagonal_solve":        Rule(LAST, matrices(1, 1, 1, 2)),
    # ---- random numbers: one key, or one counter, per lane
    "random_bits":              Rule(NEVER, leading),
    "random_clone":             Rule(NEVER, leading),
    "random_fold_in":           Rule(NEVER, leading),
    "random_gamma":             Rule(NEVER, elementwise),
    "random_seed":              Rule(NEVER, leading),
    "random_split":             Rule(NEVER, leading),
    "random_unwrap":            Rule(NEVER, leading),
    "random_wrap":              Rule(NEVER, leading),
    "threefry2x32":             Rule(NEVER, elementwise),
    # ---- programs inside
    "scan":                     Rule(INSIDE, calls.scan),
    "while":                    Rule(INSIDE, calls.while_),
    "cond":                     Rule(INSIDE, calls.cond),
    "jit":                      Rule(INSIDE, calls.call),
    "remat2":                   Rule(INSIDE, calls.call),
    "custom_vmap_call":         Rule(INSIDE, calls.call),
    "custom_jvp_call":          Rule(INSIDE, calls.custom_jvp),
    "custom_vjp_call":          Rule(INSIDE, calls.custom_vjp),
    "call_hi_primitive":        Rule(NEVER, calls.hi_primitive),
    "custom_linear_solve":      Rule(INSIDE, calls.linear_solve),
}  # fmt: skip

# ---- element by element, linear in nothing
for name in (
    "abs", "acos", "acosh", "and", "asin", "asinh", "atan", "atan2", "atanh", "bessel_i0e", "bessel_i1e",
    "cbrt", "ceil", "clamp", "clz", "cos", "cosh", "digamma", "eq", "eq_to", "erf", "erf_inv", "erfc", "exp",
    "exp2", "expm1", "floor", "ge", "gt", "igamma", "igamma_grad_a", "igammac", "integer_pow", "is_finite",
    "le", "le_to", "lgamma", "log", "log1p", "log2", "logistic", "lt", "lt_to", "max", "min", "mulhi", "ne",
    "nextafter", "not", "one_minus_square", "or", "polygamma", "population_count", "pow",
    "regularized_incomplete_beta", "rem", "round", "rsqrt", "shift_left", "shift_right_arithmetic",
    "shift_right_logical", "sign", "sin", "sinh", "sqrt", "square", "tan", "tanh", "xor", "zeta",
):  # fmt: skip
    RULES[name] = Rule(NEVER, elementwise)
