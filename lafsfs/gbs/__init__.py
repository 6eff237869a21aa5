"""Storage servers over HTTPS: the client, finding servers, and a server of our own.

Nothing above imports this package but the composition root and the command line: the rest of lafsfs
knows only :class:`lafsfs.grid.api.StorageServer`.
"""
