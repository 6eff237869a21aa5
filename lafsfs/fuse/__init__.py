"""The kernel's requests, translated for the vfs, and its answers translated back. Nothing else."""
