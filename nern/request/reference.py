"""The reference of all options, in Markdown. `python -m nern.request.reference FILE` updates the reference in FILE."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nern.documents import with_part
from nern.request import RECIPES
from nern.request.options import DEFAULT_RATIO

BEGIN, END = "<!-- options: python -m nern.request.reference docs/training.md -->", "<!-- end of options -->"


def updated(text: str) -> str:
    """The text with the present reference between BEGIN and END. Raises ValueError if these are missing."""
    return with_part(text, BEGIN, END, reference())


def reference() -> str:
    """One table of the options that all recipes have, and one for each smaller set of recipes that share options."""
    properties = {recipe: model.model_json_schema()["properties"] for recipe, model in RECIPES.items()}
    owners: dict[str, list[str]] = {}
    for recipe, options in properties.items():
        for option in options:
            if option != "recipe":
                owners.setdefault(option, []).append(recipe)
    return "\n".join(
        line
        for recipes in dict.fromkeys(map(tuple, owners.values()))
        for line in _table(recipes, [option for option in owners if tuple(owners[option]) == recipes], properties)
    )


def _table(recipes: tuple[str, ...], options: list[str], properties: dict[str, Any]) -> Iterator[str]:
    yield f"Options of {'all recipes' if len(recipes) == len(RECIPES) else ' and '.join(recipes)}:\n"
    yield f"| option | {' | '.join(recipes)} | range | meaning |"
    yield "|---" * (len(recipes) + 3) + "|"
    for option in options:
        schemas = [properties[recipe][option] for recipe in recipes]
        defaults = " | ".join(_default(option, schema) for schema in schemas)
        yield f"| `{option}` | {defaults} | {_range(schemas[0])} | {schemas[0].get('description', '')} |"
    yield ""


def _default(option: str, schema: dict[str, Any]) -> str:
    value = DEFAULT_RATIO if option == "ratio" else schema["default"]
    if value is None:
        return "none"
    return f"`{value}`" if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else _number(value)


def _range(schema: dict[str, Any]) -> str:
    """The values that a schema allows, without null, which stands for the default."""
    if members := schema.get("anyOf"):
        return "; ".join(_range(member) for member in members if member.get("type") != "null")
    if "enum" in schema:
        return ", ".join(str(value) for value in schema["enum"])
    if "$ref" in schema:
        return '`{"drop": …}`'
    low = "more than 0, to " if "exclusiveMinimum" in schema else ""
    if "minimum" in schema:
        low = f"{_number(schema['minimum'])} to "
    if "maximum" in schema:
        return f"{low}2^63 - 1" if schema["maximum"] == 2**63 - 1 else f"{low}{_number(schema['maximum'])}"
    return {"boolean": "true, false", "array": "a list of names", "object": "an object"}.get(schema["type"], "")


def _number(value: float) -> str:
    return f"{int(value) if value == int(value) else value:,}"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(updated(path.read_text()))
