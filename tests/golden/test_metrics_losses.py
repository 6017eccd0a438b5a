"""Metrics of fixed meshes; losses of fixed tensors and their gradients."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lib.losses.alignment import alignment_loss, both_flows, fill_outside, flow_magnitude
from lib.losses.coefficients import coefficient_loss, regularisation
from lib.losses.landmark import landmark_loss, landmark_weights
from lib.losses.photometric import photometric_loss
from lib.losses.pose import normalised_pose, pose_loss
from lib.losses.reprojection import reprojection_loss
from lib.metrics.protocols import PROTOCOLS, evaluate_detailed
from lib.metrics.similarity import Similarity
from lib.models.flow.load import build_flow
from lib.models.mvfnet import SelfSupervision, Weights
from lib.models.peers.genova import batch_distribution, identity, loopback
from lib.models.peers.mofa import dense_photometric, statistical_regularisation
from lib.models.peers.tran import asymmetric_euclidean
from lib.morphable.model import FaceModel
from lib.renderers.cameras import WeakPerspectiveCamera, euler_to_matrix
from lib.renderers.texture import fill_texture
from tests.golden.conftest import Golden
from tests.golden.digest import digest
from tests.losses.scenes import scene
from tests.losses.test_photo_align import boxes, centroid_flow
from tests.metrics.shapes import rotation
from tests.metrics.test_protocols import Case
from tests.renderers.reference import cameras, sphere


def test_metrics(golden: Golden) -> None:
    case = Case(noise=0.05, wobble=1.5)
    moved = Similarity(1.03, rotation((1, -2, 0.5), 25), np.array([5.0, -8, 30]))(case.vertices)
    outcomes = evaluate_detailed(moved, case.faces, case.marks, case.scan, case.truth, case.index, list(PROTOCOLS))
    found: dict[str, Any] = {}
    for name, outcome in outcomes.items():
        measured = outcome.errors[np.isfinite(outcome.errors)]
        found[name] = [outcome.value, outcome.scale, len(measured), *(digest(measured) if len(measured) else [])]
        found[f"{name}, in words"] = str(PROTOCOLS[name])
    golden("metrics", found, rtol=1e-6)


def draws(*shapes: tuple[int, ...], seed: int) -> list[Tensor]:
    """Standard normal tensors in double precision; a stream of numpy's, which no version of torch changes."""
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(rng.normal(size=shape)) for shape in shapes]


def graded(loss: Callable[..., Tensor], *leaves: Tensor) -> list[float]:
    """A loss's sum, then a digest of each gradient."""
    leaves = tuple(leaf.clone().requires_grad_() for leaf in leaves)
    value = loss(*leaves).sum()
    gradients = torch.autograd.grad(value, leaves)
    return [float(value.detach()), *(x for g in gradients for x in digest(g))]


def angles_camera(scale: Tensor, angles: Tensor, t2d: Tensor) -> WeakPerspectiveCamera:
    return WeakPerspectiveCamera(0.4 + 0.02 * scale, euler_to_matrix(*(0.3 * angles).unbind(-1)), 32 + t2d)


