"""One face of every twin as its reader sees it, and the bounds of both papers on tiny twins."""

import csv
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lib.core.files import save_npz_atomic
from lib.datasets.micc import twin as make_micc_twin
from lib.datasets.micc.read import Micc
from lib.datasets.multipie import twin as make_multipie_twin
from lib.datasets.multipie.read import MultiPie
from lib.datasets.threedfaw import twin as make_3dfaw_twin
from lib.datasets.threedfaw.read import ThreeDFAW
from lib.datasets.training.twin import TrainingSetConfig, make_shard
from lib.datasets.w300lp import twin as make_300wlp_twin
from lib.datasets.w300lp.read import W300LP
from lib.engine.pretraining.flow_pairs import FlowPairs, photograph_people
from lib.evaluate import Predictions, measure
from lib.morphable.model import FaceModel
from lib.papers.mvfnet import evaluation as mvfnet_eval
from lib.papers.siamese import evaluation as siamese_eval
from lib.papers.siamese.face import build
from lib.synthesis.people import People
from tests.golden.conftest import Golden
from tests.golden.digest import digest, thumbnail
from tests.packs import make_pack

FACE_MODEL = "data/face_model.npz"
MARKS = [8, 30, 36, 45, 57]  # chin, nose, outer corners of the eyes, lower lip


@pytest.fixture(scope="module")
def people(face_model_files: Path) -> People:
    return People.load(face_model_files / "face_model.npz")


