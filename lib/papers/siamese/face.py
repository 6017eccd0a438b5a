"""The 3DMM of the Siamese paper: a PCA on the training subjects' registered scans (section 4.1, equation 1).

    python -m lib.papers.siamese.face

reads the training split, aligns by Procrustes, keeps the first modes (siamese.n_modes) and writes
data/<profile>/siamese_3dmm.npz; `lib.models.siamese.Siamese3DMM` reads it.
"""

from argparse import Namespace
from pathlib import Path

import numpy as np

from lib.core.command import command
from lib.core.files import save_npz_atomic
from lib.core.params import material
from lib.datasets.training.read import TrainingSet
from lib.morphable.model import FACE_MODEL, FaceModel


def face_file(profile: str) -> Path:
    """Where the 3DMM is."""
    return Path("data") / profile / "siamese_3dmm.npz"


def procrustes(vertices: np.ndarray, target: np.ndarray, index: np.ndarray, scale: bool = True) -> np.ndarray:
    """Similarity-align each of (S, N, 3) to target (N, 3) on the vertices in `index` (Umeyama 1991).

    Many at a time and in the arrays' own precision, float32 here; `lib.metrics.similarity` measures, in float64.
    """
    src, dst = vertices[:, index], target[index]
    mu, mu_t = src.mean(1, keepdims=True), dst.mean(0)
    cov = np.einsum("ni,snj->sij", dst - mu_t, src - mu)
    u, d, vt = np.linalg.svd(cov)
    sign = np.ones_like(d)
    sign[:, 2] = np.sign(np.linalg.det(u) * np.linalg.det(vt))
    rotation = (u * sign[:, None]) @ vt
    s = (d * sign).sum(1) / np.square(src - mu).sum((1, 2)) if scale else np.ones(len(src))
    return s[:, None, None] * np.einsum("sij,snj->sni", rotation, vertices - mu) + mu_t


def build(vertices: np.ndarray, symmetry: np.ndarray, face_index: np.ndarray, n_modes: int, weight: np.ndarray) -> dict:
    """PCA of registered scans (S, N, 3) and their mirror images ("all the scenes are fully symmetrized", 4.1).

    With both members of every mirrored pair in the data each mode is symmetric or antisymmetric. They are computed
    apart (the pairs' half sums and half differences), so that the property is exact. weight: (N,) importance of a
    vertex in the PCA, as in `FaceModel`.
    """
    if n_modes > 2 * len(vertices) - 1:
        raise ValueError(f"{n_modes} modes need more than {n_modes // 2} scans, got {len(vertices)}")
    flip = np.array([-1.0, 1.0, 1.0], dtype=np.float32)
    mean = vertices.mean(0)
    mean = (mean + mean[symmetry] * flip) / 2
    for _ in range(3):  # generalised Procrustes: align to the mean, update the mean
        vertices = procrustes(vertices, mean, face_index).astype(np.float32)
        mean = vertices.mean(0)
        mean = ((mean + mean[symmetry] * flip) / 2).astype(np.float32)
    delta = vertices - mean
    mirror = (vertices[:, symmetry] * flip) - mean
    root = np.sqrt(weight)[:, None].astype(np.float32)
    modes, variances, signs = [], [], []
    for sign in (1, -1):
        half = ((delta + sign * mirror) / 2 * root).reshape(len(vertices), -1)
        gram = half @ half.T / len(vertices)  # S x S is smaller than 3N x 3N
        values, vectors = np.linalg.eigh(gram.astype(np.float64))
        order = np.argsort(values)[::-1][:n_modes]
        values = np.maximum(values[order], 1e-12)
        phi = (vectors[:, order].T @ half) / np.sqrt(values * len(vertices))[:, None]
        modes.append(phi)
        variances.append(values)
        signs.append(np.full(len(values), sign, dtype=np.float32))
    variance = np.concatenate(variances)
    order = np.argsort(variance)[::-1][:n_modes]
    total = np.square((delta * root)).sum() / len(vertices)
    basis = np.concatenate(modes)[order].reshape(n_modes, -1, 3) / root
    return {
        "mean": mean,
        "basis": (basis * np.sqrt(variance[order])[:, None, None]).astype(np.float32),
        "std": np.sqrt(variance[order]).astype(np.float32),
        "mirror_sign": np.concatenate(signs)[order],
        "explained": np.float32(variance[order].sum() / total),
    }


@command(__doc__, params=True)
def main(options: Namespace) -> None:
    profile, cfg = material(options.params), options.params["siamese"]
    face = FaceModel.load(FACE_MODEL)
    split = TrainingSet(Path("data") / profile / "train", "train", face)
    scans = split.vertices(slice(0, cfg["n_scans"])).numpy()
    index = face.face_index.numpy()
    weight = np.full(len(face.mean), 0.25, dtype=np.float32)
    weight[index] = 1.0
    arrays = build(scans, face.symmetry.numpy(), index, cfg["n_modes"], weight)
    arrays |= {"faces": face.faces.numpy(), "landmarks": face.landmarks.numpy(), "face_index": index}
    save_npz_atomic(face_file(profile), **arrays)
    share = arrays["explained"]
    print(f"{face_file(profile)}: {cfg['n_modes']} modes of {len(scans)} scans, {share:.3f} of the variance")


if __name__ == "__main__":
    raise SystemExit(main())
