"""Plain values or a command line -> a checked TrainConfig, with one-line errors.

The `model` options of a family are the typed keyword arguments of its `build` function, so they are checked and listed
by --help like all others. A config can name a family, but never an import path.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import fields
from pathlib import Path

import jsonargparse
import yaml

from common.registry import families, family_builder
from common.training.config import GROUPS, RUN_OPTIONS, RunConfig, TrainConfig, load_config
from common.training.start import starting_values
from common.utils.errors import UserError
from common.utils.options import option_names


def config_from_dict(values: dict) -> TrainConfig:
    """Check nested plain values, as a config file holds them.

    Raises UserError with one line that names the key, its value and what is expected.
    """
    family, start = _family_and_start(values)
    known = _known_keys(family)
    _check_keys(values, known)
    if start:
        argv = [*start, "--config", yaml.safe_dump(values)]
        return _resolve(_parser(family), lambda parser: parser.parse_args(argv), family, known)
    return _resolve(_parser(family), lambda parser: parser.parse_object(values), family, known)


def parse_config(argv: list[str], description: str, prog: str) -> TrainConfig:
    """Command line -> config. `--config FILE` gives values, later options override earlier ones.

    Raises UserError with one line that names the key, its value and what is expected.
    """
    outline, files = _outline(argv)
    family, start = _family_and_start(outline)
    known = _known_keys(family)
    for file in files:
        _check_keys(file, known)
    parser = _parser(family, description, prog)
    return _resolve(parser, lambda parser: parser.parse_args([*start, *argv]), family, known)


def _parser(family: str | None, description: str = "", prog: str = "train") -> jsonargparse.ArgumentParser:
    parser = jsonargparse.ArgumentParser(
        prog=prog,
        description=description,
        exit_on_error=False,
        default_env=False,
        parser_mode="yaml",
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", action=jsonargparse.ActionConfigFile, help="YAML file of options")
    parser.add_argument("--find_lr", action="store_true", help="do not train: record the loss while the learning rate"
                        " grows, draw the curve into the run's folder, and suggest an optim.lr")  # fmt: skip
    parser.add_argument("--family", type=str, default=family, help=f"one of {', '.join(families())}")
    parser.add_class_arguments(RunConfig, help="run")
    for group, config in GROUPS.items():
        parser.add_class_arguments(config, group)
    if family:
        parser.add_function_arguments(family_builder(family), "model")
    return parser


def _resolve(parser: jsonargparse.ArgumentParser, parse: object, family: str | None, known: list[str]) -> TrainConfig:
    try:
        values = parse(parser)
    except jsonargparse.ArgumentError as error:
        raise UserError(_one_line(str(error), known)) from None
    if not family:
        raise UserError(f"no family is given: use --config FILE or --family with one of {', '.join(families())}")
    values = _plain(values)
    loop = RunConfig(**{name: values[name] for name in RUN_OPTIONS})
    groups = {name: config(**values[name]) for name, config in GROUPS.items()}
    return TrainConfig(family=family, model=values.get("model") or {}, loop=loop, **groups)


def _outline(argv: list[str]) -> tuple[dict, list[dict]]:
    """The options that the command line or its config files give, without groups, and the contents of those files."""
    outline, files = {}, []
    for i, word in enumerate(argv):
        key, _, value = word.partition("=")
        value = value or (argv[i + 1] if i + 1 < len(argv) else "")
        if key == "--config":
            files.append(load_config(Path(value)))
            outline |= files[-1]
        elif key in ("--family", "--init", "--run", "--fresh"):
            outline[key[2:]] = value
    return outline, files


def _family_and_start(outline: dict) -> tuple[str | None, list[str]]:
    """The family, and the arguments that give the defaults of a run that starts from published weights.

    outline: of the options, `family`, `init`, `run` and `fresh`. Raises UserError for an unknown family, and for
    another one than that of the weights.
    """
    family, init = outline.get("family"), outline.get("init")
    if family is not None:
        family_builder(str(family))
    if not init or init == "null":
        return family, []
    fresh = str(outline.get("fresh", "")).lower() == "true"
    start = starting_values(str(init), Path(str(outline.get("run", RunConfig.run))), fresh)
    if family not in (None, start["family"]):
        raise UserError(f"family is {family} and init is {init}, of the family {start['family']}: leave the family out")
    return start["family"], ["--config", yaml.safe_dump(_only(start, _known_keys(start["family"])))]


def _only(values: dict, known: list[str], prefix: str = "") -> dict:
    """The nested values whose dotted keys are known; cards of older versions may have others."""
    return {
        key: value if f"{prefix}{key}" in known else _only(value, known, f"{prefix}{key}.")
        for key, value in values.items()
        if f"{prefix}{key}" in known or isinstance(value, dict)
    }


def _known_keys(family: str | None) -> list[str]:
    keys = ["family", *RUN_OPTIONS]
    keys += [f"{group}.{f.name}" for group, config in GROUPS.items() for f in fields(config)]
    return keys + [f"model.{name}" for name in (option_names(family_builder(family)) if family else ())]


def _check_keys(values: dict, known: list[str]) -> None:
    for key in _keys(values, known):
        if key not in known:
            raise UserError(_unknown(key, known))


def _keys(values: dict, known: list[str], prefix: str = "") -> list[str]:
    """Dotted keys of nested values. Only the groups, and the groups of the model, are opened."""
    keys = []
    for key, value in values.items():
        group = ((key in (*GROUPS, "model") and not prefix) or prefix == "model.") and f"{prefix}{key}" not in known
        keys += _keys(value, known, f"{prefix}{key}.") if group and isinstance(value, dict) else [f"{prefix}{key}"]
    return keys


def _unknown(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key.removeprefix("--"), known, 1)
    return f"unknown option {key}: " + (f"did you mean {close[0]}?" if close else "--help lists all")


def _plain(value: object) -> object:
    """jsonargparse's namespaces and dataclasses -> dicts."""
    return value.as_dict() if hasattr(value, "as_dict") else value


