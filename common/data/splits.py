"""Assignment of photographs to training, validation and test: by folders or shards of the source, else by a hash."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from common.utils.errors import UserError

Split = Literal["train", "val", "test", "all"]
SPLIT_OF_WORD = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
                 "test": "test", "testing": "test"}  # fmt: skip


def split_of(name: str, val_fraction: float) -> str:
    """ "train" or "val" for a photograph of a source without splits, by a hash of the file's name without folders.

    The hash is the same on every machine. It must never change, because existing runs depend on it.
    """
    digest = hashlib.sha256(os.fsencode(name.rsplit("/", 1)[-1])).digest()
    return "val" if int.from_bytes(digest[:8], "big") / 2**64 < val_fraction else "train"


def folder_splits(spec: str, names: Sequence[str], strict: bool = True) -> list[str | None]:
    """The splits of photographs by folders named train, val or test (also training, valid, validation, testing).

    The folders can be in the source itself, in its only folder, or in each of its folders.

    Args:
        spec: the source, for messages.
        names: paths of the photographs within the source, separated by slashes.
        strict: raise an error for ambiguous folders instead of ignoring them.

    Returns:
        The split of each photograph; all None if the source has no splits.

    Raises:
        UserError: some photographs are inside such folders and some outside, or there is a val folder but no train.
    """
    none: list[str | None] = [None] * len(names)
    folders = [name.split("/")[:-1] for name in names]
    first = len(os.path.commonprefix(folders))  # noqa: RUF071 (of lists) - the depth of the first folder with several entries
    for depth in range(max(map(len, folders), default=0)):
        splits = [SPLIT_OF_WORD.get(f[depth].lower()) if depth < len(f) else None for f in folders]
        present = set(splits) - {None}
        if not present:
            continue
        inside = ", ".join(sorted({"/".join(f[: depth + 1]) + "/" for f, s in zip(folders, splits, strict=True) if s}))
        if None in splits:
            if strict and depth <= first:
                outside = names[splits.index(None)]
                raise UserError(
                    f"source {spec} has photographs in split folders ({inside}) and {splits.count(None)} outside of"
                    f" them (such as {outside}): move these into one of the folders, or give one folder as the source"
                )
            continue
        if len(present) == 1 and depth > first:
            continue
        if strict and "val" in present and "train" not in present:
            raise UserError(
                f"source {spec} has validation photographs but no train folder (found: {inside}): add train/, or give"
                " one folder as the source"
            )
        if present == {"train"} or (not strict and len(present) == 1):
            return none
        return splits
    return none


def shard_splits(spec: str, paths: Sequence[str]) -> list[str | None]:
    """The splits of shards by a word in their names, as in `photos-train-000000.tar`, else by their folders' names.

    Returns the split of each path; all None if all shards have the same split, or none is for validation or test.
    Raises UserError if some shards are for validation or test and others have no split in their names.
    """
    splits = [_split_in(os.path.basename(p)) or SPLIT_OF_WORD.get(Path(p).parent.name.lower()) for p in paths]
    if len(set(splits)) == 1 or not {"val", "test"} & set(splits):
        return [None] * len(paths)
    if None in splits:
        named = ", ".join(os.path.basename(p) for p, s in zip(paths, splits, strict=True) if s in ("val", "test"))
        raise UserError(
            f"source {spec} has shards for validation or test ({named}) and shards with no split in their names (such"
            f" as {paths[splits.index(None)]}): put train, val or test into each name, or give them as separate sources"
        )
    return splits


def _split_in(name: str) -> str | None:
    """The split that a word of the name stands for; None if no word does, or words of several splits."""
    found = {SPLIT_OF_WORD[word] for word in re.split(r"[^a-z]+", name.lower()) if word in SPLIT_OF_WORD}
    return found.pop() if len(found) == 1 else None
