"""The network that the single-view peers share: one photograph to shape, expression, skin, camera and light.

It is MVF-Net for one view (the same encoder, feature, pose head and shape head) with two more heads for what MoFA and
Genova et al. render: skin and light.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lib.models.base import Reconstruction, Views
from lib.models.mvfnet import FEATURES, MVFNet, Prediction, pose_camera
from lib.models.parts.encoders import mlp, start_small
from lib.morphable.model import FaceModel
from lib.renderers.shading import SH_C

LIGHT_UNIT = 0.3
"""One unit of the light head's output: this share of an ambient white light."""


@dataclass
class SinglePrediction(Prediction):
    """gamma (B, A): skin, in standard deviations; light (B, 9, 3): spherical harmonics in the view frame, the cosine kernel
    in them."""

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
        start_small(self.skin, self.light)  # training starts at the mean skin under white ambient light

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
