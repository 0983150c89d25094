"""Configuration errors, which list all problems with key, value, rule and remedy."""

import contextlib
import dataclasses
import difflib
from collections.abc import Iterable, Iterator


@dataclasses.dataclass(frozen=True)
class Problem:
    """One problem of a configuration.

    Attributes:
        key: path of the offending value, `estimators[0].trunc_length`.
        given: the value as written; None if it is missing.
        rule: the violated rule.
        remedy: the suggested fix; empty if the rule is sufficient.
    """

    key: str
    given: str | None
    rule: str
    remedy: str = ""

    def __str__(self) -> str:
        shown = self.key if self.given is None else f"{self.key} = {self.given}"
        return f"{shown}: {self.rule}" + (f" ({self.remedy})" if self.remedy else "")


class ConfigError(ValueError):
    """A configuration that cannot be used; `problems` lists all known problems, in its order."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class ProblemList:
    """A collector for the problems of independent parts, so that all are reported together."""

    def __init__(self) -> None:
        self._problems: dict[str, Problem] = {}

    def add(self, problem: Problem) -> None:
        """Add `problem`; only the first problem of a key is kept."""
        self._problems.setdefault(problem.key, problem)

    @contextlib.contextmanager
    def gathered(self) -> Iterator[None]:
        """Run a block, and collect the problems of a `ConfigError` that it raises."""
        try:
            yield
        except ConfigError as error:
            for problem in error.problems:
                self.add(problem)

    def raise_if_any(self) -> None:
        """Raise one `ConfigError` with all collected problems, if there are any."""
        if self._problems:
            raise ConfigError(*self._problems.values())


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a remedy that names the closest match of `name` in `known`, or else all of `known`."""
    known = sorted(known)
    by_lower_case = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(name.lower(), by_lower_case, n=1)
    if near:
        return f"did you mean {by_lower_case[near[0]]}?"
    return f"known: {', '.join(known)}" if known else "there are none"
