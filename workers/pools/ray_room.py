"""Which resource of a Ray cluster limits its workers."""

from collections.abc import Iterable, Mapping


def shortage(
    bundle: Mapping[str, float], nodes: Iterable[Mapping[str, float]], free: Mapping[str, float]
) -> str:
    """Return which resources of a worker a cluster does not have, or does not have free.

    Args:
        bundle: resources of one worker.
        nodes: total resources of each node of the cluster.
        free: unused resources of the whole cluster.
    """
    nodes = list(nodes)
    missing = []
    for name, amount in bundle.items():
        largest = max((node.get(name, 0.0) for node in nodes), default=0.0)
        total = sum(node.get(name, 0.0) for node in nodes)
        left = free.get(name, 0.0)
        if amount and largest < amount:
            missing.append(f"{name}: {amount:g} wanted, no machine of the cluster has more than {largest:g}")
        elif amount and left < amount:
            missing.append(f"{name}: {amount:g} wanted, {left:g} of {total:g} in the cluster free")
    whole = ", ".join(f"{name}: {amount:g}" for name, amount in bundle.items() if amount)
    return "; ".join(missing) or f"no machine has all of {whole} free at once"


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