def test_losses_of_numbers(golden: Golden) -> None:
    a, b, c = draws((4, 7), (4, 5), (4, 3), seed=0)
    ta, tb = draws((4, 7), (4, 5), seed=1)
    pose, target = draws((4,), (4, 3), (4, 2), seed=2), draws((4,), (4, 3), (4, 2), seed=3)
    points, marks = (16 + 4 * x for x in draws((2, 3, 68, 2), (2, 3, 68, 2), seed=4))
    vertices, _ = sphere(6, 8, bumps=0.2)
    shape, shape_hat = (vertices.double() + 3 * x for x in draws((2, len(vertices), 3), (2, len(vertices), 3), seed=5))
    camera, camera_hat = cameras(6, 64, torch.float64)[0], cameras(6, 64, torch.float64)[0]
    camera_hat.R, camera_hat.t = camera.R.flip(0), camera.t + 2
    image, uv, colours = draws((2, 3, 16, 16), (2, 20, 2), (2, 20, 3), seed=6)
    seen = draws((2, 20), seed=7)[0] > 0
    found = {
        "coefficients": graded(lambda x, y: coefficient_loss(x, y, ta, tb), a, b),
        "regularisation": graded(regularisation, a, b),
        "pose": graded(lambda *x: pose_loss(angles_camera(*x), angles_camera(*target), 64), *pose),
        "pose, normalised": digest(normalised_pose(angles_camera(*pose), 64)),
        "landmark": graded(lambda x: landmark_loss(x, marks, 32), points),
        "landmark, contour": graded(lambda x: landmark_loss(x, marks, 32, landmark_weights(0.3)), points),
        "reprojection": graded(lambda x: reprojection_loss(shape, camera, x, camera_hat, 3), shape_hat),
        "genova, batch": graded(batch_distribution, a, b),
        "genova, identity": graded(identity, a, ta),
        "genova, loopback": graded(loopback, a, ta),
        "mofa, dense": graded(lambda i, u, k: dense_photometric(i, 8 + 2 * u, k, seen), image, uv, colours),
        "mofa, statistical": graded(lambda *x: statistical_regularisation(*x, 0.8, 0.017), a, b, c),
        "tran": graded(lambda x: asymmetric_euclidean(x, ta), a),
        "tran, other weights": graded(lambda x: asymmetric_euclidean(x, ta, 2.0, 5.0), a),
    }
    golden("losses of numbers", found, rtol=1e-7)


def test_losses_of_images(golden: Golden) -> None:
    observed, rendered = (0.5 + 0.2 * x for x in draws((2, 3, 16, 16), (2, 3, 16, 16), seed=8))
    masks = boxes((2, 9), (0, 14)), boxes((4, 13), (3, 16))
    found: dict[str, Any] = {
        "photometric": graded(lambda x: photometric_loss(observed, x, *masks), rendered),
        "photometric, each": photometric_loss(observed, rendered, *masks),
        "alignment": graded(lambda x: alignment_loss(centroid_flow, observed, x, *masks), rendered),
        "alignment, each": alignment_loss(centroid_flow, observed, rendered, *masks),
        "flow": digest(torch.stack(both_flows(centroid_flow, observed, rendered))),
        "flow magnitude": flow_magnitude(observed[:, :2]),
        "filled": digest(fill_outside(rendered, masks[1])),
        "texture": digest(fill_texture(64)),
    }
    golden("losses of images", found, rtol=1e-6)
    torch.manual_seed(0)
    net = build_flow("pwcnet_tiny").eval().requires_grad_(False)
    smooth = [torch.nn.functional.interpolate(x.float(), 64, mode="bicubic") for x in (observed, rendered)]
    wide = [m[:, ::4, ::4].repeat_interleave(16, 1).repeat_interleave(16, 2) for m in masks]
    golden("alignment through a flow network", {
        "loss": graded(lambda x: alignment_loss(net, smooth[0], x, *wide), smooth[1]),
    }, rtol=1e-3)  # fmt: skip


def test_self_supervision(golden: Golden, face_model: FaceModel) -> None:
    """Equation (9) on rendered faces, a little beside the truth; the gradient depends on which face each pixel shows."""
    s = scene(face_model, 2, seed=10)
    criterion = SelfSupervision(
        face_model, centroid_flow, Weights(lambda_5=0.5, lambda_6=2.0, lambda_7=3.0, contour=0.5), 64
    )
    camera = WeakPerspectiveCamera(s.camera.scale * 1.02, s.camera.R, s.camera.t2d + torch.tensor([0.7, -0.4]))
    leaves = s.vertices[:, criterion.index].clone().requires_grad_(), camera.t2d.clone().requires_grad_()
    camera.t2d = leaves[1]
    terms = criterion.terms(leaves[0], camera, s.images, s.landmarks)
    found = {**terms, "total": torch.stack(list(criterion.weighted(terms).values())).sum()}
    golden("self-supervision", {k: v.detach() for k, v in found.items()}, rtol=2e-3)
    gradients = {k: torch.autograd.grad(v, leaves, retain_graph=True) for k, v in terms.items()}
    golden("self-supervision, gradients", {
        f"{term}, {name}": digest(g) for term, pair in gradients.items() for name, g in zip(("shape", "t2d"), pair, strict=True)
    }, rtol=2e-2)  # fmt: skip
