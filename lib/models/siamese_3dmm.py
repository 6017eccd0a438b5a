"""The 3DMM of the Siamese paper: a PCA on the training subjects' registered scans (section 4.1, equation 1).

    python -m lib.models.siamese_3dmm --params params.yaml

reads the training split, aligns by Procrustes, keeps 64 modes and writes one npz file.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lib.core.errors import InputError
from lib.core.files import load_npz, save_npz_atomic

_KEYS = ("mean", "basis", "std", "mirror_sign", "faces", "landmarks", "face_index", "explained")


class Siamese3DMM(nn.Module):
    """s = m + Phi_id alpha_id (equation 1); alpha is in standard deviations of the training population.

    mean (N, 3) mm; basis (K, N, 3) mm per standard deviation; std (K,) mm (square roots of the eigenvalues);
    mirror_sign (K,) +1 or -1: a face's mirror image has alpha * mirror_sign; faces (F, 3); landmarks (68,);
    face_index (Nc,) vertices of the cropped face.
    """

    mean: Tensor
    basis: Tensor
    std: Tensor
    mirror_sign: Tensor
    faces: Tensor
    landmarks: Tensor
    face_index: Tensor

    def __init__(self, arrays: dict[str, np.ndarray]):
        super().__init__()
        for key in _KEYS[:-1]:
            value = torch.from_numpy(np.ascontiguousarray(arrays[key]))
            value = value.long() if key in ("faces", "landmarks", "face_index") else value.float()
            # not persistent: a checkpoint holds what was learnt, the 3DMM has a file of its own
            self.register_buffer(key, value, persistent=False)
        self.explained = float(arrays["explained"])

    @classmethod
    def load(cls, path: str | Path) -> "Siamese3DMM":
        arrays = load_npz(path, required=_KEYS)
        k, n = arrays["basis"].shape[:2]
        if arrays["mean"].shape != (n, 3) or arrays["std"].shape != (k,):
            raise InputError(path, "basis (K, N, 3) with mean (N, 3) and std (K,)", "run the siamese_3dmm stage again")
        return cls(arrays)

    @property
    def n_modes(self) -> int:
        return self.basis.shape[0]

    def vertices(self, alpha: Tensor, index: Tensor | None = None) -> Tensor:
        """alpha (B, K) to shapes (B, N, 3) in mm; only the vertices in `index` when it is given."""
        mean, basis = (self.mean, self.basis) if index is None else (self.mean[index], self.basis[:, index])
        return mean + (alpha @ basis.flatten(1)).view(-1, *mean.shape)

    def project(self, vertices: Tensor) -> Tensor:
        """Least-squares alpha (B, K) of shapes (B, N, 3) on the cropped face: the oracle, the floor of this model."""
        phi = self.basis[:, self.face_index].flatten(1)  # (K, 3 Nc)
        residual = (vertices - self.mean)[:, self.face_index].flatten(1)
        return torch.linalg.lstsq(phi.double().T, residual.double().T).solution.T.to(vertices.dtype)


def procrustes(vertices: np.ndarray, target: np.ndarray, index: np.ndarray, scale: bool = True) -> np.ndarray:
    """Similarity-align each of (S, N, 3) to target (N, 3) on the vertices in `index` (Umeyama 1991)."""
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


def main() -> None:
    from lib.core.params import load_params
    from lib.datasets.training.read import TrainingSet
    from lib.morphable.model import FaceModel

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--params", default="params.yaml")
    params = load_params(parser.parse_args().params)
    face = FaceModel.load("data/face_model.npz")
    root = Path("data") / params["profile"]
    scans = TrainingSet(root / "train", "train", face).vertices(slice(0, params["siamese"]["n_scans"])).numpy()
    index = face.face_index.numpy()
    weight = np.full(len(face.mean), 0.25, dtype=np.float32)
    weight[index] = 1.0
    arrays = build(scans, face.symmetry.numpy(), index, params["siamese"]["n_modes"], weight)
    out = root / "siamese_3dmm.npz"
    save_npz_atomic(
        out, **arrays, faces=face.faces.numpy(), landmarks=face.landmarks.numpy(), face_index=face.face_index.numpy()
    )
    print(
        f"{out}: {params['siamese']['n_modes']} modes of {len(scans)} scans, {arrays['explained']:.3f} of the variance"
    )


if __name__ == "__main__":
    main()
