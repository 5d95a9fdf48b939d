"""Named extension points: meta-learners, guards, domains, presets."""

import difflib
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar, cast

from safemesa.core.errors import ConfigurationError

T = TypeVar("T")
Item = TypeVar("Item")


class Registry(Generic[T]):
    """Maps names to items of one kind; unknown names raise an error that lists the known ones.

    Example:
        guards: Registry[type[AbstractGuard]] = Registry("guard")

        @guards.register("none")
        class NoGuard(AbstractGuard): ...
    """

    def __init__(self, kind: str) -> None:
        """`kind` is the word for an item in error messages, such as "meta-learner"."""
        self.kind = kind
        self._items: dict[str, T] = {}

    def register(self, name: str) -> Callable[[Item], Item]:
        """A decorator that stores a class, function or value under `name` and returns it.

        Raises:
            ConfigurationError: the name is taken.
        """

        def store(item: Item) -> Item:
            if name in self._items:
                raise ConfigurationError(
                    f"the {self.kind} {name!r} is registered already, as {self._items[name]!r}. "
                    "Choose another name."
                )
            # `Item` keeps the decorated class' own type for type checkers.
            self._items[name] = cast(Any, item)
            return item

        return store

    def __getitem__(self, name: str) -> T:
        """The item of that name.

        Raises:
            ConfigurationError: there is none; close matches and all names are listed.
        """
        try:
            return self._items[name]
        except KeyError:
            raise ConfigurationError(self._unknown(name)) from None

    def __contains__(self, name: object) -> bool:
        """Whether `name` is registered."""
        return name in self.names()

    def __iter__(self) -> Iterator[str]:
        """Iterates over the names in the order of registration."""
        return iter(self._items)

    def __len__(self) -> int:
        """Number of items."""
        return len(self._items)

    def names(self) -> tuple[str, ...]:
        """All names, in the order of registration."""
        return tuple(self._items)

    def _unknown(self, name: object) -> str:
        close = difflib.get_close_matches(str(name), self._items, n=3)
        hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
        known = ", ".join(self._items) or "none"
        return f"unknown {self.kind} {name!r}.{hint} Known: {known}."
