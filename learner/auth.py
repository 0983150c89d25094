"""Who may call: a token and, under mutual TLS, a certificate; each has a role, and each method needs one."""

import dataclasses
import hmac
from collections.abc import Iterable
from typing import Final

import grpc

from learner.refusals import Reason, Refusals
from protos.roles import WILDCARD, Role, certified

_SCHEME: Final = "Bearer "


@dataclasses.dataclass(frozen=True)
class Tokens:
    """The secrets of a run, one for each role.

    Attributes:
        admin: opens everything.
        worker: lets workers in.
        viewer: shows the status.
    """

    admin: str = dataclasses.field(repr=False)
    worker: str = dataclasses.field(repr=False)
    viewer: str = dataclasses.field(repr=False)

    def __post_init__(self) -> None:
        """Refuse secrets that are none.

        Raises:
            ValueError: one is empty, or two are equal.
        """
        secrets = [getattr(self, field.name) for field in dataclasses.fields(self)]
        for field, secret in zip(dataclasses.fields(self), secrets, strict=True):
            if not secret:
                raise ValueError(f"Tokens({field.name}=...): must not be empty")
        if len(set(secrets)) < len(secrets):
            raise ValueError("Tokens(...): each role needs a token of its own")

    def role_of(self, header: str) -> Role | None:
        """Return whose token an `Authorization` header presents; how wrong it is does not change the time."""
        presented = header.removeprefix(_SCHEME) if header.startswith(_SCHEME) else ""
        found: Role | None = None
        for role in Role:
            if hmac.compare_digest(presented.encode(), str(getattr(self, role.value)).encode()):
                found = role
        return found


@dataclasses.dataclass(frozen=True)
class Refusal:
    """Why a caller is sent away.

    Attributes:
        reason: as it is counted.
        text: for the caller: what is missing.
        is_stranger: whether it is not known who calls, or it is and that does not suffice.
    """

    reason: Reason
    text: str
    is_stranger: bool

    @property
    def status(self) -> grpc.StatusCode:
        """As gRPC says it."""
        return grpc.StatusCode.UNAUTHENTICATED if self.is_stranger else grpc.StatusCode.PERMISSION_DENIED


class Access:
    """The one judge of every plane."""

    def __init__(self, tokens: Tokens, run_id: str, refusals: Refusals, *, is_mutual: bool) -> None:
        """Let in who presents one of `tokens`, and if TLS `is_mutual` a certificate for `run_id` too."""
        self._tokens = tokens
        self._run_id = run_id
        self._refusals = refusals
        self.is_mutual = is_mutual

    def refusal_of_token(self, header: str, needed: Role, what: str) -> Refusal | None:
        """Judge an `Authorization` header for `what`, which needs a role; None: let in."""
        role = self._tokens.role_of(header)
        if role is not None and role.covers(needed):
            return None
        files = "the run directory has one for each role: token (admin), token-worker, token-viewer"
        if role is not None:
            text = f"{what} needs the role {needed}; the token presented is the {role}'s; {files}"
            return self._counted(Refusal(Reason.WRONG_ROLE, text, is_stranger=False))
        reason = Reason.WRONG_TOKEN if header else Reason.NO_TOKEN
        text = f"the call does not present this run's token for the role {needed}; {files}"
        return self._counted(Refusal(reason, text, is_stranger=True))

    def refusal_of_certificate(self, uris: Iterable[str], needed: Role, what: str) -> Refusal | None:
        """Judge the names in a certificate that TLS has verified; None: let in."""
        names = [name for name in map(certified, uris) if name is not None]
        if not names:
            text = f"{what} needs a client certificate named unspool://{self._run_id}/{needed}"
            return self._counted(Refusal(Reason.NO_CERTIFICATE, text, is_stranger=True))
        roles = [role for run, role in names if run in (self._run_id, WILDCARD)]
        if not roles:
            text = f"the certificate is for run {names[0][0]!r}, this is run {self._run_id!r}"
            return self._counted(Refusal(Reason.WRONG_RUN, text, is_stranger=False))
        if any(role.covers(needed) for role in roles):
            return None
        text = f"{what} needs the role {needed}; the certificate presented is for the {roles[0]}"
        return self._counted(Refusal(Reason.WRONG_ROLE, text, is_stranger=False))

    def called(self, peer: str) -> None:
        """Take note of who calls."""
        self._refusals.called(peer)

    def refused(self, reason: Reason, text: str) -> None:
        """Count a refusal that was another's judgement."""
        self._refusals.add(reason, text)

    def _counted(self, refusal: Refusal) -> Refusal:
        self._refusals.add(refusal.reason, refusal.text)
        return refusal
