"""Nothing to implement: there is no remote side."""


def implementer(*interfaces):
    return lambda cls: cls
