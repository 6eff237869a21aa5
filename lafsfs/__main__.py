"""``python -m lafsfs``: the ``lafsfs`` command where it is not on the PATH."""

from __future__ import annotations

from lafsfs.cli import main

if __name__ == "__main__":
    main()
