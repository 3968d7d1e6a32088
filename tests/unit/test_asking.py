"""What is asked of an endpoint before a run, and what its answers mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from batcher.catalogue import load_catalogue
from batcher.cli.asking import (
    MAX_TOKENS,
    MAX_TOKENS_OF_SCHEMA,
    Answers,
    Balance,
    balance_in,
    findings,
    models_in,
    tiny_requests,
)
from batcher.errors import AccountError, BatcherError, EndpointError, EndpointRefusedError
from batcher.job import Job
from batcher.records import Fault, FaultKind, Reply
from tests.fakes import body_of, make_job, refusal


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A job for some endpoint."""
    return make_job(tmp_path)


def json_reply(value: Any, status: int = 200) -> Reply:
    """An answer with a JSON body."""
    return Reply(status, {}, orjson.dumps(value))


def said(job: Job, answers: Answers) -> dict[str, str]:
    """What is found, by what it is about."""
    return {name: f"{verdict} {words}" for verdict, name, words in findings(job, answers)}


def wrong(job: Job, answers: Answers) -> BatcherError:
    """Why nothing can be asked there."""
    with pytest.raises(BatcherError) as caught:
        list(findings(job, answers))
    return caught.value


# -- the request -------------------------------------------------------------------------------------------------------


def requests_of(folder: Path, **changes: Any) -> list[dict[str, Any]]:
    """The tiny requests of a job."""
    job = make_job(folder, **changes)
    return [orjson.loads(body) for body in tiny_requests(job, load_catalogue().schema_of(job.model))]


def test_it_carries_the_parameters_of_the_job(tmp_path: Path) -> None:
    """An endpoint that does not take a parameter is to say so now; the answer is short, and there is one."""
    parameters = {
        "temperature": 0.3,
        "max_tokens": 900,
        "response_format": "json_object",
        "n": 5,
        "extra": {"user": "me"},
    }
    short, plain = requests_of(tmp_path, parameters=parameters, system_prompt="{{ text }}")
    (message,) = short["messages"]
    assert message["role"] == "user"
    assert "json" in message["content"].lower()
    assert short["max_tokens"] == MAX_TOKENS
    assert plain["max_tokens"] == 900
    for request in (short, plain):
        assert request["response_format"] == {"type": "json_object"}
        assert (request["temperature"], request["user"]) == (0.3, "me")
        assert "n" not in request


def test_it_has_the_form_of_the_job(tmp_path: Path) -> None:
    """Flat fields where the job sends flat fields, without the job's templates."""
    form = {"base_url": "http://localhost:9", "request_format": "form"}
    short, _ = requests_of(tmp_path, endpoint=form, parameters={"response_format": "text"})
    assert short.keys() == {"model", "prompt", "response_format", "max_tokens"}
    assert short["response_format"] == "text"


def test_the_bound_goes_by_the_name_that_the_job_uses(tmp_path: Path) -> None:
    """Newer models take `max_completion_tokens`; a job that asks for little is asked once."""
    short, _ = requests_of(tmp_path, parameters={"max_completion_tokens": 500})
    assert short["max_completion_tokens"] == MAX_TOKENS
    assert "max_tokens" not in short
    assert len(requests_of(tmp_path, parameters={"max_tokens": 4})) == 1


SCHEMA = {"properties": {"n": {"type": "integer"}}, "required": ["n"]}
STRUCTURED = {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}}


def test_a_schema_has_room_for_an_answer(tmp_path: Path) -> None:
    """The request asks for something that fits the job's schema, and lets it have more than a word."""
    short, _ = requests_of(tmp_path, parameters=STRUCTURED)
    assert short["response_format"] == STRUCTURED["response_format"]
    assert short["max_tokens"] == MAX_TOKENS_OF_SCHEMA


@pytest.mark.parametrize(
    ("content", "finish_reason", "words"),
    [
        ('{"n": 3}', "stop", "ok its answer matches the schema"),
        ('{"n": "secret"}', "stop", "warn its answer is JSON, but does not match the schema"),
        ("secret", "stop", "warn its answer is no JSON"),
        ('{"n": ', "length", "warn the answer to the tiny request is not finished"),
    ],
)
def test_it_is_said_whether_the_schema_is_heeded(tmp_path: Path, content: str, finish_reason: str, words: str) -> None:
    """An answer that does not match is a warning, since rows would be asked again; its words are not repeated."""
    job = make_job(tmp_path, parameters=STRUCTURED)
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": finish_reason}
    found = said(job, Answers(Reply(200, {}, body_of(choices=[choice]))))
    assert found["schema"].startswith(words)
    assert "secret" not in str(found)


# -- lists and balances ------------------------------------------------------------------------------------------------


def test_models_are_read_from_a_list_of_them() -> None:
    """The names of OpenAI's form of list; what cannot be printed is left out."""
    entries = [
        {"id": "a"},
        {"id": "b/c-7b", "object": "model"},
        {"id": "x\x1b[2J"},
        {"id": 7},
        {},
        "d",
        {"id": "e" * 200},
    ]
    assert models_in(json_reply({"object": "list", "data": entries})) == ("a", "b/c-7b")


@pytest.mark.parametrize(
    "reply",
    [
        json_reply({"data": [{"id": "a"}]}, 404),
        json_reply({"data": []}),
        json_reply({"data": "a"}),
        json_reply(["a"]),
        Reply(200, {}, b"<html>"),
        Reply(302, {"location": "/"}, b""),
        Fault(FaultKind.TIMEOUT, "slow"),
    ],
)
def test_what_is_no_list_of_models_says_nothing(reply: Reply | Fault) -> None:
    """Many endpoints have no such list; that is no finding."""
    assert models_in(reply) is None


