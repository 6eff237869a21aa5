"""However many segments are encoded at once, the shares are the same."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from lafsfs.formats.geometry import CHKGeometry
from lafsfs.immutable.encoder import Encoder
from tests import golden_data


def shares_of(data: bytes, geometry: CHKGeometry, cuts: list[int]) -> tuple[bytes, list[bytes]]:
    """The UEB's hash and all shares, encoded in runs that begin at the segments ``cuts``."""
    encoder = Encoder(b"k" * 16, geometry)
    streams = [[encoder.header()] for _ in range(geometry.n)]
    bounds = [0, *sorted(set(cuts) - {0}), geometry.num_segments]
    for first, last in itertools.pairwise(bounds):
        start, stop = (s * geometry.segment_size for s in (first, last))
        for own, stream in zip(streams, encoder.encode(data[start:stop]), strict=True):
            own.append(stream)
    for shnum, own in enumerate(streams):
        own.append(encoder.trees(shnum))
    endings = encoder.finish()
    return endings.ueb_hash, [
        b"".join([*own, end]) for own, end in zip(streams, endings.endings, strict=True)
    ]


@settings(max_examples=60)
@given(st.data())
def test_runs_of_segments_make_the_same_shares(data):
    size = data.draw(st.integers(1, 3000))
    k = data.draw(st.integers(1, 5))
    n = data.draw(st.integers(k, 8))
    geometry = CHKGeometry.plan(size, k, n, data.draw(st.integers(50, 700)))
    numbers = range(1, geometry.num_segments)
    cuts = data.draw(st.lists(st.sampled_from(numbers), max_size=4)) if numbers else []
    contents = golden_data.generated("runs", size)
    one_by_one = shares_of(contents, geometry, list(numbers))
    assert shares_of(contents, geometry, cuts) == one_by_one
