"""Tests the commands without what Windows and macOS lack, because we had neither of them."""

import json
import os
import subprocess
import sys

import pytest

from conftest import ROOT
from image_files import make_folders

PROBE = ROOT / "tests" / "other_system_probe.py"


@pytest.mark.slow
def test_the_commands_need_nothing_that_windows_or_macos_lacks(tmp_path):
    images = make_folders(tmp_path / "data", {"cat": 3, "dog": 3})
    folder = tmp_path / "written"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, str(PROBE), str(tmp_path / "data"), str(images[0]), str(folder)],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    codes = json.loads(done.stdout.splitlines()[-1])
    said = [line for line in done.stderr.splitlines() if "Error" in line]
    assert set(codes.values()) == {0}, (codes, said, done.stderr[-3000:])
    # A finished run is not run again, and no unfinished file is left.
    assert sorted(path.name for path in folder.iterdir()) == ["hf", "run", "served"]
    assert (folder / "run" / "model.keras").is_file()
    assert (folder / "served" / "1" / "saved_model.pb").is_file()
    assert (folder / "hf" / "model.safetensors").is_file()
