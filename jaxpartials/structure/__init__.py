"""Facts about a Graph, by one forward pass and one table row per primitive.

`axes`: which axis of a value carries the lanes. `linearity`: which values are linear in which others. `rules` is the
table. What a rule cannot prove it answers conservatively, with the node that stands in the way.
"""
