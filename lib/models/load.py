"""Any network that `lib.train` wrote, by what its header says it is."""

from pathlib import Path

from lib.core.checkpoint import read_meta
from lib.core.errors import InputError
from lib.models import mvfnet, siamese
from lib.models.base import Method
from lib.models.peers import regressor

_LOADERS = {"mvfnet": mvfnet.load_method, "single": regressor.load_method}


def load_method(run_dir: str | Path) -> Method:
    """A trained network in evaluation mode from the folder of a run: a Siamese network, an MVF-Net or one of its peers.

    Raises InputError when the folder holds no trained network, or of a kind that is not known here.
    """
    path = Path(run_dir) / "model.safetensors"
    kind = read_meta(path).get("network")
    if kind is None:  # the Siamese networks name their run alone
        return siamese.load_method(run_dir)
    if kind not in _LOADERS:
        raise InputError(path, f"a network of a known kind ({', '.join(_LOADERS)})", f"its header says {kind!r}")
    return _LOADERS[kind](run_dir)
