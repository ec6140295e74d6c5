"""The `clcr-edge` command line: registers the commands, and turns errors into one line and an exit code."""

from __future__ import annotations

import os
import sys
from typing import Annotated, NoReturn

# Before numpy loads: its products are small here, and a second BLAS thread only spins.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import typer

from clcr_edge import __version__
from clcr_edge.commands.bench import bench
from clcr_edge.commands.build import build
from clcr_edge.commands.calibrate import calibrate
from clcr_edge.commands.check import check
from clcr_edge.commands.devices import devices
from clcr_edge.commands.distill import distill
from clcr_edge.commands.doctor import doctor
from clcr_edge.commands.export import export
from clcr_edge.commands.replay import replay
from clcr_edge.commands.run import run
from clcr_edge.commands.sync import sync
from clcr_edge.commands.train import evaluate, train
from clcr_edge.commands.verify import verify
from clcr_edge.errors import ClcrEdgeError

app = typer.Typer(
    name="clcr-edge",
    help="Language, vision and audio in one small streaming network: CLCR, run live on the device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"clcr-edge {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


app.command("run")(run)
app.command("replay")(replay)
app.command("devices")(devices)
app.command("sync")(sync)
app.command("doctor")(doctor)
app.command("calibrate")(calibrate)
app.command("export")(export)
app.command("check")(check)
app.command("build")(build)
app.command("verify")(verify)
app.command("bench")(bench)
app.command("train")(train)
app.command("eval")(evaluate)
app.command("distill")(distill)


def main() -> NoReturn:
    """Entry point. Exit codes: 0 done (Ctrl-C in `run` included), 1 an error of ours, 2 a wrong call, 130 interrupted."""
    code = 0
    try:
        app()
    except ClcrEdgeError as e:
        print(f"clcr-edge: {e}", file=sys.stderr)
        code = e.exit_code
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - the reader has gone; keep the interpreter's last flush quiet
    except OSError as e:  # a full disk, a folder that cannot be made: the user's machine, not our fault
        print(f"clcr-edge: {e.filename or 'output'}: {e.strerror or e}; make room, or name another place", file=sys.stderr)
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - what is left in the buffer cannot be written either
        code = 1
    except SystemExit as e:
        code = e.code if isinstance(e.code, int) else int(e.code is not None)
    _leave(code)


def _leave(code: int) -> NoReturn:
    deadline = sys.modules.get("clcr_edge.runtime.deadline")
    if deadline is not None and deadline.abandoned():
        # A call that never returned would keep the interpreter's own clean-up waiting as well.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
