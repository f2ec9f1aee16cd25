"""The reference pages are those that the commands and settings make.

To write them anew: python -m tests.cli.test_reference
"""

from pathlib import Path

import pytest

from k2.cli import reference

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {
    "cli.md": reference.cli_page,
    "settings.md": reference.settings_page,
    "metrics.md": reference.metrics_page,
}


@pytest.mark.parametrize("name", PAGES)
def test_page_is_as_the_code_makes_it(name: str) -> None:
    written = (DOCS / name).read_text("utf-8")
    assert written == PAGES[name](), "python -m tests.cli.test_reference writes it anew"


def write() -> None:
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), "utf-8")


if __name__ == "__main__":
    write()
