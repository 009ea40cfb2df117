"""Doctests as code on the API page: what griffe takes for text goes to Markdown, which makes quotations of >>>."""

import re

import griffe

EXAMPLES = re.compile(r"^>>> .*(?:\n.*\S.*)*", re.MULTILINE)


class Doctests(griffe.Extension):
    """Fences the examples outside sections: those of a section `Examples:`, which are indented, griffe knows itself."""

    def on_object(self, *, obj, **_):
        if obj.docstring and "```" not in obj.docstring.value:
            obj.docstring.value = EXAMPLES.sub(r"```pycon\n\g<0>\n```", obj.docstring.value)
