"""What the documents claim comes from a committed result, and what benchmarks write by themselves is what is committed."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shlex
from collections.abc import Callable, Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS, RESULTS = ROOT / "benchmarks", ROOT / "benchmarks" / "results"
CARDS = sorted((ROOT / "clcr_edge" / "assets").rglob("*.md"))
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *CARDS]
SCRIPTS = [p for p in sorted(BENCHMARKS.glob("*.py")) if '__name__ == "__main__"' in p.read_text("utf-8")]
VOICES = "digits_accuracy"
# A page, its result and the module whose `page` makes the one of the other.
PAGES = {
    "digits_rows": "digits_rows",
    "digits_rows_long": "digits_rows",
    "distilled_student": "distilled_student",
    "law_length": "law_length",
    "mosi_utterance": "mosi_utterance",
    "mosi_utterance_long": "mosi_utterance",
    "operating_point": "operating_point",
    "record_cost": "record_cost",
    "step_speed": "rivals.page",
    "vision_noise": "vision_noise",
}
NAMES = {"step_speed": "speed"}


def result(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text("utf-8"))


@pytest.mark.parametrize("name", PAGES)
def test_a_page_that_a_benchmark_writes_is_that_of_the_committed_result(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="torch is not installed: pip install 'clcr-edge[train]'")
    page = ROOT / "docs" / f"{NAMES.get(name, name)}.md"
    assert page.is_file() == (RESULTS / f"{name}.json").is_file(), f"{page.name}: page and result are committed together"
    if page.is_file():
        monkeypatch.syspath_prepend(str(BENCHMARKS))
        made = importlib.import_module(PAGES[name]).page(result(name))
        assert page.read_text("utf-8") == made, f"{page.name} is not what its benchmark makes of {name}.json"


def test_every_page_that_a_benchmark_writes_is_held_to_its_result() -> None:
    writers = {p.stem for p in SCRIPTS if re.search(r"docs\.write_text\(", p.read_text("utf-8"))}
    # precision.md rests on an environment of modelopt's own; its script keeps page and numbers together.
    assert writers - {"modelopt_int8"} == set(PAGES) - {
        "digits_rows_long",
        "mosi_utterance_long",
    }  # second pages of the same scripts


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_every_benchmark_is_named_by_a_document_or_run_by_another(script: Path) -> None:
    named = any(f"benchmarks/{script.name}" in path.read_text("utf-8") for path in DOCS)
    run = any(f'"{script.name}"' in other.read_text("utf-8") for other in SCRIPTS if other != script)
    assert named or run, f"no document names {script.name}"


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda p: p.name)
def test_every_result_is_one_that_a_benchmark_writes(path: Path) -> None:
    sources = "".join(p.read_text("utf-8") for p in SCRIPTS)
    documents = "".join(p.read_text("utf-8") for p in DOCS)
    assert path.name in sources or f"benchmarks/results/{path.name}" in documents, f"nothing says what makes {path.name}"


@pytest.mark.parametrize("path", DOCS, ids=lambda p: str(p.relative_to(ROOT)))
def test_results_and_scripts_that_documents_name_exist(path: Path) -> None:
    text = path.read_text("utf-8")
    folders = "benchmarks|tests|examples|clcr_edge|runtime|export|calibration"
    for name in set(re.findall(rf"(?<![\w/])((?:{folders})/[\w/.-]+\.\w+)", text)):
        # A result that is not there yet may be named only where that is said.
        said = re.search(rf"{re.escape(name)}`?[^.]*\(not|writes\s+`{re.escape(name)}`", text)
        assert (ROOT / name).exists() or said, f"{path.name} names {name}, which is not there"


def benchmark_commands(text: str) -> list[list[str]]:
    """Every `python benchmarks/...` in a code block, in an indented line or in backticks, as words; brackets are taken off."""
    lines = [line.strip() for line in text.splitlines()]
    lines += re.findall(r"`(python benchmarks/[^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    commands = [line.split(" #")[0].translate(str.maketrans("[];", "   ")) for line in lines]
    return [shlex.split(line) for line in commands if line.startswith("python benchmarks/")]


def options_of(script: Path) -> set[str]:
    """The options of a script's `main`: named in the source, or typer's own of a parameter's name."""
    source = script.read_text("utf-8")
    mains = [n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef) and n.name == "main"]
    names = {a.arg for main in mains for a in (*main.args.args, *main.args.kwonlyargs)}
    return {f"--{name.replace('_', '-')}" for name in names} | set(re.findall(r'"(--[a-z0-9-]+)"', source))


