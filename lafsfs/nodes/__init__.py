"""Capabilities made operable: files, directories, and the maker that knows them all."""
