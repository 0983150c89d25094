"""Queries about Ray's nodes. `ray` is passed in, because only `workers.pools.ray_pool` imports it."""

import logging
import math
from collections.abc import Collection
from typing import Any

_logger = logging.getLogger(__name__)

_NODE_ID_LABEL = "ray.io/node-id"


def elsewhere(ray: Any, hosts: Collection[str]) -> dict[str, str]:
    """Return a label selector that keeps an actor off `hosts`: names or addresses of machines."""
    avoided = [node["NodeID"] for node in alive(ray) if _is_on(node, hosts)] if hosts else []
    return {_NODE_ID_LABEL: f"!in({','.join(avoided)})"} if avoided else {}


def has_others(ray: Any, hosts: Collection[str]) -> bool:
    """Whether there is a node that could run an actor and is not on `hosts`."""
    return any(node["Resources"].get("CPU") and not _is_on(node, hosts) for node in alive(ray))


def has_place(ray: Any, actor_id: str) -> bool:
    """Whether a node has been chosen for an actor; True if Ray's private API for it does not answer."""
    try:
        return bool(ray._private.state.actors(actor_id)["Address"]["IPAddress"])
    except Exception:  # any exception: the control plane may be unavailable, or Ray another version
        return True


class DrainingNodes:
    """The nodes that will be taken away. Ray's API for this is private and may change."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._is_understood = True

    def seconds_left(self, actor_ids: Collection[str], unix_time_s: float) -> dict[str, float]:
        """Return the seconds until the nodes of `actor_ids` are taken away; inf if unknown.

        Actors on nodes that stay are left out.
        """
        if not self._is_understood:
            return {}
        try:
            deadlines = self._deadlines_of(actor_ids)
        except (AttributeError, KeyError, TypeError, ImportError) as error:
            self._is_understood = False
            _logger.warning("this version of Ray does not report which nodes are draining (%r)", error)
            return {}
        except Exception as error:
            # Ray may raise any exception while its control plane is unavailable; the next poll asks again.
            _logger.warning("Ray does not answer which nodes are draining: %s", error)
            return {}
        return {
            actor_id: at_ms / 1e3 - unix_time_s if at_ms else math.inf
            for actor_id, at_ms in deadlines.items()
        }

    def _deadlines_of(self, actor_ids: Collection[str]) -> dict[str, float]:
        """Return when the actors' nodes are taken away, in milliseconds of Unix time; 0 if unknown."""
        state = self._ray._private.state
        draining: dict[str, float] = state.state.get_draining_nodes()
        if not draining:
            return {}
        nodes = {actor_id: state.actors(actor_id)["Address"]["NodeID"] for actor_id in actor_ids}
        return {actor_id: draining[node] for actor_id, node in nodes.items() if node in draining}


def alive(ray: Any) -> list[dict[str, Any]]:
    """Return Ray's descriptions of the living nodes."""
    return [node for node in ray.nodes() if node["Alive"]]


def _is_on(node: dict[str, Any], hosts: Collection[str]) -> bool:
    return node["NodeManagerHostname"] in hosts or node["NodeManagerAddress"] in hosts
