"""Values of config.json. Each knows its path of keys, so that an error tells where it is and what it is."""

from __future__ import annotations

from activation_cmd.common.stdio import reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any, Final

_LONGEST: Final = 60
"""Characters of a wrong value that an error shows."""


class BundleError(Exception):
    """The container cannot be run. The message is one line: where, what was found, what was expected."""


class At:
    """Turns an OSError in the block into a BundleError that says where in the configuration the cause is."""

    __slots__ = ("_path",)

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise BundleError(f"{self._path}: {reason(error)}") from error


class Value:
    """A value of config.json. Where it is absent, it is null. The methods check it, and return what their names say."""

    __slots__ = ("path", "raw")

    def __init__(self, path: str, raw: Any) -> None:
        self.path, self.raw = path, raw

    def wrong(self, expected: str) -> BundleError:
        """Return the error that the value is not what was expected."""
        if self.raw is None:
            told = f"{self.path} is missing" if self.path else "it is null"
            return BundleError(f"{told}; expected {expected}")
        try:
            shown = repr(self.raw)
        except RecursionError:
            shown = "nested too deeply"
        if len(shown) > _LONGEST:
            shown = shown[:_LONGEST] + "..."
        return BundleError(f"{self.path or 'it'} is {shown}; expected {expected}")

    def __getitem__(self, key: str) -> Value:
        """Return a member of an object; of an absent object, an absent value."""
        if not isinstance(self.raw, (dict, type(None))):
            raise self.wrong("an object")
        name = key if key.isprintable() else repr(key)
        return Value(f"{self.path}.{name}" if self.path else name, (self.raw or {}).get(key))

    def required(self) -> Value:
        """Return the value itself, which must be an object."""
        if not isinstance(self.raw, dict):
            raise self.wrong("an object")
        return self

    def string(self, default: str | None = None, expected: str = "a string") -> str:
        """Return text that system calls accept: it can be encoded, and has no null character."""
        if self.raw is None and default is not None:
            return default
        if not isinstance(self.raw, str):
            raise self.wrong(expected)
        try:
            self.raw.encode()
        except UnicodeEncodeError:
            raise self.wrong(f"{expected} of whole characters, no half of a surrogate pair") from None
        if "\0" in self.raw:
            raise self.wrong(f"{expected} without a null character")
        return self.raw

    def one_of(self, words: Collection[str], default: str | None = None) -> str:
        word = self.string(default, expected := f"one of {', '.join(words)}")
        if word not in words and word != default:
            raise self.wrong(expected)
        return word

    def absolute_path(self) -> str:
        path = self.string(expected=(expected := "an absolute path"))
        if not path.startswith("/"):
            raise self.wrong(expected)
        return path

    def integer(self, low: int, high: int, default: int | None = None) -> int:
        if self.raw is None and default is not None:
            return default
        if type(self.raw) is not int or not low <= self.raw <= high:  # True is an int, too
            raise self.wrong(f"a whole number from {low} to {high}")
        return self.raw

    def boolean(self) -> bool:
        """Return true or false; false where the value is absent."""
        if not isinstance(self.raw, (bool, type(None))):
            raise self.wrong("true or false")
        return bool(self.raw)

    def array(self) -> list[Value]:
        """Return the elements; none where the value is absent."""
        if not isinstance(self.raw, (list, type(None))):
            raise self.wrong("an array")
        return [Value(f"{self.path}[{index}]", raw) for index, raw in enumerate(self.raw or ())]

    def strings(self) -> list[str]:
        return [item.string() for item in self.array()]

    def absolute_paths(self) -> list[str]:
        return [item.absolute_path() for item in self.array()]

    def members(self) -> list[tuple[str, Value]]:
        """Return the members of an object in order, with checked keys; none where the value is absent."""
        if not isinstance(self.raw, (dict, type(None))):
            raise self.wrong("an object")
        keys = [Value(f"a key of {self.path}", key).string() for key in self.raw or ()]
        return [(key, self[key]) for key in keys]
