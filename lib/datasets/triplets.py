"""Triplets (front, left, right) drawn from packs (lib.datasets.pack).

"Left" is a face turned towards the image's left (negative yaw). No training reads the truth that a twin's pack holds.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lib.core.errors import InputError
from lib.core.views import FRONT, LEFT, RIGHT, TARGET_YAW
from lib.datasets.pack import JITTER, ROW, SPLITS, margin, read_pack
from lib.landmarks.crops import mirror_image, mirror_landmarks, mirror_vertices, mirror_weak_camera
from lib.morphable.model import FaceModel


@dataclass
class TripletBatch:
    """B faces in three views (front, left, right); pixels of the S x S window, mm, radians nowhere.

    images (B, 3, 3, S, S) float32 in [0, 1]; landmarks (B, 3, 68, 2) px; scale (B, 3) px/mm, R (B, 3, 3, 3),
    t2d (B, 3, 2) px: label cameras; alpha (B, K), beta (B, E): label coefficients of the front view;
    alpha_pooled (B, K): mean of the labels of all views of the subject, weighted by 1 / quality;
    yaw (B, 3) degrees; group (B,) index into the pack's groups; mirrored (B,) bool;
    truth (B, N, 3) mm true neutral vertices, None where the pack does not know them.
    """

    images: Tensor
    landmarks: Tensor
    scale: Tensor
    R: Tensor
    t2d: Tensor
    alpha: Tensor
    beta: Tensor
    alpha_pooled: Tensor
    yaw: Tensor
    group: Tensor
    mirrored: Tensor
    truth: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """What is there, by name: the form in which the training loop moves a batch to its device."""
        return {name: value for name, value in vars(self).items() if value is not None}


class TripletSet:
    """One split of a pack as triplets. Images stay in the file (memory-mapped) until a batch takes them.

    A triplet is a front, a left and a right view of one group under one light. Groups that lack one of the three are
    left out and counted in `n_skipped`.

    Args:
        path: the pack. split: train or val. size: S, the window's side in px.
        face: the model whose coefficients the labels are.

    Raises:
        InputError: no such file, not a pack, a pack of another image size or face model, or no triplet in it.
    """

    def __init__(self, path: str | Path, split: str, size: int, face: FaceModel) -> None:
        if split not in SPLITS:
            raise InputError(path, f"split train or val, found {split!r}")
        arrays = read_pack(path)
        self.path, self.size, self.margin = Path(path), size, margin(size)
        wanted = size + 2 * self.margin
        if arrays["images"].shape[1] != wanted:
            found = f"images of {wanted} px for windows of {size}, found {arrays['images'].shape[1]}"
            raise InputError(path, found, f"give the pack that image_size (data.{Path(path).name}) and make it again")
        if arrays["alpha"].shape[1] > face.n_id or arrays["beta"].shape[1] > face.n_exp:
            found = f"{arrays['alpha'].shape[1]} and {arrays['beta'].shape[1]}"
            raise InputError(path, f"at most {face.n_id} and {face.n_exp} coefficients, found {found}")
        self.n_id, self.n_exp = arrays["alpha"].shape[1], arrays["beta"].shape[1]
        self.signature = str(arrays["signature"])
        self.subjects = [str(name) for name in arrays["subject"]]
        self._images = arrays["images"]
        self._rows = {name: torch.from_numpy(np.array(arrays[name])) for name in ROW if name != "images"}
        self._mean, self._symmetry = face.mean.detach().cpu(), face.symmetry.detach().cpu()
        self._id_mirror = face.id_mirror[: arrays["alpha"].shape[1]].detach().cpu()
        self._exp_mirror = face.exp_mirror[: arrays["beta"].shape[1]].detach().cpu()
        self._group_subject = np.array(arrays["group_subject"])
        self._pooled = self._pool_labels()
        self._triplets, self.n_skipped = self._find(np.array(arrays["split"]) == SPLITS.index(split))
        if not self._triplets:
            raise InputError(path, f"a group with front, left and right view in split {split}, found none")
        self._truth_row: dict[int, int] = {}
        if "truth" in arrays:
            if arrays["truth"].shape[1:] != self._mean.shape:
                raise InputError(path, f"truth of shape (T, {len(self._mean)}, 3), found {arrays['truth'].shape}")
            self._truth = arrays["truth"]
            self._truth_row = {int(g): i for i, g in enumerate(arrays["truth_group"])}

    def _pool_labels(self) -> Tensor:
        """(Sub, K) identity labels of each subject, averaged over all of its views."""
        subject = torch.from_numpy(self._group_subject).long()[self._rows["group"].long()]
        weight = 1 / self._rows["quality"].clamp_min(0.1)  # a residual below 0.1 mm says nothing more
        total = torch.zeros(len(self.subjects), self._rows["alpha"].shape[1])
        total.index_add_(0, subject, weight[:, None] * self._rows["alpha"])
        return total / torch.zeros(len(self.subjects)).index_add_(0, subject, weight).clamp_min(1e-9)[:, None]

    def _find(self, keep: np.ndarray) -> tuple[list[tuple[list[int], list[int], list[int]]], int]:
        """Rows of the front, left and right views of every group and light of the split, and how many lack one."""
        found: dict[tuple[int, int], tuple[list[int], list[int], list[int]]] = {}
        columns = (self._rows[name].tolist() for name in ("group", "light", "side"))
        for row, (group, light, side) in enumerate(zip(*columns, strict=True)):
            if keep[group]:
                found.setdefault((group, light), ([], [], []))[side].append(row)
        whole = [rows for _, rows in sorted(found.items()) if all(rows)]
        return whole, len(found) - len(whole)

    @property
    def n_groups(self) -> int:
        """How many faces a batch can choose from: groups of views, each light counted on its own."""
        return len(self._triplets)

    def __len__(self) -> int:
        return self.n_groups

    @property
    def has_truth(self) -> bool:
        """Whether the true shape of every face of this split is known (twins, validation split)."""
        groups = (int(self._rows["group"][fronts[0]]) for fronts, _, _ in self._triplets)
        return bool(self._truth_row) and all(group in self._truth_row for group in groups)

    def batch(
        self,
        index: Tensor | np.ndarray,
        generator: torch.Generator | None = None,
        jitter: bool = True,
        mirror: bool = True,
        share: slice = slice(None),
    ) -> TripletBatch:
        """Groups `index` (B,) as triplets, a function of `index` and the generator's state alone.

        With a (CPU) generator the views of each side are drawn at random, every view's window is shifted by up to
        JITTER of its side (`jitter`), and each face is mirrored with probability 1/2 (`mirror`), which swaps left and right.
        Without one: the views nearest to TARGET_YAW, centred, as they are. share: which of these groups to return; random
        numbers are drawn for all.
        """
        chosen = [self._triplets[int(i)] for i in index]
        b = len(chosen)
        if generator is None:
            yaw = self._rows["yaw"]
            rows = torch.tensor(
                [
                    [min(side, key=lambda r: abs(float(yaw[r]) - t)) for side, t in zip(c, TARGET_YAW, strict=True)]
                    for c in chosen
                ]
            )
            shift = torch.zeros(b, 3, 2, dtype=torch.long)
            flip = torch.zeros(b, dtype=torch.bool)
        else:
            draw = torch.rand(b, 3, generator=generator)
            rows = torch.tensor(
                [
                    [side[int(u * len(side))] for side, u in zip(c, r, strict=True)]
                    for c, r in zip(chosen, draw.tolist(), strict=True)
                ]
            )
            most = int(JITTER * self.size)
            shift = torch.randint(-most, most + 1, (b, 3, 2), generator=generator) * int(jitter)
            flip = (torch.rand(b, generator=generator) < 0.5) & mirror
        batch, flip = self._cut(rows[share], shift[share]), flip[share]
        return self._mirror(batch, flip) if bool(flip.any()) else batch

    def _cut(self, rows: Tensor, shift: Tensor) -> TripletBatch:
        """Views `rows` (B, 3) through windows moved by `shift` (B, 3, 2) px from the middle."""
        corner = shift + self.margin
        s = self.size
        images = np.empty((*rows.shape, s, s, 3), np.uint8)
        for i, v in np.ndindex(*rows.shape):
            x, y = corner[i, v].tolist()
            images[i, v] = self._images[int(rows[i, v]), y : y + s, x : x + s]
        r = {name: tensor[rows] for name, tensor in self._rows.items()}
        group = r["group"][:, 0]
        subject = torch.from_numpy(self._group_subject).long()[group.long()]
        truth = None
        if self._truth_row and all(int(g) in self._truth_row for g in group):
            known = [self._truth_row[int(g)] for g in group]
            truth = torch.from_numpy(self._truth[known].astype(np.float32)) + self._mean
        return TripletBatch(
            images=torch.from_numpy(images).permute(0, 1, 4, 2, 3).float() / 255,
            landmarks=r["landmarks"] - corner[:, :, None],
            scale=r["scale"],
            R=r["R"],
            t2d=r["t2d"] - corner,
            alpha=r["alpha"][:, 0],
            beta=r["beta"][:, 0],
            alpha_pooled=self._pooled[subject],
            yaw=r["yaw"],
            group=group,
            mirrored=torch.zeros(len(rows), dtype=torch.bool),
            truth=truth,
        )

    def _mirror(self, batch: TripletBatch, flip: Tensor) -> TripletBatch:
        """Mirror the faces where `flip` (B,) is true: pixels, cameras, landmarks, coefficients, and left for right."""
        b = {name: value[flip] for name, value in batch.tensors().items()}
        swap = [FRONT, RIGHT, LEFT]
        scale, R, t2d = mirror_weak_camera(b["scale"][:, swap], b["R"][:, swap], b["t2d"][:, swap], self.size)
        mirrored = {
            "images": mirror_image(b["images"][:, swap]),
            "landmarks": mirror_landmarks(b["landmarks"][:, swap], self.size),
            "scale": scale,
            "R": R,
            "t2d": t2d,
            "alpha": b["alpha"] * self._id_mirror,
            "beta": b["beta"] * self._exp_mirror,
            "alpha_pooled": b["alpha_pooled"] * self._id_mirror,
            "yaw": -b["yaw"][:, swap],
            "mirrored": ~b["mirrored"],
        }
        if batch.truth is not None:
            mirrored["truth"] = mirror_vertices(b["truth"], self._symmetry)
        for name, value in mirrored.items():
            getattr(batch, name)[flip] = value
        return batch
