"""A panel for JupyterLab: choose a face and its rivals, move the settings, see the maps and what the masks do."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

import ipywidgets as widgets
import numpy as np
import numpy.typing as npt
import torch.nn.functional as F
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from PIL import Image
from torch import Tensor, nn

from xfrlib.cam import PooledFeatures, pooled_features
from xfrlib.config import FORMS
from xfrlib.data.faces import FaceDataset
from xfrlib.evaluation.masks import top_fraction_mask
from xfrlib.evaluation.perturbation import deletion_retention
from xfrlib.explain import Explanation, explain_features, select_classes
from xfrlib.plots import CAM_UNIT, DIVERGING, SDD_UNIT, SEQUENTIAL, as_pictures, percent, tint

_WIDE = {"description_width": "90px"}


def explorer(model: nn.Module, dataset: FaceDataset, *, top_k: int = 5, **settings: Any) -> Explorer:
    """A panel over the pictures of `dataset`, to end a notebook cell with.

    Parameters
    ----------
    model : ends in average pooling and one linear layer (see `xfrlib.explain`), in evaluation mode. It is run where
        its parameters are.
    dataset : the pictures to choose from; its identities are the classes of `model`.
    top_k : classes compared when a picture is chosen, the predicted one among them.
    **settings : first values of ``delta``, ``scale``, ``scale_min``, ``form`` and ``fraction`` (share of pixels
        deleted); ``centre`` as in `xfrlib.explain`.
    """
    return Explorer(model, dataset, top_k=top_k, **settings)


class Explorer(widgets.VBox):
    """What `explorer` returns. Its controls are attributes; the pictures are in `tiles` by name, the last result in
    `explanation` and `answers` (one row of `deletion_retention`)."""

    def __init__(
        self,
        model: nn.Module,
        dataset: FaceDataset,
        *,
        top_k: int = 5,
        delta: float = 1.0,
        scale: float = 1.0,
        scale_min: float = 1.0,
        form: str = "sum",
        fraction: float = 0.2,
        centre: bool = True,
    ) -> None:
        self.model, self.dataset, self.top_k, self.centre = model, dataset, top_k, centre
        self.explanation: Explanation | None = None
        self.answers: dict[str, Any] = {}
        self._passes: dict[int, tuple[Tensor, PooledFeatures]] = {}  # a picture goes through the network once
        self._masked: tuple[Any, dict[str, Any]] = (None, {})
        self._quiet = False
        labels = sorted(set(dataset.table["label"].tolist()))
        self.subject = widgets.Dropdown(
            options=[(dataset.identities[label], label) for label in labels], description="subject", style=_WIDE
        )
        self.picture = widgets.Dropdown(description="picture", style=_WIDE)
        self.rivals = widgets.SelectMultiple(description="rivals", rows=7, style=_WIDE)
        self.delta = _log_slider("delta", delta, -2, 2)
        self.scale = _log_slider("scale k", scale, -1, 2)
        self.scale_min = _log_slider("s at least", scale_min, -1, 1)
        self.form = widgets.Dropdown(options=FORMS, value=form, description="form", style=_WIDE)
        self.fraction = widgets.FloatSlider(
            value=fraction, min=0.01, max=0.9, step=0.01, description="share deleted", readout_format=".0%", style=_WIDE
        )
        self.status = widgets.HTML()
        self.tiles: dict[str, widgets.Image] = {}
        self._captions: dict[str, widgets.HTML] = {}
        self._faces, self._maps = widgets.HBox(), widgets.HBox(layout={"flex_flow": "row wrap"})
        choice = widgets.VBox([self.subject, self.picture, self.rivals])
        sliders = widgets.VBox([self.delta, self.scale, self.scale_min, self.form, self.fraction])
        super().__init__([widgets.HBox([choice, sliders]), self.status, self._faces, self._maps])

        self.subject.observe(self._choose_subject, "value")
        self.picture.observe(self._choose_picture, "value")
        for control in (self.rivals, self.delta, self.scale, self.scale_min, self.form, self.fraction):
            control.observe(self._redraw, "value")
        self._choose_subject()

    def _choose_subject(self, _: Any = None) -> None:
        rows = np.flatnonzero(self.dataset.table["label"].to_numpy() == self.subject.value).tolist()
        with self._silence():
            self.picture.options = [(self.dataset.table["path"][row].rpartition("/")[2], row) for row in rows]
            self.picture.value = rows[0]
        self._choose_picture()

    def _choose_picture(self, _: Any = None) -> None:
        if self._quiet:
            return
        with self._report("running the network"):
            _, pooled = self._pass(self.picture.value)
            classes = select_classes(pooled.logits, top_k=self.top_k)[0].tolist()
            by_score = [c for c in pooled.logits[0].argsort(descending=True).tolist() if c != classes[0]]
            with self._silence():
                self.rivals.options = [(self.dataset.identities[c], c) for c in by_score]
                self.rivals.value = tuple(classes[1:])
            self._draw()

    def _redraw(self, _: Any = None) -> None:
        if not self._quiet:
            with self._report("drawing"):
                self._draw()

    def _pass(self, row: int) -> tuple[Tensor, PooledFeatures]:
        if row not in self._passes:
            image = self.dataset[row][0][None].to(next(self.model.parameters()).device)
            self._passes[row] = image, pooled_features(self.model, image)
        return self._passes[row]

    def _draw(self) -> None:
        row = self.picture.value
        image, pooled = self._pass(row)
        if not self.rivals.value:
            raise ValueError("no rival is chosen: mark at least one in the list (Ctrl or Shift marks several)")
        result = explain_features(
            pooled,
            size=(image.shape[2], image.shape[3]),
            competitors=list(self.rivals.value),
            centre=self.centre,
            delta=self.delta.value,
            scale=self.scale.value,
            scale_min=self.scale_min.value,
            scale_max=max(50.0, self.scale_min.value),
            form=self.form.value,
        )
        mask = top_fraction_mask(result.log_sdd, self.fraction.value)
        key = row, mask.cpu().numpy().tobytes()
        if self._masked[0] != key:  # only another mask needs the network
            table = deletion_retention(self.model, image, mask, logits=pooled.logits)
            self._masked = key, {str(name): value for name, value in table.iloc[0].items()}
        self.explanation, self.answers = result, self._masked[1]
        self._show(as_pictures(image)[0], result, mask[0].cpu().numpy())

    def _show(self, picture: npt.NDArray[np.float32], result: Explanation, mask: npt.NDArray[np.bool_]) -> None:
        names = [self.dataset.identities[c] for c in result.classes[0].tolist()]
        chances = [percent(p) for p in result.probabilities[0]]
        size = (picture.shape[0], picture.shape[1])
        large = F.interpolate(result.cams, size=size, mode="bilinear", align_corners=False)[0]
        cams, heat = large.cpu().numpy(), result.sdd[0].cpu().numpy()
        high = float(np.abs(cams).max()) or 1.0
        signed = ScalarMappable(Normalize(-high, high), DIVERGING)
        kept, gone = picture * mask[..., None], picture * ~mask[..., None]
        after = {kind: percent(self.answers[f"{kind}_probability"]) for kind in ("deletion", "retention")}
        faces = {
            "picture": (picture, f"{names[0]}\n{chances[0]}"),
            "sdd": (
                tint(picture, heat, ScalarMappable(Normalize(0, 1), SEQUENTIAL)),
                f"{SDD_UNIT}\ndark 0 to yellow 1",
            ),
            "mask": (np.repeat(mask[..., None], 3, axis=2), f"mask\n{percent(mask.mean())} of pixels"),
            "deleted": (gone, f"deleted\n{after['deletion']}"),
            "retained": (kept, f"retained\n{after['retention']}"),
        }
        maps = {
            f"cam {i}": (tint(picture, cam, signed), f"CAM of {name}\n{chance}")
            for i, (cam, name, chance) in enumerate(zip(cams, names, chances, strict=True))
        }
        self._faces.children = [self._tile(name, *tile) for name, tile in faces.items()]
        self._maps.children = [self._tile(name, *tile) for name, tile in maps.items()]
        truth = self.dataset.identities[int(self.subject.value)]
        verdict = "right" if truth == names[0] else f"wrong: this is {truth}"
        self._say(f"{names[0]} ({verdict}). {CAM_UNIT}: blue −{high:.3g} to red {high:.3g}. Percentages: probability.")

    def _tile(self, name: str, pixels: npt.NDArray[Any], caption: str) -> widgets.Widget:
        if name not in self.tiles:
            self.tiles[name] = widgets.Image(format="png", layout={"width": "150px", "height": "150px"})
            self._captions[name] = widgets.HTML()
        buffer = io.BytesIO()
        Image.fromarray((255 * pixels.astype(np.float32) + 0.5).astype(np.uint8)).save(buffer, "png", compress_level=1)
        self.tiles[name].value = buffer.getvalue()
        text = escape(caption.replace("_", " ")).replace("\n", "<br>")
        self._captions[name].value = f"<div style='width:150px;line-height:1.3'>{text}</div>"
        return widgets.VBox([self.tiles[name], self._captions[name]])

    def _say(self, sentence: str) -> None:
        self.status.value = f"<span role='status'>{escape(sentence)}</span>"

    @contextmanager
    def _report(self, doing: str) -> Iterator[None]:
        """Say what is going on; an error that the user can mend becomes a sentence instead of a traceback."""
        self._say(f"{doing} …")
        try:
            yield
        except (ValueError, OSError) as error:
            self._say(f"Cannot show this: {error}")

    @contextmanager
    def _silence(self) -> Iterator[None]:
        """Change a control without answering to it."""
        self._quiet = True
        try:
            yield
        finally:
            self._quiet = False


def _log_slider(name: str, value: float, low: int, high: int) -> widgets.FloatLogSlider:
    return widgets.FloatLogSlider(
        value=value, min=low, max=high, step=0.05, description=name, readout_format=".3g", style=_WIDE
    )
