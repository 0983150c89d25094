"""The command line: launching, checking and showing runs, and the register of all commands."""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import tyro
from tyro import conf

from protos.exit_codes import ExitCode, LearnerUnreachableError, exit_code_table
from protos.messages import as_dict
from service.commands import admin_commands, processes, result_commands
from service.commands.arguments import Address, BackendKind, Config, Json, NewestRun, Overrides, Run, Takeover
from service.config.toml_document import write_tables
from service.display import tables
from service.display.output import answer, answer_again, report_notes
from service.display.progress import display_on
from service.run.client import connected
from service.run.last_status import ENDED, last_status
from service.run.run_directory import find_run
from service.run.supervision import supervision_problems

app = tyro.extras.SubcommandApp()
checkpoint_app = tyro.extras.SubcommandApp()
app.command(checkpoint_app, name="checkpoint", help="A run's checkpoints.")
certs_app = tyro.extras.SubcommandApp()
app.command(certs_app, name="certs", help="Certificates for trials.")

_WATCH_S = 1.0

DESCRIPTION = f"""Meta-train learned optimizers, and any other unrolled system, on a cluster.

Every command: --debug shows the traceback of an error.

exit codes:
{exit_code_table()}"""


@app.command
def launch(  # noqa: PLR0913 (a command's options)
    config: Config,
    *,
    workers: Annotated[int | None, conf.arg(metavar="N", help="workers at the start")] = None,
    backend: BackendKind = "ray",
    address: Address = None,
    run_dir: Annotated[
        Path | None, conf.arg(help="an existing run is resumed; default: ./runs/CONFIG-<n>")
    ] = None,
    overrides: Overrides = (),
    accept_config_change: Annotated[bool, conf.arg(help="resume even with another experiment")] = False,
    takeover: Takeover = False,
    detach: Annotated[bool, conf.arg(help="return when the run has started")] = False,
    json: Json = False,
) -> None:
    """Start a run, or resume one, and show its progress until it ends.

    Ctrl-C stops it after the running outer step, with a checkpoint; a second one does not wait for the step,
    a third one kills. Whatever happens, no process is left behind.
    """
    from service.supervise import launch as launching
    from service.supervise.preparation import prepare

    count = () if workers is None else (f"workers.count={workers}",)
    chosen = launching.Backend(backend, address)
    chosen.check()
    display = display_on(sys.stderr if json or detach else sys.stdout)
    display.note(f"checking {config}")
    run = prepare(config, (*overrides, *count), run_dir, accept_config_change, takeover)
    if detach:
        status = launching.detach(run, chosen, takeover=takeover)
        text = tables.summary(status, run) + tables.next_commands(status, run)
    else:
        status = launching.supervise(run, chosen, display, takeover=takeover)
        text = tables.summary(status, run)
    answer(as_dict(status), json, text)


@app.command
def supervise(
    run: Run,
    *,
    backend: BackendKind = "ray",
    address: Address = None,
    takeover: Takeover = False,
    json: Json = False,
) -> None:
    """Supervise a run, as `launch` does in the foreground: for init systems and containers."""
    from service.supervise import launch as launching

    found = find_run(run)
    display = display_on(sys.stderr if json else sys.stdout)
    status = launching.supervise(found, launching.Backend(backend, address), display, takeover=takeover)
    answer(as_dict(status), json, tables.summary(status, found))


@app.command
def check(config: Config, *, overrides: Overrides = (), json: Json = False) -> None:
    """Check a configuration, the components that it names and the data that they need.

    `-` reads it from standard input.
    """
    from service.config.check import checked_config

    is_for_launch = str(config) == "-"  # which reports the ignored variables itself
    checked = checked_config(config, overrides, None if is_for_launch else report_notes).to_tables()
    answer(checked, json, write_tables(checked))


@app.command
def doctor(
    config: Annotated[
        Path | None,
        conf.Positional,
        conf.arg(metavar="[CONFIG.toml]", help="a configuration or a run; default: only this machine"),
    ] = None,
    *,
    overrides: Overrides = (),
    json: Json = False,
) -> int:
    """Check what a run needs here: versions, ports, certificates, disk, memory, timeouts, the load.

    Exit code 78 if something will not work, 0 if there are only warnings.
    """
    from service.doctor.examine import examine

    findings = examine(config, overrides)
    answer([dataclasses.asdict(one) for one in findings], json, tables.findings_table(findings))
    return ExitCode.UNFIT if any(one.state == "problem" for one in findings) else ExitCode.OK


@app.command
def status(
    run: NewestRun = None,
    *,
    watch: Annotated[bool, conf.arg(help="repeat until the run ends")] = False,
    json: Json = False,
) -> int:
    """Show the status of a run.

    After its end: the last status. While its learner is down: that of the newest checkpoint; exit code 69.
    """
    found = find_run(run)
    try:
        with connected(found) as admin:
            if watch:
                answer_again(
                    ((as_dict(one), tables.status_report(one)) for one in admin.watch(_WATCH_S)), json
                )
            else:
                now = admin.status()
                now.problems.extend(
                    problem for problem in supervision_problems(found) if problem not in now.problems
                )
                answer(as_dict(now), json, tables.status_report(now))
    except LearnerUnreachableError:
        last = last_status(found)
        last.problems.extend(supervision_problems(found))
        answer(as_dict(last), json, tables.status_report(last))
        return ExitCode.OK if last.state in ENDED else ExitCode.UNREACHABLE
    return ExitCode.OK


_ELSEWHERE: tuple[Callable[..., int | None], ...] = (
    admin_commands.workers,
    admin_commands.lanes,
    admin_commands.events,
    admin_commands.scale,
    admin_commands.drain,
    admin_commands.evict,
    admin_commands.stack,
    admin_commands.reset_lane,
    admin_commands.pause,
    admin_commands.resume,
    admin_commands.stop,
    result_commands.evaluate,
    result_commands.export,
    processes.learner,
    processes.worker,
    processes.relay,
)
for command in _ELSEWHERE:
    app.command(command)
checkpoint_app.command(name="list")(result_commands.list_checkpoints)
checkpoint_app.command(name="save")(result_commands.save_checkpoint)
checkpoint_app.command(name="verify")(result_commands.verify_checkpoints)


@certs_app.command(name="init")
def make_certificates(
    directory: Annotated[Path, conf.Positional, conf.arg(metavar="DIR", help="a new folder")],
    *,
    hosts: Annotated[
        tuple[str, ...],
        conf.UseAppendAction,
        conf.arg(name="host", metavar="NAME", help="a name of the learner, in addition to this machine's"),
    ] = (),
    run: Annotated[str, conf.arg(help="run of the client certificates; default: any")] = "*",
    days: Annotated[int, conf.arg(metavar="N", help="days until they expire")] = 30,
    json: Json = False,
) -> None:
    """Make an authority, and certificates for a learner, workers, admins and viewers, for trials.

    `tls.directory = DIR` uses them. DIR/authority can sign more: keep it off the machines of the run.
    """
    from service.config.certificates import make_trial_certificates

    made = make_trial_certificates(directory, hosts, run, days)
    answer(made, json, f"{directory}: for {', '.join(made['hosts'])}; until {made['expires']}")
