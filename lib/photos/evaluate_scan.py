"""How far a reconstruction is from a scan of the same person: ``python -m lib.photos.evaluate_scan``.

    python -m lib.photos.evaluate_scan --mesh out/mesh.ply --scan scan.obj --landmarks scan_landmarks.json

The mesh must have the face model's topology (mesh.ply or mesh.obj of ``lib.reconstruct``). The scan is in mm with
at least three of the 68 landmarks. Alignment and distance are the protocols of ``lib.metrics``: landmark similarity (pictures
do not show the size), rigid point-to-plane ICP, distance of every vertex of the cropped face. "free scale" takes the size
from ICP on the surface instead of from a few landmarks, which lie some millimetres beside the face model's.
"""

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np

from lib.core.command import argument, command
from lib.core.errors import InputError
from lib.core.files import atomic_write_json
from lib.core.mesh import read_mesh
from lib.metrics.protocols import PROTOCOLS, Protocol, Step, evaluate_detailed
from lib.metrics.scan import SubjectScan, nearest_landmarks
from lib.morphable import FaceModel
from lib.morphable.model import FACE_MODEL
from lib.photos.settings import load_model

ADVICE = "68 (or 51) rows of three numbers in iBUG order, null where unknown; or a menpo .ljson file with labels"
FREE_SCALE = "p2plane free scale"
# menpo's labelled 3D faces name their groups; this is where each group begins in iBUG order.
MENPO_START = {"chin": 0, "leyebrow": 17, "reyebrow": 22, "nose": 27, "leye": 36, "reye": 42, "mouth": 48}


def read_scan_landmarks(path: str | Path) -> np.ndarray:
    """(51, 3) mm landmark positions on the scan, NaN where unknown.

    Raises:
        InputError: unreadable, or not 51 or 68 points of three numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(path, "no such file", ADVICE)
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and "groups" in content:
            content = _from_menpo(content)
        elif isinstance(content, dict) and "landmarks" in content:
            content = content["landmarks"]
        rows = [[np.nan] * 3 if row is None else [np.nan if v is None else float(v) for v in row] for row in content]
        points = np.array(rows, dtype=np.float64)
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(path, f"not a list of landmarks ({error})", ADVICE) from error
    if points.shape == (68, 3):
        points = points[17:]
    if points.shape != (51, 3):
        raise InputError(path, f"51 or 68 points, found {points.shape}", ADVICE)
    return points


def _from_menpo(content: dict) -> list:
    group = next(iter(content["groups"].values()))
    rows: list = [None] * 68
    for label in group["labels"]:
        first = MENPO_START[label["label"]]
        for offset, index in enumerate(label["mask"]):
            rows[first + offset] = group["landmarks"]["points"][index]
    return rows


def evaluate(
    model: FaceModel, vertices: np.ndarray, scan_path: str | Path, landmarks_path: str | Path
) -> dict[str, float]:
    """Errors in mm of (N, 3) vertices in the face model's topology against a scan.

    Returns:
        mean and median of point-to-plane and point-to-mesh distances over the cropped face.

    Raises:
        InputError: unreadable scan or landmarks, another topology, a scan in metres.
    """
    if vertices.shape != tuple(model.mean.shape):
        raise InputError("--mesh", f"{len(model.mean)} vertices of the face model, found {len(vertices)}",
                         "give mesh.ply or mesh.obj of lib.reconstruct; a GLB has doubled vertices")  # fmt: skip
    mesh = read_mesh(scan_path)
    points = read_scan_landmarks(landmarks_path)
    scan = SubjectScan(mesh.vertices, mesh.faces, nearest_landmarks(mesh.vertices, points), Path(scan_path).name)
    free = Protocol(
        FREE_SCALE,
        "point to plane after ICP with scale",
        (
            Step("crop.face"),
            Step("align.landmarks", scale=True),
            Step("align.icp_scaled", iterations=30),
            Step("align.icp_rigid", max_distance=10.0, iterations=50),
            Step("correspond.nearest_vertex"),
            Step("measure.mean_plane_distance"),
        ),
    )
    outcomes = evaluate_detailed(
        vertices,
        model.faces.numpy(),
        model.landmarks.numpy(),
        scan,
        None,
        model.face_index.numpy(),
        ["p2plane", FREE_SCALE, "p2mesh"],
        {**PROTOCOLS, FREE_SCALE: free},
    )
    result = {}
    for name, outcome in outcomes.items():
        result[f"{name} mean"] = round(float(outcome.value), 4)
        result[f"{name} median"] = round(float(np.nanmedian(np.abs(outcome.errors))), 4)
    return result


@command(
    __doc__,
    argument("--mesh", required=True, help="mesh.ply or mesh.obj of lib.reconstruct"),
    argument("--scan", required=True, help="scan of the same person, mm (.obj, .ply)"),
    argument("--landmarks", required=True, help="JSON with the scan's 68 landmarks; " + ADVICE),
    argument("--model", type=Path, default=FACE_MODEL),
    argument("--json", help="also write the numbers here"),
)
def main(options: Namespace) -> None:
    """Print the errors of the mesh and of the mean face."""
    model = load_model(options.model)
    result = {
        "mesh": evaluate(model, read_mesh(options.mesh).vertices, options.scan, options.landmarks),
        "mean face": evaluate(model, model.mean.numpy().astype(np.float64), options.scan, options.landmarks),
    }
    for name, values in result.items():
        print(f"{name}: " + ", ".join(f"{key} {value:.2f} mm" for key, value in values.items()))
    if options.json:
        atomic_write_json(options.json, result)


if __name__ == "__main__":
    raise SystemExit(main())
