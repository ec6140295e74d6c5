"""The race's result as the Markdown page docs/speed.md."""
# ruff: noqa: E501 (lines of Markdown)

from __future__ import annotations

from typing import Any

_HEAD = (
    "| | p50 us | mean | p90 | p99 | largest | worst phase p50 | times ours (p10..p90) | largest difference |\n"
    "|---|---|---|---|---|---|---|---|---|\n"
)


def _row(name: str, x: dict[str, Any], key: str = "ratio_to_ours") -> str:
    r = x[key]
    return (
        f"| {name} | {x['p50_us']:.0f} | {x['mean_us']:.0f} | {x['p90_us']:.0f} | {x['p99_us']:.0f} | {x['max_us']:.0f} | "
        f"{x.get('worst_phase_p50_us', x['p50_us']):.0f} | **{r['p50']:.2f}** ({r['p10']:.2f}..{r['p90']:.2f}) | {x['max_difference']:.1e} |\n"
    )


def _table(rows: dict[str, Any]) -> str:
    return _HEAD + "".join(_row(name, x) for name, x in rows.items())


COMPILED = ", compiled as ours"
ORT = "ours in ONNX Runtime"


def _ratio(rows: dict[str, Any], letter: str, compiled: bool) -> float:
    found = next(x for name, x in rows.items() if name.startswith(f"{letter}:") and name.endswith(COMPILED) == compiled)
    return float(found["ratio_to_ours"]["p50"])


def _aims(result: dict[str, Any]) -> str:
    state = result["state_bytes_per_stream"]
    naive = next(iter(result["b"].values()))
    aims = [
        ("(e), without the frame CNN", "without_frame_cnn", "e", 1.5),
        ("(e'), the strongest, without the frame CNN", "without_frame_cnn", "e'", None),
        ("(a), without the frame CNN", "without_frame_cnn", "a", 6.0),
        ("(a), all included", "all_included", "a", 4.0),
        ("(b), all included", "all_included", "b", 100.0),
    ]
    text = (
        "| against | aimed at | ours compiled, the rival in ONNX Runtime | both compiled | both in ONNX Runtime |\n"
        "|---|---|---|---|---|\n"
    )
    for name, part, letter, aim in aims:
        rows = result["b"] if letter == "b" else result["warm"][part]
        default = next(x["p50"] for n, x in result["in_onnx_runtime"][part].items() if n.startswith(f"{letter}:"))
        cells = [
            f"{got:.2f}x" + ("" if aim is None else ", met" if got >= aim else ", **missed**")
            for got in (_ratio(rows, letter, False), _ratio(rows, letter, True), float(default))
        ]
        text += f"| {name} | {'' if aim is None else f'>= {aim:g}x'} | {' | '.join(cells)} |\n"
    return text + (
        "\nThe aims name (a) and (b) in ONNX Runtime, which is the first column; they name no engine for (e), and on equal engines that aim is "
        "missed. The other columns say how much is the engine.\n"
        f"(b)'s margin is thin: {naive['ratio_to_ours']['p10']:.1f} to {naive['ratio_to_ours']['p90']:.1f} in a tenth to nine tenths of its "
        f"{naive['n']} ticks, {naive['mean_us'] / result['warm']['all_included']['ours']['mean_us']:.1f} by means.\n"
        f"State of a stream: {state / 1e6:.3f} MB (aim: at most 1 MB{', met' if state <= 1_000_000 else '; **missed**'}).\n"
    )


def _why(result: dict[str, Any]) -> str:
    """What of the ratios is the engine's, and what the method's."""
    bare, everything = result["warm"]["without_frame_cnn"], result["warm"]["all_included"]
    strongest = _ratio(bare, "e'", True)
    return (
        f"What wins is mostly the engine: the step as one C function takes {bare['ours']['p50_us']:.0f} us where ONNX Runtime takes "
        f"{bare[ORT]['p50_us']:.0f} ({everything['ours']['p50_us']:.0f} and {everything[ORT]['p50_us']:.0f} with the frame CNN), because its "
        f"{result['floor']['step_without_frame_cnn']['nodes']} nodes are small. On the same engine the method wins this: with a window of "
        f"{result['student']['window']} tokens textbook IntraCED is cheap, so that keeping its parts saves little (e: "
        f"{_ratio(bare, 'e', True):.2f}x; e', which keeps queries, keys and values as ours does: {strongest:.2f}x); keeping features of frames and sound but recomputing what lies above them costs "
        f"{_ratio(bare, 'a', True):.1f}x (a); keeping nothing costs the frame CNN on every frame of the window, "
        f"{_ratio(result['b'], 'b', True):.0f}x, and no more than {max(result['reach_ticks'])}x could be had.\n"
    )


