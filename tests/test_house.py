"""The house keeps its own rules: who may import whom, and how long a file may be."""

import ast

import pytest

from common.registry import families
from tests.conftest import ROOT

FAMILIES = ("baselines", "classification", "gan")
SOURCES = [p for part in ("common", *FAMILIES, "scripts") for p in sorted((ROOT / part).rglob("*.py"))]


def imported(path):
    """Top-level names that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_arrow(path):
    part = path.relative_to(ROOT).parts[0]
    forbidden = {"tests"}
    if part == "common":
        forbidden |= {*FAMILIES, "scripts"}
    elif part in FAMILIES:
        forbidden |= {"scripts", *FAMILIES} - {part}
    assert not forbidden & set(imported(path))


@pytest.mark.parametrize("path", [*SOURCES, *sorted((ROOT / "tests").rglob("*.py"))], ids=lambda p: p.name)
def test_no_file_is_longer_than_400_lines(path):
    assert len(path.read_text().splitlines()) <= 400


def test_families_are_found_by_their_folder():
    assert families() == sorted([*FAMILIES, "ensemble"])
    assert all((ROOT / name / "__init__.py").exists() for name in FAMILIES)


def test_heavy_libraries_are_imported_where_they_are_used():
    """fastai and timm take seconds to import: never at the top of a file."""
    for path in SOURCES:
        top = ast.parse(path.read_text()).body
        for node in top:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            assert not {n.split(".")[0] for n in names} & {"fastai", "timm", "matplotlib", "torchvision"}, path
