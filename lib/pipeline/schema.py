"""Settings that params.yaml may hold although no profile lists them, for `lib.core.params.check_params`."""


def further() -> dict[str, type]:
    """The dataclasses that read sections with optional settings, by dotted section; `loop` stands for every loop.

    Imported here only, as they bring torch along: a pipeline that has nothing to do must not wait for it.
    """
    from lib.datasets.micc.twin import MiccTwinConfig
    from lib.datasets.multipie.twin import MultiPieConfig
    from lib.datasets.threedfaw.twin import TwinConfig
    from lib.engine.loop import LoopConfig
    from lib.fit.dense import DenseOptions
    from lib.fit.joint import FitOptions
    from lib.morphable.build import BuildConfig
    from lib.photos.settings import PhotoSettings
    from lib.synthesis.scan import ScannerConfig

    return {
        "data.micc": MiccTwinConfig,
        "data.micc.scanner": ScannerConfig,
        "data.multipie": MultiPieConfig,
        "data.threedfaw": TwinConfig,
        "data.threedfaw.scanner": ScannerConfig,
        "face_model": BuildConfig,
        "loop": LoopConfig,
        "photos": PhotoSettings,
        "photos.dense": DenseOptions,
        "photos.fit": FitOptions,
    }
