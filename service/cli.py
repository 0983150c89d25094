"""The command line: each command says what it takes and hands it to the module that does it."""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro import conf

from protos.facts import facts_of
from service import access, tables
from service.client import connected
from service.environments import use_compilation_cache
from service.events import events_of
from service.exits import ExitCode, LearnerUnreachableError, UsageError, exit_code_table
from service.last_status import ENDED, last_status
from service.output import answer, answer_again
from service.progress import display_on
from service.run_directory import find_run
from service.supervision import supervision_problems
from service.toml_document import write_tables

app = tyro.extras.SubcommandApp()
checkpoint_app = tyro.extras.SubcommandApp()
app.command(checkpoint_app, name="checkpoint", help="A run's checkpoints.")
certs_app = tyro.extras.SubcommandApp()
app.command(certs_app, name="certs", help="Certificates for trials.")

_A_RUN = "a run directory, or the name of a run below ./runs"
Run = Annotated[str, conf.Positional, conf.arg(metavar="RUN", help=_A_RUN)]
NewestRun = Annotated[
    str | None, conf.Positional, conf.arg(metavar="[RUN]", help=f"{_A_RUN}; by default the newest there")
]
Json = Annotated[bool, conf.arg(help="print facts as JSON")]
Config = Annotated[
    Path,
    conf.Positional,
    conf.arg(metavar="CONFIG.toml", help="a configuration, or a run directory to resume"),
]
Overrides = Annotated[
    tuple[str, ...],
    conf.UseAppendAction,
    conf.arg(name="set", metavar="KEY=VALUE", help="change one key, e.g. estimators.0.std=0.02"),
]
BackendKind = Annotated[
    Literal["ray", "local"],
    conf.arg(help="where workers run: as Ray actors, or as processes of this machine"),
]
Address = Annotated[
    str | None, conf.arg(metavar="auto|HOST:PORT", help="of a running Ray cluster; by default one is started")
]

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
        Path | None, conf.arg(help="of the run; one that is there is resumed. By default ./runs/CONFIG-<n>")
    ] = None,
    overrides: Overrides = (),
    accept_config_change: Annotated[bool, conf.arg(help="resume even with another experiment")] = False,
    detach: Annotated[bool, conf.arg(help="return once the run is under way")] = False,
    json: Json = False,
) -> None:
    """Start a run, or resume one, and show its progress until it ends.

    Ctrl-C stops it after the running outer step, with a checkpoint; a second one does not wait for the step,
    a third one kills. Whatever happens, no process is left behind.
    """
    from service import launch as launching
    from service.preparation import prepare

    count = () if workers is None else (f"workers.count={workers}",)
    run = prepare(config, (*overrides, *count), run_dir, accept_config_change)
    if detach:
        launching.detach(run, launching.Backend(backend, address))
        status = launching.current_status(run)
    else:
        status = launching.supervise(
            run, launching.Backend(backend, address), display_on(sys.stderr if json else sys.stdout)
        )
    answer(facts_of(status), json, tables.summary(status, run))


@app.command
def supervise(run: Run, *, backend: BackendKind = "ray", address: Address = None, json: Json = False) -> None:
    """Be the supervisor of a run, as `launch` is in the foreground: for init systems and containers."""
    from service import launch as launching

    found = find_run(run)
    display = display_on(sys.stderr if json else sys.stdout)
    status = launching.supervise(found, launching.Backend(backend, address), display)
    answer(facts_of(status), json, tables.summary(status, found))


@app.command
def check(config: Config, *, overrides: Overrides = (), json: Json = False) -> None:
    """Check a configuration, the components that it names and the data that they need.

    `-` reads it from standard input.
    """
    from service.check import checked_config

    checked = checked_config(config, overrides)
    answer(checked.to_tables(), json, write_tables(checked.to_tables()))


