"""What a push contributes to an update, from what it says of its parts."""

import math
from collections.abc import Sequence

from learner.buffer import Contribution, Estimate
from protos.unspool.v1.learner_pb2 import GradientEstimatorOut, Part


def contribution_of(
    push: GradientEstimatorOut, parts: Sequence[Part], worker_id: str, arrived_s: float
) -> Contribution:
    """Return what a push contributes, its gradient left out.

    Of several parts, weight and loss are what the parts say, so that they agree with what is on record of
    each; it is as old as its oldest part.
    """
    weight, mean_loss = push.weight, push.mean_loss
    if push.parts:
        weight = math.fsum(part.weight for part in parts)
        losses = math.fsum(part.weight * part.mean_loss for part in parts if part.weight)
        mean_loss = losses / weight if weight else 0.0
    return Contribution(
        lane=parts[0].lane,
        seq=parts[0].seq,
        theta_version=min(part.theta_version for part in parts),
        worker_id=worker_id,
        push_id=push.push_id,
        weight=weight,
        mean_loss=mean_loss,
        grad=None,
        inner_steps=sum(part.unroll_info.inner_steps for part in parts),
        arrived_s=arrived_s,
        merged=tuple(Estimate(part.lane, part.seq, part.theta_version) for part in push.parts),
    )
