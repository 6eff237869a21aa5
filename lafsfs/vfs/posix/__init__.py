"""What POSIX wants of names, numbers, attributes and access lists, as values. Pure."""
