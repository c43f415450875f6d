"""One side of ``clip_retrieval.py`` in its own process and environment: embeds a folder or tars of pictures.

    python clip_retrieval_worker.py theirs '{"input": ..., "output": ..., "model": "open_clip:ViT-B-32//x.pt", ...}'

Prints one JSON object: what the work took once the model was loaded and warm, and the process's CPU until then.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

Options = dict[str, Any]


def theirs(options: Options) -> Callable[[], object]:
    """Loads the model where `clip_inference` looks for a loaded one, and returns its main function on the pictures."""
    from unprompt.encoders.torchvision_fix import ensure_torchvision

    ensure_torchvision()
    from all_clip import load_clip  # type: ignore[import-not-found,unused-ignore]
    from clip_retrieval.clip_inference.main import main  # type: ignore[import-not-found,unused-ignore]

    model = {"clip_model": options["model"], "use_jit": False, "clip_cache_path": None}
    # Remembered by its arguments and by their order, which is clip_inference's own.
    load_clip(clip_model=options["model"], use_jit=False, warmup_batch_size=options["batch_size"], clip_cache_path=None)
    tars = options["format"] == "webdataset"
    return lambda: main(
        input_dataset=f"{options['input']}/{{0..{options['tars'] - 1}}}.tar" if tars else options["input"],
        output_folder=options["output"],
        input_format=options["format"],
        batch_size=options["batch_size"],
        num_prepro_workers=options["workers"],
        enable_text=tars,
        wds_image_key="webp",
        **model,
    )


def ours(options: Options) -> Callable[[], object]:
    """Loads and warms the encoder, and returns the build of a library."""
    from PIL import Image

    from unprompt import build_library, load_encoder, open_source
    from unprompt.builders.report import BuildReport

    encoder = load_encoder(options["model"])
    for _ in range(2):  # as clip-retrieval's loader does
        encoder.encode_images([Image.new("RGB", (224, 224), "red")] * options["batch_size"])
        encoder.encode_texts(["fake"] * options["batch_size"])

    def build() -> BuildReport:
        sources = [open_source(options["input"])]
        return build_library(
            sources, options["output"], encoder, batch_size=options["batch_size"], workers=options["workers"]
        )

    return build


def main() -> None:
    side, options = sys.argv[1], json.loads(sys.argv[2])
    with redirect_stdout(sys.stderr):
        started = time.perf_counter()
        run = {"ours": ours, "theirs": theirs}[side](options)
        loaded, cpu = time.perf_counter() - started, time.process_time()
        started = time.perf_counter()
        run()
        seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "load_seconds": loaded, "load_cpu": cpu}))


if __name__ == "__main__":
    main()
