"""One command, from its arguments to its exit code: the only place where errors become messages."""

import sys
from collections.abc import Sequence

from tyro import conf

from protos.exit_codes import ExitCode, FailedError, UnspoolError
from service.commands.cli import DESCRIPTION, app
from service.display.output import report_error
from service.display.standard_streams import writing_output
from service.system_errors import system_error
from unspool.config.config_error import ConfigError
from unspool.failure_report import FailureReport


def run_command(arguments: Sequence[str]) -> int:
    """Run the command that `arguments` name; return the exit code."""
    is_debugged = "--debug" in arguments
    as_json = "--json" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        return _flushed(arguments)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        return ExitCode.OK  # the reader of the output has closed it
    except Exception as error:
        if is_debugged:
            raise
        return report_error(_reported(error), as_json)


def _flushed(arguments: Sequence[str]) -> int:
    """Run the command and pass on all that it has printed, so that whatever goes wrong does so here."""
    try:
        result = app.cli(
            prog="unspool", description=DESCRIPTION, args=arguments, config=(conf.FlagCreatePairsOff,)
        )
        return int(result or ExitCode.OK)
    finally:
        with writing_output():
            sys.stdout.flush()


def _reported(error: Exception) -> UnspoolError | ConfigError:
    """Return the error to report for `error`: its message is one line for people."""
    if isinstance(error, UnspoolError | ConfigError):
        return error
    report = FailureReport.of(error)
    if isinstance(error, OSError) and not report.is_users:
        return system_error(error)
    whose = "" if report.is_users else "internal error, "
    return FailedError(f"{whose}{report}; --debug shows the traceback")
