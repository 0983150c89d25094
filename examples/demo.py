"""`make demo`: meta-training with a changing number of Ray workers, and an evaluation of the result.

It runs the commands that a user would run, and exits with an error if one of them fails, or if the
meta-trained optimizer is not better than its initialisation.
"""

import contextlib
import itertools
import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

UNSPOOL = (sys.executable, "-m", "service")
CONFIG = Path(__file__).parent / "digits_pes.toml"
SCALE_AT = ((80, 3), (160, 2))  # outer step, workers
DEADLINE_S = 1200.0


def main() -> None:
    """Launch a run, scale it while it is running, and evaluate the result."""
    run = next(path for number in itertools.count(1) if not (path := Path(f"runs/demo-{number}")).exists())
    show(f"$ unspool launch {CONFIG} --run-dir {run}")
    launched = subprocess.Popen([*UNSPOOL, "launch", str(CONFIG), "--run-dir", str(run)])
    try:
        for outer_step, workers in SCALE_AT:
            wait_for_step(run, outer_step, launched)
            unspool("scale", run, workers)
        if launched.wait(DEADLINE_S) != 0:
            sys.exit(f"demo: launch ended with exit code {launched.returncode}")
    finally:
        end(launched)
    unspool("evaluate", run)
    report = json.loads((run / "evaluation.json").read_text())
    check(report)
    show(f"The meta-trained optimizer beats its initialisation. Pictures: {', '.join(report['pictures'])}")


def wait_for_step(run: Path, outer_step: int, launched: subprocess.Popen[bytes]) -> None:
    """Poll the status endpoint until the run has reached `outer_step`."""
    give_up_at = time.monotonic() + DEADLINE_S
    while time.monotonic() < give_up_at:
        if launched.poll() is not None:
            sys.exit(f"demo: launch ended with exit code {launched.returncode} before step {outer_step}")
        with contextlib.suppress(OSError):  # the learner may not listen yet
            endpoints = json.loads((run / "endpoints.json").read_text())
            with urllib.request.urlopen(f"http://{endpoints['http']}/status.json", timeout=10) as answer:
                if json.load(answer)["outer_step"] >= outer_step:
                    return
        time.sleep(1)
    sys.exit(f"demo: step {outer_step} was not reached within {DEADLINE_S:.0f} s")


def unspool(*arguments: object) -> None:
    """Print and run one command."""
    show(f"$ unspool {' '.join(map(str, arguments))}")
    finished = subprocess.run([*UNSPOOL, *map(str, arguments)], check=False)
    if finished.returncode != 0:
        sys.exit(f"demo: {arguments[0]} ended with exit code {finished.returncode}")


def show(text: str) -> None:
    """Print `text` so that it stands out from the output of the commands."""
    sys.stdout.write(f"\n{text}\n")
    sys.stdout.flush()


def end(launched: subprocess.Popen[bytes]) -> None:
    """Stop the run with a checkpoint and wait for all processes."""
    if launched.poll() is None:
        launched.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            launched.wait(60)


def check(report: dict[str, Any]) -> None:
    """Exit with an error unless the meta-trained optimizer is clearly better than its initialisation."""
    trained, initial = (row["final_loss_test"] for row in report["optimizers"][:2])
    noise = trained["standard_error"] + initial["standard_error"]
    if not trained["mean"] + 3 * noise < initial["mean"]:
        sys.exit(f"demo: final test loss {trained['mean']:.3f}, at initialisation {initial['mean']:.3f}")


if __name__ == "__main__":
    main()
