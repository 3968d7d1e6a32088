"""How tools of this kind have failed their users, each told by its report: what must not happen here.

The numbers are those of the notes on peers. Stories that other tests hold:

 1  vllm 30268, 5774: memory grew with the input until there was none
        faults/test_large_rows.py: test_memory_does_not_grow_with_the_number_of_small_rows
        faults/test_large_rows.py: test_memory_does_not_grow_with_the_number_of_large_rows
 6  hermes-agent 95346: other rows than before, at the end or in place of some
        acceptance/test_errors.py: test_changed_input_on_resume
 9  DataDesigner 623, 624: progress told by counters, a crash between the last file and the mark that says so
        unit/test_rundir.py: test_a_part_in_place_that_was_not_noted
13  inspect_ai 913: killed for its memory, and taken for started ever after
        acceptance/test_run.py: test_status_of_a_run_that_was_killed
13  saturate: resume paid for reading the source of what was done
        unit/test_source.py: test_plain_files_are_entered_at_the_shard_without_reading_what_lies_before
14  NeMo-Skills: running again deletes what was there
        acceptance/test_cron.py: test_the_line_works_as_printed
15  METR/hawk 945: one request tried 1,149 times
        unit/test_worker.py: test_a_row_that_is_out_of_attempts
        unit/test_worker.py: test_a_row_that_the_endpoint_never_has_room_for
16  DataDesigner 575: minutes of 429, then zero rows
        unit/test_limits.py: test_refusals_without_end_are_given_up
        unit/test_limits.py: test_refusals_without_any_success_lengthen_the_pause
17  curator 203, 201, 205, 377: a bad key tried for every row, one retry only, all tries in one burst, a flooded server
        faults/test_run_level.py: test_refused_from_the_start
        unit/test_retry.py: test_backoff_has_full_jitter_and_never_undercuts_the_server
        unit/test_limits_against_servers.py: test_a_server_that_only_gets_slower_is_not_flooded
18  langchainjs 1929, agentao 283, llm-subtrans 5, hindsight 1147: an empty account that comes as 429
        faults/test_run_level.py: test_refused_from_the_start
        unit/test_retry.py: test_each_row_of_the_tables
19  saturate: a 402 in the middle failed all rows that were left
        faults/test_account.py: test_no_money_left
21  LocalAI 10448, nest-server 607, sm64ds-decomp 1199: answers cut at their limit, asked and paid for again
        acceptance/test_request_and_response.py: test_answers_that_ended_early
23  openai-python 1725, 2539: requests that wait for a place in the pool
        faults/client/test_conformance.py:
            test_attempts_at_once_get_their_own_replies_over_a_bounded_number_of_connections
24  Raven 150, nuguard 30, immich 288: one call that hangs holds everything
        unit/test_worker.py: test_one_slow_row
        faults/client/test_conformance.py: test_a_silent_server_is_given_up
25  synthetic-data-kit 67, llmperf 59: one request at a time, or one wave at a time, by accident
        unit/test_worker.py: test_a_pool_of_so_many_slots
        unit/test_worker.py: test_one_slow_row
26  DeepSeek's blank lines before an answer, for ten minutes
        faults/client/test_conformance.py: test_keep_alive_lines_before_the_answer_are_no_trouble
        faults/client/test_conformance.py: test_keep_alive_lines_for_ever_are_not_content
29  cli-printing-press 3493, steampipe 4551: exit 0 with 500 failures
        acceptance/test_run.py: test_failed_rows
        faults/test_run_level.py: test_every_row_fails_for_its_own_reason
30  prime-rl 2664: kill -9 within a checkpoint
        faults/test_kill.py: test_killed_at_each_durable_step
32  cognee 4086: an estimate sixteen times too low, since nobody thought of the reasoning
        unit/test_estimate.py: test_answers_without_a_bound
        unit/test_forecast.py: test_the_range_holds_the_truth

One that cannot happen:

31  Hosted batch APIs are not used, so none expires with half of its answers in it, and no queue of theirs fills up.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import anyio
import orjson
import pyarrow.parquet as pq
import pytest

from batcher.errors import AccountError, ResumeError
from batcher.records import Fault, Reply
from batcher.simulator import SimulatorOptions
from batcher.simulator import start as start_simulator
from batcher.worker import Worker
from tests.fakes import Script, ScriptedClient, Work, begun, good, make_job, refusal, work, write_numbers
from tests.harness import (
    Ledger,
    batcher,
    check_money,
    check_output,
    digest,
    kill,
    parts,
    start,
    table,
    unsure,
    write_job,
    write_rows,
)
from tests.recording_server import Answer, Request, completion, recording
from tests.simulator_client import counts, wait_until

TESTS = Path(__file__).parents[1]


def answered(content: str = "fine") -> Script:
    """Answer every request."""
    return lambda row, attempt: good(content)


def refused_after(count: int, script: Script) -> Script:
    """Answer so many requests by `script`, then refuse the key, which stops the run."""
    calls = iter(range(1_000_000))
    return lambda row, attempt: script(row, attempt) if next(calls) < count else refusal(401)


# -- memory and shape


class Counting(ScriptedClient):
    """Notes the most tasks and threads there were while a request was under way."""

    tasks = threads = 0

    async def under_way(self, number: int) -> None:
        await anyio.sleep(0.1)
        self.tasks = max(self.tasks, len(asyncio.all_tasks()))
        self.threads = max(self.threads, threading.active_count())


def test_nemo_skills_344_and_accrue_78_no_task_and_no_thread_for_a_row(tmp_path: Path) -> None:
    """Tasks and threads depend on the concurrency, not on the rows: "can't start new thread" cannot come."""
    write_numbers(tmp_path, 3_000)
    client = Counting(answered())
    before = threading.active_count()
    with begun(make_job(tmp_path, limits={"concurrency": 10}, output={"path": "out", "rows_per_part": 500})) as run:
        assert work(run, client) is None
    assert client.most_in_flight == 10
    assert client.tasks <= 10 + 10
    assert client.threads <= before + 10


class SlowToBegin(ScriptedClient):
    """Answers nothing for a long time, and notes how many requests had come by then."""

    before_first = 0

    async def under_way(self, number: int) -> None:
        await anyio.sleep(300)
        self.before_first = self.before_first or len(self.sent)


def test_saturate_nothing_is_widened_before_the_first_success(tmp_path: Path) -> None:
    """A server that needs minutes to load its model is met with eight requests, not with all that are allowed."""
    write_numbers(tmp_path, 600)
    client = SlowToBegin(answered())
    with begun(make_job(tmp_path, limits={"concurrency": 512})) as run:
        assert Work(run, client, random=Steady())() is None
    assert 1 <= client.before_first <= 8


class Steady:
    """Stands in for chance where none is wanted."""

    def uniform(self, low: float, high: float) -> float:
        """The middle."""
        return (low + high) / 2

    def random(self) -> float:
        """The middle."""
        return 0.5


def test_ondine_the_price_of_a_row_on_disk_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    """Five times the rows write about five times the bytes: nothing that holds all of them is written repeatedly."""
    written = []
    for count in (200, 1_000):
        folder = tmp_path / str(count)
        folder.mkdir()
        write_numbers(folder, count)
        job = make_job(folder, limits={"concurrency": 4}, output={"path": "out", "rows_per_part": 10_000})
        before = written_bytes()
        with begun(job) as run:
            assert work(run, answered("x" * 500)) is None
        written.append(written_bytes() - before)
    assert written[1] < 2 * 5 * written[0]


def written_bytes() -> int:
    """Bytes that this process has handed to the system so far."""
    (line,) = [line for line in Path("/proc/self/io").read_text().splitlines() if line.startswith("wchar")]
    return int(line.split()[1])


# -- resume


def test_hermes_42096_duplicate_prompts_are_all_answered(tmp_path: Path) -> None:
    """Rows are known by their place: after a stop every copy of a prompt has a row of its own, asked once."""
    (tmp_path / "rows.jsonl").write_bytes(b'{"text": "7 the same"}\n' * 60)
    job = make_job(tmp_path, limits={"concurrency": 4})
    first, second = ScriptedClient(refused_after(25, answered())), ScriptedClient(answered())
    with begun(job) as run:
        assert isinstance(work(run, first), AccountError)
    with begun(job) as run:
        assert work(run, second) is None
    rows = table(tmp_path / "out")
    assert rows["row_index"].to_pylist() == list(range(60))
    assert set(rows["status"].to_pylist()) == {"completed"}
    assert len(second.sent) == 60 - 25


def test_hermes_95346_rows_inserted_before_others_are_another_input(tmp_path: Path) -> None:
    """A resume by place is refused when places have moved; the finished parts stay byte for byte."""
    write_numbers(tmp_path, 12)
    job = make_job(tmp_path, limits={"concurrency": 1})
    with begun(job) as run:
        assert isinstance(work(run, refused_after(7, answered())), AccountError)
    before = contents(tmp_path / "out")
    lines = (tmp_path / "rows.jsonl").read_bytes()
    (tmp_path / "rows.jsonl").write_bytes(b'{"text": "99 new"}\n' + lines)
    with pytest.raises(ResumeError, match="input"), begun(job):
        pass
    assert before
    assert contents(tmp_path / "out") == before
    (tmp_path / "rows.jsonl").write_bytes(lines)
    with begun(job) as run:
        assert work(run, client := ScriptedClient(answered())) is None
    assert sorted(client.sent) == [7, 8, 9, 10, 11]


def contents(out: Path) -> dict[str, bytes]:
    """The finished parts by name."""
    return {path.name: path.read_bytes() for path in parts(out)}


def test_hermes_93653_rows_that_failed_for_good_are_not_asked_again(tmp_path: Path) -> None:
    """A row given up is an outcome: no later run pays for it again, whether its part was finished or not."""
    write_numbers(tmp_path, 40)
    job = make_job(tmp_path, limits={"concurrency": 1}, output={"path": "out", "rows_per_part": 10})

    def too_long(row: int, attempt: int) -> Reply | Fault:
        return refusal(400, "context_length_exceeded") if row in (3, 24) else good()

    with begun(job) as run:
        assert isinstance(work(run, refused_after(27, too_long)), AccountError)
        assert len(parts(tmp_path / "out")) == 2
    with begun(job) as run:
        assert work(run, client := ScriptedClient(answered())) is None
        assert sorted(client.sent) == list(range(27, 40))
        assert run.rundir.unfinished(run.plan) == []
    found = table(tmp_path / "out")["status"].to_pylist()
    assert [row for row, status in enumerate(found) if status == "failed"] == [3, 24]


class Holding(ScriptedClient):
    """Row 0 is never answered; once all others are, the run is ended at once."""

    def __init__(self, script: Script, rows: int) -> None:
        super().__init__(script)
        self.rows = rows
        self.worker: Worker | None = None
        self.all_sent = anyio.Event()

    async def under_way(self, number: int) -> None:
        if len(self.sent) == self.rows:
            self.all_sent.set()  # this row, too, is answered before row 0 hears of it
        if number == 0 and self.worker is not None:
            await self.all_sent.wait()
            self.worker.stop_now()
            await anyio.sleep_forever()


def test_ondine_240_241_a_gap_is_filled_and_nothing_above_it_is_asked_again(tmp_path: Path) -> None:
    """Rows answered out of order are kept one by one: after a crash only the gap is asked, and no row is skipped."""
    write_numbers(tmp_path, 30)
    job = make_job(tmp_path, output={"path": "out", "rows_per_part": 100})
    client = Holding(lambda row, attempt: refusal(400, "content_filter") if row == 9 else good(), 30)
    with begun(job) as run:
        Work(run, client, prepare=lambda worker: setattr(client, "worker", worker))()
        assert parts(tmp_path / "out") == []
    with begun(job) as run:
        assert work(run, second := ScriptedClient(answered())) is None
    assert second.sent == [0]
    rows = table(tmp_path / "out").to_pylist()
    assert [row["row_index"] for row in rows if row["status"] == "failed"] == [9]
    assert rows[9]["completion"] is None, "nothing stands in for an answer that there is not"
    assert rows[0]["attempts"] == 2


def test_data_juicer_1036_a_changed_partition_is_refused_and_deletes_nothing(tmp_path: Path) -> None:
    """Another number of rows per part is named and refused; concurrency moves no row to another part."""
    write_numbers(tmp_path, 12)
    with begun(make_job(tmp_path, limits={"concurrency": 1})) as run:
        assert isinstance(work(run, refused_after(11, answered())), AccountError)
    before = contents(tmp_path / "out")
    other = make_job(tmp_path, output={"path": "out", "rows_per_part": 4})
    with pytest.raises(ResumeError, match=r"output\.rows_per_part was 5, is 4"), begun(other):
        pass
    assert contents(tmp_path / "out") == before
    with begun(make_job(tmp_path, limits={"concurrency": 64})) as run:
        assert work(run, client := ScriptedClient(answered())) is None
    assert client.sent == [11]
    assert {name: content for name, content in contents(tmp_path / "out").items() if name in before} == before


def test_nvidia_evaluator_1116_the_largest_answers_are_kept(tmp_path: Path) -> None:
    """An answer of 6 MB is stored like any other, over a stop and into its part."""
    write_numbers(tmp_path, 4)
    large = "é" * 3_000_000
    job = make_job(tmp_path, limits={"concurrency": 1}, output={"path": "out", "rows_per_part": 100})
    with begun(job) as run:
        assert isinstance(work(run, refused_after(2, answered(large))), AccountError)
    with begun(job) as run:
        assert work(run, answered("small")) is None
    assert table(tmp_path / "out")["completion"].to_pylist() == [large] * 2 + ["small"] * 2


def test_hermes_1193_and_nano_rlm_97_a_torn_journal_costs_its_last_rows_only(tmp_path: Path) -> None:
    """Wherever a power cut tears the journal, the next run reads what was whole and asks for the rest."""
    (tmp_path / "whole").mkdir()
    write_numbers(tmp_path / "whole", 40)
    options: dict[str, Any] = {"limits": {"concurrency": 4}, "output": {"path": "out", "rows_per_part": 100}}
    with begun(make_job(tmp_path / "whole", **options)) as run:
        assert isinstance(work(run, refused_after(30, answered())), AccountError)
        wal = tmp_path / "whole" / "out" / ".batcher" / "journal-0.sqlite-wal"
        size = wal.stat().st_size
        for cut in range(1, 8):
            shutil.copytree(tmp_path / "whole", tmp_path / f"cut-{cut}")
    assert size > 10_000
    asked = []
    for cut in range(1, 8):
        torn = tmp_path / f"cut-{cut}" / "out" / ".batcher" / wal.name
        torn.with_name(torn.name.replace("-wal", "-shm")).unlink()
        with torn.open("r+b") as file:
            file.truncate(size * cut // 8 + cut)
            file.seek(0, os.SEEK_END)
            file.write(b"\n\0torn" * cut)
        with begun(make_job(tmp_path / f"cut-{cut}", **options)) as run:
            client = ScriptedClient(answered())
            assert work(run, client) is None
        assert table(tmp_path / f"cut-{cut}" / "out")["status"].to_pylist() == ["completed"] * 40
        asked.append(len(client.sent))
    assert asked == sorted(asked, reverse=True), "the later the cut, the less is lost"
    assert 10 <= asked[-1] < asked[0] <= 40


def test_claude_code_50347_a_torn_line_in_the_input_does_not_end_it(tmp_path: Path) -> None:
    """Half a line, and the blank line behind it, cost one row; every row after them is asked."""
    lines = [b'{"text": "0"}', b'{"text": "1 torn', b"", b'{"text": "2"}', b'{"tex', b'{"text": "4"}']
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join(lines))
    with begun(make_job(tmp_path)) as run:
        assert work(run, client := ScriptedClient(answered())) is None
    assert sorted(client.sent) == [0, 2, 4]
    assert table(tmp_path / "out")["status"].to_pylist() == ["completed", "failed", "completed", "failed", "completed"]


# -- errors, retries, limits


@pytest.mark.parametrize("status, code", [(404, "model_not_found"), (403, None)])
def test_daft_5678_one_row_that_is_refused_does_not_stop_the_others(
    tmp_path: Path, status: int, code: str | None
) -> None:
    """A row whose own model is unknown, or that a filter forbids, fails in the end; the others get their answers."""
    write_numbers(tmp_path, 60)
    job = make_job(tmp_path, limits={"concurrency": 1})
    with begun(job) as run:
        assert work(run, lambda row, attempt: refusal(status, code) if row == 20 else good()) is None
    found = [row["status"] for part in parts(tmp_path / "out") for row in pq.read_table(part).to_pylist()]
    assert found == ["completed"] * 20 + ["failed"] + ["completed"] * 39


class OneASecond(ScriptedClient):
    """Has room for one request a second, and refuses all others with 429."""

    free_at = 0.0

    async def send(self, body: bytes) -> Reply | Fault:
        """Answer if a second has passed since the last answer."""
        now = asyncio.get_running_loop().time()
        number = int(orjson.loads(body)["messages"][-1]["content"].split()[0])
        self.sent.append(number)
        if now < self.free_at:
            return refusal(429, "rate_limit_exceeded")
        self.free_at = now + 1.0
        return good()


def test_mlflow_11694_capacity_that_is_not_free_yet_fails_no_row(tmp_path: Path) -> None:
    """Against a quota far below the concurrency every row gets its turn; none is written off for having waited."""
    write_numbers(tmp_path, 200)
    with begun(make_job(tmp_path, limits={"concurrency": 64}, output={"path": "out", "rows_per_part": 500})) as run:
        client = OneASecond(answered())
        assert Work(run, client, most_readings=500_000)() is None
        assert run.rundir.totals().completed == 200
    assert set(table(tmp_path / "out")["status"].to_pylist()) == {"completed"}
    assert len(client.sent) < 10 * 200, "and the endpoint is not hammered meanwhile"


def test_dspark_18_a_probe_that_is_cut_at_its_limit_is_an_answer(tmp_path: Path) -> None:
    """`batcher check` asks for few tokens; a thinking model that spends all of them without a word has answered."""
    write_rows(tmp_path / "rows.jsonl", ["a"])
    with recording(lambda request: completion("", finish_reason="length")) as server:
        end = batcher("check", str(write_job(tmp_path, server.base_url)))
    assert end.returncode == 0, end.stdout
    assert len([request for request in server.requests if request.raw]) == 1


# -- transport


def test_lm_eval_2795_and_pixeltable_1062_no_clock_runs_while_a_row_waits_its_turn(tmp_path: Path) -> None:
    """Timeouts are an attempt's own: a queue that takes longer than `total_s` and `connect_s` fails nobody."""
    texts = write_rows(tmp_path / "rows.jsonl", (f"row {n}" for n in range(6)))

    def slow(request: Request) -> Answer:
        time.sleep(0.4)
        return completion(id=f"chatcmpl-{digest(request.prompt)}")

    with recording(slow) as server:
        endpoint = {"base_url": server.base_url, "timeouts": {"connect_s": 2, "first_byte_s": 2, "total_s": 2}}
        end = batcher("run", str(write_job(tmp_path, "", endpoint=endpoint, limits={"concurrency": 1})))
    assert end.returncode == 0, end.stderr
    check_output(tmp_path / "out", texts)


