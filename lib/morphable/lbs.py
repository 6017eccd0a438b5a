"""Linear blend skinning of four joints: neck, jaw and the two eyes.

Follows the SMPL/FLAME form (Loper et al. 2015, eq. 2-4; Li et al. 2017): rotations about joints that are themselves
linear in the vertices, composed along a tree, blended per vertex. There are no pose-corrective shapes.
"""

import torch
from torch import Tensor

JOINTS = ("neck", "jaw", "left_eye", "right_eye")
PARENTS = (-1, 0, 0, 0)  # the head follows the neck; jaw and eyes follow the head


def axis_angle_to_matrix(rotation: Tensor) -> Tensor:
    """Rodrigues' formula (..., 3) -> (..., 3, 3), radians; smooth at zero, where it returns the exact identity."""
    squared = (rotation * rotation).sum(-1)[..., None, None]
    small = squared < 1e-8
    safe = torch.where(small, torch.ones_like(squared), squared)
    angle = safe.sqrt()
    sine = torch.where(small, 1.0 - squared / 6.0, angle.sin() / angle)
    cosine = torch.where(small, 0.5 - squared / 24.0, (1.0 - angle.cos()) / safe)
    x, y, z = rotation.unbind(-1)
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    return torch.eye(3, dtype=rotation.dtype, device=rotation.device) + sine * skew + cosine * (skew @ skew)


def skin(vertices: Tensor, regressor: Tensor, weights: Tensor, rotations: Tensor) -> Tensor:
    """Pose vertices.

    Args:
        vertices: (B, N, 3) rest vertices.
        regressor: (J, N) rows sum to 1; joints = regressor @ vertices.
        weights: (N, J) how far a vertex follows each joint; the remainder 1 - sum stays fixed (the torso).
        rotations: (B, J, 3, 3) local rotations in the order ``JOINTS``.

    Returns:
        (B, N, 3) posed vertices.
    """
    joints = regressor @ vertices  # (B, J, 3)
    linear: list[Tensor] = []
    shift: list[Tensor] = []
    for j, parent in enumerate(PARENTS):
        # World transform of a point x of the rest pose: L x + s, rotating about the joint's rest position.
        local_l, joint = rotations[:, j], joints[:, j, :, None]
        local_s = joint - local_l @ joint
        if parent >= 0:
            local_l, local_s = linear[parent] @ local_l, linear[parent] @ local_s + shift[parent]
        linear.append(local_l)
        shift.append(local_s)
    # Blend displacements, not transforms, so that the identity pose returns the input bit for bit.
    identity = torch.eye(3, dtype=vertices.dtype, device=vertices.device)
    blended = torch.einsum("nj,bjkl->bnkl", weights, torch.stack(linear, 1) - identity)
    moved = torch.einsum("nj,bjk->bnk", weights, torch.stack(shift, 1)[..., 0])
    return vertices + (blended @ vertices[..., None])[..., 0] + moved
