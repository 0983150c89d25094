"""Whether Ray has found a node for an actor, and which resource is missing if not. `ray` is passed in."""

from collections.abc import Iterable, Mapping
from typing import Any


def has_place(ray: Any, actor_id: str) -> bool:
    """Whether a node has been chosen for an actor; True if Ray's private API for it does not answer."""
    try:
        return bool(ray._private.state.actors(actor_id)["Address"]["IPAddress"])
    except Exception:  # any exception: the control plane may be unavailable, or Ray another version
        return True


def shortage(ray: Any, bundle: Mapping[str, float]) -> str:
    """Return which resources of a worker the cluster does not have, or does not have free."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    free = ray.available_resources()
    return shortage_of(bundle, nodes, free)


def shortage_of(
    bundle: Mapping[str, float], nodes: Iterable[Mapping[str, float]], free: Mapping[str, float]
) -> str:
    """Return a message about the missing resources.

    Args:
        bundle: resources of one worker.
        nodes: total resources of each node of the cluster.
        free: unused resources of the whole cluster.
    """
    nodes = list(nodes)
    said = []
    for name, amount in bundle.items():
        largest = max((node.get(name, 0.0) for node in nodes), default=0.0)
        total = sum(node.get(name, 0.0) for node in nodes)
        left = free.get(name, 0.0)
        if amount and largest < amount:
            said.append(f"{name}: {amount:g} wanted, no machine of the cluster has more than {largest:g}")
        elif amount and left < amount:
            said.append(f"{name}: {amount:g} wanted, {left:g} of {total:g} in the cluster free")
    whole = ", ".join(f"{name}: {amount:g}" for name, amount in bundle.items() if amount)
    return "; ".join(said) or f"no machine has all of {whole} free at once"


def most_that_fit(bundle: Mapping[str, float], total: Mapping[str, float]) -> tuple[int, str] | None:
    """Return how many times `bundle` fits into `total`, and what limits it; None if it needs no resources."""
    counts = {name: int(total.get(name, 0.0) / amount + 1e-9) for name, amount in bundle.items() if amount}
    if not counts:
        return None
    scarce = min(counts, key=lambda name: counts[name])
    return counts[scarce], (
        f"each takes {scarce}: {bundle[scarce]:g} and this machine's own Ray has {total.get(scarce, 0.0):g}; "
        "name a larger cluster with --address"
    )
