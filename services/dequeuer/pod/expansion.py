"""`$(NAME)` in `command`, `args` and `env`, exactly as Kubernetes fills it in.

The rules, from Kubernetes' documentation and its expansion function: `$(NAME)` becomes the variable's value; an unknown
name stays as it is written; `$$` is a dollar sign, so that `$$(NAME)` is the text `$(NAME)`; any other dollar sign
stands for itself. Values are not looked at again. A container's own variables count and nothing else: neither the
shell's environment nor anything that the image sets.
"""

import re
from collections.abc import Iterable, Mapping

_TOKEN = re.compile(r"\$(?:(?P<escaped>\$)|\((?P<name>[^)]*)\)|.)", re.DOTALL)


def expand(text: str, variables: Mapping[str, str]) -> str:
    """The text with its variables filled in."""

    def fill(match: re.Match[str]) -> str:
        if match["escaped"]:
            return "$"
        if match["name"] is not None:
            return variables.get(match["name"], match[0])
        return match[0]

    return _TOKEN.sub(fill, text)


def expand_in_order(pairs: Iterable[tuple[str, str]], known: Mapping[str, str]) -> dict[str, str]:
    """Variables whose values may refer to `known` and to those before them; `known` included in the answer."""
    variables = dict(known)
    for name, value in pairs:
        variables[name] = expand(value, variables)
    return variables
