"""One command, from its arguments to its exit code: the only place where errors become messages."""

import os
import sys
from collections.abc import Sequence
from typing import Final

from tyro import conf

from service.cli import DESCRIPTION, app
from service.exits import ExitCode, FailedError, ServiceError
from service.output import report_error
from unspool.config_error import ConfigError

_INTERRUPTED: Final = 130


def run_command(arguments: Sequence[str]) -> int:
    """Run the command that `arguments` name; return the exit code."""
    is_debugged = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        result = app.cli(
            prog="unspool", description=DESCRIPTION, args=arguments, config=(conf.FlagCreatePairsOff,)
        )
        return int(result or ExitCode.OK)
    except (ServiceError, ConfigError) as error:
        if is_debugged:
            raise
        return report_error(error, as_json="--json" in arguments)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has seen enough; the interpreter must not try to flush it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except Exception as error:
        if is_debugged:
            raise
        told = FailedError(f"internal error, {type(error).__name__}: {error} (--debug shows where)")
        return report_error(told, as_json="--json" in arguments)
