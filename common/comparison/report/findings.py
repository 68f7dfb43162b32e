"""What a comparison found, in sentences that its statistics carry."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from common.comparison.paired import Standings
from common.evaluation.metrics import METRICS, headline_metrics


def listed(names: Iterable[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    names = list(names)
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1] if names else ""


def headline(metrics: Iterable[str]) -> list[str]:
    """The metrics that answer first: all where they are few, else one a question, and those that were asked for."""
    metrics = list(metrics)
    first = headline_metrics()
    if len(metrics) <= len(first) + 2:
        return metrics
    return [m for m in metrics if m in first or (m in METRICS and not METRICS[m].default)] or metrics


def findings(standings: Standings) -> list[str]:
    """The answer in a few sentences: who leads on what, who is within noise of it, and what `grey` says to that.

    They speak of the `headline` metrics. Of a single model: what it does to each trivial row.
    """
    standings = replace(standings, metrics={m: standings.metrics[m] for m in headline(standings.metrics)})
    ranked = standings.ranked
    if len(ranked) == 1:
        trivial = [c.title for c in standings.contestants if c.trivial]
        return [in_words(standings, ranked[0], other) for other in trivial]
    leads: dict[str, dict[tuple[str, ...], list[str]]] = {}
    for metric in standings.metrics:
        best = standings.best(metric)
        if best:
            leads.setdefault(best, {}).setdefault(tuple(standings.level(metric)), []).append(metric)
    # who is surely best on something says more than who shares the lead on much
    order = sorted(leads, key=lambda title: (-len(leads[title].get((), ())), -sum(map(len, leads[title].values()))))
    return [_lead(title, leads[title]) for title in order] + _against_grey(standings)


def _lead(title: str, metrics: dict[tuple[str, ...], list[str]]) -> str:
    parts = [f"surely best on {listed(metrics[()])}"] if () in metrics else []
    shared = [
        f"{listed(names)} (with {listed(level) if len(level) < 5 else f'{len(level)} others'})"
        for level, names in metrics.items()
        if level
    ]
    parts += [f"best within noise on {listed(shared)}"] if shared else []
    return f"{title} is {'; '.join(parts)}."


def _against_grey(standings: Standings) -> list[str]:
    grey = next((c.title for c in standings.contestants if c.title == "grey"), None)
    if not grey:
        return []
    ranked, out = standings.ranked, []
    hard = [
        metric
        for metric in standings.metrics
        if grey in standings.scores[metric]
        and standings.best(metric)
        and not any(standings.beats(metric, title, grey) for title in ranked)
    ]
    lost: dict[tuple[str, ...], list[str]] = {}
    for title in ranked:
        worse = tuple(m for m in standings.metrics if m not in hard and standings.beats(m, grey, title))
        if worse:
            lost.setdefault(worse, []).append(title)
    if hard:
        out.append(f"No model surely beats grey, which paints nothing, on {listed(hard)}.")
    if lost:
        told = "; ".join(f"{listed(titles)} on {listed(metrics)}" for metrics, titles in lost.items())
        out.append(f"grey beats {told}.")
    return out


def in_words(standings: Standings, first: str, second: str) -> str:
    """One sentence for a pair: who beats whom on what, and on what the difference is within noise."""
    won, lost, level = [], [], []
    for metric in standings.metrics:
        found = standings.difference(metric, first, second)
        if found:
            (level if not found.sure else won if found.better > 0 else lost).append(metric)
    parts = []
    if won:
        parts.append(f"{first} beats {second} on {listed(won)}")
    if lost:
        parts.append(f"{'is beaten' if won else f'{first} is beaten by {second}'} on {listed(lost)}")
    if level:
        everything = not won and not lost
        parts.append(
            f"{first} and {second} are within noise of each other on {listed(level)}"
            if everything
            else f"the difference is within noise on {listed(level)}"
        )
    return "; ".join(parts) + "." if parts else f"{first} and {second} share no measured metric."


def pairs_in_words(standings: Standings) -> list[str]:
    """A sentence for each pair of contestants that are not trivial."""
    ranked = standings.ranked
    return [in_words(standings, a, b) for i, a in enumerate(ranked) for b in ranked[i + 1 :]]


def rules(standings: Standings) -> list[str]:
    """How differences were judged, for the reader."""
    out = [
        "A difference is taken photograph by photograph (paired bootstrap): both rows see the same resamples, and"
        " photographs on which either is not measured are left out of both. Its 95 % interval is the difference"
        " plus and minus t standard errors.",
        "A metric that is best near the original's number is compared by the distance to that number.",
        f"This report makes {standings.comparisons} comparisons; at 95 % each, about"
        f" {round(0.05 * standings.comparisons)} would seem to differ by chance alone. Marks and sentences therefore"
        " go by intervals that exclude 0 and also stay significant after Holm's correction over all of them.",
        "Trivial rows are shown and compared with, and are never best.",
    ]
    grouped = [c for c in standings.contestants if c.seeds > 1]
    if grouped:
        told = listed(f"{c.title} ({c.seeds})" for c in grouped)
        out.append(
            f"Seeds of one experiment are one row: {told}. Its number is the mean over seeds, and its interval has both"
            " sources of variance: between photographs (bootstrap) and between seeds (their sample variance over their"
            " number, with t for so few)."
        )
    if any(c.seeds == 1 and not c.trivial for c in standings.contestants):
        out.append(
            "A model with one seed has the variance of photographs alone: another seed of the same experiment may"
            " differ by more than its interval says."
        )
    return out
