"""68 facial landmarks from a photograph.

Two detectors behind one interface: face-alignment (when its weights are in the torch hub cache; nothing is downloaded)
and dlib's histogram-of-gradients detector with its 68-point shape predictor, which work offline from two PyPI packages.
dlib's detector was trained on near-frontal faces, so side views get further chances: upsampled, brightened, mirrored,
turned in the image plane, at a lower threshold, and at last dlib's small convolutional detector. The predictor runs on
several jittered boxes and on the mirrored picture; the median is the landmark and the spread its uncertainty.

The weights of both were trained on iBUG 300-W, whose licence allows research use only.
"""

import importlib.util
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np

from lib.core.errors import InputError
from lib.landmarks.ibug68 import SWAP68

MIN_FACE = 64  # px; below this an eye has fewer than 12 pixels and the landmarks are guesses
CLEAR_SCORE = 0.5  # HOG score above which a detection is certain


@dataclass
class Detection:
    """One face in one picture.

    Attributes:
        landmarks: (68, 2) float64 pixels, iBUG order, pixel centres at +0.5.
        spread: (68,) float64 pixels, how far repeated predictions lie apart (0 where unknown).
        box: (4,) float64 left, top, right, bottom in pixels.
        score: detector's confidence, comparable only within one detector.
        how: which detector and which retry found it, for the log.
    """

    landmarks: np.ndarray
    spread: np.ndarray
    box: np.ndarray
    score: float
    how: str

    @property
    def size(self) -> float:
        """Longer side of the landmarks' bounding box, px: what the user sees as the size of the face."""
        return float(np.ptp(self.landmarks, axis=0).max())


class Detector(Protocol):
    """Finds faces and their 68 landmarks."""

    name: str

    def detect(self, image: np.ndarray) -> list[Detection]:
        """(H, W, 3) float RGB in [0, 1] -> faces, largest first; empty when there is none."""
        ...


