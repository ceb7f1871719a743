"""Fine-tuning an identity classifier with the paper's recipe, cross-entropy, AdamW and StepLR, on any devices."""

from xfrlib.training.loop import FineTuning, fine_tune
from xfrlib.training.recipe import Recipe, fine_tuning_options, training_precision

__all__ = ["FineTuning", "Recipe", "fine_tune", "fine_tuning_options", "training_precision"]
