"""How accurate and how fast the operations of `jaxpartials.stable` are, beside the plain ones."""
