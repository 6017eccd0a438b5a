"""The landscape and lighting experiments: what they move, how they count, and that refinement minimises what it says."""

import numpy as np
import pandas as pd
import torch

from lib.losses.pose import normalised_pose
from lib.models.mvfnet import MVFPrediction, SelfSupervision, Weights, pose_camera
from lib.papers.mvfnet import figures, landscape, lighting
from lib.renderers.cameras import matrix_to_euler
from tests.losses.test_photo_align import centroid_flow


# --- landscape
def test_each_coordinate_moves_what_it_names(textured):
    t = figures.example(textured, 64, n=2)
    face, camera = textured.model, t.cameras()
    index = face.face_index
    shape = t.vertices[:, index]
    by = torch.tensor([3.0, -2.0])
    for name, step in (("shift x", [1.0, 0.0]), ("shift y", [0.0, 1.0])):
        same, cameras = landscape.moved(face, shape, camera, index, 1, name, by)
        assert same is shape
        expected = torch.zeros(2, 3, 2)
        expected[:, 1] = by[:, None] * torch.tensor(step)
        torch.testing.assert_close((cameras.t2d - camera.t2d).view(2, 3, 2), expected, atol=1e-5, rtol=0)
    _, cameras = landscape.moved(face, shape, camera, index, 2, "yaw", by)
    turned = (matrix_to_euler(cameras.R)[0] - matrix_to_euler(camera.R)[0]).rad2deg().view(2, 3)
    torch.testing.assert_close(turned[:, :2], torch.zeros(2, 2), atol=1e-3, rtol=0)
    torch.testing.assert_close(turned[:, 2], by, atol=0.1, rtol=0)  # about the head's own axis, nearly the image's
    other, cameras = landscape.moved(face, shape, camera, index, 0, "mode 2", by)
    torch.testing.assert_close(other - shape, by[:, None, None] * face.id_basis[1, index], atol=1e-4, rtol=0)
    assert cameras is camera


