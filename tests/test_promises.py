"""docs/promises.md names tests that exist."""

import ast
import re

from tests.conftest import ROOT

NAMED = re.findall(r"`([\w/]+\.py)::(\w+)`", (ROOT / "docs" / "promises.md").read_text())


def test_every_promise_has_its_test():
    assert len(NAMED) > 40
    for path, name in NAMED:
        tree = ast.parse((ROOT / "tests" / path).read_text())
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, f"{path}::{name}"


def test_readme_links_to_it_once():
    assert (ROOT / "README.md").read_text().count("(docs/promises.md)") == 1
