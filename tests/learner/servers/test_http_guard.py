"""Access control of HTTP requests, without a server."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from starlette.responses import PlainTextResponse

from learner.servers.http_guard import Guard
from protos.rpc.access import Access
from protos.rpc.denials import Denials
from tests.learner.builders import TOKENS


def answer(
    path: str = "/status.json",
    headers: Mapping[str, str] | None = None,
    query: str = "",
    uris: tuple[str, ...] = (),
    *,
    is_private: bool = False,
    is_mutual: bool = False,
    denials: Denials | None = None,
) -> tuple[int, dict[str, str]]:
    """Return the status and headers with which a guarded application answers a request."""
    access = Access(TOKENS.by_role(), "test-run", denials or Denials(), is_mutual=is_mutual)
    guard = Guard(PlainTextResponse("content"), access, is_private=is_private)
    scope = {
        "type": "http",
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
        "unspool.certified": uris,
    }
    sent: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("the body of a request is never read")

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(guard(scope, receive, send))
    return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:80", "[::1]:80"])
def test_on_plain_loopback_no_token_is_needed(host: str) -> None:
    assert answer(headers={"Host": host}, is_private=True)[0] == 200


@pytest.mark.parametrize("host", ["", "evil.example", "localhost.evil.example:80"])
def test_on_plain_loopback_another_host_name_is_misdirected(host: str) -> None:
    denials = Denials()
    assert answer(headers={"Host": host}, is_private=True, denials=denials)[0] == 421
    assert denials.counts() == {"wrong_host": 1}


def test_beyond_loopback_a_token_is_required_and_the_answer_says_how_to_send_it() -> None:
    status, headers = answer()
    assert (status, headers["www-authenticate"]) == (401, "Bearer")


@pytest.mark.parametrize("token", [TOKENS.viewer, TOKENS.admin])
def test_a_token_is_accepted_in_the_header_and_in_the_query(token: str) -> None:
    assert answer(headers={"Authorization": f"Bearer {token}"})[0] == 200
    assert answer(query=f"token={token}")[0] == 200


def test_the_token_of_a_worker_lacks_the_role() -> None:
    assert answer(query=f"token={TOKENS.worker}")[0] == 403


def test_the_header_takes_precedence_over_the_query() -> None:
    assert answer(headers={"Authorization": "Bearer wrong"}, query=f"token={TOKENS.viewer}")[0] == 401


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probes_need_no_token(path: str) -> None:
    assert answer(path)[0] == 200


@pytest.mark.parametrize(
    ("uris", "status"),
    [
        ((), 401),
        (("unspool://test-run/viewer",), 200),
        (("unspool://test-run/worker",), 403),
        (("unspool://other/viewer",), 403),
    ],
)
def test_mutual_tls_needs_a_certificate_as_well_as_a_token(uris: tuple[str, ...], status: int) -> None:
    assert answer(query=f"token={TOKENS.viewer}", uris=uris, is_mutual=True)[0] == status


@pytest.mark.parametrize("headers", [{"Content-Length": "1"}, {"Transfer-Encoding": "chunked"}])
def test_a_request_with_a_body_is_rejected_unread_and_the_connection_closed(headers: dict[str, str]) -> None:
    status, answered = answer(headers=headers, query=f"token={TOKENS.admin}")
    assert (status, answered["connection"]) == (413, "close")


def test_an_empty_body_is_no_body() -> None:
    assert answer(headers={"Content-Length": "0"}, query=f"token={TOKENS.viewer}")[0] == 200
