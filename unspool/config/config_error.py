"""What is wrong with a configuration: all of it at once, each with key, value, rule and remedy."""

import contextlib
import dataclasses
import difflib
from collections.abc import Iterable, Iterator


@dataclasses.dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a configuration.

    Attributes:
        key: path of the offending value, `estimators[0].trunc_length`.
        given: the value as it was written; None if nothing was.
        rule: what does not hold.
        remedy: what to write instead; empty where the rule says it all.
    """

    key: str
    given: str | None
    rule: str
    remedy: str = ""

    def __str__(self) -> str:
        shown = self.key if self.given is None else f"{self.key} = {self.given}"
        return f"{shown}: {self.rule}" + (f" ({self.remedy})" if self.remedy else "")


class ConfigError(ValueError):
    """A configuration that cannot be used.

    Attributes:
        problems: all that is known to be wrong, in the order of the configuration.
    """

    def __init__(self, *problems: Problem) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class ProblemList:
    """Gathers the problems of several independent parts, so that a person sees all of them at once."""

    def __init__(self) -> None:
        self._problems: dict[str, Problem] = {}

    def add(self, problem: Problem) -> None:
        """Note `problem` and go on; of several that concern one key, the first stands for all."""
        self._problems.setdefault(problem.key, problem)

    @contextlib.contextmanager
    def gathered(self) -> Iterator[None]:
        """Run a block; note the problems of a `ConfigError` that ends it instead of passing it on."""
        try:
            yield
        except ConfigError as error:
            for problem in error.problems:
                self.add(problem)

    def raise_if_any(self) -> None:
        """Raise one `ConfigError` with everything noted so far.

        Raises:
            ConfigError: something was noted.
        """
        if self._problems:
            raise ConfigError(*self._problems.values())


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a remedy that names the member of `known` nearest to `name`, or all of them if none is near."""
    known = sorted(known)
    by_lower_case = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(name.lower(), by_lower_case, n=1)
    if near:
        return f"did you mean {by_lower_case[near[0]]}?"
    return f"known: {', '.join(known)}" if known else "there are none"
