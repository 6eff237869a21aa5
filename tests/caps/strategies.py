"""Capabilities of every kind, drawn by Hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from lafsfs.caps import (
    Cap,
    CHKCap,
    CHKVerifyCap,
    DirectoryCap,
    FileCap,
    LiteralCap,
    MutableFormat,
    MutableReadCap,
    MutableVerifyCap,
    MutableWriteCap,
)

keys = st.binary(min_size=16, max_size=16)
hashes = st.binary(min_size=32, max_size=32)
formats = st.sampled_from(MutableFormat)
encodings = st.integers(1, 256).flatmap(lambda n: st.tuples(st.integers(1, n), st.just(n)))
sizes = st.integers(0, 2**63 - 1)

literals = st.builds(LiteralCap, st.binary(max_size=80))
chk = st.builds(
    lambda key, ueb_hash, kn, size: CHKCap(key, ueb_hash, *kn, size), keys, hashes, encodings, sizes
)
chk_verify: st.SearchStrategy[CHKVerifyCap] = chk.map(lambda cap: cap.verify_cap())
mutable_write = st.builds(MutableWriteCap, formats, keys, hashes)
mutable_read = st.builds(MutableReadCap, formats, keys, hashes)
mutable_verify = st.builds(MutableVerifyCap, formats, keys, hashes)

file_caps: st.SearchStrategy[FileCap] = st.one_of(
    literals, chk, chk_verify, mutable_write, mutable_read, mutable_verify
)
caps: st.SearchStrategy[Cap] = st.one_of(file_caps, file_caps.map(DirectoryCap))

# Strings of kinds that nobody has invented yet.
unknown_texts = st.builds(
    "{}:{}".format,
    st.sampled_from(["x-tahoe-future", "URI:ZZZ", "lafs", "URI:DIR3"]),
    st.text("abcdefghijklmnopqrstuvwxyz234567:", max_size=40),
)
