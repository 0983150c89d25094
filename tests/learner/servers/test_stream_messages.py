"""Whatever a worker sends, its stream's reader does not fall over, and memory does not follow its numbers."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from learner.storage.snapshots import SnapshotStore
from protos.unspool.v1 import learner_pb2
from protos.unspool.v1.common_pb2 import Chunk, Tensors
from protos.unspool.v1.learner_pb2 import WorkerMessage
from tests.learner.builders import Peer, WatchedCore, make_core, stream_reader

NUMBERS = st.sampled_from([0, 1, 2, 3, 7, 2**31, 2**63]) | st.integers(0, 2**64 - 1)
SMALL = st.sampled_from([0, 1, 2, 3, 2**32 - 1])
BYTES = st.binary(max_size=40)
CRC = st.sampled_from([0, 1])


def messages() -> st.SearchStrategy[WorkerMessage]:
    tensors = st.builds(Tensors, inline=BYTES, crc32=CRC) | st.builds(Tensors, transfer=NUMBERS, crc32=CRC)
    push = st.builds(
        learner_pb2.GradientEstimatorOut,
        lane=SMALL,
        fencing_token=NUMBERS,
        seq=NUMBERS,
        outer_step=NUMBERS,
        weight=st.floats(),
        mean_loss=st.floats(width=32),
        grad=tensors,
    )
    snapshot = st.builds(
        learner_pb2.Snapshot,
        lane=SMALL,
        fencing_token=NUMBERS,
        seq=NUMBERS,
        bytes=NUMBERS,
        sha256=st.text(max_size=5),
        transfer=NUMBERS,
    )
    bodies: list[st.SearchStrategy[dict[str, Any]]] = [
        st.fixed_dictionaries({"push": push}),
        st.fixed_dictionaries({"snapshot": snapshot}),
        st.fixed_dictionaries(
            {"chunk": st.builds(Chunk, transfer=NUMBERS, offset=NUMBERS, data=BYTES, crc32=CRC)}
        ),
        st.fixed_dictionaries(
            {"lane_return": st.builds(learner_pb2.LaneReturn, lane=SMALL, fencing_token=NUMBERS, seq=NUMBERS)}
        ),
        st.fixed_dictionaries({"log": st.builds(learner_pb2.LogLine, level=st.text(), text=st.text())}),
        st.fixed_dictionaries(
            {"heartbeat": st.builds(learner_pb2.Heartbeat, phase=st.integers(0, 9), phase_age_s=st.floats())}
        ),
        st.just({}),
    ]
    return st.one_of(bodies).map(lambda body: WorkerMessage(**body))


@pytest.fixture
def core(tmp_path: Path) -> WatchedCore:
    return make_core(tmp_path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=st.lists(messages(), max_size=12))
def test_no_message_makes_the_reader_fall_over(
    core: WatchedCore, tmp_path: Path, script: list[WorkerMessage]
) -> None:
    peer = Peer(core, "w0", f"i{len(core.run.sessions)}")
    fence = core.run.lanes[0].fencing_token
    inbound = stream_reader(core, peer.session_id, SnapshotStore(tmp_path / "lanes"))
    for message in script:
        kind = message.WhichOneof("body")
        if kind in ("push", "snapshot", "lane_return") and getattr(message, kind).fencing_token % 2:
            getattr(message, kind).fencing_token = fence  # half of them get past the fence
        inbound.take(message)
        core.tick()
    inbound.close()
    assert not list((tmp_path / "lanes").glob("*/*.partial"))
