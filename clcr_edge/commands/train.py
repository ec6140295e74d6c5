"""`clcr-edge train` and `clcr-edge eval`."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clcr_edge.errors import MissingPartError, UsageError
from clcr_edge.outputs import check_folder

if TYPE_CHECKING:
    from clcr_edge.train.evaluate import Streamed
    from clcr_edge.train.metrics import Metrics
    from clcr_edge.train.streaming import Delay

# As in `clcr_edge.data.sets` (a test says so): importing that reads the media library, and every command would wait.
NAMES = ("crema-d", "kinetics-sounds", "ave", "ucf101", "mosi", "mosei", "mosi-utterance", "clips")
MATCH = "digits-match"
TEACHER = "teacher.toml"  # what makes a folder a teacher's
MOST_SEED = 2**63 - 1  # what fits the eight bytes in which seeds are mixed
_LEAST_EVENTS = 1_000
_LONGEST_MS = 10_000.0


class Taken(str, Enum):
    """A modality that can be taken away."""

    vision = "vision"
    audio = "audio"
    language = "language"


class Noise(str, Enum):
    """Conditions by name."""

    clean = "clean"
    moderate = "moderate"
    heavy = "heavy"


class WordSource(str, Enum):
    """Where an evaluation's words come from."""

    simulated = "simulated"
    recognised = "recognised"


class Weights(str, Enum):
    """Which of a checkpoint's weights."""

    best = "best"
    last = "last"


def train(
    name: Annotated[str, typer.Argument(help=f"What to train on: digits, {MATCH}, {', '.join(NAMES)}.")],
    root: Annotated[Path, typer.Option(help="The data set's folder; digits: fsdd/recordings/*.wav and mnist/*-ubyte.gz.")],
    out: Annotated[Path, typer.Option(help="Checkpoint folder; a run that was killed is resumed from it.")],
    config: Annotated[
        Path | None, typer.Option(help="TOML: [train], [data], [teacher]; see clcr_edge.train.settings.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Seed of everything random.")] = 0,
    teacher: Annotated[bool, typer.Option("--teacher", help="Digits only: the teacher, to distil the student from.")] = False,
    leave_out: Annotated[
        str | None, typer.Option(help="Digits only: speaker never to hear, by name or number: to test on that voice.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Digits only: steps on streams; earlier phases stay whole.")] = None,
    variant: Annotated[
        str | None, typer.Option(help=f"{MATCH} only: full, late-fusion, ... (others: [teacher] in --config) [default: full]")
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option("--from", metavar="CHECKPOINT", help=f"{MATCH} only: whose front ends to take; default: the shipped."),
    ] = None,
) -> None:
    """Train a network: the streaming student on digits (about half an hour on two slow cores), CLCR's teacher on a data set.

    digits-match asks whether what is said is what is shown; CLCR and its variants are trained on it (about six minutes).

    Several GPUs or machines: torchrun --nproc-per-node N -m clcr_edge train NAME ...
    """
    if name != MATCH:
        for option, named in (("--variant", variant), ("--from", source)):
            if named is not None:
                raise UsageError(f"{option} is for {MATCH}; networks of {name} take theirs from [teacher] in --config FILE")
    if name in NAMES:
        for option, given in (("--teacher", teacher), ("--leave-out", leave_out), ("--steps", steps)):
            if given:
                raise UsageError(f"{option} is for digits; {name} takes its recipe from --config FILE")
        _train_set(name, root, out, config, seed)
        return
    if name == MATCH:
        if teacher or config is not None:
            option = "--teacher" if teacher else "--config"
            raise UsageError(f"{option}: {MATCH} has its own recipe and network; choose among its variants with --variant")
        from clcr_edge.commands.match import train_match_variant

        train_match_variant(root, out, seed, leave_out, variant or "full", source, steps)
        return
    if name != "digits":
        raise UsageError(f"nothing called {name!r} can be trained; choose digits, {MATCH}, {', '.join(NAMES)}")
    check_folder(out)
    try:
        from clcr_edge.train.digits import Recipe, train_digits
        from clcr_edge.train.digits_teacher import train_digits_teacher
        from clcr_edge.train.parallel import launched
        from clcr_edge.train.settings import Settings, read_settings
    except ModuleNotFoundError as e:
        raise missing_train(e) from None
    if launched():
        raise UsageError("digits trains in one process; run it without torchrun")
    if config is not None and not teacher:
        raise UsageError("--config: the digits student has its own recipe; --config is for --teacher and for data sets")
    settings = read_settings(config)
    if settings != Settings(teacher=settings.teacher):
        raise UsageError(f"{config}: for digits --teacher only the [teacher] table counts; take the others out")
    recipe = Recipe.of(steps)
    if teacher:
        summary = train_digits_teacher(root, out, seed, leave_out, recipe, settings.teacher)
    else:
        summary = train_digits(root, out, seed, leave_out, recipe)
    last = summary["last"]
    typer.echo(
        f"{out}: {summary['parameters']:,} parameters, {recipe.steps} steps, "
        f"validation tick accuracy {last.get('val_tick_accuracy', float('nan')):.3f} (moderate noise)",
        err=True,
    )


