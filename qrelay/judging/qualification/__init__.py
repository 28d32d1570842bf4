"""How good is a judge? Its labels beside people's: `table` gathers, `fitting` calibrates, `verdicts` decides."""
