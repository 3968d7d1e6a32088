"""`batcher check` against endpoints of several kinds: what it says, what it sends, and what it never does."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.harness import BARE, batcher, write_job, write_rows
from tests.recording_server import Answer, Recorder, Request, as_json, completion, recording

KEY = "sk-canary-key-5b1f0c"
MODELS = as_json({"object": "list", "data": [{"id": "deepseek-flash"}, {"id": "deepseek-v4-pro"}]})
BALANCE = as_json({"is_available": True, "balance_infos": [{"currency": "USD", "total_balance": "12.40"}]})


def endpoint(
    answer: Callable[[Request], Answer] = lambda request: completion(model="deepseek-flash"),
    *,
    models: Answer | None = None,
    balance: Answer | None = None,
) -> Callable[[Request], Answer]:
    """An endpoint that may have a list of models and a balance."""
    nothing = as_json({"error": {"message": "no such place"}}, 404)

    def respond(request: Request) -> Answer:
        if request.method == "POST":
            return answer(request)
        looked_up = {"/v1/models": models, "/v1/user/balance": balance}
        return looked_up.get(request.path) or nothing

    return respond


def job_for(folder: Path, base_url: str, **changes: Any) -> Path:
    """A job with a key over two rows."""
    write_rows(folder / "rows.jsonl", ["first", "second"])
    return write_job(folder, "", endpoint={"base_url": base_url, "api_key_env": "MY_KEY"}, **changes)


def check(job: Path, *options: str, code: int = 0, **more: Any) -> subprocess.CompletedProcess[str]:
    """Check a job with the key in the environment."""
    end = batcher("check", str(job), *options, env={**BARE, "MY_KEY": KEY}, **more)
    assert end.returncode == code, end.stdout + end.stderr
    assert KEY not in end.stdout + end.stderr
    assert "Traceback" not in end.stderr
    assert not (job.parent / "out").exists() or more
    return end


def lines(end: subprocess.CompletedProcess[str], name: str, verdict: str = "ok") -> list[str]:
    """What was said about something with this verdict."""
    found = [line.split(maxsplit=2) for line in end.stdout.splitlines()]
    return [words[2] for words in found if len(words) > 2 and words[:2] == [verdict, name]]


def posts(recorder: Recorder) -> list[Request]:
    """The requests that may cost something."""
    return [request for request in recorder.requests if request.method == "POST"]


def test_an_endpoint_with_everything(tmp_path: Path) -> None:
    """The model that serves, whether it is listed, and the balance; one request, one look-up of each, with the key."""
    with recording(endpoint(models=MODELS, balance=BALANCE)) as recorder:
        end = check(job_for(tmp_path, recorder.base_url, parameters={"temperature": 0.5, "thinking": "disabled"}))
    assert lines(end, "key") == ["MY_KEY (20 characters, not shown)"]
    assert lines(end, "endpoint") == [f"{recorder.base_url} answers; one request of 5 tokens"]
    (model,) = lines(end, "model")
    assert model.startswith("deepseek-v4-flash, served as deepseek-flash; it is not in the list of models there")
    assert lines(end, "balance") == ["USD 12.40"]
    assert sorted(f"{request.method} {request.path}" for request in recorder.requests) == [
        "GET /v1/models",
        "GET /v1/user/balance",
        "POST /v1/chat/completions",
    ]
    assert {request.headers["authorization"] for request in recorder.requests} == {f"Bearer {KEY}"}
    assert posts(recorder)[0].body["temperature"] == 0.5


def test_an_endpoint_with_nothing_more(tmp_path: Path) -> None:
    """Most endpoints have no balance, some no list: then nothing is said of them."""
    with recording(endpoint(lambda request: completion(model="deepseek-v4-flash"))) as recorder:
        end = check(job_for(tmp_path, recorder.base_url))
    assert lines(end, "model") == ["deepseek-v4-flash"]
    assert "balance" not in end.stdout
    assert lines(end, "endpoint", "FAIL") == []


def test_without_a_key_no_balance_is_asked_for(tmp_path: Path) -> None:
    """Whoever sends no key has no account there."""
    write_rows(tmp_path / "rows.jsonl", ["a"])
    with recording(endpoint(models=MODELS, balance=BALANCE)) as recorder:
        check(write_job(tmp_path, recorder.base_url, model="deepseek-flash"))
    assert {request.path for request in recorder.requests} == {"/v1/chat/completions", "/v1/models"}


def test_offline_sends_nothing(tmp_path: Path) -> None:
    """With --offline not even a name is looked up."""
    with recording(endpoint(models=MODELS, balance=BALANCE)) as recorder:
        end = check(job_for(tmp_path, recorder.base_url), "--offline")
    assert recorder.requests == []
    assert not lines(end, "endpoint")


def test_a_typo_in_the_model(tmp_path: Path) -> None:
    """A model that the endpoint does not know is compared with those it has; exit 78."""
    unknown = as_json({"error": {"message": "no", "code": "model_not_found"}}, 404)
    with recording(endpoint(lambda request: unknown, models=MODELS)) as recorder:
        end = check(job_for(tmp_path, recorder.base_url, model="deepseek-v4-por"), code=78)
    (line,) = lines(end, "endpoint", "FAIL")
    assert "models there: deepseek-flash, deepseek-v4-pro; did you mean 'deepseek-v4-pro'?" in line


def test_an_empty_account(tmp_path: Path) -> None:
    """402 with the balance beside it; exit 77."""
    broke = as_json({"is_available": False, "balance_infos": [{"currency": "CNY", "total_balance": "0.00"}]})
    refusal = as_json({"error": {"message": "Insufficient Balance"}}, 402)
    with recording(endpoint(lambda request: refusal, balance=broke)) as recorder:
        end = check(job_for(tmp_path, recorder.base_url), code=77)
    (line,) = lines(end, "endpoint", "FAIL")
    assert line.endswith("the balance is CNY 0.00, too little for requests")


def test_a_refused_key_is_sent_nowhere_else(tmp_path: Path) -> None:
    """After a 401 there is nothing to look up; exit 77."""
    refusal = as_json({"error": {"message": f"no, {KEY}"}}, 401)
    with recording(endpoint(lambda request: refusal, models=MODELS, balance=BALANCE)) as recorder:
        end = check(job_for(tmp_path, recorder.base_url), code=77)
    assert len(recorder.requests) == 1
    assert "refused the key" in lines(end, "endpoint", "FAIL")[0]


def test_look_ups_that_repeat_the_key_or_redirect(tmp_path: Path) -> None:
    """Whatever the look-ups bring, the key is not shown and nothing else is asked."""
    echo = as_json({"data": [{"id": KEY}, {"id": "deepseek-v4-flash"}]})
    moved = Answer(b"", 302, {"Location": "/v1/elsewhere"})
    with recording(endpoint(models=echo, balance=moved)) as recorder:
        end = check(job_for(tmp_path, recorder.base_url))
    assert "it is in the list of models there" in lines(end, "model")[0]
    assert "/v1/elsewhere" not in {request.path for request in recorder.requests}


def test_a_model_that_wants_no_such_bound(tmp_path: Path) -> None:
    """A refusal of the short answer's bound is no refusal of the job: it is asked once more as the job would ask."""

    def respond(request: Request) -> Answer:
        if "max_tokens" in request.body:
            return as_json({"error": {"message": "no", "param": "max_tokens", "code": "unsupported_parameter"}}, 400)
        return completion()

    with recording(endpoint(respond)) as recorder:
        check(job_for(tmp_path, recorder.base_url))
    assert [request.body.get("max_tokens") for request in posts(recorder)] == [16, None]


