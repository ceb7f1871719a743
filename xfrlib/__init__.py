"""Explain why a face recogniser chose one person and not her look-alike, and measure how far to trust it."""

from xfrlib.cam import class_activation_maps
from xfrlib.explanation import Explanation, explain
from xfrlib.judge import deletion_retention
from xfrlib.match import explain_match
from xfrlib.models import load_backbone
from xfrlib.models.classifier import FaceClassifier
from xfrlib.profile import Profile, load_profile
from xfrlib.regions import top_fraction_mask
from xfrlib.sdd import Divergence, scaled_directed_divergence
from xfrlib.trust import should_show

__version__ = "0.1.0"

__all__ = [
    "Divergence",
    "Explanation",
    "FaceClassifier",
    "Profile",
    "class_activation_maps",
    "deletion_retention",
    "explain",
    "explain_match",
    "load_backbone",
    "load_profile",
    "scaled_directed_divergence",
    "should_show",
    "top_fraction_mask",
]
