"""The committed results of tuning, docs/tuning.json: winners, and the log of all trials.

`options(load(), "gem_miner", "relu")` are the tuned options of a finder on a task.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd

from plantjax.finders import names
from plantjax.jobs import chunks
from tuning import rule, trials

PATH = Path(__file__).parent.parent.parent / "docs" / "tuning.json"
SETTINGS, FINDERS = "settings", "finders"
Published: TypeAlias = dict[str, Any]
"""The file's contents: `settings`, equal for all, and `finders`: entries by finder and task."""


def load() -> Published:
    """Reads the file; nothing is tuned if it does not exist."""
    if not PATH.exists():
        return {SETTINGS: {}, FINDERS: {}}
    contents: Published = json.loads(PATH.read_text())
    return contents


def options(tuned: Published, finder: str, task: str) -> dict[str, Any]:
    """The tuned options of a finder, perhaps with controls, on a task.

    Args:
      tuned: see `load`.
      finder: a name in FINDERS, perhaps with controls; these may fix options that were tuned.
      task: a name in TASKS.

    Returns:
      Options that differ from the published ones; none if there is nothing to tune.

    Raises:
      ValueError: if there is no such finder, or it has not been tuned on this task.
    """
    space, base = names.space(finder), names.base(finder)
    if not space:
        return {}
    entry = tuned[FINDERS].get(base, {}).get(task)
    if entry is None:
        raise ValueError(
            f"{base} must have been tuned on {task} for its tuned options, and "
            f"{PATH.name} does not have them: experiments/tune.py --finders {base} "
            f"--tasks {task} --publish adds them."
        )
    return {name: value for name, value in entry["options"].items() if name in space}


def entry(
    finder: str,
    task: str,
    scores: pd.DataFrame,
    finals: pd.DataFrame,
    seconds: float | None,
    made: str,
) -> dict[str, Any]:
    """What is published of one finder and task.

    Args:
      finder: a name in FINDERS.
      task: a name in TASKS.
      scores: of all trials on the first mother, see `rule.scores`.
      finals: of the finalists on all mothers.
      seconds: wall time of a search, compilation included; None if it is not known.
      made: versions and device.

    Returns:
      The winner, its options that differ from the published ones, the space, and the log: a row per
      trial with its score on the first mother and its values there at each density, its score on
      all mothers if it is a finalist, and its options.
    """
    won, usual = rule.winner(finals["score"]), trials.defaults(finder)
    final = finals["score"].to_dict()
    drawn = trials.draws(finder, task, int(scores.index.max()) + 1)
    densities = [name for name in scores if name != "score"]
    rows = [
        [
            int(trial),
            final.get(trial),
            float(scores["score"][trial]),
            *(_short(scores[name][trial]) for name in densities),
            *(usual | drawn[trial]).values(),
        ]
        for trial in scores.index
    ]
    return {
        "winner": won,
        "options": drawn[won],
        "seconds": None if seconds is None else _short(seconds),
        "made": made,
        "space": {name: str(part) for name, part in trials.space(finder).items()},
        "columns": ["trial", "score", "first", *densities, *usual],
        "trials": rows,
    }


def refusal(tuned: Published, settings: Mapping[str, Any]) -> str | None:
    """Why results of these settings cannot be merged into the published ones, or None."""
    differ = [
        f"{name}: {tuned[SETTINGS].get(name)} there, {value} here"
        for name, value in settings.items()
        if tuned[FINDERS] and tuned[SETTINGS].get(name) != value
    ]
    return "; ".join(differ) or None


def merged(
    tuned: Published, settings: Mapping[str, Any], new: Mapping[str, Mapping[str, Any]]
) -> Published:
    """The published results with new ones by finder and task; all others stay as they are.

    Raises:
      ValueError: if the others were made with other settings.
    """
    reason = refusal(tuned, settings)
    if reason is not None:
        raise ValueError(f"--publish needs the settings of {PATH.name}, got others ({reason}).")
    finders = {name: dict(entries) for name, entries in tuned[FINDERS].items()}
    for name, entries in new.items():
        finders[name] = finders.get(name, {}) | dict(entries)
    return {SETTINGS: dict(settings), FINDERS: finders}


def save(tuned: Published) -> None:
    """Writes the file in one step, with a line for each trial."""
    text = json.dumps(tuned, indent=1)
    text = re.sub(r"\[\s+([^][{}]*?)\s+\]", lambda found: f"[{' '.join(found[1].split())}]", text)
    with chunks.replacing(PATH) as file:
        file.write(f"{text}\n".encode())


def _short(value: Any) -> float | None:
    """Four significant digits; None for what is no number, which JSON does not have."""
    number = float(f"{float(value):.4g}")
    return number if abs(number) < float("inf") else None
