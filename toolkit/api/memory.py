"""Which exceptions say that memory ran out: libraries have no common class for that."""

from __future__ import annotations

_SAID = ("can't allocate memory", "not enough memory", "could not create a memory object", "std::bad_alloc")
"""By torch's allocators on the CPU, and by oneDNN."""


def lacks_memory(error: BaseException) -> bool:
    """Whether memory ran out, that of the machine or of a GPU. It is taken by all components together, so none of them
    is to blame."""
    of_gpu = type(error).__name__ == "OutOfMemoryError"  # of torch, which need not have been imported
    return of_gpu or isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _says_so(str(error)))


def _says_so(text: str) -> bool:
    return any(sign in text for sign in _SAID)
