"""Access control of gRPC and HTTP servers: tokens and, under mutual TLS, client certificates.

Tokens and certificates each stand for a role, and each method requires a role (`protos.rpc.roles`).
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
        admin: grants all access.
        worker: grants the access of workers and relays.
        viewer: grants read access to status, events and metrics.
    """

    admin: str = dataclasses.field(repr=False)
    worker: str = dataclasses.field(repr=False)
    viewer: str = dataclasses.field(repr=False)

    def __post_init__(self) -> None:
        """Check the secrets.

        Raises:
            ValueError: a secret is empty, or two are equal.
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
        reason: the reason in the counts of denials.
        text: the message for the caller.
        is_unauthenticated: whether the caller is unauthenticated; otherwise it lacks the required role.
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
    """The access rules of a process, shared by all its servers."""

    def __init__(
        self, tokens: Mapping[Role, str], run_id: str | None, denials: Denials, *, is_mutual: bool
    ) -> None:
        """Require one of `tokens` and, if TLS `is_mutual`, a client certificate.

        Args:
            tokens: the accepted tokens, by role.
            run_id: the run that certificates must name; None, if it is not known yet, accepts any run.
            denials: counts denied calls.
            is_mutual: whether client certificates are required.
        """
        self.run_id = run_id
        self._tokens = tokens
        self._denials = denials
        self.is_mutual = is_mutual

    def check_token(self, header: str, needed: Role, method: str) -> AccessDenied | None:
        """Check an `Authorization` header for the role `needed`; return None if it is sufficient."""
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
        """Check a verified certificate's URIs for the role `needed`; return None if they are sufficient."""
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
        """Record a call of `peer`, which shows that its TLS handshake succeeded."""
        self._denials.called(peer)

    def count_denial(self, reason: DenialReason, text: str) -> None:
        """Count a denial decided by the caller of this method."""
        self._denials.add(reason, text)

    def _role_of(self, header: str) -> Role | None:
        # Compare all tokens in constant time, so that timing does not reveal how much of a token is right.
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
    """Checks the access of every gRPC call, except health checks, before its request is parsed."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        """Return the method's handler with a preceding check, as a handler of the same kind."""
        handler, method = continuation(handler_call_details), handler_call_details.method
        header = dict(handler_call_details.invocation_metadata).get("authorization", "")
        denied = None
        if method not in _OPEN_METHODS:
            denied = self._access.check_token(header, needed_role(method), method)
        if handler is None and denied is None:
            return None  # gRPC replies UNIMPLEMENTED

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
    """Return a handler of the same kind as `handler` that calls `check` first; None is treated as unary.

    With `is_parsed` False, for a caller that is already denied, the request is not parsed.
    """
    if handler is None:
        return grpc.unary_unary_rpc_method_handler(lambda request, context: check(context))
    directions = (handler.request_streaming, handler.response_streaming)
    kind = "_".join("stream" if is_streaming else "unary" for is_streaming in directions)
    behaviour = getattr(handler, kind)

    def answer(request: Any, context: Any) -> Any:
        check(context)
        return behaviour(request, context)

    make = getattr(grpc, f"{kind}_rpc_method_handler")
    return make(answer, handler.request_deserializer if is_parsed else None, handler.response_serializer)
