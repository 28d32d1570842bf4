"""Who may connect, who asks, and what they may do."""
