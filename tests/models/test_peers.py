"""The single-view peers: network, decoder, and the losses of the three papers."""

import pytest
import torch
from torch import Tensor, nn

from lib.landmarks.crops import face_centre
from lib.models.base import Views
from lib.models.identity_net import IdentityNet
from lib.models.peers.decoder import Decoder
from lib.models.peers.genova import (
    N_DRAWS,
    Genova,
    GenovaWeights,
    batch_distribution,
    identity,
    kept_statistics,
    loopback,
    sample_view,
)
from lib.models.peers.mofa import MoFA, MoFAWeights, dense_photometric, statistical_regularisation
from lib.models.peers.regressor import SinglePrediction, SingleRegressor
from lib.models.peers.tran import asymmetric_euclidean
from lib.morphable.model import FaceModel
from lib.renderers.cameras import WeakPerspectiveCamera, euler_to_matrix
from lib.renderers.interpolate import interpolate
from lib.renderers.rasterize import rasterize
from lib.renderers.render import Renderer
from lib.renderers.shading import ambient_light, shade

SIZE, K, E, A, B = 32, 10, 6, 5, 4


def network(face: FaceModel) -> SingleRegressor:
    torch.manual_seed(0)
    return SingleRegressor(face, "resnet_tiny", K, E, A)


def camera(n: int = B, size: int = SIZE) -> WeakPerspectiveCamera:
    yaw = torch.linspace(-0.5, 0.5, n)
    R = euler_to_matrix(yaw, 0 * yaw, 0 * yaw)
    return WeakPerspectiveCamera(torch.full((n,), size / 165), R, torch.full((n, 2), size / 2))


def prediction(face: FaceModel, n: int = B, size: int = SIZE) -> SinglePrediction:
    g = torch.Generator().manual_seed(1)
    alpha, beta, gamma = (torch.randn(n, k, generator=g) for k in (K, E, A))
    return SinglePrediction(alpha, 0.3 * beta, camera(n, size), gamma, ambient_light(n))


@torch.no_grad()
def autoencode(decoder: Decoder, p: SinglePrediction, size: int) -> tuple[Tensor, Tensor]:
    """What the decoder draws: images (B, 3, S, S), black outside the face, and masks (B, S, S) bool."""
    surface = decoder(p.alpha, p.beta, p.camera, p.gamma, p.light)
    frag = rasterize(p.camera.project(surface.vertices), decoder.faces, (size, size), perspective=False)
    return interpolate(frag, decoder.faces, surface.colours), frag.mask


def photograph(face: FaceModel, p: SinglePrediction, size: int = SIZE) -> dict[str, Tensor]:
    """What the decoder's own model looks like, with the landmarks where they are."""
    decoder = Decoder(face, K, E, A)
    images, _ = autoencode(decoder, p, size)
    marks = p.camera.project(face.vertices(p.alpha, p.beta)[:, face.landmarks])[..., :2]
    return {"images": images, "landmarks": marks, "draw": torch.rand(len(images), N_DRAWS)}


class Fixed(nn.Module):
    """A network that always says the same."""

    def __init__(self, p: SinglePrediction) -> None:
        super().__init__()
        self.p = p

    def forward(self, images: Tensor) -> SinglePrediction:
        return self.p


# ---- network ----
def test_it_starts_at_the_mean_face_in_the_middle_under_white_light(face_model: FaceModel) -> None:
    p = network(face_model).eval()(torch.rand(2, 3, SIZE, SIZE))
    assert [tuple(x.shape) for x in (p.alpha, p.beta, p.gamma, p.light)] == [(2, K), (2, E), (2, A), (2, 9, 3)]
    assert torch.allclose(p.camera.R, torch.eye(3).expand(2, 3, 3), atol=0.1)
    assert torch.allclose(p.light, ambient_light(2), atol=0.05)
    assert all(x.abs().max() < 0.2 for x in (p.alpha, p.beta, p.gamma))


def test_reconstruct_takes_one_view(face_model: FaceModel) -> None:
    net, images = network(face_model).eval(), torch.rand(2, 2, 3, SIZE, SIZE)
    views = Views(images, torch.eye(3).expand(2, 2, 3, 3))
    r = net.reconstruct(views.select([1]))
    p = net(images[:, 1])
    assert torch.allclose(r.vertices, face_model.vertices(p.alpha, p.beta), atol=1e-3)
    assert r.cameras is not None and len(r.cameras) == 2
    with pytest.raises(ValueError, match="one view"):
        net.reconstruct(views)
    with pytest.raises(ValueError, match="albedo"):
        SingleRegressor(face_model, "resnet_tiny", K, E, face_model.n_alb + 1)


# ---- decoder ----
def test_decoder_is_the_renderer_on_the_cropped_face(face_model: FaceModel) -> None:
    p = prediction(face_model, size=64)
    decoder = Decoder(face_model, K, E, A)
    images, mask = autoencode(decoder, p, 64)
    index = face_model.face_index
    whole = Renderer(face_model.cropped_faces(), 64)(
        face_model.vertices(p.alpha, p.beta)[:, index], p.camera, face_model.albedo(p.gamma)[:, index], p.light
    )
    assert torch.equal(mask, whole.mask)
    assert (images - whole.image).abs().max() < 0.01  # constant light: per vertex or per pixel is the same


# ---- Tran ----
def test_asymmetric_loss_by_hand() -> None:
    target = torch.tensor([[2.0, -2.0, 1.0]])
    assert asymmetric_euclidean(target, target) == 0
    assert asymmetric_euclidean(torch.tensor([[3.0, -2.0, 1.0]]), target) == 1  # one too far: once
    assert asymmetric_euclidean(torch.tensor([[1.0, -2.0, 1.0]]), target) == 3  # one short: three times
    assert asymmetric_euclidean(torch.tensor([[2.0, -1.0, 1.0]]), target) == 3
    assert asymmetric_euclidean(torch.tensor([[2.0, 1.0, 1.0]]), target) == 27  # wrong sign is short by 3
    assert asymmetric_euclidean(torch.zeros(1, 3), target) == 3 * target.square().sum()


