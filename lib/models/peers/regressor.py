"""The network that the single-view peers share: one photograph to shape, expression, skin, camera and light.

It is MVF-Net for one view (the same encoder, feature, pose head and shape head) with two more heads for what MoFA and
Genova et al. render: skin and light.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lib.core.checkpoint import load_weights, read_meta
from lib.core.errors import InputError
from lib.models.base import Reconstruction, Views
from lib.models.mvfnet import FEATURES, MVFNet, pose_camera
from lib.models.parts.encoders import mlp
from lib.morphable.model import FaceModel
from lib.renderers.cameras import WeakPerspectiveCamera
from lib.renderers.shading import SH_C

LIGHT_UNIT = 0.3
"""One unit of the light head's output: this share of an ambient white light."""

RUNS = ("single", "tran", "mofa", "genova")
"""Runs whose network is a `SingleRegressor`: stage 1, and the three peers that start from it."""


@dataclass
class SinglePrediction:
    """alpha (B, K), beta (B, E), gamma (B, A): identity, expression, skin, in standard deviations; camera: of B crops;
    light (B, 9, 3): spherical harmonics in the view frame, the cosine kernel in them."""

    alpha: Tensor
    beta: Tensor
    camera: WeakPerspectiveCamera
    gamma: Tensor
    light: Tensor


class SingleRegressor(MVFNet):
    """One view in, all parameters of the parametric decoder out.

    Args:
        face: the face model. backbone: the encoder. n_id, n_exp, n_alb: coefficients regressed.
        frozen_norm: batch normalisation keeps its statistics while training.

    Raises ValueError when the face model has too few coefficients.
    """

    def __init__(
        self, face: FaceModel, backbone: str, n_id: int, n_exp: int, n_alb: int, frozen_norm: bool = False
    ) -> None:
        if n_alb > face.n_alb:
            raise ValueError(f"the face model has {face.n_alb} albedo coefficients, asked for {n_alb}")
        super().__init__(face, backbone, n_id, n_exp, n_views=1, mirror_view=None, frozen_norm=frozen_norm)
        self.n_alb = n_alb
        self.skin = mlp(FEATURES, n_alb)
        self.light = mlp(FEATURES, 27)
        for head in (self.skin, self.light):  # training starts at the mean skin under white ambient light
            last = head[-1]
            assert isinstance(last, nn.Linear)
            nn.init.normal_(last.weight, std=1e-3)
            nn.init.zeros_(last.bias)

    def forward(self, images: Tensor) -> SinglePrediction:  # type: ignore[override]
        """images (B, 3, S, S) in [0, 1], RGB."""
        if images.ndim != 4:
            raise ValueError(f"one view each: images (B, 3, S, S), got {tuple(images.shape)}")
        feature = self.encoder(images)
        with torch.autocast(images.device.type, enabled=False):
            feature = self.feature(feature.float())
            camera = pose_camera(self.pose(feature), images.shape[-1])
            x = self.shape(feature)
            change = LIGHT_UNIT * self.light(feature).view(-1, 9, 3)
            light = torch.cat([change[:, :1] + 1, change[:, 1:]], 1) / SH_C[0]
            return SinglePrediction(x[:, : self.n_id], x[:, self.n_id :], camera, self.skin(feature), light)

    @torch.no_grad()
    def reconstruct(self, views: Views) -> Reconstruction:
        """The face of one view with its expression; `parameters` has alpha, beta, gamma and light. K is not used.

        ValueError for more views than one: reconstruct each and see `lib.models.pooling`.
        """
        if views.n_views != 1:
            raise ValueError(f"a single-view method takes one view, got {views.n_views}")
        p = self(views.images[:, 0])
        parameters = {"alpha": p.alpha, "beta": p.beta, "gamma": p.gamma, "light": p.light}
        return Reconstruction(self.face.vertices(p.alpha, p.beta), self.face.faces, p.camera, parameters)


def load_method(run_dir: str | Path, face: FaceModel | None = None) -> SingleRegressor:
    """A trained single-view network in evaluation mode from the folder that `lib.train` wrote.

    Raises InputError when the folder holds no such network or the face model has too few coefficients.
    """
    path = Path(run_dir) / "model.safetensors"
    meta = read_meta(path)
    if meta.get("network") != "single":
        raise InputError(path, "a single-view network trained by lib.train", f"its run is {meta.get('run')!r}")
    face = face or FaceModel.load("data/face_model.npz")
    try:
        model = SingleRegressor(face, meta["backbone"], meta["n_id"], meta["n_exp"], meta["n_alb"])
    except ValueError as error:
        raise InputError(path, "a network for this face model", str(error)) from error
    load_weights(path, model)
    return model.eval()
