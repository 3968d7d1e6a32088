"""The job that a command line asks for: options in place of a job file."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import orjson
import pytest

from batcher.cli.wanted import UsageError, Wanted
from batcher.errors import InputError, JobError
from batcher.job import Job
from batcher.prompt import Builder
from tests.fakes import builder_of

KEY = "sk-" + "k3y" * 10


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a batch file in it whose lines name a model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["batcher"])
    body = {"model": "theirs", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    (tmp_path / "batch.jsonl").write_bytes(orjson.dumps(line) + b"\n")
    return tmp_path


def wanted(*overrides: str, **options: Any) -> Wanted:
    """What was asked for with the options that make a job, changed and extended; None leaves one out."""
    given = {"input": ["batch.jsonl"], "output": "out", "base_url": "https://api.example.com/v1", **options}
    return Wanted(None, overrides, {f"--{name.replace('_', '-')}": v for name, v in given.items() if v is not None})


def asked_model(job: Job) -> Any:
    """The model in the request of the batch file's row."""
    builder: Builder = builder_of(job)
    (line,) = Path(job.input.path[0]).read_bytes().splitlines()
    return orjson.loads(builder.build(orjson.loads(line)).body)["model"]


def problems(*overrides: str, **options: Any) -> tuple[str, ...]:
    """What is wrong with these options."""
    with pytest.raises(JobError) as caught:
        wanted(*overrides, **options).load()
    return caught.value.problems


def test_options_are_the_keys_of_a_job_file(here: Path) -> None:
    """Each option sets its key, `--set` any other; paths belong to the current folder; the rest has its defaults."""
    job = wanted(
        "limits.max_attempts=2",
        model="m",
        api_key_env="K",
        prompt="{{ a }} ${A} $$",
        system_prompt="Be kind.",
        concurrency=7,
    ).load()
    assert (job.input.path, job.output.path) == ((str(here / "batch.jsonl"),), here / "out")
    assert (job.model, job.endpoint.base_url, job.endpoint.api_key_env) == ("m", "https://api.example.com/v1", "K")
    assert (job.prompt, job.system_prompt) == ("{{ a }} ${A} $$", "Be kind.")
    assert (job.limits.concurrency, job.limits.max_attempts, job.output.rows_per_part) == (7, 2, 10000)
    assert job.path is None


def test_the_model_that_is_named_is_asked() -> None:
    """`--model` counts for every row; without it each line of an OpenAI Batch file asks the model that it names."""
    assert asked_model(wanted(model="ours").load()) == "ours"
    job = wanted().load()
    assert (job.model, asked_model(job)) == ("theirs", "theirs")
    assert wanted("model=set").load().model == "set"


def test_rows_without_a_model_need_the_option(here: Path) -> None:
    """Where the first row is no batch line, a missing model is asked for by the option's name."""
    (here / "batch.jsonl").write_text('{"text": "hi"}\n')
    with pytest.raises(InputError, match="--model"):
        wanted(prompt="{{ text }}").load()


def test_what_is_wrong_names_the_option() -> None:
    """All mistakes at once, each with its option and nothing of a file and a line."""
    found = problems(
        "limits.concurency=3", model="m", concurrency=0, base_url="ftp://x", api_key_env="a b", input=["s3://b/x"]
    )
    assert sorted(found) == [
        "--api-key-env: must be the name of an environment variable, not the key",
        "--base-url: must be an http or https URL or the word 'simulator'",
        "--concurrency: must be at least 1",
        "--input: must be a path on this machine, not a URL",
        "--set limits.concurency=3: unknown key; did you mean 'concurrency'?",
    ]


def test_a_key_in_place_of_its_name_is_not_repeated() -> None:
    """Who gives the key itself is told so, without it."""
    (said,) = problems(model="m", api_key_env=KEY)
    assert said == "--api-key-env: must be the name of an environment variable, not the key"


def test_values_are_taken_as_they_stand(here: Path) -> None:
    """The shell has filled in what it was to fill in: a dollar sign in a name is one."""
    job = wanted(output="a$$b/${HOME}", model="m$$").load()
    assert (job.output.path, job.model) == (here / "a$$b/${HOME}", "m$$")


@pytest.mark.parametrize(
    ("file", "options", "said"),
    [
        ("job.yaml", {"--model": "m"}, r"job.yaml.*--model exclude each other; --set model="),
        ("b.jsonl", {"--input": ["a.jsonl"]}, r"exclude each other; .*--input A --input B"),
        (None, {}, r"name a job file, or give --input, --output, --base-url and --model"),
        (None, {"--input": ["a"], "--base-url": "u"}, r"--output must be given"),
    ],
)
def test_a_job_is_asked_for_once(file: str | None, options: dict[str, Any], said: str) -> None:
    """A job file and options exclude each other, and neither is no job either; both are said in words."""
    with pytest.raises(UsageError, match=said):
        Wanted(file and Path(file), (), options).check_usage()


def test_the_command_is_repeated_as_it_was_given() -> None:
    """A hint has every option, quoted for a shell; of texts for the model only that there were some."""
    asked = wanted(
        "output.prefix=x y", "prompt=secret", input=["a b.jsonl", "-c.jsonl"], output="it's", model="m", concurrency=3
    )
    words = shlex.split(asked.command("run", "--limit", "5"))
    assert words == [
        *("batcher", "run", "--input", "a b.jsonl", "--input", "./-c.jsonl", "--output", "it's"),
        *("--base-url", "https://api.example.com/v1", "--model", "m", "--concurrency", "3", "--limit", "5"),
        *("--set", "output.prefix=x y", "--set", "prompt=..."),
    ]
    assert "kind" not in wanted(system_prompt="Be kind.", prompt="kind").command("run")


def test_where_no_key_was_sent_the_usual_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused account without a key: the provider's own variable, or one that is set; nothing where one was named."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("DEEPSEEK_API_KEY", raising=False)

    def hint(**options: Any) -> str | None:
        asked = wanted(**{"model": "deepseek-v4-flash", **options})
        return asked.key_hint(asked.load())

    assert hint() == "no key was sent; to send one: --api-key-env OPENAI_API_KEY"
    assert hint(base_url="https://api.deepseek.com") == "no key was sent; to send one: --api-key-env DEEPSEEK_API_KEY"
    assert hint(api_key_env="K") is None
