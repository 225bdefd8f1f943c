"""What is wrong with a configuration: each mistake with key, value and rule; all at once."""

from dataclasses import dataclass

from primacy.errors import Rejected


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: where, what stands there, and the rule that it breaks."""

    key: str
    value: str
    rule: str

    def __str__(self) -> str:
        return (
            f"{self.key} = {self.value}: {self.rule}" if self.value else f"{self.key}: {self.rule}"
        )


class ConfigRejected(Rejected):
    """The configuration cannot be used; `problems` holds every mistake."""

    def __init__(self, source: str, problems: tuple[Problem, ...]) -> None:
        count = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
        lines = "".join(f"\n  - {each}" for each in problems)
        super().__init__(
            f"{source}: {count}{lines}\nNothing was changed", hint="Correct and retry."
        )
        self.problems = problems