def _train_set(name: str, root: Path, out: Path, config: Path | None, seed: int) -> None:
    check_folder(out)
    try:
        from clcr_edge.train.parallel import training_group
        from clcr_edge.train.set_training import train_set
        from clcr_edge.train.settings import read_settings
    except ModuleNotFoundError as e:
        raise missing_train(e) from None
    settings = read_settings(config)
    with training_group(settings.train.device) as group:
        summary = train_set(name, root, out, seed, settings, group)
        if group.first:
            tell_summary(out, summary)


def tell_summary(out: Path, summary: dict[str, Any]) -> None:
    """The last line of a training on a data set, on stderr."""
    best = f"best of val in epoch {summary['best_epoch']}" if summary["best_epoch"] else "no val split to choose the best by"
    typer.echo(
        f"{out}: {summary['parameters']:,} parameters, {summary['train']} samples, {summary['epochs']} epochs, {best}; "
        f"{summary['report']} (data-report.txt)",
        err=True,
    )


def evaluate(
    model: Annotated[Path, typer.Argument(help="A checkpoint folder or a bundle.")],
    data: Annotated[str, typer.Option(help=f"What to evaluate on: digits, {MATCH}, {', '.join(NAMES)}.")] = "digits",
    root: Annotated[
        Path | None, typer.Option(help="Folder as for train. None: the project's own check part of digits.", show_default=False)
    ] = None,
    split: Annotated[str, typer.Option(help="Of a data set: train, val or test.")] = "test",
    checkpoint: Annotated[
        Weights | None, typer.Option(help="Of a training on a data set; default: the best where there is one.")
    ] = None,
    without: Annotated[list[Taken] | None, typer.Option(help="Take a modality away; may be repeated.")] = None,
    noise: Annotated[Noise, typer.Option(help="How disturbed the streams are.")] = Noise.clean,
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Seed of the streams.")] = 0,
    events: Annotated[int, typer.Option(min=1, help=f"Score at least this many events ({MATCH}: both seen and said).")] = (
        _LEAST_EVENTS
    ),
    precision: Annotated[str | None, typer.Option(help="Of a bundle: fp32 or int8; default: the chosen one.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes; default: one per core.")] = None,
    words: Annotated[WordSource, typer.Option(help="Of digits: simulated, or what a Vosk model hears in the streams.")] = (
        WordSource.simulated
    ),
    stt_model: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Vosk model for recognised words [default: the shipped one]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
    latency_ms: Annotated[
        str | None,
        typer.Option(metavar="MS|measured", help="Also score what exists at each instant, with a step this long (digits).")
    ] = None,
    capture_ms: Annotated[float, typer.Option(help="... and media arriving this much after they happened.")] = 0.0,
) -> None:
    """Score a model on what its training never saw: streams of digits, or a data set's test split."""
    if stt_model is not None and words is not WordSource.recognised:
        raise UsageError(f"--stt-model {stt_model} is for --words recognised")
    delay = _delay(latency_ms, capture_ms)
    if delay is not None and (data != "digits" or (model / TEACHER).is_file()):
        raise UsageError("--latency-ms and --capture-ms are for students on streams of digits; nothing else runs live")
    taken = frozenset(t.value for t in without or [])
    if any(model.glob("*.resume.safetensors")):
        typer.echo(f"clcr-edge: the training in {model} has not ended: these are the weights so far", err=True)
    if data in NAMES:
        for option, given in (
            ("--noise", noise is not Noise.clean),
            ("--seed", seed != 0),
            ("--events", events != _LEAST_EVENTS),
            ("--precision", precision is not None),
            ("--jobs", jobs is not None),
            ("--words", words is not WordSource.simulated),
        ):
            if given:
                raise UsageError(f"{option} is for digits; {data} is scored in fp32 as it is, see --split and --without")
        _evaluate_set(model, data, root, split, checkpoint, taken, as_json)
        return
    if data not in ("digits", MATCH):
        raise UsageError(f"no data set called {data!r}; choose digits, {MATCH}, {', '.join(NAMES)}")
    if split != "test" or checkpoint is not None:
        raise UsageError("--split and --checkpoint are for data sets; digits are scored on streams, see --noise and --events")
    if len(taken) == len(Taken):
        raise UsageError("--without names all three modalities; leave at least one")
    if data == MATCH:
        if words is not WordSource.simulated or precision not in (None, "fp32"):
            option = f"--precision {precision}" if words is WordSource.simulated else f"--words {words.value}"
            raise UsageError(f"{option}: networks of {MATCH} are scored in fp32, with simulated words")
        from clcr_edge.commands.match import evaluate_match

        evaluate_match(model, root, noise.value, events, seed, taken, as_json)
        return
    listener = _listener(stt_model) if words is WordSource.recognised else None
    if (model / TEACHER).is_file():
        if listener is not None:
            raise UsageError(f"--words recognised: {model} is a teacher, which is scored with simulated words only")
        metrics, line, kind = _score_teacher(model, root, noise, events, seed, taken, precision)
        streamed = None
    else:
        streamed, line, kind = _score_student(model, root, noise, events, seed, taken, precision, jobs, delay, listener)
        metrics = streamed.plain
    about = {
        "model": str(model),
        "precision": kind,
        "data": data,
        "material": line,
        "noise": noise.value,
        "words": words.value if listener is None else f"recognised by {listener.name}",
        "without": sorted(taken),
        "seed": seed,
    }
    if as_json:
        found = metrics.to_json()
        same = {"accuracy": found["tick_accuracy"], "macro_f1": found["tick_macro_f1"], "n": found["n_ticks"]}
        delayed = {} if delay is None or streamed is None else _streaming_keys(streamed, delay)
        typer.echo(json.dumps(same | found | delayed | about))
        return
    left_out = ", ".join(sorted(taken)) or "nothing"
    typer.echo(f"{model} ({kind}), {noise.value}, without {left_out}, words {about['words']}; {line}")
    typer.echo(f"event accuracy         {metrics.event_accuracy:7.2%}   n = {metrics.n_events} events")
    typer.echo(f"tick accuracy          {metrics.tick_accuracy:7.2%}   n = {metrics.n_ticks} ticks")
    typer.echo(f"tick macro-F1          {metrics.tick_macro_f1:7.2%}")
    typer.echo(f"time to first correct  {metrics.time_to_first_correct_s:6.2f} s   median; {metrics.never_correct:.2%} never")
    if delay is not None and streamed is not None:
        late = streamed.streaming
        typer.echo(f"with the latency, {streamed.latency_ms:.1f} ms on average ({_told(delay)}):")
        typer.echo(f"streaming event accuracy {late.event_accuracy:7.2%}")
        typer.echo(f"streaming tick accuracy  {late.tick_accuracy:7.2%}")