@app.command
def status(
    run: NewestRun = None,
    *,
    watch: Annotated[bool, conf.arg(help="again and again, until the run ends")] = False,
    json: Json = False,
) -> int:
    """Show how a run stands.

    If its learner has left: what it said last. If the learner is down: the newest checkpoint; exit code 69.
    """
    found = find_run(run)
    try:
        with connected(found) as admin:
            if watch:
                answer_again(
                    ((facts_of(one), tables.status_report(one)) for one in admin.watch(_WATCH_S)), json
                )
            else:
                now = admin.status()
                now.problems.extend(supervision_problems(found))
                answer(facts_of(now), json, tables.status_report(now))
    except LearnerUnreachableError:
        last = last_status(found)
        answer(facts_of(last), json, tables.status_report(last))
        return ExitCode.OK if last.state in ENDED else ExitCode.UNREACHABLE
    return ExitCode.OK


@app.command(name="workers")
def list_workers(run: Run, *, json: Json = False) -> None:
    """List the workers that the learner knows."""
    with connected(find_run(run)) as admin:
        workers = admin.status().workers
    answer([facts_of(worker) for worker in workers], json, tables.workers_table(workers))


@app.command(name="lanes")
def list_lanes(run: Run, *, json: Json = False) -> None:
    """List the lanes: who holds each, and how far it is."""
    with connected(find_run(run)) as admin:
        lanes = admin.status().lanes
    answer([facts_of(lane) for lane in lanes], json, tables.lanes_table(lanes))


@app.command(name="events")
def list_events(
    run: Run,
    *,
    follow: Annotated[bool, conf.arg(help="wait for more, until the learner ends")] = False,
    json: Json = False,
) -> None:
    """List what happened, oldest first; with `--json` one object a line."""
    for event in events_of(find_run(run), follow):
        answer(facts_of(event), json, tables.event_line(event))


@app.command
def scale(
    run: Run, workers: Annotated[int, conf.Positional, conf.arg(metavar="N")], *, json: Json = False
) -> None:
    """Set how many workers a run has while it goes on. Lanes, and so results, stay what they are."""
    if workers < 0:
        raise UsageError(f"scale N = {workers}: must not be negative; 0 lets the run wait")
    with connected(find_run(run)) as admin:
        before = admin.scale(workers)
    answer({"workers_before": before, "workers": workers}, json, f"workers: {before} -> {workers}")


@app.command
def pause(run: Run, *, json: Json = False) -> None:
    """Hold outer updates; workers finish what they are at and wait."""
    with connected(find_run(run)) as admin:
        admin.pause()
    answer({"paused": True}, json, "paused")


@app.command
def resume(run: Run, *, json: Json = False) -> None:
    """Go on with outer updates."""
    with connected(find_run(run)) as admin:
        admin.resume()
    answer({"paused": False}, json, "goes on")


@app.command
def stop(
    run: Run,
    *,
    now: Annotated[bool, conf.arg(help="do not wait for the running outer step")] = False,
    json: Json = False,
) -> None:
    """End a run after the running outer step, with a checkpoint that `launch` resumes from."""
    with connected(find_run(run)) as admin:
        step = admin.stop(now)
    answer({"outer_step": step}, json, f"stopping at step {step}")


@checkpoint_app.command(name="list")
def list_checkpoints(run: Run, *, json: Json = False) -> None:
    """List the checkpoints that are kept, oldest first."""
    from service.checkpoints import checkpoints_of

    facts = [dataclasses.asdict(one) for one in checkpoints_of(find_run(run))]
    answer(facts, json, tables.rows_table(facts))


@checkpoint_app.command(name="save")
def save_checkpoint(run: Run, *, json: Json = False) -> None:
    """Write a checkpoint now; the run goes on meanwhile."""
    with connected(find_run(run)) as admin:
        saved = admin.save_checkpoint()
    answer(facts_of(saved), json, f"checkpoint of step {saved.outer_step}: {saved.path}")


@checkpoint_app.command(name="verify")
def verify_checkpoints(run: Run, *, json: Json = False) -> int:
    """Check every byte of the checkpoints that are kept. Exit code 74 if one is damaged."""
    from service.checkpoints import verified_checkpoints_of

    facts = [dataclasses.asdict(one) for one in verified_checkpoints_of(find_run(run))]
    answer(facts, json, tables.rows_table(facts))
    return ExitCode.CHECKPOINT if any(one["problem"] for one in facts) else ExitCode.OK


