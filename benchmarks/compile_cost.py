"""How the derivative program grows with the order, and how long it takes to make."""

import time
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from rich.console import Console

import jaxpartials as jp
from benchmarks.harness import Result, WrongValues, count_equations, furthest, verdict
from benchmarks.models import field_at, network


def compile_cost(small: bool) -> list["CompileCost"]:
    """d^n u / dx^n of a tanh network, n = 1 ... 9."""
    if small:
        return [CompileCost(network(2, 5, 5, 1), 3, 3)]
    return [CompileCost(network(2, 64, 64, 64, 64, 1), 9, 6)]


@dataclass
class CompileCost:
    """Orders up to `orders`; plainly nested `jvp`, which triples with every order, up to `nested` only."""

    params: list
    orders: int
    nested: int
    name: str = "compile_cost"

    @property
    def args(self) -> tuple:
        return self.params, jnp.asarray(0.3), jnp.asarray(0.7)

    def measure(self, rounds: int, console: Console) -> Result:
        """Equations and seconds for every order. The least of three times stands: nothing makes tracing faster."""
        self.compare(console)
        args = self.args
        rows = {}
        for order in range(1, self.orders + 1):
            with console.status(f"{self.name}: order {order}"):
                repeats = min(3, rounds)
                ours = [_trace(_partials(order), args) for _ in range(repeats)]
                row = {"equations": ours[0][0], "plan and trace s": min(seconds for _, seconds in ours)}
                if order <= self.nested:
                    # A new function each time: JAX remembers the traces of one it has seen.
                    plain = [_trace(_nested_jvp(order), args) for _ in range(repeats)]
                    row |= {"nested jvp equations": plain[0][0], "nested jvp s": min(s for _, s in plain)}
            rows[f"order {order}"] = row
        last = rows[f"order {self.orders}"]
        targets = (
            verdict(f"equations at order {self.orders}", last["equations"], 1500),
            verdict(f"seconds to plan and trace at order {self.orders}", last["plan and trace s"], 1.0),
        )
        columns = ("equations", "plan and trace s", "nested jvp equations", "nested jvp s")
        return Result(self.name, columns, rows, targets)

    def compare(self, console: Console) -> Result:
        """The values up to order four; in float32, higher ones have no digits left to compare."""
        orders = range(1, min(self.nested, 4) + 1)
        for order in orders:
            _, error = furthest(jax.jit(_partials(order))(*self.args), jax.jit(_nested_jvp(order))(*self.args))
            if not error <= 1e-3:
                raise WrongValues(f"order {order}: {error:.2g} of the value away from nested jvp; 1e-03 is allowed.")
        return Result(self.name, (), {}, notes=(f"orders 1 to {orders[-1]}, the values of nested jvp.",))


def _partials(order):
    return jp.partials(field_at, f"u/x^{order}")


def _nested_jvp(order):
    def fn(params, t, x):
        tower = lambda x: field_at(params, t, x)
        for _ in range(order):
            tower = (lambda f: lambda x: jax.jvp(f, (x,), (jnp.ones_like(x),))[1])(tower)
        return tower(x)

    return fn


def _trace(fn, args) -> tuple[int, float]:
    started = time.perf_counter()
    jaxpr = jax.make_jaxpr(fn)(*args)
    return count_equations(jaxpr), time.perf_counter() - started
