"""The embedded engine at sizes that laptops and servers meet."""
