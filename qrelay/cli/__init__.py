"""The command line. Each command is a module; `main.py` mounts them, and those that services bring."""
