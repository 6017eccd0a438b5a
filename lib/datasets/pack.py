"""Packs: face crops of a data set in groups of views, with labels, in one folder of .npy files; and how one is made.

The makers of 300W-LP's and Multi-PIE's packs give rows for some subjects at a time; chunking, resuming, joining, checks,
splits and the command line are here, the same for both. Crops are larger than a network's input by `margin(size)` on every
side, so that the jitter of MVF-Net (section 4.2: a random shift of 0 to 0.05 of the input size) cuts another window and
interpolates nothing. Landmarks in a pack may be labels or detections, and labels may be biased: only `truth` is the truth.
"""

import math
import shutil
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lib.core.arrays import Pieces, load_arrays, save_arrays
from lib.core.code import code_hash
from lib.core.command import argument, command
from lib.core.errors import InputError
from lib.core.files import fingerprint
from lib.core.params import from_dict, material, section
from lib.core.pool import run_pool
from lib.core.progress import log
from lib.core.views import VIEWS
from lib.datasets.folder import data_root
from lib.fit.single import LabelFit
from lib.landmarks.crops import apply_transform, crop_image, crop_transform, crop_weak_camera
from lib.morphable.model import FACE_MODEL, FaceModel
from lib.renderers.rasterize import use

JITTER = 0.05
"""Largest shift of the window as a share of its side (MVF-Net, section 4.2)."""

SPLITS = ("train", "val")

ROW: dict[str, tuple[Any, tuple[int | None, ...]]] = {
    "images": (np.uint8, (None, None, 3)),
    "landmarks": (np.float32, (68, 2)),
    "scale": (np.float32, ()),
    "R": (np.float32, (3, 3)),
    "t2d": (np.float32, (2,)),
    "alpha": (np.float32, (None,)),
    "beta": (np.float32, (None,)),
    "quality": (np.float32, ()),
    "side": (np.int8, ()),
    "yaw": (np.float32, ()),
    "light": (np.int32, ()),
    "group": (np.int32, ()),
}
"""Of every view: name -> dtype and shape of one row (None: any size)."""

REQUIRED = (*ROW, "group_subject", "split", "subject", "signature")


def margin(size: int) -> int:
    """Pixels that a pack's crops are larger than `size` on each side: the largest jitter and one to spare."""
    return math.ceil(JITTER * size) + 1


# ---- the format ----
def write_pack(path: str | Path, arrays: dict[str, Any]) -> None:
    """Check and write a pack; `path` is its folder.

    Of M views, P = size + 2 margin(size):
        images (M, P, P, 3) uint8 RGB, or `Pieces` of them; landmarks (M, 68, 2) px of that image; scale (M,) px/mm,
        R (M, 3, 3), t2d (M, 2) px: weak-perspective camera in the same pixels; alpha (M, K), beta (M, E) label
        coefficients in standard deviations; quality (M,) rms landmark residual of the label in mm; side (M,) 0 front,
        1 left, 2 right; yaw (M,) degrees; light (M,) which light; group (M,) the face and instant that the view belongs to.
    Of G groups: group_subject (G,) index of the subject; split (G,) 0 train, 1 val. Of the subjects: subject (names).
    signature: text, fingerprint of what the pack was made from. Optional, for T groups of a twin's validation split:
        truth_group (T,) int, truth (T, N, 3) true neutral vertices minus `FaceModel.mean`, mm, at mean size.

    Raises:
        ValueError: a name is missing or unknown, or a shape or value is wrong; the message names it.
    """
    unknown = set(arrays) - {*REQUIRED, "truth", "truth_group"}
    missing = [name for name in REQUIRED if name not in arrays]
    if unknown or missing:
        raise ValueError(f"pack {path}: missing {missing or 'nothing'}, unknown {sorted(unknown) or 'nothing'}")
    types: dict[str, Any] = {name: dtype for name, (dtype, _) in ROW.items()}
    types |= {"group_subject": np.int32, "split": np.uint8, "subject": str, "signature": str}
    types |= {"truth": np.float16, "truth_group": np.int32}
    plain = {
        name: value if isinstance(value, Pieces) else np.asarray(value, types[name]) for name, value in arrays.items()
    }
    problem = _problem(plain, deep=True)
    if problem:
        raise ValueError(f"pack {path}: {problem}")
    save_arrays(path, plain)


