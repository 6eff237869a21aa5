"""lafsfs: a Tahoe-LAFS capability, mounted as a folder."""

__version__ = "0.1.0"
