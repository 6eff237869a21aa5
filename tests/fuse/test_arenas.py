"""The C library is asked in a process of its own: there is no way back."""

from __future__ import annotations

import subprocess
import sys

ASK = "from lafsfs.fuse.arenas import bound_arenas; print(bound_arenas())"


def test_glibc_takes_it():
    said = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=True)
    assert said.stdout == "True\n"
