"""Merging of several estimates into one push, for learners that average gradients.

A weighted mean of weighted means is the weighted mean of all the estimates behind them. The learner's update
is therefore the same, up to one rounding, as if every estimate had arrived separately.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from protos import codec
from protos.rpc.push import parts_of
from protos.unspool.v1 import common_pb2, learner_pb2


@dataclass(frozen=True)
class PendingPush:
    """A push that the learner has not finally answered.

    Attributes:
        session_id: the session that sent it and that receives the answer.
        push: the message as received; its `push_id` is the sender's.
        body: the gradient's bytes, already checked against the schema.
        can_merge: whether it may be part of a mean: it is finite and has positive weight.
    """

    session_id: str
    push: learner_pb2.GradientEstimatorOut
    body: codec.Buffer = field(repr=False)
    can_merge: bool

    @property
    def parts(self) -> Sequence[learner_pb2.Part]:
        """The estimates in the push: one, or those merged by another relay."""
        return parts_of(self.push)


def is_mergeable(
    push: learner_pb2.GradientEstimatorOut, body: codec.Buffer, schema: common_pb2.Schema
) -> bool:
    """Whether a checked push may be part of a mean: its weight is positive and all its values are finite."""
    if not (math.isfinite(push.weight) and push.weight > 0 and math.isfinite(push.mean_loss)):
        return False
    return all(
        not np.issubdtype(leaf.dtype, np.integer) and leaf.dtype != np.bool_ and bool(np.isfinite(leaf).all())
        for leaf in codec.decode(body, schema)
    )


def merged(
    pushes: Sequence[PendingPush], schema: common_pb2.Schema
) -> tuple[learner_pb2.GradientEstimatorOut, bytes]:
    """Return one push and its body that replace several: `grad = sum(w g) / sum(w)`, `weight = sum(w)`.

    Sums are in float64; each element is rounded once, to the schema's dtype. The sender fills in the push's
    `grad` field.

    Args:
        pushes: at least one, all mergeable.
        schema: of their bodies.
    """
    weights = [held.push.weight for held in pushes]
    weight = math.fsum(weights)
    push = learner_pb2.GradientEstimatorOut(
        outer_step=min(held.push.outer_step for held in pushes),
        weight=weight,
        mean_loss=math.fsum(held.push.weight * held.push.mean_loss for held in pushes) / weight,
        compute_s=max(held.push.compute_s for held in pushes),
        parts=[part for held in pushes for part in held.parts],
    )
    bodies = [codec.decode(held.body, schema) for held in pushes]
    leaves = [_weighted_mean(leaves_of_one, weights, weight) for leaves_of_one in zip(*bodies, strict=True)]
    return push, b"".join(leaf.tobytes() for leaf in leaves)


def _weighted_mean(leaves: Sequence[codec.Array], weights: Sequence[float], weight: float) -> codec.Array:
    total = np.zeros(leaves[0].shape, np.float64)
    for leaf, own in zip(leaves, weights, strict=True):
        total += own * leaf.astype(np.float64)
    total /= weight
    return total.astype(leaves[0].dtype)