@pytest.mark.parametrize("path", [*DOCS, *SCRIPTS], ids=lambda p: str(p.relative_to(ROOT)))
def test_documented_benchmark_commands_and_options_exist(path: Path) -> None:
    text = path.read_text("utf-8")
    if path in SCRIPTS:
        text = ast.get_docstring(ast.parse(text)) or ""
    for words in benchmark_commands(text):
        script = ROOT / words[1]
        assert script in SCRIPTS, f"{' '.join(words)}: no such script"
        for word in words[2:]:
            if word.startswith("--"):
                assert word in options_of(script), f"{' '.join(words)}: no option {word}"


@pytest.mark.parametrize("path", DOCS, ids=lambda p: str(p.relative_to(ROOT)))
def test_documented_modules_exist(path: Path) -> None:
    for name, options in re.findall(r"python -m (clcr_edge[\w.]*)([^`\n]*)", path.read_text("utf-8")):
        spec = importlib.util.find_spec(name)
        assert spec is not None, f"{path.name}: no module {name}"
        assert spec.origin is not None
        for option in re.findall(r"--[\w-]+", options):
            assert f'"{option}"' in Path(spec.origin).read_text("utf-8"), f"{path.name}: {name} has no option {option}"


def accuracy_rows(text: str) -> Iterator[tuple[str, str, str, float, Any]]:
    """(row, words, noise, percentage, models) of README's tables of accuracies, each held to the result named above it."""
    above, *tables = re.split(r"\n\| \| clean \| moderate \| heavy [^\n]*\n\|[-|: ]+\n", text)
    for table in tables:
        name = re.findall(r"benchmarks/results/(\w+)\.json", above)[-1]
        for line in table.split("\n\n")[0].splitlines():
            row, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            words = "recognised" if "recogniser" in row else "simulated"
            what = {"vision and audio": "without language"}.get(row, re.split(r"[,(]", row)[0].strip())
            for noise, cell in zip(("clean", "moderate", "heavy"), cells[:3], strict=True):
                yield what, words, noise, float(cell.split("%")[0]), result(name)["models"]
        above = table


def test_the_table_of_accuracies_is_that_of_its_result() -> None:
    rows = list(accuracy_rows((ROOT / "README.md").read_text("utf-8")))
    assert len(rows) >= 18
    for what, words, noise, claimed, models in rows:
        wanted = {"noise": noise, "what": what, "words": words}
        found = [r["event_accuracy"] for m in models for r in m["rows"] if wanted.items() <= r.items()]
        assert len(found) == len(models), f"the result has no row {wanted}"
        assert claimed == pytest.approx(100 * sum(found) / len(found), abs=0.051), wanted


def at(name: str, *keys: Any) -> Callable[[], float]:
    """A number of a result."""
    return lambda: float(reduce(lambda found, key: found[key], keys, result(name)))


def fp32(*keys: str) -> Callable[[], float]:
    return at("export", "precisions", "fp32", *keys)


def int8(*keys: str) -> Callable[[], float]:
    return at("export", "precisions", "int8", *keys)


def parameters() -> float:
    pytest.importorskip("torch", reason="torch is not installed: pip install 'clcr-edge[train]'")
    from clcr_edge.train.checkpoint import load_student

    student, _ = load_student(ROOT / "clcr_edge" / "assets" / "digits-student")
    return sum(p.numel() for p in student.parameters()) / 1e6


def speech_model_mb() -> float:
    folder = ROOT / "clcr_edge" / "assets" / "vosk-tiny"
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file() and p.suffix != ".md") / 1e6


def quiet_onsets() -> list[str]:
    """The slopes of noise that sets in without a word heard, on 20 onsets each."""
    found = result("stt_accuracy")["noise_onsets"]
    return [slope for slope, entry in found.items() if entry["words"] == 0 and entry["onsets"] == 20]


