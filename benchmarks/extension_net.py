"""Makes the packaged `ExtensionNet`: what it learns from, both rounds of training, and its figures.

    python benchmarks/extension_net.py --data DIR --vocabulary DIR --cache DIR --out extension_net.safetensors

The pictures are of the training split, the terms those of clip-interrogator's merged table (`interrogator.py` makes
both of its files). The prompts are those that a search meets. A first network learns from terms of which half are drawn
from the most promising by the mean weighted by length; the second also from terms that the first finds promising, on
prompts that are longer by such terms: a search asks about these. Every fourth picture is held out for the figures.

Each step is kept in the cache folder, and a run that was stopped goes on there. Steps take most of their time picture
by picture: runs with ``--share 0/3``, ``1/3`` and ``2/3`` side by side do all of ``--step`` together.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

import click
import numpy as np
from numpy.typing import NDArray

from extension_net_data import Mean, Prompts, Recipe, choose_pictures, search_prompts
from extension_net_measures import measure
from unprompt.index.files import write_durably
from unprompt.search.extension_net import ExtensionNet, load_net
from unprompt.search.train_extension_net import Examples, TrainOptions, save_net, train, untrained

EXISTING = click.Path(exists=True, path_type=Path)
STEPS = ("searches", "one", "first", "two", "final", "figures", "whole")
PROMPTS = 10
"""Prompts of a picture in each round."""
HELD_OUT = 4
"""Every how manieth picture is held out."""
FIRST = TrainOptions(hidden=256, epochs=6)
FINAL = TrainOptions(hidden=384, epochs=10)


@click.command()
@click.option("--data", type=EXISTING, required=True, help="Folder that holds the four sets.")
@click.option("--vocabulary", type=EXISTING, required=True, help="Folder with interrogator.py's lists and table.")
@click.option("--cache", type=click.Path(path_type=Path), required=True, help="Folder for what is made on the way.")
@click.option("--pictures", default=240, show_default=True, help="How many to learn from.")
@click.option("--seed", default=0, show_default=True, help="Of all that is drawn.")
@click.option("--step", "steps", type=click.Choice(STEPS), multiple=True, help="Only this; may be repeated.")
@click.option("--share", default="0/1", show_default=True, help="Which of how many shares of the pictures to do.")
@click.option("--out", type=click.Path(path_type=Path), help="Weights to write (safetensors).")
def main(
    data: Path,
    vocabulary: Path,
    cache: Path,
    pictures: int,
    seed: int,
    steps: Sequence[str],
    share: str,
    out: Path | None,
) -> None:
    """Make the data, train both networks, print their figures, and write the weights that are trained on all."""
    cache.mkdir(parents=True, exist_ok=True)
    features, starts = choose_pictures(data, cache, pictures, seed)
    run = Run(Recipe(vocabulary, seed), cache, features, starts, tuple(int(each) for each in share.split("/")))
    makers: dict[str, Callable[[], None]] = {
        "searches": run.search,
        "one": lambda: run.extend("one", None),
        "first": lambda: run.train("first", ("one",), FIRST),
        "two": lambda: run.extend("two", load_net(run.path("first"))),
        "final": lambda: run.train("final", ("one", "two"), FINAL),
        "figures": run.figures,
        "whole": lambda: run.train("whole", ("one", "two"), FINAL, held_out=0),
    }
    for name in STEPS:
        if not steps or name in steps:
            makers[name]()
    if out:
        out.write_bytes(run.path("whole").read_bytes())


class Run:
    """The steps, on the pictures of a share."""

    def __init__(
        self, recipe: Recipe, cache: Path, features: NDArray[np.float32], starts: Sequence[str], share: Sequence[int]
    ) -> None:
        self._recipe, self._cache = recipe, cache
        self._features, self._starts = features, starts
        self._share = share

    def path(self, name: str) -> Path:
        return self._cache / f"{name}.safetensors"

    def search(self) -> None:
        """Keeps the prompts that searches encoded, with their cosines."""
        for picture, path in self._missing("searches", ".json"):
            prompts = search_prompts(self._recipe, self._features[picture], self._starts[picture], picture)
            write_durably(path, partial(_write_json, prompts._asdict()))

    def extend(self, name: str, net: ExtensionNet | None) -> None:
        """Keeps prompts with terms appended: of a later round where a network is given."""
        recipe, number = self._recipe, STEPS.index(name)
        judge = recipe.judge(net) if net else Mean(recipe)
        for picture, path in self._missing(name, ".npz"):
            rng = np.random.default_rng([recipe.seed, number, picture])
            query, parts = self._features[picture], []
            for prompt in self._prompts(picture).sample(PROMPTS, rng, recipe.allowed, recipe.texts):
                longer = recipe.longer(prompt, query, judge, rng) if net else prompt
                parts.append(recipe.extend(longer, query, judge, rng))
            found = Examples.joined(parts)
            arrays = {field.name: getattr(found, field.name) for field in fields(found)}
            write_durably(path, partial(np.savez, **arrays))

    def train(self, name: str, rounds: Sequence[str], options: TrainOptions, held_out: int = HELD_OUT) -> None:
        """Keeps a network that has learnt from some rounds, of the pictures that are not held out."""
        if self.path(name).exists():
            return
        learnt = [i for i in range(len(self._features)) if not held_out or i % held_out]
        examples = Examples.joined([self._kept(each, picture) for each in rounds for picture in learnt])
        click.echo(f"{name}: {len(examples.terms)} examples of {len(examples.prompts)} prompts")

        def report(epoch: int, loss: float, _: ExtensionNet) -> None:
            click.echo(f"  epoch {epoch}: loss {loss:.5f}")

        seed = self._recipe.seed
        net = train(self._recipe.table, examples, replace(options, seed=seed), report)
        save_net(net, self.path(name), seed)

    def figures(self) -> None:
        """Prints how well each network predicts on held-out pictures."""
        recipe = self._recipe
        nets = {"weighted mean": untrained(recipe.table, FIRST).eval().requires_grad_(False)}
        nets |= {name: load_net(self.path(name)) for name in ("first", "final")}
        prompts: dict[int, str] = {}
        for picture in range(0, len(self._features), HELD_OUT):
            rng = np.random.default_rng([recipe.seed, len(STEPS), picture])
            prompts[picture] = self._prompts(picture).sample(1, rng, recipe.allowed, recipe.texts)[0]
        for name, figures in measure(recipe, nets, prompts, self._features).items():
            click.echo(f"{name:14s} " + "  ".join(f"{key} {value:.4f}" for key, value in figures.items()))

    def _prompts(self, picture: int) -> Prompts:
        path = self._cache / "searches" / f"{picture}.json"
        if not path.exists():
            raise click.ClickException(f"{path} is not there yet: run all shares of --step searches first")
        return Prompts(**json.loads(path.read_text(encoding="utf-8")))

    def _kept(self, name: str, picture: int) -> Examples:
        path = self._cache / name / f"{picture}.npz"
        if not path.exists():
            raise click.ClickException(f"{path} is not there yet: run all shares of --step {name} first")
        return Examples(**np.load(path, allow_pickle=False))

    def _missing(self, name: str, suffix: str) -> list[tuple[int, Path]]:
        """This share's pictures that a step has still to do, the held-out ones last."""
        folder = self._cache / name
        folder.mkdir(exist_ok=True)
        place, shares = self._share
        order = sorted(range(len(self._features)), key=lambda i: (i % HELD_OUT == 0, i))[place::shares]
        paths = [(picture, folder / f"{picture}{suffix}") for picture in order]
        return [(picture, path) for picture, path in paths if not path.exists()]


def _write_json(content: object, file: BinaryIO) -> None:
    file.write(json.dumps(content).encode())


if __name__ == "__main__":
    main()
