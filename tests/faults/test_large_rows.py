"""Prompts of several megabytes, and ten times as many rows: sent whole, answered, and not multiplied in memory."""

from __future__ import annotations

from pathlib import Path

from tests.checker import check
from tests.command import BATCHER, limited, together
from tests.fault_server import fault_server
from tests.trial import Trial, simulated, trial

MEGABYTE = 1_000_000


def long_text(name: str, size: int) -> str:
    """A text without repetition that a server could guess."""
    words = " ".join(f"{name}-{n}" for n in range(size // (len(name) + 8) + 1))
    return (words + "é" * 100)[:size]


def asked_once(made: Trial) -> bool:
    """Whether every row was asked exactly once."""
    return set(made.endpoint.ledger().asked.values()) == {1}


def test_five_megabytes_among_small_rows(tmp_path: Path) -> None:
    """A prompt of 5 MB arrives byte for byte, its row is answered, and so are its small neighbours."""
    texts = [f"row {n}" for n in range(40)]
    texts[7] = long_text("seven", 5 * MEGABYTE)
    texts[31] = long_text("thirty-one", 5 * MEGABYTE)
    with fault_server() as server:
        made = trial(tmp_path, server, texts)
        made.run()
        check(made, most_kb=400_000)
        assert asked_once(made)
        assert sorted(prompt for _, prompt in server.times) == sorted(made.texts)


def test_memory_does_not_grow_with_the_number_of_large_rows(tmp_path: Path) -> None:
    """Four times as many large rows take about the same memory: what is in flight is bounded in bytes."""
    peaks = []
    for rows in (20, 80):
        folder = tmp_path / str(rows)
        folder.mkdir()
        texts = (long_text(f"row-{n}", MEGABYTE) for n in range(rows))
        with simulated(folder, latency_s=0.01) as simulator:
            made = trial(folder, simulator, texts, limits={"max_inflight_mb": 8}, rows_per_part=30)
            peaks.append(made.run().peak_kb)
            check(made, most_kb=300_000)
            assert asked_once(made)
    assert peaks[1] < 1.6 * peaks[0], peaks


def test_memory_does_not_grow_with_the_number_of_small_rows(tmp_path: Path) -> None:
    """Ten times as many rows take about the same memory, and do with a quarter more room for addresses."""
    peaks, program = [], [BATCHER]
    for rows in (1_000, 10_000):
        folder = tmp_path / str(rows)
        folder.mkdir()
        with simulated(folder, latency_s=0.01) as simulator:
            texts = (f"row {n} " + "z" * 500 for n in range(rows))
            made = trial(folder, simulator, texts, concurrency=64, rows_per_part=500, program=program)
            ended = made.run()
            check(made)
            peaks.append(ended.peak_kb)
            program = together(limited(as_=ended.address_kb * 1280), [BATCHER])
    assert peaks[1] < 1.25 * peaks[0], peaks
