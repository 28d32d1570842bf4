"""Who may connect, and how nobody else can listen."""
