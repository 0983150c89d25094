import signal
import subprocess
import sys

from protos.exit_codes import ExitCode
from tests.support.patience import PATIENCE_S

NOBODY = "127.0.0.1:1"
RUNS = f"""
import sys
from workers.main import run
from workers.settings import WorkerSettings
sys.exit(run(WorkerSettings(learner={NOBODY!r}, token="token", name="w0"), {{"JAX_PLATFORMS": "cpu"}}))
"""


def read_until(process: subprocess.Popen[str], word: str) -> None:
    for line in process.stderr:
        if word in line:
            return
    raise AssertionError(f"the process ended with {process.wait()} and did not write {word!r}")


def test_a_process_shows_its_stacks_on_sigusr1_and_drains_on_sigterm():
    with subprocess.Popen([sys.executable, "-c", RUNS], stderr=subprocess.PIPE, text=True) as process:
        read_until(process, "looks for the learner at")
        process.send_signal(signal.SIGUSR1)
        read_until(process, "most recent call first")
        process.terminate()
        read_until(process, "drained")
        assert process.wait(PATIENCE_S) == ExitCode.OK