def test_a_parameter_that_the_endpoint_does_not_take(tmp_path: Path) -> None:
    """What would make every row fail is found before; exit 78, with the parameter's name."""

    def respond(request: Request) -> Answer:
        if "seed" in request.body:
            return as_json({"error": {"message": "no", "param": "seed", "code": "unsupported_parameter"}}, 400)
        return completion()

    with recording(endpoint(respond)) as recorder:
        end = check(job_for(tmp_path, recorder.base_url, parameters={"extra": {"seed": 7}}), code=78)
    assert "HTTP 400 (unsupported_parameter, param seed)" in lines(end, "endpoint", "FAIL")[0]


def test_nobody_listens(tmp_path: Path) -> None:
    """An endpoint that is not there: host and port, what to look at, exit 69, and nothing is looked up."""
    with recording(endpoint()) as recorder:
        base_url = recorder.base_url
    end = check(job_for(tmp_path, base_url), code=69)
    (line,) = lines(end, "endpoint", "FAIL")
    assert "cannot connect to 127.0.0.1 port" in line
    assert line.endswith("is endpoint.base_url right, and does that server run?")


def test_a_missing_key_is_not_said_twice(tmp_path: Path) -> None:
    """Without the key nothing is sent; the command that sets it is shown."""
    with recording(endpoint()) as recorder:
        job = job_for(tmp_path, recorder.base_url)
        end = batcher("check", str(job))
    assert end.returncode == 78
    (line,) = lines(end, "key", "FAIL")
    assert line.endswith("set it in this shell: export MY_KEY='...'")
    assert recorder.requests == []
    assert not lines(end, "endpoint", "FAIL")