def test_a_balance_is_read_in_every_currency() -> None:
    """DeepSeek's form: amounts as text, one per currency."""
    infos = [
        {"currency": "CNY", "total_balance": "110.00", "granted_balance": "10.00"},
        {"currency": "USD", "total_balance": 3.5},
        {"currency": "USD\x1b", "total_balance": "1"},
        {"currency": "USD", "total_balance": "much"},
        None,
    ]
    balance = balance_in(json_reply({"is_available": True, "balance_infos": infos}))
    assert balance == Balance(available=True, amounts=("CNY 110.00", "USD 3.5"))


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"is_available": True},
        {"is_available": True, "balance_infos": []},
        {"balance_infos": [{"currency": "USD"}]},
        7,
    ],
)
def test_what_is_no_balance_says_nothing(value: Any) -> None:
    """Another endpoint may have something else at this address."""
    assert balance_in(json_reply(value)) is None
    assert balance_in(None) is None


# -- what it means -----------------------------------------------------------------------------------------------------


def test_a_good_answer(job: Job) -> None:
    """The endpoint, the model under the name it is served as, whether it is listed, and the balance."""
    result = Reply(200, {}, body_of(model="some-model-2026"))
    assert said(job, Answers(result)) == {
        "endpoint": "ok http://localhost:9 answers; one request of 8 tokens",
        "model": "ok some-model, served as some-model-2026",
    }
    everything = said(job, Answers(result, ("other", "some-model"), Balance(True, ("USD 12.40",))))
    assert everything["model"] == "ok some-model, served as some-model-2026; it is in the list of models there"
    assert everything["balance"] == "ok USD 12.40"
    unlisted = said(job, Answers(Reply(200, {}, body_of()), tuple("abcdefghijk"), Balance(False, ("USD 0.00",))))
    assert "not in the list of models there (a, b, c, d, e, f, g, h and 3 more)" in unlisted["model"]
    assert unlisted["model"].startswith("ok")
    assert unlisted["balance"] == "warn USD 0.00, too little for requests"


def test_an_answer_that_is_cut_short_is_a_good_one(job: Job) -> None:
    """16 tokens are not enough for a model that thinks first, and need not be."""
    result = Reply(200, {}, body_of(choices=[{"message": {"content": ""}, "finish_reason": "length"}], usage=None))
    assert said(job, Answers(result))["endpoint"].endswith("one request of an unknown number of tokens")


def test_an_unknown_model_is_compared_with_those_there(job: Job) -> None:
    """Where the endpoint lists its models, a typo is named with what was probably meant."""
    error = wrong(job, Answers(refusal(404, "model_not_found"), ("some-modell", "another")))
    assert isinstance(error, EndpointRefusedError)
    assert "models there: some-modell, another; did you mean 'some-modell'?" in str(error)
    assert "models there" not in str(wrong(job, Answers(refusal(404, "model_not_found"))))


def test_an_empty_account_is_named_with_its_balance(job: Job) -> None:
    """Exit code 77, and how much is left."""
    error = wrong(job, Answers(refusal(402), None, Balance(False, ("CNY 0.00",))))
    assert isinstance(error, AccountError)
    assert str(error).endswith("the balance is CNY 0.00, too little for requests")
    assert isinstance(wrong(job, Answers(refusal(401))), AccountError)


@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        (FaultKind.CONNECT, "endpoint.base_url"),
        (FaultKind.TLS, "ca_file"),
        (FaultKind.TIMEOUT, "later"),
        (FaultKind.TRUNCATED, "later"),
    ],
)
def test_a_fault_comes_with_what_to_do(job: Job, kind: FaultKind, advice: str) -> None:
    """What went wrong, where, and what to look at."""
    error = wrong(job, Answers(Fault(kind, "it went wrong")))
    assert isinstance(error, EndpointError)
    assert str(error).startswith("http://localhost:9: it went wrong; ")
    assert advice in str(error)


def test_a_refusal_of_the_request_names_the_parameter(job: Job) -> None:
    """A 400 is about the job: exit code 78, with the provider's code and parameter but none of its sentences."""
    told = {"error": {"message": "a secret sentence", "code": "unsupported_value", "param": "temperature"}}
    error = wrong(job, Answers(json_reply(told, 400)))
    assert isinstance(error, EndpointRefusedError)
    assert "HTTP 400 (unsupported_value, param temperature)" in str(error)
    assert "secret sentence" not in str(error)
    odd = {"error": {"message": "no", "code": "x\x1b[2J", "param": "sk-0123456789abcdef"}}
    assert "HTTP 400 (param ***)" in str(wrong(job, Answers(json_reply(odd, 400))))


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_endpoint_is_not_the_job(job: Job, status: int) -> None:
    """A run would ask again, so that it is not said that something has to be changed."""
    error = wrong(job, Answers(refusal(status)))
    assert isinstance(error, EndpointError)
    assert f"HTTP {status} (no reason given); a run would wait and ask again" in str(error)


def test_words_of_the_endpoint_cannot_steer_a_terminal(job: Job) -> None:
    """The name under which a model is served is the provider's, and is shown only if it is a name."""
    assert "\x1b" not in said(job, Answers(Reply(200, {}, body_of(model="m\x1b[2J"))))["model"]
