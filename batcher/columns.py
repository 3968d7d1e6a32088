"""What each column says that batcher adds to a row; Markdown, as `batcher help columns` shows it.

Their types and their order are those of `part.RESULT`; a test holds the two together. Knows no Parquet.
"""

from __future__ import annotations

from typing import Final

ABOUT: Final[dict[str, str]] = {
    "row_index": "Number of the row in the whole input, from 0.",
    "status": "`completed`, or `failed`: then `error` says why. No other word.",
    "completion": "The answer's text; null if there is none, as with a tool call. A failed row keeps an answer"
    " that was paid for but could not be used.",
    "reasoning": "What the model thought before it answered, where the API returns it.",
    "finish_reason": "Why the answer ends: `stop`; `length` if `max_tokens` cut it off (a completed row; `--truncated`"
    " asks it again); `content_filter`; `tool_calls`; or the provider's own word.",
    "prompt_tokens": "Tokens of the row's requests, as the endpoint counted them; of all answers, where one could"
    " not be used and the row was asked again. Null: it did not say.",
    "completion_tokens": "Tokens of its answers, reasoning included.",
    "total_tokens": "Both together.",
    "prompt_tokens_details": "Which of the prompt's tokens came from a cache, or were audio or images; null where the"
    " endpoint does not say.",
    "completion_tokens_details": "Which of the answer's tokens were reasoning, audio or predictions.",
    "usage_raw": "The endpoint's whole usage object, as JSON.",
    "cost_usd": "What the row's answers cost, by the prices of the hour at which each was requested. Null: unknown,"
    " not free.",
    "response_id": "The endpoint's name of the answer.",
    "response_object": "The answer's kind, such as `chat.completion`.",
    "response_created": "When the endpoint says it made the answer.",
    "response_model": "The model that answered, which may be newer than the one asked for.",
    "system_fingerprint": "The provider's name of the configuration that answered.",
    "choices_raw": "JSON of what no other column holds: further choices, tool calls, log probabilities.",
    "error": "Why the row failed: the words and codes of the endpoint, or batcher's own. Null where it completed."
    " `batcher failures` groups by `code`.",
    "attempts": "How often the row was asked, in all runs.",
    "latency_s": "Seconds from sending the last request to the end of its answer.",
    "requested_at": "When that request was sent.",
    "job_version": "Which version of the job the row comes from: 1, unless a change was accepted (`--accept-changes`).",
}
