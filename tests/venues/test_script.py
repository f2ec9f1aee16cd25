"""Scripts: read, written, drawn; and what is wrong with one is told with its place."""

import pytest

from k2.errors import BadInput
from k2.venues import FAULTS, Fault, random_script, read_script, write_script


def test_a_script_is_read() -> None:
    text = """
    [[fault]]
    at = 2.5
    fault = "disconnect"
    seconds = 1

    [[fault]]
    at_message = 500
    fault = "skip"
    count = 3
    lost = true
    symbol = "BTCUSDT"
    """
    assert read_script(text) == (
        Fault("disconnect", at=2.5, seconds=1.0),
        Fault("skip", at_message=500, count=3, lost=True, symbol="BTCUSDT"),
    )


@pytest.mark.parametrize("seed", range(20))
def test_a_drawn_script_can_be_written_and_read_again(seed: int) -> None:
    drawn = random_script(seed, 40, 600)
    assert read_script(write_script(drawn)) == drawn
    assert drawn == random_script(seed, 40, 600)
    assert drawn != random_script(seed + 1, 40, 600)
    assert {fault.fault for fault in drawn} == set(FAULTS)
    assert all(0 < (fault.at or 0) < 600 for fault in drawn)


def test_faults_to_draw_from_can_be_chosen() -> None:
    drawn = random_script(3, 7, 10, ["disconnect", "silence"])
    assert sorted(f.fault for f in drawn).count("disconnect") in (3, 4)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[[fault]", "TOML"),
        ("fault = 3", "tables"),
        ('[[fault]]\nat = 1\nfault = "disconect"', "disconect"),
        ('[[fault]]\nfault = "disconnect"', "fault 1.at"),
        ('[[fault]]\nat = 1\nat_message = 2\nfault = "disconnect"', "fault 1.at"),
        ('[[fault]]\nat = 1\nfault = "disconnect"\ncount = 2', "fault 1.count"),
        ('[[fault]]\nat = "x"\nfault = "disconnect"', "seconds"),
        ('[[fault]]\nat = -1\nfault = "disconnect"', "seconds"),
        ('[[fault]]\nat = nan\nfault = "disconnect"', "seconds"),
        ('[[fault]]\nat = 1\nfault = "skip"\nkind = "orders"', "fault 1.kind"),
        ("fualt = 3", "fualt"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str, told: str) -> None:
    with pytest.raises(BadInput) as caught:
        read_script(text, "faults.toml")
    assert told in str(caught.value)
    assert caught.value.place is not None
    assert caught.value.place.startswith("faults.toml")