# -- output


def test_marin_5142_a_column_that_is_null_at_first_is_there_with_its_type(tmp_path: Path) -> None:
    """All rows decide about the columns: parts of nulls, and columns that come late, have the schema of the rest."""
    rows = [{"text": f"{n}", "tag": None} for n in range(12)]
    rows += [{"text": f"{n}", "tag": "late", "score": n} for n in range(12, 20)]
    (tmp_path / "rows.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    with begun(make_job(tmp_path)) as run:
        assert work(run, answered()) is None
    assert len(parts(tmp_path / "out")) == 4
    assert len({str(pq.read_schema(part).remove_metadata()) for part in parts(tmp_path / "out")}) == 1
    found = table(tmp_path / "out")
    assert found["tag"].to_pylist() == [None] * 12 + ["late"] * 8
    assert found["score"].to_pylist() == [None] * 12 + list(range(12, 20))


def test_testing_files_generator_79_of_writers_that_start_together_one_works(tmp_path: Path) -> None:
    """Three runs started at once on a new folder: one asks every row once, the others leave with 75."""
    texts = write_rows(tmp_path / "rows.jsonl", (f"row {n}" for n in range(30)))
    release = threading.Event()

    def hold(request: Request) -> Answer:
        release.wait(60)
        return completion(id=f"chatcmpl-{digest(request.prompt)}")

    with recording(hold) as server:
        job = write_job(tmp_path, server.base_url)
        runs = [start("run", str(job), "-q") for _ in range(3)]
        wait_until(lambda: sum(run.poll() is not None for run in runs) >= 2)
        ended = [run.poll() for run in runs]
        release.set()
        for run in runs:
            run.communicate(timeout=60)
    assert sorted(code for code in ended if code is not None) == [75, 75]
    assert sorted(run.returncode for run in runs) == [0, 75, 75]
    assert sorted(request.prompt for request in server.requests) == sorted(texts)
    check_output(tmp_path / "out", texts)


def test_openthoughts_agent_141_a_signal_of_the_scheduler_loses_no_answer(tmp_path: Path) -> None:
    """USR1, which ends a program that does not expect it, is as harmless as kill -9: the same command carries on."""
    texts = write_rows(tmp_path / "rows.jsonl", (f"row {n}" for n in range(120)))
    options = SimulatorOptions(latency_s=0.05, ledger=tmp_path / "ledger.jsonl")
    with start_simulator(options) as simulator:
        job = write_job(tmp_path, simulator.base_url)
        process = start("run", str(job), "-q")
        wait_until(lambda: counts(simulator)["answered"] >= 40)
        assert kill(process, signal.SIGUSR1) == -signal.SIGUSR1
        assert batcher("run", str(job), "-q").returncode == 0
    check_output(tmp_path / "out", texts)
    check_money(Ledger.read(tmp_path / "ledger.jsonl"), texts, unsure=unsure(tmp_path / "out"))


def test_every_story_that_is_told_elsewhere_is_held_there() -> None:
    """The tests that the list above names exist."""
    named = re.findall(r"^ {8}(\S+\.py):\s+(\w+)$", __doc__ or "", re.MULTILINE)
    assert len(named) > 25
    for file, name in named:
        assert f"def {name}(" in (TESTS / file).read_text(), f"{file}: {name}"
