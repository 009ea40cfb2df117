"""Whole training steps, written the plain way and passed through `simplify`."""

import jax

import jaxpartials as jp
from benchmarks import byhand
from benchmarks.harness import Case, Target
from benchmarks.models import burgers, kuramoto_sivashinsky, training
from benchmarks.pinn import naive, settings


def whole_steps(small: bool) -> list[Case]:
    """`simplify(jax.value_and_grad(loss))` with plain nested grads in the loss: Burgers, and Kuramoto-Sivashinsky."""
    cases = []
    for width, args in settings(small):
        for name, order, residual, hand, targets in (
            ("Burgers", 2, burgers, byhand.order_two, (Target("simplify", "by hand", 1.15),)),
            ("KS", 4, kuramoto_sivashinsky, byhand.order_four, (Target("simplify", "plain", 0.5),)),
        ):
            plain = training(naive(order), residual)
            variants = {"by hand": training(hand, residual), "simplify": jp.simplify(plain), "plain": jax.jit(plain)}
            cases.append(
                Case(f"whole_steps, {name}, width {width}", variants, args, "by hand", targets, tolerance=2e-3)
            )
    return cases
