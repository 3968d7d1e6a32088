"""`batcher report`: one page that says what the run folder holds, in every state of a run, and is harmless."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import orjson
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from batcher.job import Job
from batcher.records import ApiError, Outcome
from batcher.report import gather, render
from batcher.report.tally import MOST
from batcher.simulator import SimulatorOptions
from batcher.simulator import start as start_simulator
from batcher.timeline import NAME, read_timeline
from tests.fakes import body_of, make_job, outcome, write_numbers
from tests.harness import BARE, batcher, kill, start, table, write_job, write_rows, write_script
from tests.runs import run_rows, write_records
from tests.simulator_client import counts, wait_until

HOSTILE = "</td></style><script>alert(1)</script><img src=http://127.0.0.1:9/x onerror=alert(2)>\x00\u202e\" onclick='x"
#: attributes that make a browser ask for something
ASKING = ("src", "href", "xlink:href", "srcset", "data", "action", "poster", "background")
#: tags that have no place in a report
ACTIVE = {"script", "img", "iframe", "object", "embed", "link", "base", "form", "a", "use", "image", "foreignobject"}


class Page(HTMLParser):
    """The tags of a page, its text, and the cells of its tables."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.rows: list[list[str]] = []
        #: by the name of a tile: its value, and the line below
        self.tiles: dict[str, list[str]] = {}
        self._inside: list[str] = []
        self._style = ""
        self.feed(page)
        self.close()
        for match in re.finditer(r"<dt>([^<]*)</dt><dd class=\"value\">([^<]*)</dd><dd>([^<]*)</dd>", page):
            name, *said = (words.replace("\u202f", " ") for words in match.groups())
            self.tiles[name] = said

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "style" in self._inside:
            return
        self.text += data
        if self.rows and self.rows[-1] and {"td", "th"} & set(self._inside):
            self.rows[-1][-1] += data.replace("\u202f", " ")

    def row(self, name: str) -> list[str]:
        """The cells of the row that begins so."""
        return next([cell.strip() for cell in row] for row in self.rows if row and row[0].strip().startswith(name))


def check_harmless(page: str) -> Page:
    """Assert that nothing on a page is active or asks for anything, and that a policy forbids it as well."""
    parsed = Page(page)
    for tag, attributes in parsed.tags:
        assert tag not in ACTIVE
        for name in attributes:
            assert name not in ASKING, (tag, attributes)
            assert name != "style"
            assert not name.startswith("on")
    policies = [values["content"] or "" for tag, values in parsed.tags if tag == "meta" and "http-equiv" in values]
    assert len(policies) == 1
    assert re.fullmatch(
        r"default-src 'none'; style-src 'sha256-[\w+/]{43}='; base-uri 'none'; form-action 'none'", policies[0]
    )
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    return parsed


