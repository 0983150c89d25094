"""Who may call what: three roles, and the one that each method of the wire needs."""

import enum
from typing import Final

WILDCARD: Final = "*"
_SCHEME: Final = "unspool://"


class Role(enum.StrEnum):
    """What a caller is. Its token says so, and under mutual TLS its certificate as well."""

    WORKER = "worker"
    """Joins, fetches thetas, pushes gradients."""
    VIEWER = "viewer"
    """Reads the status, events and metrics, and changes nothing."""
    ADMIN = "admin"
    """The run's owner: may do everything."""

    def covers(self, needed: "Role") -> bool:
        """Whether a caller in this role may do what `needed` may."""
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
    """Return the role that a method, "/package.Service/Method", needs; admin where nothing else is said."""
    service = method.rpartition("/")[0] + "/"
    return _NEEDED.get(method) or _NEEDED.get(service, Role.ADMIN)


def certificate_name(run: str, role: Role) -> str:
    """Return the URI by which a certificate says what its holder is, in `run` or, with "*", in every run."""
    return f"{_SCHEME}{run}/{role}"


def certified(uri: str) -> tuple[str, Role] | None:
    """Return the run and the role of such a URI, or None if it is none."""
    run, _, role = uri.removeprefix(_SCHEME).rpartition("/")
    if not uri.startswith(_SCHEME) or not run or role not in set(Role):
        return None
    return run, Role(role)
