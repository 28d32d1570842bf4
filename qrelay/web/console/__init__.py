"""The console's pages for people, one folder a subject."""
