"""Capabilities of directories: those of the file that holds the table, under another name.

``URI:DIR2`` stands for an SDMF file for historical reasons; the other backings are spelled out.
"""

from __future__ import annotations

from dataclasses import dataclass

from lafsfs.caps.base import Capability
from lafsfs.caps.files import FileCap, MutableFormat

_FILE_TO_DIRECTORY = (
    ("URI:SSK", "URI:DIR2"),
    ("URI:MDMF", "URI:DIR2-MDMF"),
    ("URI:CHK", "URI:DIR2-CHK"),
    ("URI:LIT", "URI:DIR2-LIT"),
)


@dataclass(frozen=True, slots=True, repr=False)
class DirectoryCap(Capability):
    """A directory, with the rights of the capability of the file that holds its table."""

    backing: FileCap

    @property
    def kind(self) -> str:
        backing = self.backing.kind
        return "DIR2" if backing == MutableFormat.SDMF.value else f"DIR2-{backing}"

    def danger_text(self) -> str:
        text = self.backing.danger_text()
        for file_prefix, directory_prefix in _FILE_TO_DIRECTORY:
            if text.startswith(file_prefix):
                return directory_prefix + text[len(file_prefix) :]
        raise AssertionError(f"no directories over {self.backing.kind}")

    @property
    def can_write(self) -> bool:
        return self.backing.can_write

    @property
    def can_read(self) -> bool:
        return self.backing.can_read

    @property
    def is_mutable(self) -> bool:
        return self.backing.is_mutable

    @property
    def is_directory(self) -> bool:
        return True

    @property
    def storage_index(self) -> bytes | None:
        return self.backing.storage_index

    def read_cap(self) -> DirectoryCap:
        return self if not self.can_write else DirectoryCap(self.backing.read_cap())

    def verify_cap(self) -> DirectoryCap | None:
        verify_cap = self.backing.verify_cap()
        return None if verify_cap is None else DirectoryCap(verify_cap)
