"""Reads the positive prompt out of a ComfyUI node graph.

It is found as ComfyUI itself would use it: from the node that saves the picture back to the sampler, from the sampler's
positive conditioning back to the text. Notes, negative prompts and unconnected nodes are never met.
"""

from __future__ import annotations

from unprompt.pictures.comfyui.trace import Generation, read_generation

__all__ = ["Generation", "read_generation"]
