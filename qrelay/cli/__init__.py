"""The command line: a module a command, and one lazy table of them in `main.py`."""
