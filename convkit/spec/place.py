"""A value in a config.txt that knows where it stands, so that every complaint can say so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NoReturn

from convkit.errors import MetadataError
from convkit.spec.locate import KeyPath, json_line
from convkit.spec.wording import did_you_mean, key_path, shown


@dataclass(frozen=True)
class Place:
    """A value decoded from JSON, its key path, and the text around it.

    The methods that take the value apart refuse one of the wrong type with `MetadataError`.
    """

    text: str
    where: str
    value: object
    path: KeyPath = ()

    def __str__(self) -> str:
        return key_path(self.path)

    def fail(self, problem: str, *, hint: str, code: str) -> NoReturn:
        """Raise the `MetadataError` that begins with the file, the line and the key path."""
        line = json_line(self.text, self.path) or 1
        subject = f"{self}: " if self.path else ""
        raise MetadataError(f"{self.where}, line {line}: {subject}{problem}", hint=hint, code=code)

    def at(self, key: str | int) -> Place:
        """Return the place of a member or item that is there."""
        return replace(self, value=self.value[key], path=(*self.path, key))  # type: ignore[index]

    def has(self, key: str) -> bool:
        """Tell whether this object has the key."""
        return isinstance(self.value, dict) and key in self.value

    def items(self, *, wanted: str, hint: str) -> list[Place]:
        """Return the places of a list's items."""
        if not isinstance(self.value, list):
            self._wrong_type(wanted, hint)
        return [self.at(index) for index in range(len(self.value))]

    def string(self, *, hint: str) -> str:
        """Return the value, a string."""
        if not isinstance(self.value, str):
            self._wrong_type("a string", hint)
        return self.value

    def integer(self, *, hint: str) -> int:
        """Return the value, a number without fraction and exponent; true and false are none."""
        if isinstance(self.value, bool) or not isinstance(self.value, int):
            self._wrong_type("a whole number", hint)
        return self.value

    def number(self, *, hint: str) -> int | float:
        """Return the value, any number; true and false are none."""
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            self._wrong_type("a number", hint)
        return self.value

    def check_keys(self, known: Iterable[str], *, required: Mapping[str, str], aliases: Mapping[str, str]) -> None:
        """Refuse anything but an object with all required keys and no unknown one.

        Args:
            known: the keys it may have.
            required: the keys it must have, each with an example.
            aliases: known keys by other words for them.
        """
        known = tuple(known)
        keys = "the keys here are " + ", ".join(known)
        if not isinstance(self.value, dict):
            self._wrong_type("an object", f"write {{...}}; {keys}")
        for key in self.value:
            if key not in known:
                meant = f"did you mean '{aliases[key]}'? " if key in aliases else did_you_mean(key, known)
                self.at(key).fail("this key is unknown", hint=meant + keys, code="metadata.unknown-key")
        for key, example in required.items():
            if key not in self.value:
                missing = replace(self, path=(*self.path, key))
                missing.fail("this key is missing", hint=f"add {example}", code="metadata.missing-key")

    def _wrong_type(self, wanted: str, hint: str) -> NoReturn:
        self.fail(f"{shown(self.value)} is not {wanted}", hint=hint, code="metadata.wrong-type")
