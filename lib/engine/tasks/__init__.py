"""What the runs of this project learn: one file for each family of runs, each with its `Task`."""

from lib.data.crops import TARGET_YAW
from lib.engine.tasks.pretrain import PretrainNetwork, PretrainTask
from lib.engine.tasks.sampling import BatchSampler, nearest_views, random_views
from lib.engine.tasks.siamese import SiameseTask

__all__ = [
    "TARGET_YAW",
    "BatchSampler",
    "PretrainNetwork",
    "PretrainTask",
    "SiameseTask",
    "nearest_views",
    "random_views",
]