def page_of(job: Job) -> Page:
    """The report of a job's run folder."""
    return check_harmless(render(gather(job.output.path)))


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A job over twelve rows in three shards."""
    write_numbers(tmp_path, 12)
    return make_job(tmp_path)


# -- a real run


def test_the_report_of_a_real_run(tmp_path: Path) -> None:
    """Killed once and resumed, with failed rows: the page says what the parts hold, and tells of both runs."""
    texts = write_rows(tmp_path / "rows.jsonl", (f"row {n}: {'y' * (n % 90)}" for n in range(600)))
    script = write_script(
        tmp_path / "script.yaml",
        {"match": "7: ", "answers": [{"status": 400, "code": "content_filter", "message": HOSTILE}], "forever": True},
        {"share": 0.1, "answers": [{"status": 503}]},
        {"share": 0.1, "answers": [{"finish_reason": "length"}]},
    )
    with start_simulator(SimulatorOptions(latency_s=0.05, script=script, seed=3)) as simulator:
        job = write_job(tmp_path, simulator.base_url, input={"path": "rows.jsonl", "id": "n"})
        process = start("run", str(job), "-q")
        wait_until(lambda: counts(simulator)["answered"] > 150)
        wait_until(lambda: read_timeline(tmp_path / "out" / ".batcher"))
        kill(process)
        assert batcher("run", str(job), "-q").returncode == 3
    end = batcher("report", str(job))
    assert end.returncode == 0, end.stderr
    file = tmp_path / "out-report.html"
    assert re.fullmatch(rf"{re.escape(str(file))} \(\d+ KB\)\n", end.stdout)
    assert file.stat().st_size < 400_000
    page = check_harmless(file.read_text())
    check_totals(page, tmp_path / "out")
    assert page.tiles["Failed"][0] == str(sum("7: " in text for text in texts))
    assert "content_filter" in page.text
    assert "<script>alert(1)</script>" in page.text
    assert "where the run was resumed (1)" in page.text
    assert sum(tag == "svg" for tag, _ in page.tags) == 8


def check_totals(page: Page, out: Path) -> None:
    """Assert that the numbers of a page are those of the parts."""
    rows = table(out)
    completed = rows.filter(pc.equal(rows["status"], "completed"))
    assert page.tiles["Completed"][0] == f"{completed.num_rows:,}"
    assert page.tiles["Failed"][0] == f"{rows.num_rows - completed.num_rows:,}"
    for name in ("prompt", "completion"):
        cells = page.row(name)
        assert cells[1] == f"{pc.sum(rows[f'{name}_tokens']).as_py():,}"
        assert cells[5] == f"{pc.max(rows[f'{name}_tokens']).as_py():,}"
    for found in pc.value_counts(completed["finish_reason"]).to_pylist():
        assert page.row(found["values"])[1] == f"{found['counts']:,}"
    slowest = rows.sort_by([("latency_s", "descending")])["row_index"][0].as_py()
    first = page.rows.index(next(row for row in page.rows if "latency" in [cell.strip() for cell in row])) + 1
    assert page.rows[first][0] == f"{slowest:,}"


def test_a_run_that_goes_on(tmp_path: Path) -> None:
    """A report can be had while the run works; it says so, and the run does not notice."""
    write_rows(tmp_path / "rows.jsonl", (f"row {n}" for n in range(400)))
    with start_simulator(SimulatorOptions(latency_s=0.2, spread=0)) as simulator:
        job = write_job(tmp_path, simulator.base_url, limits={"concurrency": 8})
        process = start("run", str(job), "-q")
        wait_until(lambda: counts(simulator)["answered"] > 30)
        wait_until((tmp_path / "out" / ".batcher" / "summary.json").exists)
        end = batcher("report", str(tmp_path / "out"), "--to", str(tmp_path / "r.html"))
        assert end.returncode == 0, end.stderr
        process.communicate(timeout=90)
        assert process.returncode == 0
    page = check_harmless((tmp_path / "r.html").read_text())
    assert "running" in page.text
    assert 0 < int(page.tiles["Completed"][0]) < 400
    assert "have no outcome yet" in page.text


def test_a_record_that_cannot_be_written_harms_no_run(tmp_path: Path) -> None:
    """The run completes with one warning, and its report does without plots over time."""
    write_rows(tmp_path / "rows.jsonl", (f"row {n}" for n in range(30)))
    (tmp_path / "out" / ".batcher" / NAME).mkdir(parents=True)
    with start_simulator(SimulatorOptions(latency_s=0.01)) as simulator:
        end = batcher("run", str(write_job(tmp_path, simulator.base_url)))
    assert end.returncode == 0, end.stderr
    assert end.stderr.count(NAME) == 1
    assert batcher("report", str(tmp_path / "out")).returncode == 0
    page = check_harmless((tmp_path / "out-report.html").read_text())
    assert "no record over time" in page.text
    assert page.tiles["Completed"] == ["30", "all of 30 rows"]


# -- every state of a run


def test_a_run_without_an_outcome(job: Job) -> None:
    """A run that got nothing yet has a report that says so."""
    run_rows(job, [])
    page = page_of(job)
    assert "unfinished" in page.text
    assert "12 rows of 12 have no outcome yet" in page.text
    assert page.tiles["Tokens"][0] == page.tiles["Cost"][0] == "unknown"


def test_a_run_that_stopped_in_the_middle(job: Job) -> None:
    """Rows of parts and rows that wait for theirs are counted; the page says how many are not."""
    run_rows(job, [outcome(row) for row in (0, 1, 5, 6, 7, 8, 9)], parts=[1])
    page = page_of(job)
    assert page.tiles["Completed"] == ["7", "of 12 rows"]
    assert "5 rows of 12 have no outcome yet" in page.text
    assert "2 rows of those shown here have their outcome, but are not in a part yet" in page.text
    assert page.row("prompt")[1] == "21"


def test_one_row(tmp_path: Path) -> None:
    """A run of a single row has a report, latency plot included."""
    write_numbers(tmp_path, 1)
    job = make_job(tmp_path)
    run_rows(job, [outcome(0)], parts=[0])
    page = page_of(job)
    assert page.tiles["Completed"] == ["1", "all of 1 row"]
    assert page.tiles["Latency, median"][0] == "500 ms"
    assert sum(tag == "svg" for tag, _ in page.tags) == 2
    assert "No row failed." in page.text
    assert "Every row took 1 attempt." in page.text


def test_all_rows_failed(job: Job) -> None:
    """A run without a single completed row has no latency plot and no finish reasons, but all causes."""
    run_rows(job, [outcome(row, failed="bad" if row % 3 else "worse") for row in range(12)], parts=[0, 1, 2])
    page = page_of(job)
    assert "finished, every row failed" in page.text
    assert page.tiles["Failed"][0] == "12"
    assert page.tiles["Latency, median"] == ["unknown", "no row was completed"]
    assert "8 rows" in page.text
    assert "worse" in page.text
    assert "Finish reasons" not in page.text


def test_a_server_that_counts_no_tokens(job: Job) -> None:
    """What is not known is called unknown, nowhere 0."""
    mute = body_of(usage=None)
    run_rows(job, [outcome(r, body=mute, prompt_tokens=None, completion_tokens=None) for r in range(12)], [0, 1, 2])
    page = page_of(job)
    assert page.tiles["Tokens"] == ["unknown", "none were counted"]
    assert page.tiles["Cost"][0] == "unknown"
    assert page.row("prompt")[1] == page.row("completion")[1] == page.row("total")[1] == "unknown"
    assert "no tokens for 12 completed rows" in page.text


@pytest.mark.parametrize(
    ("priced", "value", "more"),
    [
        (12, "$0.0180", "$1.50 per 1,000 rows"),
        (4, "≥ $0.0060", "8 rows at an unknown price"),
        (0, "unknown", "no price is known"),
    ],
)
def test_costs(job: Job, priced: int, value: str, more: str) -> None:
    """All rows priced: the sum. Some: at least that. None: unknown."""
    run_rows(job, [outcome(r, cost_usd=0.0015 if r < priced else None) for r in range(12)], parts=[0, 1, 2])
    page = page_of(job)
    assert page.tiles["Cost"] == [value, more]


def test_a_prefix_before_the_added_columns(tmp_path: Path) -> None:
    """A run whose input has columns called like batcher's is reported from batcher's."""
    write_records(tmp_path, [{"text": "t", "status": "completed", "latency_s": 99.0, "cost_usd": 5.0}] * 3)
    job = make_job(tmp_path, output={"path": "out", "prefix": "b_"}, input={"path": "rows.jsonl", "id": "status"})
    run_rows(job, [outcome(0), outcome(1), outcome(2, failed="bad")], parts=[0])
    page = page_of(job)
    assert (page.tiles["Completed"][0], page.tiles["Failed"][0]) == ("2", "1")
    assert page.tiles["Latency, median"][0] == "500 ms"
    assert page.tiles["Cost"][0] == "unknown"


def test_ids_whose_input_is_gone(tmp_path: Path) -> None:
    """Rows without a part get their id from the input; without that the report has their numbers only."""
    write_records(tmp_path, [{"text": "t", "key": f"key-{n}"} for n in range(12)])
    job = make_job(tmp_path, input={"path": "rows.jsonl", "id": "key"})
    run_rows(job, map(outcome, range(12)), parts=[1, 2])
    assert "key-3" in page_of(job).text
    (tmp_path / "rows.jsonl").unlink()
    assert page_of(job).tiles["Completed"][0] == "12"


# -- hostile content


def hostile_rows(count: int) -> list[Outcome]:
    """Rows in which everything that a server or an input can say is an attack."""
    body = body_of(HOSTILE, model=HOSTILE, id=HOSTILE).replace(b'"stop"', orjson.dumps(HOSTILE))
    rows = [outcome(row, body=body) for row in range(count // 2)]
    for row in range(count // 2, count):
        error = ApiError(f"{HOSTILE} {row} {'x' * 1_000_000}", code=f"{HOSTILE} {row}", http_status=400)
        rows.append(outcome(row, failed="x", error=error))
    return rows


def test_hostile_content_is_shown_as_text(tmp_path: Path) -> None:
    """Markup, controls, direction marks and megabytes from rows and servers stand there, short, as text."""
    write_records(tmp_path, [{"text": "t", HOSTILE: f"{HOSTILE} {n}"} for n in range(12)])
    job = make_job(
        tmp_path, model=HOSTILE, prompt=HOSTILE, system_prompt=HOSTILE, input={"path": "rows.jsonl", "id": HOSTILE}
    )
    run_rows(job, hostile_rows(12), parts=[0, 1, 2])
    page = render(gather(job.output.path))
    parsed = check_harmless(page)
    assert len(page) < 300_000
    assert parsed.text.count("<script>alert(1)</script>") > 12
    assert "[U+202E]" in parsed.text
    assert "[U+0000]" in parsed.text
    assert not {"\u202e", "\x00"} & set(page)


def test_a_server_that_makes_up_causes(tmp_path: Path) -> None:
    """However many causes there are, the page stays readable and adds up."""
    count = MOST * 2
    write_numbers(tmp_path, count)
    job = make_job(tmp_path, output={"path": "out", "rows_per_part": count})
    run_rows(job, [outcome(row, failed=f"code {row}") for row in range(count)], parts=[0])
    page = page_of(job)
    assert sum(tag == "article" for tag, _ in page.tags) == 20
    assert f"{count - 20} rows failed for other causes." in page.text


def test_no_secret_is_in_a_report(tmp_path: Path) -> None:
    """The key, header values and a proxy's password are in the job's environment, and not on the page."""
    write_rows(tmp_path / "rows.jsonl", ["a", "b"])
    with start_simulator(SimulatorOptions(latency_s=0.001)) as simulator:
        assert batcher("run", str(write_job(tmp_path, simulator.base_url)), "-q").returncode == 0
        endpoint = {
            "base_url": simulator.base_url,
            "api_key_env": "MY_KEY",
            "headers": {"X-Team": "${TEAM}", "X-Token": "${TOKEN}"},
            "proxy": "http://user:${PASSWORD}@proxy.example:3128",
        }
        job = write_job(tmp_path, "", endpoint=endpoint)
    secrets = {"MY_KEY": "sk-canary-1", "TEAM": "canary-2", "TOKEN": "canary-3", "PASSWORD": "canary-4"}
    end = batcher("report", str(job), env={**BARE, **secrets})
    assert end.returncode == 0, end.stderr
    page = check_harmless((tmp_path / "out-report.html").read_text())
    assert "canary" not in page.text + end.stdout + end.stderr
    assert "user" not in page.text.split("endpoint.proxy")[1][:60]
    assert "endpoint.headers.X-Team" in page.text
    assert "MY_KEY" in page.text
    assert str(tmp_path) not in page.text


# -- the command


def test_the_library_that_draws_is_missing(tmp_path: Path) -> None:
    """Without it the command says what to install; nothing else needs it."""
    (tmp_path / "vl_convert.py").write_text("raise ModuleNotFoundError('no', name='vl_convert')\n")
    end = batcher("report", str(tmp_path), env={**BARE, "PYTHONPATH": str(tmp_path)})
    assert end.returncode == 2
    assert "pip install vl-convert-python" in end.stderr
    assert "Traceback" not in end.stderr
    assert batcher("status", "--help", env={**BARE, "PYTHONPATH": str(tmp_path)}).returncode == 0


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    """It is said that there is nothing to report, and nothing is written."""
    end = batcher("report", str(tmp_path))
    assert (end.returncode, end.stdout) == (65, "")
    assert "holds no run" in end.stderr
    assert list(tmp_path.iterdir()) == []


def test_only_a_report_is_replaced(job: Job) -> None:
    """A part, or any other file, is never overwritten; an older report is."""
    run_rows(job, map(outcome, range(12)), parts=[0, 1, 2])
    out = job.output.path
    before = (out / "part-00000.parquet").read_bytes()
    end = batcher("report", str(out), "--to", str(out / "part-00000.parquet"))
    assert end.returncode == 65
    assert "is no report" in end.stderr
    assert (out / "part-00000.parquet").read_bytes() == before
    for _ in range(2):
        assert batcher("report", str(out)).returncode == 0
    assert pq.read_table(out / "part-00000.parquet").num_rows == 5
    assert batcher("report", str(out), "--to", str(out / "nowhere" / "r.html")).returncode == 74