# ---- MoFA ----
def test_photometric_loss_is_the_mean_distance_of_visible_vertices() -> None:
    image = torch.zeros(1, 3, 8, 8)
    image[:, 0] = 0.5
    screen = torch.tensor([[[2.5, 2.5], [4.5, 4.5], [6.0, 1.0]]])
    colours = torch.tensor([[[0.5, 0.3, 0.4], [0.5, 0, 0], [9.0, 9, 9]]])
    seen = torch.tensor([[True, True, False]])
    assert torch.isclose(dense_photometric(image, screen, colours, seen), torch.tensor(0.25), atol=2e-3)
    assert dense_photometric(image, screen, colours, torch.zeros_like(seen)) == 0
    x = statistical_regularisation(torch.full((2, 3), 2.0), torch.ones(2, 4), torch.ones(2, 5), 0.5, 0.1)
    assert torch.isclose(x, torch.tensor(12 + 0.5 * 4 + 0.1 * 5))


def test_mofa_is_lowest_at_the_truth(face_model: FaceModel) -> None:
    p = prediction(face_model, size=64)
    batch = photograph(face_model, p, 64)
    mofa = MoFA(network(face_model), MoFAWeights(prior=0.0))
    at_truth = mofa(Fixed(p), batch)
    assert at_truth["landmark"] < 1e-4
    worse = {
        "skin": SinglePrediction(p.alpha, p.beta, p.camera, 0 * p.gamma, p.light),
        "light": SinglePrediction(p.alpha, p.beta, p.camera, p.gamma, 0.7 * p.light),
        "pose": SinglePrediction(p.alpha, p.beta, camera(size=64)[torch.tensor([1, 2, 3, 0])], p.gamma, p.light),
        "shape": SinglePrediction(p.alpha[[1, 2, 3, 0]], p.beta, p.camera, p.gamma, p.light),
    }
    for name, other in worse.items():
        assert mofa(Fixed(other), batch)["photo"] > 1.05 * at_truth["photo"], name


# ---- Genova ----
def test_distribution_identity_and_loopback_losses() -> None:
    x = torch.randn(4000, 5, generator=torch.Generator().manual_seed(0))
    assert batch_distribution(x) < 0.01
    assert torch.isclose(batch_distribution(0 * x), torch.tensor(5.0), rtol=1e-3)  # no spread at all
    assert torch.isclose(batch_distribution(x + 2, x), torch.tensor(20.0), rtol=0.05)
    with pytest.raises(ValueError, match="two faces"):
        batch_distribution(x[:1])
    u = torch.tensor([[1.0, 0], [0, 1]])
    assert identity(u, u) == 0 and identity(u, -u) == 2 and torch.isclose(identity(u, u.flip(0)), torch.tensor(1.0))
    assert loopback(torch.ones(2, 3), torch.zeros(2, 3)) == 3


def test_renderings_are_framed_as_photographs(face_model: FaceModel) -> None:
    draw = torch.rand(30, N_DRAWS, generator=torch.Generator().manual_seed(0))
    centre = face_centre(face_model.mean[face_model.landmarks])
    cam, light = sample_view(draw, centre, SIZE)
    middle = cam.project(centre.expand(30, 1, 3))[:, 0, :2]
    assert torch.allclose(middle, torch.full((30, 2), SIZE / 2), atol=1e-3)
    yaws = torch.rad2deg(torch.atan2(-cam.R[:, 2, 0], cam.R[:, 2, 2])).round().unique()
    assert yaws.tolist() == [-30, 0, 30]
    facing = torch.tensor([0.0, 0, 1]).expand(30, 1, 3)
    brightness = shade(facing, light)
    assert torch.all(brightness > 0.4) and torch.all(brightness < 1.6)


def test_genova_sends_gradients_where_it_should(face_model: FaceModel) -> None:
    """Identity: to shape and skin through the rendering. Loopback: to the network alone, not into what it rendered."""
    torch.manual_seed(0)
    net, recogniser = network(face_model), IdentityNet("resnet_tiny", 16).eval().requires_grad_(False)
    p = prediction(face_model)
    batch = photograph(face_model, p)
    p.alpha.requires_grad_()
    p.gamma.requires_grad_()
    genova = Genova(net, recogniser, GenovaWeights(distribution=0.0, loop=0.0))
    terms = genova(Fixed(p), batch)
    terms["identity"].backward()
    assert p.alpha.grad is not None and p.alpha.grad.abs().min() > 0
    assert p.gamma.grad is not None and p.gamma.grad.abs().max() > 0
    p.alpha.grad = p.gamma.grad = None
    rendered = torch.rand(B, 3, SIZE, SIZE, requires_grad=True)
    genova.loopback(net, p, rendered, torch.tensor([0, 2])).backward()
    assert rendered.grad is None and p.alpha.grad is None
    assert net.shape[-1].weight.grad.abs().max() > 0


def test_renderings_leave_the_statistics_of_photographs_alone(face_model: FaceModel) -> None:
    net = network(face_model).train()
    before = {k: v.clone() for k, v in net.state_dict().items() if "running" in k}
    with kept_statistics(net):
        net(torch.rand(4, 3, SIZE, SIZE))
    assert all(torch.equal(before[k], net.state_dict()[k]) for k in before)
    net(torch.rand(4, 3, SIZE, SIZE))
    assert not all(torch.equal(before[k], net.state_dict()[k]) for k in before)
