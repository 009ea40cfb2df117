"""The rules of the repository that no linter states: who may name JAX's internals, what the pins may hold."""

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

INTERNAL = re.compile(r"jax\.(?:_src|interpreters|extend)(?:\.[\w.]+)?")
REGISTRY_HOST = re.compile(
    r"\b(?:pypi|pythonhosted|npmjs|anaconda|debian|download\.pytorch)\.(?:org|com|io)\b|\bfile://", re.I
)


def internal_names(source: str) -> list[str]:
    """Return the internal JAX modules that `source` names: in an import, an attribute or a whole string."""
    named = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            named += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            named += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute):
            named.append(ast.unparse(node))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            named.append(node.value)
    return sorted({name for name in named if INTERNAL.fullmatch(name)})


def modules() -> list[Path]:
    tops = ("jaxpartials", "examples", "benchmarks")
    return sorted(path for top in tops for path in (ROOT / top).rglob("*.py"))


def tracked_files() -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode or not listing.stdout:
        pytest.skip("not a git checkout")
    return [path for name in listing.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def pins() -> list[Requirement]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import jax._src.core", ["jax._src.core"]),
        ("from jax._src import core as c", ["jax._src.core"]),
        ("from jax import interpreters", ["jax.interpreters"]),
        ("import jax\njax.extend.core.Jaxpr", ["jax.extend", "jax.extend.core", "jax.extend.core.Jaxpr"]),
        ("import importlib\nimportlib.import_module('jax._src.ad_util')", ["jax._src.ad_util"]),
        ("import jax\nfrom jax import numpy, lax\njax.extended", []),
        ("from . import _jax\n'prose about jax.extend is prose'", []),
    ],
)
def test_internal_names_finds_every_spelling(source, expected):
    assert internal_names(source) == expected


def test_jax_internals_are_named_in_one_file_only():
    found = {str(path.relative_to(ROOT)): internal_names(path.read_text()) for path in modules()}
    assert "jaxpartials/_jax.py" in found
    assert {name: found[name] for name in found if found[name] and name != "jaxpartials/_jax.py"} == {}


@pytest.mark.parametrize("labels", [("pypi", "org"), ("files", "pythonhosted", "org")])
def test_registry_host_pattern_finds_a_planted_host(labels):
    assert REGISTRY_HOST.search(f"see https://{'.'.join(labels)}/simple")


def test_no_registry_host_in_a_tracked_file():
    named = {}
    for path in tracked_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if host := REGISTRY_HOST.search(text):
            named[str(path.relative_to(ROOT))] = host.group()
    assert named == {}


def test_constraints_are_plain_pins():
    for pin in pins():
        assert [specifier.operator for specifier in pin.specifier] == ["=="], pin
        assert pin.url is None, pin
        assert not pin.extras, pin


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_every_direct_dependency_has_one_pin(python):
    environment = {"python_version": python, "extra": ""}
    applicable = [pin for pin in pins() if pin.marker is None or pin.marker.evaluate(environment)]
    pinned = [canonicalize_name(pin.name) for pin in applicable]
    extras = PROJECT["optional-dependencies"].values()
    for line in [*PROJECT["dependencies"], *(line for extra in extras for line in extra)]:
        assert pinned.count(canonicalize_name(Requirement(line).name)) == 1, line
    assert len(pinned) == len(set(pinned))


def test_pins_satisfy_the_declared_ranges():
    declared = [Requirement(line) for line in PROJECT["dependencies"]]
    for requirement in declared:
        versions = [next(iter(pin.specifier)).version for pin in pins() if pin.name == requirement.name]
        assert versions, requirement
        assert all(requirement.specifier.contains(version) for version in versions), requirement


def test_the_wheel_holds_what_is_read_at_run_time():
    wheel = pytest.importorskip("hatchling.builders.wheel", reason="hatchling is not installed").WheelBuilder(str(ROOT))
    packed = {file.distribution_path for file in wheel.recurse_included_files()}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "jaxpartials").rglob("*.py")}
    assert {path for path in packed if path.endswith(".py")} == modules
    assert packed - modules == {
        "jaxpartials/inspection/page.html", "jaxpartials/inspection/page.js", "jaxpartials/py.typed",
    }  # fmt: skip


def test_one_version_everywhere():
    citation = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    changelog = re.search(r"^## \[(\d\S*)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert citation is not None
    assert changelog is not None
    assert citation.group(1) == changelog.group(1) == PROJECT["version"]
