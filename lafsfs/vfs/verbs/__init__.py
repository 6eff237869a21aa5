"""What programs ask for: the verbs of the file system, each on top of the tree."""
