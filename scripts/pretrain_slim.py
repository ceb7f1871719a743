"""Pretrain the built-in backbone ``slim`` on made identities that never appear in the book.

A classifier of several hundred made people, in families of look-alikes, is trained and its last layer thrown away.
Epoch by epoch the log gains a row and the state is kept under --work, so that the same command takes up an interrupted
run. The defaults are what the shipped weights were trained with.
"""

from __future__ import annotations

import argparse
import csv
import platform
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from madefaces.people import make_families, picture_seed, render
from xfrlib.models import FaceClassifier, load_backbone, save_weights

HERE = Path(__file__).resolve().parent
LOG_COLUMNS = (
    *("epoch", "learning_rate", "train_loss", "train_accuracy"),
    *("heldout_accuracy", "lookalike_auc", "stranger_auc", "seconds"),
)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--families", type=int, default=160, help="families of look-alikes")
    parser.add_argument("--family-size", type=int, default=3, help="members of each family")
    parser.add_argument("--pictures", type=int, default=40, help="training pictures per identity")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--stop-after", type=int, help="leave after this epoch; the next run goes on from there")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=3e-3, help="highest, after half an epoch of warm-up")
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, required=True, help="folder for rendered pictures and the training state")
    parser.add_argument("--output", type=Path, default=HERE.parent / "xfrlib" / "models" / "slim.safetensors")
    parser.add_argument("--log", type=Path, default=HERE / "pretrain_slim_log.csv")
    return parser.parse_args()


def rendered(file: Path, families: int, size: int, pictures: int, seed: int, first: int = 0) -> np.ndarray:
    """Pictures (identities, pictures, 112, 112, 3) of pretraining identities, rendered once and kept in `file`."""
    people = make_families(families, size, seed=seed, purpose="pretraining")
    shape = (len(people), pictures, 112, 112, 3)
    if not file.is_file():
        partial = file.with_suffix(".partial")
        store = np.lib.format.open_memmap(partial, "w+", np.uint8, shape)
        for row, person in enumerate(people):
            seeds = [picture_seed(seed, row, first + k) for k in range(pictures)]
            store[row] = render([person] * pictures, seeds)[0]
        store.flush()
        partial.rename(file)
    store = np.load(file, mmap_mode="c")  # copy on write: torch wants writable memory
    if store.shape != shape:
        raise SystemExit(f"{file} holds {store.shape}, not {shape}: empty --work or give another folder")
    return store


