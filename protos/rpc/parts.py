"""What a push consists of: one estimate, or the several whose weighted mean it carries."""

from collections.abc import Sequence

from protos.unspool.v1.learner_pb2 import GradientEstimatorOut, Part


def parts_of(push: GradientEstimatorOut) -> Sequence[Part]:
    """Return the estimates in a push; one that was not merged is its own only part."""
    return push.parts or [
        Part(
            lane=push.lane,
            incarnation=push.incarnation,
            seq=push.seq,
            theta_version=push.theta_version,
            weight=push.weight,
            mean_loss=push.mean_loss,
            unroll_info=push.unroll_info,
            compute_s=push.compute_s,
        )
    ]
