"""Temperature scaling: the temperature that was put in comes out, and a perfect network stays finite."""

import pytest
import torch

from studies.calibration import expected_calibration_error, fit_temperature


def drawn(scale: float, n: int = 4000) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and labels drawn from their softmax, the logits then multiplied by `scale`."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(n, 5, generator=generator)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    return scale * logits, labels


@pytest.mark.parametrize("scale", [0.5, 1.0, 4.0])
def test_the_temperature_undoes_the_scale(scale: float) -> None:
    logits, labels = drawn(scale)
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(scale, rel=0.05)
    probability, answer = (logits / temperature).softmax(1).max(1)
    assert expected_calibration_error(probability, answer == labels) < 0.02


def test_a_network_that_is_always_right_gets_a_temperature_above_zero() -> None:
    logits = 10 * torch.eye(3).repeat(10, 1)
    assert 0.5 < fit_temperature(logits, torch.arange(3).repeat(10)) < 20


def test_calibration_error_by_hand() -> None:
    probability, right = torch.tensor([0.95, 0.95, 0.55, 0.55]), torch.tensor([True, False, True, False])
    assert expected_calibration_error(probability, right) == pytest.approx((0.45 + 0.05) / 2)
    with pytest.raises(ValueError, match="expected logits"):
        fit_temperature(torch.zeros(0, 3), torch.zeros(0))
