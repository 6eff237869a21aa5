"""The C library is asked in a process of its own: there is no way back."""

from __future__ import annotations

import subprocess
import sys

ASK = "from lafsfs.fuse.arenas import tune_malloc; print(tune_malloc())"


def test_glibc_takes_it():
    said = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=True)
    assert said.stdout == "True\n"
