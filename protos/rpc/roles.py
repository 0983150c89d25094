"""Authorization: the roles of callers, and the role that each gRPC method requires."""

import enum
from typing import Final

WILDCARD: Final = "*"
_SCHEME: Final = "unspool://"


class Role(enum.StrEnum):
    """The role of a caller, given by its token and, under mutual TLS, by its certificate too."""

    WORKER = "worker"
    """Joins, fetches thetas, pushes gradients."""
    VIEWER = "viewer"
    """Reads the status, events and metrics."""
    ADMIN = "admin"
    """Has full access, as the owner of the run."""

    def covers(self, needed: "Role") -> bool:
        """Return whether this role includes the rights of `needed`."""
        return self in (Role.ADMIN, needed)


_NEEDED: Final = {
    "/unspool.v1.Learner/": Role.WORKER,
    "/unspool.v1.Admin/GetStatus": Role.VIEWER,
    "/unspool.v1.Admin/WatchStatus": Role.VIEWER,
    "/unspool.v1.Admin/ListEvents": Role.VIEWER,
    "/grpc.health.v1.Health/": Role.VIEWER,
    "/grpc.reflection.v1alpha.ServerReflection/": Role.VIEWER,
}


def needed_role(method: str) -> Role:
    """Return the role that a method "/package.Service/Method" requires; admin by default."""
    service = method.rpartition("/")[0] + "/"
    return _NEEDED.get(method) or _NEEDED.get(service, Role.ADMIN)


def certificate_name(run: str, role: Role) -> str:
    """Return the URI that certifies `role` in `run`, or in every run if `run` is "*"."""
    return f"{_SCHEME}{run}/{role}"


def certified(uri: str) -> tuple[str, Role] | None:
    """Return the run and role of a URI made by `certificate_name`, or None for any other URI."""
    run, _, role = uri.removeprefix(_SCHEME).rpartition("/")
    if not uri.startswith(_SCHEME) or not run or role not in set(Role):
        return None
    return run, Role(role)
