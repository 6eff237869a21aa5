"""What outlives the process: pending names and inodes as rows of the journal, and back."""
