"""The table of options for docs/options.md, made from config.py: `python -m spvn._docs > docs/options.md`."""

from __future__ import annotations

from spvn.cli import default_of
from spvn.config import GROUPS, NOT_YET, options

_HEAD = """\
# Options

Made from `python/spvn/config.py` by `python -m spvn._docs > docs/options.md`; do not edit.

Every option is a flag, a variable of the environment, and a parameter of `spvn.run()` and
`spvn.Config()`. A flag beats `SPVN_…`, which beats the same variable behind `UVICORN_…`; all
of them may stand in the file of `--env-file`. Names and defaults are uvicorn's, except for
the defaults marked with \\*.

Times are in seconds, and may have fractions. Sizes are in bytes, and may end in `K`, `M` or
`G` (of 1024). An option whose default is off or the system's is set back to it with `off`.
A list in a variable is separated by commas or white space; `SPVN_HEADERS` has one field a line.
A variable of a yes-or-no option is `1` or `0`, `true` or `false`, `on` or `off`.
"""

# What uvicorn has too, with another default.
_BETTER = {"backlog", "timeout_keep_alive", "timeout_graceful_shutdown"}


def render() -> str:
    """The page."""
    lines = [_HEAD]
    for group in GROUPS:
        lines += [
            f"## {group}",
            "",
            "| flag | variable, parameter | default | what it does |",
            "| --- | --- | --- | --- |",
        ]
        for field in options():
            option = field.option
            if option.group != group:
                continue
            flag = f"--[no-]{field.flag[2:]}" if option.paired else field.flag
            if not option.switch:
                flag += f" {option.metavar}"
            variable = ", ".join(f"`{name}`" for name in field.variables if not name.startswith("UVICORN_"))
            default = default_of(field) or ("off" if option.switch else "")
            star = "\\*" if field.name in _BETTER else ""
            text = option.help + (" Not in this version." if field.name in NOT_YET else "")
            cells = (f"`{flag}`", f"{variable}, `{field.name}`", (f"`{default}`" if default else "") + star, text)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    print(render(), end="")
