"""The commands, a file each: `<name>.py` holds `command`; its docstring's first line says what it
does. A new command is a new file here.
"""