def _delay(latency_ms: str | None, capture_ms: float) -> Delay | None:
    from clcr_edge.train.streaming import Delay

    if not 0.0 <= capture_ms <= _LONGEST_MS:
        raise UsageError(f"--capture-ms {capture_ms:g}: give 0 to {_LONGEST_MS:g} milliseconds")
    if latency_ms is None:
        return Delay(0.0, capture_ms) if capture_ms else None
    if latency_ms == "measured":
        return Delay(None, capture_ms)
    try:
        step_ms = float(latency_ms)
    except ValueError:
        step_ms = float("nan")
    if not 0.0 <= step_ms <= _LONGEST_MS:
        raise UsageError(f"--latency-ms {latency_ms}: give 0 to {_LONGEST_MS:g} milliseconds, or measured")
    return Delay(step_ms, capture_ms)


def _told(delay: Delay) -> str:
    step = "steps as measured here" if delay.step_ms is None else f"steps of {delay.step_ms:g} ms"
    return f"{step}, capture {delay.capture_ms:g} ms"


def _streaming_keys(streamed: Streamed, delay: Delay) -> dict[str, Any]:
    late = streamed.streaming.to_json()
    names = ("tick_accuracy", "tick_macro_f1", "event_accuracy", "time_to_first_correct_s", "never_correct")
    found: dict[str, Any] = {f"streaming_{name}": late[name] for name in names}
    return found | {
        "latency_ms": streamed.latency_ms,
        "step_latency_ms": "measured" if delay.step_ms is None else delay.step_ms,
        "capture_latency_ms": delay.capture_ms,
    }


