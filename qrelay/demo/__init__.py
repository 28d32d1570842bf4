"""`qrelay demo`: the main job, whole and real, on this machine."""
