"""Damaged files are each refused in one sentence, or read as another decoder reads them.

COLORIZATION_FUZZ=2000 tries more than the 200 files of a usual run.
"""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.slow
def test_damaged_files():
    count = int(os.environ.get("COLORIZATION_FUZZ", "200"))
    # in a separate process, so that its memory can be measured and a crash is detected
    argv = [sys.executable, "-m", "tests.common.imaging.fuzzing", str(count)]
    run = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, timeout=1800)
    assert run.returncode == 0, run.stderr[-2000:]
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["wrong"] == []
    assert found["read"] + found["refused"] == count
    assert found["refused"] > 0.4 * count
    assert found["read"] > 0.04 * count
    assert found["slowest"] < 5, found["slowest_file"]
    assert found["peak"] < 1500, found
