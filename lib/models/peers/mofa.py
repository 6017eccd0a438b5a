"""Tewari, Zollhofer, Kim, Garrido, Bernard, Perez, Theobalt: "MoFA: Model-based Deep Convolutional Face Autoencoder for
Unsupervised Monocular Reconstruction" (ICCV 2017).

An encoder regresses the parameters of a morphable model, its pose and its light (section 4); a fixed decoder turns them
into coloured vertices on the image (section 5); the loss is how far those colours are from the image's, that is nothing
but the photograph is needed, helped by detected landmarks and the model's prior (section 6).
"""

from dataclasses import dataclass

from torch import Tensor, nn

from lib.losses.landmark import landmark_loss, landmark_weights
from lib.models.mvfnet import shown
from lib.models.peers.decoder import Decoder
from lib.models.peers.regressor import SinglePrediction, SingleRegressor
from lib.renderers.texture import sample_image


@dataclass(frozen=True)
class MoFAWeights:
    """w_photo, of the mean colour distance, RGB in [0, 1]; w_reg, of the sum of squared identity coefficients; expression
    and skin count relative to those."""

    photo: float = 100.0
    prior: float = 0.15
    expression: float = 0.8
    skin: float = 0.1


class MoFA(nn.Module):
    """The objective: w_photo E_photo + w_land E_land + w_reg E_reg.

    model: whose predictions are judged; gives the face model and the numbers of coefficients. landmark: w_land, of the mean
    squared landmark distance in pixels of a 224-pixel crop (MVF-Net's lambda_5). contour: weight of the jaw's landmarks
    against the others.
    """

    points: Tensor

    def __init__(
        self,
        model: SingleRegressor,
        weights: MoFAWeights | None = None,
        landmark: float = 1.0,
        contour: float = 1.0,
    ) -> None:
        super().__init__()
        self.landmark = landmark
        self.weights = weights or MoFAWeights()
        self.face = model.face
        self.decoder = Decoder(model.face, model.n_id, model.n_exp, model.n_alb)
        self.register_buffer("points", landmark_weights(contour), persistent=False)

    def forward(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weighted terms of `model` on batch["images"] (B, 3, S, S); needs landmarks (B, 68, 2) px."""
        w = self.weights
        p: SinglePrediction = model(shown(batch))
        images = batch["images"]
        surface = self.decoder(p.alpha, p.beta, p.camera, p.gamma, p.light)
        screen = p.camera.project(surface.vertices)
        # a vertex is taken as visible when its surface faces the camera
        seen = surface.normals.detach()[..., 2] > 0
        marks = p.landmarks(self.face)
        return {
            "photo": w.photo * dense_photometric(images, screen, surface.colours, seen),
            "landmark": self.landmark * landmark_loss(marks, batch["landmarks"], images.shape[-1], self.points),
            "prior": w.prior * statistical_regularisation(p.alpha, p.beta, p.gamma, w.expression, w.skin),
        }


def dense_photometric(images: Tensor, screen: Tensor, colours: Tensor, seen: Tensor, eps: float = 1e-3) -> Tensor:
    """E_photo: mean over visible vertices of ||I(u_i) - c_i||_2, the robust l2,1 norm over RGB.

    images (B, 3, H, W) in [0, 1]; screen (B, N, 2 or 3) projected vertices, px; colours (B, N, 3) of the model there;
    seen (B, N) bool. Differentiable to all but ``seen``: the gradient to the position is that of the image. ``eps`` keeps
    the norm smooth at zero. A face without a visible vertex counts as zero.
    """
    difference = sample_image(images, screen) - colours
    distance = (difference.square().sum(-1) + eps * eps).sqrt() - eps
    weight = seen.to(distance)
    return ((distance * weight).sum(1) / weight.sum(1).clamp(min=1)).mean()


def statistical_regularisation(
    alpha: Tensor, beta: Tensor, gamma: Tensor, weight_beta: float, weight_gamma: float
) -> Tensor:
    """E_reg: ||alpha||^2 + w_beta ||beta||^2 + w_gamma ||gamma||^2 of coefficients (B, .) in standard deviations, averaged
    over the batch. The paper writes delta for our beta (expression) and beta for our gamma (skin)."""
    alpha2, beta2, gamma2 = (x.square().sum(1).mean() for x in (alpha, beta, gamma))
    return alpha2 + weight_beta * beta2 + weight_gamma * gamma2
