"""What a face can be: linear identity, expression and albedo, landmarks, regions, skinning; and random people."""

from lib.morphable.model import REGIONS, FaceModel
from lib.morphable.population import Identities, Population
from lib.morphable.skin import SkinModel

__all__ = ["REGIONS", "FaceModel", "Identities", "Population", "SkinModel"]
