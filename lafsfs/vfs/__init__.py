"""A POSIX tree over nodes: inodes, handles, staging, and publishing of directory edits."""
