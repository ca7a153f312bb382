"""Sealed frames, byte for byte, and what counts as a replay."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodes.sealing import TAG, WINDOW, Cipher, ReplayWindow, Seal, preferred

FRAMES = json.loads(
    (Path(__file__).parents[2] / "vectors" / "mesh.json").read_text(encoding="utf-8")
)["sealed"]


def opened(seal: Seal, frame: bytes, *head: int) -> bytes | None:
    into = memoryview(bytearray(len(frame) - TAG))
    return bytes(into) if seal.open(*head, memoryview(frame), into) else None  # type: ignore[call-arg]


@pytest.mark.parametrize("vector", FRAMES, ids=[vector["name"] for vector in FRAMES])
def test_sealed_frames_are_what_they_were(vector: dict[str, str | int]) -> None:
    frame = bytes.fromhex(str(vector["frame"]))
    seal = Seal(
        Cipher(str(vector["cipher"])), bytes.fromhex(str(vector["key"])), int(vector["session"])
    )
    head = (frame[0], frame[1], frame[2], int.from_bytes(frame[8:16]))
    plain = bytes.fromhex(str(vector["record"]))
    sealed = bytearray(len(plain) + TAG)
    seal.seal(*head, plain, sealed)
    assert sealed == frame[16:]
    assert opened(seal, frame[16:], *head) == plain


@pytest.mark.parametrize("changed", range(4))
def test_type_lane_epoch_and_counter_are_bound(changed: int) -> None:
    seal = Seal(Cipher.AES, bytes(32), 1)
    head = [0x22, 1, 2, 3]
    sealed = bytearray(5 + TAG)
    seal.seal(*head, b"hello", sealed)  # type: ignore[call-arg]
    assert opened(seal, bytes(sealed), *head) == b"hello"
    head[changed] += 1
    assert opened(seal, bytes(sealed), *head) is None


def test_another_session_or_key_does_not_open() -> None:
    sealed = bytearray(5 + TAG)
    Seal(Cipher.AES, bytes(32), 1).seal(0x22, 1, 2, 3, b"hello", sealed)
    for key, session in ((bytes(32), 2), (b"\1" * 32, 1)):
        assert opened(Seal(Cipher.AES, key, session), bytes(sealed), 0x22, 1, 2, 3) is None


def test_the_cipher_is_the_one_that_the_cpu_is_fast_at() -> None:
    assert preferred(frozenset({"fpu", "aes"}))[0] is Cipher.AES
    assert preferred(frozenset({"fpu"}))[0] is Cipher.CHACHA
    assert preferred(frozenset())[0] is Cipher.CHACHA


def test_the_replay_window_takes_each_counter_once() -> None:
    window = ReplayWindow()
    for counter in (1, 3, 2, 5000, 4999, 5000 - WINDOW + 1):
        assert window.is_new(counter)
        window.came(counter)
        assert not window.is_new(counter)
    assert not window.is_new(0)
    assert not window.is_new(5000 - WINDOW)
    assert window.is_new(1 << 63)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 3 * WINDOW), max_size=200))
def test_the_replay_window_agrees_with_a_set(counters: list[int]) -> None:
    window, seen, newest = ReplayWindow(), set[int](), 0
    for counter in counters:
        new = counter > 0 and counter not in seen and counter > newest - WINDOW
        assert window.is_new(counter) is new
        if new:
            window.came(counter)
            seen.add(counter)
            newest = max(newest, counter)
    assert window._seen < 1 << WINDOW
