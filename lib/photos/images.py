"""Read photographs as people have them: turned by EXIF, grey, with alpha, 16 bit, of any size."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lib.core.errors import InputError

READABLE = "JPEG, PNG, WebP, BMP or TIFF"
MAX_PIXELS = 120_000_000  # a phone gives 12 to 50 million; above this it is a scan of a poster or a decompression bomb
_FOCAL_35MM, _FOCAL_MM, _ORIENTATION, _EXIF_IFD = 0xA405, 0x920A, 0x0112, 0x8769


def eight_bit(image: np.ndarray) -> np.ndarray:
    """A picture of any shape with values in [0, 1] as uint8; what lies outside is cut off."""
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)


@dataclass
class Photo:
    """One photograph, upright.

    Attributes:
        path: where it came from.
        image: (H, W, 3) float32 RGB in [0, 1].
        focal: focal length in pixels from EXIF's 35 mm equivalent, or None. Wrong for a cropped picture, which EXIF
            does not tell; the fit therefore takes it as a prior only.
        notes: what was converted (orientation, grey, alpha, 16 bit), for the log.
    """

    path: Path
    image: np.ndarray
    focal: float | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.image.shape[0], self.image.shape[1]

    def digest(self) -> str:
        """Identifies the picture by its pixels, whatever the file is called."""
        return hashlib.sha256(eight_bit(self.image).tobytes()).hexdigest()[:16]


def read_photo(path: str | Path) -> Photo:
    """Read one photograph, apply the EXIF orientation, bring it to RGB.

    Raises:
        InputError: missing, a folder, not an image, damaged or cut short, or absurdly small or large.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    path = Path(path)
    if not path.exists():
        raise InputError(path, "no such file", "check the name; views are given as separate files")
    if path.is_dir():
        raise InputError(path, "is a folder, a picture is needed", "give the picture files one by one")
    notes: list[str] = []
    try:
        with Image.open(path) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise InputError(
                    path, f"{opened.width}x{opened.height} is too large", "scale it to 4000 pixels or less"
                )
            opened.load()
            exif = opened.getexif()
            if exif.get(_ORIENTATION, 1) not in (0, 1):
                notes.append("turned upright as EXIF says")
            upright = ImageOps.exif_transpose(opened)
            array = _to_rgb(upright, notes)
            focal = _focal_from_exif(exif, max(upright.size))
    except InputError:
        raise
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(
            path, f"not a readable picture ({error})", f"{READABLE} are read; HEIC must be exported"
        ) from error
    if min(array.shape[:2]) < 64:
        raise InputError(
            path, f"{array.shape[1]}x{array.shape[0]} pixels is too small", "use 300 pixels or more a side"
        )
    return Photo(path, array, focal, notes)


def _to_rgb(image, notes: list[str]) -> np.ndarray:
    """PIL image of any mode -> (H, W, 3) float32 in [0, 1]; alpha is laid over white."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        values = np.asarray(image, dtype=np.float32)
        top = 65535.0 if values.max() > 255 else 255.0 if values.max() > 1 else 1.0
        notes.append(f"{image.mode} grey image scaled by {top:g}")
        return np.repeat(np.clip(values / top, 0, 1)[..., None], 3, axis=2)
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = np.asarray(image.convert("RGBA"), dtype=np.float32) / 255
        if rgba[..., 3].min() < 1:
            notes.append("transparent parts laid over white")
        return rgba[..., :3] * rgba[..., 3:] + (1 - rgba[..., 3:])
    if image.mode in ("1", "L"):
        notes.append("grey image, so a grey texture")
    return np.asarray(image.convert("RGB"), dtype=np.float32) / 255


def _focal_from_exif(exif, longest: int) -> float | None:
    """Focal length in pixels from the 35 mm equivalent (36 mm on the long side); None when the camera did not say."""
    details = exif.get_ifd(_EXIF_IFD)
    try:
        equivalent = float(details.get(_FOCAL_35MM, 0) or exif.get(_FOCAL_35MM, 0) or 0)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return equivalent / 36.0 * longest if 10 <= equivalent <= 1000 else None


def read_photos(paths: list[str | Path]) -> tuple[list[Photo], list[str]]:
    """Read all views; a picture given twice counts once.

    Returns:
        the photos in the order given, and warnings (conversions, duplicates) for the user.

    Raises:
        InputError: no path at all, or any of the pictures cannot be read (a view is never dropped in silence).
    """
    if not paths:
        raise InputError("photos", "no picture was given", "name one to many pictures of one person")
    photos: list[Photo] = []
    warnings: list[str] = []
    seen: dict[str, Path] = {}
    for path in paths:
        photo = read_photo(path)
        warnings += [f"{photo.path}: {note}" for note in photo.notes]
        digest = photo.digest()
        if digest in seen:
            warnings.append(f"{photo.path}: the same picture as {seen[digest]}, used once (it adds no information)")
            continue
        seen[digest] = photo.path
        photos.append(photo)
    return photos, warnings