def quiet_claps() -> float:
    """The claps of those time constants for which no run was told a word."""
    return float(sum(entry["bursts"] for entry in result("stt_accuracy")["bursts"].values() if not entry["told"]))


def over_models(noise: str, what: str, key: str) -> float:
    """The mean over the models of a figure of the row with simulated words."""
    wanted = {"noise": noise, "what": what, "words": "simulated"}
    found = [r[key] for m in result(VOICES)["models"] for r in m["rows"] if wanted.items() <= r.items()]
    return float(sum(found) / len(found))


def best_of_one() -> float:
    alone = max(over_models("heavy", f"{name} alone", "event_accuracy") for name in ("vision", "audio", "language"))
    return 100 * (over_models("heavy", "all three", "event_accuracy") - alone)


def false_events() -> float:
    found = [m["false_events_per_minute"] for m in result(VOICES)["models"]]
    return float(sum(found) / len(found))


def clean_first(what: str) -> Callable[[], float]:
    """Median seconds to the first right label in clean streams."""
    return lambda: over_models("clean", what, "time_to_first_correct_s")


def row_mean(page: str, row: str) -> Callable[[], float]:
    """The events right of a row of `digits_rows.py`, in percent, in the mean over seeds."""

    def mean() -> float:
        found = [r["event_accuracy"] for r in result(page)["runs"] if r["row"] == row]
        return float(100.0 * sum(found) / len(found))

    return mean


def mosi_long(row: str) -> Callable[[], float]:
    """The utterances right of a row of the longer budget, in percent: every one is tested once a seed."""

    def mean() -> float:
        runs = [r for r in result("mosi_utterance_long")["runs"] if r["row"] == row]
        return float(100.0 * sum(r["accuracy"] * r["utterances"] for r in runs) / sum(r["utterances"] for r in runs))

    return mean


def distilling_costs() -> float:
    return row_mean("digits_rows", "student, from scratch")() - row_mean("digits_rows", "student, distilled")()


def image_noise(level: float) -> Callable[[], float]:
    return lambda: next(100.0 * r["event_accuracy"] for r in result("vision_noise")["rows"] if r["image_noise"] == level)


def speed_ratio(part: str, rival: str, end: str = "") -> Callable[[], float]:
    """How much longer a rival's tick takes than ours as the native engine runs it."""

    def number() -> float:
        found = result("step_speed")
        rows = found["b"] if part == "b" else found["warm"][part]
        row = next(x for name, x in rows.items() if name.startswith(rival) and name.endswith(end))
        return float(row["ratio_to_ours"]["p50"])

    return number


def tick_ms(caches: str) -> Callable[[], float]:
    """A whole tick of the native engine, median."""
    return lambda: at("step_speed", caches, "all_included", "ours", "p50_us")() / 1e3


def in_onnx_runtime(part: str, rival: str) -> Callable[[], float]:
    """The same with both in ONNX Runtime."""
    return lambda: next(
        float(x["p50"]) for name, x in result("step_speed")["in_onnx_runtime"][part].items() if name.startswith(rival)
    )


def distilled(left_out: str, noise: str, what: str, key: str, equal: bool = False) -> Callable[[], float]:
    """A cell of a pair of students, in per cent; equal: where both say as much for nothing."""

    def number() -> float:
        pair = next(p for p in result("distilled_student")["pairs"] if p["left_out"] == left_out)
        rows = pair["at_equal"]["rows"] if equal else pair["rows"]
        row = next(r for r in rows if (r["noise"], r["what"]) == (noise, what))
        if key == "behind teacher":
            return 100.0 * float(row["teacher"] - row["scratch"])
        return -100.0 * float(row["gain"]) if key == "loss" else 100.0 * float(row[key])

    return number


def says_for_nothing(student: str, *equal: str) -> Callable[[], float]:
    """False events a minute of a student of the pair with nobody left out."""
    pair = next(k for k, p in enumerate(result("distilled_student")["pairs"]) if not p["left_out"])
    return at("distilled_student", "pairs", pair, *equal, "false_events_per_minute", student)


