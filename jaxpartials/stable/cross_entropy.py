"""Cross-entropies of labels and the softmax of logits."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxpartials.errors import StableError
from jaxpartials.stable.family import described
from jaxpartials.stable.softmax import Axes, Axis, excess, log_softmax, masked, real, relative, weights


def softmax_cross_entropy(
    logits: ArrayLike, labels: ArrayLike, axis: Axis = -1, where: ArrayLike | None = None
) -> jax.Array:
    """−Σ lᵢ log pᵢ, with p = softmax(logits) and the labels l.

    By the logits a, with L = Σ lᵢ:   ∂/∂aᵢ = L pᵢ − lᵢ,   ∂²/∂aᵢ∂aⱼ = L pᵢ (δᵢⱼ − pⱼ).

    The plain derivative cancels where p is near the label: in float32 that of `optax.softmax_cross_entropy` with logits
    (0, 18) and labels (0, 1) is 0 by the second logit; it should be −1.5e-8.

    >>> logits, labels = jnp.array([0.0, 18.0]), jnp.array([0.0, 1.0])
    >>> float(jax.grad(softmax_cross_entropy)(logits, labels)[1]) < -1.5e-8
    True

    Args:
        logits: real.
        labels: of one shape with the logits, or to be broadcast against them.
        axis: the axes of the classes; None: all.
        where: which classes count.

    Returns:
        With n classes, the value, and each first derivative where the labels are 0 and 1, is within 8 + n/2 ulp; second
        derivatives are, of the largest; of order 3, of the largest of orders 2 and 3. A class of logit −inf
        with label 0 adds 0, and so do its derivatives.

    Raises:
        StableError: if an argument is no array of real numbers, shapes do not broadcast, or there is no such axis.

    Source: C. M. Bishop, Pattern Recognition and Machine Learning (2006), 4.3.4.
    """
    (a, wanted), dtype, axes = real("softmax_cross_entropy", axis, logits, labels)
    p = log_softmax(a, axes, where)
    out = (wanted == 0) & jnp.isneginf(p)
    p = jnp.where(out if where is None else out | ~jnp.asarray(where, bool), 0, p)
    return -jnp.sum(wanted * p, axes).astype(dtype)


def softmax_cross_entropy_with_integer_labels(
    logits: ArrayLike, labels: ArrayLike, axis: int | Sequence[int] = -1, where: ArrayLike | None = None
) -> jax.Array:
    """−log p_l, with p = softmax(logits) and the label l.

    By the logits a:   ∂/∂a_l = −Σ pⱼ over j ≠ l,   ∂/∂aᵢ = pᵢ for the others,   ∂²/∂aᵢ∂aⱼ = pᵢ (δᵢⱼ − pⱼ).

    The plain derivative is p_l − 1, which cancels: in float32 that of `optax.softmax_cross_entropy_with_integer_labels`
    with logits (0, 18) and label 1 is 0 by the second logit; it should be −1.5e-8.

    >>> float(jax.grad(softmax_cross_entropy_with_integer_labels)(jnp.array([0.0, 18.0]), 1)[1]) < -1.5e-8
    True

    Args:
        logits: real.
        labels: whole numbers, of the shape of the logits without the axes of the classes.
        axis: the axes of the classes; of several, a label counts through them in the order named.
        where: which classes count. Where none does, the result is 0.

    Returns:
        With n classes, the value, and each first derivative, is within 8 + n/2 ulp; second derivatives are, of the
        largest; of order 3, of the largest of orders 2 and 3. Labels that are not in [−n, n) give nan. If all
        logits are −inf, they count as equal.

    Raises:
        StableError: if the logits are no array of real numbers, the labels no whole numbers, or their shapes do not
            fit.

    Source: C. M. Bishop, Pattern Recognition and Machine Learning (2006), 4.3.4.
    """
    name = "softmax_cross_entropy_with_integer_labels"
    (a,), dtype, axes = real(name, axis, logits)
    labels = jnp.asarray(labels)
    batch = tuple(k for k in range(a.ndim) if k not in axes)
    if not jnp.issubdtype(labels.dtype, jnp.integer) or labels.shape != tuple(a.shape[k] for k in batch):
        raise StableError(
            f"{name} got labels {described(labels)} for logits {described(a)} with classes along axis {axis}. "
            f"Pass whole numbers, one for each of {[a.shape[k] for k in batch]}."
        )

    def classes_last(x: jax.Array) -> jax.Array:
        return jnp.transpose(x, batch + axes).reshape(*labels.shape, -1)

    if where is not None:
        where = jnp.broadcast_to(jnp.asarray(where, bool), a.shape)
        a = masked(a, where)
    a = classes_last(a)
    value = _minus_log((a.ndim - 1,), a, labels[..., None])
    if where is not None:
        value = jnp.where(jnp.any(classes_last(where), -1, keepdims=True), value, 0)
    return value[..., 0].astype(dtype)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _minus_log(axes: Axes, a: jax.Array, labels: jax.Array) -> jax.Array:
    """−log p_l = (m − a_l) + log Σ exp(aⱼ − m): a sum of two numbers that are not negative."""
    m, d, e = relative(axes, a)
    return jnp.log1p(excess(axes, a, m, e)) - jnp.take_along_axis(d, labels, axes[0])


@_minus_log.defjvp
def _minus_log_tangent(axes: Axes, primals, tangents):
    (a, labels), (da, _) = primals, tangents
    value = _minus_log(axes, a, labels)
    # Σ pⱼ (daⱼ − da_l), in which p_l does not occur.
    (axis,) = axes
    n = a.shape[axis]
    label = jax.lax.broadcasted_iota(labels.dtype, a.shape, axis) == jnp.where(labels < 0, labels + n, labels)
    t = jnp.where(label, 0, da - jnp.sum(jnp.where(label, da, 0), axes, keepdims=True))
    return value, jnp.sum(weights(axes, a, None) * t, axes, keepdims=True)
