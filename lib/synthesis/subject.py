"""One person in front of scanners and cameras: a fine head for pixels and scans, the model's own mesh for the truth."""

from dataclasses import dataclass

import numpy as np

from lib.morphable.detail import refine, subdivision
from lib.synthesis.people import People
from lib.synthesis.scene import Studio


@dataclass
class Person:
    """A head in mm, head frame, mean size.

    Attributes:
        fine (M, 3), faces (G, 3), albedo (M, 3): the head with surface detail. occlusion, gloss (M,): see `Studio`.
        coarse (N, 3): the same head on the face model's topology; landmarks (68, 3) of it. size: metric size factor.
    """

    fine: np.ndarray
    faces: np.ndarray
    albedo: np.ndarray
    occlusion: np.ndarray
    gloss: np.ndarray
    coarse: np.ndarray
    landmarks: np.ndarray
    size: float

    def studio(self) -> Studio:
        """A studio for the fine head."""
        return Studio(self.faces, self.occlusion, self.gloss)


def draw_person(
    people: People, rng: np.random.Generator, expression: float | None = None, interpolate: bool = False
) -> Person:
    """A person from the full generator, with surface detail at a finer resolution.

    Args:
        expression: strength of an expression that is held; None for none.
        interpolate: the fine surface passes through the coarse vertices. Loop surfaces shrink; without this the fine head is
            a little smaller than the coarse one.
    """
    identities, neutral, albedo = people.draw(1, rng)
    coarse = neutral[0]
    if expression is not None:
        coarse = coarse + people.population.expressions(1, rng, strength=expression)[0][0]
    step = subdivision(people.model)
    control = coarse.copy()
    for _ in range(4 if interpolate else 0):  # move the control mesh until its surface passes through the vertices
        control += coarse - step(control)[: len(coarse)]
    fine, faces, fine_albedo = refine(people.model, control, albedo[0], rng)
    around = step(np.stack([people.occlusion, people.gloss], 1))
    return Person(
        fine=fine,
        faces=faces,
        albedo=fine_albedo,
        occlusion=np.clip(around[:, 0], 0, 1),
        gloss=around[:, 1],
        coarse=coarse,
        landmarks=coarse[people.landmarks],
        size=float(identities.size[0]),
    )
