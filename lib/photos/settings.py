"""What the photo command can be told, and the face model that it fits."""

from dataclasses import field
from pathlib import Path
from typing import Annotated, Literal

from lib.core.errors import InputError
from lib.core.params import Count, Field, checked, from_dict, load_params, material
from lib.fit import FitOptions
from lib.fit.dense import DenseOptions
from lib.morphable import FaceModel
from lib.morphable.model import FACE_MODEL
from lib.renderers.rasterize import use


@checked
class PhotoSettings:
    """The ``photos`` section of params.yaml; every entry may be left out.

    Attributes:
        fit, dense: weights of the landmark fit and of the refinement by pictures.
        n_id, n_exp: components of the face model that are fitted.
        texture_size: side of the texture, px. detector: auto, dlib or face-alignment.
        cv_subjects: synthetic people of each set of views in ``lib.photos.tuning.prior``.
    """

    fit: FitOptions = field(default_factory=FitOptions)
    dense: DenseOptions = field(default_factory=DenseOptions)
    n_id: Count = 80
    n_exp: Count = 30
    texture_size: Annotated[int, Field(ge=64, le=8192)] = 1024
    detector: Literal["auto", "dlib", "face-alignment"] = "auto"
    cv_subjects: Count = 12


def load_settings(path: str | Path = "params.yaml") -> tuple[PhotoSettings, str]:
    """Photo settings and the profile's name; defaults where the file or the section is absent. Sets the file's renderer.

    Raises:
        InputError: the section is there but malformed.
    """
    if not Path(path).is_file():
        return PhotoSettings(), "quick"
    params = load_params(path)
    use(params)
    return from_dict(PhotoSettings, params.get("photos") or {}, f"{path}: photos"), material(
        {"profile": "quick"} | params
    )


def load_model(path: str | Path = FACE_MODEL) -> FaceModel:
    """The face model.

    Raises:
        InputError: it was not built yet.
    """
    if not Path(path).is_file():
        raise InputError(
            path, "the face model is not built yet", "python -m lib.morphable.build (or `make repro`) builds it"
        )
    return FaceModel.load(path)
