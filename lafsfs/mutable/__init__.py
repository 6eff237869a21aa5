"""Mutable files: map the slot's shares, retrieve a version, publish another.

Theory. A mutable file is a *slot* at each server, holding shares that are replaced as a whole. A
*version* is what its signature covers: sequence number, root hash of the share hash tree, encoding
and size. Several versions may lie about at once, after a crash or because two clients wrote; the
servermap says which shares of which versions are where, and the *best* version is the recoverable
one with the highest sequence number (the highest root hash among equals). Writing is test-and-set
per server: each write names the share it expects to replace, so that nobody's work is overwritten
unseen.

    encode      contents and key -> every share of a new version                pure
    verify      foreign bytes of a share -> a signed header, blocks under it    pure
    servermap   what was found where; best version; sequence numbers; health    pure
    mapping     ask the servers and fill in a servermap (four modes)            asks
    retrieve    k verified shares of one version -> contents                    asks
    plan        which share goes where, tested against what                     pure
    publish     write the planned shares and read the answers                   asks
    loading     the private key, out of the shares                              asks
    revalidation  whether the newest version seen still is                      asks
    reader      what is the newest version, and what does it hold
    segments    a version's segments, for the cache that all files share
    contents    whole contents, remembered
    file        MutableFile: modify(), overwrite(), read(), retries
    keypool     RSA key pairs made ahead of need

Format and terms: ``docs/specifications/mutable.rst`` of Tahoe-LAFS, and ``docs/formats.md`` here.
"""
