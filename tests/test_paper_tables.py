"""The settings in use against the paper's tables."""

from safemesa.cli.main import main
from safemesa.experiments.arms import configure
from safemesa.experiments.paper.settings_tables import SETTINGS, tables_markdown


def test_only_settings_with_a_reason_differ_from_the_paper() -> None:
    for one in SETTINGS:
        ours = one.read(configure(one.arm, one.domain, "paper"))
        assert ours == one.paper or one.why, f"{one.name} of {one.arm} on {one.domain}: {ours}"
        assert not one.why or ours != one.paper, f"{one.name}: the reason has no difference"


def test_the_printed_rates_are_an_arm() -> None:
    printed = configure("mesa_as_printed", "cartpole", "paper")
    for one in SETTINGS:
        if one.arm == "mesa" and one.domain == "cartpole":
            assert one.read(printed) == one.paper, one.name


def test_smaller_presets_say_that_they_are(capsys) -> None:
    table = tables_markdown("quick")
    assert "the size of `quick`" in table
    assert table.count("\n") == len(SETTINGS) + 2
    assert main(["paper", "table"]) == 0
    assert "gamma_risk" in capsys.readouterr().out
