"""Fit the face model to 68 landmarks in one or many views, with robust noise, Gaussian priors and a sliding contour."""

from lib.fit.joint import FitOptions, FitResult, View, fit_views
from lib.fit.model import LandmarkModel

__all__ = ["FitOptions", "FitResult", "LandmarkModel", "View", "fit_views"]
