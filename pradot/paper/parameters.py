"""Parameters of notebooks as they are given, on the command line or in a YAML file: data, never code."""

import re

import yaml

from pradot.errors import PradotError


def read_parameters(path):
    """Names with values from a YAML file.

    Parameters
    ----------
    path : Path

    Returns
    -------
    dict of str to value

    Raises
    ------
    PradotError
        It is no YAML file of names with values, or has aliases.
    """
    try:
        loaded = _plain_yaml(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise PradotError(f"{path} is no readable YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(loaded, dict):
        raise PradotError(f"{path} holds {type(loaded).__name__}, not names with values")
    odd = [name for name in loaded if not isinstance(name, str)]
    if odd:
        raise PradotError(f"{path} names parameters {odd}, which are no text; expected lines such as max_steps: 60")
    return loaded


class _PlainLoader(yaml.SafeLoader):
    """YAML without aliases, of which a few lines stand for more values than memory holds, or for one that holds itself."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"aliases such as *{self.peek_event().anchor} are not taken: write the value out")
        return super().compose_node(parent, index)


def _plain_yaml(text):
    return yaml.load(text, Loader=_PlainLoader)


def parameter_value(text):
    """A parameter's value: numbers, true, false, null, YAML in brackets, braces or quotes; all else is text as it stands.

    Raises
    ------
    PradotError
        What is in brackets, braces or quotes is no YAML, or has aliases.

    Examples
    --------
    >>> parameter_value("1e-3"), parameter_value("[0, 0.3]"), parameter_value("01"), parameter_value("none")
    (0.001, [0, 0.3], '01', None)
    """
    constants = {"true": True, "false": False, "null": None, "none": None}
    if text.lower() in constants:
        return constants[text.lower()]
    if text[:1] in ("[", "{", "'", '"'):
        try:
            return _plain_yaml(text)
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            raise PradotError(f"cannot read the parameter value {text[:80]!r}: {str(error).splitlines()[0]}") from error
    if re.fullmatch(r"[+-]?(0|[1-9][0-9]*)", text):  # 01 is a name
        return int(text)
    if re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text) and not re.fullmatch(r"[0-9]+", text):
        return float(text)
    return text
