"""Streams of JPEG pictures: every whole one is found, damaged ones are counted, other files are refused."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lib.core.errors import InputError
from lib.datasets.micc.mjpeg import jpeg_spans


def jpeg(seed: int = 0, size: int = 24, thumbnail: bytes = b"", **options) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (size, size, 3), np.uint8)
    Image.fromarray(pixels).save(stream, "JPEG", quality=90, **options)
    content = stream.getvalue()
    if thumbnail:  # an APP1 segment with a JPEG of its own, as cameras write it
        content = content[:2] + b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail + content[2:]
    return content


def spans_of(tmp_path, content: bytes, **options):
    path = tmp_path / "video.mjpg"
    path.write_bytes(content)
    spans, damaged = jpeg_spans(path, **options)
    return [content[a:b] for a, b in spans], damaged


@given(st.lists(st.binary(max_size=40).map(lambda b: b.replace(b"\xff", b"\x00")), min_size=2, max_size=5))
def test_transport_headers_between_pictures(tmp_path_factory, junk):
    frames = [jpeg(i) for i in range(len(junk))]
    content = b"".join(a + b for a, b in zip(junk, frames, strict=True))
    assert spans_of(tmp_path_factory.mktemp("m"), content) == (frames, 0)


def test_thumbnails_progressive_files_and_restart_markers(tmp_path):
    frames = [jpeg(0, 32, jpeg(1, 8)), jpeg(2, 32, progressive=True), jpeg(3, 64, restart_marker_blocks=1)]
    assert spans_of(tmp_path, b"".join(frames)) == (frames, 0)


def test_damaged_pictures_are_counted_and_the_next_one_is_found(tmp_path):
    a, b, c = (jpeg(i) for i in range(3))
    assert spans_of(tmp_path, a + b[:-60] + c) == ([a, c], 1)  # cut short
    assert spans_of(tmp_path, a + c[: len(c) // 2]) == ([a], 1)  # the recording stops in the middle
    broken = bytearray(b)
    broken[40:43] = b"\xff\xd8\xff"  # inside a segment's content: still whole
    assert spans_of(tmp_path, a + bytes(broken) + c)[0] == [a, bytes(broken), c]


def test_bounds(tmp_path):
    frames = [jpeg(i, 16 if i != 1 else 200) for i in range(4)]
    content = b"".join(frames)
    assert spans_of(tmp_path, content, max_frames=2)[0] == frames[:2]
    assert spans_of(tmp_path, content, max_bytes=5000) == ([frames[0], *frames[2:]], 1)


@pytest.mark.parametrize("content", [b"", b"\x00\x00\x01\xba" + bytes(5000), jpeg()[:-2], b"\xff\xd8\xff"])
def test_other_files_are_refused_by_name(tmp_path, content):
    path = tmp_path / "PTZ-Indoor.mpg"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"PTZ-Indoor\.mpg"):
        jpeg_spans(path)
    with pytest.raises(InputError, match="no such file"):
        jpeg_spans(tmp_path / "none.mjpg")
