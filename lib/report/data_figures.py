"""Pictures of the datasets for notebook 02: contact sheets, labels on pixels, videos, scans. Matplotlib stays in here."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from lib.datasets.threedfaw.read import Frame, Subject, ThreeDFAW
from lib.datasets.training.read import Batch, TrainingSet
from lib.landmarks.crops import apply_transform, crop_image, crop_transform, invert_transform
from lib.metrics.surface import MeshQuery
from lib.morphable.model import FaceModel
from lib.renderers.cameras import PerspectiveCamera
from lib.report.draw import draw, light, sheet

GREY = (0.85, 0.85, 0.85)
LAMP = light(0.35, ((-0.4, 0.5, 0.8), 0.6))


def to_rgb(image: torch.Tensor) -> np.ndarray:
    """(3, H, W) float to (H, W, 3) uint8."""
    return (image.permute(1, 2, 0).clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def contact_sheet(data: TrainingSet, count: int = 24, columns: int = 4, gap: int = 3, most: int = 64) -> np.ndarray:
    """The views of the first `count` subjects side by side as one image (H, W, 3) uint8; views of at most `most` px."""
    images = data.batch(range(min(count, len(data))), symmetrise=False).images
    if data.image_size > most:
        small = torch.nn.functional.interpolate(images.flatten(0, 1), most, mode="area")
        images = small.reshape(*images.shape[:3], most, most)
    rows = [np.concatenate([to_rgb(view) for view in views], 1) for views in images]
    return sheet(np.stack(rows), columns, gap, background=1.0)


def scan_camera(frame: Frame, points: NDArray[np.float64], size: int) -> PerspectiveCamera:
    """The frame's camera with a longer lens, turned to the middle of the points (N, 3), for pictures of ``size`` px."""
    assert frame.K is not None and frame.R is not None and frame.t is not None
    k, r, t = (torch.from_numpy(np.array(x, np.float32))[None] for x in (frame.K, frame.R, frame.t))
    k[:, :2] *= size / read_frame(frame).shape[1]
    k[:, [0, 1], [0, 1]] *= 1.5
    middle = PerspectiveCamera(k, r, t).to_camera(torch.from_numpy(points.mean(0, keepdims=True)).float()[None])[0, 0]
    k[:, :2, 2] = size / 2 - k[:, [0, 1], [0, 1]] * middle[:2] / middle[2]
    return PerspectiveCamera(k, r, t)


def labels_figure(data: TrainingSet, faces: np.ndarray, subject: int = 0) -> Any:
    """One subject's views; below, the registered scan seen by each crop's camera, and the landmarks on the pixels."""
    import matplotlib.pyplot as plt

    batch = data.batch([subject], symmetrise=False)
    views, size = batch.images.shape[1], batch.images.shape[-1]
    fig, axes = plt.subplots(3, views, figsize=(1.9 * views, 5.7))
    for v in range(views):
        image = to_rgb(batch.images[0, v])
        camera = PerspectiveCamera(*(x[:1, v].float() for x in (batch.K, batch.R, batch.t)))
        over = draw(camera, batch.vertices[0], faces, GREY, size, sh=LAMP, background=batch.images[:1, v])[0]
        for row, picture in enumerate((image, (0.35 * image + 0.65 * over).round().astype(np.uint8), image)):
            axes[row, v].imshow(picture, extent=(0, size, size, 0), interpolation="nearest")
            axes[row, v].axis("off")
        marks = batch.landmarks[0, v]
        axes[2, v].plot(marks[:, 0], marks[:, 1], ".", color="#39ff14", markersize=2.5)
        axes[2, v].set(xlim=(0, size), ylim=(size, 0))
        axes[0, v].set_title(f"yaw {float(batch.yaw[0, v]):+.0f}°", fontsize=9)
    fig.tight_layout(pad=0.3)
    return fig


def symmetry_figure(plain: Batch, mirrored: Batch) -> Any:
    """The views of one subject above those of its symmetrised copy, with landmarks 0-16 in order of colour."""
    import matplotlib.pyplot as plt

    views, size = plain.images.shape[1], plain.images.shape[-1]
    fig, axes = plt.subplots(2, views, figsize=(1.9 * views, 4.4))
    for row, (batch, name) in enumerate(((plain, "as made"), (mirrored, "mirrored"))):
        for v in range(views):
            ax, marks = axes[row, v], batch.landmarks[0, v]
            ax.imshow(to_rgb(batch.images[0, v]), extent=(0, size, size, 0), interpolation="nearest")
            ax.scatter(marks[:, 0], marks[:, 1], c=np.arange(68), cmap="turbo", s=4)
            ax.set(xlim=(0, size), ylim=(size, 0), xticks=[], yticks=[])
            ax.set_title(f"{name}, yaw {float(batch.yaw[0, v]):+.0f}°", fontsize=8)
    fig.tight_layout(pad=0.3)
    return fig


def read_frame(frame: Frame) -> torch.Tensor:
    """A frame as (3, H, W) float in [0, 1]."""
    return torch.from_numpy(frame.image().copy()).permute(2, 0, 1).float() / 255