def as_tensor(pictures: np.ndarray) -> Tensor:
    """uint8 (B, 112, 112, 3) to float (B, 3, 112, 112) in [0, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous().float().div_(255)


@torch.no_grad()
def features_and_labels(model: FaceClassifier, pictures: np.ndarray) -> tuple[Tensor, Tensor]:
    """Unit pooled features (n, C) and predicted labels (n,) of (identities, pictures, 112, 112, 3)."""
    model.eval()
    flat = pictures.reshape(-1, *pictures.shape[2:])
    pooled = torch.cat([model.features(as_tensor(flat[k : k + 128])).mean((2, 3)) for k in range(0, len(flat), 128)])
    return functional.normalize(pooled), functional.linear(pooled, model.weight, model.bias).argmax(1)


def pair_auc(features: Tensor, identities: int, pictures: int, family_size: int) -> tuple[float, float]:
    """Chance that two pictures of one person lie closer than two of look-alikes, and than two of strangers."""
    cosine = (features @ features.T).numpy()
    person = np.repeat(np.arange(identities), pictures)
    family = person // family_size
    upper = np.triu(np.ones_like(cosine, bool), 1)
    same = np.sort(cosine[upper & (person[:, None] == person)])
    kin = cosine[upper & (person[:, None] != person) & (family[:, None] == family)]
    strangers = cosine[upper & (family[:, None] != family)]
    below = [np.searchsorted(same, other).mean() / len(same) for other in (kin, strangers)]
    return 1 - float(below[0]), 1 - float(below[1])


def rate(step: int, warm: int, total: int) -> float:
    """Linear warm-up, then half a cosine, as a share of the highest learning rate."""
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + float(np.cos(np.pi * (step - warm) / max(1, total - warm))))


def train_epoch(
    model: FaceClassifier, optimiser: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LRScheduler,
    pictures: np.ndarray, batch_size: int, rng: np.random.Generator,
) -> tuple[float, float]:  # fmt: skip
    """One pass in random order with random flips; mean loss and accuracy."""
    model.train()
    per_person = pictures.shape[1]
    order = rng.permutation(pictures.shape[0] * per_person)
    loss_sum = hits = seen = 0.0
    for start in range(0, len(order) - batch_size + 1, batch_size):
        rows = order[start : start + batch_size]
        labels = torch.from_numpy(rows // per_person)
        batch = as_tensor(pictures[rows // per_person, rows % per_person])
        flip = torch.from_numpy(rng.random(len(rows)) < 0.5)
        batch[flip] = batch[flip].flip(3)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(batch)
        loss = functional.cross_entropy(logits.float(), labels, label_smoothing=0.05)
        if not torch.isfinite(loss):
            raise SystemExit("the loss is not finite: lower --learning-rate")
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        loss_sum, hits, seen = (
            loss_sum + loss.item() * len(rows),
            hits + (logits.argmax(1) == labels).sum().item(),
            seen + len(rows),
        )
    return loss_sum / seen, hits / seen


def main() -> None:
    given = arguments()
    torch.set_num_threads(given.threads)
    given.work.mkdir(parents=True, exist_ok=True)
    sizes = (given.families, given.family_size)
    pictures = rendered(given.work / "train.npy", *sizes, given.pictures, given.seed)
    heldout = rendered(given.work / "heldout.npy", *sizes, 4, given.seed, first=given.pictures)
    unseen = rendered(given.work / "unseen.npy", 30, 3, 6, given.seed + 1)

    people = len(pictures)
    torch.manual_seed(given.seed)
    model = FaceClassifier(load_backbone("slim", seed=given.seed), people)
    optimiser = torch.optim.AdamW(model.parameters(), lr=given.learning_rate, weight_decay=given.weight_decay)
    steps = people * given.pictures // given.batch_size
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rate(step, steps // 2, steps * given.epochs))
    state_file, done = given.work / "state.pt", 0
    if state_file.is_file():
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        done = state["epoch"]
    else:
        shown = {k: v for k, v in vars(given).items() if not isinstance(v, Path) and k != "stop_after"}
        versions = f"python {platform.python_version()}, numpy {np.__version__}, torch {torch.__version__}"
        notes = [
            " ".join(f"{k}={v}" for k, v in shown.items()),
            versions,
            "bfloat16 autocast, CPU, label smoothing 0.05",
        ]
        given.log.write_text("".join(f"# {note}\n" for note in notes) + ",".join(LOG_COLUMNS) + "\n", encoding="utf-8")

    for epoch in range(done + 1, (given.stop_after or given.epochs) + 1):
        began = time.perf_counter()
        rng = np.random.default_rng([given.seed, epoch])
        loss, accuracy = train_epoch(model, optimiser, schedule, pictures, given.batch_size, rng)
        labels = torch.arange(people).repeat_interleave(heldout.shape[1])
        held_accuracy = (features_and_labels(model, heldout)[1] == labels).float().mean().item()
        aucs = pair_auc(features_and_labels(model, unseen)[0], unseen.shape[0], unseen.shape[1], 3)
        row = [epoch, f"{schedule.get_last_lr()[0]:.3g}", f"{loss:.4f}", f"{accuracy:.4f}", f"{held_accuracy:.4f}"]
        row += [f"{auc:.4f}" for auc in aucs] + [f"{time.perf_counter() - began:.1f}"]
        with given.log.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(row)
        print(dict(zip(LOG_COLUMNS, row, strict=True)), flush=True)
        state = {"model": model.state_dict(), "optimiser": optimiser.state_dict()}
        torch.save(state | {"schedule": schedule.state_dict(), "epoch": epoch}, state_file.with_suffix(".partial"))
        state_file.with_suffix(".partial").replace(state_file)
        save_weights(model.backbone, given.output)


if __name__ == "__main__":
    main()
