"""Which labels count and which are meant: precedence, overrides, conditions, qualification."""
