"""Loss of Tran et al., "Regressing Robust and Discriminative 3D Morphable Models with a very Deep Neural Network" (2017)."""

import torch
from torch import Tensor


def asymmetric_euclidean(prediction: Tensor, target: Tensor, over: float = 1.0, under: float = 3.0) -> Tensor:
    """Asymmetric Euclidean loss, section 3.2: over ||g+ - g_max||^2 + under ||g_p+ - g_max||^2.

    prediction, target: (B, K) in standard deviations. g+ = |g|, g_p+ = sign(g) g_p, g_max = max(g+, g_p+), element by
    element. Where the prediction goes beyond the target (in the target's direction) the first term counts the excess;
    where it stays behind, the second counts the shortfall, ``under`` = 3 times as much: a plain Euclidean loss is
    satisfied with faces close to the mean, this one is not. Averaged over the batch.
    """
    reached = torch.sign(target) * prediction
    most = torch.maximum(target.abs(), reached)
    excess, shortfall = (most - target.abs()).square(), (most - reached).square()
    return (over * excess + under * shortfall).sum(1).mean()
