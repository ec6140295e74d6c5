"""Two processes under torchrun, over gloo on the CPU: the weights of one process on the same batches, each its own samples."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'clcr-edge[train]'")

from safetensors.torch import load_file  # noqa: E402
from tiny_sets import write_config, write_utterances  # noqa: E402
from two_processes import SIZES, STEPS, train_plain  # noqa: E402

from clcr_edge.data.sets import load  # noqa: E402
from clcr_edge.errors import ClcrEdgeError, UsageError  # noqa: E402
from clcr_edge.train.loop import Schedule, fit  # noqa: E402
from clcr_edge.train.parallel import ALONE, training_group  # noqa: E402
from clcr_edge.train.samples import Reader, network_for  # noqa: E402
from clcr_edge.train.set_batches import SetBatches  # noqa: E402


def torchrun(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0"]
    command[-2:] = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]  # a free port
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, check=False, env=environment, timeout=120
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_utterances(tmp_path_factory.mktemp("utterances"))


@pytest.fixture(scope="module")
def together(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("two")
    done = torchrun(Path(__file__).with_name("two_processes.py"), root, out)
    assert done.returncode == 0, done.stderr[-3_000:]
    return out


def test_two_processes_reach_the_weights_of_one(together: Path, root: Path, tmp_path: Path) -> None:
    alone, _ = train_plain(root, tmp_path / "alone", ALONE)
    assert not torch.equal(alone["read.weight"], train_start())
    for rank in range(2):
        weights = load_file(together / f"plain{rank}.safetensors")
        for name, value in alone.items():
            torch.testing.assert_close(weights[name], value, atol=1e-6, rtol=1e-5)
        assert torch.equal(weights["unused"], torch.ones(3, 3))
    one, two = (
        [json.loads(line)["total"] for line in (path / "metrics.jsonl").read_text().splitlines() if '"plain"' in line]
        for path in (tmp_path / "alone", together / "together")
    )
    assert one == pytest.approx(two, abs=2e-5)  # the metrics are of all samples, and written once


def train_start() -> torch.Tensor:
    from two_processes import Plain

    return Plain().read.weight


def test_each_process_sees_its_own_part_of_every_batch(together: Path, root: Path) -> None:
    data = load("mosi-utterance", root)
    batches = SetBatches(data, data.split("train"), Reader(network_for(data, (), SIZES)), 3, 6)
    whole = [data.names[i] for k in range(STEPS) for i in batches.chosen(k)[0].tolist()]
    first, second = (json.loads((together / f"seen{rank}.json").read_text()) for rank in range(2))
    assert sorted([*first, *second]) == sorted(whole)
    epoch = [set(names[: len(names) // (STEPS // batches.per_epoch)]) for names in (first, second)]
    assert all(epoch)
    assert not epoch[0] & epoch[1]


def test_a_whole_network_is_the_same_in_both_processes_to_the_last_bit(together: Path) -> None:
    one, two = (load_file(together / f"teacher{rank}.safetensors") for rank in range(2))
    assert one.keys() == two.keys()
    for name in one:
        assert torch.equal(one[name], two[name]), name  # running statistics among them


def test_no_thread_of_the_group_outlives_it(together: Path) -> None:
    # One that did would let go of a tensor while the interpreter ends, which aborts the process now and then.
    for rank in range(2):
        threads = json.loads((together / f"threads{rank}.json").read_text())
        assert threads
        assert not [name for name in threads if "gloo" in name]


def test_the_command_line_under_torchrun(root: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "c.toml", "epochs = 2")
    done = torchrun("-m", "clcr_edge", "train", "mosi-utterance", "--root", root, "--out", tmp_path / "o", "--config", config)
    assert done.returncode == 0, done.stderr[-3_000:]
    assert done.stderr.count("2 epochs") == 1, done.stderr
    records = (tmp_path / "o" / "metrics.jsonl").read_text().splitlines()
    assert len(records) == 2
    assert {"best.safetensors", "last.safetensors", "curves.svg"} <= {p.name for p in (tmp_path / "o").iterdir()}


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="device = 'cuda': torch finds no GPU"), training_group("cuda"):
        pass


def test_a_gradient_that_is_no_number_stops_before_it_touches_the_weights(tmp_path: Path) -> None:
    class Edge(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = torch.nn.Parameter(torch.ones(2))

    model = Edge()

    def loss(batch: int, step: int) -> dict[str, torch.Tensor]:
        # The square root of 0 is a number, its slope is none.
        return {"total": (model.a * (0.0 if step == 2 else 1.0)).sum().abs().sqrt()}

    schedule = Schedule(steps=5, lr=0.01, save_every=1, clip=0.0)
    with pytest.raises(ClcrEdgeError, match="the gradient became nan at step 2; the last good state is in"):
        fit("edge", model, schedule, lambda first, count: iter(range(first, first + count)), loss, tmp_path, 0)
    assert torch.isfinite(model.a).all()
