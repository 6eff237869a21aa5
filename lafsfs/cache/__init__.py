"""What may be forgotten at any time: caches on the local disk, sealed, bounded, shared by mounts.

    disk     DiskCache: blobs under keys, least recently used go first
    places   PlaceMemory: where shares of immutable files were, and how the files are cut

Nothing here knows of shares, servers or capabilities: callers bring bytes and say what unlocks
them. Nothing here is ever trusted more than a server is, but for not having been changed since it
was put here, and losing all of it only costs time.
"""
