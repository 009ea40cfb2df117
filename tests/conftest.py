"""What all tests share: no rule may loop, so none is stopped here before Python's own limit."""

from jaxpartials.graph import graph

graph.DEEPEST = 10**9