class DlibDetector:
    """dlib's detectors and 68-point predictor, from the packages dlib-bin and face-recognition-models.

    Args:
        working_size: pictures are scaled down so that their longer side is at most this many pixels before detection.

    Raises:
        InputError: a package or a model file is missing.
    """

    name = "dlib"

    def __init__(self, working_size: int = 1000) -> None:
        try:
            import dlib
        except ImportError as error:
            raise InputError("dlib", "not installed", "install dlib-bin, or give --landmarks file.json") from error
        self._dlib = dlib
        self._hog = dlib.get_frontal_face_detector()
        self._predictor = dlib.shape_predictor(str(dlib_model("shape_predictor_68_face_landmarks.dat")))
        self.working_size = working_size

    def detect(self, image: np.ndarray) -> list[Detection]:
        from PIL import Image

        height, width = image.shape[:2]
        factor = min(1.0, self.working_size / max(height, width))
        small = np.ascontiguousarray(np.clip(np.round(image * 255), 0, 255).astype(np.uint8))
        if factor < 1:
            size = (max(1, round(width * factor)), max(1, round(height * factor)))
            small = np.asarray(Image.fromarray(small).resize(size, Image.Resampling.LANCZOS))
        scale = np.array([width / small.shape[1], height / small.shape[0]])
        boxes, how = self._boxes(small)
        faces = []
        for box, score in boxes:
            points, spread = self._landmarks(small, box)
            corners = box.reshape(2, 2) * scale
            faces.append(Detection(points * scale, spread * scale.mean(), corners.reshape(4), score, f"dlib {how}"))
        return sorted(faces, key=lambda face: -face.size)

    def _boxes(self, image: np.ndarray) -> tuple[list[tuple[np.ndarray, float]], str]:
        """Face boxes by the first attempt that finds any: cheap and strict first, dear and lenient last."""
        bright = _stretch_contrast(image)
        mirrored = np.ascontiguousarray(image[:, ::-1])
        for how, picture, upsample, threshold in (
            ("hog", image, 0, 0.0),
            ("hog upsampled", image, 1, 0.0),
            ("hog brightened", bright, 0, 0.0),
            ("hog mirrored", mirrored, 1, 0.0),
        ):
            if upsample and max(image.shape[:2]) > 1300:
                continue
            found = self._run_hog(picture, upsample, threshold)
            if found:
                if picture is mirrored:
                    found = [(_mirror_box(box, image.shape[1]), score) for box, score in found]
                return found, how
        for angle in (-25, 25):
            found = self._run_hog_rotated(image, angle)
            if found:
                return found, f"hog turned by {angle} degrees"
        found = self._run_cnn(image)
        if found:
            return found, "cnn"
        for how, picture in (("hog lenient", image), ("hog brightened, lenient", bright)):
            found = self._run_hog(picture, 0, -0.3)[:1]  # lenient: trust no more than the best box
            if found:
                return found, how
        return [], "nothing"

    def _run_hog(self, image: np.ndarray, upsample: int, threshold: float) -> list[tuple[np.ndarray, float]]:
        boxes, scores, _ = self._hog.run(image, upsample, threshold)
        found = [(_as_box(box), float(score)) for box, score in zip(boxes, scores, strict=True)]
        found = sorted(_without_overlaps(found), key=lambda item: -item[1])
        # beside a clear face a weak response is a pattern on clothes or wall more often than a person
        return [item for item in found if found[0][1] < CLEAR_SCORE or item[1] > 0.25 * found[0][1]]

    def _run_hog_rotated(self, image: np.ndarray, angle: float) -> list[tuple[np.ndarray, float]]:
        """Detect in a turned copy; the box keeps its size and its centre is turned back."""
        from PIL import Image

        turned = np.asarray(Image.fromarray(image).rotate(angle, Image.Resampling.BILINEAR))
        height, width = image.shape[:2]
        middle = np.array([width / 2, height / 2])
        turn = np.deg2rad(angle)
        # PIL turns counter-clockwise on the screen; with v down that is u' = c u + s v, v' = -s u + c v. Invert it.
        back = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        found = []
        for box, score in self._run_hog(turned, 0, 0.0):
            centre = back @ (box.reshape(2, 2).mean(axis=0) - middle) + middle
            half = (box[2:] - box[:2]) / 2
            found.append((np.concatenate([centre - half, centre + half]), score))
        return found

    def _run_cnn(self, image: np.ndarray) -> list[tuple[np.ndarray, float]]:
        try:
            detector = self._dlib.cnn_face_detection_model_v1(str(dlib_model("mmod_human_face_detector.dat")))
        except (InputError, AttributeError):
            return []
        from PIL import Image

        factor = min(1.0, 640 / max(image.shape[:2]))  # 2 s at 600x800 on one core; time grows with the area
        size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
        small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
        found = [(_as_box(item.rect) / factor, float(item.confidence)) for item in detector(small, 0)]
        return _without_overlaps([item for item in found if item[1] > 0.3])

    def _landmarks(self, image: np.ndarray, box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Median and spread of predictions from jittered boxes, half of them on the mirrored picture.

        dlib answers in whole pixels, so a small face is enlarged first.
        """
        image, box, corner, factor = _enlarged(image, box)
        mirrored = np.ascontiguousarray(image[:, ::-1])
        width = image.shape[1]
        points = []
        for dx, dy, scale in _JITTER:
            half = (box[2:] - box[:2]) / 2
            centre = (box[2:] + box[:2]) / 2 + np.array([dx, dy]) * half
            jittered = np.concatenate([centre - half * scale, centre + half * scale])
            points.append(self._predict(image, jittered))
            flipped = self._predict(mirrored, _mirror_box(jittered, width))
            points.append(np.stack([width - flipped[:, 0], flipped[:, 1]], axis=1)[list(SWAP68)])
        stack = np.stack(points)
        median = np.median(stack, axis=0)
        # 1.4826 turns the median absolute deviation into a standard deviation for a normal distribution.
        spread = 1.4826 * np.median(np.linalg.norm(stack - median, axis=2), axis=0) / np.sqrt(2)
        return median / factor + corner, spread / factor

    def _predict(self, image: np.ndarray, box: np.ndarray) -> np.ndarray:
        left, top, right, bottom = (int(round(float(value))) for value in box)
        shape = self._predictor(image, self._dlib.rectangle(left, top, right, bottom))
        return np.array([[part.x, part.y] for part in shape.parts()], dtype=np.float64) + 0.5


# Shift (in half box sizes) and scale of the boxes that the predictor starts from.
_JITTER = ((0, 0, 1.0), (0.06, 0, 1.0), (-0.06, 0, 1.0), (0, 0.06, 1.0), (0, -0.06, 1.0), (0, 0, 0.93), (0, 0, 1.07))


class FaceAlignmentDetector:
    """face-alignment's 2D FAN, used only when its weights are already in the torch hub cache.

    Raises:
        InputError: package or weights missing.
    """

    name = "face-alignment"

    def __init__(self, device: str = "cpu") -> None:
        if not face_alignment_available():
            raise InputError(
                hub_checkpoints(), "no face-alignment weights", "put 2DFAN4-*.pth.tar and s3fd-*.pth there, or use dlib"
            )
        import face_alignment

        kinds = face_alignment.LandmarksType
        kind = getattr(kinds, "TWO_D", None) or getattr(kinds, "_2D")  # the enum was renamed in 1.3.6
        options = {"device": device, "flip_input": False}
        try:
            self._network = face_alignment.FaceAlignment(kind, compile=False, **options)
        except TypeError:  # releases before 1.5 know no `compile`
            self._network = face_alignment.FaceAlignment(kind, **options)

    def detect(self, image: np.ndarray) -> list[Detection]:
        pixels = np.clip(np.round(image * 255), 0, 255).astype(np.uint8)
        found = self._network.get_landmarks_from_image(pixels) or []
        faces = []
        for points in found:
            points = np.asarray(points, dtype=np.float64)[:, :2] + 0.5
            box = np.concatenate([points.min(axis=0), points.max(axis=0)])
            faces.append(Detection(points, np.zeros(68), box, 1.0, "face-alignment"))
        return sorted(faces, key=lambda face: -face.size)


def hub_checkpoints() -> Path:
    """Folder where torch hub (and so face-alignment) keeps weights."""
    home = os.environ.get("TORCH_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "torch")
    return Path(home).expanduser() / "hub" / "checkpoints"


def face_alignment_available() -> bool:
    """Package installed, and both detector and landmark weights in the cache: its constructor would download otherwise."""
    folder = hub_checkpoints()
    weights = (any(folder.glob("2DFAN4-*")), any(folder.glob("s3fd-*.pth")))
    return all(weights) and importlib.util.find_spec("face_alignment") is not None


@cache
def dlib_model(name: str) -> Path:
    """Path of a model file of the package face-recognition-models.

    Found by the package's folder: importing the package needs pkg_resources, which new setuptools no longer bring.
    """
    spec = importlib.util.find_spec("face_recognition_models")
    folders = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []
    for folder in folders:
        for path in sorted(folder.rglob(name)):
            return path
    raise InputError(name, "dlib's model file was not found", "install face-recognition-models")


def make_detector(name: str = "auto") -> Detector:
    """``auto`` (face-alignment when its weights are there, else dlib), ``dlib`` or ``face-alignment``."""
    if name == "auto":
        name = "face-alignment" if face_alignment_available() else "dlib"
    if name == "dlib":
        return DlibDetector()
    if name == "face-alignment":
        return FaceAlignmentDetector()
    raise InputError("--detector", f"auto, dlib or face-alignment, not {name!r}")


def choose_face(faces: list[Detection], path: Path, image: np.ndarray, largest: bool) -> tuple[Detection, list[str]]:
    """The one face that is meant.

    Several faces are refused unless ``largest``: two photographs of different people would give a chimera in silence.
    A face under a quarter of the largest one's size is background and does not count.

    Raises:
        InputError: no face, several faces, or one that is too small.
    """
    if not faces:
        raise InputError(
            path, "no face was found", "use a sharper, brighter picture turned at most 60 degrees, or give --landmarks"
        )
    rivals = [face for face in faces if face.size > 0.25 * faces[0].size]
    warnings = []
    if len(rivals) > 1:
        if not largest:
            sizes = ", ".join(f"{face.size:.0f}" for face in rivals[:5]) + (", ..." if len(rivals) > 5 else "")
            raise InputError(
                path, f"{len(rivals)} faces were found ({sizes} px)", "crop to the person meant, or pass --largest"
            )
        warnings.append(f"{path}: {len(rivals)} faces, took the largest")
    face = faces[0]
    if face.size < MIN_FACE:
        raise InputError(path, f"the face is {face.size:.0f} px, {MIN_FACE} are needed", "use a larger picture")
    height, width = image.shape[:2]
    inside = ((face.landmarks >= 0) & (face.landmarks < [width, height])).all(axis=1)
    if inside.mean() < 0.9:
        warnings.append(f"{path}: {int((~inside).sum())} of 68 landmarks lie outside the picture, the face is cut off")
    return face, warnings


def _enlarged(image: np.ndarray, box: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """The surroundings of a box, enlarged until the box is 300 px: picture, box in it, its corner in px, the factor."""
    from PIL import Image

    side = float((box[2:] - box[:2]).max())
    factor = 300.0 / side
    if factor <= 1:
        return image, box, np.zeros(2), 1.0
    height, width = image.shape[:2]
    low = np.maximum(np.floor(box[:2] - side), 0).astype(int)
    high = np.minimum(np.ceil(box[2:] + side), [width, height]).astype(int)
    part = Image.fromarray(image[low[1] : high[1], low[0] : high[0]])
    size = (round(part.width * factor), round(part.height * factor))
    exact = size[0] / part.width
    large = np.asarray(part.resize(size, Image.Resampling.BICUBIC))
    return large, (box - np.tile(low, 2)) * exact, low.astype(np.float64), exact


def _as_box(rectangle) -> np.ndarray:
    return np.array([rectangle.left(), rectangle.top(), rectangle.right(), rectangle.bottom()], dtype=np.float64)


def _mirror_box(box: np.ndarray, width: int) -> np.ndarray:
    return np.array([width - box[2], box[1], width - box[0], box[3]])


def _without_overlaps(found: list[tuple[np.ndarray, float]]) -> list[tuple[np.ndarray, float]]:
    """Drop boxes that overlap a better one by more than 40 % of the smaller (one face seen at two scales)."""
    kept: list[tuple[np.ndarray, float]] = []
    for box, score in sorted(found, key=lambda item: -item[1]):
        if all(_overlap(box, other) < 0.4 for other, _ in kept):
            kept.append((box, score))
    return kept


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    side = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    if (side <= 0).any():
        return 0.0
    return float(side.prod() / min((a[2:] - a[:2]).prod(), (b[2:] - b[:2]).prod()))


def _stretch_contrast(image: np.ndarray) -> np.ndarray:
    """Per-picture 1st to 99th percentile to full range: helps dark and hazy pictures."""
    low, high = np.percentile(image, (1, 99))
    return np.clip((image.astype(np.float32) - low) / max(high - low, 1) * 255, 0, 255).astype(np.uint8)
