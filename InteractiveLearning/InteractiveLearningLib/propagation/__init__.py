"""Slice masks -> three-dimensional proxy mask, by registration of slices."""

from InteractiveLearningLib.propagation.flow import FlowCache
from InteractiveLearningLib.propagation.propagate import ProxyMask, box_around, fuse, propagate

__all__ = ["FlowCache", "ProxyMask", "box_around", "fuse", "propagate"]
