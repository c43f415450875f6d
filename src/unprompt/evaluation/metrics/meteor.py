"""METEOR (Banerjee and Lavie, 2005): version 1.5 through Java (Denkowski and Lavie, 2014), and NLTK's with WordNet.

The two differ in synonyms, paraphrases and weights, so the name of the scores says which of them it was.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from unprompt.evaluation.metrics.meteor_program import score_pairs
from unprompt.evaluation.metrics.scores import EvaluationError, Scores, check_pairs, each_once, mean_scores, require

JAVA, NLTK = "meteor-java", "meteor-nltk"
_NO_JAVA = "meteor-java needs Java on the PATH and pycocoevalcap: apt install default-jre, pip install pycocoevalcap"
_NO_NLTK = "meteor-nltk needs nltk and its WordNet data: install both, or use meteor-java"


def meteor(candidates: Sequence[str], references: Sequence[str]) -> Scores:
    """METEOR 1.5 where Java and its jar are there, else NLTK's; the name of the result says which.

    Args:
        candidates: N texts.
        references: N texts, one a candidate.

    Raises:
        EvaluationError: the lengths differ, or neither is installed.
    """
    if java_command() is not None:
        return meteor_java(candidates, references)
    if _wordnet_is_there():
        return meteor_nltk(candidates, references)
    raise EvaluationError("meteor needs Java and pycocoevalcap, or nltk and its WordNet data: install one of the two")


def meteor_java(candidates: Sequence[str], references: Sequence[str]) -> Scores:
    """METEOR 1.5 of each pair, 0 to 1, by its authors' program: exact, stem, synonym and paraphrase matches.

    The corpus value is the mean over pairs, so that it can be resampled; METEOR's own system value, from summed
    statistics, differs a little.

    Raises:
        EvaluationError: the lengths differ, Java or the jar is missing, or the program fails.
    """
    check_pairs(JAVA, candidates, references)
    command = java_command()
    if command is None:
        raise EvaluationError(_NO_JAVA)
    said, meant = ([" ".join(text.split()) for text in texts] for texts in (candidates, references))
    values = each_once(said, meant, lambda pairs: score_pairs(command, pairs))
    return mean_scores(JAVA, values, "0 to 1; METEOR 1.5, English, -norm, mean over items")


def meteor_nltk(candidates: Sequence[str], references: Sequence[str]) -> Scores:
    """NLTK's METEOR of each pair, 0 to 1: exact, stem and WordNet synonym matches over lower-case words.

    Raises:
        EvaluationError: the lengths differ, or nltk or its WordNet data are missing.
    """
    check_pairs(NLTK, candidates, references)
    if not _wordnet_is_there():
        raise EvaluationError(_NO_NLTK)
    score = require(NLTK, "nltk.translate.meteor_score", "nltk").single_meteor_score
    values = each_once(candidates, references, lambda pairs: [score(r.split(), c.split()) for c, r in pairs])
    return mean_scores(NLTK, values, "0 to 1; NLTK, WordNet synonyms, split at spaces, mean over items")


def java_command() -> list[str] | None:
    """How METEOR 1.5 is started, without its arguments; None when Java or the jar is missing."""
    java, package = shutil.which("java"), find_spec("pycocoevalcap")
    for folder in (package.submodule_search_locations or ()) if package else ():
        jar = Path(folder) / "meteor" / "meteor-1.5.jar"
        if java and jar.is_file():
            # The encoding would otherwise be the locale's.
            return [java, "-Xmx2G", "-Dfile.encoding=UTF-8", "-jar", str(jar)]
    return None


def _wordnet_is_there() -> bool:
    if find_spec("nltk") is None:
        return False
    corpora = require(NLTK, "nltk.corpus", "nltk")
    try:
        corpora.wordnet.ensure_loaded()
    except LookupError:
        return False
    return True
