"""The race's result as the Markdown page docs/speed.md."""
# ruff: noqa: E501 (lines of Markdown)

from __future__ import annotations

from typing import Any

_HEAD = "| | p50 us | p90 | p99 | largest | worst phase p50 | times ours (p10..p90) | largest difference |\n|---|---|---|---|---|---|---|---|\n"


def _row(name: str, x: dict[str, Any], key: str = "ratio_to_ours") -> str:
    r = x[key]
    return (
        f"| {name} | {x['p50_us']:.0f} | {x['p90_us']:.0f} | {x['p99_us']:.0f} | {x['max_us']:.0f} | "
        f"{x.get('worst_phase_p50_us', x['p50_us']):.0f} | **{r['p50']:.2f}** ({r['p10']:.2f}..{r['p90']:.2f}) | {x['max_difference']:.1e} |\n"
    )


def _table(rows: dict[str, Any]) -> str:
    return _HEAD + "".join(_row(name, x) for name, x in rows.items())


def _aims(result: dict[str, Any]) -> str:
    bare, everything = result["warm"]["without_frame_cnn"], result["warm"]["all_included"]

    def of(rows: dict[str, Any], letter: str) -> float:
        return next(float(x["ratio_to_ours"]["p50"]) for name, x in rows.items() if name.startswith(f"{letter}:"))

    state = result["state_bytes_per_stream"]
    aims = [
        ("against (e), without the frame CNN", of(bare, "e"), 1.5),
        ("against (a), without the frame CNN", of(bare, "a"), 6.0),
        ("against (a), all included", of(everything, "a"), 4.0),
        ("against (b), all included", float(result["b"]["ratio_to_ours"]["p50"]), 100.0),
    ]
    text = "| aim | aimed at | measured | |\n|---|---|---|---|\n"
    for name, got, aim in aims:
        text += f"| {name} | >= {aim:g}x | {got:.2f}x | {'met' if got >= aim else '**missed**'} |\n"
    return text + f"| state of a stream | <= 1 MB | {state / 1e6:.3f} MB | {'met' if state <= 1_000_000 else '**missed**'} |\n"


def _floor(result: dict[str, Any]) -> str:
    floor = result["floor"]
    m = floor["machine"]
    lines = [
        f"One thread of this machine: {m['fp32_gflops']:.0f} GFLOP/s in fp32 (a large matrix product), reads "
        f"{m['read_l2_gb_s']:.0f} GB/s from L2, {m['read_l3_gb_s']:.0f} from L3, {m['read_memory_gb_s']:.0f} from memory (a dot "
        f"product); ONNX Runtime takes {floor['onnx_runtime_us_per_node']:.2f} us for a node that computes next to nothing.\n\n",
        "| | multiply-adds | weights read | states and inputs | nodes | arithmetic at peak | bytes from L2 / L3 / memory | measured p50 |"
        " times the floor |\n|---|---|---|---|---|---|---|---|---|\n",
    ]
    measured = {
        "step": result["warm"]["all_included"]["ours"]["p50_us"],
        "step_without_frame_cnn": result["warm"]["without_frame_cnn"]["ours"]["p50_us"],
    }
    for name, title in (("step", "the step"), ("step_without_frame_cnn", "without the frame CNN")):
        f = floor[name]
        moved = f["input_and_state_bytes"] + f["output_and_state_bytes"]
        least = max(f["compute_us"], f["bytes_us_l2"])
        lines.append(
            f"| {title} | {f['multiply_adds'] / 1e6:.2f} M | {f['weight_bytes'] / 1e3:.0f} kB | {moved / 1e3:.0f} kB | "
            f"{f['nodes']} | {f['compute_us']:.0f} us | {f['bytes_us_l2']:.0f} / {f['bytes_us_l3']:.0f} / "
            f"{f['bytes_us_memory']:.0f} us | {measured[name]:.0f} us | {measured[name] / least:.1f} |\n"
        )
    nodes = floor["step_without_frame_cnn"]["nodes"] * floor["onnx_runtime_us_per_node"]
    lines.append(
        f"\nThe floor is the larger of the arithmetic and the bytes from L2. Outside the frame CNN the step is bound by neither: "
        f"{floor['step_without_frame_cnn']['nodes']} small nodes, at {floor['onnx_runtime_us_per_node']:.2f} us each if they "
        f"computed nothing, are {nodes:.0f} us of its {measured['step_without_frame_cnn']:.0f}.\n"
    )
    return "".join(lines)


