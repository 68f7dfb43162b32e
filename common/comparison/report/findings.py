"""Findings of a comparison, as sentences."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from common.comparison.paired import Comparison
from common.evaluation.metrics import METRICS, headline_metrics
from common.evaluation.photograph_groups import MIN_GROUPS


def listed(names: Iterable[str]) -> str:
    """Join names: `a`, `a and b`, `a, b and c`."""
    names = list(names)
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1] if names else ""


def headline(metrics: Iterable[str]) -> list[str]:
    """The metrics of the first table: all if there are few, else the headline metrics and explicitly requested ones."""
    metrics = list(metrics)
    first = headline_metrics()
    if len(metrics) <= len(first) + 2:
        return metrics
    return [m for m in metrics if m in first or (m in METRICS and not METRICS[m].default)] or metrics


def findings(comparison: Comparison) -> list[str]:
    """Return sentences that summarize a comparison: the best model per metric, and the models that are worse than
    `grey`.

    Only the `headline` metrics are used. A single model is compared with each reference row.
    """
    comparison = replace(comparison, metrics={m: comparison.metrics[m] for m in headline(comparison.metrics)})
    ranked = comparison.ranked
    if len(ranked) == 1:
        trivial = [c.title for c in comparison.models if c.trivial]
        return [in_words(comparison, ranked[0], other) for other in trivial]
    leads: dict[str, dict[tuple[str, ...], list[str]]] = {}
    for metric in comparison.metrics:
        best = comparison.best(metric)
        if best:
            leads.setdefault(best, {}).setdefault(tuple(comparison.level(metric)), []).append(metric)
    # A significant lead on one metric is more informative than a shared lead on many.
    order = sorted(leads, key=lambda title: (-len(leads[title].get((), ())), -sum(map(len, leads[title].values()))))
    return [_lead(title, leads[title]) for title in order] + _against_grey(comparison)


def _lead(title: str, metrics: dict[tuple[str, ...], list[str]]) -> str:
    parts = [f"significantly better than all others on {listed(metrics[()])}"] if () in metrics else []
    shared = [
        f"{listed(names)} (not significantly better than {listed(level) if len(level) < 5 else f'{len(level)} others'})"
        for level, names in metrics.items()
        if level
    ]
    parts += [f"best on {listed(shared)}"] if shared else []
    return f"{title} is {'; '.join(parts)}."


def _against_grey(comparison: Comparison) -> list[str]:
    grey = next((c.title for c in comparison.models if c.title == "grey"), None)
    if not grey:
        return []
    ranked, out = comparison.ranked, []
    hard = [
        metric
        for metric in comparison.metrics
        if grey in comparison.scores[metric]
        and comparison.best(metric)
        and not any(comparison.beats(metric, title, grey) for title in ranked)
    ]
    lost: dict[tuple[str, ...], list[str]] = {}
    for title in ranked:
        worse = tuple(m for m in comparison.metrics if m not in hard and comparison.beats(m, grey, title))
        if worse:
            lost.setdefault(worse, []).append(title)
    if hard:
        out.append(f"No model is significantly better than grey, the uncolored photograph, on {listed(hard)}.")
    if lost:
        pairs = "; ".join(f"{listed(titles)} on {listed(metrics)}" for metrics, titles in lost.items())
        out.append(f"grey is significantly better than {pairs}.")
    return out


def in_words(comparison: Comparison, first: str, second: str) -> str:
    """One sentence for a pair: on which metrics each is significantly better, and on which neither is."""
    won, lost, level = [], [], []
    for metric in comparison.metrics:
        found = comparison.difference(metric, first, second)
        if found:
            (level if not found.significant_holm else won if found.better > 0 else lost).append(metric)
    parts = []
    if won:
        parts.append(f"{first} is significantly better than {second} on {listed(won)}")
    if lost:
        parts.append(f"{'worse' if won else f'{first} is significantly worse than {second}'} on {listed(lost)}")
    if level:
        everything = not won and not lost
        parts.append(
            f"{first} and {second} do not differ significantly on {listed(level)}"
            if everything
            else f"the difference is not significant on {listed(level)}"
        )
    return "; ".join(parts) + "." if parts else f"{first} and {second} have no measured metric in common."


def pairs_in_words(comparison: Comparison) -> list[str]:
    """One sentence for each pair of models, reference rows excluded."""
    ranked = comparison.ranked
    return [in_words(comparison, a, b) for i, a in enumerate(ranked) for b in ranked[i + 1 :]]


def rules(comparison: Comparison) -> list[str]:
    """The statistical method in sentences for the report."""
    out = [
        "Differences are computed with a paired bootstrap: both rows use the same resamples of photographs, in"
        " which groups of dependent photographs stay together, and photographs on which one of them is not measured are"
        " excluded. The 95 % confidence interval is the"
        " difference plus and minus t standard errors.",
        "A metric that is best near the original's number is compared by its distance to that number.",
        f"This report makes {comparison.comparisons} comparisons; at 95 % each, about"
        f" {round(0.05 * comparison.comparisons)} would be significant by chance. A difference is therefore called"
        " significant only if it remains significant after Holm's correction for multiple comparisons,"
        f" and if there are at least {MIN_GROUPS} groups of photographs.",
        "Reference rows are compared with the models, but are not ranked.",
    ]
    grouped = [c for c in comparison.models if c.seeds > 1]
    if grouped:
        groups = listed(f"{c.title} ({c.seeds})" for c in grouped)
        out.append(
            f"Seeds of one experiment are compared as one model: {groups}. Its number is the mean over seeds, and its"
            " interval includes the variance between photographs (bootstrap) and the variance of the mean over seeds."
        )
    if any(c.seeds == 1 and not c.trivial for c in comparison.models):
        out.append(
            "The interval of a model with one seed includes only the variance between photographs: another seed of the"
            " same experiment may lie outside of it."
        )
    return out
