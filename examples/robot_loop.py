"""A 50 Hz control loop that acts on the newest prediction and never waits for it.

    python examples/robot_loop.py [--camera SRC] [--mic SRC] [--bundle DIR] [--seconds S]

The pipeline runs in a thread of its own; the loop reads `runner.latest`, an attribute. A prediction that is too old or too
unsure means stop: a camera that hangs must not keep a robot moving. The digit shown or said sets the speed: 0 stops,
9 is fastest. SRC is an index, a device name, a URL or a file, as for `clcr-edge run`.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from clcr_edge import bundle
from clcr_edge.errors import ClcrEdgeError
from clcr_edge.packets import Prediction
from clcr_edge.runtime.assets import default_bundle
from clcr_edge.runtime.background import LiveRunner
from clcr_edge.runtime.onnx_engine import OnnxEngine
from clcr_edge.runtime.opening import open_pipeline
from clcr_edge.runtime.session import Session
from clcr_edge.runtime.sources import plan_sources
from clcr_edge.runtime.speech import open_speech

PERIOD_S = 0.02
TOO_OLD_S = 0.3
SURE = 0.6
TOP_SPEED_M_S = 0.5
STEP_M_S = 0.02  # change of speed allowed per period


def wanted_speed(prediction: Prediction | None, age_s: float) -> float | None:
    """Speed in m/s that a prediction asks for; None: keep the present one; 0 when there is nothing to trust."""
    if prediction is None or age_s > TOO_OLD_S:
        return 0.0
    if not prediction.label.isdigit() or prediction.probs[prediction.label] < SURE:
        return None
    return TOP_SPEED_M_S * int(prediction.label) / 9


def drive(speed_m_s: float) -> None:
    """Hand the speed to the motors. Yours goes here."""


def control(runner: LiveRunner, seconds: float) -> tuple[int, float]:
    """Run the loop; gives the number of rounds and the worst lateness in seconds."""
    speed = target = 0.0
    seen: Prediction | None = None
    seen_s = begun = time.monotonic()
    rounds, worst_s = 0, 0.0
    while runner.running and time.monotonic() - begun < seconds:
        now = time.monotonic()
        prediction = runner.latest
        if prediction is not seen:
            # Its age is counted from when it came. Live, `now - prediction.t_s` would do as well.
            seen, seen_s = prediction, now
        asked = wanted_speed(seen, now - seen_s)
        if asked is not None and asked != target:
            target = asked
            print(f"{now - begun:6.2f} s  speed {target:.2f} m/s  ({seen.label if seen else 'no prediction'})", flush=True)
        speed += min(max(target - speed, -STEP_M_S), STEP_M_S)
        drive(speed)
        rounds += 1
        # An absolute deadline: a late round is not paid for by all that follow.
        due = begun + rounds * PERIOD_S
        time.sleep(max(0.0, due - time.monotonic()))
        worst_s = max(worst_s, time.monotonic() - due)
    drive(0.0)
    return rounds, worst_s


def main() -> None:
    parser = argparse.ArgumentParser(description="A 50 Hz loop that polls the newest prediction.")
    parser.add_argument("--camera")
    parser.add_argument("--mic")
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    args = parser.parse_args()

    # Python threads take turns in slices of 5 ms by default; a control loop wants its turn sooner.
    sys.setswitchinterval(0.0005)
    plan = plan_sources(args.camera, args.mic)
    session = Session(OnnxEngine.from_bundle(bundle.read(args.bundle or default_bundle())))
    try:
        speech = None if plan.mic is None else open_speech(live=plan.is_live)
    except ClcrEdgeError as e:
        speech = None
        print(f"going on without language: {e}", file=sys.stderr)
    with LiveRunner(open_pipeline(session, plan, speech=speech)) as runner:
        try:
            rounds, worst_s = control(runner, args.seconds)
        except KeyboardInterrupt:
            return
    if runner.error is not None:
        raise runner.error
    print(f"{rounds} rounds, worst {worst_s * 1e3:.1f} ms late")


if __name__ == "__main__":
    try:
        main()
    except ClcrEdgeError as e:
        sys.exit(f"robot_loop: {e}")
