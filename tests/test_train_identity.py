"""A hash of what decides a training tells runs apart, and the same run twice not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'clcr-edge[train]'")

from clcr_edge.data.synthetic import synthetic_bank  # noqa: E402
from clcr_edge.errors import ClcrEdgeError  # noqa: E402
from clcr_edge.train.checkpoint import resume_step, save_tensors  # noqa: E402
from clcr_edge.train.identity import of_bank, of_settings, of_weights  # noqa: E402


def test_weights_by_value_and_name() -> None:
    torch.manual_seed(0)
    one, other = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    assert of_weights(one) != of_weights(other)
    other.load_state_dict(one.state_dict())
    assert of_weights(one) == of_weights(other)
    with torch.no_grad():
        other.bias[1] += 1e-6
    assert of_weights(one) != of_weights(other)


def test_a_bank_by_one_sample_of_one_recording() -> None:
    bank = synthetic_bank("check")
    louder = bank.recordings[7].copy()
    louder[100] += 0.01
    changed = dataclasses.replace(bank, recordings=(*bank.recordings[:7], louder, *bank.recordings[8:]))
    assert of_bank(bank) == of_bank(synthetic_bank("check"))
    assert of_bank(bank) != of_bank(changed)
    assert of_bank(bank, changed) != of_bank(changed, bank)


def test_settings_do_not_run_together() -> None:
    assert of_settings("ab", "c") != of_settings("a", "bc")
    assert of_settings({"a": 1, "b": 2}) == of_settings({"b": 2, "a": 1})
    assert of_settings(1, None) != of_settings(1, "")


def test_a_resume_file_of_another_training_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "streams.resume.safetensors"
    save_tensors(path, {"x": torch.from_numpy(np.zeros(1))}, {"step": "5", "identity": of_settings(1)})
    assert resume_step(path, of_settings(1)) == 5
    with pytest.raises(ClcrEdgeError, match="another seed, data or configuration"):
        resume_step(path, of_settings(2))
