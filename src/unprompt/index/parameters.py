"""Search parameters: from strings such as "nprobe=16,k_factor_rf=4" to what FAISS takes with each call.

They travel with the call and never into the index, so one index can be searched by many threads at once, each with
parameters of its own.
"""

from __future__ import annotations

from typing import Any

from unprompt.errors import LibraryError
from unprompt.index.engine import load_faiss

NPROBE, EF_SEARCH, REFINE = "nprobe", "efSearch", "k_factor_rf"
"""Lists that are visited, width of a graph's search, and how many times k a refining index scores again."""


def parse_parameters(text: str) -> dict[str, float]:
    """The values of a parameter string, by name.

    Raises:
        LibraryError: it is not NAME=NUMBER,NAME=NUMBER.
    """
    try:
        pairs = [part.split("=") for part in text.split(",") if part]
        return {name.strip(): float(value) for name, value in pairs}
    except ValueError:
        raise LibraryError(
            f"search parameters {text!r} cannot be read: use the like of nprobe=16,k_factor_rf=4"
        ) from None


def format_parameters(values: dict[str, float]) -> str:
    """The reverse of `parse_parameters`."""
    return ",".join(f"{name}={value:g}" for name, value in values.items())


def knobs(index: Any) -> dict[str, int]:
    """Which parameters an index has, and the largest value of each that makes a difference."""
    faiss = load_faiss()
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexRefine):
        return {**knobs(index.base_index), REFINE: 64}
    if isinstance(index, faiss.IndexPreTransform):
        return knobs(index.index)
    if isinstance(index, faiss.IndexIVF):
        return {NPROBE: int(index.nlist)}
    if isinstance(index, faiss.IndexHNSW):
        return {EF_SEARCH: max(1, int(index.ntotal))}
    return {}


def search_parameters(index: Any, text: str) -> Any:
    """FAISS's parameter object for one index; None when the string is empty and FAISS's defaults hold.

    Raises:
        LibraryError: the index has no such parameter, or the value is below 1.
    """
    values = parse_parameters(text)
    if not values:
        return None
    known = knobs(index)
    for name, value in values.items():
        if name not in known:
            listed = ", ".join(known) or "none"
            raise LibraryError(f"the index has no search parameter {name!r}; it has: {listed}")
        if value < 1:
            raise LibraryError(f"search parameter {name} is {value:g}, use 1 or more")
    return _parameters(load_faiss(), index, values)


def _parameters(faiss: Any, index: Any, values: dict[str, float]) -> Any:
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexRefine):
        base = _parameters(faiss, index.base_index, values)
        return faiss.IndexRefineSearchParameters(k_factor=values.get(REFINE, 1.0), base_index_params=base)
    if isinstance(index, faiss.IndexPreTransform):
        return faiss.SearchParametersPreTransform(index_params=_parameters(faiss, index.index, values))
    if isinstance(index, faiss.IndexIVF):
        nprobe = int(values.get(NPROBE, index.nprobe))
        if hasattr(index, "qb"):  # RaBitQ's parameters reset how queries are quantised unless they repeat it
            return faiss.IVFRaBitQSearchParameters(
                nprobe=nprobe, qb=index.qb, centered=getattr(index, "centered", False)
            )
        kind = faiss.IVFPQSearchParameters if isinstance(index, faiss.IndexIVFPQ) else faiss.SearchParametersIVF
        return kind(nprobe=nprobe)
    if isinstance(index, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(efSearch=int(values.get(EF_SEARCH, index.hnsw.efSearch)))
    return None