def _bound(result: dict[str, Any]) -> str:
    """What no way of exchanging can win, held against the aims."""
    bound = result["bound"]

    def of(letter: str, part: str) -> dict[str, Any]:
        ratios: dict[str, dict[str, Any]] = bound["rivals_to_it"]
        return next(x for name, x in ratios.items() if name[0] == letter and name[1] in ":|" and name.endswith(part))

    rows = [
        ("(e), without the frame CNN", 1.5, of("e", "|without")),
        ("(a), without the frame CNN", 6.0, of("a", "|without")),
        ("(a), all included", 4.0, of("a", "|all")),
        ("(b), all included", 100.0, of("b", "|all")),
    ]
    text = (
        f"Why the aims are missed: with a window of {result['student']['window']} tokens textbook IntraCED is cheap, so that keeping its parts saves little (e); (a) "
        "keeps what is dear, the features of frames and sound; (b) is the frame CNN on every frame of the window, and that is no more than "
        f"{max(result['reach_ticks'])} times what the CNN costs ours.\n\n"
        "Were the exchange free (budget, attention and pooling cut out, the newest tokens in the place of what they give; this computes "
        f"something else), the step without the frame CNN would take {bound['without_frame_cnn']['p50_us']:.0f} us, all included "
        f"{bound['all_included']['p50_us']:.0f}. With encoders, tokens, windows, InterCAD and head as they are, no way of exchanging makes "
        "the ratios larger than the rivals' times over those:\n\n"
        "| against | aimed at | measured at most (p10..p90 of the rounds) |\n|---|---|---|\n"
    )
    for name, aim, most in rows:
        text += f"| {name} | >= {aim:g}x | {most['p50']:.2f}x ({most['p10']:.2f}..{most['p90']:.2f}) |\n"
    return text


def _dearest(result: dict[str, Any]) -> str:
    """Ratios of the dearest phases, which a deadline must hold."""
    rows = result["warm"]["without_frame_cnn"]
    ours = rows["ours"]["worst_phase_p50_us"]
    parts = [
        f"{name.split(':')[0]} {x['worst_phase_p50_us'] / ours:.2f}x" for name, x in rows.items() if name[:2] in ("e:", "a:")
    ]
    return f"Each at its own dearest phase, without the frame CNN: {', '.join(parts)} ours."


def _continual(result: dict[str, Any]) -> str:
    d = result["d"]
    if d is None:
        return "Not measured: continual-inference was not installed.\n"
    return (
        f"`continual-inference` {d['version']} can express the two media TCNs, and those only after their dilated kernels are "
        f"filled with zeros (it has no temporal dilation) and their residual sums are written out (its containers align them to "
        f"the centre). It has nothing for words that come by count, for IntraCED's budget, masks and age bias, or for windows whose "
        f"tokens expire. On that part, per tick: continual-inference {d['continual_us']:.0f} us, ours in torch eager "
        f"{d['eager_us']:.0f} us, ours in ONNX Runtime {d['ort_us']:.0f} us; so theirs costs "
        f"**{d['ratio_to_ours_eager']['p50']:.2f}x** ours in the same engine and **{d['ratio_to_ours_onnx']['p50']:.2f}x** ours as "
        f"it runs (largest difference {d['max_difference']:.1e}). Its strided layers skip what is not due; ours compute it at every tick.\n"
    )


def page(result: dict[str, Any]) -> str:
    """Markdown of a result of `benchmarks/step_speed.py`."""
    reach = result["reach_ticks"]
    # A result whose shortcomings are known says so in itself: "provisional" is written into the JSON by hand.
    caution = f"**Provisional**: {result['provisional']}.\n\n" if "provisional" in result else ""
    return f"""# Speed of the streaming step

{caution}{result["machine"]}, one thread, fp32, student of {result["student"]["window"]} tokens a window ({result["weights"]} weights) at strides
{result["student"]["strides"]}. Made by

```sh
pip install --no-deps --target out/continual continual-inference
clcr-edge export --out out/digits-bundle
python benchmarks/step_speed.py out/digits-bundle --continual out/continual
```

All rivals run in one process in an order drawn anew each round. They read the same ticks and are held to the step's outputs
within 1e-4 at every tick; figures are per tick, n = {result["ticks_per_rival"]} each. "Times ours" is the median over {result["rounds"]} rounds of the rival's {result.get("ratio_of", "median")} tick over ours in the same
round: the machine is shared, so trust the ratios, not the microseconds.

{_aims(result)}
## Without the frame CNN

(e) keeps normalised tokens as ours does its packed ones, and recomputes textbook IntraCED over its windows at each tick; (e')
keeps queries, keys and values too. (a) recomputes the whole network over its receptive fields ({min(reach)} to {max(reach)} ticks by phase),
with the features of past frames, past sound and past words from a cache. IntraCED's algebra is batched over levels and
modalities for every rival, and every phase of (a) and (b) is a static graph of its own: these rivals are made to be fast.

{_table(result["warm"]["without_frame_cnn"])}
## All included

(b) caches nothing: the frame CNN on all frames of the receptive field, the sound CNN on all of its sound.

{_table(result["warm"]["all_included"])}{_row("b: windows recomputed, nothing cached", result["b"])}
A tick of ours does the same work at every phase by construction; (a)'s phases differ by their reach. {_dearest(result)}
The largest of all times is this machine's other work, not the step's.

## With caches swept before each tick

At a camera's pace other work runs between two ticks. Here 24 MB are read before each call: fetching weights and states then takes
most of the time, and every rival comes nearer to ours.

{_table(result["swept_caches"]["without_frame_cnn"])}
{_table(result["swept_caches"]["all_included"])}
## (d) continual-inference

{_continual(result)}
## Where the floor lies

{_floor(result)}
## What is out of reach

{_bound(result)}"""
