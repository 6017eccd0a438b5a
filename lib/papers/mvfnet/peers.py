"""The single-view methods that MVF-Net's table 2 compares with: their settings, and what each learns from.

`single` is stage 1 for one view, supervised on 300W-LP like v1. `tran`, `mofa` and `genova` start from it and are stage 2 on
Multi-PIE: the same images, steps and encoder as v2 to v4, only what they learn from differs. Genova's recogniser is
trained by `lib.engine.pretraining.identity`.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib.core.params import material
from lib.engine.device import MixedPrecision
from lib.engine.pretraining.identity import identity_config, identity_path, load_recogniser
from lib.models.mvfnet import Weights
from lib.models.peers.genova import Genova, GenovaWeights
from lib.models.peers.mofa import MoFA, MoFAWeights
from lib.models.peers.regressor import SingleRegressor
from lib.models.peers.tran import Tran, TranWeights
from lib.papers.mvfnet.tasks import Objective

PEERS = ("tran", "mofa", "genova")
SINGLE_VIEW = ("single", "single_long", *PEERS)
"""Runs whose network is a `SingleRegressor`."""


@dataclass
class PeersConfig:
    """mvfnet.peers of params.yaml: how many albedo coefficients are regressed, and the weights of each method's losses."""

    n_alb: int = 50
    tran: TranWeights = field(default_factory=TranWeights)
    mofa: MoFAWeights = field(default_factory=MoFAWeights)
    genova: GenovaWeights = field(default_factory=GenovaWeights)


def objective(
    params: dict[str, Any], run: str, model: SingleRegressor, config: PeersConfig, weights: Weights, precision: str
) -> tuple[Objective, dict[str, Path]]:
    """What tran, mofa or genova learns from, and the files that it needs by their role.

    weights: MVF-Net's, for what the peers take over (landmarks). precision: of the recogniser, as of the training loop.

    Raises InputError when Genova's recogniser is not there.
    """
    if run == "tran":
        return Tran(config.tran), {}
    if run == "mofa":
        return MoFA(model, config.mofa, weights.lambda_5, weights.contour), {}
    recogniser = MixedPrecision(load_recogniser(params), precision)
    source = identity_config(params).path or identity_path(material(params), params["mvfnet"]["backbone"])
    return Genova(model, recogniser, config.genova, weights.lambda_5, weights.contour), {"recogniser": source}
