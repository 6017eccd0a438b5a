"""Pooling single reconstructions: plain, and by the quality of parts."""

import pytest
import torch

from lib.models.pooling import SEGMENTS, segment_membership, segment_quality, weighted_pool
from lib.morphable.model import FaceModel
from lib.renderers.cameras import WeakPerspectiveCamera, euler_to_matrix


def cameras(yaws: tuple[float, ...]) -> WeakPerspectiveCamera:
    yaw = torch.deg2rad(torch.tensor(yaws))
    zero = torch.zeros_like(yaw)
    n = len(yaws)
    return WeakPerspectiveCamera(torch.full((n,), 1.4), euler_to_matrix(yaw, zero, zero), torch.full((n, 2), 112.0))


def faces_of(model: FaceModel, n: int = 3) -> torch.Tensor:
    return model.vertices(torch.randn(n, 6, generator=torch.Generator().manual_seed(0)))


def marks_of(model: FaceModel, shapes: torch.Tensor, camera: WeakPerspectiveCamera) -> torch.Tensor:
    return camera.project(shapes[:, model.landmarks])[..., :2]


def test_every_inner_landmark_has_one_part_and_membership_is_smooth(face_model: FaceModel) -> None:
    inner = [i for members in SEGMENTS.values() for i in members if i >= 17]
    assert sorted(inner) == list(range(17, 68))
    member = segment_membership(face_model)
    assert torch.allclose(member.sum(1), torch.ones(face_model.n_vertices))
    for i, members in enumerate(SEGMENTS.values()):
        own = member[face_model.landmarks[[m for m in members if m not in (8, 27)]], i]
        assert torch.all(own > 0.4), list(SEGMENTS)[i]
    mirrored = member[face_model.symmetry][:, [1, 0, 2, 3, 5, 4]]
    assert (mirrored - member).abs().max() < 0.02
    edges = face_model.cropped_faces()
    on_face = member[face_model.face_index]
    jump = (on_face[edges[:, 0]] - on_face[edges[:, 1]]).abs().amax(1)
    length = face_model.mean[face_model.face_index]
    far = (length[edges[:, 0]] - length[edges[:, 1]]).norm(dim=1)
    assert torch.all(jump < 0.25 * far + 1e-3)  # no seam


def test_equal_faces_and_equal_views_pool_to_themselves_and_to_the_mean(face_model: FaceModel) -> None:
    shapes, camera = faces_of(face_model), cameras((0.0, -45.0, 45.0))
    same = shapes[:1].expand(3, -1, -1)
    pooled = weighted_pool(face_model, same, camera, marks_of(face_model, same, camera))
    assert torch.allclose(pooled, same[0], atol=1e-3)
    front = cameras((0.0, 0.0, 0.0))
    marks = marks_of(face_model, same, front)
    quality = segment_quality(face_model, same, front, marks)
    assert torch.allclose(quality[0], quality[2])
    pooled = weighted_pool(face_model, shapes, front, marks, posed=same)
    assert torch.allclose(pooled, shapes.mean(0), atol=1e-3)


def test_each_side_is_taken_from_the_view_that_sees_it(face_model: FaceModel) -> None:
    shapes = face_model.mean.expand(2, -1, -1)
    camera = cameras((-45.0, 45.0))  # the first looks to the image's left and shows its image-right cheek
    quality = segment_quality(face_model, shapes, camera, marks_of(face_model, shapes, camera))
    names = list(SEGMENTS)
    left, right = names.index("cheek_image_left"), names.index("cheek_image_right")
    assert quality[0, right] > 1.5 * quality[0, left] and quality[1, left] > 1.5 * quality[1, right]
    assert torch.allclose(quality[0, names.index("nose")], quality[1, names.index("nose")], rtol=0.05)


def test_a_part_that_misses_its_landmarks_counts_less(face_model: FaceModel) -> None:
    shapes, camera = face_model.mean.expand(2, -1, -1), cameras((0.0, 0.0))
    marks = marks_of(face_model, shapes, camera).clone()
    marks[1, 48:68] += torch.tensor([0.0, 1.4 * 6])  # the mouth of the second is 6 mm too high
    quality = segment_quality(face_model, shapes, camera, marks)
    names = list(SEGMENTS)
    mouth, nose = names.index("mouth"), names.index("nose")
    assert torch.isclose(quality[0, mouth] / quality[1, mouth], torch.tensor(1 + 36 / 1.5**2), rtol=1e-3)
    assert torch.isclose(quality[0, nose], quality[1, nose])
    moved = torch.stack([face_model.mean, face_model.mean + torch.tensor([0.0, 0, 10])])
    pooled = weighted_pool(face_model, moved, camera, marks, posed=shapes) - face_model.mean
    lip, tip = face_model.landmarks[57], face_model.landmarks[30]
    assert pooled[lip, 2] < 2.5 < pooled[tip, 2]


def test_wrong_shapes_are_named(face_model: FaceModel) -> None:
    shapes, camera = faces_of(face_model), cameras((0.0, -40.0, 40.0))
    marks = torch.zeros(3, 68, 2)
    for given, said in (
        ((shapes, camera, marks[:2]), "landmarks must be"), ((shapes, camera[:2], marks), "2 cameras"),
        ((shapes[0], camera, marks), "V, N, 3"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            weighted_pool(face_model, *given)
