"""Mode "best": whatever is nearest the picture, by a search for the best chain of fragments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from unprompt.search.chains import choose_again
from unprompt.search.local_search import LocalOptions, search_locally
from unprompt.search.modes.classic import draft_classic
from unprompt.search.modes.common import ComposeInput, Piece, measure, prompts_of
from unprompt.search.modes.fast import draft_fast
from unprompt.search.modes.pools import open_terms, term_candidate
from unprompt.search.rounds import advance_together
from unprompt.search.terms import Terms
from unprompt.types import Candidate

TOGETHER = 16
"""Pictures that are searched for at a time: each needs a copy of the embeddings of its active terms."""

LEARNING = LocalOptions()
"""How a chain is searched for where all that is known of terms is learnt on the way."""

FORESEEING = replace(
    LEARNING,
    random=16,
    explored=12,
    explorations=1,
    together=16,
    moved=12,
    max_encoded=1300,
    active=1024,
    renewed=240,
    settled=300,
    unsettled=40,
    surveyed=400,
)
"""The same where a network predicts what terms do: it need not look around first, nor so widely, and comes further with
fewer prompts."""


def compose_best(task: ComposeInput) -> list[Candidate]:
    """The best by cosine of the subject, `classic`, `fast`, and the chain that a search from the subject finds.

    Where the ranker collapses near-duplicates, the chain says no words twice. Where it does not, the cosine alone
    counts: "colorful, ( colorful ), colorful]" is nearer to some pictures than "colorful".

    The search goes by draft embeddings where the encoder makes them. Which of the chains that seem best is best, and
    all scores, are the encoder's own.
    """
    candidates: list[Candidate] = []
    for i in range(0, len(task.queries), TOGETHER):
        part = replace(task, queries=task.queries[i : i + TOGETHER], subjects=task.subjects[i : i + TOGETHER])
        candidates += _compose(part)
    return candidates


def _compose(task: ComposeInput) -> list[Candidate]:
    starts = task.starts()
    terms = open_terms(task)
    repeat = task.ranker.options.collapse is None
    searches = [
        search_locally(query, start.text if start else "", each, task.budget.fits, _options(each, repeat))
        for query, start, each in zip(task.queries, starts, terms, strict=True)
    ]
    finalists = advance_together(searches, task.draft_texts or task.encode_texts)
    choices = [
        choose_again(query, start.text if start else "", each.texts, chains)
        for query, start, each, chains in zip(task.queries, starts, terms, finalists, strict=True)
    ]
    chains = advance_together(choices, task.encode_texts)
    found = [
        term_candidate(start, chain, chain.columns, each.scores[list(chain.columns)].tolist(), task.ranker.vocabulary)
        for start, chain, each in zip(starts, chains, terms, strict=True)
    ]
    return _better(task, found, [draft_classic(task, starts), draft_fast(task, starts)])


def _options(terms: Terms, repeat_words: bool) -> LocalOptions:
    return replace(FORESEEING if terms.extensions else LEARNING, repeat_words=repeat_words)


def _better(
    task: ComposeInput, found: Sequence[Candidate], drafts: Sequence[Sequence[Sequence[Piece]]]
) -> list[Candidate]:
    """What was found, or the best of each picture's other drafts where that is better."""
    prompts = [prompts_of(each) for each in drafts]  # one list a mode
    texts = list(dict.fromkeys(text for each in prompts for text in each if text))
    if not texts:
        return list(found)
    embeddings = task.encode_texts(texts).astype(np.float64)
    position = {text: i for i, text in enumerate(texts)}
    results = list(found)
    for q, query in enumerate(task.queries.astype(np.float64)):
        for mode, each in zip(drafts, prompts, strict=True):
            score = round(float(embeddings[position[each[q]]] @ query), 6) if each[q] else -np.inf
            if not results[q].parts or score > results[q].score:
                alone = replace(task, queries=task.queries[[q]], subjects=[None])
                results[q] = measure(alone, [mode[q]])[0]
    return results
