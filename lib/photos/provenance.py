"""What made a result: versions of this package, the face model and the libraries that matter."""

import hashlib
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np


def versions(model: Any) -> dict[str, str]:
    """Python, libraries, and a fingerprint of the face model (its mean and landmarks)."""
    found = {"python": platform.python_version()}
    for name in ("numpy", "torch", "dlib-bin", "face-alignment", "trimesh", "pillow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    mean = np.round(model.mean.detach().cpu().numpy(), 2) + 0.0
    digest = hashlib.sha256(mean.tobytes() + model.landmarks.cpu().numpy().astype(np.int64).tobytes())
    found["face_model"] = digest.hexdigest()[:12]
    return found
