"""The Siamese networks against the paper's text: shapes, cameras, mirroring, starts."""

import numpy as np
import pytest
import torch

from lib.models import siamese
from lib.models.base import Views
from lib.models.siamese import Siamese3DMM
from lib.papers.siamese.face import procrustes
from tests.papers.siamese.conftest import toy_3dmm

SIZE = 32


def crops(b: int, v: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    K = torch.eye(3).repeat(b, v, 1, 1)
    K[..., 0, 0] = K[..., 1, 1] = 90 + 20 * torch.rand(b, v, generator=g)
    K[..., :2, 2] = SIZE / 2 + 20 * torch.rand(b, v, 2, generator=g) - 10
    return torch.rand(b, v, 3, SIZE, SIZE, generator=g), K


@pytest.mark.parametrize("run", siamese.RUNS)
def test_shapes_and_gradients(face: Siamese3DMM, run: str) -> None:
    v = 1 if run == "sv" else 3
    model = siamese.build(run, face, "resnet_tiny")
    prediction = model(*crops(2, v))
    assert prediction.alpha.shape == (2, face.n_modes)
    assert (prediction.camera is None) == (run == "mv_shape_concat")
    total = prediction.alpha.square().sum()
    if prediction.camera is not None:
        assert prediction.camera.R.shape == (2 * v, 3, 3)
        total = total + prediction.camera.project(face.vertices(prediction.alpha).repeat_interleave(v, 0)).sum()
    total.backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("run", siamese.RUNS)
def test_mixed_precision_leaves_cameras_and_shapes_exact(face: Siamese3DMM, run: str) -> None:
    """Under autocast the encoder may round; the geometry after it may not."""
    model = siamese.build(run, face, "resnet_tiny").eval()
    with torch.autocast("cpu", torch.bfloat16):
        prediction = model(*crops(2, 1 if run == "sv" else 3))
    assert prediction.alpha.dtype == torch.float32
    if prediction.camera is not None:
        eye = torch.eye(3).expand_as(prediction.camera.R)
        assert torch.allclose(prediction.camera.R @ prediction.camera.R.transpose(1, 2), eye, atol=1e-5)


def test_wrong_number_of_views_is_refused(face: Siamese3DMM) -> None:
    with pytest.raises(ValueError, match="3 views"):
        siamese.build("mv_add", face, "resnet_tiny")(*crops(1, 2))
    with pytest.raises(ValueError, match="one view"):
        siamese.build("sv", face, "resnet_tiny")(*crops(1, 2))


def test_merge_block_starts_as_the_mean_of_the_views(face: Siamese3DMM) -> None:
    alpha_n = torch.randn(4, 3, face.n_modes)
    for merge in ("add", "concat"):
        block = siamese.MergeBlock(merge, face.n_modes, 3)
        assert torch.allclose(block(alpha_n), alpha_n.mean(1), atol=1e-5), merge
    with pytest.raises(ValueError, match="hidden units"):
        siamese.MergeBlock("add", face.n_modes, 3, hidden=8)


def test_multi_view_starts_from_single_view_as_its_average(face: Siamese3DMM) -> None:
    torch.manual_seed(0)
    single = siamese.build("sv", face, "resnet_tiny").eval()
    images, K = crops(2, 3)
    multi = siamese.build("mv_concat", face, "resnet_tiny", mirror_view=None)
    siamese.start_from(multi, single)
    multi.eval()
    with torch.no_grad():
        average = torch.stack([single(images[:, [v]], K[:, [v]]).alpha for v in range(3)]).mean(0)
        assert torch.allclose(multi(images, K).alpha, average, atol=1e-4)
    with pytest.raises(TypeError):
        siamese.start_from(single, multi)


def test_the_mirrored_view_is_the_mirror_image_of_the_same_network(face: Siamese3DMM) -> None:
    """Exchanging and mirroring the side views mirrors the face that MV Add predicts, once front is left out."""
    torch.manual_seed(0)
    model = siamese.build("mv_add", face, "resnet_tiny", mirror_view=2).eval()
    images, K = crops(1, 3)
    images[:, 2], K[:, 2] = images[:, 1].flip(-1), K[:, 1]
    K[:, 2, 0, 2] = SIZE - K[:, 1, 0, 2]
    with torch.no_grad():
        _, camera = model.single.regress(images[0, [1]], K[0, [1]])
        prediction = model(images, K)
    R = prediction.camera.R
    m = torch.tensor([-1.0, 1, 1])
    assert torch.allclose(R[2], m[:, None] * R[1] * m, atol=1e-5)
    assert torch.allclose(R[1], camera.R[0], atol=1e-5)


def test_3dmm_modes_are_mirror_symmetric_and_span_the_scans(face: Siamese3DMM) -> None:
    flip = torch.tensor([-1.0, 1, 1])
    mirrored = face.basis[:, face.symmetry] * flip
    assert torch.allclose(mirrored, face.basis * face.mirror_sign[:, None, None], atol=1e-3)
    assert set(face.mirror_sign.tolist()) == {1.0, -1.0}
    alpha = torch.randn(3, face.n_modes)
    assert torch.allclose(face.project(face.vertices(alpha)), alpha, atol=1e-3)
    gram = face.basis.flatten(1) @ face.basis.flatten(1).T
    assert torch.allclose(gram, torch.diag(face.std**2), atol=1e-2 * float(face.std.max() ** 2))
    assert torch.all(face.std[:-1] >= face.std[1:])
    assert 0.98 < toy_3dmm(n_modes=75).explained <= 1.001  # all modes: all of the variance
    with pytest.raises(ValueError, match="modes"):
        toy_3dmm(n_modes=200)


def test_procrustes_undoes_a_similarity() -> None:
    rng = np.random.default_rng(0)
    target = rng.normal(0, 40, (50, 3))
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    q *= np.sign(np.linalg.det(q))
    moved = 1.3 * target @ q.T + [5, -3, 8]
    assert np.allclose(procrustes(moved[None], target, np.arange(50))[0], target, atol=1e-9)
    mirrored = target * [-1, 1, 1]
    assert not np.allclose(procrustes(mirrored[None], target, np.arange(50))[0], target, atol=1.0)


def test_views_checks_its_shapes() -> None:
    images, K = crops(2, 3)
    assert Views(images, K).select([0, 0]).images.shape[1] == 2
    with pytest.raises(ValueError, match=r"\(B, V, 3, 3\)"):
        Views(images, K[:, :2])
    with pytest.raises(ValueError, match=r"\(B, V, 3, H, W\)"):
        Views(images[0], K)


def test_paper_network_is_vgg16_on_its_own_resolution(face: Siamese3DMM) -> None:
    with torch.device("meta"):
        encoder = siamese.build_encoder("vgg16")
        assert encoder(torch.empty(1, 3, 224, 224)).shape == (1, 512 * 7 * 7)
        assert siamese.build_encoder("vgg16", pool="average").out_features == 512
    with pytest.raises(ValueError, match="known"):
        siamese.build_encoder("alexnet")
