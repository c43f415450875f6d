"""``unprompt embed-train``: a head that predicts sentence embeddings, for a library's encoder."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from unprompt.evaluation.embedding.features import PictureFeatures
    from unprompt.evaluation.embedding.train import Pairs, Recipe
    from unprompt.index.library import Library
    from unprompt.types import Encoder

BATCH = 64


@click.command("embed-train")
@click.option("--library", "root", required=True, type=click.Path(path_type=Path), metavar="DIR",
              help="The library whose pictures and prompts are learnt from.")  # fmt: skip
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FILE", help="The head to write.")
@click.option("--epochs", type=click.IntRange(1), default=24, show_default=True, metavar="N",
              help="Passes over the pictures.")  # fmt: skip
@click.option("--hidden", type=click.IntRange(1), default=448, show_default=True, metavar="N",
              help="Width of the hidden layer.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, metavar="N",
              help="Of weights, order and dropout.")  # fmt: skip
@click.option("--device", default="cpu", show_default=True, help="Where the encoder runs: cpu, cuda, cuda:1 ...")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def embed_train(root: Path, out: Path, epochs: int, hidden: int, seed: int, device: str, as_json: bool) -> None:
    """Train a head that predicts the sentence embedding of a picture's prompt, for `unprompt embed --head FILE`.

    Prompts are split by their words, 80 : 10 : 10. The head learns from the first part; how it is mixed with neighbours
    is chosen on the second; the third is left alone, to measure on. For the starter encoder pictures are looked at
    again and must be where they were; for others the library's embeddings are what is learnt from.
    """
    from unprompt.evaluation.embedding.train import Recipe
    from unprompt.index.library import Library
    from unprompt.search.engine import Engine

    library = Library.open(root)
    encoder = Engine(library, device=device).encoder
    report = _train(library, encoder, Recipe(seed=seed, hidden=hidden, epochs=epochs), out)
    click.echo(json.dumps(report) if as_json else describe(report, out))


def describe(report: dict[str, Any], out: Path) -> str:
    """The report for people."""
    mixing, dev = report["mixing"], report["dev"]
    cosines = ", ".join(f"{name} {value:.4f}" for name, value in dev.items())
    return (
        f"{out}: {report['pictures']['train']:,} pictures learnt from, {report['pictures']['dev']:,} to choose with\n"
        f"  mixing   {mixing['k']} neighbours, temperature {mixing['temperature']:g}, weight {mixing['weight']:g}\n"
        f"  cosine   {cosines}"
    )


def _train(library: Library, encoder: Encoder, recipe: Recipe, out: Path) -> dict[str, Any]:
    from unprompt.cli.progress import progress_bar
    from unprompt.encoders.training.data import split_of
    from unprompt.errors import EvaluationError
    from unprompt.evaluation.embedding.features import picture_features
    from unprompt.evaluation.embedding.train import Source, fit

    splits = [split_of(record.prompt) for record in library.records(range(len(library)))]
    rows = {name: [row for row, split in enumerate(splits) if split == name] for name in ("train", "dev")}
    if len(rows["train"]) < 2 or not rows["dev"]:
        raise EvaluationError(
            f"{library.path} has {len(rows['train'])} pictures to learn from and {len(rows['dev'])} to choose with: "
            "use a library of more prompts"
        )
    features = picture_features(encoder)
    read = _look_again if features.inputs else _stored
    with progress_bar("pictures", " pictures", sum(map(len, rows.values()))) as progress:
        seen, unseen = (read(library, encoder, features, rows[name], progress) for name in ("train", "dev"))
    source = Source(encoder.name, features.fingerprint, features.inputs)
    with progress_bar("training", " steps") as progress:
        return fit(seen, unseen, source, recipe, out, progress)


def _stored(
    library: Library,
    encoder: Encoder,
    features: PictureFeatures,
    rows: Sequence[int],
    progress: Callable[[int], object],
) -> Pairs:
    """Some rows as the library holds them."""
    import numpy as np

    from unprompt.evaluation.embedding.features import Looked
    from unprompt.evaluation.embedding.train import Pairs
    from unprompt.evaluation.metrics.sentence_cosine import embed_distinct
    from unprompt.index.shards import PICTURES

    found = np.concatenate(list(library.arrays(PICTURES, PICTURES.arrays[0])))[list(rows)]
    progress(len(rows))
    return Pairs(Looked(found, found), embed_distinct([record.prompt for record in library.records(rows)]))


def _look_again(
    library: Library,
    encoder: Encoder,
    features: PictureFeatures,
    rows: Sequence[int],
    progress: Callable[[int], object],
) -> Pairs:
    """The pictures of some rows, opened again; those that cannot be are left out with a warning."""
    import numpy as np

    from unprompt.captioners.data.library import parse_uri
    from unprompt.errors import EvaluationError
    from unprompt.evaluation.embedding.features import Looked
    from unprompt.evaluation.embedding.train import Pairs
    from unprompt.evaluation.metrics.sentence_cosine import embed_distinct
    from unprompt.pictures.opening import PictureError, open_picture, read_bytes

    parts, prompts = [], []
    for start in range(0, len(rows), BATCH):
        pixels = []
        for record in library.records(rows[start : start + BATCH]):
            try:
                picture = parse_uri(record.image or "")
                pixels.append(encoder.preprocess(open_picture(picture, read_bytes(picture))))
                prompts.append(record.prompt)
            except PictureError as error:
                click.echo(f"warning: {error}", err=True)
            progress(1)
        if pixels:
            parts.append(features(pixels))
    if not parts:
        raise EvaluationError(f"none of the pictures of {library.path} can be opened: put them where they were")
    looked = Looked(np.concatenate([p.embeddings for p in parts]), np.concatenate([p.features for p in parts]))
    return Pairs(looked, embed_distinct(prompts))