def test_a_provider_that_is_known_to_want_a_key(tmp_path: Path) -> None:
    """Who forgot to name the key of a known provider is told before anything is refused."""
    write_rows(tmp_path / "rows.jsonl", ["a"])
    end = check(write_job(tmp_path, "https://api.deepseek.com"), "--offline")
    (line,) = lines(end, "key", "warn")
    assert line.endswith("endpoint.api_key_env: DEEPSEEK_API_KEY")


def test_the_sample_shows_what_is_sent_and_nothing_more(tmp_path: Path) -> None:
    """The first row's request is shown as it will be sent; escape sequences of the data do not reach the terminal."""
    write_rows(tmp_path / "rows.jsonl", ["evil \x1b[2J\x07 FAIL\nFAIL  key        all lost", "other"])
    job = write_job(tmp_path, "simulator", system_prompt="Row {{ n }}.", parameters={"temperature": 0.25})
    end = check(job, "--offline")
    assert lines(end, "request")[1:] == [
        "model deepseek-v4-flash, temperature 0.25",
        "system    | Row 0.",
        "user      | evil \\x1b[2J\\x07 FAIL",
        "| FAIL  key        all lost",
    ]
    assert not any(line.startswith("FAIL") for line in end.stdout.splitlines())
    assert "other" not in end.stdout


def test_names_of_columns_cannot_steer_a_terminal(tmp_path: Path) -> None:
    """Whatever a line shows, what the data are called included, is shown and not obeyed."""
    (tmp_path / "rows.jsonl").write_text('{"text": "a", "b\\u001b[2J\\nFAIL": 1}\n')
    end = check(write_job(tmp_path, "simulator"), "--offline")
    assert "columns text, b\\x1b[2J FAIL" in lines(end, "input")[0]
    assert end.stdout.replace("\n", "").isprintable()


def test_a_key_inside_the_data_is_not_shown(tmp_path: Path) -> None:
    """The key of the job, should it stand in a row, stays hidden, also one that does not look like a key."""
    key = "open.sesame"
    write_rows(tmp_path / "rows.jsonl", [f"my key is {key}, keep it"])
    job = write_job(tmp_path, "", endpoint={"base_url": "simulator", "api_key_env": "MY_KEY"})
    end = batcher("check", str(job), "--offline", env={**BARE, "MY_KEY": key})
    assert lines(end, "request")[-1] == "user      | my key is ***, keep it"
    assert key not in end.stdout + end.stderr


@pytest.mark.parametrize(
    ("texts", "count"), [(["in json", "as JSON"], 0), (["in json", "as text"], 1), (["a", "b"], 2)]
)
def test_prompts_without_the_word_json(tmp_path: Path, texts: list[str], count: int) -> None:
    """In JSON mode every prompt needs the word, and it is counted how many have it not."""
    write_rows(tmp_path / "rows.jsonl", texts)
    end = check(write_job(tmp_path, "simulator", parameters={"response_format": "json_object"}), "--offline")
    warned = [line for line in lines(end, "parameters", "warn") if "json_object" in line]
    assert len(warned) == (count > 0)
    if count:
        assert f"of the first 2 prompts {count} do not hold the word 'json'" in warned[0]


