"""A simulated run: the real core, files and arithmetic, with workers under a random schedule."""

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from learner.coordination.checkpointing import SaveJob
from learner.settings import LearnerSettings
from learner.state.buffer import BufferedPush
from learner.storage.checkpoint_store import CheckpointStore
from learner.storage.snapshots import SnapshotStore
from learner.training.disk_writer import Saver
from learner.training.outer import OuterLearner
from learner.training.resume import restore
from protos import codec
from protos.unspool.v1 import learner_pb2
from tests.learner.builders import OPENED, SCHEMA, WatchedCore, open_log
from tests.learner.simulated_worker import SimulatedWorker, estimate, init_state
from tests.support.clock import Clock


def straight_loop(settings: LearnerSettings, steps: int) -> list[str]:
    """Return theta's digest at each outer step, computed in a plain loop."""
    outer = OuterLearner(settings.experiment, settings.aggregation.batch_size)
    theta = outer.initialise()
    lanes = range(settings.experiment.lanes)
    states = [init_state(lane, theta.body) for lane in lanes]
    digests = [theta.sha256]
    for outer_step in range(steps):
        batch = []
        for lane in lanes:
            body, states[lane] = estimate(lane, outer_step + 1, theta.body, states[lane])
            leaves = codec.decode(body, SCHEMA)
            batch.append(BufferedPush(lane, outer_step + 1, outer_step, "w", 0, 1.0, 0.0, leaves, 1, 0.0))
        theta = outer.apply(outer_step, batch).published
        digests.append(theta.sha256)
    return digests


class Simulation:
    """A learner with its workers, killed and restored from its files."""

    def __init__(self, settings: LearnerSettings, draws: random.Random) -> None:
        self.settings = settings
        self.draws = draws
        self.clock = Clock()
        self.term = 0
        self.born = 0
        self.workers: list[SimulatedWorker] = []
        self.digests: dict[int, set[str]] = {}
        self.seen: Counter[str] = Counter()
        self.start_learner()
        OPENED.callback(self.disconnect_workers)

    def start_learner(self) -> None:
        """Start a new term of the learner from its files."""
        self.term += 1
        directory = self.settings.run_dir
        self.snapshots = SnapshotStore(directory / "lanes")
        checkpoints = CheckpointStore(directory / "checkpoints", self.settings.checkpoint.keep)
        events = open_log(directory / "events.jsonl")
        self.outer = OuterLearner(self.settings.experiment, self.settings.aggregation.batch_size)
        run = restore(self.settings, self.term, self.outer, checkpoints, self.snapshots, events, self.clock)
        self.core = WatchedCore(run)
        self.saver = Saver(self.core.checkpoints, checkpoints, self.snapshots)
        self.unfinished = False
        self.unwritten: list[SaveJob] = []
        self.note()

    def note(self) -> None:
        newest = self.core.run.thetas.newest
        self.digests.setdefault(newest.outer_step, set()).add(newest.sha256)

    def update(self) -> None:
        """Run the first half of the update thread's work: apply a batch and publish theta."""
        if self.unfinished:
            return
        batch = self.core.updates.take_batch()
        if batch is not None:
            self.core.updates.applied(self.outer.apply(self.core.run.outer_step, batch))
            self.note()
        self.unfinished = batch is not None

    def finish_update(self) -> None:
        """Run the second half: queue the saves, which are written at a random later time."""
        self.unwritten += self.core.checkpoints.take()
        self.unfinished = False
        if self.unwritten and self.draws.random() < 0.5:
            self.saver.save(self.unwritten.pop(0))

    def step(self) -> None:
        """Run one random useful action."""
        self.draws.choice(self.useful())()
        self.workers = [worker for worker in self.workers if not worker.gone]

    def useful(self) -> list[Callable[[], Any]]:
        useful: list[Callable[[], Any]] = [self.update, self.finish_update]
        for worker in self.workers:
            if worker.stream is None:
                useful.append(worker.connect)
                continue
            useful += [worker.receive] * bool(worker.downlink)
            useful += [worker.compute] * (not worker.downlink)
            useful += [worker.send] * (2 * bool(worker.uplink))
        return useful

    def disturb(self) -> None:
        """Run one random fault."""
        troubles = (
            self.add_worker,
            self.add_worker,
            self.kill_worker,
            self.break_stream,
            self.repeat,
            self.drain,
            self.silence,
            self.kill_learner,
            self.request_checkpoint,
            self.stop_and_resume,
            self.pause_and_drain,
        )
        trouble = self.draws.choice(troubles)
        self.seen[trouble.__name__] += 1
        trouble()

    def add_worker(self) -> None:
        if len(self.workers) < 3:
            self.born += 1
            taken = {worker.name for worker in self.workers}
            name = next(f"w{number}" for number in range(4) if f"w{number}" not in taken)
            self.workers.append(SimulatedWorker(self, name, f"i{self.born}"))

    def kill_worker(self) -> None:
        if self.workers:
            victim = self.draws.choice(self.workers)
            victim.disconnect()
            self.workers.remove(victim)

    def break_stream(self) -> None:
        if self.workers:
            self.draws.choice(self.workers).disconnect()

    def repeat(self) -> None:
        """Resend all pushes without a final verdict."""
        for worker in self.workers:
            if worker.stream is not None:
                worker.uplink.extend(worker.unsettled.values())

    def drain(self) -> None:
        if self.core.run.sessions:
            victim = self.draws.choice(list(self.core.run.sessions))
            self.core.admin.drain(victim.name, "test", 60.0)

    def silence(self) -> None:
        """Advance time while some workers send no heartbeats."""
        for _ in range(3):
            self.clock.advance(13.0)
            for worker in self.workers:
                if worker.stream is not None and self.draws.random() < 0.7:
                    self.core.heartbeat(worker.session_id, learner_pb2.Heartbeat())
            self.core.tick()

    def kill_learner(self) -> None:
        """Kill and restart the learner; only its files persist, including unfinished writes."""
        self.disconnect_workers()
        self.start_learner()

    def disconnect_workers(self) -> None:
        for worker in self.workers:
            worker.disconnect()

    def request_checkpoint(self) -> None:
        self.core.admin.request_checkpoint()

    def stop_and_resume(self) -> None:
        """Stop the learner cleanly with a final checkpoint, and restart it."""
        self.finish_update()
        for job in self.core.checkpoints.last():
            self.saver.save(job)
        self.kill_learner()

    def pause_and_drain(self) -> None:
        """Pause updates and drain all workers, so that lanes are ahead of theta."""
        self.finish_update()
        for _ in range(200):
            self.let_workers_act()
        for session in list(self.core.run.sessions):
            self.core.admin.drain(session.name, "test", 60.0)
        for _ in range(50):
            self.let_workers_act()
        self.draws.choice((self.stop_and_resume, self.request_checkpoint))()

    def let_workers_act(self) -> None:
        choices = [action for action in self.useful() if action not in (self.update, self.finish_update)]
        if choices:
            self.draws.choice(choices)()
        self.workers = [worker for worker in self.workers if not worker.gone]

    def run(self, steps: int, trouble: float) -> str:
        """Run until theta is at outer step `steps`; return its digest."""
        for _ in range(200_000):
            if self.core.run.outer_step >= steps:
                return self.core.run.thetas.newest.sha256
            if not self.workers:
                self.add_worker()
            if self.draws.random() < trouble:
                self.disturb()
            if self.draws.random() < 0.02:
                self.clock.advance(1.0)
                self.core.tick()
            self.step()
        raise AssertionError(f"stuck at outer_step {self.core.run.outer_step}")
