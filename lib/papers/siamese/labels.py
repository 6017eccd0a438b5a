"""How true the scans are that the Siamese networks learn from, and who is learnt from and tested (`lib.report.labels`).

python -m lib.papers.siamese.labels
"""

from argparse import Namespace

import numpy as np
import torch

from lib.core.arrays import load_arrays
from lib.core.command import command
from lib.core.params import material
from lib.datasets.folder import data_root
from lib.datasets.threedfaw.read import ThreeDFAW
from lib.models.siamese import Siamese3DMM
from lib.papers.siamese.evaluation import oracle
from lib.papers.siamese.face import face_file
from lib.report import labels
from lib.synthesis.people import People, stream

N_MEASURED = 200


@command(__doc__, params=True)
def main(options: Namespace) -> None:
    params, studio = options.params, People.load()
    face = Siamese3DMM.load(face_file(material(params)))
    shard = load_arrays(data_root(params, "train") / "shard_000", ("vertices", "split"))
    rows, index = np.flatnonzero(shard["split"] == 0)[:N_MEASURED], face.face_index.numpy()
    heads = studio.draw(len(shard["split"]), stream("train", params["data"]["train"]["seed"], 0))[1][rows]
    scans = shard["vertices"][rows].astype(np.float32) + studio.mean
    modes = oracle(face, torch.from_numpy(scans)).numpy()
    shapes = {"training scans": scans, f"training scans on the 3DMM's {face.n_modes} modes": modes}
    found: list[labels.Row] = [
        (what, labels.TRUE, labels.true_error(some[:, index], heads[:, index]), "mm", len(rows))
        for what, some in shapes.items()
    ]
    found += labels.encoder_error(params, params["siamese"]["backbone"])
    found += labels.landmark_error(params, "threedfaw", "landmarks that frames are cropped by", studio.mean_landmarks)
    tested = labels.people(params, "threedfaw", ThreeDFAW(data_root(params, "threedfaw")).ids)
    learnt = {"of the training twin": labels.training_people(params)}
    labels.write(params, "siamese", found, {"learnt from": learnt, "tested": {"of 3DFAW-Video": tested}})


if __name__ == "__main__":
    raise SystemExit(main())
