"""The reference page is that which the application's own description makes.

To write it anew: python -m tests.api.test_reference
"""

from pathlib import Path

from k2.api import create_app
from k2.api.reference import page
from tests.api.test_shape import Nothing

PAGE = Path(__file__).parents[2] / "docs" / "api.md"


def made() -> str:
    return page(create_app(Nothing(), dict, audit_seconds=None).openapi())


def test_page_is_that_of_the_application() -> None:
    assert PAGE.read_text("utf-8") == made(), "python -m tests.api.test_reference writes it anew"


if __name__ == "__main__":
    PAGE.write_text(made(), "utf-8")
