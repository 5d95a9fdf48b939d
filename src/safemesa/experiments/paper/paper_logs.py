"""Sizes of the logs that MESA section 5.1 reports, to show beside those that were collected."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class PaperLogs:
    """Numbers per training task and of the test log; None where the paper gives none."""

    train_tasks: str
    train_transitions: int
    train_violations: int
    test_transitions: int
    test_violations: int

    def in_words(self) -> str:
        """One line."""
        train, test = (
            f"{count} transitions with {violations} violations ({violations / count:.1%})"
            for count, violations in (
                (self.train_transitions, self.train_violations),
                (self.test_transitions, self.test_violations),
            )
        )
        return (
            f"MESA section 5.1 reports {self.train_tasks} training logs of about {train} each and "
            f"a test log of {test}."
        )


def _logs(tasks: str, train: tuple[int, int], test: tuple[int, int]) -> PaperLogs:
    return PaperLogs(
        train_tasks=tasks,
        train_transitions=train[0],
        train_violations=train[1],
        test_transitions=test[0],
        test_violations=test[1],
    )


PAPER_LOGS = {
    "navigation1": _logs("20 to 25", (10_000, 680), (100, 15)),
    "navigation2": _logs("20 to 25", (10_000, 1_200), (200, 36)),
    "cartpole": _logs("20", (20_000, 4_500), (1_000, 200)),
    "halfcheetah": _logs("4", (400_000, 14_000), (40_000, 2_400)),
    "ant": _logs("3", (400_000, 113_000), (40_000, 11_200)),
}
"""By domain. The maze of Figure 2 is not described, nor the test log under partial failures."""
