"""Losses of Genova et al., "Unsupervised Training for 3D Morphable Model Regression" (2018)."""

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity


def batch_distribution(*coefficients: Tensor) -> Tensor:
    """L_batch: squared distance of each batch mean from 0 and of each batch standard deviation from 1.

    coefficients: tensors (B, k) in standard deviations (shape and skin in the paper); summed over components, and zero for
    a batch that looks like a sample of the morphable model. Raises ValueError for fewer than two faces.
    """
    total = torch.zeros((), device=coefficients[0].device)
    for x in coefficients:
        if len(x) < 2:
            raise ValueError("the distribution of a batch needs at least two faces")
        spread = (x.var(0, correction=0) + 1e-8).sqrt()
        total = total + x.mean(0).square().sum() + (spread - 1).square().sum()
    return total


def identity(rendered: Tensor, photographed: Tensor) -> Tensor:
    """L_identity: 1 - cosine between features (B, D) of renderings and of the photographs they came from, averaged."""
    return (1 - cosine_similarity(rendered, photographed, dim=1)).mean()


def loopback(again: Tensor, before: Tensor) -> Tensor:
    """L_loop: ||again - before||^2 of parameters (B, k) that the network finds in a rendering made from ``before``."""
    return (again - before).square().sum(1).mean()
