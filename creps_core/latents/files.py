"""Files of latents and directions: safetensors, whose header describes them and names their generator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...common.errors import LatentsError, printable
from ...common.files import Path_
from ..checkpoints import (
    HEADER_KEY,
    SEAL,
    check_finite,
    digest,
    fingerprint,
    open_tensors,
    read_header,
    write_tensors,
)
from ..network import Generator
from .directions import Directions
from .sampling import Latents, Origin

LATENTS_FORMAT_VERSION = 1
LATENTS_KEY, DIRECTIONS_KEY = "creps_latents", "creps_directions"
IF_DIFFERENT = ("refuse", "adapt")
"""What to do with latents or directions of another generator."""
_HEADER_LIMIT = 1 << 24
_MAX_NUMBER = 1 << 64  # seeds are below it
_MAX_STYLES = 64  # more than any generator has
_OLD_FIELDS = ("version", "name", "fingerprint")  # of files without a seal
_OLD_FIELDS += ("seeds", "labels", "grid", "num_ws", "w_dim", "layers", "method")
_KINDS = {LATENTS_KEY: "latents", DIRECTIONS_KEY: "directions"}


def save_latents(latents: Latents, path: Path_) -> None:
    """Write latents atomically: ws (and z, psi and c if present), name and fingerprint of the generator, seeds."""
    tensors = {"ws": latents.ws}
    if latents.origin is not None:
        tensors |= {"z": latents.origin.z, "psi": latents.origin.psi}
        if latents.origin.c is not None:
            tensors["c"] = latents.origin.c
    num_ws, w_dim = latents.ws.shape[1:]
    fields = {"seeds": latents.seeds, "labels": latents.labels, "grid": latents.grid, "num_ws": num_ws, "w_dim": w_dim}
    _save(path, LATENTS_KEY, latents, tensors, fields)


def load_latents(path: Path_, generator: Generator | None = None, if_different: str = "refuse") -> Latents:
    """Read latents.

    Args:
        path: a file written by `save_latents`.
        generator: the generator to use them with; None reads them unchanged.
        if_different: what to do if they were made with another generator. `refuse` raises. `adapt` takes them
            unchanged if the shapes are equal (in a fine-tuned generator they mean nearly the same); if only the number
            of styles differs, it drops the last styles or repeats the last one.

    Raises:
        LatentsError: the file cannot be used, or not with this generator; says why and what to do.
        ValueError: unknown `if_different`.
    """
    if if_different not in IF_DIFFERENT:
        raise ValueError(f"if_different must be one of {list(IF_DIFFERENT)}, not {if_different!r}")
    tensors, header = _load(path, LATENTS_KEY, ("ws",))
    ws = tensors["ws"]
    if ws.ndim != 3 or 0 in ws.shape:
        raise LatentsError.about(path, f"its latents have the shape {list(ws.shape)} instead of [N, num_ws, w_dim]")
    count = len(ws)
    latents = Latents(
        ws,
        seeds=_list(header, "seeds", int, count),
        fingerprint=header["fingerprint"],
        name=header["name"],
        origin=_origin(tensors, ws),
        labels=_list(header, "labels", str, count),
        grid=_grid(header, count),
    )
    return latents if generator is None else _fitted(latents, generator, if_different, path)


def save_directions(directions: Directions, path: Path_) -> None:
    """Write directions atomically, with name and fingerprint of the generator."""
    tensors = {"vectors": directions.vectors, "steps": directions.steps}
    fields = {"layers": directions.layers, "method": directions.method, "titles": list(directions.titles)}
    _save(path, DIRECTIONS_KEY, directions, tensors, fields)


def load_directions(path: Path_, generator: Generator | None = None, if_different: str = "refuse") -> Directions:
    """Read directions. Arguments and errors as for `load_latents`; to adapt them, w_dim must be equal."""
    if if_different not in IF_DIFFERENT:
        raise ValueError(f"if_different must be one of {list(IF_DIFFERENT)}, not {if_different!r}")
    tensors, header = _load(path, DIRECTIONS_KEY, ("vectors", "steps"))
    vectors, steps = tensors["vectors"], tensors["steps"]
    layers = _list(header, "layers", int)
    if (
        vectors.ndim != 2
        or 0 in vectors.shape
        or steps.shape != vectors.shape[:1]
        or not 0 < len(layers) <= _MAX_STYLES
    ):
        raise LatentsError.about(path, "the directions in it are damaged")
    method = str(header.get("method", ""))
    titles = tuple(_list(header, "titles", str)) if header.get("titles") else ()
    if titles and len(titles) != len(vectors):
        raise LatentsError(f"{path}: the directions in it are damaged")
    directions = Directions(vectors, steps, layers, method, header["fingerprint"], header["name"], titles)
    if generator is None or directions.fingerprint == fingerprint(generator):
        return directions
    _refuse(directions, generator, if_different, path, vectors.shape[1])
    num_ws = generator.config.num_ws
    kept = sorted({min(layer, num_ws - 1) for layer in layers})
    return Directions(vectors, steps, kept, method, fingerprint(generator), generator.name, titles)


def _fitted(latents: Latents, generator: Generator, if_different: str, path: Path_) -> Latents:
    if latents.fingerprint == fingerprint(generator):
        return latents
    config = generator.config
    num_ws, w_dim = latents.ws.shape[1:]
    _refuse(latents, generator, if_different, path, w_dim)
    ws, missing = latents.ws[:, : config.num_ws], config.num_ws - num_ws
    if missing > 0:
        ws = torch.cat([ws, ws[:, -1:].expand(-1, missing, -1)], 1)
    # z belongs to the other mapping network, and the seeds give other images here.
    return Latents(
        ws.contiguous(),
        fingerprint=fingerprint(generator),
        name=generator.name,
        labels=latents.titles(),
        grid=latents.grid,
    )


def _refuse(found: Latents | Directions, generator: Generator, if_different: str, path: Path_, w_dim: int) -> None:
    """Raise unless latents or directions of another generator may and can be adapted to this one."""
    made_with = f"made with {printable(found.name or 'an unknown generator', 60)}"
    wanted = generator.config.w_dim
    if w_dim != wanted:
        raise LatentsError.about(
            path,
            f"{made_with}, whose styles have {w_dim} numbers; those of {generator.name} have {wanted}",
            "Load the generator that they were made with",
        )
    if if_different == "refuse":
        raise LatentsError.about(
            path,
            f"{made_with}, not with {generator.name}",
            "Load the generator that they were made with, or choose `adapt` to use them anyway",
        )


def _save(
    path: Path_, key: str, owner: Latents | Directions, tensors: Mapping[str, Tensor], fields: Mapping[str, Any]
) -> None:
    header = {"version": LATENTS_FORMAT_VERSION, "name": owner.name, "fingerprint": owner.fingerprint, **fields}
    stored = {name: tensor.detach().to("cpu", torch.float32).contiguous() for name, tensor in tensors.items()}
    write_tensors(path, stored, key, {**header, "sha256": digest(None, stored)})


def _load(path: Path_, key: str, names: Sequence[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    file = open_tensors(path, LatentsError)
    with file.file:
        if key not in file.metadata:
            other = next(
                (kind for k, kind in {**_KINDS, HEADER_KEY: "a generator"}.items() if k in file.metadata), None
            )
            raise file.refuse(
                f"holds {other or 'something else'}, not {_KINDS[key]} of this pack", "Choose another file"
            )
        header = read_header(file, key, _HEADER_LIMIT, LATENTS_FORMAT_VERSION, _OLD_FIELDS, _check_fields)
        for name in names:
            if name not in file.entries:
                raise file.refuse(f"{name} is missing")
        file.require_dtypes()
        tensors = file.read()
    if SEAL in header and digest(None, tensors) != header.get("sha256"):
        raise file.refuse("its numbers do not match their checksum")
    tensors = {name: tensor.float() for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        check_finite(name, tensor, file.refuse)
    return tensors, header


def _check_fields(header: dict[str, Any]) -> None:
    """Raise ValueError unless the fields of a header have the right types."""
    if not all(isinstance(header[name], str) for name in ("name", "fingerprint")):
        raise ValueError("a field has the wrong type")


def _origin(tensors: Mapping[str, Tensor], ws: Tensor) -> Origin | None:
    z, psi, c = (tensors.get(name) for name in ("z", "psi", "c"))
    if z is None or psi is None or z.ndim != 2 or len(z) != len(ws) or psi.shape != ws.shape[:2]:
        return None
    return None if c is not None and (c.ndim != 2 or len(c) != len(ws)) else Origin(z, psi, c)


def _list(header: Mapping[str, Any], name: str, kind: type, count: int | None = None) -> list[Any]:
    """A list in the header; empty if it is missing or has other types or, with `count`, another length."""
    values = header.get(name)
    if not isinstance(values, list) or not all(type(value) is kind for value in values):
        return []
    if kind is int and not all(0 <= value < _MAX_NUMBER for value in values):
        return []
    return values if count in (None, len(values)) else []


def _grid(header: Mapping[str, Any], count: int) -> tuple[list[str], list[str]] | None:
    grid = header.get("grid")
    if not isinstance(grid, list) or len(grid) != 2:
        return None
    rows, columns = (_list({"titles": part}, "titles", str) for part in grid)
    return (rows, columns) if len(rows) * len(columns) == count else None