def test_parameters_without_effect(tmp_path: Path) -> None:
    """What the model ignores is said, also where a row brings it itself."""
    write_rows(tmp_path / "rows.jsonl", ["a"])
    ours = check(write_job(tmp_path, "simulator", parameters={"temperature": 0.2}), "--offline")
    assert any("temperature has no effect" in line for line in lines(ours, "parameters", "warn"))
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "temperature": 0.2}\n')
    theirs = check(write_job(tmp_path, "simulator", prompt=None), "--offline")
    assert any("temperature has no effect" in line for line in lines(theirs, "parameters", "warn"))


def test_rows_that_ask_for_another_model(tmp_path: Path) -> None:
    """A batch file made for another provider names its models, which win over the job's."""
    row = '{"custom_id": "1", "body": {"model": "gpt-9", "messages": [{"role": "user", "content": "a"}]}}\n'
    (tmp_path / "rows.jsonl").write_text(row)
    end = check(write_job(tmp_path, "simulator", prompt=None), "--offline")
    assert lines(end, "model", "warn") == ["of the first rows, 1 ask for a model of their own: gpt-9"]


def test_a_job_file_with_mistakes(tmp_path: Path) -> None:
    """Every mistake of the job file is a FAIL with file, line and column; exit 78."""
    (tmp_path / "job.yaml").write_text("version: 1\nmodel: m\nlimits: {concurency: 5}\noutput: {path: out}\n")
    end = check(tmp_path / "job.yaml", code=78)
    failed = lines(end, "job", "FAIL")
    assert len(failed) == 3
    assert any("job.yaml:3:10: limits.concurency" in line and "did you mean 'concurrency'?" in line for line in failed)


def test_what_a_run_would_refuse(tmp_path: Path) -> None:
    """Columns that collide, and a job that another run began, are found before a run meets them."""
    (tmp_path / "rows.jsonl").write_text('{"text": "a", "status": "open"}\n')
    job = write_job(tmp_path, "simulator")
    assert "'status'" in lines(check(job, "--offline", code=78), "output", "FAIL")[0]
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n')
    wanted = write_job(tmp_path, "simulator", output={"path": "out", "columns": ["txet"]})
    assert "'txet'" in lines(check(wanted, "--offline", code=65), "output", "FAIL")[0]
    job = write_job(tmp_path, "simulator")
    assert batcher("run", str(job), "-q").returncode == 0
    again = check(job, "--offline", timeout=60)
    assert "a run has begun there and is carried on" in lines(again, "output")[0]
    other = check(job, "--offline", "--set", "parameters.temperature=1", code=78, timeout=60)
    assert "parameters.temperature was null, is 1" in lines(other, "output", "FAIL")[0]


def test_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    """Exit 74, as a run would."""
    write_rows(tmp_path / "rows.jsonl", ["a"])
    (tmp_path / "taken").write_text("mine")
    end = check(write_job(tmp_path, "simulator", output={"path": "taken/out"}), "--offline", code=74)
    assert "output.path" in lines(end, "output", "FAIL")[0]


def test_the_next_command_works_as_printed(tmp_path: Path) -> None:
    """A good check ends with the command that runs the job, options included, on standard error."""
    folder = tmp_path / "my jobs"
    folder.mkdir()
    write_rows(folder / "rows.jsonl", ["a"])
    job = write_job(folder, "simulator")
    end = check(job, "--set", "output.path=other out", cwd=tmp_path)
    (line,) = end.stderr.splitlines()
    assert shlex.split(line)[2:] == ["run", "my jobs/job.yaml", "--set", "output.path=other out"]
    command = line.removeprefix("next: ")
    ran = subprocess.run(command, shell=True, cwd=tmp_path, env=BARE, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert (folder / "other out" / "part-00000.parquet").exists()
