"""Head models of others, from files that a user has under their licences. Nothing is downloaded and nothing is unpickled.

The Basel Face Model 2009 with FaceWarehouse's expressions, as 3DDFA's converted .mat files have them.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lib.core.arrays import load_mat
from lib.core.errors import InputError

__all__ = ["N_EXP", "N_ID", "BaselFace"]

N_ID, N_EXP = 199, 29
"""Identity and expression coefficients of the Basel and FaceWarehouse models."""


@dataclass
class BaselFace:
    """The part of the Basel and FaceWarehouse models that the network needs, in mm per unit of its outputs.

    mean (N, 3); id_basis (199, N, 3); exp_basis (29, N, 3); faces (F, 3) int64. Head frame: y up, z out of the face.
    """

    mean: Tensor
    id_basis: Tensor
    exp_basis: Tensor
    faces: Tensor

    @classmethod
    def load(
        cls, shape_mat: str | Path, expression_mat: str | Path, sigma_exp_mat: str | Path | None = None
    ) -> "BaselFace":
        """Read Model_Shape.mat, Model_Expression.mat and sigma_exp.mat (None: sigma_exp of Model_Expression.mat).

        Raises InputError: no such file, not a .mat, a name missing, or arrays that do not belong together.
        """
        advice = "3DDFA's Model_Shape.mat and Model_Expression.mat are built from the Basel model"
        shape = load_mat(shape_mat, ("mu_shape", "w", "sigma", "tri"), advice)
        expression = load_mat(expression_mat, ("w_exp",) if sigma_exp_mat else ("w_exp", "sigma_exp"), advice)
        sigma_exp = (load_mat(sigma_exp_mat, ("sigma_exp",), advice) if sigma_exp_mat else expression)["sigma_exp"]
        sigma_exp = sigma_exp.ravel()
        mean, w, w_exp = shape["mu_shape"].ravel(), shape["w"], expression["w_exp"]
        sigma, faces = shape["sigma"].ravel(), shape["tri"].astype(np.int64).T - 1
        n = len(mean)
        if n % 3 or w.shape != (n, N_ID) or sigma.shape != (N_ID,):
            raise InputError(
                shape_mat, f"w (3N, {N_ID}), sigma ({N_ID}) and mu_shape (3N), found {w.shape}, {sigma.shape}, {n}"
            )
        if w_exp.shape != (n, N_EXP) or sigma_exp.shape != (N_EXP,):
            raise InputError(
                expression_mat, f"w_exp ({n}, {N_EXP}) and sigma_exp ({N_EXP}), found {w_exp.shape}, {sigma_exp.shape}"
            )
        if faces.ndim != 2 or faces.shape[1] != 3 or faces.min() < 0 or faces.max() >= n // 3:
            raise InputError(shape_mat, f"tri (3, F) counting from 1 up to {n // 3}, found {shape['tri'].shape}")
        # micrometres per coefficient, coefficients per output: sigma, and 1 / (1000 sigma_exp)
        id_basis = (w * sigma).T.reshape(N_ID, -1, 3) / 1000
        exp_basis = (w_exp / (1000 * sigma_exp)).T.reshape(N_EXP, -1, 3) / 1000
        mean, id_basis, exp_basis = (
            torch.from_numpy(np.ascontiguousarray(a, dtype=np.float32))
            for a in (mean.reshape(-1, 3) / 1000, id_basis, exp_basis)
        )
        return cls(mean, id_basis, exp_basis, torch.from_numpy(faces))

    def vertices(self, alpha: Tensor, beta: Tensor | None = None) -> Tensor:
        """(B, 199) and (B, 29) outputs of the network to (B, N, 3) mm."""
        out = self.mean + (alpha @ self.id_basis.flatten(1)).unflatten(1, (-1, 3))
        return out if beta is None else out + (beta @ self.exp_basis.flatten(1)).unflatten(1, (-1, 3))
