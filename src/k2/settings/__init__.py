"""What can be set: one table of every setting, and where its value comes from.

Later sources win: default, then `<home>/k2.toml`, then the environment, then an option. Only the
entry points read these; everything inside takes plain arguments or one of the groups.
"""

from k2.settings.load import (
    AccessSettings,
    CommitSettings,
    LakeSettings,
    LogSettings,
    MetricsSettings,
    QuerySettings,
    ServeSettings,
    Settings,
    Value,
    load_settings,
    unknown_variables,
)
from k2.settings.table import DEFAULT_HOME, FILE_NAME, SETTINGS, Setting

__all__ = [
    "DEFAULT_HOME",
    "FILE_NAME",
    "SETTINGS",
    "AccessSettings",
    "CommitSettings",
    "LakeSettings",
    "LogSettings",
    "MetricsSettings",
    "QuerySettings",
    "ServeSettings",
    "Setting",
    "Settings",
    "Value",
    "load_settings",
    "unknown_variables",
]