SYNTHETIC = ("stt_accuracy", "synthetic")
FALSE = ("stt_accuracy", "false")
HEARD_FALSE = ("digits_accuracy_recognised", "models", 0, "false_events_per_minute_recognised")
PEOPLE = ("stt_accuracy", "people_digits_left_one_out", "all")
# What a document says, as a pattern with the number in a group, and where the number comes from. The words around a number
# may change: then its line here does too.
CLAIMS: list[tuple[str, str, Callable[[], float]]] = [
    ("README.md", r"a ([\d.]+) M parameter student", parameters),
    ("clcr_edge/assets/digits-student/MODEL_CARD.md", r"([\d.]+) M parameters", parameters),
    ("README.md", r"size of the step graph \| ([\d.]+) MB", lambda: fp32("bytes")() / 1e6),
    ("README.md", r"size of the step graph \|[^|]*\| ([\d.]+) MB", lambda: int8("bytes")() / 1e6),
    ("README.md", r"64 golden ticks \| ([\d.e-]+) ", fp32("probs", "max_abs")),
    ("README.md", r"64 golden ticks \|[^|]*\| ([\d.e-]+) ", int8("probs", "max_abs")),
    ("README.md", r"interleaved \| ([\d.]+) / ", fp32("latency", "p50_ms")),
    ("README.md", r"interleaved \| [\d.]+ / ([\d.]+) / ", fp32("latency", "p90_ms")),
    ("README.md", r"interleaved \| [\d.]+ / [\d.]+ / ([\d.]+) ms", fp32("latency", "p99_ms")),
    ("README.md", r"interleaved \|[^|]*\| ([\d.]+) / ", int8("latency", "p50_ms")),
    ("README.md", r"interleaved \|[^|]*\| [\d.]+ / ([\d.]+) / ", int8("latency", "p90_ms")),
    ("README.md", r"interleaved \|[^|]*\| [\d.]+ / [\d.]+ / ([\d.]+) ms", int8("latency", "p99_ms")),
    ("README.md", r"INT8 is ([\d.]+) times as", lambda: fp32("latency", "p50_ms")() / int8("latency", "p50_ms")()),
    ("README.md", r"shedding ladder \(([\d.]+) ms a tick", at("export", "ladder", "tick_ms")),
    ("README.md", r"vision-half-rate: saves (\d+)%", lambda: 100 * at("export", "ladder", "rungs", 0, "saving")()),
    ("docs/shedding.md", r"One of them is ([\d.]+) MB", lambda: at("export", "ladder", "bytes", "step.held.fp32.onnx")() / 1e6),
    ("README.md", r"False events: ([\d.]+) a minute", false_events),
    ("README.md", r"beat the best of\s+them under heavy noise by ([\d.]+)\s+points", best_of_one),
    ("README.md", r"vision alone then gets ([\d.]+) %", image_noise(0.5)),
    ("README.md", r"for minutes: the teacher gets ([\d.]+) %", row_mean("digits_rows", "teacher")),
    ("README.md", r"the events, late fusion ([\d.]+), the best", row_mean("digits_rows", "late-fusion")),
    ("README.md", r"single modality ([\d.]+), no hierarchy", row_mean("digits_rows", "language alone")),
    ("README.md", r"single modality [\d.]+, no hierarchy ([\d.]+)", row_mean("digits_rows", "no-hierarchy")),
    ("README.md", r"ablations ([\d.]+) to [\d.]+, within the seeds", row_mean("digits_rows", "shuffled-levels")),
    ("README.md", r"ablations [\d.]+ to ([\d.]+), within the seeds", row_mean("digits_rows", "no-intercad")),
    ("docs/mosi_utterance.md", r"regression on it \(([\d.]+) %", lambda: 100 * at("mosi_leak", "accuracy_audio")()),
    ("docs/mosi_utterance.md", r"which has ([\d.]+) % for vision", lambda: 100 * at("mosi_leak", "accuracy_vision")()),
    ("README.md", r"times the steps ([\d.]+), where a student", mosi_long("teacher")),
    ("README.md", r"its size gets ([\d.]+) % from scratch", mosi_long("student, from scratch")),
    ("README.md", r"% from scratch and ([\d.]+) distilled; but", mosi_long("student, distilled")),
    ("docs/choices.md", r"steps it gets ([\d.]+) % where", mosi_long("student, from scratch")),
    ("docs/choices.md", r"where the teacher gets ([\d.]+) \(aim: within", mosi_long("teacher")),
    ("docs/choices.md", r"1 point\), distilled ([\d.]+), with", mosi_long("student, distilled")),
    ("docs/choices.md", r"with the logits alone ([\d.]+) \(\[mosi", mosi_long("student, plain distillation")),
    ("README.md", r"at a higher rate, the teacher gets ([\d.]+) %", row_mean("digits_rows_long", "teacher")),
    ("README.md", r"93.9 %, late fusion ([\d.]+), and", row_mean("digits_rows_long", "late-fusion")),
    ("README.md", r"the parameters ([\d.]+) from scratch,", row_mean("digits_rows_long", "student, from scratch")),
    ("README.md", r"from scratch, ([\d.]+) with the teacher", row_mean("digits_rows_long", "student, plain distillation")),
    ("README.md", r"logits and ([\d.]+) distilled level", row_mean("digits_rows_long", "student, distilled")),
    ("README.md", r"short trainings it costs ([\d.]+)\.", distilling_costs),
    ("docs/choices.md", r"the teacher gets ([\d.]+) % and late", row_mean("digits_rows_long", "teacher")),
    ("docs/choices.md", r"gets [\d.]+ % and late fusion ([\d.]+) \(", row_mean("digits_rows_long", "late-fusion")),
    ("docs/choices.md", r"300 steps, three seeds\): full ([\d.]+) %", row_mean("digits_rows", "teacher")),
    ("docs/choices.md", r"full [\d.]+ %, without InterCAD ([\d.]+),", row_mean("digits_rows", "no-intercad")),
    ("docs/choices.md", r", dense exchange ([\d.]+), no reg", row_mean("digits_rows", "dense-exchange")),
    ("docs/choices.md", r", no regularisers ([\d.]+), without IntraCED", row_mean("digits_rows", "no-regularisers")),
    ("docs/choices.md", r", without IntraCED ([\d.]+), levels shuffled", row_mean("digits_rows", "no-intraced")),
    ("docs/choices.md", r"[\d.]+, levels shuffled ([\d.]+), without hierarchy", row_mean("digits_rows", "shuffled-levels")),
    ("docs/choices.md", r"[\d.]+, without hierarchy ([\d.]+), late", row_mean("digits_rows", "no-hierarchy")),
    ("docs/choices.md", r"hierarchy [\d.]+, late fusion ([\d.]+)\. Paired", row_mean("digits_rows", "late-fusion")),
    ("README.md", r"median, clean: ([\d.]+) s with all three", clean_first("all three")),
    ("README.md", r"with all three, ([\d.]+) s vision", clean_first("vision alone")),
    ("README.md", r"s vision, ([\d.]+) s audio", clean_first("audio alone")),
    ("README.md", r"s audio, ([\d.]+) s language", clean_first("language alone")),
    ("README.md", r"says ([\d.]+) a minute on 20 test minutes", at(*HEARD_FALSE)),
    ("clcr_edge/assets/digits-student/MODEL_CARD.md", r"([\d.]+) false events a minute on 20", at(*HEARD_FALSE)),
    ("README.md", r"and (\d+) in [\d.]+ minutes of NASA film", at("real_clips", "false_events")),
    ("README.md", r"and \d+ in ([\d.]+) minutes of NASA film", at("real_clips", "minutes")),
    ("clcr_edge/assets/digits-student/MODEL_CARD.md", r"(\d+) in [\d.]+ minutes of real", at("real_clips", "false_events")),
    ("README.md", r"is a ([\d.]+) MB Vosk model", speech_model_mb),
    ("README.md", r"turn, ([\d.]+) % with the digits grammar", lambda: 100 * at(*PEOPLE, "digits")()),
    ("README.md", r"and ([\d.]+) % with the whole vocabulary", lambda: 100 * at(*PEOPLE, "whole vocabulary and [unk]")()),
    ("README.md", r"([\d.]+) / [\d.]+ / [\d.]+ % of synthetic", lambda: 100 * at(*SYNTHETIC, "clean", "accuracy")()),
    ("README.md", r"([\d.]+) % of synthetic voices", lambda: 100 * at(*SYNTHETIC, "10 dB", "accuracy")()),
    ("README.md", r"vision p50 ([\d.]+) / p99", at("soak", "whole", "age_vision_p50_ms")),
    ("README.md", r"vision p50 [\d.]+ / p99 ([\d.]+) ms", at("soak", "whole", "age_vision_p99_ms")),
    ("README.md", r"audio ([\d.]+) / [\d.]+ ms, beside", at("soak", "whole", "age_audio_p50_ms")),
    ("README.md", r"(\d+) MB with the recogniser's process", lambda: at("soak", "memory", "highest_bytes_second_half")() / 1e6),
    ("README.md", r"idle machine, vision ([\d.]+) /", at("soak_calm", "whole", "age_vision_p50_ms")),
    ("README.md", r"engine native` vision ([\d.]+) /", at("soak_calm_native", "whole", "age_vision_p50_ms")),
    ("README.md", r"([\d.]+) s from a cold start to the first", at("soak_calm", "first_prediction_s")),
    ("docs/metrics.md", r"recogniser: ([\d.]+) MB, reached", lambda: at("soak", "memory", "highest_bytes_second_half")() / 1e6),
    ("README.md", r"native engine a tick takes ([\d.]+) ms", tick_ms("warm")),
    ("README.md", r"ms, ([\d.]+) times as fast as in ONNX", speed_ratio("all_included", "ours in")),
    ("README.md", r"a tick\s+([\d.]+) times as fast as ONNX Runtime", speed_ratio("all_included", "ours in")),
    ("README.md", r"Runtime \(([\d.]+) ms where other", tick_ms("swept_caches")),
    ("README.md", r"textbook IntraCED take ([\d.]+) times", speed_ratio("without_frame_cnn", "e:")),
    ("README.md", r"features cached (\d+) times", speed_ratio("without_frame_cnn", "a:")),
    ("README.md", r"all included ([\d.]+) times \(wanted: 4", speed_ratio("all_included", "a:")),
    ("README.md", r"cached it\s+is (\d+) times", speed_ratio("b", "b:")),
    ("README.md", r"sides compiled it is ([\d.]+),", speed_ratio("without_frame_cnn", "e:", ", compiled as ours")),
    ("README.md", r"compiled it is [\d.]+, ([\d.]+),", speed_ratio("without_frame_cnn", "a:", ", compiled as ours")),
    ("README.md", r"compiled it is [\d.]+, [\d.]+, ([\d.]+) and", speed_ratio("all_included", "a:", ", compiled as ours")),
    ("README.md", r"compiled it is [\d.]+, [\d.]+, [\d.]+ and (\d+)", speed_ratio("b", "b:", ", compiled as ours")),
    ("README.md", r"and ([\d.]+) for the strongest", speed_ratio("without_frame_cnn", "e':", ", compiled as ours")),
    ("README.md", r"both in ONNX Runtime ([\d.]+),", in_onnx_runtime("without_frame_cnn", "e:")),
    ("README.md", r"both in ONNX Runtime [\d.]+, ([\d.]+),", in_onnx_runtime("without_frame_cnn", "a:")),
    ("README.md", r"both in ONNX Runtime [\d.]+, [\d.]+, ([\d.]+) and", in_onnx_runtime("all_included", "a:")),
    ("README.md", r"both in ONNX Runtime [\d.]+, [\d.]+, [\d.]+ and (\d+)", in_onnx_runtime("all_included", "b:")),
    ("README.md", r"native`, fp32, (\d+) \(with", at("runtime_figures_native", "streams", "every_deadline_met_with")),
    *(
        (document, pattern, distilled("", noise, what, key, equal))
        for document, pattern, noise, what, key, equal in (
            ("README.md", r"the distilled one gets ([\d.]+) % under", "heavy", "all three", "distilled", True),
            ("README.md", r"and its twin from scratch ([\d.]+) \(", "heavy", "all three", "scratch", True),
            ("docs/choices.md", r"distilled one gets ([\d.]+) % of the", "heavy", "all three", "distilled", False),
            ("docs/choices.md", r"twin from scratch ([\d.]+) \(aim", "heavy", "all three", "scratch", False),
            ("docs/choices.md", r"1 more\), ([\d.]+) and [\d.]+ in quiet", "clean", "all three", "distilled", False),
            ("docs/choices.md", r"1 more\), [\d.]+ and ([\d.]+) in quiet", "clean", "all three", "scratch", False),
            ("docs/choices.md", r"sound alone ([\d.]+) less in both", "clean", "audio alone", "loss", False),
            ("docs/choices.md", r"sound alone ([\d.]+) less in both", "heavy", "audio alone", "loss", False),
            ("docs/choices.md", r"it gets ([\d.]+) % under heavy noise, 4.5", "heavy", "all three", "distilled", True),
            ("docs/choices.md", r"% under heavy noise, ([\d.]+) less", "heavy", "all three", "loss", True),
            ("docs/choices.md", r"less \(standard error ([\d.]+)\)\. A pair", "heavy", "all three", "standard_error", True),
            ("docs/choices.md", r"from scratch is ([\d.]+) points short in", "clean", "all three", "behind teacher", False),
            (
                "docs/choices.md",
                r"in quiet and ([\d.]+) under heavy noise \(aim: 1\)",
                "heavy",
                "all three",
                "behind teacher",
                False,
            ),
        )
    ),
    ("docs/choices.md", r"distilled one ([\d.]+) ahead under", distilled("george", "heavy", "all three", "gain")),
    ("docs/choices.md", r"nothing to say, ([\d.]+) false events", says_for_nothing("distilled")),
    ("docs/choices.md", r"a minute against ([\d.]+) \(aim", says_for_nothing("scratch")),
    ("docs/choices.md", r"two false events \(([\d.]+); a", says_for_nothing("distilled", "at_equal")),
    ("README.md", r"one core serves (\d+) streams", at("runtime_figures", "streams", "every_deadline_met_with")),
    ("README.md", r"after\s+silence \((\d+) cases\) and claps \(\d+\) are no words", lambda: 20.0 * len(quiet_onsets())),
    ("README.md", r"after\s+silence \(\d+ cases\) and claps \((\d+)\) are no words", quiet_claps),
    ("README.md", r"hears ([\d.]+) false words a", at(*FALSE, "other_words_espeak", "words_per_minute")),
    ("README.md", r"voices and ([\d.]+) in a Scottish", at(*FALSE, "other_words_flite_awb", "words_per_minute")),
    ("README.md", r"session ([\d.]+) s after its end", lambda: at("word_latency", "latency", "p50_ms")() / 1e3),
    ("README.md", r"p90 ([\d.]+) s\), with its start", lambda: at("word_latency", "latency", "p90_ms")() / 1e3),
    ("README.md", r"its end in (\d+) %", lambda: 100 * at("word_latency", "end_error", "within_60_ms")()),
    ("README.md", r"end in \d+ % of (\d+) cases", at("word_latency", "latency", "n")),
    ("runtime/speech_words.py", r"at once \((\d+) ms, median\)", at("word_latency", "start_error", "p50_ms")),
    ("runtime/speech_words.py", r"(\d+) % of ends are right", lambda: 100 * at("word_latency", "end_error", "within_60_ms")()),
    ("docs/record_replay.md", r"About (\d+) MB a minute", at("record_cost", "rows", 0, "mb_per_minute")),
    ("docs/record_replay.md", r"pictures and (\d+) for noisy", at("record_cost", "rows", 1, "mb_per_minute")),
    ("docs/choices.md", r"--root DIR`: ([\d.]+) % of", lambda: 100 * at("mosi_leak", "accuracy_language")()),
    ("clcr_edge/train/set_scores.py", r"text alone gets (\d+) %", lambda: 100 * at("mosi_leak", "accuracy_language")()),
]


@pytest.mark.parametrize(("path", "pattern", "number"), CLAIMS, ids=[f"{p}: {c}" for p, c, _ in CLAIMS])
def test_a_claimed_number_is_that_of_its_result(path: str, pattern: str, number: Callable[[], float]) -> None:
    found = re.search(pattern.replace(" ", r"\s+"), (ROOT / path).read_text("utf-8"))
    assert found, f"{path} has no {pattern!r} any more: correct or remove its line in CLAIMS"
    claimed = found[1]
    if "e" in claimed:
        assert f"{number():.1e}" == claimed
    else:
        digits = len(claimed.partition(".")[2])
        assert float(claimed) == pytest.approx(number(), abs=0.51 * 10.0**-digits)
