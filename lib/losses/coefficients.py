"""Losses on 3DMM coefficients of MVF-Net (Wu et al. 2019, equation 6). Coefficients are in standard deviations."""

import torch
from torch import Tensor

__all__ = ["coefficient_loss", "regularisation"]


def coefficient_loss(alpha_hat: Tensor, beta_hat: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """L_3DMM: L2 loss between predicted and labelled identity (B, K) and expression (B, E), a scalar.

    Sum of the squared differences over the K + E coefficients, mean over the batch.
    """
    if alpha_hat.shape != alpha.shape or beta_hat.shape != beta.shape:
        found = [tuple(x.shape) for x in (alpha_hat, beta_hat, alpha, beta)]
        raise ValueError(f"coefficients {found[:2]} against labels {found[2:]}")
    return (torch.cat([alpha_hat, beta_hat], 1) - torch.cat([alpha, beta], 1)).square().sum(1).mean()


def regularisation(alpha: Tensor, beta: Tensor) -> Tensor:
    """L_reg: sum of squares of the coefficients (B, K) and (B, E), mean over the batch.

    MoFA's statistical prior (Tewari et al. 2017, equation 5).
    """
    return torch.cat([alpha, beta], 1).square().sum(1).mean()
