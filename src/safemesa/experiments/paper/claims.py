"""What MESA (Luo et al. 2021) claims of its experiments, as records that runs can be held against.

Sentences are ours and say what the paper says; `source` is where. The thresholds are ours where the
paper gives none: "comparable" is at least four fifths, "little progress" at most a fifth.
"""

from dataclasses import dataclass
from typing import Literal

Expectation = Literal[
    "fewer", "more", "best", "at_most", "at_least", "degrades", "mostly", "rarely", "above", "below"
]
ALONE = ("mostly", "rarely", "above", "below")
"""Expectations of one arm's number; the others compare arms."""

STRICT = ("fewer", "more", "degrades", "above", "below")
"""Expectations that a tie does not meet."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """One statement about runs of a domain.

    Attributes:
        id: A short name that stays.
        sentence: The statement.
        source: Where the paper makes it.
        domain: The domain whose runs are meant.
        arms: The arm that it is about, then those that it is compared with.
        metric: A field of `summary.json`; `success` and `violation` stand for shares of episodes,
            `late_return` for the mean return in the last third of the steps, `risk_bias_start` and
            `risk_bias_change` for the mean of Q_risk less the discounted outcome in the first third
            of the episodes, and what it is more than that in the last.
        expects: What must hold of the mean. `fewer`, `more`: it is below (above) that of every
            comparison. `best`: no comparison has a better one. `at_most`, `at_least`: it is at most
            (at least) `threshold` times that of the best comparison; `degrades`: it is more than
            that. `mostly`, `rarely`: it is at least (at most) `threshold`; `above`, `below`: it is
            more (less) than that.
        threshold: See `expects`.
        lower_is_better: How "best" is to be read.
        test_share: Of the domain's test log, for the ablation of its size; 1 elsewhere.
    """

    id: str
    sentence: str
    source: str
    domain: str
    arms: tuple[str, ...]
    metric: str
    expects: Expectation
    threshold: float = 1.0
    lower_is_better: bool = True
    test_share: float = 1.0


def _fewer(
    identifier: str, domain: str, others: tuple[str, ...], sentence: str, source: str
) -> Claim:
    """MESA against others by violations."""
    return Claim(
        id=identifier,
        sentence=sentence,
        source=source,
        domain=domain,
        arms=("mesa", *others),
        metric="violations",
        expects="fewer",
    )


_UNCONSTRAINED: tuple[tuple[str, str, str, Expectation, float], ...] = (
    ("violates", "Unconstrained collides frequently.", "violation", "mostly", 0.5),
    ("fails", "Unconstrained does not learn the task.", "success", "rarely", 0.2),
)

_NAVIGATION = (
    *(
        Claim(
            id=f"{domain}_unconstrained_{kind}",
            sentence=sentence,
            source="section 5.2, Figure 4",
            domain=domain,
            arms=("unconstrained",),
            metric=metric,
            expects=expects,
            threshold=threshold,
        )
        for domain in ("navigation1", "navigation2")
        for kind, sentence, metric, expects, threshold in _UNCONSTRAINED
    ),
    *(
        _fewer(
            f"{domain}_fewer_than_multitask",
            domain,
            ("multitask",),
            "MESA violates less often than Multi-Task, by a small gap.",
            "section 5.2, Figure 4",
        )
        for domain in ("navigation1", "navigation2")
    ),
    *(
        _fewer(
            f"{domain}_fewer_than_rrl",
            domain,
            ("rrl",),
            "MESA violates less often than RRL.",
            "Figure 4",
        )
        for domain in ("navigation1", "navigation2")
    ),
    *(
        Claim(
            id=f"{domain}_success",
            sentence="MESA solves the task about as often as the best comparison.",
            source="Figure 4",
            domain=domain,
            arms=("mesa", "multitask", "rrl"),
            metric="successes",
            expects="at_least",
            threshold=0.8,
            lower_is_better=False,
        )
        for domain in ("navigation1", "navigation2")
    ),
    *(
        claim
        for arm in ("carl", "carl_offline")
        for claim in (
            Claim(
                id=f"navigation1_{arm}_best",
                sentence="CARL and CARL-Offline perform best on Navigation 1.",
                source="section 5.2, Figure 4",
                domain="navigation1",
                arms=(arm, "mesa", "multitask", "rrl"),
                metric="successes",
                expects="best",
                lower_is_better=False,
            ),
            Claim(
                id=f"navigation2_{arm}_stalls",
                sentence="CARL and CARL-Offline make little progress on Navigation 2.",
                source="section 5.2, Figure 4",
                domain="navigation2",
                arms=(arm,),
                metric="success",
                expects="rarely",
                threshold=0.2,
            ),
        )
    ),
)

_LOCOMOTION = (
    *(
        claim
        for domain in ("halfcheetah", "ant")
        for claim in (
            Claim(
                id=f"{domain}_violations_halved",
                # "By up to a factor of 2", "in half compared to prior algorithms": read strictly.
                sentence="MESA has half the violations of the best comparison (a strict reading).",
                source="abstract, section 1",
                domain=domain,
                arms=("mesa", "multitask", "rrl", "unconstrained"),
                metric="violations",
                expects="at_most",
                threshold=0.5,
            ),
            _fewer(
                f"{domain}_fewer",
                domain,
                ("multitask", "rrl", "unconstrained"),
                "MESA violates less often than Multi-Task, RRL and Unconstrained.",
                "section 5.2, Figure 5",
            ),
            Claim(
                id=f"{domain}_return",
                sentence="MESA's return is similar to the best of Multi-Task, RRL, Unconstrained.",
                source="Figure 5",
                domain=domain,
                arms=("mesa", "multitask", "rrl", "unconstrained"),
                metric="late_return",
                expects="at_least",
                threshold=0.8,
                lower_is_better=False,
            ),
            *(
                claim
                for arm in ("carl", "carl_offline")
                for claim in (
                    Claim(
                        id=f"{domain}_{arm}_little_progress",
                        sentence="CARL and CARL-Offline make little progress on the task.",
                        source="section 5.2, Figure 5",
                        domain=domain,
                        arms=(arm, "mesa"),
                        metric="late_return",
                        expects="at_most",
                        threshold=0.2,
                    ),
                    Claim(
                        id=f"{domain}_{arm}_satisfies",
                        sentence="CARL and CARL-Offline are able to generally satisfy constraints.",
                        source="section 5.2",
                        domain=domain,
                        arms=(arm,),
                        metric="violation",
                        expects="rarely",
                        threshold=0.5,
                    ),
                )
            ),
        )
    ),
    Claim(
        id="cartpole_comparable",
        sentence="On Cartpole MESA's task performance is comparable to the best comparison's.",
        source="section 5.2, Figure 5",
        domain="cartpole",
        arms=("mesa", "multitask", "rrl", "unconstrained"),
        metric="late_return",
        expects="at_least",
        threshold=0.8,
        lower_is_better=False,
    ),
    _fewer(
        "cartpole_fewer",
        "cartpole",
        ("multitask", "rrl", "unconstrained"),
        "MESA violates less often than the comparisons.",
        "Figure 5",
    ),
)

_TEST_SIZES: tuple[tuple[str, float, str, Expectation, float], ...] = (
    ("quarter", 1 / 4, "With a quarter of the test log MESA hardly degrades.", "at_most", 1.25),
    ("eighth", 1 / 8, "With an eighth of the test log MESA degrades.", "degrades", 1.25),
    ("sixteenth", 1 / 16, "With a sixteenth of it MESA degrades.", "degrades", 1.25),
)

_ABLATIONS = (
    *(
        Claim(
            id=f"test_size_{name}",
            sentence=sentence,
            source="section 6.1, Figure 6a",
            domain="halfcheetah",
            arms=("mesa",),
            metric="violations",
            expects=expects,
            threshold=threshold,
            test_share=share,
        )
        for name, share, sentence, expects, threshold in _TEST_SIZES
    ),
    _fewer(
        "partial_fewer",
        "halfcheetah_partial",
        ("multitask",),
        "Under partial failures MESA violates significantly less than Multi-Task.",
        "section 6.2, Figure 6b",
    ),
    Claim(
        id="partial_return",
        sentence="Under partial failures MESA's return is higher than Multi-Task's.",
        source="section 6.2, Figure 6b",
        domain="halfcheetah_partial",
        arms=("mesa", "multitask"),
        metric="late_return",
        expects="more",
        lower_is_better=False,
    ),
)

_PESSIMISM: tuple[tuple[str, str, str, Expectation], ...] = (
    ("starts_pessimistic", "The risk measure begins pessimistic.", "risk_bias_start", "above"),
    (
        "pessimism_falls",
        "The risk measure becomes less pessimistic during Phase 3.",
        "risk_bias_change",
        "below",
    ),
)

_ADAPTATION = (
    Claim(
        id="maze_adapts_faster",
        sentence="The risk measure of MESA adapts in fewer steps than that of Multi-Task.",
        source="section 4.2, Figure 2",
        domain="maze",
        arms=("mesa", "multitask"),
        metric="adaptation_steps",
        expects="fewer",
    ),
    *(
        Claim(
            id=f"{domain}_{kind}",
            sentence=sentence,
            source="section 4.2",
            domain=domain,
            arms=("mesa",),
            metric=metric,
            expects=expects,
            threshold=0.0,
        )
        for domain in ("navigation1", "halfcheetah")
        for kind, sentence, metric, expects in _PESSIMISM
    ),
)

CLAIMS: tuple[Claim, ...] = (*_NAVIGATION, *_LOCOMOTION, *_ABLATIONS, *_ADAPTATION)
