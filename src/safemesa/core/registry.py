"""Named extension points: meta-learners, guards, domains, presets."""

import dataclasses
import difflib
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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

    def forget(self, name: str) -> None:
        """Takes a name back."""
        del self._items[name]

    def _unknown(self, name: object) -> str:
        close = difflib.get_close_matches(str(name), self._items, n=3)
        hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
        known = ", ".join(self._items) or "none"
        return f"unknown {self.kind} {name!r}.{hint} Known: {known}."


@dataclass(frozen=True, slots=True)
class Plugin:
    """What is known of a class before it is imported.

    Attributes:
        title: What tables call it.
        settings: The dataclass of what it can be told.
        where: The class, or the `module:attribute` where it is.
    """

    title: str
    settings: type
    where: Any


class PluginRegistry(Generic[T]):
    """Classes of one kind by name, with the settings that each of them reads.

    Ours are declared, and imported when they are asked for, so that names, titles and settings
    need none of what the classes need. Those of a user's are registered by a decorator, or named as
    `module:attribute`.
    """

    def __init__(self, kind: str, settings: type) -> None:
        """`kind` is the word for an item; `settings` those of a class that says nothing else."""
        self.kind = kind
        self._settings = settings
        self._plugins: Registry[Plugin] = Registry(kind)

    def declare(self, name: str, where: str, title: str, settings: type) -> None:
        """Stores what is known of a class that is imported later."""
        self._plugins.register(name)(Plugin(title, settings, where))

    def register(
        self, name: str, *, settings: type | None = None, title: str | None = None
    ) -> Callable[[Item], Item]:
        """A decorator that stores a class with its settings and its title, by default its name.

        Raises:
            ConfigurationError: the name is taken.
        """

        def store(item: Item) -> Item:
            plugin = Plugin(title or name, settings or self._settings_of(item), item)
            if name in self._plugins and _same_place(self._plugins[name].where, item):
                self._plugins.forget(name)  # its module was imported anew
            self._plugins.register(name)(plugin)
            return item

        return store

    def find(self, name: str) -> Plugin:
        """What is known of a class.

        Raises:
            ConfigurationError: there is none of that name, or it cannot be imported.
        """
        if ":" not in name or name in self._plugins:
            return self._plugins[name]
        item = self._import(name)
        for known in self._plugins:
            if self._plugins[known].where is item:
                return self._plugins[known]
        return Plugin(name.rpartition(":")[2], self._settings_of(item), item)

    def __getitem__(self, name: str) -> T:
        """The class of that name, or at that `module:attribute`.

        Raises:
            ConfigurationError: there is none; close matches and all names are listed.
        """
        where = self.find(name).where
        return self._import(where) if isinstance(where, str) else where

    def __contains__(self, name: object) -> bool:
        """Whether `name` is declared or registered."""
        return name in self._plugins

    def __iter__(self) -> Iterator[str]:
        """Iterates over the names in the order of registration."""
        return iter(self._plugins)

    def __len__(self) -> int:
        """Number of names."""
        return len(self._plugins)

    def names(self) -> tuple[str, ...]:
        """All names, in the order of registration."""
        return self._plugins.names()

    def _import(self, place: str) -> Any:
        module, _, attribute = place.partition(":")
        try:
            item = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise ConfigurationError(
                f"the {self.kind} {place!r} cannot be imported: {error}. Name it as "
                "`module:attribute` and run where Python finds the module (see PYTHONPATH)."
            ) from error
        if not isinstance(item, type):
            raise ConfigurationError(
                f"{place!r} is a {type(item).__name__}; expected the class of a {self.kind}."
            )
        return item

    def _settings_of(self, item: Any) -> type:
        """The type of the default of its field `settings`, where it has one."""
        field = getattr(item, "__dataclass_fields__", {}).get("settings")
        if field is None:
            return self._settings
        if isinstance(field.default_factory, type):
            return field.default_factory
        return type(field.default) if dataclasses.is_dataclass(field.default) else self._settings


def _same_place(first: Any, second: Any) -> bool:
    """Whether two classes are one in the sources."""
    places = [
        (getattr(one, "__module__", one), getattr(one, "__qualname__", ""))
        for one in (first, second)
    ]
    return places[0] == places[1]
