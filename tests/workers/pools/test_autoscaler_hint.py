from workers.pools.autoscaler_hint import AutoscalerHint


class World:
    """A hint, a clock, and what the autoscaler was asked for."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.requests: list[int] = []
        self.bundles: list[dict[str, float]] = []
        self.is_away = False
        self.hint = AutoscalerHint(self.request, {"CPU": 2.0, "GPU": 0.0}, lambda: self.now_s)

    def request(self, bundles: list[dict[str, float]]) -> None:
        self.requests.append(len(bundles))
        self.bundles = bundles
        if self.is_away:
            raise RuntimeError("not reachable")


def test_room_is_asked_for_as_one_bundle_for_each_worker() -> None:
    world = World()
    world.hint.ask(3)
    assert world.bundles == [{"CPU": 2.0}] * 3


def test_the_same_is_not_asked_again_at_once() -> None:
    world = World()
    world.hint.ask(3)
    world.hint.ask(3)
    assert world.requests == [3]


def test_a_change_is_asked_for_at_once() -> None:
    world = World()
    world.hint.ask(3)
    world.hint.ask(4)
    assert world.requests == [3, 4]


def test_a_request_is_repeated_after_five_minutes() -> None:
    world = World()
    world.hint.ask(3)
    world.now_s = 300.0
    world.hint.ask(3)
    assert world.requests == [3, 3]


def test_a_run_scaled_to_nothing_lets_go_of_its_machines_once() -> None:
    world = World()
    world.hint.ask(3)
    world.hint.ask(0)
    world.now_s = 1000.0
    world.hint.ask(0)
    assert world.requests == [3, 0]


def test_release_takes_a_request_back_and_only_if_there_is_one() -> None:
    world = World()
    world.hint.release()
    assert world.requests == []
    world.hint.ask(2)
    world.hint.release()
    assert world.requests == [2, 0]


def test_an_autoscaler_that_does_not_answer_is_asked_again_later() -> None:
    world = World()
    world.is_away = True
    world.hint.ask(2)
    world.is_away, world.now_s = False, 300.0
    world.hint.ask(2)
    assert world.requests == [2, 2]


def test_workers_that_need_nothing_ask_for_nothing() -> None:
    world = World()
    hint = AutoscalerHint(world.request, {"CPU": 0.0}, lambda: 0.0)
    hint.ask(3)
    assert world.requests == []