@certs_app.command(name="init")
def make_certificates(
    directory: Annotated[Path, conf.Positional, conf.arg(metavar="DIR", help="a new folder")],
    *,
    hosts: Annotated[
        tuple[str, ...],
        conf.UseAppendAction,
        conf.arg(name="host", metavar="NAME", help="what the learner is called, beside this machine's names"),
    ] = (),
    run: Annotated[str, conf.arg(help="that clients are let into; by default any")] = "*",
    days: Annotated[int, conf.arg(metavar="N", help="until they expire")] = 30,
    json: Json = False,
) -> None:
    """Make an authority, and certificates for a learner, workers, operators and viewers, for trials.

    `tls.directory = DIR` uses them. Who has DIR/authority can make more: keep it off the machines of the run.
    """
    from service.certificates import make_trial_certificates

    made = make_trial_certificates(directory, hosts, run, days)
    answer(made, json, f"{directory}: for {', '.join(made['hosts'])}; until {made['expires']}")


@app.command
def evaluate(
    run: Annotated[str, conf.Positional, conf.arg(metavar="RUN|FILE", help=f"{_A_RUN}, or an exported file")],
    *,
    tasks: Annotated[int, conf.arg(metavar="N", help="tasks to train with each optimizer")] = 16,
    steps: Annotated[
        int | None, conf.arg(metavar="N", help="inner steps; by default the longest trained on")
    ] = None,
    estimator: Annotated[int, conf.arg(metavar="I", help="take the tasks of this one of the estimators")] = 0,
    out: Annotated[Path | None, conf.arg(help="folder for pictures; by default the run's")] = None,
    json: Json = False,
) -> None:
    """Train held-out tasks with theta, with the theta that the run began with, and with Adam."""
    use_compilation_cache()
    from service.evaluation_report import evaluation_report

    report = evaluation_report(run, tasks, steps, estimator, out)
    answer(report, json, tables.evaluation_table(report))


@app.command
def export(run: Run, *, out: Annotated[Path, conf.arg(metavar="FILE")], json: Json = False) -> None:
    """Write the theta of the newest checkpoint, with its learned optimizer, for use from optax."""
    from service.trained import load_trained

    trained = load_trained(run)
    out.write_bytes(trained.to_bytes())
    facts = {"path": str(out), "outer_step": trained.outer_step}
    answer(
        facts,
        json,
        f"theta of step {trained.outer_step} in {out}; load it with unspool.exported.load_exported",
    )


@app.command
def learner(run: Run) -> int:
    """Be the learner of a run whose directory `launch` has made; workers are somebody else's business."""
    from service.processes import run_learner

    return run_learner(find_run(run))


@app.command
def worker(
    *,
    learner: Annotated[
        str, conf.arg(metavar="HOST:PORT", help="the learner's data plane, see endpoints.json")
    ],
    token_file: Annotated[
        Path | None, conf.arg(metavar="FILE", help="the run's token-worker; by default $UNSPOOL_TOKEN_FILE")
    ] = None,
    tls: Annotated[
        Path | None,
        conf.arg(metavar="DIR", help="the worker's ca.crt, tls.crt, tls.key; by default $UNSPOOL_TLS"),
    ] = None,
    name: Annotated[str | None, conf.arg(help="stable over restarts; by default this host's name")] = None,
    cpu_threads: Annotated[
        int, conf.arg(metavar="N", help="as the run's workers.cpu_threads: the bits of theta depend on it")
    ] = 1,
    gpus: Annotated[float, conf.arg(metavar="N", help="a fraction if workers share one")] = 0.0,
    cpu_devices: Annotated[
        int, conf.arg(metavar="N", help="as the run's workers.devices, where those are CPUs")
    ] = 1,
) -> int:
    """Be a worker: for Slurm, bare metal, and debugging."""
    from service.processes import run_worker
    from workers.bootstrap import Devices

    token_file = token_file or access.token_file()
    if token_file is None:
        raise UsageError(
            f"--token-file: missing; name the run's token-worker here or in ${access.TOKEN_FILE}"
        )
    devices = Devices(cpu_threads, gpus, cpu_devices)
    return run_worker(learner, token_file, name, devices, tls or access.tls_directory())