def table_of(gradients, coordinate="yaw", loss="alignment"):
    """A table of one light from {face: {offset: gradient}}, lowest at the truth."""
    rows = [
        {"light": 0.0, "coordinate": coordinate, "offset": o, "face": f, "view": "front", "loss": loss,
         "value": abs(o), "gradient": g}
        for f, row in gradients.items()
        for o, g in row.items()
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_shares_count_faces_and_positions():
    right = {-2.0: -1.0, -1.0: -1.0, 0.0: 5.0, 1.0: 1.0, 2.0: 1.0}
    once_wrong = right | {1.0: -1.0}
    yaw = table_of({0: right, 1: right, 2: right, 3: once_wrong})
    shift = table_of({0: once_wrong, 1: right, 2: right, 3: right}, "shift x")
    s = landscape.summary(pd.concat([yaw, shift])).set_index("coordinate")
    assert s.loc["yaw", "every"] == 0.75 and s.loc["yaw", "pairs"] == 15 / 16
    assert s.loc["shift and yaw", "every"] == 0.5 and s.loc["shift and yaw", "pairs"] == 30 / 32
    assert s.loc["yaw", "worst"] == s.loc["shift and yaw", "worst"] == 0.75  # one of four faces, at one position
    assert (s["nearest"] == 0).all() and (s["faces"] == 4).all()


def test_a_measured_landscape_has_every_row_and_the_photometric_minimum_is_near_the_truth(textured):
    config = landscape.LandscapeConfig(faces=3, positions=1, lights=(0.0,), shift_px=2.0)
    table = landscape.measure(textured, centroid_flow, config, 64)
    assert len(table) == 3 * 3 * 6 * 2 and not table.isna().any().any()
    assert table["view"].nunique() == 3
    photo = table[(table["loss"] == "photometric") & (table["coordinate"] == "shift x")]
    at = photo.pivot_table(index="face", columns="offset", values="value")
    assert (at[0.0] < at[-2.0]).all() and (at[0.0] < at[2.0]).all()
    pd.testing.assert_frame_equal(table, landscape.measure(textured, centroid_flow, config, 64))


# --- lighting
def answer(alpha, beta, pose):
    return MVFPrediction(alpha, beta, pose_camera(pose, 64), pose)


def start_at(t, textured, k=10):
    camera = t.cameras()
    pose = normalised_pose(camera, t.images.shape[-1]).view(len(t.images), 3, 6)
    return answer(torch.zeros(len(pose), k), torch.zeros(len(pose), 4), pose)


def test_refinement_minimises_and_treats_each_triplet_by_itself(textured):
    config = lighting.LightingConfig(subjects=3, prior=0.1)
    t = lighting.people_at(textured, config, 64, 0.0)
    start = start_at(t, textured)
    criterion = SelfSupervision(textured.model, None, Weights(lambda_6=30.0, lambda_7=0.0), 64)
    whole = lighting.refine(criterion, start, t.images, t.landmarks, config, 12)
    for name in ("alpha", "beta", "pose"):
        assert bool((getattr(whole, name) != getattr(start, name)).any())
    rows = torch.tensor([1])
    one_start = answer(start.alpha[rows], start.beta[rows], start.pose[rows])
    one = lighting.refine(criterion, one_start, t.images[rows], t.landmarks[rows], config, 12)
    torch.testing.assert_close(one.alpha, whole.alpha[rows], atol=2e-2, rtol=0)

    def loss(e):
        shape = textured.model.vertices(e.alpha, e.beta)
        terms = criterion.terms(shape, pose_camera(e.pose, 64), t.images, t.landmarks)
        return float(sum(criterion.weighted(terms).values()))

    assert loss(whole) < 0.8 * loss(start)
    errors = [lighting.identity_error(textured.model, e.alpha, t.neutral).mean() for e in (start, whole)]
    assert errors[1] < errors[0]


def test_the_table_has_every_arm_and_level(textured, monkeypatch):
    config = lighting.LightingConfig(subjects=2, warmup=1, steps=2, levels=(0.0, 1.0), batch_size=1)
    sets = {level: lighting.people_at(textured, config, 64, level) for level in config.levels}

    class Network(torch.nn.Module):
        def forward(self, images):
            n = len(images)
            return answer(torch.zeros(n, 10), torch.zeros(n, 4), torch.zeros(n, 3, 6))

    rows = lighting.compare_losses(Network(), 0, centroid_flow, sets, textured.model, config, Weights())
    rows += lighting.compare_networks({("v1", 0): Network()}, sets, textured.model)
    table = pd.DataFrame(rows)
    assert list(table) == ["method", "seed", "subject", "level", "part", "metric", "value"]
    assert len(table) == 2 * 2 * (len(lighting.ARMS) + 2) + 2 * 2
    start, network = (table[(table["method"] == m) & (table["level"] == 0)]["value"] for m in ("start", "v1"))
    np.testing.assert_allclose(start, network)


# --- figures
def test_flow_colours():
    flow = torch.zeros(2, 1, 4)
    flow[0, 0] = torch.tensor([0.0, 2.0, -2.0, 8.0])
    none, right, left, far = figures.flow_colours(flow, 2.0)[:, 0].T
    assert (none == 1).all()  # nothing moves: white
    assert right[0] > 0.95 and right[1:].max() < 0.1  # to the right: red
    assert left[0] < 0.1 and left[2] > 0.5  # to the left: cyan to blue
    torch.testing.assert_close(far, right)  # longer than the scale: as its end


def test_figures_are_written(textured, tmp_path):
    config = landscape.LandscapeConfig(faces=3, positions=1)
    table = landscape.measure(textured, centroid_flow, config, 64)
    back = landscape.render_back(textured, 2, 64)
    figures.write_landscape(tmp_path, table, landscape.summary(table), back, textured, centroid_flow, 64)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(figures.LANDSCAPE_FIGURES)
    words = figures.shares_in_words(landscape.summary(table))
    assert "same light in all views" in words and "photometric" in words and "% of single" in words


def test_lighting_is_drawn_and_paired():
    values = {
        ("v1", "networks"): 2.0,
        ("v4", "networks"): 1.5,
        ("photometric", "losses"): 1.4,
        ("photometric + alignment", "losses"): 1.1,
    }
    rows = [
        {"method": m, "seed": seed, "subject": f"{s:03d}", "level": level, "part": part, "metric": "true_p2p", "value": v + 0.1 * s}
        for (m, part), v in values.items()
        for seed in (0, 1)
        for s in range(3)
        for level in (0.0, 1.0)
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    assert len(figures.lighting_curves(table).axes) == 2
    found = figures.lighting_differences(table).set_index(["first", "second", "level"])["difference"]
    np.testing.assert_allclose(found["photometric", "photometric + alignment"], 0.3)
    np.testing.assert_allclose(found["v1", "v4"], 0.5)
