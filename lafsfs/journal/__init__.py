"""What is accepted and not on the grid yet, kept on the local disk, sealed.

Knows nothing of capabilities, nodes or file systems: rows are opaque bytes.
"""

from lafsfs.journal.contents import ContentsFile, Entry, Kind, Record
from lafsfs.journal.database import ContentsRef, Put, Row
from lafsfs.journal.limits import Limits, Room
from lafsfs.journal.store import Journal

__all__ = [
    "ContentsFile",
    "ContentsRef",
    "Entry",
    "Journal",
    "Kind",
    "Limits",
    "Put",
    "Record",
    "Room",
    "Row",
]
