"""Access control of gRPC and HTTP servers: tokens and, under mutual TLS, client certificates.

A token and a certificate each stand for a role, and each method needs one (`protos.rpc.roles`).
"""

import dataclasses
import hmac
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import grpc

from protos.rpc.denials import DenialReason, Denials
from protos.rpc.roles import WILDCARD, Role, certified, needed_role

_SCHEME: Final = "Bearer "
_OPEN_METHODS: Final = frozenset({"/grpc.health.v1.Health/Check"})
_CERTIFICATE_URIS: Final = "peer_uri"
_TOKEN_FILES: Final = "the run directory has one for each role: token (admin), token-worker, token-viewer"


@dataclasses.dataclass(frozen=True)
class Tokens:
    """The secrets of a run, one for each role.

    Attributes:
        admin: grants everything.
        worker: for workers and relays.
        viewer: for reading the status.
    """

    admin: str = dataclasses.field(repr=False)
    worker: str = dataclasses.field(repr=False)
    viewer: str = dataclasses.field(repr=False)

    def __post_init__(self) -> None:
        """Check the secrets.

        Raises:
            ValueError: one is empty, or two are equal.
        """
        for role, secret in self.by_role().items():
            if not secret:
                raise ValueError(f"Tokens({role}=...): must not be empty")
        if len(set(self.by_role().values())) < len(Role):
            raise ValueError("Tokens(...): each role needs a token of its own")

    def by_role(self) -> dict[Role, str]:
        """Return the token of each role."""
        return {role: getattr(self, role.value) for role in Role}


@dataclasses.dataclass(frozen=True)
class AccessDenied:
    """Why a call is denied.

    Attributes:
        reason: as it is counted.
        text: for the caller: what is missing.
        is_unauthenticated: whether the caller is unknown; otherwise it is known and lacks the role.
    """

    reason: DenialReason
    text: str
    is_unauthenticated: bool

    @property
    def status(self) -> grpc.StatusCode:
        """The gRPC status of the denial."""
        if self.is_unauthenticated:
            return grpc.StatusCode.UNAUTHENTICATED
        return grpc.StatusCode.PERMISSION_DENIED


class Access:
    """Decides which calls are let in, the same way for every server of a process."""

    def __init__(
        self, tokens: Mapping[Role, str], run_id: str | None, denials: Denials, *, is_mutual: bool
    ) -> None:
        """Require one of `tokens` and, if TLS `is_mutual`, a client certificate.

        Args:
            tokens: those that are accepted, by role.
            run_id: the run that certificates must name; None while it is not known: any run.
            denials: counts the calls that are denied.
            is_mutual: whether client certificates are required.
        """
        self.run_id = run_id
        self._tokens = tokens
        self._denials = denials
        self.is_mutual = is_mutual

    def check_token(self, header: str, needed: Role, method: str) -> AccessDenied | None:
        """Check an `Authorization` header for a method that needs a role; None if it suffices."""
        role = self._role_of(header)
        if role is not None and role.covers(needed):
            return None
        if role is not None:
            text = f"{method} needs the role {needed}; the token presented is the {role}'s; {_TOKEN_FILES}"
            return self._counted(AccessDenied(DenialReason.WRONG_ROLE, text, is_unauthenticated=False))
        reason = DenialReason.WRONG_TOKEN if header else DenialReason.NO_TOKEN
        text = f"the call does not present this run's token for the role {needed}; {_TOKEN_FILES}"
        return self._counted(AccessDenied(reason, text, is_unauthenticated=True))

    def check_certificate(self, uris: Iterable[str], needed: Role, method: str) -> AccessDenied | None:
        """Check the URIs of a certificate that TLS has verified; None if they suffice."""
        names = [name for name in map(certified, uris) if name is not None]
        run_id = self.run_id
        if not names:
            text = f"{method} needs a client certificate named unspool://{run_id or 'RUN'}/{needed}"
            return self._counted(AccessDenied(DenialReason.NO_CERTIFICATE, text, is_unauthenticated=True))
        roles = [role for run, role in names if run_id is None or run in (run_id, WILDCARD)]
        if not roles:
            text = f"the certificate is for run {names[0][0]!r}, this is run {run_id!r}"
            return self._counted(AccessDenied(DenialReason.WRONG_RUN, text, is_unauthenticated=False))
        if any(role.covers(needed) for role in roles):
            return None
        text = f"{method} needs the role {needed}; the certificate presented is for the {roles[0]}"
        return self._counted(AccessDenied(DenialReason.WRONG_ROLE, text, is_unauthenticated=False))

    def note_call(self, peer: str) -> None:
        """Note that `peer` has completed its handshake and called."""
        self._denials.called(peer)

    def count_denial(self, reason: DenialReason, text: str) -> None:
        """Count a denial that was decided elsewhere."""
        self._denials.add(reason, text)

    def _role_of(self, header: str) -> Role | None:
        # Every token is compared, in constant time: how long it takes must not tell how wrong a token is.
        presented = header.removeprefix(_SCHEME) if header.startswith(_SCHEME) else ""
        found: Role | None = None
        for role, token in self._tokens.items():
            if hmac.compare_digest(presented.encode(), token.encode()):
                found = role
        return found

    def _counted(self, denied: AccessDenied) -> AccessDenied:
        self._denials.add(denied.reason, denied.text)
        return denied


class AccessInterceptor(grpc.ServerInterceptor):  # type: ignore[misc]  # grpc ships no types
    """Checks every gRPC call before its request is parsed; health checks are open."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        """Return the method's handler behind a check, as a handler of the same kind."""
        handler, method = continuation(handler_call_details), handler_call_details.method
        header = dict(handler_call_details.invocation_metadata).get("authorization", "")
        denied = None
        if method not in _OPEN_METHODS:
            denied = self._access.check_token(header, needed_role(method), method)
        if handler is None and denied is None:
            return None  # gRPC answers that there is no such method

        def check(context: Any) -> None:
            self._access.note_call(context.peer())
            answer = denied or self._check_certificate(context, method)
            if answer is not None:
                context.abort(answer.status, answer.text)

        return _guarded(handler, check, is_parsed=denied is None)

    def _check_certificate(self, context: Any, method: str) -> AccessDenied | None:
        if not self._access.is_mutual or method in _OPEN_METHODS:
            return None
        uris = [uri.decode(errors="replace") for uri in context.auth_context().get(_CERTIFICATE_URIS, ())]
        return self._access.check_certificate(uris, needed_role(method), method)


def _guarded(handler: Any, check: Callable[[Any], None], *, is_parsed: bool) -> Any:
    """Return a handler of the same kind as `handler` that calls `check` first; None counts as unary.

    The request of a caller that is already denied is not even parsed.
    """
    if handler is None:
        return grpc.unary_unary_rpc_method_handler(lambda request, context: check(context))
    kind = f"{_arity(handler.request_streaming)}_{_arity(handler.response_streaming)}"
    behaviour = getattr(handler, kind)

    def answer(request: Any, context: Any) -> Any:
        check(context)
        return behaviour(request, context)

    make = getattr(grpc, f"{kind}_rpc_method_handler")
    return make(answer, handler.request_deserializer if is_parsed else None, handler.response_serializer)


def _arity(is_streaming: bool) -> str:
    return "stream" if is_streaming else "unary"
