"""`make demo-loop`: one turn of the loop, from the demo's labels to models that passed, or did not pass, a gate.

run.py         the program
qrelay.yaml    its settings
gate.yaml      its gate's rules
queries.jsonl  training queries beside the demo's own; nobody labelled them
frozen/        queries and labels on which a version must be better
guard/         the same over other modules, where it must not be worse
"""