def _one_line(message: str, known: list[str]) -> str:
    """Reduce an error of jsonargparse, which has many lines, to the key, its value and what it takes."""
    text = " ".join(message.split())
    if match := re.search(r"[Uu]nrecognized arguments?: ([^\s=]+)", text):
        return _unknown(match[1], known)
    if match := re.search(
        r"Parser key \"([\w.]+)\":.* Problem with given class_path '[\w.]+': (.*?)(?: - | Given value)", text
    ):
        return f"{match[1]} has an entry that {_of_entry(match[2])}"
    key = re.search(r"[\"'](?:--)?([\w.]+)[\"']:", text)
    got = re.search(r"[Gg]iven value: (.*?)$|Got value: (.*?)(?: Given|$)", text)
    takes = re.findall(r"Expected an? (.+?)(?:\. Got| Given| -|$)", text)
    if key and takes and got:
        kinds = dict.fromkeys(_in_words(kind) for kind in takes)
        return f"{key[1]} is {(got[1] or got[2]).strip()}: expected {' or '.join(kinds)}"
    return f"{key[1]}: {text}" if key else text


def _of_entry(problem: str) -> str:
    """What is wrong with one entry of a list of groups of options."""
    if match := re.search(r"Option '(\w+)' is not accepted", problem):
        return f"has the option {match[1]}: there is none of that name"
    if match := re.search(r"arguments are required: (.+)", problem):
        return f"lacks {match[1]}: give it"
    match = re.search(r"Parser key \"(\w+)\": Expected an? (.+?)\. Got value: (.*)", problem)
    return f"has the {match[1]} {match[3]}: expected {_in_words(match[2])}" if match else f"cannot be read ({problem})"


def _in_words(kind: str) -> str:
    if "Literal[" in kind:
        return kind.split("[", 1)[1].rstrip("]").replace("'", "")
    name = re.sub(r"<class '(\w+)'>", r"\1", kind)
    words = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a word",
             "tuple": "a list of two numbers", "NoneType": "null", "dict": "a mapping", "list": "a list"}  # fmt: skip
    return words.get(name, name)


class _HelpFormatter(jsonargparse.DefaultHelpFormatter):
    """Keeps the line breaks of the description, where the examples are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(indent + line for line in text.splitlines())
