"""Fine-tune as a profile says, in one process or in many; notebook 02 then finds the work done.

python -m xfrlib.training --profile facescrub12
accelerate launch -m xfrlib.training --profile paper
"""

from __future__ import annotations

from xfrlib.artifacts import in_sentences
from xfrlib.models.classifier import FaceClassifier
from xfrlib.run import command_line_run
from xfrlib.training.learner import make_accelerator
from xfrlib.training.loop import fine_tune
from xfrlib.training.recipe import fine_tuning_options

NOTEBOOK = "02_fine_tuning"


@in_sentences()
def main(arguments: list[str] | None = None) -> None:
    """The command line; see the top of this file."""
    run = command_line_run(NOTEBOOK, "python -m xfrlib.training", __doc__, arguments)
    accelerator = make_accelerator(run.device)  # first: what is not installed is named before any work
    train, validation = run.dataset("train"), run.dataset("validation")
    model = FaceClassifier(run.backbone(), train.num_classes, seed=run.profile.seed)
    tuning = fine_tune(model, train, validation, **fine_tuning_options(run))
    if accelerator.is_main_process:
        print(
            f"{len(tuning.history)} epochs on {tuning.processes} x {tuning.device} in {tuning.precision}; "
            f"best is epoch {tuning.best_epoch}: validation accuracy {tuning.best_validation_accuracy:.2%}. "
            f"Next: notebooks/{NOTEBOOK}.ipynb, which reads {run.output('checkpoint.pt')}."
        )


if __name__ == "__main__":
    main()
