"""The entry point: verbs, and how an error becomes an exit status."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence

import typer

from fn3hw.cli.compare import compare
from fn3hw.cli.console import EndedIn, bug, report_error
from fn3hw.cli.device import device
from fn3hw.cli.export import export
from fn3hw.cli.job import job
from fn3hw.cli.lookup import lookup
from fn3hw.cli.profile import profile
from fn3hw.cli.push import push
from fn3hw.cli.quickstart import quickstart
from fn3hw.cli.search import search
from fn3hw.cli.serve import serve, worker
from fn3hw.cli.token import token
from fn3hw.cli.train import train
from fn3hw.errors import Fn3hwError, InputError

INTERRUPTED = 130
TIED = "FN3HW_TIED"
"""Set, this variable ties a verb to the program that started it: it is interrupted when its standard input ends."""
PATIENCE_S = 10.0

app = typer.Typer(
    name="fn3hw",
    help="Train a network once, measure a device once, and look up the best subnet for any latency or memory budget.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for verb in (quickstart, train, profile, search, lookup, export, compare, push, serve, worker):
    app.command()(verb)
app.add_typer(device, name="device")
app.add_typer(job, name="job")
app.add_typer(token, name="token")


def main() -> None:
    """Run the command line and leave with its exit status."""
    if os.environ.pop(TIED, None):
        threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.exit(run(sys.argv[1:]))


def _end_with_parent() -> None:
    """Wait for the end of standard input, however the parent ended; then interrupt, and after a while end for good."""
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(PATIENCE_S)
    os._exit(INTERRUPTED)


def run(arguments: Sequence[str]) -> int:
    """Run one verb and return its exit status: see `fn3hw.errors`. ``-vv`` anywhere shows tracebacks."""
    verbose = "-vv" in arguments
    arguments = [argument for argument in arguments if argument != "-vv"]
    try:
        status = app(args=arguments, standalone_mode=False)
        return status if isinstance(status, int) else 0
    except Fn3hwError as error:
        if verbose:
            traceback.print_exc()
        report_error(error, as_json="--json" in arguments)
        return error.exit_status
    except EndedIn as end:
        report_error(end.error, as_json=False)
        return end.error.exit_status
    except typer.TyperException as error:
        report_error(InputError(error.format_message(), hint="See: fn3hw --help"), as_json="--json" in arguments)
        return InputError.exit_status
    except (KeyboardInterrupt, typer.Abort):
        print("Interrupted. Run the same command again to go on.", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if verbose:
            traceback.print_exc()
        wrapped = bug(error)
        report_error(wrapped, as_json="--json" in arguments)
        return wrapped.exit_status
