"""A trained network as the start of the photo fit (``--method NAME``)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lib.core.checkpoint import read_meta
from lib.core.errors import InputError
from lib.core.views import TARGET_YAW
from lib.fit.camera import FitCamera
from lib.fit.joint import FitResult
from lib.landmarks.crops import apply_transform, crop_camera, crop_image, crop_transform
from lib.models.base import Method, Views
from lib.morphable import FaceModel


def find_run(name: str, profile: str) -> Path:
    """The run folder behind a method name: a folder, or
    ``data/<profile>/runs/<paper>/<name>`` (the first seed when there are many).

    Raises:
        InputError: no such run, or it holds no checkpoint.
    """
    runs = Path("data") / profile / "runs"
    for folder in (Path(name), runs / name, *sorted(runs.glob(f"*/{name}")), *sorted(runs.glob(f"*/{name}-s*"))):
        if (folder / "model.safetensors").is_file():
            return folder
    known = sorted(path.parent.name for path in runs.glob("*/*/model.safetensors"))
    there = f"trained here: {', '.join(known)}" if known else f"nothing is trained yet in {runs}: run `make repro`"
    raise InputError("--method", f"no trained network called {name!r}", there)


def network_start(
    folder: Path,
    load: Callable[[Path], Method],
    model: FaceModel,
    images: list[np.ndarray],
    landmarks: list[np.ndarray],
    first: FitResult,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Identity that a trained network sees in the photographs, as coefficients of the face model.

    Args:
        folder: of the run, see :func:`find_run`. load: opens its network (`lib.papers.load_method`).
        images: V pictures (H, W, 3) in [0, 1]. landmarks: V times (68, 2) px, NaN where unknown.
        first: a landmark fit; gives the cameras, from which the crops' calibration and the order of views follow.

    Returns:
        (K,) coefficients in standard deviations (clipped to +-3), and what was used, for the parameters file.

    Raises:
        InputError: no checkpoint; wrong number of views; a network with another topology.
    """
    method = load(folder)
    meta = read_meta(folder / "model.safetensors")
    size = int(meta["image_size"])
    wanted = int(getattr(method, "n_views", 1))
    order = view_order(first, wanted)
    views, transforms = crop_views(
        [images[i] for i in order], [landmarks[i] for i in order], [first.cameras[i] for i in order], model, size
    )
    with torch.no_grad():
        result = method.reconstruct(views)
    if result.vertices.shape[1] != model.mean.shape[0]:
        raise InputError(
            folder, f"a network on the face model's {model.mean.shape[0]} vertices, it has {result.vertices.shape[1]}"
        )
    if "alpha" in result.parameters:  # coefficients of this very model, apart from the expression
        alpha = np.zeros(len(first.alpha))
        found = result.parameters["alpha"][0, : len(alpha)].double().numpy()
        alpha[: len(found)] = found
    else:
        alpha = model.project_identity(result.vertices.float(), n_id=len(first.alpha))[0].double().numpy()
    facts = {"method": str(meta.get("run", folder.name)), "run": folder.as_posix(), "views": order, "crops": transforms}
    return np.clip(alpha, -3, 3), facts


def view_order(first: FitResult, wanted: int) -> list[int]:
    """Views for a network that wants 1 (the most frontal) or 3 (front, left, right: nearest to yaw 0, -45, 45).

    Raises:
        InputError: fewer photographs than the network needs.
    """
    yaws = np.array([camera.angles()[0] for camera in first.cameras])
    if wanted > len(yaws):
        raise InputError(
            "--method", f"this network needs {wanted} views, {len(yaws)} given", "choose a single-view method"
        )
    order: list[int] = []
    for target in TARGET_YAW[:wanted]:
        gaps = np.abs(yaws - target)
        gaps[order] = np.inf
        order.append(int(gaps.argmin()))
    return order


def crop_views(
    images: list[np.ndarray], landmarks: list[np.ndarray], cameras: list[FitCamera], model: FaceModel, size: int
) -> tuple[Views, list[list[list[float]]]]:
    """Landmark-aligned crops with their calibration.

    Args:
        images: V pictures (H, W, 3). landmarks: V times (68, 2) px, NaN where unknown. size: of the crops, px.

    Returns:
        one triplet (1, V, ...), and the V maps (2, 3) from photo px to crop px.
    """
    mean = model.landmarks3d(model.mean[None])[0]
    pictures, calibrations, points, maps = [], [], [], []
    for image, marks, camera in zip(images, landmarks, cameras, strict=True):
        known = np.isfinite(marks).all(axis=1)
        weights = torch.from_numpy((known & (np.arange(68) > 16)).astype(np.float64))
        tensor = torch.from_numpy(np.nan_to_num(marks))[None]
        transform = crop_transform(tensor, size, mean, weights=weights).float()
        intrinsics, rotation, shift = (torch.from_numpy(part).float()[None] for part in camera.pinhole())
        picture = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float()[None]
        pictures.append(crop_image(picture, transform, size)[0])
        calibrations.append(crop_camera(intrinsics, rotation, shift, transform)[0][0])
        points.append(apply_transform(transform, tensor.float())[0])
        maps.append(transform[0].tolist())
    views = Views(torch.stack(pictures)[None], torch.stack(calibrations)[None], torch.stack(points)[None])
    return views, maps
