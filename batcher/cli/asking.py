"""What an endpoint says when it is asked: one tiny request, and where there is such a thing, its models and a balance.

The request carries the job's own parameters, so that an endpoint that does not take them says so now. What an endpoint
says in free words is not repeated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import anyio
import orjson

from batcher.catalogue import FormSchema
from batcher.client import Destination, open_client
from batcher.client.fetch import fetch
from batcher.config.document import did_you_mean, mask
from batcher.engines.local import destination, endpoint_of
from batcher.errors import AccountError, BatcherError, EndpointError, EndpointRefusedError
from batcher.job import Job
from batcher.prompt import Builder
from batcher.records import Completion, Fault, FaultKind, Reply
from batcher.retry import Action, Verdict, judge
from batcher.structured import Answers as Wanted

#: the word that JSON mode wants is in it
QUESTION: Final = "Answer with the word ok, or if you are to answer in JSON, with {}."
MAX_TOKENS: Final = 16
#: the same where the answer is to match a schema
QUESTION_OF_SCHEMA: Final = "This is a test of the form of your JSON answer. Make up any short values that fit."
MAX_TOKENS_OF_SCHEMA: Final = 300
#: a person waits
PATIENCE_S: Final = 120.0

_MODELS_NAMED: Final = 8
_NAME: Final = re.compile(r"[!-~]{1,100}")
_AMOUNT: Final = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,10})?")
_CURRENCY: Final = re.compile(r"[A-Z]{3,5}")
_ADVICE: Final = {
    FaultKind.CONNECT: "is endpoint.base_url right, and does that server run?",
    FaultKind.TLS: "is it https, and does endpoint.ca_file name its certificates if they are your own?",
    FaultKind.TIMEOUT: "try again later, or look at that server",
    FaultKind.PROTOCOL: "is endpoint.base_url right?",
}

#: a line of a check: ok or warn, what it is about, what was found
Finding = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Balance:
    """What an account has left."""

    available: bool
    #: such as `USD 12.40`
    amounts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answers:
    """What came back; None for what the endpoint does not offer."""

    result: Reply | Fault
    models: tuple[str, ...] | None = None
    balance: Balance | None = None


def ask_endpoint(job: Job, schema: FormSchema) -> Answers:
    """Ask the job's endpoint, or a simulator of our own.

    Raises:
        JobError: the URL, a header, the key, the proxy or the CA file is not usable.
    """
    with endpoint_of(job) as base_url:
        return anyio.run(_ask, job, schema, base_url)


async def _ask(job: Job, schema: FormSchema, base_url: str) -> Answers:
    where = destination(job, base_url)
    result = await _ask_tiny(where, tiny_requests(job, schema))
    if isinstance(result, Fault) or result.status in (401, 403, 407) or job.endpoint.base_url == "simulator":
        return Answers(result)
    found: dict[str, Reply | Fault] = {}

    async def look_up(path: str) -> None:
        found[path] = await fetch(where, base_url + path)

    async with anyio.create_task_group() as lookups:
        lookups.start_soon(look_up, "/models")
        if where.key is not None:
            lookups.start_soon(look_up, "/user/balance")
    return Answers(result, models_in(found["/models"]), balance_in(found.get("/user/balance")))


async def _ask_tiny(where: Destination, requests: list[bytes]) -> Reply | Fault:
    """Send the first request that is not refused for its form; only that one is paid for."""
    patient = replace(where, first_byte_s=min(where.first_byte_s, PATIENCE_S), total_s=min(where.total_s, PATIENCE_S))
    client = open_client(patient, 1)
    try:
        for body in requests:
            result = await client.send(body)
            if isinstance(result, Fault) or result.status not in (400, 422):
                break
        return result
    finally:
        await client.close()


def tiny_requests(job: Job, schema: FormSchema) -> list[bytes]:
    """Return a request with the job's parameters and a short answer; then, since some models want no such bound, as it
    would be without one."""
    plain = job.model_copy(update={"prompt": None, "system_prompt": None})
    builder = Builder(plain, schema)
    question, most = (QUESTION_OF_SCHEMA, MAX_TOKENS_OF_SCHEMA) if builder.answers else (QUESTION, MAX_TOKENS)
    request: dict[str, Any] = orjson.loads(builder.build({"prompt": question}).body)
    request.pop("n", None)
    bound = "max_completion_tokens" if "max_completion_tokens" in request else "max_tokens"
    allowed = request.get(bound)
    short = {**request, bound: min(allowed, most) if isinstance(allowed, int) else most}
    return [orjson.dumps(body) for body in ((short,) if short == request else (short, request))]


# -- what the answers mean ---------------------------------------------------------------------------------------------


def findings(job: Job, answers: Answers) -> Iterator[Finding]:
    """Yield what was found, a line each.

    Raises:
        BatcherError: the endpoint would not answer the rows of this job; says what to do.
    """
    completion = _completion(job, answers)
    tokens = completion.usage.total_tokens
    yield "ok", "endpoint", f"{job.endpoint.base_url} answers; one request of {tokens or 'an unknown number of'} tokens"
    served = completion.model
    named = f", served as {_shown(served)}" if served and served != job.model else ""
    yield "ok", "model", f"{job.model}{named}{_listed(job.model, answers.models)}"
    if (wanted := Wanted.of(job.parameters, 0)) is not None:
        yield _schema_finding(wanted, completion)
    if answers.balance is not None:
        yield "ok" if answers.balance.available else "warn", "balance", _balance(answers.balance)


def _schema_finding(wanted: Wanted, completion: Completion) -> Finding:
    checked = wanted.check(completion)
    if checked.valid:
        return "ok", "schema", "its answer matches the schema"
    if completion.finish_reason != "stop":
        return "warn", "schema", "the answer to the tiny request is not finished, so nothing is known about the schema"
    kind = "JSON, but does not match the schema" if checked.text is not None else "no JSON"
    return "warn", "schema", f"its answer is {kind}; rows like that are asked again (output.repair_attempts)"


def _completion(job: Job, answers: Answers) -> Completion:
    result = answers.result
    verdict = judge(result, json_mode=False, now_s=0.0)
    if verdict.completion is not None:
        return verdict.completion
    if isinstance(result, Fault):
        advice = _ADVICE.get(result.kind, "try again later")
        raise EndpointError(f"{job.endpoint.base_url}: {result.message}; {advice}")
    if verdict.action is Action.STOP:
        raise _stopped(job, verdict, answers)
    said = f"{job.endpoint.base_url} answers HTTP {result.status} ({_reason(verdict)})"
    if verdict.action is Action.FAIL:
        raise EndpointRefusedError(f"{said} to a tiny request with this job's model and parameters; look at both")
    raise EndpointError(f"{said}; a run would wait and ask again")


def _stopped(job: Job, verdict: Verdict, answers: Answers) -> BatcherError:
    error = verdict.as_error()
    if isinstance(error, AccountError) and answers.balance is not None:
        return AccountError(f"{error}; the balance is {_balance(answers.balance)}")
    if isinstance(error, EndpointRefusedError) and answers.models and job.model not in answers.models:
        return EndpointRefusedError(f"{error}; {_offered(job.model, answers.models)}")
    return error


def _reason(verdict: Verdict) -> str:
    """The provider's code and the parameter it means, if they are words and not sentences."""
    error = verdict.error
    code = error.code if error and error.code and not error.code.startswith("http_") else None
    param = error.param if error else None
    named = [f"{what}{mask(name)}" for what, name in (("", code), ("param ", param)) if name and _NAME.fullmatch(name)]
    return ", ".join(named) or "no reason given"


