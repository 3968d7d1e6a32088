"""A secret: a value that is shown only where it is sent. Knows nothing of where it comes from or goes."""

from __future__ import annotations


class Secret:
    """A string that shows itself only when asked: not in a repr, a traceback or a pickle."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the value; call this only where it is sent."""
        return self._value

    def hide_in(self, data: bytes) -> bytes:
        """Return `data` without this value: some servers repeat the key that they refuse."""
        value = self._value.encode()
        for form in {value, value.replace(b"/", b"\\/")} - {b""}:  # the second is how PHP writes a slash in JSON
            if form in data:
                data = data.replace(form, b"***")
        return data

    def __repr__(self) -> str:
        return "Secret(***)"

    def __len__(self) -> int:
        return len(self._value)

    def __reduce__(self) -> str:
        raise TypeError("a secret is not pickled")
