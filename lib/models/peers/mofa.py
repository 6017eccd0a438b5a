"""Tewari, Zollhofer, Kim, Garrido, Bernard, Perez, Theobalt: "MoFA: Model-based Deep Convolutional Face Autoencoder for
Unsupervised Monocular Reconstruction" (ICCV 2017).

An encoder regresses the parameters of a morphable model, its pose and its light (section 4); a fixed decoder turns them
into coloured vertices on the image (section 5); the loss is how far those colours are from the image's, that is nothing
but the photograph is needed, helped by detected landmarks and the model's prior (section 6).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lib.losses.landmark import landmark_loss, landmark_weights
from lib.losses.mofa import dense_photometric, statistical_regularisation
from lib.models.mvfnet import face_vertices
from lib.models.peers.decoder import Decoder
from lib.models.peers.regressor import SinglePrediction, SingleRegressor


@dataclass(frozen=True)
class MoFAWeights:
    """w_photo, of the mean colour distance, RGB in [0, 1]; w_reg, of the sum of squared identity coefficients; expression
    and skin count relative to those."""

    photo: float = 100.0
    prior: float = 0.15
    expression: float = 0.8
    skin: float = 0.1


class MoFA:
    """The objective: w_photo E_photo + w_land E_land + w_reg E_reg.

    model: whose predictions are judged; gives the face model and the numbers of coefficients. landmark: w_land, of the mean
    squared landmark distance in pixels of a 224-pixel crop (MVF-Net's lambda_5). contour: weight of the jaw's landmarks
    against the others.
    """

    def __init__(
        self,
        model: SingleRegressor,
        weights: MoFAWeights | None = None,
        landmark: float = 1.0,
        contour: float = 1.0,
    ) -> None:
        self.landmark = landmark
        self.weights = weights or MoFAWeights()
        self.face = model.face
        self.decoder = Decoder(model.face, model.n_id, model.n_exp, model.n_alb)
        self.points = landmark_weights(contour)

    def __call__(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weighted terms of `model` on batch["images"] (B, 3, S, S); needs landmarks (B, 68, 2) px."""
        w = self.weights
        p: SinglePrediction = model(batch["images"])
        self.decoder.to(p.alpha.device)
        images = batch["images"]
        surface = self.decoder(p.alpha, p.beta, p.camera, p.gamma, p.light)
        screen = p.camera.project(surface.vertices)
        # a vertex is taken as visible when its surface faces the camera
        seen = surface.normals.detach()[..., 2] > 0
        marks = p.camera.project(face_vertices(self.face, p.alpha, p.beta, self.face.landmarks))[..., :2]
        return {
            "photo": w.photo * dense_photometric(images, screen, surface.colours, seen),
            "landmark": self.landmark * landmark_loss(marks, batch["landmarks"], images.shape[-1], self.points),
            "prior": w.prior * statistical_regularisation(p.alpha, p.beta, p.gamma, w.expression, w.skin),
        }


def autoencode(decoder: Decoder, p: SinglePrediction, size: int) -> tuple[Tensor, Tensor]:
    """What the decoder draws, for figures: images (B, 3, S, S), black outside the face, and masks (B, S, S) bool."""
    from lib.renderers.interpolate import interpolate
    from lib.renderers.rasterize import rasterize

    with torch.no_grad():
        surface = decoder(p.alpha, p.beta, p.camera, p.gamma, p.light)
        frag = rasterize(p.camera.project(surface.vertices), decoder.faces, (size, size), perspective=False)
        return interpolate(frag, decoder.faces, surface.colours), frag.mask
