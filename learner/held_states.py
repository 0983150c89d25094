"""Lane states in workers' memories: which of them a lease may go on from, now and after theta went back."""

from learner.lanes import Lane, epoch_of
from learner.run import Run
from protos.unspool.v1.learner_pb2 import HeldLane


def is_of_use(run: Run, lane: Lane, held: HeldLane) -> bool:
    """Whether a lease of a lane may go on from the state that a worker holds of it.

    In `sync` that is the state at exactly the seq that the learner has. Otherwise a later one is as good: it
    has seen more than any snapshot.
    """
    if run.aggregation.exact_versions:
        return held.seq == lane.reached
    return held.seq >= lane.reached and not is_to_be_discarded(run, lane, held)


def is_to_be_discarded(run: Run, lane: Lane, held: HeldLane | None) -> bool:
    """Whether a worker must not go on from what it has in memory of a lane, although it is recent enough.

    That is so if the lane began anew since, and, unless such states are kept, if theta went back: then the
    state has seen thetas that there never were. What is not known to be `held` may still be there.
    """
    if run.aggregation.exact_versions:
        return False
    if lane.anew:
        return True
    return (
        held is not None
        and run.settings.aggregation.lanes_after_rollback != "keep"
        and was_rolled_back(run, lane, held)
    )


def was_rolled_back(run: Run, lane: Lane, held: HeldLane) -> bool:
    """Whether a state is one that an earlier life of the learner reached and this one has not."""
    return epoch_of(held.incarnation) < run.epoch and held.seq > lane.reached
