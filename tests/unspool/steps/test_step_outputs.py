from unspool.steps.step_outputs import EpisodesInExpectation, TruncatedUnrollOut, with_a_reset_step


def test_a_reset_in_a_step_of_its_own_has_no_loss() -> None:
    # In the long run an episode of 4 steps takes 5, of which 4 have a loss.
    steps = [True, True, True, True, False] * 10
    assert with_a_reset_step(4.0) == EpisodesInExpectation(4.0, sum(steps) / len(steps))


def test_of_episodes_of_unknown_length_every_step_counts() -> None:
    assert with_a_reset_step(None) == EpisodesInExpectation(None, 1.0)


def test_outputs_are_edited_as_the_tutorials_do() -> None:
    out = TruncatedUnrollOut(loss=1, is_done=2, task_param=3, iteration=4, mask=5)
    assert out.replace(loss=7, mask=8) == TruncatedUnrollOut(7, 2, 3, 4, 8, None)
