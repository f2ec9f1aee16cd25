"""An adapter is found by the scheme of its URL."""

from pathlib import Path

import pytest

from k2.errors import BadInput
from k2.log import open_log, open_registry


def test_a_path_alone_is_the_embedded_default(tmp_path: Path) -> None:
    for number, place in enumerate(("sqlite:{}", "{}")):
        log = open_log(place.format(tmp_path / "log.db"))
        log.create(f"t{number}", 1)
        log.close()
    log = open_log(tmp_path / "log.db")
    assert list(log.topics()) == ["t0", "t1"]
    log.close()
    for url in (f"embedded:{tmp_path}/registry.db", str(tmp_path / "a:b.db"), tmp_path / "c:d.db"):
        registry = open_registry(url)
        registry.register("s", {"type": "record", "name": "r", "fields": []})
        registry.close()
    names = {"log.db", "registry.db", "a:b.db", "c:d.db"}
    assert {path.name for path in tmp_path.iterdir()} == names


@pytest.mark.parametrize(
    "url", ["nothing:x", "port:x", "wire:x", "embedded:x", "sqlite:", "", "a b:c"]
)
def test_what_is_no_log_is_refused_before_anything_is_made(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput) as raised:
        open_log(url)
    assert "sqlite:FILE" in (raised.value.expected or "")
    assert list(tmp_path.iterdir()) == []
