"""What installs the real servers that tests and development need; no part of the package."""
