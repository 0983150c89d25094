import pytest

from unspool.config.config_error import ConfigError, Problem, ProblemList, did_you_mean


def test_a_problem_shows_key_value_rule_and_remedy() -> None:
    assert str(Problem("run.seed", "-1", "must not be negative", "use 0")) == (
        "run.seed = -1: must not be negative (use 0)"
    )


def test_a_missing_value_and_an_empty_remedy_are_not_shown() -> None:
    assert str(Problem("run.seed", None, "missing")) == "run.seed: missing"


def test_an_error_has_one_line_per_problem_in_the_given_order() -> None:
    error = ConfigError(Problem("b", "1", "wrong"), Problem("a", None, "missing"))
    assert str(error) == "b = 1: wrong\na: missing"
    assert [problem.key for problem in error.problems] == ["b", "a"]


def test_problems_of_independent_parts_are_raised_together() -> None:
    problems = ProblemList()
    for key in ("a", "b"):
        with problems.gathered():
            raise ConfigError(Problem(key, None, "missing"))
    with pytest.raises(ConfigError) as caught:
        problems.raise_if_any()
    assert [problem.key for problem in caught.value.problems] == ["a", "b"]


def test_only_the_first_problem_of_a_key_is_kept() -> None:
    problems = ProblemList()
    problems.add(Problem("a", "x", "is of the wrong type"))
    problems.add(Problem("a", "x", "follows from the first"))
    with pytest.raises(ConfigError, match=r"^a = x: is of the wrong type$"):
        problems.raise_if_any()


def test_a_list_without_problems_raises_nothing() -> None:
    problems = ProblemList()
    with problems.gathered():
        pass
    problems.raise_if_any()


def test_other_errors_are_not_gathered() -> None:
    with pytest.raises(ZeroDivisionError), ProblemList().gathered():
        _ = 1 / 0


@pytest.mark.parametrize(
    ("name", "known", "remedy"),
    [
        ("lerning_rate", ["learning_rate", "momentum"], "did you mean learning_rate?"),
        ("truncatedpes", ["TruncatedPES", "TruncatedES"], "did you mean TruncatedPES?"),
        ("x", ["momentum", "learning_rate"], "known: learning_rate, momentum"),
        ("x", [], "there are none"),
    ],
)
def test_a_remedy_names_the_closest_match_or_everything(name: str, known: list[str], remedy: str) -> None:
    assert did_you_mean(name, known) == remedy
