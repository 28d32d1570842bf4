"""Asking HTTP endpoints: one connection with its pace, retries, refusals and limits, whatever is asked."""
