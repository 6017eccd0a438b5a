"""The single-term reprojection loss of the Siamese paper (Ramon et al. 2019, equations 2 to 4)."""

from torch import Tensor

from lib.renderers.cameras import PerspectiveCamera


def reprojection_loss(
    shape: Tensor, camera: PerspectiveCamera, shape_hat: Tensor, camera_hat: PerspectiveCamera, n_views: int
) -> Tensor:
    """L = sum_v || P(q_v, t_v)(s) - P(q^_v, t^_v)(s^) ||^2, equation (2), in squared pixels.

    shape, shape_hat: (B, N, 3) mm, one shape per scene whatever the number of views.
    camera, camera_hat: cameras batched over B * V with the view running fastest; both carry the same calibration K.
    The squared norm is averaged over the points and the batch, a constant factor that keeps the value readable
    (its square root is an RMS error in pixels) and leaves the minimiser where it is. The sum over views stands.
    """
    if n_views < 1 or camera.K.shape[0] != shape.shape[0] * n_views:
        raise ValueError(f"{camera.K.shape[0]} cameras do not fit {shape.shape[0]} scenes of {n_views} views")
    p = camera.project(_repeat(shape, n_views))[..., :2]
    p_hat = camera_hat.project(_repeat(shape_hat, n_views))[..., :2]
    per_view = (p - p_hat).square().sum(-1).mean(-1)  # (B * V,)
    return per_view.view(-1, n_views).sum(1).mean()


def _repeat(shape: Tensor, n_views: int) -> Tensor:
    """(B, N, 3) to (B * V, N, 3) with the view running fastest."""
    return shape.repeat_interleave(n_views, dim=0)
