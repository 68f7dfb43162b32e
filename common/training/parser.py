"""Plain values or a command line -> a checked TrainConfig, with one-line errors.

The `model` options of a family are the typed keyword arguments of its `build` function, so they are checked and listed
by --help like all others. A config can name a family, but never an import path.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path

import jsonargparse
import yaml

from common.registry import families, family_builder
from common.training.config import GROUPS, RUN_OPTIONS, RunConfig, TrainConfig, load_config
from common.training.start import starting_values
from common.utils.errors import UserError


def config_from_dict(values: dict) -> TrainConfig:
    """Check nested plain values, as a config file holds them.

    Raises UserError with one line that names the key, its value and what is expected.
    """
    family, start = _family_and_start(values)
    if start:
        argv = [*start, "--config", yaml.safe_dump(values)]
        return _resolve(_parser(family), lambda parser: parser.parse_args(argv), family)
    return _resolve(_parser(family), lambda parser: parser.parse_object(values), family)


def parse_config(argv: list[str], description: str, prog: str) -> TrainConfig:
    """Command line -> config. `--config FILE` gives values, later options override earlier ones.

    Raises UserError with one line that names the key, its value and what is expected.
    """
    family, start = _family_and_start(_outline(argv))
    parser = _parser(family, description, prog)
    return _resolve(parser, lambda parser: parser.parse_args([*start, *argv]), family)


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


def _resolve(parser: jsonargparse.ArgumentParser, parse: object, family: str | None) -> TrainConfig:
    try:
        values = parse(parser)
    except jsonargparse.ArgumentError as error:
        raise UserError(_one_line(str(error), list(parser.get_defaults().keys()))) from None
    if not family:
        raise UserError(f"no family is given: use --config FILE or --family with one of {', '.join(families())}")
    values = _plain(values)
    loop = RunConfig(**{name: values[name] for name in RUN_OPTIONS})
    groups = {name: config(**values[name]) for name, config in GROUPS.items()}
    return TrainConfig(family=family, model=values.get("model") or {}, loop=loop, **groups)


def _outline(argv: list[str]) -> dict:
    """The options that the command line or its config files give, without groups."""
    outline = {}
    for i, word in enumerate(argv):
        key, _, value = word.partition("=")
        value = value or (argv[i + 1] if i + 1 < len(argv) else "")
        if key == "--config":
            outline |= load_config(Path(value))
        elif key in ("--family", "--init", "--run", "--fresh"):
            outline[key[2:]] = value
    return outline


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
    known = list(_parser(start["family"]).get_defaults().keys())
    return start["family"], ["--config", yaml.safe_dump(_only(start, known))]


def _only(values: dict, known: list[str], prefix: str = "") -> dict:
    """The nested values whose dotted keys are known; cards of older versions may have others."""
    return {
        key: value if f"{prefix}{key}" in known else _only(value, known, f"{prefix}{key}.")
        for key, value in values.items()
        if f"{prefix}{key}" in known or isinstance(value, dict)
    }


def _unknown(key: str, known: list[str]) -> str:
    name, dashes = key.removeprefix("--").replace("-", "_"), "--" if key.startswith("--") else ""
    without_group = {option.rpartition(".")[2]: option for option in reversed(known)}
    close = (
        [option for option in known if option.endswith(f".{name}")]
        or difflib.get_close_matches(name, known, 1)
        or [without_group[word] for word in difflib.get_close_matches(name.rpartition(".")[2], without_group, 1)]
    )
    meant = " or ".join(dashes + option for option in close)
    return f"unknown option {key}: " + (f"did you mean {meant}?" if meant else "--help lists all")


def _plain(value: object) -> object:
    """jsonargparse's namespaces and dataclasses -> dicts."""
    return value.as_dict() if hasattr(value, "as_dict") else value


def _one_line(message: str, known: list[str]) -> str:
    """Reduce an error of jsonargparse, which has many lines, to the key, its value and what it takes."""
    text = " ".join(message.split())
    if match := re.search(r"[Uu]nrecognized arguments?: ([^\s=]+)", text):
        return _unknown(match[1], known)
    if match := re.fullmatch(r"(?:Group '([\w.]+)' does not accept option|Option) '([^']+)'( is not accepted)?", text):
        return _unknown(f"{match[1]}.{match[2]}" if match[1] else match[2], known)
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