def _floor(result: dict[str, Any]) -> str:
    floor = result["floor"]
    m = floor["machine"]
    lines = [
        f"One thread of this machine: {m['fp32_gflops']:.0f} GFLOP/s in fp32 (multiply-adds on registers; {m['blas_gflops']:.0f} in "
        f"numpy's matrix product), reads "
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
        f"\nThe floor is the larger of the arithmetic and the bytes from L2; the p50 holds Python's part of a call too. In ONNX Runtime "
        f"{floor['step_without_frame_cnn']['nodes']} small nodes, at {floor['onnx_runtime_us_per_node']:.2f} us each if they computed nothing, "
        f"are {nodes:.0f} us of {result['warm']['without_frame_cnn'][ORT]['p50_us']:.0f}.\n"
    )
    return "".join(lines)


def _swept(result: dict[str, Any]) -> str:
    """What is left of the ratios where caches are cold."""
    bare, everything = result["swept_caches"]["without_frame_cnn"], result["swept_caches"]["all_included"]
    pairs = [name.split(":")[0] for name in bare if name.endswith(COMPILED)]
    said = ", ".join(f"{k} {_ratio(bare, k, True):.2f}x and {_ratio(everything, k, True):.2f}x" for k in pairs)
    return (
        "Against rivals on the same engine little is won there but against (a): compiled, without the frame CNN and all included, "
        f"{said}. Ours in ONNX Runtime takes {float(bare[ORT]['ratio_to_ours']['p50']):.1f} and "
        f"{float(everything[ORT]['ratio_to_ours']['p50']):.1f} times as long as compiled. (b) was not run like this."
    )


def _dearest(result: dict[str, Any]) -> str:
    """Ratios of the dearest phases, which a deadline must hold."""

    def said(rows: dict[str, Any], ours: float) -> str:
        found = [(n, x) for n, x in rows.items() if n[:2] in ("e:", "a:", "b:") and COMPILED not in n]
        return ", ".join(f"{name.split(':')[0]} {x['worst_phase_p50_us'] / ours:.2f}x" for name, x in found)

    bare, everything = result["warm"]["without_frame_cnn"], result["warm"]["all_included"]
    return (
        f"Each at its own dearest phase (in ONNX Runtime, ours compiled): without the frame CNN {said(bare, bare['ours']['worst_phase_p50_us'])}; "
        f"all included {said({**everything, **result['b']}, everything['ours']['worst_phase_p50_us'])}."
    )


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
        f"**{d['ratio_to_ours_eager']['p50']:.2f}x** ours in the same engine and **{d['ratio_to_ours_onnx']['p50']:.2f}x** ours in "
        f"ONNX Runtime (largest difference {d['max_difference']:.1e}). Its strided layers skip what is not due; ours compute it at every tick.\n"
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
within 1e-4 at every tick; figures are per tick, n = {result["ticks_per_rival"]} each ((b): {next(iter(result["b"].values()))["n"]}). "Times ours" is the median over {result["rounds"]} rounds of the rival's {result.get("ratio_of", "median")} tick over ours in the same
round ((b): of each of its ticks over ours in that round): the machine is shared, so trust the ratios, not the microseconds.

"Ours" is the step as `--engine native` runs it ([native.md](native.md)), compiled by {result["compiler"]}; "{ORT}" is the default
engine. Rivals run in ONNX Runtime, and a second time compiled exactly as ours is.

{_aims(result)}
{_why(result)}
## Without the frame CNN

(e) keeps normalised tokens as ours does its packed ones, and recomputes textbook IntraCED over its windows at each tick; (e')
keeps queries, keys and values too. (a) recomputes the whole network over its receptive fields ({min(reach)} to {max(reach)} ticks by phase),
with the features of past frames, past sound and past words from a cache. IntraCED's algebra is batched over levels and
modalities for every rival, and every phase of (a) and (b) is a static graph of its own: these rivals are made to be fast.

{_table(result["warm"]["without_frame_cnn"])}
## All included

(b) caches nothing: the frame CNN on all frames of the receptive field, the sound CNN on all of its sound.

{_table(result["warm"]["all_included"])}{"".join(_row(name, x) for name, x in result["b"].items())}
A tick of ours does the same work at every phase by construction; (a)'s phases differ by their reach. {_dearest(result)}
The largest of all times is this machine's other work, not the step's.

## With caches swept before each tick

At a camera's pace other work runs between two ticks. Here 24 MB are read before each call (n = {result["swept_caches"]["all_included"]["ours"]["n"]} each): fetching weights and
states then takes most of the time. {_swept(result)}

{_table(result["swept_caches"]["without_frame_cnn"])}
{_table(result["swept_caches"]["all_included"])}
## (d) continual-inference

{_continual(result)}
## Where the floor lies

{_floor(result)}"""
