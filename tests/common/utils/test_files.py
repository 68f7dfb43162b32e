import signal
import subprocess
import sys
import threading

import pytest

from common.utils.errors import UserError
from common.utils.files import locked, write_atomically

HOLD = """
import sys
from pathlib import Path
from common.utils.files import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(path):
    """A process that holds a lock until its stdin is closed."""
    command = [sys.executable, "-c", HOLD, str(path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_a_held_lock_is_refused_with_the_message(tmp_path):
    path = tmp_path / ".lock"
    with locked(path), pytest.raises(UserError, match="try later"), locked(path, "try later"):
        pass
    with locked(path, "try later"):
        pass


def test_a_lock_is_waited_for(tmp_path):
    process = hold(tmp_path / ".lock")
    released = threading.Event()

    def release():
        released.set()
        process.stdin.close()

    with pytest.raises(UserError, match="try later"), locked(tmp_path / ".lock", "try later"):
        pass
    threading.Timer(0.3, release).start()
    with locked(tmp_path / ".lock"):
        assert released.is_set()
    assert process.wait() == 0


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    process = hold(tmp_path / ".lock")
    process.send_signal(signal.SIGKILL)
    process.wait()
    with locked(tmp_path / ".lock", "try later"):
        pass


def test_an_error_inside_a_lock_releases_it(tmp_path):
    with pytest.raises(KeyError), locked(tmp_path / ".lock"):
        raise KeyError
    with locked(tmp_path / ".lock", "try later"):
        pass


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail(to):
        to.write_text("half")
        raise OSError("no space")

    with pytest.raises(UserError, match=r"a.txt cannot be written \(no space\)"):
        write_atomically(path, fail)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    write_atomically(path, lambda to: to.write_text("new"))
    assert path.read_text() == "new"
