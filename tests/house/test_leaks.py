"""The leak check of tests/conftest.py finds what a test leaves behind, and nothing else."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

CONFTEST = Path(__file__).parents[1] / "conftest.py"

LEAKING = """
import os, subprocess, threading
import pytest

kept = []
never = threading.Event()

def test_descriptor():
    kept.append(os.open("/dev/null", os.O_RDONLY))

def test_descriptor_in_place_of_another():
    os.close(kept[0])
    assert os.open("/dev/zero", os.O_RDONLY) == kept[0]

def test_thread():
    threading.Thread(target=never.wait, name="forgotten").start()

def test_child():
    kept.append(subprocess.Popen(["sleep", "60"]))

def test_zombie():
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

def test_clean():
    kept[1].kill()
    kept[1].wait()
    with open("/dev/null"):
        thread = threading.Thread(target=never.wait, args=(0.01,))
        thread.start()

@pytest.mark.may_leak(reason="the one that is closed comes from an earlier test")
def test_allowed():
    kept.append(os.open("/dev/null", os.O_RDONLY))

@pytest.mark.may_leak
def test_allowed_without_a_reason():
    pass

def test_that_fails_anyway():
    file = open("/dev/null")
    assert False

def test_end():
    never.set()
"""


def test_each_kind_of_leak_fails_its_test(tmp_path):
    shutil.copy(CONFTEST, tmp_path / "conftest.py")
    (tmp_path / "test_leaking.py").write_text(LEAKING)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = may_leak\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-rA",
        "--tb=short",
        str(tmp_path),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    failed = set(re.findall(r"^ERROR test_leaking\.py::(\w+)", done.stdout, re.MULTILINE))
    assert failed == {
        "test_descriptor",
        "test_descriptor_in_place_of_another",
        "test_thread",
        "test_child",
        "test_zombie",
        "test_allowed_without_a_reason",
    }, done.stdout + done.stderr
    assert re.findall(r"^FAILED test_leaking\.py::(\w+)", done.stdout, re.MULTILINE) == [
        "test_that_fails_anyway"
    ]
    for said in (
        "/dev/null",
        "/dev/zero",
        "thread 'forgotten'",
        "sleep 60",
        "nobody waited for it",
        "needs a reason",
    ):
        assert said in done.stdout
