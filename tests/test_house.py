"""The structure of the code base: which module may import which, and how long a file may be.

Every import counts: those inside functions and under TYPE_CHECKING too.
"""

import ast

import pytest

from common.registry import families
from tests.conftest import ROOT

FAMILIES = [name for name in families() if (ROOT / name / "__init__.py").exists()]
APPLICATIONS = ["comparison", "photo", "film", "turing", "ensemble"]
# A module may import modules of its own layer and of the layers before it.
LAYERS = ["utils", "color", "imaging", "core", "data", "networks", "evaluation", "training", "family", "application",
          "scripts"]  # fmt: skip
CORE = {"colorizer", "checkpoint", "registry", "predictor"}  # the files of common, beside its packages

SOURCES = [p for part in ("common", *FAMILIES, "scripts") for p in sorted((ROOT / part).rglob("*.py"))]


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_names(tree, package):
    """(dotted name, line) of everything that a file imports; `from a import b` gives a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)


def import_graph(paths):
    """Module -> {imported module of the project: line}."""
    modules = {module_name(path): path for path in paths}
    graph = {}
    for module, path in modules.items():
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        graph[module] = edges = {}
        for name, line in imported_names(ast.parse(path.read_text()), package):
            target = name if name in modules else name.rpartition(".")[0]  # else a name inside a module
            if target in modules and target != module:
                edges.setdefault(target, line)
            elif name.split(".")[0] == "tests":
                edges.setdefault("tests", line)
    return graph


def place(module):
    """(layer, room) of a module: rooms of one layer are what must not import each other."""
    first, *rest = module.split(".")
    if first in FAMILIES:
        return "family", first
    if first == "common":
        room = rest[0] if rest else "utils"  # common/__init__ is below everything
        layer = "core" if room in CORE else "application" if room in APPLICATIONS else room
        return layer, "core" if layer == "core" else room
    return first, first


def fault(importer, imported):
    """Why one module must not import another, or None."""
    (layer, room), (other_layer, other_room) = place(importer), place(imported)
    if other_layer not in LAYERS:
        return "tests are imported by tests only" if other_layer == "tests" else f"{other_layer} is not a known layer"
    if LAYERS.index(layer) < LAYERS.index(other_layer):
        return f"{layer} is below {other_layer} in the order {' < '.join(LAYERS)}"
    if layer == other_layer and room != other_room:
        return "families do not import each other" if layer == "family" else "applications do not import each other"
    if layer == "application" and other_layer == "family":
        return "applications reach families through common.registry"
    return None


def cycles(graph):
    """The sets of modules that import each other, directly or through others (Tarjan's components of two or more)."""
    index, low, stack, found = {}, {}, [], []

    def visit(module):
        index[module] = low[module] = len(index)
        stack.append(module)
        for other in graph.get(module, ()):
            if other not in index:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], index[other])
        if low[module] == index[module]:
            component = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(component) > 1:
                found.append(sorted(component))

    for module in graph:
        if module not in index:
            visit(module)
    return found


GRAPH = import_graph(SOURCES)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_layers(path):
    importer = module_name(path)
    assert place(importer)[0] in LAYERS, f"{importer} lies in no known layer: {', '.join(LAYERS)}"
    faults = [
        f"{path.relative_to(ROOT)}:{line} imports {imported}: {why}"
        for imported, line in GRAPH[importer].items()
        if (why := fault(importer, imported))
    ]
    assert not faults, "\n".join(faults)


def test_no_modules_import_each_other():
    found = cycles(GRAPH)
    assert not found, "import cycles:\n" + "\n".join(
        ", ".join(f"{m} -> {n}" for m in cycle for n in GRAPH[m] if n in cycle) for cycle in found
    )


def test_imports_of_every_kind_are_seen(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    package = tmp_path / "common" / "data"
    package.mkdir(parents=True)
    (package / "a.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from common.data import b\n"
    )
    (package / "b.py").write_text("def f():\n    import common.data.c\n")
    (package / "c.py").write_text("from .a import name\nfrom common.photo import page\n")
    graph = import_graph(sorted(package.glob("*.py")))
    assert cycles(graph) == [["common.data.a", "common.data.b", "common.data.c"]]
    assert "below application" in fault("common.data.c", "common.photo.page")
    assert "each other" in fault("common.photo.page", "common.turing.store")
    assert "each other" in fault(f"{FAMILIES[0]}.a", f"{FAMILIES[1]}.b")
    assert "registry" in fault("common.photo.page", f"{FAMILIES[0]}.a")
    assert fault("common.training.loop", "common.evaluation.evaluate") is None


@pytest.mark.parametrize("path", [*SOURCES, *sorted((ROOT / "tests").rglob("*.py"))], ids=lambda p: p.name)
def test_no_file_is_longer_than_400_lines(path):
    assert len(path.read_text().splitlines()) <= 400


def test_common_holds_few_files_beside_its_packages():
    assert {p.stem for p in (ROOT / "common").glob("*.py")} <= {"__init__", *CORE}


def test_families_are_found_by_their_folder():
    packages = {p.parent.name for p in ROOT.glob("*/__init__.py")} - {"common", "scripts", "tests"}
    assert packages <= set(FAMILIES), "a package at the top level calls register_family in its __init__"
    assert "ensemble" in families()


def test_heavy_libraries_are_imported_where_they_are_used():
    """fastai and timm take seconds to import: never at the top of a file."""
    for path in SOURCES:
        top = ast.parse(path.read_text()).body
        for node in top:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            assert not {n.split(".")[0] for n in names} & {"fastai", "timm", "matplotlib", "torchvision"}, path
