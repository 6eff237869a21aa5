"""From here to the grid: which contents are uploaded when, and which names are published."""
