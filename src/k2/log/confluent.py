"""A schema registry that speaks Confluent's protocol: `confluent:http://HOST:PORT[/PATH]`.

Several addresses of one registry stand behind each other, with commas. It is reached when it is
first used; each request is tried three times.
"""

import json
import ssl
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

# Its client uses httpx2 where that is installed and httpx otherwise; errors are the one's it used.
from confluent_kafka.schema_registry.common._httpx_compat import httpx
from confluent_kafka.schema_registry.error import SchemaRegistryError

from k2.errors import BadInput, K2Error, NotFound, Refused, Unavailable
from k2.log.causes import away
from k2.log.evolution import canonical, objections, refuse
from k2.log.port import Access, Registered

_ATTEMPT_SECONDS: Final = 5.0
_RETRY_AFTER_SECONDS: Final = 1.0
_UNKNOWN: Final = frozenset({40401, 40402, 40403, 40408})
_INVALID_SCHEMA: Final = frozenset({42201})
_AWAY: Final = frozenset({408, 429})
_CUT_OFF: Final = (ssl.SSLEOFError, ssl.SSLZeroReturnError)

_Answer = TypeVar("_Answer")


def open_registry(rest: str, access: Access | None = None) -> "ConfluentRegistry":
    """The registry at the addresses `rest`, signed in to by `access`.

    Without a `ca` those are trusted whom SSL_CERT_FILE or SSL_CERT_DIR names, or else the public
    authorities that the package certifi lists. Raises `BadInput` for what cannot work.
    """
    return ConfluentRegistry(rest, access or Access())


class ConfluentRegistry:
    """`k2.log.port.Registry` on a server; a subject that K2 makes gets BACKWARD as its level.

    The server's rule and K2's own (that Iceberg can make the same change) both hold when a schema
    is registered. Two that register at the same moment are both held to the server's rule, and to
    K2's against the version that each found.
    """

    def __init__(self, addresses: str, access: Access) -> None:
        self._place = addresses
        self._signed_in = access.username is not None
        configuration = _configuration(addresses, access)
        try:
            self._client = SchemaRegistryClient(configuration)
        except (OSError, ValueError) as error:
            raise BadInput(
                "the certificates for the registry cannot be used",
                place=addresses,
                found=str(error),
                expected="PEM files; a key goes with a certificate",
            ) from error
        self._schemas: dict[int, Mapping[str, Any]] = {}  # an id never changes its meaning

    def register(self, subject: str, schema: Mapping[str, Any]) -> int:
        """The schema's id, made if new; raises as the port says, with the registry's reason."""
        text = canonical(schema)
        before = self._versions(subject)
        if (known := _find(before, text)) is not None:
            return known
        if before:
            refuse(subject, before[-1], objections(schema, before[-1].schema))
        else:
            self._keep_backward(subject)
        return self._ask(
            lambda: self._client.register_schema(subject, _avro(schema)),
            place=f"subject {subject}",
        )

    def check(self, subject: str, schema: Mapping[str, Any]) -> list[str]:
        """Why the schema could not be the subject's next version; empty if it could, or is one."""
        text = canonical(schema)
        before = self._versions(subject)
        if not before or _find(before, text) is not None:
            return []
        if found := objections(schema, before[-1].schema):
            return found
        fits = self._ask(
            lambda: self._client.test_compatibility(subject, _avro(schema)),
            place=f"subject {subject}",
        )
        return [] if fits else ["the registry finds it incompatible with the subject's level"]

    def schema(self, schema_id: int) -> Mapping[str, Any]:
        """The schema with this id; `NotFound` if there is none, or none that K2 can read."""
        if (known := self._schemas.get(schema_id)) is None:
            found = self._ask(lambda: self._client.get_schema(schema_id))
            known = self._parse(found, f"schema {schema_id}")
            self._schemas[schema_id] = known
        return known

    def versions(self, subject: str) -> list[Registered]:
        """All versions of the subject, oldest first; `NotFound` if there is none."""
        # What the client remembers of a subject would outlive the subject.
        self._client.clear_caches()  # type: ignore[no-untyped-call]  # unannotated
        numbers = self._ask(lambda: sorted(self._client.get_versions(subject)))
        return [self._version(subject, number) for number in numbers]

    def subjects(self) -> list[str]:
        """All subjects, sorted."""
        return self._ask(lambda: sorted(self._client.get_subjects()))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _versions(self, subject: str) -> list[Registered]:
        try:
            return self.versions(subject)
        except NotFound:
            return []

    def _version(self, subject: str, number: int) -> Registered:
        found = self._ask(lambda: self._client.get_version(subject, number))
        if found.schema_id is None:
            raise self._stranger(f"version {number} of {subject} has no id")
        schema = self._parse(found.schema, f"subject {subject}, version {number}")
        return Registered(found.schema_id, subject, number, schema)

    def _keep_backward(self, subject: str) -> None:
        """See to it that the server itself refuses what breaks readers, whoever registers it."""
        if self._level(subject) != "NONE":
            return
        try:
            self._ask(
                lambda: self._client.set_compatibility(subject, "BACKWARD"),
                place=f"subject {subject}",
            )
        except Refused:
            # Seen from Apicurio: another who set it at the same moment came first.
            if self._level(subject) == "NONE":
                raise

    def _level(self, subject: str) -> str:
        try:
            return self._ask(lambda: self._client.get_compatibility(subject))
        except NotFound:
            return "NONE"

    def _parse(self, found: Schema, place: str) -> Mapping[str, Any]:
        if found.schema_type not in (None, "AVRO"):
            raise NotFound(f"{place} is {found.schema_type}, not Avro", place=self._place)
        if found.references:
            raise NotFound(
                f"{place} refers to other schemas, which K2 does not follow", place=self._place
            )
        try:
            parsed = json.loads(found.schema_str or "")
        except ValueError as error:
            raise NotFound(f"{place} is no Avro schema: {error}", place=self._place) from error
        # "string" and ["null", "string"] are schemas too, of messages that are no records.
        return parsed if isinstance(parsed, dict) else {"type": parsed}

    def _ask(self, question: Callable[[], _Answer], *, place: str | None = None) -> _Answer:
        try:
            return question()
        except SchemaRegistryError as error:
            raise self._refusal(error, place or self._place) from error
        except httpx.HTTPError as error:
            raise self._silence(error) from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            # The client takes for granted that an answer has the form that it expects.
            raise self._stranger(f"its answer makes no sense ({error})") from error

    def _refusal(self, error: SchemaRegistryError, place: str) -> K2Error:
        status, code = error.http_status_code, error.error_code
        reason = " ".join(str(error.error_message).split())
        if status == 401:
            expected = "the right ones" if self._signed_in else "both: none were given"
            return Refused(
                "the registry does not accept the user name and password",
                place=self._place,
                expected=expected,
                hint="K2_REGISTRY_USERNAME and K2_REGISTRY_PASSWORD are sent to it",
            )
        if status == 403:
            return Refused("the registry does not allow this to this user", place=place)
        if code in _UNKNOWN:
            return NotFound(reason, place=self._place)
        if code in _INVALID_SCHEMA:
            return BadInput(f"the registry finds no schema in it: {reason}", place=place)
        if status >= 500 or status in _AWAY:
            return Unavailable(
                f"the registry cannot answer now: {reason}",
                retry_after=_RETRY_AFTER_SECONDS,
                place=self._place,
            )
        if status == 404:
            # Not an answer about a schema: a record must not be rejected for a wrong address.
            return self._stranger(reason or "it knows nothing at this address (404)")
        return Refused(f"the registry refuses it: {reason}", place=place)

    def _silence(self, error: Exception) -> K2Error:
        reason: BaseException | None = error
        while reason is not None:
            if isinstance(reason, ssl.SSLError) and not isinstance(reason, _CUT_OFF):
                return Refused(
                    "no trusted connection to the registry",
                    place=self._place,
                    found=str(reason),
                    hint="K2_REGISTRY_CA names the PEM file of those who vouch for its certificate",
                )
            reason = reason.__cause__ or reason.__context__
        return away("the registry", str(error) or type(error).__name__, self._place)

    def _stranger(self, reason: str) -> Unavailable:
        return Unavailable(
            f"what answers is no schema registry: {reason}",
            retry_after=_RETRY_AFTER_SECONDS,
            place=self._place,
            hint="is the path right? Apicurio's, for one, is /apis/ccompat/v7",
        )


