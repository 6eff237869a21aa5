"""The names and inodes that are in use, over what the grid is known to have."""
