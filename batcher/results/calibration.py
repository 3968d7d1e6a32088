"""How an endpoint counts prompts, beside the rule of thumb that estimates go by."""

from __future__ import annotations

from pathlib import Path

from batcher.estimate import count_tokens, text_of
from batcher.results.asked import Questions
from batcher.results.folder import Results

#: rows that are counted; more would hardly change what comes out
_ROWS = 200


def counted_by_rule(path: Path) -> float | None:
    """Return how many tokens the endpoint counted for each one that the rule counts; None where nothing tells.

    Of completed rows that were asked once, some of those in the folder.

    Raises:
        BatcherError: the folder cannot be read.
    """
    rule = endpoint = 0.0
    rows = 0
    with Results.open(path) as results:
        questions = Questions(results)
        attempts, tokens = results.column("attempts"), results.column("prompt_tokens")
        for batch in results.batches(status="completed"):
            some = batch.slice(0, _ROWS - rows)
            rows += some.num_rows
            asked = zip(some[attempts].to_pylist(), some[tokens].to_pylist(), questions.of(some), strict=True)
            for times, counted, question in asked:
                if times == 1 and counted and question.messages:
                    endpoint += counted
                    rule += count_tokens(text_of({"messages": question.messages}))
            if rows >= _ROWS:
                break
    return endpoint / rule if rule else None
