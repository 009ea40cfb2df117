"""The documentation runs: every ```python block of the README and of docs/, and what it says it prints.

The blocks of a page run in order, in one namespace. A ```text block right after one is what it prints or, where it
raises, the last lines of its traceback. Whitespace does not count, `...` stands for anything, and numbers with a point
or an exponent may differ in the fourth digit. A block titled `model.py` runs as the file of that name, so that
messages which name a line name one the reader can see. Other libraries' code is in ```py blocks, which do not run, or
imported from one of OTHERS: such a page is skipped where the library is not installed.
"""

import contextlib
import io
import itertools
import linecache
import re
import sys
import types
from dataclasses import dataclass
from pathlib import Path

import jax
import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

# Libraries that are shown, and that the package does not need.
OTHERS = ("diffrax", "equinox", "flax", "folx")

FENCE = re.compile(r"^( *)```([^\n`]*)\n(.*?)^\1```[ ]*$", re.MULTILINE | re.DOTALL)
TITLE = re.compile(r'title="([^"]+)"')
NUMBER = r"[-+]?(?:\d+\.\d*|\.\d+|\d+(?=[eE][-+]?\d))(?:[eE][-+]?\d+)?"
PIECE = re.compile(rf"(?P<rest>\.\.\.)|(?P<number>{NUMBER})|(?P<space>\s+)")


@dataclass(frozen=True)
class Block:
    code: str
    line: int
    title: str | None
    prints: str | None  # None where the page does not say


def blocks(text: str) -> list[Block]:
    """The blocks of a page that run, in order."""
    found = []
    fences = list(FENCE.finditer(text))
    for fence, after in itertools.zip_longest(fences, fences[1:]):
        indent, info, code = fence.groups()
        if info.split()[:1] != ["python"]:
            continue
        follows = after is not None and after[2].strip() == "text" and not text[fence.end() : after.start()].strip()
        title = TITLE.search(info)
        found.append(
            Block(
                code=re.sub(rf"^{indent}", "", code, flags=re.MULTILINE),
                line=text.count("\n", 0, fence.start()) + 1,
                title=title and title[1],
                prints=after[3] if follows else None,
            )
        )
    return found


def run(block: Block, page: str, namespace: dict) -> str:
    """What a block prints; with the last lines of the traceback, where it raises and the page says so."""
    # Without a title, the lines are those of the page.
    name, above = (block.title, 0) if block.title else (page, block.line)
    source = "\n" * above + block.code
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            exec(compile(source, name, "exec"), namespace)
    except Exception as error:
        if block.prints is None:
            raise
        kind = type(error)
        module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
        printed.write(f"{module}{kind.__qualname__}: {error}")
    finally:
        linecache.cache.pop(name, None)
    return printed.getvalue()


def agrees(expected: str, printed: str) -> bool:
    """Whether a block printed what the page says."""
    expected, printed = expected.strip(), printed.strip()
    pattern, numbers, at = "", [], 0
    for piece in PIECE.finditer(expected):
        pattern += re.escape(expected[at : piece.start()])
        at = piece.end()
        if piece["number"]:
            numbers.append(float(piece["number"]))
            pattern += rf"({NUMBER})"
        else:
            pattern += ".*?" if piece["rest"] else r"\s+"
    found = re.fullmatch(pattern + re.escape(expected[at:]), printed, re.DOTALL)
    if found is None:
        return False
    return all(
        float(number) == pytest.approx(wanted, rel=1e-3, abs=1e-6)
        for number, wanted in zip(found.groups(), numbers, strict=True)
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page(page, monkeypatch, request):
    code = "".join(block.code for block in blocks(page.read_text()))
    # Such pages count what XLA leaves; of others only the values count.
    if re.search(r"\bxla\b|\bcompile\b|\bstable\b", code):
        request.getfixturevalue("optimised")
    for library in re.findall(rf"^(?:import|from) ({'|'.join(OTHERS)})\b", code, re.MULTILINE):
        pytest.importorskip(library, reason=f"{page.name} shows {library}, which is not installed")
    module = types.ModuleType(f"docs_{page.stem.replace('-', '_')}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with jax.enable_x64(False):
        for block in blocks(page.read_text()):
            printed = run(block, page.name, module.__dict__)
            if block.prints is not None and not agrees(block.prints, printed):
                pytest.fail(
                    f"{page.name}:{block.line} prints\n\n{printed}\nwhere the page says\n\n{block.prints}",
                    pytrace=False,
                )


def test_pages_run_something():
    counts = {page.name: len(blocks(page.read_text())) for page in PAGES}
    wordy = {"glossary.md", "api.md"}
    assert {name for name, count in counts.items() if count == 0} <= wordy
    # What is spelled differently (Python, python3) would be skipped in silence.
    for page in PAGES:
        languages = {info.split()[0] if info.split() else "" for _, info, _ in FENCE.findall(page.read_text())}
        assert languages <= {"python", "py", "text", "sh"}, page.name


def test_every_page_is_in_the_navigation():
    configuration = (ROOT / "mkdocs.yml").read_text()
    assert {page.name for page in PAGES[1:]} == set(re.findall(r"^ +- (?:.+: )?([\w-]+\.md)$", configuration, re.M))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_exist(page):
    text = page.read_text()
    named = [ROOT / path for path in re.findall(r"`(jaxpartials/[\w/.]*)`", text)]
    named += [page.parent / path for path in re.findall(r"\]\((?!https?:)([^)#]+)", FENCE.sub("", text))]
    assert [path for path in named if not path.exists()] == []


PAGE = """
Words.

```python
x = 1 / 3
print(x, 2)
```

```text
0.33333 2
```

```py
import torch
```

```python title="model.py"
def half(x):
    raise ValueError(x)
```

Between.

```text
not compared
```

1. Indented:

    ```python
    half(7)
    ```

    ```text
    ValueError: 7
    ```
"""


def test_blocks_are_found_and_run():
    first, second, third = blocks(PAGE)
    assert [first.line, second.title, second.prints] == [4, "model.py", None]
    namespace = {}
    assert agrees(first.prints, run(first, "page.md", namespace))
    assert run(second, "page.md", namespace) == ""
    assert third.code == "half(7)\n"
    assert agrees(third.prints, run(third, "page.md", namespace))
    with pytest.raises(ValueError, match="7"):
        run(Block(third.code, 1, None, None), "page.md", namespace)


@pytest.mark.parametrize(
    ("expected", "printed", "agree"),
    [
        ("1.5 and 2", "1.50001  and\n2\n", True),
        ("1.5 and 2", "1.6 and 2", False),
        ("1.5 and 2", "1.5 and 3", False),
        ("1.5", "", False),
        ("", "1.5", False),
        ("[1.  2.5]", "[1. 2.5]", True),
        ("0.0", "1e-7", True),
        ("0.0", "1e-3", False),
        ("12.3k", "12.3M", False),
        ("a ... 2.5", "a 1.5 b 2.5", True),
        ("a ... 2.5", "a 1.5 b 3.5", False),
        ("f(x)[0]", "f(x)[0]", True),
        ("f(x)[0]", "f(x)[0] more", False),
        ("nan", "1.0", False),
    ],
)
def test_agrees(expected, printed, agree):
    assert agrees(expected, printed) is agree
