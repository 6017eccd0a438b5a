"""Plausible random expressions as mixtures of facial actions.

Actions never occur independently: a smile raises cheeks and narrows eyes. Each sample is one or two *recipes* (a named
set of actions with typical strengths) at a random intensity, plus weak independent noise on all actions; the two
sides of the face differ slightly.
"""

import numpy as np

# Both sides are meant when a name has no Left or Right of its own. Values: typical coefficient at intensity 1.
RECIPES: dict[str, dict[str, float]] = {
    "smile": {"mouthSmile": 0.60, "cheekSquint": 0.35, "eyeSquint": 0.20, "mouthDimple": 0.15},
    "laugh": {"mouthSmile": 0.65, "jawOpen": 0.40, "cheekSquint": 0.45, "eyeSquint": 0.35, "mouthUpperUp": 0.40,
              "mouthLowerDown": 0.15},
    "surprise": {"jawOpen": 0.45, "browInnerUp": 0.70, "browOuterUp": 0.60, "eyeWide": 0.60},
    "anger": {"browDown": 0.75, "eyeSquint": 0.35, "mouthPress": 0.40, "noseSneer": 0.35, "mouthFrown": 0.25},
    "sad": {"browInnerUp": 0.60, "mouthFrown": 0.60, "mouthShrugLower": 0.35, "eyeSquint": 0.15},
    "disgust": {"noseSneer": 0.75, "mouthUpperUp": 0.45, "browDown": 0.40, "eyeSquint": 0.35},
    "fear": {"browInnerUp": 0.60, "eyeWide": 0.60, "mouthStretch": 0.55, "jawOpen": 0.20},
    "talk_a": {"jawOpen": 0.45, "mouthLowerDown": 0.20, "mouthUpperUp": 0.10},
    "talk_e": {"jawOpen": 0.18, "mouthStretch": 0.45, "mouthUpperUp": 0.20, "mouthLowerDown": 0.30},
    "talk_o": {"jawOpen": 0.35, "mouthFunnel": 0.65},
    "talk_m": {"mouthPress": 0.45, "mouthRollLower": 0.30, "mouthRollUpper": 0.30},
    "kiss": {"mouthPucker": 0.85},
    "puff": {"cheekPuff": 0.60, "mouthPress": 0.20},
    "blink": {"eyeBlink": 0.95},
    "raise": {"browInnerUp": 0.55, "browOuterUp": 0.65},
    "mouth_left": {"mouthLeft": 0.60},
    "mouth_right": {"mouthRight": 0.60},
    "jaw_side_left": {"jawLeft": 0.50},
    "jaw_side_right": {"jawRight": 0.50},
    "look_left": {"eyeLookOutLeft": 0.60, "eyeLookInRight": 0.60},
    "look_right": {"eyeLookInLeft": 0.60, "eyeLookOutRight": 0.60},
    "look_up": {"eyeLookUp": 0.50},
    "look_down": {"eyeLookDown": 0.50},
}  # fmt: skip


def recipe_matrix(labels: list[str]) -> np.ndarray:
    """(R, 52) coefficients of all recipes at intensity 1."""
    index = {label: i for i, label in enumerate(labels)}
    table = np.zeros((len(RECIPES), len(labels)))
    for row, recipe in zip(table, RECIPES.values(), strict=True):
        for action, value in recipe.items():
            for name in (action, f"{action}Left", f"{action}Right"):
                if name in index:
                    row[index[name]] = value
    return table


def sample_actions(n: int, rng: np.random.Generator, labels: list[str], strength: float = 1.0) -> np.ndarray:
    """(n, 52) float32 coefficients in [0, 1]; about one face in ten is nearly neutral."""
    table = recipe_matrix(labels)
    picks = rng.integers(len(table), size=(n, 2))
    intensity = np.minimum(1.5 * rng.beta(2.0, 1.6, (n, 2)), 1.2) * [1.0, 0.6]
    intensity[:, 1] *= rng.random(n) < 0.5
    intensity *= np.where(rng.random(n) < 0.1, 0.1, 1.0)[:, None]
    coefficients = np.einsum("nr,nrk->nk", intensity, table[picks])
    lateral = {label[:-4]: i for i, label in enumerate(labels) if label.endswith("Left")}
    skew = rng.normal(0.0, 0.10, (n, len(lateral)))
    for column, (stem, left) in enumerate(lateral.items()):
        right = labels.index(stem + "Right")
        coefficients[:, left] *= 1.0 + skew[:, column]
        coefficients[:, right] *= 1.0 - skew[:, column]
    eyes = np.array([label.startswith("eyeLook") or label == "tongueOut" for label in labels])
    noise = np.maximum(rng.normal(0.0, 0.05, coefficients.shape), 0.0)
    coefficients += np.where(eyes, 0.0, noise)
    _keep_lips_apart(coefficients, labels)
    return np.clip(coefficients * strength, 0.0, 1.2).astype(np.float32)


def _keep_lips_apart(coefficients: np.ndarray, labels: list[str]) -> None:
    """mouthClose only makes sense against an open jaw (it would push the lips through each other), in place."""
    close, jaw = labels.index("mouthClose"), labels.index("jawOpen")
    coefficients[:, close] = np.minimum(coefficients[:, close], 0.5 * coefficients[:, jaw])
