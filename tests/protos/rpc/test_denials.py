from protos.rpc.denials import HANDSHAKE_S, DenialReason, Denials
from tests.support.clock import Clock


def test_only_the_first_denial_of_each_reason_is_reported() -> None:
    reported: list[tuple[DenialReason, str]] = []
    denials = Denials(report=lambda reason, text: reported.append((reason, text)))
    for text in ("first", "second"):
        denials.add(DenialReason.NO_TOKEN, text)
    denials.add(DenialReason.NO_ROOM, "third")
    assert reported == [(DenialReason.NO_TOKEN, "first"), (DenialReason.NO_ROOM, "third")]
    assert denials.counts() == {"no_token": 2, "no_room": 1}


def test_a_report_is_bounded_whatever_the_caller_sends() -> None:
    reported: list[str] = []
    Denials(report=lambda reason, text: reported.append(text)).add(DenialReason.BAD_NAME, "x" * 10_000)
    assert len(reported[0]) == 500


def test_a_handshake_fails_when_no_call_follows_in_time() -> None:
    clock = Clock()
    denials = Denials(clock)
    denials.handshake_began()
    denials.handshake_began()
    denials.called("ipv4:10.0.0.1:1")
    clock.advance(HANDSHAKE_S + 1)
    assert denials.counts() == {"tls_handshake": 1}


def test_only_the_first_call_of_a_peer_completes_a_handshake() -> None:
    clock = Clock()
    denials = Denials(clock)
    denials.called("ipv4:10.0.0.1:1")
    denials.handshake_began()
    denials.called("ipv4:10.0.0.1:1")
    clock.advance(HANDSHAKE_S + 1)
    assert denials.counts() == {"tls_handshake": 1}
