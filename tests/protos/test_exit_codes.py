"""Exit codes and the errors that lead to them: one meaning for each number."""

import pytest

from learner import errors as learner_errors
from protos.exit_codes import ExitCode, FailedError, UnspoolError, error_for


def subclasses(error: type[UnspoolError]) -> list[type[UnspoolError]]:
    direct = error.__subclasses__()
    return direct + [deeper for one in direct for deeper in subclasses(one)]


def test_no_number_and_no_meaning_is_used_twice() -> None:
    assert [code.name for code in ExitCode] == list(ExitCode.__members__)  # an alias would be missing
    assert len({code.meaning for code in ExitCode}) == len(ExitCode)


def test_every_direct_kind_of_error_has_an_exit_code_of_its_own() -> None:
    codes = [error.exit_code for error in UnspoolError.__subclasses__()]
    assert len(set(codes)) == len(codes)
    assert set(ExitCode) - set(codes) == {
        ExitCode.OK,
        ExitCode.UNFIT,
        ExitCode.EVICTED,
        ExitCode.INTERRUPTED,
    }


@pytest.mark.parametrize("error", subclasses(UnspoolError), ids=lambda error: error.__name__)
def test_an_error_is_known_again_by_the_exit_code_of_its_process(error: type[UnspoolError]) -> None:
    known = error_for(error.exit_code, "why")
    assert isinstance(error("why"), type(known))
    assert str(known) == "why"


def test_a_code_without_an_error_is_a_failure() -> None:
    assert type(error_for(1, "why")) is FailedError


def test_the_learners_errors_are_of_the_same_tree() -> None:
    own = [kind for kind in vars(learner_errors).values() if isinstance(kind, type)]
    assert all(issubclass(kind, UnspoolError) for kind in own)
    assert learner_errors.BrokenRunError.exit_code is ExitCode.FAILED
    assert learner_errors.CorruptCheckpointError.exit_code is ExitCode.CHECKPOINT