def _listener(stt_model: Path | None) -> Path:
    """The speech model that listens; a broken one is refused here, before it could abort a worker."""
    from clcr_edge.runtime.assets import default_speech_model
    from clcr_edge.runtime.speech_model import check_speech_model

    path = stt_model or default_speech_model()
    if path is None:
        raise UsageError("no speech model ships with this installation; name a Vosk model with --stt-model DIR")
    check_speech_model(path, trial=stt_model is not None)
    return path


def _score_student(
    model: Path, root: Path | None, noise: Noise, events: int, seed: int, taken: frozenset[str], precision: str | None,
    jobs: int | None, delay: Delay | None, listener: Path | None,
) -> tuple[Streamed, str, str]:
    from rich.console import Console
    from rich.progress import Progress

    from clcr_edge.data.conditions import BY_NAME
    from clcr_edge.train.evaluate import Evaluation, Material
    from clcr_edge.train.streaming import Delay
    from clcr_edge.train.subject import open_subject

    subject, seen = open_subject(model, precision)
    material = Material(root, seen, listener)
    line = material.bank()[1]  # also: a clear error before any process starts
    delay = delay or Delay(0.0)
    if delay.step_ms is None:
        jobs = jobs or 1  # processes side by side would measure each other
    console = Console(stderr=True)
    with Evaluation(subject, material, jobs) as evaluation, Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("events", total=events)
        streamed = evaluation.streamed(
            BY_NAME[noise.value], events, seed, delay, taken, lambda found: bar.update(task, completed=min(found, events))
        )
    return streamed, line, subject.precision


def _score_teacher(
    model: Path, root: Path | None, noise: Noise, events: int, seed: int, taken: frozenset[str], precision: str | None
) -> tuple[Metrics, str, str]:
    from rich.console import Console
    from rich.progress import Progress

    from clcr_edge.data.conditions import BY_NAME
    from clcr_edge.data.seen import FILE, Seen
    from clcr_edge.train.evaluate import Material

    try:
        from clcr_edge.train.judge import judge_stream_teacher
    except ModuleNotFoundError as e:
        raise missing_train(e) from None
    if precision not in (None, "fp32"):
        raise UsageError(f"--precision {precision}: {model} is a teacher, which has fp32 only")
    material = Material(root, Seen.load(model / FILE) if (model / FILE).is_file() else None)
    line = material.bank()[1]
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("events", total=events)
        metrics = judge_stream_teacher(
            model, material, BY_NAME[noise.value], events, seed, taken,
            lambda found: bar.update(task, completed=min(found, events)),
        )
    return metrics, line, "fp32"


def _evaluate_set(
    model: Path, data: str, root: Path | None, split: str, checkpoint: Weights | None, taken: frozenset[str], as_json: bool
) -> None:
    if root is None:
        raise UsageError(f"--data {data} needs --root, the data set's folder")
    try:
        from clcr_edge.train.judge import judge_set, plain
    except ModuleNotFoundError as e:
        raise missing_train(e) from None
    scores, about = judge_set(model, data, root, split, checkpoint.value if checkpoint else None, taken)
    if "warning" in about:
        typer.echo(f"clcr-edge: warning: {about['warning']}", err=True)
    if as_json:
        typer.echo(json.dumps(plain(scores) | about))
        return
    left_out = ", ".join(sorted(taken)) or "nothing"
    typer.echo(f"{model}, {about['variant']}, {data}/{split} ({about['protocol']}), without {left_out}; {about['report']}")
    for key, value in scores.items():
        typer.echo(f"{key:40} {value if isinstance(value, int) else format(value, '.4f')}")


def missing_train(e: ModuleNotFoundError) -> MissingPartError:
    """The line for a missing training package."""
    return MissingPartError(f"{e.name} is not installed; training and export need: pip install 'clcr-edge[train]'")
