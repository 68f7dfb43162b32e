"""What is measured, and how: the options that all tables share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.evaluation.feature_networks import DEFAULT_FEATURES


@dataclass(frozen=True)
class MeasureOptions:
    """Which photographs are measured, by which metrics, and where.

    Attributes:
        data: source of the photographs: a folder, tar shards, a named set, or `demo`.
        split: `train`, `val` or `all`; `auto` picks the part that no model was trained on.
        val_fraction: share of the photographs that is held out, for the splits `train` and `val`.
        include_trained: also measure photographs that a model was trained on.
        size: side of the square that photographs are reduced to, in pixels. None: the largest training size.
        predict_size: side of the square that networks see, in pixels. None: each its training size.
        group: regular expression that names the group of a photograph, such as a person or a video; see
            `common.evaluation.photograph_groups`. None: the squares of one photograph are a group.
        limit: number of photographs, spread evenly over the source. None: all.
        metrics: names of metrics. None: those that need no network.
        features: network of `feature_distance`, `fid_paired` and `fid_disjoint`.
        prior: file of the color prior that weights `auc_rebalanced`. None: the prior of the measured photographs.
        mean_from: source whose mean color the row `mean` predicts.
        real_fake_from: source of training photographs for `real_fake_classifier`. None: half of the measured ones.
        semantics_from: source of training photographs, in one folder per class, for `semantics`.
        semantics_network: NAME or NAME=FILE of a timm network for `semantics`.
        batch_size: photographs per batch.
        device: `auto`, or the name of a torch device.
        seed: of the row `shuffled`, of damage, and of the networks that metrics train.
        cache: folder of packs. None: the default cache folder.
        value_cache: folder of cached values. None: values are not cached.
    """

    data: str
    split: str = "auto"
    val_fraction: float = 0.1
    include_trained: bool = False
    size: int | None = None
    predict_size: int | None = None
    group: str | None = None
    limit: int | None = None
    metrics: Sequence[str] | None = None
    features: str = DEFAULT_FEATURES
    prior: str | None = None
    mean_from: str | None = None
    real_fake_from: str | None = None
    semantics_from: str | None = None
    semantics_network: str | None = None
    batch_size: int = 32
    device: str = "auto"
    seed: int = 0
    cache: str | None = None
    value_cache: Path | None = None
