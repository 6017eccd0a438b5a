"""The 300W-LP twin: photographs of synthetic people, conventional fits as labels, side views by face profiling.

    python -m lib.datasets.w300lp.twin --params params.yaml

writes data/<profile>/300W_LP/ in the layout of the real set:

    {AFW,HELEN,IBUG,LFPW}/X_<step>.jpg + X_<step>.mat   450 x 450 px; step 0 is the photograph
    landmarks/<subset>/X_<step>_pts.mat                 pts_2d: visible outline, pts_3d: points that stay on the jaw
    Code/ModelGeneration/Model_Shape.mat                sigma (K, 1): Shape_Para / sigma are standard deviations
    truth/shard_000.npz                                 twin only: the true neutral heads, for validation

What makes this set what it is: a label is the landmark fit of the face model to *one* photograph with an annotator's errors,
never the truth, and a side view is that photograph turned through the *fitted* mesh. Whoever learns from it learns those
fits. Unlike in the real set every photograph is turned to both sides, so no _Flip folders are needed. Exp_Para is in standard
deviations. People come from random streams that no other set uses. An interrupted run resumes.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch

from lib.core.arrays import save_mat
from lib.core.errors import InputError
from lib.core.files import atomic_path, save_npz_atomic
from lib.core.params import Count, Field, checked
from lib.datasets.folder import FOLDERS
from lib.datasets.pose_label import SIZE, camera_to_pose, pose_rotation
from lib.datasets.w300lp.profiling import Profiler, turned_camera
from lib.datasets.w300lp.read import SHAPE_MODEL, SUBSETS, W300LP
from lib.fit.single import fit_labels
from lib.landmarks.contour import contour_on_outline
from lib.morphable.model import FaceModel
from lib.synthesis.backdrop import sample_backdrops
from lib.synthesis.light import sample_lights
from lib.synthesis.people import People, stream
from lib.synthesis.scene import detector_noise, sample_cameras
from lib.synthesis.sensor import sample_sensors
from lib.synthesis.twin import Part, Twin

SHARD = 20  # faces that one job makes
PHOTO_YAW = 10.0  # degrees; the real set's photographs are turned farther too, but make no front views then
SIDES = (25.0, 60.0)  # degrees of |yaw| that side views are spread over
YAW_STEP = 5.0

_NAMES = {
    "AFW": "AFW_{0:06d}_1",
    "HELEN": "HELEN_{0:08d}_1",
    "IBUG": "IBUG_image_{0:03d}_1",
    "LFPW": "LFPW_image_train_{0:04d}",
}
_SHARES = {"AFW": 0.09, "HELEN": 0.61, "IBUG": 0.03, "LFPW": 0.27}  # of the real set's images


EXPRESSION = 0.6
"""Strength of the expressions: 300-W's photographs are from the web, where people smile and talk."""


