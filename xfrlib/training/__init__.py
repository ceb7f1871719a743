"""Fine-tuning an identity classifier with the paper's recipe: cross-entropy, AdamW, StepLR.

One code path for a CPU, a GPU, several GPUs and several machines: `fine_tune` in a notebook, or
``accelerate launch -m xfrlib.training --profile <name>``.
"""

from xfrlib.training.loop import FineTuning, fine_tune
from xfrlib.training.recipe import Recipe, fine_tuning_options, training_precision

__all__ = ["FineTuning", "Recipe", "fine_tune", "fine_tuning_options", "training_precision"]
