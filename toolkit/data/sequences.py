"""Targets and names of many items, held by arrays instead of a Python object for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class ArrayTargets(Sequence[int]):
    """Class indices in an array `[N]` of any integer type. NumPy takes it as that array."""

    def __init__(self, values: NDArray[np.integer[Any]]) -> None:
        self._values = values

    def __len__(self) -> int:
        return len(self._values)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        import numpy as np

        return np.array(self._values, dtype=dtype, copy=copy)

    def counts(self) -> Counter[int]:
        """Items of each class that has any."""
        import numpy as np

        found, counts = np.unique(self._values, return_counts=True)
        return Counter(dict(zip(found.tolist(), counts.tolist(), strict=True)))

    @overload
    def __getitem__(self, index: int) -> int: ...

    @overload
    def __getitem__(self, index: slice) -> list[int]: ...

    def __getitem__(self, index: int | slice) -> int | list[int]:
        found: int | list[int] = self._values[index].tolist()
        return found

    def __iter__(self) -> Iterator[int]:
        for start in range(0, len(self), _AT_A_TIME):
            yield from self[start : start + _AT_A_TIME]


class MadeTexts(Sequence[str]):
    """N texts, each made when it is asked for."""

    def __init__(self, count: int, make: Callable[[int], str]) -> None:
        self._count, self._make = count, make

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self._make(one) for one in range(self._count)[index]]
        return self._make(range(self._count)[index])


_AT_A_TIME = 1 << 16
