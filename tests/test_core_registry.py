"""Named extension points."""

import pytest

from safemesa.core.errors import ConfigurationError
from safemesa.core.registry import Registry


def make() -> Registry[object]:
    registry: Registry[object] = Registry("guard")
    for name in ("recovery_rl", "sqrl", "none"):
        registry.register(name)(name.upper())
    return registry


def test_lookup_and_names_keep_the_order() -> None:
    registry = make()
    assert registry.names() == tuple(registry) == ("recovery_rl", "sqrl", "none")
    assert registry["sqrl"] == "SQRL"
    assert "none" in registry
    assert "other" not in registry
    assert [] not in registry
    assert len(registry) == 3


def test_register_returns_the_item_itself() -> None:
    registry: Registry[type] = Registry("guard")

    @registry.register("a")
    class Guard:
        pass

    assert registry["a"] is Guard


def test_unknown_names_list_close_matches_and_all() -> None:
    with pytest.raises(ConfigurationError) as caught:
        make()["recovery-rl"]
    assert str(caught.value) == (
        "unknown guard 'recovery-rl'. Did you mean 'recovery_rl'? Known: recovery_rl, sqrl, none."
    )
    with pytest.raises(ConfigurationError, match="Known: none"):
        Registry("guard")["a"]


def test_names_are_registered_once() -> None:
    with pytest.raises(ConfigurationError, match="registered already"):
        make().register("sqrl")("again")
