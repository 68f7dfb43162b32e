"""What an installation needs: setup.cfg, constraints.txt, and the sentences about packages that are not installed."""

import ast
import configparser
import re
import subprocess
import sys

import pytest

from common.utils.errors import EXTRAS
from tests.conftest import ROOT

NAMES = {"cv2": "opencv-python-headless", "PIL": "pillow", "skimage": "scikit-image", "sklearn": "scikit-learn"}
BESIDE = {"huggingface_hub": "timm", "yaml": "jsonargparse"}  # module -> the package that installs it


def required(text):
    return {re.match(r"[\w-]+", line)[0].lower() for line in text.split("\n") if line.strip()}


@pytest.fixture(scope="module")
def config():
    found = configparser.ConfigParser()
    found.read(ROOT / "setup.cfg")
    return found


def imported():
    """The modules of other packages that the project imports."""
    own = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    for name in own:
        for path in (ROOT / name).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
                yield from ({name.split(".")[0] for name in names} - own - set(sys.stdlib_module_names))


def test_every_imported_package_is_installed_or_belongs_to_an_extra(config):
    core = required(config["options"]["install_requires"])
    extras = {extra: required(text) for extra, text in config["options.extras_require"].items()}
    for module in sorted(set(imported())):
        package = BESIDE.get(module) or NAMES.get(module, module).lower()
        named = [extra for extra, modules in EXTRAS.items() if module in modules]
        assert (package in core) != bool(named), f"{module} is either in install_requires or in EXTRAS"
        assert all(package in extras[extra] for extra in named), module


def test_only_direct_dependencies_are_pinned(config):
    known = required(config["options"]["install_requires"]).union(
        *(required(text) for text in config["options.extras_require"].values())
    )
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w-]+==[\w.]+", pin) for pin in pins)
    assert {pin.split("==")[0].lower() for pin in pins} <= known


def test_the_set_up_installs_every_extra_for_work_on_the_project(config):
    (extras,) = re.findall(r"\$root\[([\w,]+)\]", (ROOT / "scripts" / "setup.sh").read_text())
    assert set(extras.split(",")) == set(config["options.extras_require"]) - {"metrics"}


@pytest.mark.parametrize(
    ("command", "argv", "module"),
    [
        ("train", ["--family=gan"], "jsonargparse"),
        ("evaluate", ["grey", "--data=demo"], "skimage"),
        ("compare", ["photo", "--data=demo", "--out=out"], "matplotlib"),
        ("export", ["photo", "--onnx=a.onnx"], "onnx"),
        ("colorize", ["a.png", "--distribution"], "matplotlib"),
        ("colorize", ["serve"], "starlette"),
    ],
)
def test_a_command_says_which_extra_it_needs(command, argv, module, tmp_path):
    """Without a traceback, and also where the module is first imported long after the start."""
    (extra,) = (extra for extra, modules in EXTRAS.items() if module in modules)
    (tmp_path / "a.png").write_bytes((ROOT / "experiments" / "report.png").read_bytes())
    code = f"import sys; sys.modules[{module!r}] = None; from scripts import {command} as c; sys.exit(c.main({argv}))"
    env = {"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=env)
    says = f"error: {module} is not installed: run pip install '.[{extra}]' in the folder of Colorization Lab"
    assert (run.returncode, run.stderr.splitlines()[-1:]) == (2, [says])


def test_another_package_of_the_same_name_is_reported(tmp_path):
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "__init__.py").write_text("")
    env = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": ""}
    argv = [sys.executable, "-m", "scripts.colorize", "models"]
    run = subprocess.run(argv, capture_output=True, text=True, env=env, cwd=tmp_path)
    assert run.returncode == 1
    assert run.stderr.startswith(f"error: Python finds another package named common, {tmp_path}/common/__init__.py, ")
    assert len(run.stderr.splitlines()) == 1
