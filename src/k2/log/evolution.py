"""When two Avro schemas are the same, and why one may not follow another. No I/O.

A next version must read what the latest one wrote (Avro's BACKWARD), and Iceberg must be able to
make the same change to its table; the second is the narrower.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import avro.errors
import avro.schema
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType

from k2.errors import BadInput, Refused
from k2.log.port import Registered

ALLOWED: Final = (
    "a next version may add fields that have a default, add symbols to an enum, let a field be "
    "null, widen int to long and float to double; so every record ever written stays readable"
)

_NAMED: Final = ("record", "error", "enum", "fixed")
_WIDER: Final = {("int", "long"), ("float", "double")}
_INTEGERS: Final = {"int": 31, "long": 63}


def canonical(schema: Mapping[str, Any]) -> str:
    """One text for all spellings of a schema: full names, sorted keys, no docs.

    Equal texts mean the same data, read in the same way. Raises `BadInput` for what is no record
    schema of Avro's.
    """
    _parse(schema)
    return json.dumps(_spell_out(schema, None, {}), sort_keys=True)


def objections(new: Mapping[str, Any], latest: Mapping[str, Any]) -> list[str]:
    """Why `new` may not follow `latest`, a sentence each, naming the field; empty if it may.

    Raises `BadInput` for what is no record schema of Avro's.
    """
    reader, writer = _parse(new), _parse(latest)
    after, before = _spell_out(new, None, {}), _spell_out(latest, None, {})
    found = []
    if after["name"] != before["name"]:
        found.append(f"the record is renamed from {before['name']} to {after['name']}")
    found += _field_objections(after["fields"], before["fields"])
    checker = ReaderWriterCompatibilityChecker()  # type: ignore[no-untyped-call]  # unannotated
    avros = checker.get_compatibility(reader, writer)
    if not found and avros.compatibility is not SchemaCompatibilityType.compatible:
        # Not seen yet: the rules here are narrower than Avro's. They do not decide alone, though.
        found = [f"Avro: {message}" for message in sorted(avros.messages)] or ["Avro refuses it"]
    return found


def refuse(subject: str, latest: Registered, found: Sequence[str]) -> None:
    """Raise `Refused` with these objections to what should follow `latest`, if there are any."""
    if found:
        raise Refused(
            f"the schema cannot follow version {latest.version}: {'; '.join(found)}",
            place=f"subject {subject}",
            hint=ALLOWED,
        )


def _field_objections(
    after: Sequence[Mapping[str, Any]], before: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    now = {field["name"]: field for field in after}
    aliases = {alias: field["name"] for field in after for alias in field.get("aliases", ())}
    names = {field["name"] for field in before}
    for field in before:
        name = field["name"]
        if name not in now:
            yield (
                f"field {name} is renamed to {aliases[name]}"
                if name in aliases
                else f"field {name} is removed"
            )
        elif change := _type_objection(now[name]["type"], field["type"]):
            yield f"field {name} {change}"
    for name, field in now.items():
        old_names = {name, *field.get("aliases", ())}
        if not old_names & names and "default" not in field:
            yield (
                f"field {name} is new and has no default, "
                "so records written before could not be read"
            )


def _type_objection(after: Any, before: Any) -> str | None:
    if after == before:
        return None
    new, new_null = _split_null(after)
    old, old_null = _split_null(before)
    if old_null and not new_null:
        return "may no longer be null, but records written before may hold null"
    if new == old or (_is_name(new) and _is_name(old) and (old, new) in _WIDER):
        return None
    if isinstance(new, dict) and isinstance(old, dict) and new["type"] == old["type"] == "enum":
        if new["name"] != old["name"]:
            return f"renames its enum from {old['name']} to {new['name']}"
        lost = [symbol for symbol in old["symbols"] if symbol not in new["symbols"]]
        if not lost:
            return None
        return f"loses the enum's {', '.join(lost)}, which records written before may hold"
    was, becomes = _describe(old), _describe(new)
    if was == becomes:
        return f"changes inside its type, from {json.dumps(old)} to {json.dumps(new)}"
    return f"changes its type from {was} to {becomes}"


def _is_name(avro: Any) -> bool:
    return isinstance(avro, str)


def _split_null(avro: Any) -> tuple[Any, bool]:
    """The type without its null, and whether it had one."""
    if not isinstance(avro, list):
        return avro, avro == "null"
    others = [branch for branch in avro if branch != "null"]
    return (others[0] if len(others) == 1 else others), len(others) < len(avro)


def _describe(avro: Any) -> str:
    if isinstance(avro, list):
        return "a union of " + ", ".join(map(_describe, avro))
    if not isinstance(avro, dict):
        return str(avro)
    kind = str(avro["type"])
    if avro.get("logicalType") == "decimal":
        kind = f"decimal({avro.get('precision')},{avro.get('scale', 0)})"
    elif "logicalType" in avro:
        kind = f"{kind} ({avro['logicalType']})"
    elif "name" in avro:
        kind = f"{kind} {avro['name']}"
    return f"{kind} in {avro['size']} bytes" if "size" in avro else kind


def _spell_out(avro: Any, namespace: str | None, named: dict[str, Any]) -> Any:
    """The schema with every name in full, every named type in its place, and no docs."""
    if isinstance(avro, list):
        return [_spell_out(branch, namespace, named) for branch in avro]
    if isinstance(avro, str):
        return named.get(avro) or named.get(f"{namespace}.{avro}") or avro
    plain = {key: value for key, value in avro.items() if key not in ("doc", "namespace")}
    if plain.keys() == {"type"}:
        return _spell_out(plain["type"], namespace, named)
    if plain["type"] in _NAMED:
        if "." not in plain["name"] and (space := avro.get("namespace", namespace)):
            plain["name"] = f"{space}.{plain['name']}"
        namespace = plain["name"].rpartition(".")[0] or None
        # Inside itself a recursive type stands as its name.
        named[plain["name"]] = plain["name"]
    for part in ("items", "values"):
        if part in plain:
            plain[part] = _spell_out(plain[part], namespace, named)
    if "fields" in plain:
        plain["fields"] = [
            {key: value for key, value in field.items() if key != "doc"}
            | {"type": _spell_out(field["type"], namespace, named)}
            for field in plain["fields"]
        ]
    if plain["type"] in _NAMED:
        named[plain["name"]] = plain
    return plain


def _parse(schema: Mapping[str, Any]) -> avro.schema.RecordSchema:
    try:
        parsed = avro.schema.parse(json.dumps(dict(schema)))
    except (avro.errors.AvroException, TypeError, ValueError) as error:
        raise BadInput(f"this is no Avro schema: {error}") from error
    if not isinstance(parsed, avro.schema.RecordSchema):
        raise BadInput("the schema must be one of a record", found=str(parsed.type))
    for field in _spell_out(schema, None, {})["fields"]:
        if "default" in field and not _fits(field["default"], field["type"]):
            # The library lets this pass; readers would fail on the first old record.
            raise BadInput(
                f"the default of field {field['name']} does not fit its type",
                found=json.dumps(field["default"]),
                expected=_describe(field["type"]),
                hint="the default of a union is of its first type",
            )
    return parsed


def _fits(default: Any, avro: Any) -> bool:
    if isinstance(avro, list):
        return bool(avro) and _fits(default, avro[0])
    kind = avro["type"] if isinstance(avro, dict) else avro
    match kind:
        case "null":
            return default is None
        case "boolean":
            return isinstance(default, bool)
        case "int" | "long":
            limit = 1 << _INTEGERS[kind]
            return type(default) is int and -limit <= default < limit
        case "float" | "double":
            return isinstance(default, int | float) and not isinstance(default, bool)
        case "string" | "bytes":
            return isinstance(default, str)
        case "fixed":
            return isinstance(default, str) and len(default) == avro["size"]
        case "enum":
            return default in avro["symbols"]
        case "array":
            return isinstance(default, list) and all(_fits(d, avro["items"]) for d in default)
        case "map":
            return isinstance(default, dict) and all(
                _fits(d, avro["values"]) for d in default.values()
            )
        case _:  # a record: its fields' own defaults fill what is left out
            return isinstance(default, dict)
