"""The FUSE adapter without FUSE."""
