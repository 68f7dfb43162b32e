import subprocess
import sys

import pytest

from tests.conftest import ROOT


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)


def test_garbage_is_collected_again_after_the_imports():
    code = """
import gc
from common.utils.startup import quick_imports
with quick_imports():
    assert not gc.isenabled()
    import torch
frozen = gc.get_freeze_count()
assert gc.isenabled() and frozen > 100_000
garbage = []
garbage.append(garbage)
del garbage
with quick_imports():  # a second call must not keep garbage alive
    assert gc.isenabled()
assert gc.get_freeze_count() == frozen
assert gc.collect() > 0
"""
    assert run(code).returncode == 0, run(code).stderr


@pytest.mark.parametrize("code", [0, 3])
def test_everything_is_printed_before_the_exit(code):
    done = run(f"from common.utils.startup import leave_at_once; print('x' * 100_000); leave_at_once({code})")
    assert (done.returncode, len(done.stdout), done.stderr) == (code, 100_001, "")
