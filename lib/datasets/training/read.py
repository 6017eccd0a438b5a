"""Reading the training twin: all of one split in memory, batches with symmetrisation on the fly."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lib.core.arrays import load_arrays
from lib.core.errors import InputError
from lib.core.progress import progress
from lib.landmarks.crops import mirror_camera, mirror_image, mirror_landmarks, mirror_vertices
from lib.morphable.model import FACE_MODEL, FaceModel

SPLITS = ("train", "val", "test")
_KEYS = ("images", "K", "R", "t", "landmarks", "yaw", "vertices", "size", "split", "subject", "signature")


@dataclass
class Batch:
    """B subjects with V views; pixels of the H x W crop, mm, head frame at mean size.

    images (B, V, 3, H, W) float32 in [0, 1]; K, R (B, V, 3, 3), t (B, V, 3); landmarks (B, V, 68, 2);
    vertices (B, N, 3) = registered neutral scans; yaw (B, V) degrees; mirrored (B,) bool.
    """

    images: Tensor
    K: Tensor
    R: Tensor
    t: Tensor
    landmarks: Tensor
    vertices: Tensor
    yaw: Tensor
    mirrored: Tensor


class TrainingSet:
    """One split of the training twin.

    Images stay 8 bit and vertices half precision in memory (quick: about 0.9 GB for all subjects). Images of more than
    `memory_gb` in total are not loaded but read from the shards batch by batch.

    Args:
        root: folder with the shards.
        split: train, val, test or all.
        model: the face model (or its path) whose mean and symmetry the registered vertices refer to.
        memory_gb: most that the images may take in memory.

    Raises:
        InputError: no shards, a damaged shard, shards of different makes or with gaps, unknown split, another topology.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        model: FaceModel | str | Path = FACE_MODEL,
        memory_gb: float = 8.0,
    ) -> None:
        if split not in (*SPLITS, "all"):
            raise InputError(root, f"split train, val, test or all, found {split!r}")
        model = model if isinstance(model, FaceModel) else FaceModel.load(model)
        self.mean = model.mean.detach().cpu().float()
        self.symmetry = model.symmetry.detach().cpu()
        self.root, self.split = Path(root), split
        paths = sorted(path for path in self.root.glob("shard_*") if path.is_dir())
        expected = [self.root / f"shard_{i:03d}" for i in range(len(paths))]
        if not paths:
            raise InputError(self.root, "no shard_* here", "python -m lib.datasets.training.twin")
        if paths != expected:
            missing = sorted(set(expected) - set(paths))
            raise InputError(missing[0], "a shard is missing", "python -m lib.datasets.training.twin resumes")
        parts: list[dict[str, np.ndarray]] = []
        self._images: list[tuple[np.ndarray, np.ndarray]] = []  # of each shard: all its images, and the rows to use
        signature = None
        for path in progress(paths, f"reading {split}", len(paths)):
            arrays = load_arrays(path, _KEYS)
            signature = signature or str(arrays["signature"])
            if str(arrays["signature"]) != signature:
                raise InputError(path, "made from other settings than shard_000", "make the set again")
            self._check(path, arrays)
            keep = np.arange(len(arrays["split"]))
            keep = keep if split == "all" else keep[arrays["split"] == SPLITS.index(split)]
            self._images.append((arrays["images"], keep))
            parts.append({name: np.array(arrays[name][keep]) for name in _KEYS if name not in ("images", "signature")})
        self.signature = signature
        joined = {name: np.concatenate([part.pop(name) for part in parts]) for name in list(parts[0])}
        self.subjects = [str(name) for name in joined.pop("subject")]
        if not self.subjects:
            raise InputError(self.root, f"no subject in split {split}", "raise data.train.n_subjects")
        self.size = joined.pop("size")
        joined.pop("split")
        self._data = {name: torch.from_numpy(array) for name, array in joined.items()}
        self._where = np.array([(i, row) for i, (_, rows) in enumerate(self._images) for row in rows])
        one = self._images[0][0][0]
        self._memory: Tensor | None = None
        if len(self) * one.nbytes <= memory_gb * 1e9:
            chunks = [np.ascontiguousarray(_channels_first(images[rows])) for images, rows in self._images]
            self._memory = torch.from_numpy(np.concatenate(chunks))

    def _check(self, path: Path, arrays: dict[str, np.ndarray]) -> None:
        s, v = arrays["images"].shape[:2]
        shapes = {
            "K": (s, v, 3, 3),
            "R": (s, v, 3, 3),
            "t": (s, v, 3),
            "landmarks": (s, v, 68, 2),
            "yaw": (s, v),
            "vertices": (s, *self.mean.shape),
            "split": (s,),
        }
        for name, shape in shapes.items():
            if arrays[name].shape != shape:
                raise InputError(
                    path, f"{name} of shape {shape}, found {arrays[name].shape}", "made with another face model?"
                )

    def __len__(self) -> int:
        return len(self.subjects)

    @property
    def n_views(self) -> int:
        """Number of views V, in ascending yaw."""
        return int(self._images[0][0].shape[1])

    @property
    def image_size(self) -> int:
        """Side of the crops in px."""
        return int(self._images[0][0].shape[2])

    @property
    def yaw(self) -> Tensor:
        """(len, V) degrees."""
        return self._data["yaw"]

    def images(self, index: Tensor, view: Tensor | None = None) -> Tensor:
        """Crops (B, V, 3, H, W) uint8 of subjects `index` (B,), as made; of views (B, V') where given."""
        if self._memory is not None:
            return self._memory[index] if view is None else self._memory[index[:, None], view]
        picked = [self._images[shard][0][row] for shard, row in self._where[index.numpy()]]
        if view is not None:
            picked = [views[chosen] for views, chosen in zip(picked, view.numpy(), strict=True)]
        return torch.from_numpy(np.ascontiguousarray(_channels_first(np.stack(picked))))

    def vertices(self, indices: Tensor | slice = slice(None)) -> Tensor:
        """Registered neutral scans (B, N, 3) float32 mm, not mirrored (for the PCA, pass through `symmetrise`)."""
        return self._data["vertices"][indices].float() + self.mean

    def batch(
        self,
        indices: Tensor | np.ndarray | Sequence[int],
        rng: torch.Generator | None = None,
        symmetrise: bool = True,
        choose: Callable[[Tensor], Tensor] | None = None,
        share: slice = slice(None),
    ) -> Batch:
        """Subjects `indices` (B,) as a batch; each is mirrored with probability 1/2 when `symmetrise`.

        A mirrored sample has mirrored pixels, cameras, landmarks and vertices, and its views in reverse order, so that
        the yaw still ascends. Deterministic given the state of `rng` (a CPU generator; required to symmetrise).
        choose: takes the batch's yaw (B, V) in degrees and says which views (B, V') to keep, in which order; the others are
        not touched. None keeps all. share: which of these subjects to return; random numbers are drawn for all.
        """
        index = torch.as_tensor(np.asarray(indices), dtype=torch.long)
        flip = torch.zeros(len(index), dtype=torch.bool)
        if symmetrise:
            if rng is None:
                raise ValueError("batch(symmetrise=True) needs a torch.Generator")
            flip = torch.rand(len(index), generator=rng) < 0.5
        yaw, view = self._data["yaw"][index], None
        if choose is not None:
            view = choose(torch.where(flip[:, None], -yaw.flip(1), yaw))
            # mirroring turns the order of the views round, so a mirrored sample's are picked from the other end
            view = torch.where(flip[:, None], (self.n_views - 1 - view).flip(1), view)[share]
        index, flip = index[share], flip[share]
        raw = {name: tensor[index] for name, tensor in self._data.items()}
        if view is not None:
            rows = torch.arange(len(index))[:, None]
            raw |= {name: raw[name][rows, view] for name in ("K", "R", "t", "landmarks", "yaw")}
        batch = Batch(
            self.images(index, view),
            raw["K"],
            raw["R"],
            raw["t"],
            raw["landmarks"],
            raw["vertices"].float() + self.mean,
            raw["yaw"],
            flip,
        )
        if bool(flip.any()):
            batch = mirror_batch(batch, flip, self.symmetry)
        batch.images = batch.images.float().div_(255)  # last: bytes are mirrored in a quarter of the time
        return batch


def _channels_first(images: np.ndarray) -> np.ndarray:
    """(B, V, H, W, 3) as (B, V, 3, H, W), a view."""
    return images.transpose(0, 1, 4, 2, 3)


def mirror_batch(batch: Batch, flip: Tensor, symmetry: Tensor) -> Batch:
    """Mirror the samples of `batch` where `flip` (B,) is true; see `TrainingSet.batch`."""
    width = batch.images.shape[-1]
    k, r, t = mirror_camera(batch.K[flip].flip(1), batch.R[flip].flip(1), batch.t[flip].flip(1), width)
    mirrored = {
        "images": mirror_image(batch.images[flip].flip(1)),
        "K": k,
        "R": r,
        "t": t,
        "landmarks": mirror_landmarks(batch.landmarks[flip].flip(1), width),
        "vertices": mirror_vertices(batch.vertices[flip], symmetry),
        "yaw": -batch.yaw[flip].flip(1),
    }
    out = {name: value.clone() for name, value in vars(batch).items() if name != "mirrored"}
    for name, value in mirrored.items():
        out[name][flip] = value
    return Batch(**out, mirrored=batch.mirrored | flip)
