"""The photometric loss of MVF-Net (Wu et al. 2019, equation 7)."""

from torch import Tensor

__all__ = ["photometric_loss"]


def photometric_loss(observed: Tensor, rendered: Tensor, observed_mask: Tensor, rendered_mask: Tensor) -> Tensor:
    """L_photo(I_B, I_A->B) per image, (B,): squared RGB distance over the union of the two masks.

    Args:
        observed, rendered: (B, 3, H, W) in [0, 1]. observed_mask, rendered_mask: (B, H, W) bool.

    The paper sums over the union; here it is the mean over the union's pixels, so that lambda_6 does not depend on the image
    size or on how much of the face a pair shares. Where the observed mask reaches beyond the mesh the rendered image is
    black: such a pixel raises the value and has no gradient. No gradient passes through the masks. 0 for an empty union.
    """
    if observed.shape != rendered.shape or observed_mask.shape != rendered_mask.shape:
        raise ValueError(
            f"images {tuple(observed.shape)}, {tuple(rendered.shape)}; "
            f"masks {tuple(observed_mask.shape)}, {tuple(rendered_mask.shape)}"
        )
    union = (observed_mask | rendered_mask).to(observed)
    squared = (observed - rendered).square().sum(1)
    return (squared * union).sum((1, 2)) / union.sum((1, 2)).clamp(min=1)