def _shown(name: str) -> str:
    """A name of the provider's as it may be printed."""
    return mask(name) if _NAME.fullmatch(name) else "(unprintable)"


def _listed(model: str, models: tuple[str, ...] | None) -> str:
    if models is None:
        return ""
    if model in models:
        return "; it is in the list of models there"
    return f"; it is not in the list of models there ({_some(models)}), and yet is answered"


def _offered(model: str, models: tuple[str, ...]) -> str:
    return f"models there: {_some(models)}{did_you_mean(model, models)}"


def _some(models: tuple[str, ...]) -> str:
    more = f" and {len(models) - _MODELS_NAMED} more" if len(models) > _MODELS_NAMED else ""
    return ", ".join(models[:_MODELS_NAMED]) + more


def _balance(balance: Balance) -> str:
    return ", ".join(balance.amounts) if balance.available else f"{', '.join(balance.amounts)}, too little for requests"


# -- reading what came back --------------------------------------------------------------------------------------------


def models_in(reply: Reply | Fault) -> tuple[str, ...] | None:
    """Return the names in a list of models, None if it is none."""
    value = _json_object(reply)
    entries = value.get("data") if value else None
    if not isinstance(entries, list):
        return None
    names = (entry.get("id") for entry in entries if isinstance(entry, dict))
    return tuple(mask(name) for name in names if isinstance(name, str) and _NAME.fullmatch(name)) or None


def balance_in(reply: Reply | Fault | None) -> Balance | None:
    """Return the balance in an answer of DeepSeek's form, None if it is none."""
    value = _json_object(reply)
    entries = value.get("balance_infos") if value else None
    if value is None or not isinstance(entries, list) or not isinstance(value.get("is_available"), bool):
        return None
    amounts = [amount for entry in entries if isinstance(entry, dict) and (amount := _amount(entry))]
    return Balance(value["is_available"], tuple(amounts)) if amounts else None


def _amount(entry: dict[str, Any]) -> str | None:
    currency, total = entry.get("currency"), str(entry.get("total_balance"))
    whole = isinstance(currency, str) and _CURRENCY.fullmatch(currency) and _AMOUNT.fullmatch(total)
    return f"{currency} {total}" if whole else None


def _json_object(reply: Reply | Fault | None) -> dict[str, Any] | None:
    if not isinstance(reply, Reply) or reply.status != 200:
        return None
    try:
        value = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None
