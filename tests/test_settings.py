"""Settings: which source wins, what is refused, and that every one of them is read."""

import re
from datetime import timedelta
from pathlib import Path

import pytest

from k2 import settings
from k2.cli.stores import access_of
from k2.errors import BadInput
from k2.log import Access
from k2.settings import load_settings, unknown_variables

SOURCE = Path(settings.__file__).parents[1]


def write(home: Path, text: str) -> None:
    (home / "k2.toml").write_text(text)


def test_defaults_lie_in_the_home(tmp_path: Path) -> None:
    found = load_settings(tmp_path, {})
    assert found.home == tmp_path
    assert found.log.url == f"sqlite:{tmp_path}/log.db"
    assert found.log.registry == f"embedded:{tmp_path}/registry.db"
    assert found.lake.folder == tmp_path / "lake"
    assert found.commit.interval == timedelta(seconds=1)
    assert found.log.retention_bytes is None
    assert found.feeds == ()


def test_later_sources_win_and_say_so(tmp_path: Path) -> None:
    write(tmp_path, 'serve_port = 1000\ncommit_rows = 5\nquery_memory = "2GiB"')
    found = load_settings(tmp_path, {"K2_SERVE_PORT": "2000", "K2_HOME": "/elsewhere"})
    assert found.home == tmp_path
    assert found.serve.port == 2000
    assert found.commit.rows == 5
    assert found.query.memory == 2 * 1024**3
    sources = {value.setting.name: value.source for value in found.values}
    assert sources["K2_HOME"] == "option --home"
    assert sources["K2_SERVE_PORT"] == "environment K2_SERVE_PORT"
    assert sources["K2_COMMIT_ROWS"] == f"file {tmp_path / 'k2.toml'}"
    assert sources["K2_LOG"] == "default"


def test_the_home_comes_from_option_environment_or_default(tmp_path: Path) -> None:
    assert load_settings(None, {}).home == Path("k2-home")
    found = load_settings(None, {"K2_HOME": str(tmp_path)})
    assert found.home == tmp_path
    assert found.lake.folder == tmp_path / "lake"


def test_a_list_is_a_list_in_the_file_and_words_in_the_environment(tmp_path: Path) -> None:
    write(tmp_path, 'feeds = ["simulator:?rate=10", "binance:BTCUSDT"]')
    assert load_settings(tmp_path, {}).feeds == ("simulator:?rate=10", "binance:BTCUSDT")
    assert load_settings(tmp_path, {"K2_FEEDS": " a: b: "}).feeds == ("a:", "b:")
    assert load_settings(tmp_path, {"K2_FEEDS": ""}).feeds == ()


def test_home_stands_for_itself_in_any_value(tmp_path: Path) -> None:
    write(tmp_path, 'lake = "{home}/elsewhere"')
    assert load_settings(tmp_path, {}).lake.folder == tmp_path / "elsewhere"


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("512MB", 512_000_000), ("2GiB", 2 * 1024**3), ("3 kb", 3000), ("10M", 10**7)],
)
def test_sizes(tmp_path: Path, text: str, size: int) -> None:
    assert load_settings(tmp_path, {"K2_QUERY_MEMORY": text}).query.memory == size


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("K2_SERVE_PORT", "http"),
        ("K2_SERVE_PORT", "65536"),
        ("K2_SERVE_PORT", "-1"),
        ("K2_LOG_PARTITIONS", "0"),
        ("K2_LOG_PARTITIONS", "1.5"),
        ("K2_COMMIT_INTERVAL_SECONDS", "-1"),
        ("K2_COMMIT_INTERVAL_SECONDS", "nan"),
        ("K2_COMMIT_BYTES", "12 apples"),
        ("K2_COMMIT_ROWS", ""),
        ("K2_LOG_RETENTION_DAYS", "99999999999"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(BadInput) as caught:
        load_settings(tmp_path, {name: text})
    assert name in (caught.value.place or "")
    assert caught.value.expected


def test_an_unknown_key_names_the_nearest(tmp_path: Path) -> None:
    write(tmp_path, "serve_prot = 1")
    with pytest.raises(BadInput, match="serve_prot") as caught:
        load_settings(tmp_path, {})
    assert "serve_port" in (caught.value.expected or "")
    assert str(tmp_path / "k2.toml") in (caught.value.place or "")


@pytest.mark.parametrize("text", ["= 1", "home = '/x'"])
def test_a_file_that_cannot_be(tmp_path: Path, text: str) -> None:
    write(tmp_path, text)
    with pytest.raises(BadInput, match=r"TOML|home"):
        load_settings(tmp_path, {})


def test_variables_that_set_nothing_are_named() -> None:
    found = unknown_variables({"K2_SERVE_PROT": "1", "K2_LOG": "x", "K2_TEST_X": "1", "PATH": ""})
    assert found == {"K2_SERVE_PROT": "K2_SERVE_PORT"}


GROUPS = {
    "log": settings.LogSettings,
    "lake": settings.LakeSettings,
    "commit": settings.CommitSettings,
    "serve": settings.ServeSettings,
    "query": settings.QuerySettings,
    "metrics": settings.MetricsSettings,
}


@pytest.mark.parametrize(
    "path",
    ["feeds", "writers", "clock_skew", "home"]
    + [f"{group}.{field}" for group, kind in GROUPS.items() for field in kind.__annotations__],
)
def test_every_setting_is_read(path: str) -> None:
    others = [p for p in SOURCE.rglob("*.py") if p.parent.name != "settings"]
    pattern = re.compile(rf"settings\.{re.escape(path)}\b")
    assert any(pattern.search(p.read_text("utf-8")) for p in others), f"{path} is never read"


def test_a_password_is_taken_and_never_shown(tmp_path: Path) -> None:
    found = load_settings(tmp_path, {"K2_LOG_PASSWORD": " s3cret {home} ", "K2_LOG_TLS": "on"})
    assert found.log.access.password == " s3cret {home} "
    assert found.log.access.tls
    assert not found.log.registry_access.tls
    assert "s3cret" not in repr(found)
    shown = {value.setting.name: value.text for value in found.values}
    assert shown["K2_LOG_PASSWORD"] == "set"
    assert shown["K2_REGISTRY_PASSWORD"] == ""


def test_a_switch_is_on_or_off(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="tls") as caught:
        load_settings(tmp_path, {"K2_REGISTRY_TLS": "perhaps"})
    assert caught.value.expected == "on or off"


def test_a_password_may_stand_in_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    environment = {"K2_LOG_USERNAME": "k2", "K2_LOG_PASSWORD_FILE": str(secret)}
    settings = load_settings(tmp_path, environment)
    with pytest.raises(BadInput, match="cannot be read"):
        access_of(settings.log.access)
    secret.write_text("s3cret\n")
    assert access_of(settings.log.access) == Access("k2", "s3cret")
    assert "s3cret" not in repr(access_of(settings.log.access))
    both = load_settings(tmp_path, {**environment, "K2_LOG_PASSWORD": "other"})
    with pytest.raises(BadInput, match="both"):
        access_of(both.log.access)
