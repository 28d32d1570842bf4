"""Engines that answer prompts with log-probabilities or text. Protocol: `base.Backend`."""
