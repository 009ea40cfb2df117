"""Doctests as code on the API page: what griffe takes for text goes to Markdown, which makes quotations of >>>."""

import re

import griffe

EXAMPLES = re.compile(r"^>>> (?:.*\S.*(?:\n|\Z))+", re.MULTILINE)


class Doctests(griffe.Extension):
    """Fences the examples outside sections: those of a section `Examples:`, which are indented, griffe knows itself."""

    def on_object(self, *, obj, **_):
        if obj.docstring and "```" not in obj.docstring.value:
            obj.docstring.value = EXAMPLES.sub(lambda found: f"```pycon\n{found[0].rstrip()}\n```\n", obj.docstring.value)
