import math
from types import SimpleNamespace
from typing import Any

from workers.pools.ray_nodes import DrainingNodes, elsewhere, has_others


def node(number: int, host: str, cpus: float = 1.0, alive: bool = True) -> dict[str, Any]:
    return {
        "NodeID": f"id{number}",
        "Alive": alive,
        "Resources": {"CPU": cpus} if cpus else {},
        "NodeManagerHostname": host,
        "NodeManagerAddress": f"10.0.0.{number}",
    }


def ray_with(*nodes: dict[str, Any]) -> Any:
    return SimpleNamespace(nodes=lambda: list(nodes))


def ray_that_drains(deadlines: dict[str, int], node_of: dict[str, str]) -> Any:
    state = SimpleNamespace(
        state=SimpleNamespace(get_draining_nodes=lambda: deadlines),
        actors=lambda actor: {"Address": {"NodeID": node_of[actor]}},
    )
    return SimpleNamespace(_private=SimpleNamespace(state=state))


def test_nodes_of_a_host_are_avoided_by_its_name_or_address() -> None:
    ray = ray_with(node(1, "a"), node(2, "b"), node(3, "c"))
    assert elsewhere(ray, ["a", "10.0.0.3"]) == {"ray.io/node-id": "!in(id1,id3)"}


def test_nothing_is_selected_where_nothing_is_to_be_avoided() -> None:
    assert elsewhere(ray_with(node(1, "a")), []) == {}
    assert elsewhere(ray_with(node(1, "a")), ["gone"]) == {}


def test_only_a_living_node_with_cpus_counts_as_another() -> None:
    ray = ray_with(node(1, "a"), node(2, "head", cpus=0), node(3, "dead", alive=False))
    assert not has_others(ray, ["a"])
    assert has_others(ray, ["head"])


def test_actors_on_draining_nodes_are_named_with_their_time() -> None:
    ray = ray_that_drains({"n1": 70_000, "n2": 0}, {"a": "n1", "b": "n2", "c": "n3"})
    assert DrainingNodes(ray).seconds_left(["a", "b", "c"], 10.0) == {"a": 60.0, "b": math.inf}


def test_a_ray_that_keeps_it_to_itself_is_asked_once() -> None:
    draining = DrainingNodes(SimpleNamespace())
    assert draining.seconds_left(["a"], 0.0) == {}
    assert not draining._is_understood


def test_a_ray_that_is_away_is_asked_again() -> None:
    ray = ray_that_drains({"n1": 70_000}, {"a": "n1"})
    answer = ray._private.state.state.get_draining_nodes
    ray._private.state.state.get_draining_nodes = lambda: 1 / 0
    draining = DrainingNodes(ray)
    assert draining.seconds_left(["a"], 10.0) == {}
    ray._private.state.state.get_draining_nodes = answer
    assert draining.seconds_left(["a"], 10.0) == {"a": 60.0}
