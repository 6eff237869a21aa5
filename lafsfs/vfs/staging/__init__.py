"""What has been written to files and is not on the grid yet: its bytes, and where they lie."""
