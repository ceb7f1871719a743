"""The numbers on the model cards and on the page of the paper at full size, held to the code."""

import csv
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from xfrlib.controls import CONTROLS
from xfrlib.models import BACKBONES, Backbone, FaceClassifier
from xfrlib.profile import load_profile
from xfrlib.tables import MAPS

ROOT = Path(__file__).resolve().parents[1]
CARDS = (ROOT / "book" / "models.md").read_text(encoding="utf-8")
FULL_SIZE = (ROOT / "book" / "full_size.md").read_text(encoding="utf-8")
PICTURE = torch.empty(1, 3, 112, 112, device="meta")


def on_meta(name: str) -> Backbone:
    """The backbone without the memory of its weights, in evaluation mode."""
    with torch.device("meta"):
        return BACKBONES[name]().eval()


def macs(backbone: Backbone) -> int:
    counted = []

    def count(module: nn.Module, _: object, output: torch.Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        counted.append(output.numel() * module.weight[0].numel())

    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    backbone(PICTURE)
    return sum(counted)


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def number(text: str) -> float:
    return float(text.replace(" ", ""))


def stated(sentence: str) -> list[float]:
    """The numbers where `sentence` has ``#``, from the page of the paper at full size; it must stand there once."""
    pattern = re.escape(" ".join(sentence.split())).replace("\\#", r"(\d[\d .]*?)")
    found = re.findall(pattern, " ".join(FULL_SIZE.split()))
    assert len(found) == 1, sentence
    return [number(text) for text in ([found[0]] if isinstance(found[0], str) else found[0])]


def card_rows() -> dict[str, list[str]]:
    rows = re.findall(r"^\| `(\w+)` \| ([\d ]+) \| (.+) \|$", CARDS, re.MULTILINE)
    return {name: [first, *rest.split(" | ")] for name, first, rest in rows}


def test_every_backbone_has_a_card() -> None:
    assert set(card_rows()) == set(BACKBONES)
    headings = " ".join(re.findall(r"^## (.*)$", CARDS, re.MULTILINE))
    assert all(f"`{name}`" in headings for name in BACKBONES)


@pytest.mark.parametrize("name", BACKBONES)
def test_the_card_says_what_the_backbone_is(name: str) -> None:
    total, head, million, shape, embedding = card_rows()[name]
    backbone = on_meta(name)
    layers = [getattr(backbone, layer) for layer in backbone.embedding_layers]
    in_head = sum(parameters(layer) for layer in layers if layer is not None)
    assert (number(total), number(head)) == (parameters(backbone), in_head)
    assert number(million) == round(macs(backbone) / 1e6)
    features = backbone(PICTURE)
    assert tuple(map(int, shape.split("×"))) == features.shape[1:]
    if embedding == "none":
        with pytest.raises(ValueError, match="no embedding head"):
            backbone.embed(features)
    else:
        assert int(embedding) == backbone.embed(features).shape[1]


def test_the_card_of_slim_quotes_its_log() -> None:
    lines = (ROOT / "scripts" / "pretrain_slim_log.csv").read_text(encoding="utf-8").splitlines()
    last = list(csv.DictReader(line for line in lines if not line.startswith("#")))[-1]
    assert f"{float(last['heldout_accuracy']):.1%}".replace("%", " %") in CARDS
    assert f"{float(last['lookalike_auc']):.1%}".replace("%", " %") in CARDS
    settings = dict(pair.split("=") for pair in lines[0].removeprefix("# ").split())
    families, size = int(settings["families"]), int(settings["family_size"])
    assert f"{families * size} made people in {families} families of three, {settings['pictures']} pictures" in CARDS
    assert size == 3 and f"{last['epoch']} epochs" in " ".join(CARDS.split())


def test_the_work_at_full_size_is_counted_as_the_page_says() -> None:
    settings = load_profile("paper")
    (million,) = stated("takes # million MACs")
    assert million == round(macs(on_meta(settings.backbone)) / 1e6)
    train, validation, test, epochs = 34_099, 4_555, 4_494, settings.epochs
    assert stated("# × # = # pictures in training") == [train, epochs, train * epochs]
    draws = settings.draws * (len(CONTROLS) - 1) + 1
    regions = 2 * len(settings.fills) * (len(MAPS) + draws)
    assert stated("2 × # fills × (# maps + # control regions) = # passes") == [
        len(settings.fills), len(MAPS), draws, regions,
    ]  # fmt: skip
    passes = validation * epochs + test * regions
    assert stated("# × # + # × # = # pictures") == [validation, epochs, test, regions, passes]
    (peta,) = stated("that is # petaFLOP")
    assert peta == round((3 * train * epochs + passes) * 2 * million * 1e6 / 1e15)


def test_disk_and_memory_at_full_size_are_those_of_the_model() -> None:
    settings = load_profile("paper")
    with torch.device("meta"):
        model = FaceClassifier(on_meta(settings.backbone), settings.identities or 0)
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    weights = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    assert stated("a file of # MB on the hub") == [round(parameters(model.backbone) * 4 / 1e6)]
    assert stated("# parameters learn") == [learning]
    assert stated("= # GB for a checkpoint") == [round((2 * weights + 8 * learning) / 1e9, 2)]
    assert stated("optimiser take # GB") == [round((weights + 12 * learning) / 1e9, 2)]
    (each,) = stated("another # MB for each picture")
    assert each == round(activations(model) / 1e6)
    assert stated("for # pictures at once # GB") == [settings.batch_size, round(settings.batch_size * each / 1e3, 1)]
    assert stated("112 × 112 × 3 × # bytes = # GB") == [43_148, round(112 * 112 * 3 * 43_148 / 1e9, 2)]


def activations(model: FaceClassifier) -> int:
    """Bytes that a second picture adds to what is kept for the backward pass, in float32."""

    def kept(pictures: int) -> int:
        storages: dict[int, torch.UntypedStorage] = {}
        weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storages[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model.train()(torch.empty(pictures, 3, 112, 112, device="meta"))
        return sum(storage.nbytes() for key, storage in storages.items() if key not in weights)

    return kept(2) - kept(1)
