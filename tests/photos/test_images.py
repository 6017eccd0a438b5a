"""Reading photographs: every way that people store them, every way that files are bad."""

import numpy as np
import pytest
from PIL import Image

from lib.core.errors import InputError
from lib.photos.images import read_photo, read_photos


@pytest.fixture
def picture():
    rng = np.random.default_rng(0)
    return np.kron(rng.integers(0, 255, (10, 12, 3), dtype=np.uint8), np.ones((10, 10, 1), dtype=np.uint8))


def test_plain_png_is_exact(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "a.png")
    photo = read_photo(tmp_path / "a.png")
    assert photo.size == (100, 120) and photo.focal is None and not photo.notes
    np.testing.assert_allclose(photo.image * 255, picture, atol=1e-4)


def test_exif_orientation_is_applied(tmp_path, picture):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side: turn clockwise to see it upright
    Image.fromarray(picture).save(tmp_path / "a.png", exif=exif)
    photo = read_photo(tmp_path / "a.png")
    np.testing.assert_allclose(photo.image * 255, np.rot90(picture, -1), atol=1e-4)
    assert "upright" in photo.notes[0]


def test_focal_length_from_exif(tmp_path, picture):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = 26
    Image.fromarray(picture).save(tmp_path / "a.jpg", exif=exif)
    assert read_photo(tmp_path / "a.jpg").focal == pytest.approx(26 / 36 * 120)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "LA", "1", "CMYK", "I;16"])
def test_any_mode_becomes_rgb(tmp_path, picture, mode):
    if mode == "I;16":
        image = Image.fromarray(picture[..., 0].astype(np.uint16) * 257)
    else:
        image = Image.fromarray(picture).convert(mode)
    path = tmp_path / ("a.tif" if mode in ("CMYK", "I;16") else "a.png")
    image.save(path)
    photo = read_photo(path)
    assert photo.image.shape == (100, 120, 3) and photo.image.dtype == np.float32
    assert 0 <= photo.image.min() and photo.image.max() <= 1 and photo.image.max() > 0.5
    if mode in ("L", "LA", "1", "I;16"):
        np.testing.assert_array_equal(photo.image[..., 0], photo.image[..., 2])


def test_transparent_parts_become_white(tmp_path, picture):
    rgba = np.dstack([picture, np.zeros((100, 120), np.uint8)])
    Image.fromarray(rgba).save(tmp_path / "a.png")
    assert (read_photo(tmp_path / "a.png").image == 1).all()


def test_bad_files_name_themselves(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:200])
    (tmp_path / "text.jpg").write_text("not a picture")
    (tmp_path / "empty.jpg").write_bytes(b"")
    Image.fromarray(picture[:40]).save(tmp_path / "small.png")
    said = {"none.jpg": "no such file", "small.png": "too small"}
    for name, words in (said | dict.fromkeys(("cut.png", "text.jpg", "empty.jpg"), "not a readable")).items():
        with pytest.raises(InputError, match=words) as caught:
            read_photo(tmp_path / name)
        assert name in str(caught.value)
    with pytest.raises(InputError, match="folder"):
        read_photo(tmp_path)


def test_duplicates_count_once_and_nothing_is_an_error(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "a.png")
    Image.fromarray(picture).save(tmp_path / "b.bmp")
    Image.fromarray(picture[:90]).save(tmp_path / "c.png")
    photos, warnings = read_photos([tmp_path / "a.png", tmp_path / "b.bmp", tmp_path / "c.png"])
    assert [photo.path.name for photo in photos] == ["a.png", "c.png"]
    assert "b.bmp" in warnings[0] and "same picture" in warnings[0]
    with pytest.raises(InputError, match="no picture"):
        read_photos([])
