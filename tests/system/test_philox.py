"""Philox: the published answers, and the same from a plain reading of the paper."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from toolkit.system.philox import MASK, Key, on_device, on_host

WORD = st.integers(0, MASK)
COUNTER = st.tuples(WORD, WORD, WORD, WORD)

PUBLISHED = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((MASK,) * 4, (MASK, MASK), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
"""philox4x32 with 10 rounds in kat_vectors of Random123, the library of the paper's authors."""


def by_host(counter: tuple[int, ...], key: Key) -> list[int]:
    first, second, third, fourth = (np.array([word], np.uint64) for word in counter)
    words: list[int] = on_host(np.stack((first, third)), np.stack((second, fourth)), key)[:, 0].tolist()
    return words


def by_device(counter: tuple[int, ...], key: Key) -> list[int]:
    first, second, third, fourth = (torch.tensor([word]) for word in counter)
    words: list[int] = on_device(first, second, third, fourth, key)[:, 0].tolist()
    return words


def by_hand(counter: tuple[int, ...], key: Key) -> list[int]:
    first, second, third, fourth = counter
    step, other = key
    for _ in range(10):
        product, other_product = first * 0xD2511F53, third * 0xCD9E8D57
        first, third = (other_product >> 32) ^ second ^ step, (product >> 32) ^ fourth ^ other
        second, fourth = other_product % 2**32, product % 2**32
        step, other = (step + 0x9E3779B9) % 2**32, (other + 0xBB67AE85) % 2**32
    return [first, second, third, fourth]


@pytest.mark.parametrize(("counter", "key", "words"), PUBLISHED)
def test_gives_the_published_answers(counter: tuple[int, ...], key: Key, words: tuple[int, ...]) -> None:
    assert by_hand(counter, key) == by_host(counter, key) == by_device(counter, key) == list(words)


@given(COUNTER, st.tuples(WORD, WORD))
def test_host_and_device_read_the_paper_alike(counter: tuple[int, ...], key: Key) -> None:
    assert by_host(counter, key) == by_device(counter, key) == by_hand(counter, key)


def test_counters_of_a_batch_do_not_touch_each_other() -> None:
    counters = [(number, 7, number**2, 1) for number in range(50)]
    columns = np.array(counters, np.uint64).T
    words = on_host(columns[[0, 2]], columns[[1, 3]], (3, 4))
    assert words.T.tolist() == [by_hand(counter, (3, 4)) for counter in counters]
