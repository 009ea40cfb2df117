"""What `simplify` itself costs: seconds for reading and rewriting, as programs grow."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax
from rich.console import Console

import jaxpartials as jp
from benchmarks.harness import Result, WrongValues, furthest, verdict
from benchmarks.models import network


def pass_cost(small: bool) -> list["PassCost"]:
    """Loops and their jvps in a row: equations before and after, and the seconds that the passes take."""
    return [PassCost((1, 2) if small else (2, 8, 32, 224))]


@dataclass
class PassCost:
    """Programs of so many blocks: a scan, its derivatives along two directions, and a network's Hessian."""

    sizes: tuple[int, ...]
    name: str = "pass_cost"

    def measure(self, rounds: int, console: Console) -> Result:
        self.compare(console)
        rows = {}
        for size in self.sizes:
            with console.status(f"{self.name}: {size} blocks"):
                found = [jp.simplify(_blocks(size)).stats(*_args()) for _ in range(min(3, rounds))]
                seconds = min(stats.seconds for stats in found)
                before, after = found[0].before, found[0].after
            rows[f"{size} blocks"] = {
                "equations": before.equations, "left": after.equations,
                "loops": before.loops, "loops left": after.loops,
                "s": seconds, "ms per equation": 1e3 * seconds / before.equations,
            }  # fmt: skip
        first, last = (rows[f"{size} blocks"]["ms per equation"] for size in (self.sizes[0], self.sizes[-1]))
        targets = (verdict("the largest program's ms per equation / the smallest's", last / first, 1.5),)
        return Result(self.name, ("equations", "left", "loops", "loops left", "s", "ms per equation"), rows, targets)

    def compare(self, console: Console) -> Result:
        fn = _blocks(self.sizes[0])
        _, error = furthest(jp.simplify(fn)(*_args()), jax.jit(fn)(*_args()))
        if not error <= 1e-3:
            raise WrongValues(f"{error:.2g} of the value away from jit; 1e-03 is allowed.")
        return Result(self.name, (), {}, notes=(f"{self.sizes[0]} blocks, the values of jit.",))


def _args() -> tuple:
    return network(4, 8, 8, 1), jnp.linspace(-1.0, 1.0, 4), jnp.linspace(0.0, 1.0, 5)


def _blocks(count):
    def fn(params, x, signal):
        total = 0.0
        for i in range(count):

            def moved(x, i=i):
                return lax.scan(lambda h, s: (jnp.sin(h * (1 + 0.1 * i)) + s * x, None), x, signal)[0]

            along = [jax.jvp(moved, (x,), (jnp.roll(x, n),))[1] for n in range(2)]
            hessian = jax.hessian(lambda x, i=i: _net(params, x * (1 + i)))(moved(x))
            total += jnp.sum(moved(x) * along[0] * along[1]) + jnp.trace(hessian)
        return total

    return fn


def _net(params, x):
    for W, b in params[:-1]:
        x = jnp.tanh(x @ W + b)
    return (x @ params[-1][0])[0]
