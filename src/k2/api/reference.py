"""The reference page docs/api.md, made from the application's OpenAPI description."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

_OPENING: Final = """\
# HTTP interface

{description}
A running server shows the same at `/docs`, with a line to try each, and serves `/openapi.json`.

Errors come as `{{"success": false, "error": {{"code", "message", "place", "found", "expected",
"hint"}}, "meta"}}`:

| status | what it tells |
|---|---|"""

_AFTER_ERRORS: Final = """
`X-Correlation-ID` is taken over or made, and stands in `meta` and in the log. An answer of a table
has an `ETag` from its snapshots and log offsets: given back as `If-None-Match`, it saves the answer
while nothing changed. `K2-Next` carries the token of the next page in every format. A request body
may have a million bytes. Only loopback is served."""


def page(openapi: Mapping[str, Any]) -> str:
    """docs/api.md: every endpoint with its parameters, and the shape of every row."""
    return "\n".join(_lines(openapi)) + "\n"


def _lines(openapi: Mapping[str, Any]) -> Iterator[str]:
    yield _OPENING.format(description=openapi["info"]["description"])
    errors = openapi["paths"]["/v1/trades"]["get"]["responses"]
    for status, told in sorted(errors.items()):
        if status >= "400":
            yield f"| {status} | {told['description']} |"
    yield _AFTER_ERRORS
    for path, methods in openapi["paths"].items():
        for method, told in methods.items():
            yield from _operation(path, method, told)
    yield "\n## Rows"
    for name, shape in openapi["components"]["schemas"].items():
        if name != "Error" and "properties" in shape:
            fields = ", ".join(
                f"`{field}` {_words(one)}" for field, one in shape["properties"].items()
            )
            yield f"\n**{name}**: {fields}."


def _operation(path: str, method: str, told: Mapping[str, Any]) -> Iterator[str]:
    yield f"\n## {method.upper()} {path}\n"
    yield str(told["description"])
    parameters = [
        (one["name"], one["schema"], one.get("description", ""), one.get("required", False))
        for one in told.get("parameters", [])
    ]
    if "requestBody" in told:
        body = told["requestBody"]["content"]["application/json"]["schema"]
        needed = body.get("required", [])
        parameters += [
            (name, shape, shape.get("description", ""), name in needed)
            for name, shape in body["properties"].items()
        ]
        for name, shape in body["properties"].items():
            each = shape.get("items", {})
            parameters += [
                (f"{name}[].{field}", one, one.get("description", ""), field in each["required"])
                for field, one in each.get("properties", {}).items()
            ]
    if parameters:
        yield f"\n| {'field of the body' if 'requestBody' in told else 'parameter'} | | |"
        yield "|---|---|---|"
        for name, shape, description, is_needed in parameters:
            needed_mark = " (needed)" if is_needed else ""
            words = _words(shape).replace("|", "\\|")
            yield f"| `{name}`{needed_mark} | {words} | {description or _description(shape)} |"
    content = told["responses"]["200"]["content"]
    if "application/json" in content:
        data = content["application/json"]["schema"]["properties"]["data"]
        yield f"\nRows: {data['items']['$ref'].rpartition('/')[2]}."


def _description(shape: Mapping[str, Any]) -> str:
    found = shape.get("description") or next(
        (one["description"] for one in shape.get("anyOf", []) if "description" in one), ""
    )
    return str(found)


def _words(shape: Mapping[str, Any]) -> str:
    """What a JSON schema asks for, in a few words."""
    if "anyOf" in shape:
        found = [_words(one) for one in shape["anyOf"] if one.get("type") != "null"]
        return " or ".join(dict.fromkeys(found))
    kinds = shape.get("type", "any")
    names = [kinds] if isinstance(kinds, str) else list(kinds)
    word = " or ".join(names)
    if "enum" in shape:
        word = " ".join(f"`{one}`" for one in shape["enum"])
    elif "array" in names:
        word = f"list of {_words(shape['items'])}"
    elif shape.get("format") in ("date-time", "date"):
        word = "time" if shape["format"] == "date-time" else "date"
        word += " or null" if "null" in names else ""
    elif shape.get("pattern", "").startswith("^-?[0-9]"):
        word = "decimal or null" if "null" in names else "decimal"
    if "minimum" in shape and "maximum" in shape:
        word += f", {shape['minimum']:,} to {shape['maximum']:,}"
    if "maxItems" in shape:
        word += f", at most {shape['maxItems']}"
    if shape.get("default") not in (None, "", []):
        word += f", default {str(shape['default']).lower()}"
    return word
