"""An object that records nothing and answers every call, for the tests of the class that hosts a worker."""


class Hosted:
    def __init__(self, name: str) -> None:
        self.name = name

    def run(self) -> str:
        return f"{self.name} runs"

    def outcome(self, timeout_s: float) -> tuple[str, float]:
        return self.name, timeout_s

    def location(self) -> str:
        return "here"

    def stack(self) -> str:
        return f"stack of {self.name}"
