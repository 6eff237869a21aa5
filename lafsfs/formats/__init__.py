"""Share, slot, container and directory layouts, and the geometry behind them. Pure.

Every structure on disk or wire is one record with its pack beside its unpack. Parsers take foreign
bytes: they are total and bounded, and raise nothing but :class:`~lafsfs.errors.FormatError` (or the
subclass they document). ``docs/formats.md`` describes what they read.
"""
