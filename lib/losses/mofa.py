"""Losses of Tewari et al., "MoFA: Model-based Deep Convolutional Face Autoencoder" (2017), section 6."""

from torch import Tensor

from lib.renderers.texture import sample_image


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
