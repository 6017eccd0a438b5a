"""Optical flow networks, frozen and differentiable to their input images: PWC-Net (paper) and RAFT."""

from lib.models.flow.load import KINDS, build_flow, load_flow
from lib.models.flow.pwcnet import PWCNet
from lib.models.flow.raft import Raft

__all__ = ["KINDS", "PWCNet", "Raft", "build_flow", "load_flow"]
