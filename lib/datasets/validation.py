"""Validation triplets: other people, photographed otherwise than those that networks learn from.

    python -m lib.datasets.validation

writes data/<profile>/triplets/validation (`lib.datasets.pack`), on which steps, rates, priors and augmentation are chosen. A set
photographed as the training set is prefers settings that do not carry over: here cameras are nearer, blur and noise
stronger, each view has a flash of its own, and faces move. Nobody of these people is in a training or a test set.
"""

from argparse import Namespace
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch.nn.functional import pad

from lib.core.code import code_hash
from lib.core.command import command
from lib.core.files import fingerprint
from lib.core.params import Count, Field, Fraction, NonNegative, checked, from_dict, material, section
from lib.datasets.pack import margin, pack_path, write_pack
from lib.fit.single import LabelFitOptions, fit_labels
from lib.morphable.model import FACE_MODEL
from lib.renderers.rasterize import use
from lib.synthesis.people import People
from lib.synthesis.triplets import N_VIEWS, render_triplets


@checked
class ValidationConfig:
    """Section data.validation of params.yaml.

    distance: mm, nearest and farthest camera. wear: see `render_triplets`. expression: strength. light: difference between the
    views. image_size: px of the network's input, and n_id, n_exp: components of the label fits.
    """

    n_subjects: Annotated[int, Field(ge=2)]
    distance: tuple[float, float] = (600.0, 900.0)
    wear: NonNegative = 3.0
    expression: NonNegative = 0.6
    light: Fraction = 0.5
    image_size: Annotated[int, Field(ge=16)] = 64
    n_id: Count = 80
    n_exp: Count = 29
    seed: int = 0


def make(config: ValidationConfig, out: Path, face_model: Path = FACE_MODEL) -> None:
    """Render the triplets and write their pack, of one split: every subject is of the split val."""
    people, n = People.load(face_model), config.n_subjects
    studio = render_triplets(
        people,
        n,
        np.random.default_rng([config.seed, 2026, 11]),
        config.light,
        size=config.image_size,
        expression=config.expression,
        distance=config.distance,
        wear=config.wear,
    )
    border = margin(config.image_size)  # nobody shifts these windows: what stands beyond them is never seen
    images = pad(studio.images.flatten(0, 1), (border,) * 4, mode="replicate").permute(0, 2, 3, 1)
    landmarks = studio.landmarks.flatten(0, 1)
    fit = fit_labels(people.model, landmarks.double(), config.n_id, config.n_exp, LabelFitOptions(contour="fixed"))
    rows = {"alpha": fit.alpha, "beta": fit.beta, "quality": fit.residual_mm, "yaw": studio.yaw.flatten()}
    rows |= {"scale": studio.scale.flatten(), "R": studio.R.flatten(0, 1), "t2d": studio.t2d.flatten(0, 1) + border}
    arrays: dict[str, Any] = {name: value.float().numpy() for name, value in rows.items()}
    arrays |= {"images": (images * 255).round().to(torch.uint8).numpy(), "landmarks": (landmarks + border).numpy()}
    arrays |= {
        "side": np.tile(np.arange(N_VIEWS), n),
        "light": np.zeros(n * N_VIEWS),
        "group": np.arange(n).repeat(N_VIEWS),
    }
    arrays |= {"group_subject": np.arange(n), "split": np.ones(n), "subject": np.array([f"{i:03d}" for i in range(n)])}
    arrays |= {"truth": studio.neutral.numpy() - people.mean, "truth_group": np.arange(n)}
    signature = fingerprint(asdict(config), face_model, code_hash("lib.datasets.validation"))
    write_pack(out, arrays | {"signature": signature})


@command(__doc__, params=True)
def main(options: Namespace) -> None:
    params = options.params
    use(params)
    torch.set_num_threads(1)
    where = "params.yaml: data.validation"
    config = from_dict(ValidationConfig, section(params, "data.validation"), where)
    make(config, pack_path(material(params), "validation"))


if __name__ == "__main__":
    raise SystemExit(main())
