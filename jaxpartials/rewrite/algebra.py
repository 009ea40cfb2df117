"""Local algebra, applied before an equation becomes a node: `Graph(rules=RULES)`.

Every rule keeps every value: the same numbers, nan and inf included, up to rounding where its docstring says
so. The sign of a zero may change only where XLA changes it in the same way (x + 0). What is false for some
input is not here: 0 * x is nan where x is inf, x - x and x / x are nan there too.

Each rule makes a program smaller, or moves a transpose out of elementwise equations or into a broadcast, so
that applying rules ends.
Arrays with explicit shardings and extended dtypes (random keys) are left alone.
"""

from jaxpartials.graph.graph import Rule
from jaxpartials.rewrite import arithmetic, arrangement

# By primitive, in the order in which they are tried.
RULES: dict[str, list[Rule]] = {
    name: [*arithmetic.RULES.get(name, ()), *arrangement.RULES.get(name, ())]
    for name in (*arithmetic.RULES, *arrangement.RULES)
}
