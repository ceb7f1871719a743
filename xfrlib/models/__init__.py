"""Backbones, the identity classifier, and their weights."""

from xfrlib.models.backbones import BACKBONES, Backbone
from xfrlib.models.checkpoints import load_backbone
from xfrlib.models.classifier import FaceClassifier
from xfrlib.models.weights import save_weights

__all__ = ["BACKBONES", "Backbone", "FaceClassifier", "load_backbone", "save_weights"]
