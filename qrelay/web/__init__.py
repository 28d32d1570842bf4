"""For people and programs over HTTP: the console's pages, the JSON API and the MCP server, in one process."""
