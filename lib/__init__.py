"""Five multi-view face-reconstruction papers on one face model, one data set, one set of metrics."""

__version__ = "0.1.0"