def read_pack(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a pack, memory-mapped. Raises InputError when it is none, damaged, or its shapes do not agree."""
    arrays = load_arrays(path, REQUIRED)
    problem = _problem(arrays, deep=False)
    if problem:
        raise InputError(path, problem, "delete it and make it again")
    return arrays


def _problem(a: dict[str, Any], deep: bool) -> str | None:
    """What is wrong with a pack's arrays, or None. deep: look at every value, not at shapes and indices alone."""
    m = len(a["images"])
    for name, (_, shape) in ROW.items():
        found = a[name].shape
        if len(found) != 1 + len(shape) or found[0] != m:
            return f"{name} of shape {(m, *shape)}, found {found}"
        if any(want not in (None, have) for want, have in zip(shape, found[1:], strict=True)):
            return f"{name} of shape {(m, *shape)}, found {found}"
    if m == 0:
        return "no views"
    if a["images"].shape[1] != a["images"].shape[2]:
        return f"square images, found {a['images'].shape[1:3]}"
    g, s = len(a["group_subject"]), len(a["subject"])
    if a["split"].shape != (g,) or a["group_subject"].shape != (g,):
        return f"split and group_subject of one length, found {a['split'].shape} and {a['group_subject'].shape}"
    for name, limit in (("group", g), ("group_subject", s), ("side", len(VIEWS)), ("split", len(SPLITS))):
        if a[name].size and not (0 <= a[name].min() and a[name].max() < limit):
            return f"{name} in 0..{limit - 1}, found {a[name].min()}..{a[name].max()}"
    if len(np.unique(np.stack([a["group_subject"], a["split"]]), axis=1).T) != len(np.unique(a["group_subject"])):
        return "every subject in one split, found one in both"
    if ("truth" in a) != ("truth_group" in a) or ("truth" in a and len(a["truth"]) != len(a["truth_group"])):
        return "truth and truth_group together and of one length"
    if not deep:
        return None
    for name in ("landmarks", "scale", "R", "t2d", "alpha", "beta", "quality", "yaw"):
        if not np.isfinite(a[name]).all():
            return f"{name} with finite values"
    if np.abs(a["R"] @ a["R"].transpose(0, 2, 1) - np.eye(3)).max() > 1e-3 or (np.linalg.det(a["R"]) < 0).any():
        return "R of rotations"
    if (a["scale"] <= 0).any():
        return "scale above 0"
    return None


# ---- crops and their labels ----
def crop_maps(landmarks: Tensor, size: int, face: FaceModel) -> Tensor:
    """Maps A (V, 2, 3) from picture to crop px round landmarks (V, 68, 2) px, for a network's input of `size` px."""
    A = crop_transform(landmarks, size, face.mean[face.landmarks].double())
    A[:, :, 2] += margin(size)
    return A


def crop_picture(image: np.ndarray, A: Tensor, size: int) -> np.ndarray:
    """The crop (P, P, 3) uint8 that A (2, 3) makes of a picture (H, W, 3) uint8; size: as in `crop_maps`."""
    picture = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    crop = crop_image(picture, A[None].float(), size + 2 * margin(size))[0]
    return crop.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()


def fitted_points(fit: LabelFit, face: FaceModel, index: Tensor) -> Tensor:
    """Vertices `index` (L,) of the fitted heads in their pictures (V, L, 2) px."""
    basis = torch.cat([face.id_basis[: fit.alpha.shape[1], index], face.exp_basis[: fit.beta.shape[1], index]])
    shape = torch.cat([fit.alpha, fit.beta], 1) @ basis.flatten(1).double()
    return fit.camera.project(face.mean[index].double() + shape.unflatten(1, (-1, 3)))[..., :2]


def label_rows(fit: LabelFit, landmarks: Tensor, A: Tensor, face: FaceModel) -> dict[str, np.ndarray]:
    """Labels of V crops in crop px: the fit and the landmarks (V, 68, 2) px of the pictures, moved by A (V, 2, 3).

    landmarks: 68, or the 51 inner ones (V, 51, 2): then the jaw's are the fitted model's, because on a visible outline lies
    no fixed vertex.
    """
    if landmarks.shape[1] == 51:
        landmarks = torch.cat([fitted_points(fit, face, face.landmarks)[:, :17], landmarks], 1)
    scale, rotation, t2d = crop_weak_camera(fit.scale, fit.R, fit.t2d, A)
    rows = {"landmarks": apply_transform(A, landmarks), "scale": scale, "R": rotation, "t2d": t2d}
    rows |= {"alpha": fit.alpha, "beta": fit.beta, "quality": fit.residual_mm}
    return {name: value.float().numpy() for name, value in rows.items()}


# ---- making one ----
@dataclass(frozen=True)
class Packer:
    """How the pack of one data set is made.

    Attributes:
        module: its code; what that means is part of the signature. name: of the set below `data` of params.yaml and of the
            pack; config: dataclass of that section; unit: what a chunk holds, for the log.
        open: opens the set in a folder; what it returns is cut by `chunks` into parts that worker processes get.
        rows: the rows of one part: arrays as in `write_pack`, but `group` and `subject` (M,) are names; `keep` (M,) bool
            where only some rows count; `skipped`: lines that say what was left out; more for `report`. Without views only
            `skipped` and what is for `report`.
        inputs: all that the rows depend on besides configuration, face model and code; paths are read.
        validation: which of the subjects are held out. truth: name of a subject -> true neutral head (N, 3) mm minus
            `FaceModel.mean`, as far as they are known. report: checks the parts' arrays and says what they hold.
    """

    module: str
    name: str
    config: type
    unit: str
    open: Callable[[Path, Any, FaceModel], Any]
    chunks: Callable[[Any, Any], Sequence[Any]]
    rows: Callable[[Any, Any, FaceModel], dict[str, Any]]
    inputs: Callable[[Any, Any], Sequence[object]]
    validation: Callable[[list[str], Any], set[str]]
    truth: Callable[[Path, set[str]], dict[str, np.ndarray]]
    report: Callable[[Any, Any, list[dict[str, np.ndarray]]], None]

    def make(
        self, root: str | Path, out: str | Path, config: Any, face_model: str | Path, workers: int | None = None
    ) -> int:
        """Pack the set in folder `root` into folder `out`; returns the number of groups (0: it was there already).

        Interrupted, it resumes. workers: processes; default all cores, 0 = this one.

        Raises:
            InputError: nothing to read, no triplet, labels of another face model, or what `report` finds wrong.
        """
        root, out = Path(root), Path(out)
        _face.cache_clear()  # files may have changed since
        data = self.open(root, config, _face(str(face_model)))
        code = code_hash(self.module)
        signature = fingerprint(asdict(config), Path(face_model), code, *self.inputs(data, config))
        try:
            if str(read_pack(out)["signature"]) == signature:
                return 0
        except InputError:
            pass  # none, or damaged: make it anew
        folder = out.with_name(f".{out.name}-{signature}")
        for stale in out.parent.glob(f".{out.name}-*"):
            if stale != folder:
                shutil.rmtree(stale)
        parts = self.chunks(data, config)
        jobs = [(self.rows, part, config, str(face_model), folder / f"part_{i:04d}") for i, part in enumerate(parts)]
        run_pool(_work, jobs, f"{self.name} crops, {self.unit}", workers)
        made = [load_arrays(job[-1], ("skipped",)) for job in jobs]
        self.report(data, config, made)
        count = self._join(root, out, config, signature, [part for part in made if "images" in part])
        for line in [line for part in made for line in part["skipped"].tolist()][:20]:
            log(f"{self.name}: left out {line}")
        shutil.rmtree(folder)
        return count

    def _join(self, root: Path, out: Path, config: Any, signature: str, parts: list[dict[str, np.ndarray]]) -> int:
        """Join the parts into the pack; images piece by piece, because the real sets' do not fit into memory."""
        if not parts:
            raise InputError(root, "no face with a front, a left and a right view")
        rows = [np.flatnonzero(part.get("keep", np.ones(len(part["images"]), bool))) for part in parts]
        joined: dict[str, Any] = {
            name: np.concatenate([part[name][kept] for part, kept in zip(parts, rows, strict=True)])
            for name in (*ROW, "subject")
            if name != "images"
        }
        names, first, group = np.unique(joined["group"], return_index=True, return_inverse=True)
        subjects, group_subject = np.unique(joined["subject"][first], return_inverse=True)
        held = self.validation(subjects.tolist(), config)
        split = np.isin(subjects, sorted(held))[group_subject]
        truth = self.truth(root, held)
        known = [g for g in np.flatnonzero(split) if str(subjects[group_subject[g]]) in truth]
        if known:
            joined["truth"] = np.stack([truth[str(subjects[group_subject[g]])] for g in known])
            joined["truth_group"] = np.array(known)
        images = Pieces([(part["images"], kept) for part, kept in zip(parts, rows, strict=True)])
        joined |= {"images": images, "group": group, "group_subject": group_subject, "split": split}
        write_pack(out, joined | {"subject": subjects, "signature": signature})
        return len(names)

    def command(self, doc: str | None) -> Callable[..., int]:
        """The command line of the pack's module."""

        @command(
            doc,
            argument("--out", help=f"folder; default data/<profile>/triplets/{self.name}"),
            argument("--root", help=f"folder to read; default data.{self.name}.root, or the twin"),
            argument("--face-model", type=Path, default=FACE_MODEL),
            argument("--workers", type=int, help="processes; default all cores, 0 = this one"),
            params=True,
        )
        def main(options: Namespace) -> None:
            params = options.params
            use(params)
            config: Any = from_dict(self.config, section(params, f"data.{self.name}"), f"params.yaml: data.{self.name}")
            out = options.out or pack_path(material(params), self.name)
            root = options.root or data_root(params, self.name)
            groups = self.make(root, out, config, options.face_model, options.workers)
            log(f"{groups} groups packed into {out}" if groups else f"{out} is up to date")

        return main


def pack_path(profile: str, name: str) -> Path:
    """The pack of data set `name`: w300lp or multipie."""
    return Path("data") / profile / "triplets" / name


@lru_cache(maxsize=1)
def _face(path: str) -> FaceModel:
    return FaceModel.load(path)


def _work(job: tuple[Callable[[Any, Any, FaceModel], dict[str, Any]], Any, Any, str, Path]) -> None:
    """Pack one part unless it is there. Runs in a worker process."""
    rows, part, config, face_model, folder = job
    if not folder.is_dir():
        torch.set_num_threads(1)
        save_arrays(folder, rows(part, config, _face(face_model)))
