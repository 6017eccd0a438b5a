"""Table 1's rows: which frames they take, and what they predict."""

import torch

from lib.engine.sampling import nearest_views
from lib.models import siamese
from lib.models.siamese import Siamese3DMM
from lib.papers.siamese.evaluation import (
    SubjectViews,
    default_calibration,
    nearest_frames,
    predict_subject,
)
from lib.papers.siamese.training import LONG, RUNS


def test_frames_are_those_nearest_to_front_left_and_right() -> None:
    yaw = torch.tensor([-60.0, -47, -30, 0, 5, 33, 44, 61])
    assert nearest_frames(yaw, 2) == [[3, 1, 6], [4, 0, 5]]
    assert nearest_frames(yaw[:3], 5)[4] == [0, 2, 0]  # more triplets than frames: the last one repeats


def test_views_of_training_are_taken_by_yaw() -> None:
    yaw = torch.tensor([[-50.0, -20, 3, 30, 44], [40, 2, -44, 80, 80]])
    assert nearest_views(yaw).tolist() == [[2, 0, 4], [1, 2, 0]]


def test_every_row_is_predicted_and_averages_are_averages(face: Siamese3DMM) -> None:
    torch.manual_seed(0)
    nets = {run: siamese.build(run.removesuffix(LONG), face, "resnet_tiny").eval() for run in RUNS}
    for p in (q for net in nets.values() for q in net.parameters()):
        p.data += 0.01 * torch.randn_like(p)
    views, other = (
        SubjectViews(name, torch.rand(7, 3, 32, 32), default_calibration(32, 32).repeat(7, 1, 1)) for name in "ab"
    )
    rows = predict_subject(nets, views, other)
    assert set(rows) == {
        "sv_frontal", "sv_mean", "mv_add", "mv_concat", "mv_shape_concat", "mv_shape_concat_mean",
        "sv_side", "sv_avg3", "mv_front3", "mv_other_sides", "sv_long_frontal", "sv_long_mean", "mv_concat_long",
    }  # fmt: skip
    assert all(a.shape == (face.n_modes,) for a in rows.values())
    each = torch.stack([nets["sv"](views.images[[i]][None], views.K[[i]][None]).alpha[0] for i in range(7)])
    assert torch.allclose(rows["sv_mean"], each.mean(0), atol=1e-4)
    assert (each - rows["sv_frontal"]).abs().amax(1).min() < 1e-4
    # the stranger's sides count; with one's own the control is MV Concat
    assert torch.allclose(predict_subject(nets, views, views)["mv_other_sides"], rows["mv_concat"], atol=1e-5)
    assert not torch.allclose(rows["mv_other_sides"], rows["mv_concat"], atol=1e-4)
