"""Sensitivity of units, the gate, and what is handed over when it does not hold: with faults planted in real INT8 graphs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'clcr-edge[train]'")
onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'clcr-edge[train]'")

from conftest import random_student  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from clcr_edge import bundle as bundles  # noqa: E402
from clcr_edge.calibration import sets  # noqa: E402
from clcr_edge.calibration.choose import Chosen  # noqa: E402
from clcr_edge.calibration.folder import calibration_set  # noqa: E402
from clcr_edge.calibration.probe import products, quantise_products  # noqa: E402
from clcr_edge.calibration.ranges import METHODS, Range  # noqa: E402
from clcr_edge.calibration.recorded import CalibrationWriter, config_hashes  # noqa: E402
from clcr_edge.calibration.sets import CalibrationSet, CheckSet, TickStream  # noqa: E402
from clcr_edge.calibration.streams import inputs_of  # noqa: E402
from clcr_edge.cli import app  # noqa: E402
from clcr_edge.config import StudentConfig  # noqa: E402
from clcr_edge.data.bank import NONE  # noqa: E402
from clcr_edge.data.streams import Event, Stream  # noqa: E402
from clcr_edge.errors import DataError, UsageError  # noqa: E402
from clcr_edge.export import quantised as quantised_module  # noqa: E402
from clcr_edge.export.gate import Gate, hold  # noqa: E402
from clcr_edge.export.graph import check, export_step  # noqa: E402
from clcr_edge.export.measure import Measured, Reliability, measure  # noqa: E402
from clcr_edge.export.pipeline import GRAPHS, PAGE, export_bundle  # noqa: E402
from clcr_edge.export.quantised import Quantised, calibrated  # noqa: E402
from clcr_edge.export.sensitivity import Sensitivity, float_units  # noqa: E402
from clcr_edge.runtime.onnx_engine import OnnxEngine  # noqa: E402
from clcr_edge.train.checkpoint import save_student  # noqa: E402
from clcr_edge.train.metrics import Metrics, event_label  # noqa: E402

TICKS = 260
GUILTY = "audio.encoder.conv1"
BROKEN = Range(-0.02, 0.02)  # of a tensor that spans some units: nearly all of it is clipped


def shortened(stream: Stream, said: Any) -> Stream:
    """The first ticks of a stream, labelled by what an engine said of them: its event accuracy is then 100 %."""
    events = []
    for onset in range(0, TICKS, 13):
        label = event_label(said[onset : onset + 13], NONE)
        if label != NONE:
            events.append(Event(label, onset, onset + 13, onset + 13))
    labels = said[:TICKS].astype(np.int64)
    return dataclasses.replace(stream, labels=labels, events=tuple(events), traces=())


@dataclasses.dataclass(frozen=True)
class Rig:
    """A random student whose labels vary, its checkpoint, and sets on which fp32 is always right."""

    checkpoint: Path
    model: Any
    calibration: CalibrationSet
    checks: CheckSet
    config: Any


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Rig:
    student = random_student(0)
    with torch.no_grad():  # so that what it says hangs on what it hears
        student.frame_encoder.project.weight.mul_(16.0)
        student.sound_encoder.project.weight.mul_(16.0)
    own, given = sets.own_sets(calibration_streams=1, check_streams=1)
    stream = next(given.streams())
    shown = next(own.streams(student.config))
    ticks = [i for i, _ in zip(inputs_of(stream, student.config), range(TICKS), strict=False)]

    def probs(model: Any) -> Any:
        engine = OnnxEngine(model.SerializeToString(), student.config, "fp32")
        state, rows = engine.initial_state(), []
        for inputs in ticks:
            outputs, state = engine.step(inputs, state)
            rows.append(outputs.probs)
        return np.stack(rows)

    # A random network says one thing throughout: take away the mean of its logits, and what it says depends on what it sees.
    logits = np.log(probs(export_step(student)) + 1e-12)
    with torch.no_grad():
        student.inter_cad.head[3].bias -= torch.from_numpy(logits.mean(axis=0).astype(np.float32))
    model = export_step(student)
    said = probs(model).argmax(axis=1)
    assert len(np.unique(said)) >= 4
    checked = shortened(stream, said)
    kept = [i for i, _ in zip(shown, range(TICKS), strict=False)]

    def opened(_config: object) -> Iterator[TickStream]:
        yield TickStream(iter(kept))

    folder = tmp_path_factory.mktemp("rig") / "checkpoint"
    save_student(folder, student.state_dict(), student.config, {"seed": 0})
    checks = CheckSet("what fp32 said", lambda: iter([checked]), 1)
    return Rig(folder, model, CalibrationSet("some ticks", opened, TICKS), checks, student.config)


@pytest.fixture(scope="module")
def ready(rig: Rig) -> Quantised:
    """Calibrated for both schemes."""
    timing = [i for i, _ in zip(next(rig.calibration.streams(rig.config)), range(8), strict=False)]
    return calibrated(rig.model, rig.config, rig.calibration, ["int8", "trt-int8"], timing, 60, True, lambda *_: None)


def with_fault(ready: Quantised, unit: str) -> Quantised:
    site = next(s for s in ready.sites if s.unit == unit)
    ranges = {p: {**found, site.source: BROKEN} for p, found in ready.ranges.items()}
    return dataclasses.replace(ready, ranges=ranges, timing=(), _rankings={})


def measured(rig: Rig, models: dict[str, Any]) -> dict[str, Measured]:
    engines = {n: OnnxEngine(m.SerializeToString(), rig.config, n) for n, m in models.items()}
    return measure(engines, rig.checks.streams())


class TestSensitivity:
    def test_units_have_model_words_and_cover_every_product(self, rig: Rig) -> None:
        units = float_units(rig.model)
        assert {"media.tcn.shallow", "media.tcn.mid", "media.tcn.deep", "intraced", "intercad", "head"} <= set(units)
        assert {"media.tokens", "language.tokens", "language.encoder", "vision.encoder.project"} <= set(units)
        assert not [u for u in units if u.startswith("node_")], "a node's number tells nobody anything"
        assert sorted(n for nodes in units.values() for n in nodes) == sorted(products(rig.model))

    def test_a_planted_fault_is_ranked_first(self, ready: Quantised) -> None:
        sound = {s.unit: s for s in ready.ranking("int8")}
        found = with_fault(ready, GUILTY).ranking("int8")
        assert found[0].unit == GUILTY
        assert found[0].sqnr_db < sound[GUILTY].sqnr_db - 10
        assert found[0].labels_changed > sound[GUILTY].labels_changed
        others = {s.unit: s.sqnr_db for s in found[1:]}
        assert others == {u: s.sqnr_db for u, s in sound.items() if u != GUILTY}

    def test_every_unit_is_there_and_says_how_it_ships(self, rig: Rig, ready: Quantised) -> None:
        found = ready.ranking("int8")
        assert {s.unit for s in found if s.shipped == "int8"} == {s.unit for s in ready.sites}
        assert {s.unit for s in found if s.shipped == "float"} == set(float_units(rig.model))
        assert [s.sqnr_db for s in found] == sorted(s.sqnr_db for s in found)
        # No word comes in these ticks, so what reads words can do no harm.
        assert all(10 < s.sqnr_db < 150 for s in found if not s.unit.startswith("language")), found
        assert all(s.latency_ms is not None for s in found)
        assert all(s.tick_accuracy_lost is None for s in found), "these ticks have no labels"
        assert ready.sensitivities()["int8"]["ticks"] == 60

    def test_a_probe_is_a_sound_graph_and_only_its_unit_changes(self, rig: Rig, ready: Quantised) -> None:
        nodes = float_units(rig.model)["media.tcn.mid"]
        model = quantise_products(rig.model, nodes, ready.ranges["int8"])
        check(model)
        made = {o: n for n in model.graph.node for o in n.output}
        touched = {n.name for n in model.graph.node for i in n.input if i in made and made[i].op_type == "DequantizeLinear"}
        assert touched == set(nodes)


class TestMeasure:
    def test_all_in_one_pass_is_what_each_alone_is(self, rig: Rig, ready: Quantised) -> None:
        models = {"fp32": rig.model, "int8": ready.build("int8", ready.sites)}
        both = measured(rig, models)
        for name, model in models.items():
            assert both[name] == measured(rig, {name: model})[name]
        assert both["fp32"].metrics.event_accuracy == 1.0
        assert both["fp32"].lost(both["fp32"]) == {
            "points": 0.0,
            "events_lost": 0,
            "events_gained": 0,
            "n_events": both["fp32"].metrics.n_events,
        }

    def test_reliability_by_hand(self) -> None:
        curve = Reliability(bins=2)
        curve.see(np.array([[0.9, 0.1], [0.8, 0.2], [0.45, 0.4]], np.float32), np.array([0, 1, 0]))
        found = curve.to_json()
        assert found["ticks"] == [1, 2]
        assert found["accuracy"] == [1.0, 0.5]
        assert found["confidence"] == pytest.approx([0.45, 0.85])
        assert found["expected_calibration_error"] == pytest.approx((0.55 + 2 * 0.35) / 3, abs=1e-4)


class TestGate:
    @pytest.mark.parametrize("precision", ["int8", "trt-int8"])
    def test_the_guilty_unit_goes_back_and_no_other(self, rig: Rig, ready: Quantised, precision: str) -> None:
        broken = with_fault(ready, GUILTY)
        first = measured(rig, {"fp32": rig.model, precision: broken.build(precision, broken.sites)})
        drop = first[precision].lost(first["fp32"])["points"]
        assert drop > 10, "the fault must be felt"

        def again(sites: Any) -> Measured:
            return measured(rig, {precision: broken.build(precision, sites)})[precision]

        found = hold(
            broken.sites, first[precision], first["fp32"], Gate(drop - 5), lambda: broken.ranking(precision), again
        )
        assert found.held
        assert [r["unit"] for r in found.reverted] == [GUILTY]
        assert f"lost {drop:.2f} points" in found.reverted[0]["why"]
        assert len(found.sites) == len(ready.sites) - 1
        assert [t["points"] for t in found.tries] == [drop, found.measured.lost(first["fp32"])["points"]]
        assert f"back to float: {GUILTY}" in found.why

    def test_what_holds_is_left_alone_and_nothing_more_is_measured(self, ready: Quantised) -> None:
        def never(*_: object) -> Any:
            raise AssertionError("not needed")

        found = hold(ready.sites, events(9, 10), events(10, 10), Gate(10.0), never, never)
        assert found.held
        assert not found.reverted
        assert len(found.tries) == 1

    def test_one_event_too_many_is_too_many(self, ready: Quantised) -> None:
        tried = []

        def again(sites: Any) -> Measured:
            tried.append([s.unit for s in sites])
            return events(198, 200)

        found = hold(ready.sites, events(198, 200), events(200, 200), Gate(0.5), lambda: ranked(ready), again)
        assert not found.held
        assert [r["unit"] for r in found.reverted] == [s.unit for s in ranked(ready)], "the most harmful first"
        assert len(tried) == len(ready.sites) - 1
        assert "no set of units holds the 0.5 points" in found.why

    def test_speed_is_gated_by_what_costs_time(self, ready: Quantised) -> None:
        slow = [s.unit for s in ready.sites[:2]]
        ranking = [dataclasses.replace(s, latency_ms=0.2 if s.unit in slow else -0.1) for s in ranked(ready)]

        def speed(sites: Any) -> float:
            return 1.4 - 0.2 * float(sum(s.unit in slow for s in sites))

        same = events(100, 100)
        found = hold(ready.sites, same, same, Gate(0.5, 1.3), lambda: ranking, lambda _: same, speed)
        assert found.held
        assert sorted(r["unit"] for r in found.reverted) == sorted(slow)
        assert found.speedup == pytest.approx(1.4)
        found = hold(ready.sites, same, same, Gate(0.5, 2.0), lambda: ranking, lambda _: same, speed)
        assert not found.held
        assert "1.40x the speed of fp32" in found.why
        assert "2x was asked for" in found.why

    @pytest.mark.parametrize("values", [{"max_drop": -1.0}, {"max_drop": float("nan")}, {"min_speedup": 0.0}])
    def test_limits_that_make_no_sense_are_refused(self, values: dict[str, float]) -> None:
        with pytest.raises(UsageError, match=r"--m(ax-drop|in-speedup) (-1|nan|0)"):
            Gate(**values)


def events(right: int, n: int) -> Measured:
    nan = float("nan")
    return Measured(Metrics(nan, nan, right / n, nan, nan, n, n), tuple(i < right for i in range(n)), {})


def ranked(ready: Quantised) -> list[Sensitivity]:
    return [Sensitivity(s.unit, "int8", 20.0 + i, 1.0, None, 0.0) for i, s in enumerate(reversed(ready.sites))]


class TestExport:
    def test_calls_that_make_no_sense(self, rig: Rig) -> None:
        for arguments, said in (
            (["--int8", "--max-drop", "-1"], "--max-drop -1"),
            (["--min-speedup", "1.1"], "give --int8 with --target cpu or both"),
            (["--int8", "--target", "tensorrt", "--min-speedup", "1.1"], "judged on the device"),
            (["--int8", "--sensitivity-ticks", "0"], "or --no-sensitivity"),
        ):
            done = CliRunner().invoke(app, ["export", str(rig.checkpoint), *arguments])
            assert isinstance(done.exception, UsageError), done.exception
            assert said in str(done.exception)

    def test_if_nothing_holds_no_int8_is_written_and_the_command_fails(
        self, rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def useless(_model: object, _sites: object, observers: dict[str, object], **_: object) -> dict[str, Chosen]:
            none = Chosen(Range(-1e-4, 1e-4), "mse", dict.fromkeys(METHODS, 0.0))
            return dict.fromkeys(observers, none)


        monkeypatch.setattr(quantised_module, "choose_ranges", useless)
        monkeypatch.setattr(sets, "own_sets", lambda: (rig.calibration, rig.checks))
        done = CliRunner().invoke(
            app,
            ["export", str(rig.checkpoint), "--int8", "--sensitivity-ticks", "40", "--no-ladder", "--out", str(tmp_path / "b")],
        )
        assert done.exit_code == 1
        assert "int8 did not hold and was not written" in str(done.exception)
        bundle = bundles.read(tmp_path / "b")
        assert bundle.precisions == ("fp32",)
        assert not (tmp_path / "b" / GRAPHS["int8"]).exists()
        report = json.loads((tmp_path / "b" / "report.json").read_text())
        result = report["gate"]["results"]["int8"]
        assert not result["held"]
        assert len(result["reverted"]) == 9
        assert "INT8 was not written" in report["chosen"]["why"]
        assert "failed, not written" in (tmp_path / "b" / PAGE).read_text()

    def test_a_recording_of_the_device_is_taken_if_it_was_made_for_this_student(self, rig: Rig, tmp_path: Path) -> None:
        assert isinstance(rig.config, StudentConfig)
        other = dataclasses.replace(rig.config, tick=dataclasses.replace(rig.config.tick, mel_low_hz=80.0))
        for name, config in (("own", rig.config), ("foreign", other)):
            with CalibrationWriter(tmp_path / name, config) as writer:
                for inputs in next(rig.calibration.streams(rig.config)):
                    writer.add(inputs)
                writer.finish({})
        done = CliRunner().invoke(
            app,
            ["export", str(rig.checkpoint), "--int8", "--calibration", str(tmp_path / "foreign"), "--out", str(tmp_path / "b")],
        )
        assert done.exit_code == 1
        assert "recorded for another preprocessing" in str(done.exception)
        assert not (tmp_path / "b").exists()
        found = calibrated(
            rig.model, rig.config, calibration_set(tmp_path / "own"), ["int8"], (), 1, False, lambda *_: None
        )
        assert found.about["ticks"] == TICKS
        assert found.about["config_sha256"] == config_hashes(rig.config)
        for site in found.sites:  # the same pictures and sounds, but for the bytes that the frames were kept in
            assert found.ranges["int8"][site.source].high > 0

    def test_a_student_of_other_classes_is_not_calibrated_on_digits(self, rig: Rig, tmp_path: Path) -> None:
        student = random_student()
        config = dataclasses.replace(student.config, classes=(*"abcdefghij", "none"))
        save_student(tmp_path / "c", student.state_dict(), config, {})
        for given in (sets.own_sets(1, 1)[0], rig.calibration):
            with pytest.raises(DataError, match="tells apart a, b, c, d"):
                export_bundle(tmp_path / "c", tmp_path / "b", True, given, sets.own_sets(1, 1)[1], lambda *_: None)
        assert not (tmp_path / "b").exists()
