"""The JSON API: one table of operations (`operations.py`), from which routes, OpenAPI and MCP's tools are made."""