@pytest.fixture
def folder(face_model_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with the face model in it."""
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    for name in ("face_model.npz", "population.npz"):
        Path("data", name).symlink_to(face_model_files / name)
    return tmp_path


def pin(golden: Golden, twin: str, pictures: Sequence[Any], marks: Any, numbers: dict[str, Any]) -> None:
    """Pictures (H, W, 3) of 0..255 by thumbnails, which may differ by half a grey level; landmarks by a few of them, px."""
    golden(f"twin of {twin}: pictures", {
        f"{i}, {'x'.join(map(str, np.shape(picture)))}": thumbnail(picture) for i, picture in enumerate(pictures)
    }, rtol=0, atol=0.5)  # fmt: skip
    golden(f"twin of {twin}: landmarks", {"px": np.asarray(marks)[:, MARKS].round(4)}, rtol=0, atol=2e-3)
    golden(f"twin of {twin}: numbers", numbers, rtol=1e-4)


def test_training_set(golden: Golden, people: People) -> None:
    config = TrainingSetConfig(n_subjects=2, n_views=3, image_size=48, shard_size=2, seed=3)
    shard = make_shard(people, config, 0)
    numbers = {"keys": ", ".join(f"{k} {v.dtype} {v.shape}" for k, v in shard.items() if k != "subject")}
    numbers |= {k: digest(shard[k]) for k in ("K", "R", "t", "yaw", "vertices", "size")}
    pin(golden, "training", shard["images"][0], shard["landmarks"][0], numbers | {"subject": str(shard["subject"][0])})


def test_3dfaw(golden: Golden, folder: Path) -> None:
    config = make_3dfaw_twin.TwinConfig(n_subjects=1, frames=3, frame_size=128, seed=1)
    make_3dfaw_twin.make_twin("twin", config, FACE_MODEL, workers=0)
    (subject,) = ThreeDFAW("twin")
    frames = subject.frames
    numbers = scan_numbers(subject) | {k: digest([getattr(f, k) for f in frames]) for k in ("K", "R", "t", "yaw")}
    numbers["frames"] = ", ".join(f"{f.camera} {f.path.name}" for f in frames)
    pictures = [np.asarray(Image.open(f.path)) for f in frames[::2]]
    pin(golden, "3DFAW-Video", pictures, [f.landmarks2d for f in frames], numbers)


def test_micc(golden: Golden, folder: Path, people: People) -> None:
    config = make_micc_twin.MiccTwinConfig(n_subjects=1, frames=7, frame_size=128, seed=1)
    make_micc_twin.make_twin("twin", config, FACE_MODEL, workers=0)
    (subject,) = Micc("twin", mean_landmarks=people.mean_landmarks)
    frames = [frame for triplet in subject.triplets.values() for frame in triplet]
    numbers = scan_numbers(subject) | {"landmarks": digest(subject.landmarks68)}
    numbers["frames"] = ", ".join(f"{f.condition} {f.name}" for f in frames)
    pin(golden, "MICC", [f.image() for f in frames], [f.landmarks2d for f in frames], numbers)


def scan_numbers(subject: Any) -> dict[str, Any]:
    """Scan and truth of a subject, without the truth's signature, which changes with every line of code."""
    scan = {"scan": digest(subject.scan.vertices), "size": [len(subject.scan.vertices), len(subject.scan.faces)]}
    scan["marked"] = subject.scan.vertices[subject.landmarks51[subject.landmarks51 >= 0]][:3]
    true = {f"true {k}": digest(v) for k, v in sorted(subject.truth.items()) if v.dtype.kind == "f"}
    return scan | true


def test_multipie(golden: Golden, folder: Path) -> None:
    cameras = ("080", "051", "190")
    config = make_multipie_twin.MultiPieConfig(n_subjects=2, cameras=cameras, instants=1, lights=1, seed=1)
    make_multipie_twin.make_twin("twin", config, FACE_MODEL, workers=0)
    group, views = next(iter(MultiPie("twin", cameras)))
    numbers = {
        "group": f"{group.subject} {group.session} {group.recording} {group.light}",
        "views": ", ".join(f"{v.path.name} {v.side}" for v in views),
    }
    numbers["neutral"] = digest(np.load(f"twin/truth/{group.subject}.npz")["neutral"])
    pin(golden, "Multi-PIE", [v.image for v in views], [v.landmarks for v in views], numbers)


def test_300wlp(golden: Golden, folder: Path, people: People) -> None:
    config = make_300wlp_twin.W300LPConfig(n_faces=1, n_views=3, n_id=20, n_exp=8, seed=1)
    make_300wlp_twin.make_twin("twin", config, FACE_MODEL, workers=0)
    (face,) = W300LP("twin", people.mean_landmarks, strict=True)
    labels = [view.label for view in face.views]
    numbers = {"views": ", ".join(view.path.name for view in face.views)}
    numbers |= {k: digest([getattr(label, k) for label in labels]) for k in ("scale", "R", "t2d", "yaw")}
    numbers |= {k: digest(getattr(labels[0], k)) for k in ("shape", "expression")}
    pin(golden, "300W-LP", [v.image() for v in face.views], [label.landmarks for label in labels], numbers)


def test_flow_pairs(golden: Golden, people: People) -> None:
    photos = photograph_people(people, 2, 64, seed=0)
    batch = FlowPairs(photos, people).batch(3, np.random.default_rng(3))
    picture = [255 * np.moveaxis(image.numpy(), 0, -1) for image in (batch.image1[0], batch.image2[0], batch.image1[1])]
    people_px = [np.moveaxis(image.numpy(), 0, -1) for image in photos.images[0]]
    golden("flow pairs: pictures", {
        f"{i}": thumbnail(p) for i, p in enumerate([*picture, *people_px])
    }, rtol=0, atol=0.5)  # fmt: skip
    # where a pixel on the outline falls to the other side, a flow changes by pixels
    golden("flow pairs: numbers", {
        "motion": batch.motion(), "face": batch.face.float().mean((1, 2)), "seen": batch.seen.float().mean((1, 2)),
        "static": batch.static.float(), "flow": (batch.flow * batch.seen[:, None]).mean((2, 3)), "camera": digest(photos.t2d),
    }, rtol=5e-3)  # fmt: skip


def errors(params: dict[str, Any], paper: str, predictions: Predictions) -> dict[str, Any]:
    """What `lib.evaluate` writes of predictions: method and measure -> errors by subject."""
    measure(params, paper, predictions, 0, workers=1)
    found = defaultdict(list)
    for method in predictions:
        with open(f"results/{paper}/smoke/errors/{method}-s0.csv", newline="") as stream:
            for row in csv.DictReader(stream):
                found[f"{method}, {row.get('condition', '')} {row['metric']}"].append(float(row["value"]))
    return found


def test_bounds_of_siamese(golden: Golden, folder: Path, face_model: FaceModel, people: People) -> None:
    shapes = people.draw(40, np.random.default_rng(0))[1].astype(np.float32)
    index = face_model.face_index.numpy()
    arrays = build(shapes, face_model.symmetry.numpy(), index, 12, np.ones(len(people.mean), np.float32))
    arrays |= {"faces": people.faces, "landmarks": people.landmarks, "face_index": index}
    save_npz_atomic(Path("data/smoke/siamese_3dmm.npz"), **arrays)
    config = make_3dfaw_twin.TwinConfig(n_subjects=2, frames=1, frame_size=32)
    make_3dfaw_twin.make_twin("data/smoke/3dfaw", config, FACE_MODEL, workers=0)
    params = {"profile": "smoke", "data": {"threedfaw": {"root": None}}}
    params["siamese"] = {"protocols": ["true_p2p", "armse", "p2point", "p2plane", "p2mesh"]}
    found = errors(params, "siamese", siamese_eval.bounds(params))
    rigid = {name: found.pop(name) for name in list(found) if name.split()[-1] in ("p2point", "p2plane", "p2mesh")}
    golden("bounds of Siamese", found)
    golden("bounds of Siamese, rigid", rigid, rtol=1e-2)  # rounding decides at which of several rests this ICP ends


def test_bounds_of_mvfnet(golden: Golden, folder: Path, face_model: FaceModel) -> None:
    make_pack(face_model, Path("data/smoke/triplets/multipie"), n=12, size=64, n_id=30, n_exp=6)
    config = make_micc_twin.MiccTwinConfig(n_subjects=3, frames=5, frame_size=64, seed=2)
    make_micc_twin.make_twin("data/smoke/micc", config, FACE_MODEL, workers=0)
    params: dict[str, Any] = {"profile": "smoke", "data": {"micc": {"root": None, "n_subjects": 3, "seed": 2}}}
    params["mvfnet"] = {
        "image_size": 64,
        "n_id": 30,
        "n_exp": 6,
        "protocols": ["true_p2p", "micc_p2plane", "micc_p2plane_global"],
    }
    params["photos"] = {"detector": "auto"}
    found = errors(params, "mvfnet", mvfnet_eval.bounds(params))
    new = {name: found.pop(name) for name in list(found) if "landmark_fit" in name or "Multi-PIE" in name}
    golden("bounds of MVF-Net", found)
    golden("bounds of MVF-Net, landmarks and Multi-PIE", new, rtol=1e-3)