def _configuration(addresses: str, access: Access) -> dict[str, Any]:
    """The client's own settings. Raises `BadInput` for what cannot work or would tell a secret."""
    encrypted = access.tls or access.ca is not None or access.certificate is not None
    for address in addresses.split(","):
        parts = urlsplit(address.strip())
        if parts.username is not None:
            # Without the address: the password in it would be printed.
            raise BadInput(
                "the registry's address holds a user name",
                hint="name and password have settings of their own",
            )
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise BadInput(
                "this is no address of a schema registry",
                found=address,
                expected="such as http://HOST:PORT/path",
            )
        if encrypted and parts.scheme == "http":
            raise BadInput(
                "the settings ask for TLS, but the registry's address is a plain one",
                found=address,
                expected="https://…",
            )
    found: dict[str, Any] = {
        "url": addresses,
        # The client itself would wait for ever.
        "timeout": _ATTEMPT_SECONDS,
        "max.retries": 2,
        "retries.wait.ms": 200,
        "retries.max.wait.ms": 1000,
    }
    if access.username is not None:
        if ":" in access.username:
            raise BadInput("a user name with a colon cannot be sent", found=access.username)
        found["basic.auth.user.info"] = f"{access.username}:{access.password or ''}"
    files = {
        "ssl.ca.location": access.ca,
        "ssl.certificate.location": access.certificate,
        "ssl.key.location": access.key,
    }
    for name, path in files.items():
        if path is not None:
            if not path.is_file():
                raise BadInput("there is no such file", place=str(path))
            found[name] = str(path)
    return found


def _avro(schema: Mapping[str, Any]) -> Schema:
    # Its kind in so many words: some servers guess it otherwise.
    return Schema(json.dumps(dict(schema)), "AVRO")


def _find(versions: list[Registered], text: str) -> int | None:
    """Id of the version whose canonical text this is."""
    for each in versions:
        try:
            if canonical(each.schema) == text:
                return each.id
        except BadInput:  # no record: somebody else's, and never the one sought
            continue
    return None
