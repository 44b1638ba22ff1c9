"""A list of examples that takes little more memory than their text."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

from jft.tasks import Example

# The length of a field that an example does not have.
ABSENT = -1


class ExampleStore(Sequence[Example]):
    """Examples as one text with the lengths of their fields; each is made when it is asked for.

    A dict of three texts costs some 600 bytes, more than the texts of most rows. A slice shares the
    text.
    """

    def __init__(self, examples: Iterable[Example] = ()):
        self._text, self._names = bytearray(), list[str]()
        # The places where examples begin in the text and in the lengths.
        self._begins, self._fields, self._lengths = array("q"), array("q"), array("i")
        self._range = range(0)
        for example in examples:
            self.append(example)

    def append(self, example: Example) -> None:
        """Add an example to a store that is no slice."""
        self._begins.append(len(self._text))
        self._fields.append(len(self._lengths))
        self._names += [name for name in example if name not in self._names]
        last = 0
        for place, name in enumerate(self._names):
            value = example.get(name)
            encoded = b"" if value is None else value.encode()
            self._lengths.append(ABSENT if value is None else len(encoded))
            self._text += encoded
            last = place + 1 if value is not None else last
        del self._lengths[self._fields[-1] + last :]  # what follows the last field is absent
        self._range = range(len(self._begins))

    def __len__(self) -> int:
        """Count the examples."""
        return len(self._range)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> ExampleStore: ...
    def __getitem__(self, index):
        """Make an example, or share some of them."""
        if isinstance(index, slice):
            part = ExampleStore.__new__(ExampleStore)
            part.__dict__ = self.__dict__ | {"_range": self._range[index]}
            return part
        i = self._range[index]
        end = self._fields[i + 1] if i + 1 < len(self._fields) else len(self._lengths)
        found, begin = {}, self._begins[i]
        for place, length in enumerate(self._lengths[self._fields[i] : end]):
            if length != ABSENT:
                found[self._names[place]] = self._text[begin : begin + length].decode()
                begin += length
        return found

    def __iter__(self) -> Iterator[Example]:
        """Make all examples, one after the other."""
        return (self[i] for i in range(len(self)))

    def __eq__(self, other: object) -> bool:
        """Compare the examples with those of any sequence."""
        if not isinstance(other, Sequence) or len(self) != len(other):
            return NotImplemented if not isinstance(other, Sequence) else False
        return all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]