def video_strip(subject: Subject, count: int = 7, size: int = 96) -> np.ndarray:
    """`count` frames of each of the subject's cameras, evenly spaced, one row a camera."""
    rows = []
    for camera in dict.fromkeys(frame.camera for frame in subject.frames):
        frames = [frame for frame in subject.frames if frame.camera == camera]
        picked = [frames[i] for i in np.linspace(0, len(frames) - 1, count).round().astype(int)]
        scaled = [torch.nn.functional.interpolate(read_frame(f)[None], size, mode="area")[0] for f in picked]
        rows.append(np.concatenate([to_rgb(image) for image in scaled], 1))
    return np.concatenate(rows)


def crop_figure(subject: Subject, mean_landmarks: torch.Tensor, size: int, span_mm: float, count: int = 4) -> Any:
    """Frames with the crop's outline and the detected landmarks, and the crops that a network sees."""
    import matplotlib.pyplot as plt

    usable = [frame for frame in subject.frames if frame.landmarks2d is not None]
    picked = [usable[i] for i in np.linspace(0, len(usable) - 1, count).round().astype(int)]
    fig, axes = plt.subplots(2, count, figsize=(2.1 * count, 4.3))
    corners = torch.tensor([[[0.0, 0], [size, 0], [size, size], [0, size], [0, 0]]])
    for column, frame in enumerate(picked):
        image = read_frame(frame)
        assert frame.landmarks2d is not None
        marks = torch.from_numpy(frame.landmarks2d).float()[None]
        a = crop_transform(marks, size, mean_landmarks, span_mm)
        outline = apply_transform(invert_transform(a), corners)[0]
        h, w = image.shape[1:]
        top, bottom = axes[:, column]
        top.imshow(to_rgb(image), extent=(0, w, h, 0))
        top.plot(outline[:, 0], outline[:, 1], "-", color="#ffd400", linewidth=1.2)
        top.plot(marks[0, :, 0], marks[0, :, 1], ".", color="#39ff14", markersize=1.5)
        top.set(xlim=(0, w), ylim=(h, 0))
        top.set_title(f"{frame.camera}" + ("" if frame.yaw is None else f", yaw {frame.yaw:+.0f}°"), fontsize=8)
        bottom.imshow(to_rgb(crop_image(image[None], a, size)[0]), interpolation="nearest")
        top.axis("off")
        bottom.axis("off")
    fig.tight_layout(pad=0.3)
    return fig


def scan_figure(subject: Subject, size: int = 300) -> Any:
    """The scan seen by three of its cameras, with the 51 landmark vertices."""
    import matplotlib.pyplot as plt

    frames = [frame for frame in subject.frames if frame.K is not None and frame.camera == subject.frames[-1].camera]
    picked = [frames[i] for i in np.linspace(0.15 * len(frames), 0.85 * len(frames), 3).astype(int)]
    fig, axes = plt.subplots(1, 3, figsize=(8.4, 3.0))
    known = subject.landmarks51[subject.landmarks51 >= 0]
    for ax, frame in zip(axes, picked, strict=True):
        camera = scan_camera(frame, subject.scan.vertices, size)
        ax.imshow(draw(camera, subject.scan.vertices, subject.scan.faces, GREY, size, sh=LAMP)[0])
        uv = camera.project(torch.from_numpy(subject.scan.vertices[known]).float()[None])[0]
        ax.plot(uv[:, 0], uv[:, 1], ".", color="#d62728", markersize=3)
        ax.set(xlim=(0, size), ylim=(size, 0))
        ax.axis("off")
    fig.tight_layout(pad=0.2)
    return fig


def training_facts(sets: Mapping[str, TrainingSet], model: FaceModel) -> pd.DataFrame:
    """A row a split: how many subjects, views and pixels, and how far their faces lie from the mean one."""
    rows = {
        split: {
            "subjects": len(data),
            "views": data.n_views,
            "pixels": data.image_size,
            "mean |scan - mean face| (mm)": float(
                (data.vertices() - model.mean).norm(dim=-1)[:, model.face_index].mean()
            ),
            "metric size, std (%)": 100 * float(np.std(data.size)),
        }
        for split, data in sets.items()
    }
    return pd.DataFrame(rows).T.round(2)


def scan_facts(data: ThreeDFAW, faces: NDArray[np.int64], count: int = 12) -> pd.DataFrame:
    """Mean, least and largest of what the first subjects have; on twins how far the scan lies from the true head, mm."""
    rows = []
    for subject in (data[i] for i in data.ids[:count]):
        row: dict[str, float] = {
            "scan vertices": len(subject.scan.vertices),
            "frames": len(subject.frames),
            "unknown landmarks": int((subject.landmarks51 < 0).sum()),
        }
        if subject.truth is not None:
            points = subject.scan.vertices[::5]
            closest = MeshQuery(subject.truth["vertices"].astype(float), faces).closest(points)
            gap = np.linalg.norm(closest - points, axis=1)
            row |= {"size factor": float(subject.truth["size"])}
            row |= {"scan to truth, median (mm)": float(np.median(gap)), "RMS (mm)": float(np.sqrt((gap**2).mean()))}
        rows.append(row)
    return pd.DataFrame(rows).describe().loc[["mean", "min", "max"]].round(2)


def upright(subject: Subject) -> NDArray[np.float32]:
    """The scan's vertices (M, 3) mm in the head frame where the truth is known, else as they are."""
    if subject.truth is None:
        return subject.scan.vertices.astype(np.float32)
    moved = (subject.scan.vertices - subject.truth["translation"]) @ subject.truth["rotation"]
    return np.asarray(moved, dtype=np.float32)