@checked
class W300LPConfig:
    """Section data.w300lp of params.yaml.

    Attributes:
        root: the real set; then nothing is synthesised. labels: "file": Shape_Para and Exp_Para of the .mat (their
            model must be ours: the twin), "refit": our model fitted to pt2d (the real set without its licensed model).
        n_faces, n_views: of the twin; views a face, the photograph included.
        image_size: px of the network's input, of the pack. n_id, n_exp: components of the label fits.
    """

    n_faces: Count
    n_views: Annotated[int, Field(ge=3)] = 5
    image_size: Annotated[int, Field(ge=16)] = 64
    root: str | None = None
    labels: Literal["file", "refit"] = "file"
    n_id: Count = 80
    n_exp: Count = 29
    seed: int = 0

    @property
    def n_shards(self) -> int:
        """How many jobs make all faces."""
        return -(-self.n_faces // SHARD)


def face_name(config: W300LPConfig, index: int) -> str:
    """ "<subset>/<photograph>" of face `index`, named as the real set names its photographs; shares are the real ones."""
    place = (np.random.default_rng([config.seed, 300]).permutation(config.n_faces)[index] + 0.5) / config.n_faces
    subset = SUBSETS[int(np.searchsorted(np.cumsum([_SHARES[s] for s in SUBSETS])[:-1], place, side="right"))]
    return f"{subset}/{_NAMES[subset].format(index + 1)}"


def step_yaws(yaw: float, n_views: int, rng: np.random.Generator) -> list[tuple[int, float]]:
    """Side views of a photograph at `yaw` degrees: (step, yaw), in multiples of 5 degrees outwards, spread over `SIDES`.

    Steps count the rotations to the left first, then those to the right, as file names must not repeat.
    """
    out = []
    total = n_views - 1
    first = rng.integers(0, 2)  # who gets the odd one
    offset = 0
    for side, sign in enumerate((-1, 1)):
        count = total // 2 + (total % 2 and side == first)
        steps = np.arange(1, int((SIDES[1] + abs(yaw)) / YAW_STEP) + 2)
        reached = sign * yaw + YAW_STEP * steps
        edges = np.linspace(*SIDES, count + 1)
        for low, high in pairwise(edges):
            k = int(rng.choice(steps[(reached >= low) & (reached < high)]))
            out.append((offset + k, yaw + sign * YAW_STEP * k))
        offset += len(steps)
    return out


@dataclass
class Shard:
    """S faces of the twin: photographs (S, 450, 450, 3), annotated landmarks (S, 68, 2) px, true neutral (S, N, 3) mm."""

    names: list[str]
    images: np.ndarray
    landmarks: np.ndarray
    neutral: np.ndarray


def photograph_faces(people: People, config: W300LPConfig, index: int) -> Shard:
    """The photographs of shard `index`, and where an annotator would put the landmarks; a pure function."""
    rng = stream("w300lp", config.seed, index)
    first = index * SHARD
    n = min(SHARD, config.n_faces - first)
    _, neutral, albedo = people.draw(n, rng)
    expression, _ = people.population.expressions(n, rng, strength=EXPRESSION)
    heads = (neutral + expression).astype(np.float32)
    yaw = rng.uniform(-PHOTO_YAW, PHOTO_YAW, n)
    cameras = sample_cameras(yaw, rng, SIZE, fov=(20.0, 55.0), fill=(0.42, 0.52), shift_std=0.025)
    images, _ = people.studio.shoot(
        heads, albedo, cameras, sample_lights(n, rng), sample_backdrops(n, rng), sample_sensors(n, rng), SIZE
    )
    screen = cameras.project(heads)
    scale = cameras.K[:, 0, 0] / screen[:, people.landmarks, 2].mean(1)
    visible = contour_on_outline(people.model, torch.from_numpy(screen)).numpy()
    return Shard(
        names=[face_name(config, i) for i in range(first, first + n)],
        images=images,
        landmarks=detector_noise(visible, scale, rng),
        neutral=neutral,
    )


def label_sigma(face: FaceModel, n_id: int) -> np.ndarray:
    """sigma (n_id,) of Shape_Para: standard deviations in micrometres along the unit vectors of the identity basis."""
    return 1000 * face.id_var[:n_id].double().sqrt().numpy()


def _write(part: Part) -> None:
    """Everything of one shard."""
    people, config, index = part.people, part.config, part.index
    shard = photograph_faces(people, config, index)
    fit = fit_labels(people.model, torch.from_numpy(shard.landmarks).double(), config.n_id, config.n_exp)
    heads = people.model.vertices(fit.alpha.float(), fit.beta.float())
    profiler = Profiler(people.faces, people.model.face_index.numpy(), SIZE)
    for i, name in enumerate(shard.names):
        rng = stream("w300lp", config.seed, index, i)
        camera = fit.camera[i : i + 1]
        pose = camera_to_pose(camera)
        steps = step_yaws(-float(torch.rad2deg(pose[0, 1])), config.n_views, rng)
        angles = [torch.tensor([pose[0, 0], -np.radians(yaw), pose[0, 2]]) for _, yaw in steps]
        targets = [turned_camera(camera, pose_rotation(a).numpy()) for a in angles]
        turned = profiler(shard.images[i], heads[i].numpy(), camera, targets)
        parameters = _parameters(people.model, fit.alpha[i], fit.beta[i], rng)
        views = zip([0, *(step for step, _ in steps)], [camera, *targets], [shard.images[i], *turned], strict=True)
        for step, view, image in views:
            screen = view.project(heads[i : i + 1].double())
            points = contour_on_outline(people.model, screen)[0] if step else torch.from_numpy(shard.landmarks[i])
            content = {"pt2d": points.double().numpy().T + 0.5, "Pose_Para": camera_to_pose(view).float().numpy()}
            fixed = screen[0, people.model.landmarks, :2].numpy() + 0.5
            pts = {"pts_2d": content["pt2d"].T.astype(np.float32), "pts_3d": fixed.astype(np.float32)}
            _write_view(part.folder, name, step, image, content | parameters, pts)
    save_npz_atomic(
        part.folder / "truth" / f"{part.name}.npz",
        name=np.array(shard.names),
        neutral=(shard.neutral - people.mean).astype(np.float16),
    )


def _parameters(
    face: FaceModel, alpha: torch.Tensor, beta: torch.Tensor, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """What all views of a face share: shapes, dtypes and magnitudes as in the real files."""
    corner = rng.integers(-150, 200, 2)
    illumination = [0.8, 0.8, 0.8, 0.6, 0.6, 0.6, *rng.normal(0, 0.5, 2), 0, 20]
    return {
        "Shape_Para": (alpha.numpy() * label_sigma(face, len(alpha)))[:, None],
        "Exp_Para": beta.double().numpy()[:, None],
        "Tex_Para": np.zeros((199, 1)),
        "roi": np.array([[*corner, *(corner + SIZE)]], np.int16),
        "Illum_Para": np.array([illumination]),
        "Color_Para": np.array([[1, 1, 1, 0, 0, 0, 1]], np.float32),
    }


def _write_view(
    root: Path, name: str, step: int, image: np.ndarray, content: dict[str, np.ndarray], pts: dict[str, np.ndarray]
) -> None:
    """One image with its two .mat files."""
    from PIL import Image

    subset, photo = name.split("/")
    with atomic_path(root / subset / f"{photo}_{step}.jpg") as temporary:
        Image.fromarray(image).save(temporary, "JPEG", quality=92)
    save_mat(root / subset / f"{photo}_{step}.mat", content)
    save_mat(root / "landmarks" / subset / f"{photo}_{step}_pts.mat", pts)


def _shape_model(root: Path, config: W300LPConfig, face_model: Path) -> None:
    face = FaceModel.load(face_model)
    if config.n_id > face.n_id or config.n_exp > face.n_exp:
        most = f"at most {face.n_id} n_id and {face.n_exp} n_exp, which is what {face_model} has"
        raise InputError("data.w300lp", most)
    save_mat(root / SHAPE_MODEL, {"sigma": label_sigma(face, config.n_id)[:, None]})


def _count(config: W300LPConfig, face_model: Path) -> str:
    face = FaceModel.load(face_model)
    return f"{len(W300LP(str(config.root), face.mean[face.landmarks].numpy()))} faces"


TWIN = Twin(
    module="lib.datasets.w300lp.twin",
    section="data.w300lp",
    folder=FOLDERS["w300lp"],
    config=W300LPConfig,
    unit=f"shards of {SHARD} faces",
    parts=lambda config: [f"shard_{i:03d}" for i in range(config.n_shards)],
    write=_write,
    count=_count,
    common=_shape_model,
    of_readers=("image_size", "labels"),
)
make_twin = TWIN.make
main = TWIN.command(__doc__)


if __name__ == "__main__":
    raise SystemExit(main())
